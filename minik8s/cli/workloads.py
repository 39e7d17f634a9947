"""Verbs for workloads: scale, autoscale, and rollout with its own verbs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from minik8s.api.autoscaling import looked_at_every
from minik8s.api.errors import Conflict, Gone, NotFound
from minik8s.cli import rollouts, targets
from minik8s.cli.connection import Cluster
from minik8s.cli.printing import Layout, echo
from minik8s.cli.targets import Target
from minik8s.cli.verb import (
    Verb,
    cluster_options,
    complete_targets,
    dry_run_option,
    duration,
    files_option,
    output_option,
    recursive_option,
    selector_option,
    verb,
)  # fmt: skip
from minik8s.cli.wire import MERGE, STRATEGIC
from minik8s.cli.write import Writing, wanted_of

Json = dict[str, Any]
ROLLING = ("deployments", "daemonsets", "statefulsets")


@verb()
@click.argument("words", metavar="KIND NAME", nargs=-1, shell_complete=complete_targets)
@click.option("--replicas", type=click.IntRange(min=0), required=True, help="How many there shall be.")
@click.option("--current-replicas", type=int, default=-1, help="Only if there are this many now.")
@click.option("--resource-version", default="", help="Only if the object has this version.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@selector_option
@files_option
@recursive_option
@output_option
@dry_run_option
def scale(cluster: Cluster, words: tuple[str, ...], replicas: int, current_replicas: int, **options: Any) -> None:
    """Set the number of replicas: scale deploy web --replicas=3."""
    writing = Writing(cluster, output=options["output"], dry_run=options["dry_run"])
    wanted = wanted_of(
        cluster, words, options["filenames"], options["selector"], recursive=options["recursive"],
        everything=options["everything"],
    )  # fmt: skip

    def act(target: Target) -> None:
        path = _scale_path(target)
        held = cluster.wire.get(path)
        count = (held.get("spec") or {}).get("replicas", 0)
        if current_replicas not in (-1, count):
            raise Conflict(
                f"{target.text} has {count} replicas, not the {current_replicas} that --current-replicas expects"
            )
        change: Json = {"spec": {"replicas": replicas}}
        if options["resource_version"]:
            change["metadata"] = {"resourceVersion": options["resource_version"]}
        if options["dry_run"] != "client":
            held = cluster.wire.send("PATCH", path, change, writing.query, content_type=MERGE)
        writing.told(target, held, "scaled")

    writing.each(wanted, act, "scaling")


def _scale_path(target: Target) -> str:
    if "scale" not in target.kind.subresources:
        raise click.ClickException(f"{target.kind.name} cannot be scaled: they have no number of replicas to set")
    return target.kind.path(target.namespace, target.name, "scale")


@verb()
@click.argument("words", metavar="NAME --target=KIND/NAME | KIND NAME", nargs=-1, shell_complete=complete_targets)
@click.option("--target", "aim", default="", help="What to scale: deploy/web")
@click.option("--min", "least", type=click.IntRange(min=1), default=1, show_default=True, help="Fewest replicas.")
@click.option("--max", "most", type=click.IntRange(min=1), required=True, help="Most replicas.")
@click.option("-c", "--cpu", "--cpu-percent", type=click.IntRange(min=1), help="Wanted CPU, in percent of the request.")
@click.option("-m", "--memory", "--memory-percent", type=click.IntRange(min=1), help="Wanted memory, likewise.")
@click.option("-i", "--interval", type=click.IntRange(1, 1800), help="Seconds in which at most one pod comes or goes.")
@click.option("--name", default="", help="Name of the autoscaler (default: that of what it scales).")
@output_option
@dry_run_option
def autoscale(cluster: Cluster, words: tuple[str, ...], aim: str, output: str, dry_run: str, **options: Any) -> None:
    """Scale a workload by what it uses: autoscale web --target=deploy/web --min 1 --max 4 -c 50 -i 15."""
    if options["least"] > options["most"]:
        raise click.ClickException(f"--min ({options['least']}) is greater than --max ({options['most']})")
    target, name = _aim(cluster, words, aim, options["name"])
    _scale_path(target)
    cluster.wire.get(target.path)  # NotFound names it
    kind = cluster.kinds.find("horizontalpodautoscalers.v2.autoscaling")
    obj = autoscaler(name, target, options)
    writing = Writing(cluster, output=output, dry_run=dry_run)
    if dry_run != "client":
        obj = cluster.wire.send("POST", kind.path(target.namespace), obj, writing.query)
    made = Target(kind, name, target.namespace)
    writing.told(made, obj, "autoscaled")
    writing.finish()


def _aim(cluster: Cluster, words: Sequence[str], aim: str, name: str) -> tuple[Target, str]:
    """What is scaled, and the autoscaler's name."""
    if aim:
        found = targets.parse(cluster, [aim] if "/" in aim else aim.split())
        if len(words) > 1:
            raise click.ClickException(f"one name is expected with --target, there are {len(words)}")
        name = name or (words[0] if words else "")
    else:
        found = targets.parse(cluster, words)
    if len(found) != 1 or not found[0].name:
        raise click.ClickException("say what to scale: --target=KIND/NAME, or KIND NAME")
    return found[0], name or found[0].name


