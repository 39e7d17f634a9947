"""`minik8s wf`: workflows and their runs; `wf task` is what workers and people who approve use."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from minik8s.api.errors import AlreadyExists, NotFound, StatusError
from minik8s.cli import manifests
from minik8s.cli.connection import Cluster
from minik8s.cli.printing import Layout, dump, echo
from minik8s.cli.verb import (
    Failures,
    Verb,
    cluster_options,
    complete_runs,
    complete_workflows,
    duration,
    explain,
)
from minik8s.cli.wire import Unreachable

Json = dict[str, Any]
API = "/apis/faas.minik8s.io/v1/namespaces"
VERSION = "faas.minik8s.io/v1"
ENDED = ("Succeeded", "Failed", "TimedOut", "Aborted")
PAGE = 1000  # events of a request


@click.group()
def wf() -> None:
    """Workflows: state machines in the Amazon States Language, and their runs."""


@wf.group()
def task() -> None:
    """Tasks that wait for a worker, or for somebody who has their token."""


def _verb(group: click.Group, name: str | None = None) -> Callable[[Callable[..., Any]], Verb]:
    def decorate(function: Callable[..., Any]) -> Verb:
        made = click.command(name, cls=Verb)(cluster_options(function))
        group.add_command(made)
        return made

    return decorate


def _complete_both(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return complete_runs(ctx, param, incomplete) + complete_workflows(ctx, param, incomplete)


def _path(cluster: Cluster, plural: str, name: str = "", sub: str = "") -> str:
    from urllib.parse import quote

    parts = [API, cluster.namespace, plural, quote(name, safe=""), sub]
    return "/".join(part for part in parts if part)


# -- workflows


@_verb(wf)
@click.argument("files", nargs=-1, type=str)
@click.option("-f", "--filename", "more", multiple=True, help="File, folder, URL or - for standard input; repeatable.")
@click.option("--name", default="", help="Name for a file that is a bare definition (default: the file's name).")
def apply(cluster: Cluster, files: tuple[str, ...], more: tuple[str, ...], name: str) -> None:
    """Store workflows: manifests, older ones, or bare definitions (StartAt, States) in YAML or JSON."""
    failures = Failures()
    for workflow, source in _read([*files, *more], name):
        meta = workflow["metadata"]
        where = f"{API}/{meta.setdefault('namespace', cluster.namespace)}/workflows"
        try:
            try:
                cluster.wire.send("POST", where, workflow, {"fieldValidation": "Strict"})
                click.echo(f"workflow/{meta['name']} created")
            except AlreadyExists:
                # Replaced, not patched: a patch would take the nulls out of a definition, and they mean something.
                live = cluster.wire.get(f"{where}/{meta['name']}")
                workflow["metadata"] = {**live["metadata"], **meta, "resourceVersion": ""}
                done = cluster.wire.send("PUT", f"{where}/{meta['name']}", workflow, {"fieldValidation": "Strict"})
                same = done["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
                click.echo(f"workflow/{meta['name']} {'unchanged' if same else 'configured'}")
        except StatusError as error:
            failures.add(explain(error, source))
    failures.finish()


@_verb(wf)
@click.argument("files", nargs=-1, type=str)
@click.option("-f", "--filename", "more", multiple=True, help="File, folder, URL or - for standard input; repeatable.")
def validate(cluster: Cluster, files: tuple[str, ...], more: tuple[str, ...]) -> None:
    """Check workflows without a cluster: every fault with its place."""
    from minik8s.faas.admission import faults

    failures = Failures()
    for workflow, source in _read([*files, *more], ""):
        found = faults((workflow.get("spec") or {}).get("definition"))
        for problem in found:
            failures.add(f"{source}: {problem}")
        if not found:
            click.echo(f"workflow/{workflow['metadata'].get('name', '')} is valid")
    failures.finish()


def _read(files: Sequence[str], name: str) -> Iterator[tuple[Json, str]]:
    """The Workflows of files, each with the file's name."""
    if not files:
        raise click.ClickException("which file? Name one, or - for standard input")
    for source, text in manifests.texts(files):
        for document in manifests.documents(text, source):
            value = document.value
            if isinstance(value, dict) and "States" in value and "kind" not in value:
                named = name or Path(source).name.partition(".")[0].lower().replace("_", "-")
                meta = {"name": named}
                yield (
                    {"apiVersion": VERSION, "kind": "Workflow", "metadata": meta, "spec": {"definition": value}},
                    source,
                )
                continue
            for manifest in manifests.expand(document, source):
                for native in manifests.native(manifest):
                    if native.kind != "Workflow":
                        raise click.ClickException(f"{manifest.where('kind')}: {native.kind} is no Workflow")
                    yield native.obj, source


