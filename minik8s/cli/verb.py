"""What all verbs share: how options are written, how a cluster is chosen, how failures are told.

Options follow kubectl's habits where click's differ: `--flag=false` is understood, and an option whose value may be
left out takes one only after `=` (`--dry-run=server`), never the next word.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from minik8s.api.errors import StatusError
from minik8s.cli.connection import Choice, Cluster

F = TypeVar("F", bound=Callable[..., Any])
AFTER_DASHES = "minik8s.after_dashes"
TRUE, FALSE = ("true", "1", "t"), ("false", "0", "f")


class Bare(click.Option):
    """An option that means `bare` when it stands without a value."""

    def __init__(self, *args: Any, bare: str, **attributes: Any) -> None:
        self.bare = bare
        super().__init__(*args, **attributes)


class Verb(click.Command):
    """A command that reads its options as kubectl does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[AFTER_DASHES] = args[end + 1 :]
        known = {name: p for p in self.params if isinstance(p, click.Option) for name in p.opts}
        rewritten = [word for arg in args[:end] for word in _rewrite(arg, known)]
        return super().parse_args(ctx, rewritten + args[end:])


def _rewrite(arg: str, known: dict[str, click.Option]) -> list[str]:
    name, equals, value = arg.partition("=")
    option = known.get(name)
    if not arg.startswith("--") or option is None:
        return [arg]
    if isinstance(option, Bare):
        return [arg] if equals else [f"{name}={option.bare}"]
    if option.is_flag and equals:
        if value.lower() in TRUE:
            return [name]
        if value.lower() in FALSE:
            return list(option.secondary_opts[:1])
        raise click.BadParameter(f'"{value}" is neither true nor false', param_hint=name)
    return [arg]


def after_dashes() -> list[str]:
    """The words behind `--` of the command that runs; its arguments end with them."""
    found: list[str] = click.get_current_context().meta.get(AFTER_DASHES, [])
    return found


def verb(name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Verb]:
    """A command whose function is given the `Cluster` first, with the options that choose it."""

    def decorate(function: Callable[..., Any]) -> Verb:
        return click.command(name, cls=Verb, **settings)(cluster_options(function))

    return decorate


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **values: Any) -> Any:
        return function(Cluster(_take_choice(values)), *args, **values)

    for option in (
        click.option("--token", help="Bearer token to send."),
        click.option("--server", "-s", help="Address of the API server, over what the kubeconfig says."),
        click.option("--context", help="Context of the kubeconfig."),
        click.option("--kubeconfig", help="Kubeconfig file, over KUBECONFIG and ~/.kube/config."),
        click.option("--namespace", "-n", shell_complete=complete_namespaces, help="Namespace to work in."),
    ):
        call = option(call)
    return call


def _take_choice(values: dict[str, Any]) -> Choice:
    return Choice(**{field: values.pop(field, None) or "" for field in Choice._fields})


output_option = click.option("-o", "--output", default="", help="wide, json, yaml, name, jsonpath=…, custom-columns=…")
selector_option = click.option("-l", "--selector", default="", help="Label selector: app=web,tier in (a,b),!old")
fields_option = click.option("--field-selector", default="", help="Field selector: status.phase=Running")
all_namespaces_option = click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces.")
files_option = click.option(
    "-f", "--filename", "filenames", multiple=True, help="File, folder, URL or - for standard input; repeatable."
)
recursive_option = click.option("-R", "--recursive", is_flag=True, help="Folders with all that is in them.")
dry_run_option = click.option(
    "--dry-run", cls=Bare, bare="client", default="none", type=click.Choice(["none", "client", "server"]),
    help="Say what would be done; `server` asks the server, too.",
)  # fmt: skip
validate_option = click.option(
    "--validate", cls=Bare, bare="strict", default="strict",
    type=click.Choice(["strict", "true", "warn", "ignore", "false"]), help="What to do about unknown fields.",
)  # fmt: skip


def validation(validate: str) -> str:
    """The `fieldValidation` that a --validate means."""
    return {"warn": "Warn", "ignore": "Ignore", "false": "Ignore"}.get(validate, "Strict")


def duration(text: str) -> float:
    """Seconds of a Go duration: 90s, 1m30s, 2h, 500ms; a bare number is seconds."""
    import re

    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    if re.fullmatch(r"\d+(\.\d+)?", rest):
        return sign * float(rest)
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", rest):
        raise click.ClickException(f'"{text}" is no duration: write 30s, 5m or 1h30m')
    return sign * sum(float(n) * units[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h)", rest))


def explain(error: StatusError, doing: str = "") -> str:
    """`Error from server (NotFound): pods "x" not found`, kubectl's words."""
    prefix = f"{doing}: " if doing else ""
    if error.reason == "Invalid":
        return prefix + f"The {error.message}" if not doing else f"{prefix}{error.message}"
    if error.reason == "Unauthorized":
        return f"error: you must be logged in to the server: {prefix}{error.message}"
    return f"Error from server ({error.reason}): {prefix}{error.message}"


class Failures:
    """Errors of a verb that goes on with its other objects; `finish` ends it with exit code 1 if there was one."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, text: str) -> None:
        self.count += 1
        click.echo(text, err=True)

    def finish(self) -> None:
        if self.count:
            raise SystemExit(1)


# -- completion: silent and quick whatever happens


def complete_namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _completed(ctx, lambda cluster: cluster.kinds.find("namespaces"), incomplete)


def complete_nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _completed(ctx, lambda cluster: cluster.kinds.find("nodes"), incomplete)


def complete_pods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _completed(ctx, lambda cluster: cluster.kinds.find("pods"), incomplete)


def complete_functions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _completed(ctx, lambda cluster: cluster.kinds.find("functions.faas.minik8s.io"), incomplete)


def complete_workflows(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _completed(ctx, lambda cluster: cluster.kinds.find("workflows.faas.minik8s.io"), incomplete)


def complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _completed(ctx, lambda cluster: cluster.kinds.find("workflowruns.faas.minik8s.io"), incomplete)


def complete_targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Kinds for the first word, names of that kind after it; `kind/na` completes the name."""
    given = ctx.params.get(param.name or "") or ()
    if given and "/" not in given[0]:
        return _completed(ctx, lambda cluster: cluster.kinds.find(given[0].split(",")[0]), incomplete)
    if "/" in incomplete:
        kind, _, start = incomplete.partition("/")
        found = _completed(ctx, lambda cluster: cluster.kinds.find(kind), start)
        return [CompletionItem(f"{kind}/{item.value}") for item in found]
    return _quietly(ctx, lambda cluster: [k.plural for k in cluster.kinds.all() if "list" in k.verbs], incomplete)


def _completed(ctx: click.Context, kind: Callable[[Cluster], Any], incomplete: str) -> list[CompletionItem]:
    def names(cluster: Cluster) -> list[str]:
        found = kind(cluster)
        listed = cluster.wire.get(found.path(cluster.namespace), {"limit": "500"})["items"]
        return [item["metadata"]["name"] for item in listed]

    return _quietly(ctx, names, incomplete)


def _quietly(ctx: click.Context, words: Callable[[Cluster], list[str]], incomplete: str) -> list[CompletionItem]:
    choice = Choice(**{field: ctx.params.get(field) or "" for field in Choice._fields})
    try:
        found = words(Cluster(choice, timeout=1.5))
    except (StatusError, click.ClickException, OSError, ValueError, LookupError):
        return []  # somebody is typing: no answer is better than an error in the middle of the line
    return [CompletionItem(word) for word in sorted(set(found)) if word.startswith(incomplete)]
