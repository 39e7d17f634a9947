"""`func add` and `func update`: code packed and sent, settings written, and waiting until it is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from minik8s.api.errors import AlreadyExists
from minik8s.cli import code, upload
from minik8s.cli.connection import Cluster
from minik8s.cli.func import VERSION, condition, fetch, path_of
from minik8s.cli.verb import complete_functions, duration, verb
from minik8s.cli.wire import MERGE, Unreachable

Json = dict[str, Any]


def _settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of add and update, whose fields they become."""
    for option in (
        click.option("--handler", help="MODULE or MODULE:NAME, where it is not found by itself."),
        click.option("-e", "--env", multiple=True, help="Variable NAME=VALUE; NAME- takes one away; repeatable."),
        click.option("-r", "--requirements", "required", help="A requirements.txt (default: the one beside the code)."),
        click.option("--environment", help="Name of an Environment to run in."),
        click.option("--invokes", help="Functions that it may invoke, with commas between."),
        click.option("--concurrency", type=click.IntRange(1), help="Calls at once in a replica."),
        click.option("--workers", type=click.IntRange(1), help="Processes of a replica."),
        click.option("--timeout", help="Longest time of a call: 30s, 2m."),
        click.option("--min", "least", type=int, help="Fewest replicas (0: none without calls)."),
        click.option("--max", "most", type=int, help="Most replicas."),
        click.option("--idle", help="Time without calls after which replicas go: 60s."),
        click.option("--memory", help="Memory limit of a replica: 256Mi."),
        click.option("--cpu", help="CPU limit of a replica: 500m."),
        click.option("--wait/--no-wait", default=True, help="Wait until it is loaded, and tell if it is not."),
        click.option("--wait-timeout", default="120s", show_default=True, help="How long to wait at most."),
    ):
        function = option(function)
    return function


@verb()
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@_settings
def add(cluster: Cluster, name: str, path: Path | None, wait: bool, wait_timeout: str, **options: Any) -> None:
    """Make a function of a .py file, a folder or an archive: func add hello ./hello (default: ./NAME or ./NAME.py)."""
    spec: Json = _spec(options, {})
    packed = code.put_into(spec, path or _default_path(name))
    body = {"apiVersion": VERSION, "kind": "Function", "metadata": {"name": name}, "spec": spec}
    try:
        made = cluster.wire.send("POST", path_of(cluster), body, {"fieldValidation": "Strict"})
    except AlreadyExists:
        raise click.ClickException(f'the function "{name}" is there already: minik8s func update {name} …') from None
    upload.send(cluster, path_of(cluster, name, "code"), packed)
    click.echo(f"function.faas.minik8s.io/{name} created")
    if wait:
        _await_loaded(cluster, name, made, duration(wait_timeout))


@verb()
@click.argument("name", shell_complete=complete_functions)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@_settings
def update(cluster: Cluster, name: str, path: Path | None, wait: bool, wait_timeout: str, **options: Any) -> None:
    """Change a function's code (with PATH), its settings (with options), or both. No call is lost."""
    live = fetch(cluster, name)
    change = _spec(options, live["spec"])
    if path is None and not change:
        path = _default_path(name)
    packed = None
    if path is not None:
        packed = code.put_into(change, path, environment=live["spec"].get("environment") or "")
        change["code"] |= {"configMap": None, "inline": None}
        if "requirements" not in change and live["spec"].get("requirements"):
            change["requirements"] = []  # the new code requires nothing
    done = cluster.wire.send("PATCH", path_of(cluster, name), {"spec": change}, content_type=MERGE)
    if packed is not None:
        upload.send(cluster, path_of(cluster, name, "code"), packed)
    same = done["metadata"].get("generation") == live["metadata"].get("generation")
    click.echo(f"function.faas.minik8s.io/{name} {'unchanged' if same else 'configured'}")
    if pinned := live["spec"].get("traffic"):
        shares = ", ".join(f"{share['revision']} {share['percent']}%" for share in pinned)
        click.echo(f"Warning: traffic stays as it was set ({shares}); minik8s func traffic {name} --latest sends all "
                   "to the newest", err=True)  # fmt: skip
    if wait:
        _await_loaded(cluster, name, done, duration(wait_timeout))