@_verb(wf, "list")
@click.argument("workflow", default="", shell_complete=complete_workflows)
@click.option("-r", "--runs", is_flag=True, help="List runs; with WORKFLOW those of one workflow.")
@click.option("-o", "--output", default="", help="wide, json, yaml, name, jsonpath=…, custom-columns=…")
@click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces.")
def list_(cluster: Cluster, workflow: str, runs: bool, output: str, all_namespaces: bool) -> None:
    """List workflows, or runs."""
    from minik8s.cli.read import show

    kind = "workflowruns" if runs or workflow else "workflows"
    fields = f"spec.workflowRef.name={workflow}" if workflow else ""
    show(cluster, f"{kind}.faas.minik8s.io", output=output, fields=fields, everywhere=all_namespaces)


@_verb(wf)
@click.argument("name", shell_complete=_complete_both)
@click.option("-o", "--output", default="", help="wide, json, yaml, name, jsonpath=…, custom-columns=…")
def get(cluster: Cluster, name: str, output: str) -> None:
    """Show a run, or else the workflow of that name."""
    from minik8s.cli.read import show

    plural, name = _found(cluster, name)
    show(cluster, f"{plural}.faas.minik8s.io", name, output=output)


@_verb(wf)
@click.argument("names", nargs=-1, required=True, shell_complete=complete_workflows)
@click.option("--runs", is_flag=True, help="Remove the workflow's runs, too.")
def rm(cluster: Cluster, names: tuple[str, ...], runs: bool) -> None:
    """Remove workflows, or runs by run/NAME. Runs of a removed workflow go on: they keep its definition."""
    failures = Failures()
    for name in names:
        kind, slash, rest = name.partition("/")
        plural = "workflowruns" if slash and kind in ("run", "wfr", "workflowrun", "workflowruns") else "workflows"
        name = rest if slash else name
        try:
            if runs and plural == "workflows":
                query = {"fieldSelector": f"spec.workflowRef.name={name}"}
                cluster.wire.call("DELETE", _path(cluster, "workflowruns"), query)
            cluster.wire.call("DELETE", _path(cluster, plural, name))
            click.echo(f'{plural[:-1]} "{name}" deleted')
        except StatusError as error:
            failures.add(explain(error))
    failures.finish()


# -- runs


