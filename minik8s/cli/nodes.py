"""Verbs for nodes and the running cluster: cordon, uncordon, drain, taint, cfg."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from minik8s.api.errors import AlreadyExists, Conflict, NotFound
from minik8s.cli import targets, unknown
from minik8s.cli.connection import Cluster
from minik8s.cli.printing import Layout, echo
from minik8s.cli.targets import Target
from minik8s.cli.verb import (
    complete_nodes,
    complete_targets,
    dry_run_option,
    duration,
    selector_option,
    verb,
)  # fmt: skip
from minik8s.cli.wire import MERGE
from minik8s.cli.write import Writing, list_of

Json = dict[str, Any]
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
CONFIG_NAMESPACE, CONFIG_NAME = "kube-system", "minik8s-config"


def nodes_of(cluster: Cluster, names: Sequence[str], selector: str, *, everything: bool = False) -> list[Target]:
    if names and selector:
        raise click.ClickException("a name and a selector cannot be given together")
    if names:
        return targets.of_one_kind(cluster, names, "nodes")
    if not (selector or everything):
        raise click.ClickException("name the nodes, or select them with -l")
    return list_of(cluster, [Target(cluster.kinds.find("nodes"), "", None)], selector)


@verb()
@click.argument("names", metavar="NODE", nargs=-1, shell_complete=complete_nodes)
@selector_option
@dry_run_option
def cordon(cluster: Cluster, names: tuple[str, ...], selector: str, dry_run: str) -> None:
    """Let no new pods onto nodes."""
    _cordon(cluster, nodes_of(cluster, names, selector), dry_run, unschedulable=True)


@verb()
@click.argument("names", metavar="NODE", nargs=-1, shell_complete=complete_nodes)
@selector_option
@dry_run_option
def uncordon(cluster: Cluster, names: tuple[str, ...], selector: str, dry_run: str) -> None:
    """Let pods onto nodes again."""
    _cordon(cluster, nodes_of(cluster, names, selector), dry_run, unschedulable=False)


def _cordon(cluster: Cluster, wanted: Sequence[Target], dry_run: str, *, unschedulable: bool) -> None:
    writing = Writing(cluster, dry_run=dry_run)
    done = "cordoned" if unschedulable else "uncordoned"

    def act(target: Target) -> None:
        node = cluster.wire.get(target.path)
        if bool((node.get("spec") or {}).get("unschedulable")) == unschedulable:
            writing.told(target, node, f"already {done}")
            return
        if dry_run != "client":
            change = {"spec": {"unschedulable": True if unschedulable else None}}
            cluster.wire.send("PATCH", target.path, change, writing.query, content_type=MERGE)
        writing.told(target, node, done)

    writing.each(wanted, act, "changing")


@verb()
@click.argument("names", metavar="NODE", nargs=-1, shell_complete=complete_nodes)
@selector_option
@click.option("--ignore-daemonsets", is_flag=True, help="Leave pods of DaemonSets where they are.")
@click.option("--delete-emptydir-data", is_flag=True, help="Pods may lose what is in their emptyDir volumes.")
@click.option("--force", is_flag=True, help="Also pods that nothing will start again.")
@click.option("--disable-eviction", is_flag=True, help="Delete pods, whatever their disruption budget says.")
@click.option("--grace-period", type=int, default=-1, help="Seconds that pods are given to end.")
@click.option("--timeout", default="0s", help="How long to try; 0s: for ever.")
@click.option("--pod-selector", default="", help="Only pods with these labels.")
@dry_run_option
def drain(cluster: Cluster, names: tuple[str, ...], selector: str, dry_run: str, **options: Any) -> None:
    """Move pods away from nodes, respecting disruption budgets, and let no new ones come."""
    from minik8s.cli.drain import Draining

    wanted = nodes_of(cluster, names, selector)
    for target in wanted:
        cluster.wire.get(target.path)
    _cordon(cluster, wanted, dry_run, unschedulable=True)
    for target in wanted:
        Draining(cluster, target, options, timeout=duration(options["timeout"]), dry_run=dry_run).run()


@verb()
@click.argument(
    "words", metavar="nodes NODE KEY=VALUE:EFFECT|KEY:EFFECT-|KEY-...", nargs=-1, shell_complete=complete_targets
)
@selector_option
@click.option("--all", "everything", is_flag=True, help="All nodes.")
@click.option("--overwrite", is_flag=True, help="Change taints that are there already.")
@dry_run_option
def taint(
    cluster: Cluster, words: tuple[str, ...], selector: str, everything: bool, overwrite: bool, dry_run: str
) -> None:
    """Set or remove nodes' taints: taint nodes n1 gpu=yes:NoSchedule old-."""
    names = [word for word in words if not _is_change(word)]
    if names and cluster.kinds.find(names[0].partition("/")[0]).plural == "nodes":
        names = names[1:] if "/" not in names[0] else names
    changes = [word for word in words if _is_change(word)]
    if not changes:
        raise click.ClickException("say what to change: KEY=VALUE:EFFECT to set, KEY:EFFECT- or KEY- to remove")
    added, removed = parse_taints(changes)
    writing = Writing(cluster, dry_run=dry_run)

    def act(target: Target) -> None:
        node = cluster.wire.get(target.path)
        held = (node.get("spec") or {}).get("taints") or []
        taints, done = retaint(held, added, removed, overwrite=overwrite, node=target.name)
        if dry_run != "client":
            version = {"resourceVersion": node["metadata"]["resourceVersion"]}
            change = {"metadata": version, "spec": {"taints": taints or None}}
            node = cluster.wire.send("PATCH", target.path, change, writing.query, content_type=MERGE)
        writing.told(target, node, done)

    writing.each(nodes_of(cluster, names, selector, everything=everything), act, "changing")


