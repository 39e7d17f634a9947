"""`describe`: all about an object in words, its own section for the kinds that people look at most, and its events."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import click

from minik8s.api.errors import Forbidden, NotFound, StatusError
from minik8s.cli import targets
from minik8s.cli.connection import Cluster
from minik8s.cli.describe_kinds import SECTIONS
from minik8s.cli.describe_text import Lines, align, generic, mapping
from minik8s.cli.event_table import last_seen, seen
from minik8s.cli.printing import echo, without_managed_fields
from minik8s.cli.targets import Target
from minik8s.cli.verb import (
    Failures,
    all_namespaces_option,
    complete_targets,
    explain,
    files_option,
    recursive_option,
    selector_option,
    verb,
)  # fmt: skip
from minik8s.cli.write import list_of

Json = dict[str, Any]


@verb()
@click.argument("words", metavar="KIND [NAME]...", nargs=-1, shell_complete=complete_targets)
@files_option
@recursive_option
@selector_option
@all_namespaces_option
@click.option("--show-events/--no-show-events", default=True, help="With the events about it.")
def describe(
    cluster: Cluster, words: tuple[str, ...], filenames: tuple[str, ...], recursive: bool, selector: str,
    all_namespaces: bool, show_events: bool,
) -> None:  # fmt: skip
    """Tell all about objects: describe pod web-0, describe nodes, describe deploy -l app=web."""
    found = targets.parse(cluster, words, everywhere=all_namespaces)
    if not found and not filenames:
        raise click.ClickException("say what to describe: KIND NAME, or -f FILE")
    failures = Failures()
    wanted: list[Target] = []
    for target in found:
        wanted += [target] if target.name else list_of(cluster, [target], selector)
    if filenames:
        wanted += targets.from_files(cluster, filenames, recursive=recursive)
    printed = 0
    for target in wanted:
        for choice in _by_prefix(cluster, target, failures):
            try:
                text = describe_one(cluster, choice, events=show_events)
            except StatusError as error:
                failures.add(explain(error))
                continue
            echo(("\n\n" if printed else "") + text)
            printed += 1
    if not printed and not failures.count:
        click.echo("No resources found", err=True)
    failures.finish()


def _by_prefix(cluster: Cluster, target: Target, failures: Failures) -> list[Target]:
    """The object of that name or, as kubectl does, those whose names begin with it."""
    try:
        cluster.wire.get(target.path)
        return [target]
    except NotFound as error:
        alike = list_of(cluster, [target._replace(name="")], "")
        alike = [other for other in alike if other.name.startswith(target.name)]
        if not alike:
            failures.add(explain(error))
        return alike
    except StatusError as error:
        failures.add(explain(error))
        return []


def describe_one(cluster: Cluster, target: Target, *, events: bool = True) -> str:
    """The whole text about one object."""
    obj = without_managed_fields(cluster.wire.get(target.path))
    now = time.time()
    lines = Lines()
    section = SECTIONS.get((target.kind.group, target.kind.kind))
    if section is not None:
        section(lines, obj, cluster, now)
    else:
        _generic(lines, obj)
    if events:
        _events(lines, _events_about(cluster, obj), now)
    return align(lines.texts)


def _generic(lines: Lines, obj: Json) -> None:
    meta = obj["metadata"]
    lines.add("Name", meta["name"])
    if meta.get("namespace"):
        lines.add("Namespace", meta["namespace"])
    mapping(lines, "Labels", meta.get("labels"))
    mapping(lines, "Annotations", meta.get("annotations"))
    lines.add("API Version", obj.get("apiVersion", ""))
    lines.add("Kind", obj.get("kind", ""))
    rest = {key: value for key, value in meta.items() if key not in ("name", "namespace", "labels", "annotations")}
    generic(lines, {"metadata": rest, **{k: v for k, v in obj.items() if k not in ("apiVersion", "kind", "metadata")}})


def _events_about(cluster: Cluster, obj: Json) -> list[Json] | None:
    """None when we may not see events."""
    meta = obj["metadata"]
    selector = f"involvedObject.name={meta['name']},involvedObject.kind={obj['kind']}"
    if obj["kind"] != "Node":  # the events of a node bear its name for a uid
        selector += f",involvedObject.uid={meta['uid']}"
    path = cluster.kinds.find("events.v1.").path(meta.get("namespace"))
    try:
        return sorted(cluster.wire.get(path, {"fieldSelector": selector})["items"], key=last_seen)
    except Forbidden:
        return None


def _events(lines: Lines, found: Iterable[Json] | None, now: float) -> None:
    rows = list(found or ())
    if not rows:
        lines.add("Events", "<none>" if found is not None else "<you may not see them>")
        return
    lines.text("Events:")
    lines.row(1, "Type", "Reason", "Age", "From", "Message")
    lines.row(1, "----", "------", "----", "----", "-------")
    for event in rows:
        source = (event.get("source") or {}).get("component") or event.get("reportingComponent", "")
        message = str(event.get("message", "")).strip().replace("\n", " ")
        lines.row(1, event.get("type", ""), event.get("reason", ""), seen(event, now), source, message)