@_verb(wf)
@click.argument("workflow", default="", shell_complete=complete_workflows)
@click.option("--function", default="", help="Call this function in place of a workflow; each Invoke is recorded.")
@click.option("-i", "-d", "--input", "given", default="", help="JSON, @FILE, or - for standard input.")
@click.option("--name", default="", help="Name of the run (default: the workflow's, and letters).")
@click.option("--serviceaccount", default="", help="Whose rights its tasks have (default: default).")
@click.option("-w", "--wait", is_flag=True, help="Wait for its end and print its output; a failure is exit code 1.")
@click.option("--timeout", default="0s", help="With --wait: how long; 0s: for ever.")
def run(
    cluster: Cluster, workflow: str, function: str, given: str, name: str, serviceaccount: str, wait: bool, timeout: str
) -> None:
    """Begin a run of a workflow, or with --function of a function and of those that it hands over to."""
    if bool(workflow) == bool(function):
        raise click.UsageError("name a WORKFLOW, or a function by --function NAME")
    field, what = ("functionRef", function) if function else ("workflowRef", workflow)
    spec: Json = {field: {"name": what}}
    if given:
        spec["input"] = _json(given, "--input")
    if serviceaccount:
        spec["serviceAccountName"] = serviceaccount
    name = name or f"{what[:50]}-{secrets.token_hex(3)}"
    cluster.wire.get(_path(cluster, "functions" if function else "workflows", what))
    body = {"apiVersion": VERSION, "kind": "WorkflowRun", "metadata": {"name": name}, "spec": spec}
    cluster.wire.send("POST", _path(cluster, "workflowruns"), body)
    if not wait:
        click.echo(f"workflowrun/{name} created")
        return
    status = _await(cluster, name, duration(timeout) or float("inf"))
    if status["phase"] != "Succeeded":
        why = ": ".join(filter(None, (status.get("error"), status.get("cause"))))
        raise click.ClickException(f"run {name} has ended {status['phase']}{': ' if why else ''}{why}")
    echo(json.dumps(status.get("output"), ensure_ascii=False) + "\n")


def _await(cluster: Cluster, name: str, seconds: float) -> Json:
    """The status of a run that has ended. Losing the server is waited out: the run goes on."""
    deadline = time.monotonic() + seconds
    query = {"fieldSelector": f"metadata.name={name}"}
    while (left := deadline - time.monotonic()) > 0:
        try:
            for event in cluster.wire.events(_path(cluster, "workflowruns"), query, timeout=min(left, 3600.0)):
                if event["type"] == "DELETED":
                    raise click.ClickException(f"run {name} has been deleted")
                status: Json = event["object"].get("status") or {}
                if status.get("phase") in ENDED:
                    return status
        except TimeoutError:
            continue
        except (Unreachable, OSError):
            time.sleep(0.5)
    raise click.ClickException(f"timed out waiting for run {name}; it goes on")


@_verb(wf)
@click.argument("name", shell_complete=complete_runs)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
def history(cluster: Cluster, name: str, output: str) -> None:
    """Tell what happened in a run, event by event."""
    events: list[Json] = []
    query = {"limit": str(PAGE)}
    while True:
        page = cluster.wire.get(_path(cluster, "workflowruns", name, "history"), query)
        events += page["events"]
        if not (following := page["metadata"].get("continue")):
            break
        query["continue"] = following
    if output != "table":
        echo(dump(events, output))
        return
    rows = [["ID", "TIME", "TYPE", "DETAILS"]]
    for event in events:
        details = ", ".join(f"{key}={_short(value)}" for key, value in event["details"].items())
        rows.append([str(event["id"]), event["timestamp"], event["type"], details])
    echo(Layout().lines(rows, heading=True))


@_verb(wf)
@click.argument("name", shell_complete=_complete_both)
@click.option("-o", "--output", type=click.Choice(["svg", "dot", "text"]), default="text")
def graph(cluster: Cluster, name: str, output: str) -> None:
    """Draw a run with what it did, or else the workflow of that name."""
    plural, name = _found(cluster, name)
    if plural == "workflowruns":
        echo(cluster.wire.call("GET", _path(cluster, plural, name, "graph"), {"format": output}).decode())
        return
    from minik8s.faas.admission import parsed
    from minik8s.faas.workflow.drawing import FORMS

    definition = parsed(cluster.wire.get(_path(cluster, plural, name))["spec"]["definition"])
    echo(FORMS[output](definition, None, name))


@_verb(wf)
@click.argument("name", shell_complete=complete_runs)
@click.option("--error", default="", help="Name of the error for which it ends.")
@click.option("--cause", default="", help="A sentence about it.")
def stop(cluster: Cluster, name: str, error: str, cause: str) -> None:
    """End a run."""
    cluster.wire.send("POST", _path(cluster, "workflowruns", name, "stop"), {"error": error, "cause": cause})
    click.echo(f"workflowrun/{name} stopped")