def autoscaler(name: str, target: Target, options: dict[str, Any]) -> Json:
    """An autoscaling/v2 HorizontalPodAutoscaler; 80 % of CPU where nothing is said, as in Kubernetes."""
    goals = {"cpu": options["cpu"], "memory": options["memory"]}
    if not any(goals.values()):
        goals["cpu"] = 80
    spec: Json = {
        "scaleTargetRef": {"apiVersion": target.kind.api_version, "kind": target.kind.kind, "name": target.name},
        "minReplicas": options["least"],
        "maxReplicas": options["most"],
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": what, "target": {"type": "Utilization", "averageUtilization": goal}},
            }
            for what, goal in goals.items()
            if goal
        ],
    }  # fmt: skip
    if options["interval"]:
        pace = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": options["interval"]}]}
        spec["behavior"] = {"scaleUp": pace, "scaleDown": {**pace, "stabilizationWindowSeconds": options["interval"]}}
    metadata: Json = {"name": name, "namespace": target.namespace}
    if options["interval"]:
        metadata = looked_at_every(options["interval"], metadata)
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}


# -- rollout


@click.group()
def rollout() -> None:
    """Watch, restart, pause, undo the rollout of a Deployment, DaemonSet or StatefulSet."""


def _rollout_verb(function: Callable[..., Any]) -> Verb:
    """A verb of `rollout` over `words`, `selector` and files."""
    for option in (
        click.argument("words", metavar="KIND NAME", nargs=-1, shell_complete=complete_targets),
        files_option,
        selector_option,
    ):
        function = option(function)
    made = click.command(cls=Verb)(cluster_options(function))
    rollout.add_command(made)
    return made


def _rolling(cluster: Cluster, words: Sequence[str], filenames: Sequence[str], selector: str) -> list[Target]:
    found = wanted_of(cluster, words, filenames, selector, everything=not words)
    for target in found:
        if target.kind.plural not in ROLLING:
            raise click.ClickException(
                f"{target.kind.name} have no rollout; deployments, daemonsets and statefulsets do"
            )
    return found


@_rollout_verb
@click.option("-w", "--watch/--no-watch", default=True, help="Wait until it has ended.")
@click.option("--timeout", default="0s", help="How long to wait; 0s: for ever.")
@click.option("--revision", type=int, default=0, help="Only while this is the newest revision.")
def status(
    cluster: Cluster, words: tuple[str, ...], filenames: tuple[str, ...], selector: str, watch: bool, timeout: str,
    revision: int,
) -> None:  # fmt: skip
    """Tell how far a rollout is, until it has ended."""
    for target in _rolling(cluster, words, filenames, selector):
        deadline = time.monotonic() + (duration(timeout) or float("inf"))
        try:
            _follow(cluster, target, deadline, revision, once=not watch)
        except TimeoutError:
            raise click.ClickException("timed out waiting for the condition") from None


def _follow(cluster: Cluster, target: Target, deadline: float, revision: int, *, once: bool) -> None:
    said = ""
    while True:
        obj = cluster.wire.get(target.path)
        while True:
            found = rollouts.progress(obj, revision)
            if found.text != said:
                echo(f"{found.text}\n")
                said = found.text
            if found.failed:
                raise click.ClickException(found.failed)
            if found.done or once:
                return
            obj = _next(cluster, target, obj, deadline)


def _next(cluster: Cluster, target: Target, obj: Json, deadline: float) -> Json:
    """The object when it has changed. TimeoutError at the deadline, NotFound when it is deleted."""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        query = {"fieldSelector": f"metadata.name={target.name}", "resourceVersion": obj["metadata"]["resourceVersion"]}
        path = target.kind.path(target.namespace)
        try:
            for event in cluster.wire.events(path, query, timeout=None if left == float("inf") else left):
                if event["type"] == "DELETED":
                    raise NotFound(f'{target.kind.name} "{target.name}" not found: it has been deleted')
                changed: Json = event["object"]
                return changed
        except Gone:
            return cluster.wire.get(target.path)
        time.sleep(0.2)


