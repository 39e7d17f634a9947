"""`minik8s func`: functions begun, looked at and taken away; `ELSEWHERE` names the files of the other commands."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from minik8s.api.errors import NotFound, StatusError
from minik8s.cli.connection import Cluster
from minik8s.cli.printing import Layout, echo
from minik8s.cli.verb import Failures, Verb, complete_functions, explain, verb

Json = dict[str, Any]
VERSION = "faas.minik8s.io/v1"
API = f"/apis/{VERSION}/namespaces"
ELSEWHERE = {  # command -> the file that has it, imported when it is wanted
    "add": "func_make", "update": "func_make", "traffic": "func_traffic", "rollback": "func_traffic",
    "invoke": "func_calls", "logs": "func_calls", "calls": "func_calls", "dlq": "func_calls",
}  # fmt: skip


class _Func(click.Group):
    """A misspelt command gets a suggestion."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ELSEWHERE:
            found: click.Command = getattr(importlib.import_module(f"minik8s.cli.{ELSEWHERE[cmd_name]}"), cmd_name)
            return found
        return self.commands.get(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from minik8s.cli import chosen_last

        return super().parse_args(ctx, chosen_last(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from minik8s.cli import unknown

        if args and args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            ctx.fail(unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


@click.group(cls=_Func)
def func() -> None:
    """Functions: code that is called over HTTP, with as many pods as its calls need, none included."""


def _verb(name: str | None = None) -> Callable[[Callable[..., Any]], Verb]:
    def decorate(function: Callable[..., Any]) -> Verb:
        made = verb(name)(function)
        func.add_command(made)
        return made

    return decorate


def path_of(cluster: Cluster, name: str = "", sub: str = "", *, plural: str = "functions") -> str:
    from urllib.parse import quote

    parts = [API, quote(cluster.namespace, safe=""), plural, quote(name, safe=""), sub]
    return "/".join(part for part in parts if part)


def fetch(cluster: Cluster, name: str) -> Json:
    """The Function; a ClickException with a suggestion where there is none."""
    try:
        return cluster.wire.get(path_of(cluster, name))
    except NotFound:
        raise missing(cluster, name) from None


def missing(cluster: Cluster, name: str) -> click.ClickException:
    """What to say of a function that is not there."""
    import difflib

    known = [item["metadata"]["name"] for item in cluster.wire.get(path_of(cluster))["items"]]
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f', did you mean "{near[0]}"?' if near else "; minik8s func add NAME PATH makes one" if not known else ""
    return click.ClickException(f'there is no function "{name}" in namespace {cluster.namespace}{hint}')


# -- init


def _complete_models(ctx: click.Context, param: click.Parameter, word: str) -> list[str]:
    from minik8s.cli.func_templates import MODELS

    return [model for model in MODELS if model.startswith(word)]


@func.command("init")
@click.argument("name")
@click.option(
    "--model", default="main", show_default=True, help="Programming model: main, action, handler, async …",
    shell_complete=_complete_models,
)  # fmt: skip
@click.option("-d", "--directory", type=click.Path(path_type=Path), help="Folder to write into (default: ./NAME).")
@click.option("--namespace", "-n", default="", help="Namespace to be written into function.yaml.")
def init(name: str, model: str, directory: Path | None, namespace: str) -> None:
    """Write the folder of a new function: `func init hello`, then `func add hello`."""
    from minik8s.api.dialects_function import function_name
    from minik8s.cli import unknown
    from minik8s.cli.func_templates import MODELS, files

    if model not in MODELS:
        known = "; ".join(f"{each}: {what}" for each, (what, _) in MODELS.items())
        raise click.ClickException(f"{unknown('model', model, list(MODELS))}; there are {known}")
    if name != function_name(name):
        raise click.ClickException(
            f'"{name}" cannot be the name of a function: take "{function_name(name) or "hello"}"'
        )
    folder = directory or Path(name)
    made = files(name, model, namespace)
    if taken := [each for each in made if (folder / each).exists()]:
        raise click.ClickException(f"{folder / taken[0]} is there already: nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    for each, text in made.items():
        (folder / each).write_text(text)
    click.echo(f"{folder}/ has a function of the model {model}: change func.py, then: minik8s func add {name} {folder}")


# -- rm, list, get


@_verb()
@click.argument("names", nargs=-1, required=True, shell_complete=complete_functions)
def rm(cluster: Cluster, names: tuple[str, ...]) -> None:
    """Remove functions, with their revisions and pods."""
    failures = Failures()
    for name in names:
        try:
            cluster.wire.call("DELETE", path_of(cluster, name))
            click.echo(f'function.faas.minik8s.io "{name}" deleted')
        except NotFound:
            failures.add(f"error: {missing(cluster, name).message}")
        except StatusError as error:
            failures.add(explain(error))
    failures.finish()


@_verb("list")
@click.option("-o", "--output", default="", help="wide, json, yaml, name, jsonpath=…, custom-columns=…")
@click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces.")
def list_(cluster: Cluster, output: str, all_namespaces: bool) -> None:
    """List the functions."""
    from minik8s.cli.read import show

    show(cluster, "functions.faas.minik8s.io", output=output, everywhere=all_namespaces)


@_verb()
@click.argument("name", shell_complete=complete_functions)
@click.option("-o", "--output", default="", help="wide, json, yaml, name, jsonpath=…; without: all about it.")
def get(cluster: Cluster, name: str, output: str) -> None:
    """Tell how a function stands: its address, replicas and why, revisions and their traffic."""
    found = fetch(cluster, name)
    if output:
        from minik8s.cli.read import show

        show(cluster, "functions.faas.minik8s.io", name, output=output)
        return
    spec, status = found["spec"], found.get("status") or {}
    ready = condition(status)
    message = f": {ready.get('message')}" if ready.get("message") and ready.get("status") != "True" else ""
    scale = spec.get("scale") or {}
    for title, text in (
        ("Name", name),
        ("Namespace", cluster.namespace),
        ("Address", status.get("url") or f"/function/{cluster.namespace}/{name}"),
        ("Ready", f"{ready.get('status', 'Unknown')} {ready.get('reason', '')}".rstrip() + message),
        ("Replicas", f"{status.get('replicas', 0)} of {status.get('desiredReplicas', 0)} (from "
                     f"{scale.get('minReplicas', 0)} to {scale.get('maxReplicas', 10)})"),
        ("Because", status.get("reason")),
        ("Handler", spec.get("handler")),
        ("Environment", spec.get("environment") or ", ".join(spec.get("requirements") or ())),
        ("Invokes", ", ".join(spec.get("invokes") or ())),
    ):  # fmt: skip
        if text:
            click.echo(f"{title + ':':<13}{text}")
    print_revisions(cluster, name, status)


def condition(status: Json) -> Json:
    """The condition Ready; {} if nobody has spoken yet."""
    found: list[Json] = [each for each in status.get("conditions") or () if each["type"] == "Ready"]
    return found[0] if found else {}


def revisions(cluster: Cluster, name: str) -> list[Json]:
    """A function's revisions, oldest first."""
    query = {"fieldSelector": f"spec.function={name}"}
    found = cluster.wire.get(path_of(cluster, plural="functionrevisions"), query)["items"]
    return sorted(found, key=lambda each: int(each["spec"].get("number", 0)))


def print_revisions(cluster: Cluster, name: str, status: Json) -> None:
    shares = {share["revision"]: share["percent"] for share in status.get("traffic") or ()}
    rows = [["REVISION", "READY", "REASON", "CONTRACT", "TRAFFIC"]]
    for each in revisions(cluster, name):
        told = each.get("status") or {}
        ready = condition(told)
        percent = shares.get(each["metadata"]["name"], 0)
        rows.append([each["metadata"]["name"], ready.get("status", "Unknown"), ready.get("reason", ""),
                     told.get("contract", ""), f"{percent}%"])  # fmt: skip
    if len(rows) > 1:
        echo("\n" + Layout().lines(rows, heading=True))


# -- the runtime


@func.command("build-runtime")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write an archive for docker load."
)
def build_runtime(output: Path | None) -> None:
    """Make the image that functions run in, out of this machine's Python and minik8s's own source."""
    from minik8s.cli import func_runtime

    func_runtime.build(output)