@_verb(wf)
@click.argument("name", shell_complete=complete_runs)
def redrive(cluster: Cluster, name: str) -> None:
    """Let a run that failed go on where it broke off."""
    cluster.wire.send("POST", _path(cluster, "workflowruns", name, "redrive"), {})
    click.echo(f"workflowrun/{name} redriven")


# -- tasks


@_verb(task, "list")
def list_tasks(cluster: Cluster) -> None:
    """List what runs wait for, with the tokens to report with."""
    rows = [["RUN", "STATE", "RESOURCE", "FETCHED", "TOKEN"]]
    for each in cluster.wire.get(_path(cluster, "workflowtasks"))["items"]:
        spec, status = each["spec"], each["status"]
        rows.append([spec["run"], spec["state"], spec["resource"], str(status["fetched"]).lower(), status["token"]])
    if len(rows) == 1:
        click.echo(f"No tasks wait in namespace {cluster.namespace}.", err=True)
        return
    echo(Layout().lines(rows, heading=True))


@_verb(task, "get")
@click.argument("activity")
@click.option("--worker", default="", help="Name of the worker, for the history (default: the user's).")
@click.option("--timeout", default="60s", help="How long to wait for one; at most 60s.")
def get_task(cluster: Cluster, activity: str, worker: str, timeout: str) -> None:
    """Fetch the next task of an activity: prints {token, run, state, input}; exit code 1 if none comes."""
    wait = min(duration(timeout), 55.0)  # less than the client waits for an answer
    spec: Json = {"activity": activity, "waitSeconds": wait} | ({"workerName": worker} if worker else {})
    found = cluster.wire.send("POST", _path(cluster, "workflowtasks"), {"spec": spec})
    if not found["status"].get("token"):
        raise click.ClickException(f'no task of activity "{activity}" came within {wait:g} s')
    told = {"token": found["status"]["token"], **{key: found["spec"][key] for key in ("run", "state", "input")}}
    echo(json.dumps(told, ensure_ascii=False) + "\n")


@_verb(task)
@click.argument("task_token", metavar="TOKEN")
@click.option("-d", "--data", default="null", help="The result: JSON, @FILE, or - for standard input.")
def succeed(cluster: Cluster, task_token: str, data: str) -> None:
    """Report the result of a task."""
    _report(cluster, task_token, {"phase": "Succeeded", "output": _json(data, "--data")})
    click.echo("task succeeded")


@_verb(task)
@click.argument("task_token", metavar="TOKEN")
@click.option("--error", default="", help="Name of the error, for Retry and Catch.")
@click.option("--cause", default="", help="A sentence about it.")
def fail(cluster: Cluster, task_token: str, error: str, cause: str) -> None:
    """Report that a task has failed."""
    _report(cluster, task_token, {"phase": "Failed", "error": error, "cause": cause})
    click.echo("task failed")


@_verb(task)
@click.argument("task_token", metavar="TOKEN")
def heartbeat(cluster: Cluster, task_token: str) -> None:
    """Say that a task is being worked on."""
    _report(cluster, task_token, {"phase": "Running"})


def _report(cluster: Cluster, token: str, status: Json) -> None:
    path = _path(cluster, "workflowtasks", token.partition("\n")[0])
    cluster.wire.send("PUT", path, {"status": status})


# -- common


def _found(cluster: Cluster, name: str) -> tuple[str, str]:
    """(plural, name) of what a name means: a run, or else a workflow."""
    try:
        cluster.wire.get(_path(cluster, "workflowruns", name))
        return "workflowruns", name
    except NotFound:
        return "workflows", name


def _json(text: str, option: str) -> Any:
    """The JSON value that an option gives, itself or by a file."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text()
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # Python lets in what is none
        return value
    except OSError as error:
        raise click.ClickException(f"{option}: {error.filename}: {error.strerror}") from None
    except (RecursionError, ValueError) as error:
        raise click.ClickException(f"{option}: this is not JSON: {error}") from None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