@_rollout_verb
@click.option("--revision", type=int, default=0, help="Show all of one revision.")
def history(cluster: Cluster, words: tuple[str, ...], filenames: tuple[str, ...], selector: str, revision: int) -> None:
    """List the revisions that can be gone back to."""
    for target in _rolling(cluster, words, filenames, selector):
        revisions = rollouts.revisions(cluster, target)
        if revision:
            found = rollouts.revision_of(revisions, revision, target)
            from minik8s.cli.yaml_write import to_yaml

            echo(f"{target.text} with revision #{found.number}\nPod Template:\n")
            echo("".join(f"  {line}\n" for line in to_yaml(found.template).splitlines()))
            continue
        rows = [["REVISION", "CHANGE-CAUSE"], *([str(r.number), r.cause or "<none>"] for r in revisions)]
        echo(f"{target.text}\n{Layout().lines(rows, heading=True)}\n")


@_rollout_verb
@click.option(
    "--to-revision", type=click.IntRange(min=0), default=0, help="The one to go back to; 0: the last but one."
)
@dry_run_option
def undo(
    cluster: Cluster, words: tuple[str, ...], filenames: tuple[str, ...], selector: str, to_revision: int, dry_run: str
) -> None:
    """Go back to an earlier revision."""
    writing = Writing(cluster, dry_run=dry_run)

    def act(target: Target) -> None:
        obj = cluster.wire.get(target.path)
        if (obj["spec"] or {}).get("paused"):
            raise Conflict(f'{target.text} is paused: "minik8s rollout resume" it before it can go back')
        back = rollouts.revision_of(rollouts.revisions(cluster, target), to_revision, target)
        if rollouts.same_template(back.template, obj["spec"]["template"]):
            writing.told(target, obj, f"skipped rollback (current template already matches revision {back.number})")
            return
        if dry_run != "client":
            change = [{"op": "replace", "path": "/spec/template", "value": back.template}]
            from minik8s.cli.wire import JSON_PATCH

            obj = cluster.wire.send("PATCH", target.path, change, writing.query, content_type=JSON_PATCH)
        writing.told(target, obj, "rolled back")

    writing.each(_rolling(cluster, words, filenames, selector), act, "rolling back")


@_rollout_verb
def restart(cluster: Cluster, words: tuple[str, ...], filenames: tuple[str, ...], selector: str) -> None:
    """Replace all pods by new ones, as in an update."""
    from minik8s.clock import rfc3339

    annotations = {"kubectl.kubernetes.io/restartedAt": rfc3339(time.time())}
    change = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    _change(cluster, _rolling(cluster, words, filenames, selector), change, "restarted", paused=False)


@_rollout_verb
def pause(cluster: Cluster, words: tuple[str, ...], filenames: tuple[str, ...], selector: str) -> None:
    """Let changes of a Deployment wait until it is resumed."""
    wanted = _rolling(cluster, words, filenames, selector)
    _change(cluster, wanted, {"spec": {"paused": True}}, "paused", paused=False)


@_rollout_verb
def resume(cluster: Cluster, words: tuple[str, ...], filenames: tuple[str, ...], selector: str) -> None:
    """Go on with a paused Deployment."""
    wanted = _rolling(cluster, words, filenames, selector)
    _change(cluster, wanted, {"spec": {"paused": None}}, "resumed", paused=True)


def _change(cluster: Cluster, wanted: Sequence[Target], change: Json, done: str, *, paused: bool) -> None:
    """Patch objects that must (not) be paused for it."""
    writing = Writing(cluster)

    def act(target: Target) -> None:
        if done != "restarted" and target.kind.plural != "deployments":
            raise click.ClickException(f"{target.text}: only deployments can be {done}")
        is_paused = bool(cluster.wire.get(target.path)["spec"].get("paused"))
        if is_paused != paused:
            why = (
                "is paused: resume it first"
                if done == "restarted"
                else f"is {'already' if is_paused else 'not'} paused"
            )
            raise Conflict(f"{target.text} {why}")
        obj = cluster.wire.send("PATCH", target.path, change, writing.query, content_type=STRATEGIC)
        writing.told(target, obj, done)

    writing.each(wanted, act, "changing")