def _is_change(word: str) -> bool:
    return word.endswith("-") or ":" in word or "=" in word


def parse_taints(words: Sequence[str]) -> tuple[list[Json], list[tuple[str, str]]]:
    """(taints to set, (key, effect or "") to remove). ClickException for what is neither."""
    added: list[Json] = []
    removed: list[tuple[str, str]] = []
    for word in words:
        rest, colon, effect = word.removesuffix("-").partition(":")
        key, equals, value = rest.partition("=")
        removing = word.endswith("-")
        if effect not in EFFECTS and (colon or not removing):
            hint = f"{unknown('effect', effect, EFFECTS)}" if effect else "an effect is missing"
            raise click.ClickException(f'"{word}": {hint}; effects are {", ".join(EFFECTS)}')
        if not key:
            raise click.ClickException(f'"{word}": a key is missing')
        if removing:
            removed.append((key, effect))
        else:
            added.append({"key": key, **({"value": value} if equals and value else {}), "effect": effect})
    return added, removed


def retaint(
    held: Sequence[Json], added: Sequence[Json], removed: Sequence[tuple[str, str]], *, overwrite: bool, node: str
) -> tuple[list[Json], str]:
    """The taints after the change, and what to call it."""
    for key, effect in removed:
        if not any(t["key"] == key and effect in ("", t["effect"]) for t in held):
            raise click.ClickException(f'node/{node} has no taint "{key}{":" if effect else ""}{effect}"')
    ours = {(t["key"], t["effect"]) for t in added}
    doubles = [t for t in held if (t["key"], t["effect"]) in ours]
    if doubles and not overwrite:
        raise Conflict(
            f"node/{node} has the taint {doubles[0]['key']}:{doubles[0]['effect']} already; --overwrite changes it"
        )
    kept = [
        t for t in held
        if (t["key"], t["effect"]) not in ours and not any(t["key"] == k and e in ("", t["effect"]) for k, e in removed)
    ]  # fmt: skip
    done = "modified" if (added and removed) or doubles else "tainted" if added else "untainted"
    return [*kept, *added], done


# -- cfg


class Setting:
    """One setting of the running cluster, a key of the ConfigMap kube-system/minik8s-config."""

    def __init__(self, default: str, choices: Sequence[str], help: str) -> None:
        self.default, self.choices, self.help = default, choices, help


def settings() -> dict[str, Setting]:
    from minik8s.scheduler.strategies import DEFAULT, STRATEGIES

    return {"sched": Setting(DEFAULT.name, sorted(STRATEGIES), "How the scheduler chooses among nodes that fit.")}


@verb()
@click.argument("words", metavar="[NAME[=VALUE]|NAME-]...", nargs=-1)
def cfg(cluster: Cluster, words: tuple[str, ...]) -> None:
    """Show and change settings of the running cluster: cfg, cfg sched, cfg sched=round-robin, cfg sched-."""
    known = settings()
    changes: dict[str, str | None] = {}
    shown: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        name = name.removesuffix("-") if not equals else name
        if name not in known:
            raise click.ClickException(f"{unknown('setting', name, list(known))}; there are: {', '.join(known)}")
        if equals and value not in known[name].choices:
            choices = ", ".join(known[name].choices)
            raise click.ClickException(
                f"{unknown(f'value of {name}', value, known[name].choices)}; there are: {choices}"
            )
        if equals or word.endswith("-"):
            changes[name] = value if equals else None
        else:
            shown.append(name)
    if changes:
        _store(cluster, changes)
        for name, new in changes.items():
            echo(f"{name}={new if new is not None else known[name].default}\n")
    held = _held(cluster) if shown or not words else {}
    for name in shown:
        echo(f"{held.get(name) or known[name].default}\n")
    if not words:
        rows = [
            [name, held.get(name) or setting.default, setting.default, "|".join(setting.choices)]
            for name, setting in known.items()
        ]
        echo(Layout().lines([["NAME", "VALUE", "DEFAULT", "VALUES"], *rows], heading=True))


def _held(cluster: Cluster) -> dict[str, str]:
    path = cluster.kinds.find("configmaps").path(CONFIG_NAMESPACE, CONFIG_NAME)
    try:
        return cluster.wire.get(path).get("data") or {}
    except NotFound:
        return {}


def _store(cluster: Cluster, changes: dict[str, str | None]) -> None:
    kind = cluster.kinds.find("configmaps")
    data = {key: value for key, value in changes.items() if value is not None}
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG_NAME}, "data": data}
    try:
        cluster.wire.send("POST", kind.path(CONFIG_NAMESPACE), obj)
    except AlreadyExists:
        path = kind.path(CONFIG_NAMESPACE, CONFIG_NAME)
        cluster.wire.send("PATCH", path, {"data": changes}, content_type=MERGE)
