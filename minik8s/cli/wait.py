"""`wait`: until a condition holds, a field has a value, or an object is created or gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from minik8s.api.errors import Gone, NotFound
from minik8s.cli import jsonpath
from minik8s.cli.connection import Cluster
from minik8s.cli.delete import await_gone
from minik8s.cli.printing import echo
from minik8s.cli.targets import Target
from minik8s.cli.verb import (
    all_namespaces_option,
    complete_targets,
    duration,
    files_option,
    recursive_option,
    selector_option,
    verb,
)  # fmt: skip
from minik8s.cli.write import wanted_of

Json = dict[str, Any]


class Goal(NamedTuple):
    """What is waited for: `delete`, `create`, or `holds` of the object."""

    kind: str
    holds: Callable[[Json], bool] = bool


@verb()
@click.argument("words", metavar="KIND NAME", nargs=-1, shell_complete=complete_targets)
@click.option(
    "--for", "goal", required=True, help="condition=Ready[=True], delete, create, jsonpath={.status.phase}=Running"
)
@click.option("--timeout", default="30s", show_default=True, help="How long; 0s looks once, a negative one is a week.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@all_namespaces_option
@selector_option
@files_option
@recursive_option
def wait(cluster: Cluster, words: tuple[str, ...], goal: str, timeout: str, **options: Any) -> None:
    """Wait for a condition: wait --for=condition=Ready pod -l app=web --timeout=60s."""
    wanted_goal = parse_goal(goal)
    seconds = duration(timeout)
    deadline = time.monotonic() + (seconds if seconds >= 0 else 7 * 86400)
    wanted = wanted_of(
        cluster, words, options["filenames"], options["selector"], everything=options["everything"],
        everywhere=options["all_namespaces"], recursive=options["recursive"],
    )  # fmt: skip
    if not wanted and wanted_goal.kind != "delete":
        raise click.ClickException("no matching resources found")
    failed = False
    for target in wanted:
        try:
            _await(cluster, target, wanted_goal, deadline)
            done = {"delete": "deleted", "create": "condition met"}.get(wanted_goal.kind, "condition met")
            echo(f"{target.text} {done}\n")
        except TimeoutError:
            failed = True
            what = f"{target.kind.name}/{target.name}"
            click.echo(f"error: timed out waiting for the condition on {what}", err=True)
    if failed:
        raise SystemExit(1)


def parse_goal(text: str) -> Goal:
    """`--for` as a test of an object."""
    lowered = text.lower()
    if lowered in ("delete", "create"):
        return Goal(lowered)
    kind, _, rest = text.partition("=")
    if kind.lower() == "condition" and rest:
        name, _, value = rest.partition("=")
        return Goal("condition", lambda obj: _condition(obj, name, value or "True"))
    if kind.lower() == "jsonpath" and rest:
        path, wanted = _split_path(rest)
        try:
            jsonpath.find(path, {})
        except jsonpath.JsonPathError as error:
            raise click.ClickException(str(error)) from None
        return Goal("jsonpath", lambda obj: _field(obj, path, wanted))
    raise click.ClickException(
        f'"{text}" cannot be waited for: write condition=NAME, condition=NAME=STATUS, '
        "jsonpath={.PATH}=VALUE, create or delete"
    )


def _split_path(text: str) -> tuple[str, str | None]:
    """`{.status.phase}=Running` -> path and value; no value: the field must be there."""
    text = text.strip("'\"")
    if text.startswith("{"):
        at = text.rfind("}") + 1
        path, rest = text[:at], text[at:]
    else:
        at = text.find("=") if "=" in text else len(text)
        path, rest = text[:at], text[at:]
    return path, rest[1:] if rest.startswith("=") else None


def _condition(obj: Json, name: str, status: str) -> bool:
    """Is it so, and of this generation? (A condition may be a remark about an older one.)"""
    generation = obj["metadata"].get("generation", 0)
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type", "").lower() == name.lower():
            observed = condition.get("observedGeneration") or obj["status"].get("observedGeneration") or generation
            return observed >= generation and str(condition.get("status", "")).lower() == status.lower()
    return False


def _field(obj: Json, path: str, value: str | None) -> bool:
    found = jsonpath.find(path, obj)
    if value is None:
        return bool(found)
    return len(found) == 1 and jsonpath.text_of(found[0]) == value


def _await(cluster: Cluster, target: Target, goal: Goal, deadline: float) -> None:
    if goal.kind == "delete":
        try:
            await_gone(cluster, target, "", deadline)
        except click.ClickException:
            raise TimeoutError from None
        return
    path = target.kind.path(target.namespace)
    query = {"fieldSelector": f"metadata.name={target.name}"}
    while True:
        try:
            version = _look(cluster, target, goal)
            if not version:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for event in cluster.wire.events(path, {**query, "resourceVersion": version}, timeout=left):
                if event["type"] == "DELETED" and goal.kind != "create":
                    raise NotFound(f'{target.kind.name} "{target.name}" not found: it has been deleted')
                if goal.holds(event["object"]):
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError
        except Gone:
            continue


def _look(cluster: Cluster, target: Target, goal: Goal) -> str:
    """ "" if the goal is reached, else the version from which to watch."""
    listed = cluster.wire.get(target.kind.path(target.namespace), {"fieldSelector": f"metadata.name={target.name}"})
    if not listed["items"] and goal.kind != "create":
        raise NotFound(f'{target.kind.name} "{target.name}" not found')
    if listed["items"] and goal.holds({"kind": target.kind.kind, **listed["items"][0]}):
        return ""
    return str(listed["metadata"]["resourceVersion"])