def _default_path(name: str) -> Path:
    for path in (Path(name), Path(f"{name}.py"), Path(f"{name}.zip"), Path(f"{name}.tar.gz")):
        if path.exists():
            return path
    raise click.ClickException(
        f"where is the code? There is no ./{name} and no ./{name}.py here: name its file, folder or archive"
    )


def _spec(options: Json, before: Json) -> Json:
    """The part of a Function's spec that options say; `before` is what it has now."""
    spec: Json = {}
    for option, field in (("handler", "handler"), ("environment", "environment"), ("concurrency", "concurrency"),
                          ("workers", "workers")):  # fmt: skip
        if options[option] is not None:
            spec[field] = options[option]
    if options["timeout"] is not None:
        spec["timeoutSeconds"] = _whole(options["timeout"], "--timeout")
    if options["invokes"] is not None:
        spec["invokes"] = [each for each in options["invokes"].split(",") if each]
    if options["required"] is not None:
        if not Path(options["required"]).is_file():
            raise click.ClickException(f"-r {options['required']}: there is no such file")
        spec["requirements"] = code.requirements(Path(options["required"]))
    scale = {field: options[option] for option, field in (("least", "minReplicas"), ("most", "maxReplicas"))
             if options[option] is not None}  # fmt: skip
    if options["idle"] is not None:
        scale["idleSeconds"] = _whole(options["idle"], "--idle")
    limits = {what: options[what] for what in ("memory", "cpu") if options[what] is not None}
    spec |= {"scale": scale} if scale else {}
    spec |= {"resources": {"limits": limits}} if limits else {}
    if options["env"]:
        spec["env"] = _variables(options["env"], before.get("env") or [])
    return spec


def _whole(text: str, option: str) -> int:
    seconds = duration(text)
    if seconds != int(seconds) or seconds < 1:
        raise click.ClickException(f"{option} {text}: whole seconds, at least one")
    return int(seconds)


def _variables(words: Sequence[str], before: Sequence[Json]) -> list[Json]:
    held = {each["name"]: each for each in before}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name:
            held[name] = {"name": name, "value": value}
        elif word.endswith("-") and word[:-1]:
            held.pop(word[:-1], None)
        else:
            raise click.ClickException(f'--env "{word}" is neither NAME=VALUE nor NAME-')
    return list(held.values())


def _await_loaded(cluster: Cluster, name: str, made: Json, seconds: float) -> None:
    """Wait until what was just stored is ready to be called, or is known not to be."""
    deadline = time.monotonic() + seconds
    generation, told = made["metadata"].get("generation", 0), ""
    query = {"fieldSelector": f"metadata.name={name}"}
    while (left := deadline - time.monotonic()) > 0:
        try:
            for event in cluster.wire.events(path_of(cluster), query, timeout=left):
                if event["type"] == "DELETED":
                    raise click.ClickException(f"function {name} has been deleted")
                if event["type"] not in ("ADDED", "MODIFIED"):
                    continue
                status = event["object"].get("status") or {}
                reason, message, ready = _verdict(status, generation)
                if ready:
                    click.echo(f"{name} is ready: POST {status.get('url') or f'/function/{cluster.namespace}/{name}'}; "
                               f"minik8s trigger {name} -d '{{}}' calls it")  # fmt: skip
                    return
                if reason in ("LoadError", "BuildFailed"):
                    raise click.ClickException(f"{name} cannot be loaded ({reason}):\n{message.rstrip()}")
                if reason not in ("", told, "Uploading"):  # it has just been sent
                    click.echo(f"{reason}: {message.splitlines()[0] if message else ''}".rstrip(": "), err=True)
                    told = reason
        except TimeoutError:
            break
        except (Unreachable, OSError):
            time.sleep(0.5)
    raise click.ClickException(f"{name} was not ready within {seconds:g} s ({told or 'nothing is known yet'}); it is "
                               f"stored: minik8s func get {name} tells more")  # fmt: skip


def _verdict(status: Json, generation: int) -> tuple[str, str, bool]:
    """(reason, message, is it ready) of a Function's status about a generation of its spec."""
    if status.get("observedGeneration", 0) < generation:
        return "", "", False
    found = condition(status)
    newest = status.get("latestRevision") and status.get("latestRevision") == status.get("readyRevision")
    return str(found.get("reason", "")), str(found.get("message", "")), found.get("status") == "True" and bool(newest)
