"""The command line: one group whose commands are imported only when they are called, so that `get` answers at once.

Adding a verb is a click command in one of the files here and a line in `COMMANDS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import click

import minik8s

# Verb -> (module, attribute, one-line help). The help is here so that `minik8s --help` imports nothing.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("agent", "run", "Run the agent in the foreground."),
    "init": ("lifecycle", "init", "Prepare this machine as a master and start it."),
    "join": ("lifecycle", "join", "Make this machine a node of a cluster."),
    "leave": ("leave", "leave", "Take this machine out of its cluster."),
    "start": ("lifecycle", "start", "Start the agent in the background, creating or resuming."),
    "stop": ("lifecycle", "stop", "Stop the agent; pods keep running."),
    "reset": ("lifecycle", "reset", "Remove everything that minik8s made on this machine."),
    "status": ("lifecycle", "status", "Tell what runs here and how it is."),
    "enable": ("parts", "enable", "Switch an optional part on: dashboard, ingress, workflows …"),
    "disable": ("parts", "disable", "Switch an optional part off."),
    "doctor": ("doctor", "doctor", "Check this machine and say what would help."),
    "cluster": ("cluster", "cluster", "Make clusters whose nodes are containers on this machine."),
    "token": ("token", "token", "Make, list and delete tokens for joining."),
    "dashboard": ("dashboard", "dashboard", "Print where the dashboard is, and a token to log in."),
    "version": ("agent", "version", "Print the versions of client and server."),
    "completion": ("agent", "completion", "Print the shell's completion script."),
    "get": ("read", "get", "List objects, as a table or whole."),
    "describe": ("describe", "describe", "Tell all about an object, its events included."),
    "events": ("read", "events", "List what happened."),
    "top": ("read", "top", "Show what nodes and pods use."),
    "api-resources": ("read", "api_resources", "List the kinds that the server knows."),
    "wait": ("wait", "wait", "Wait for a condition."),
    "apply": ("write", "apply", "Make objects as a file says."),
    "create": ("create", "create", "Create objects from a file, or from a few words."),
    "delete": ("delete", "delete", "Delete objects by name, label or file."),
    "edit": ("edit", "edit", "Change an object in your editor."),
    "patch": ("write", "patch", "Change fields of an object."),
    "label": ("write", "label", "Set or remove labels."),
    "annotate": ("write", "annotate", "Set or remove annotations."),
    "scale": ("workloads", "scale", "Set the number of replicas."),
    "autoscale": ("workloads", "autoscale", "Scale a workload by what it uses."),
    "rollout": ("workloads", "rollout", "Watch, restart, undo a rollout."),
    "logs": ("streams", "logs", "Print a container's log, or what minik8s itself says."),
    "exec": ("streams", "exec_", "Run a command in a container."),
    "attach": ("streams", "attach", "Attach to a running container."),
    "port-forward": ("streams", "port_forward", "Forward local ports to a pod."),
    "func": ("func", "func", "Make, call and look at functions."),
    "trigger": ("trigger", "trigger", "Call a function and print its answer."),
    "wf": ("workflow", "wf", "Store, run and watch workflows."),
    "gpu": ("gpu", "gpu", "List, follow and cancel jobs on supercomputers, and fetch their results."),
    "cordon": ("nodes", "cordon", "Let no new pods onto a node."),
    "uncordon": ("nodes", "uncordon", "Let pods onto a node again."),
    "drain": ("nodes", "drain", "Move pods away from a node."),
    "taint": ("nodes", "taint", "Set or remove a node's taints."),
    "cfg": ("nodes", "cfg", "Show and change settings of the running cluster."),
}

KUBECTLS_OWN = (
    "api-versions", "auth", "certificate", "cluster-info", "config", "cp", "debug", "diff", "explain", "expose",
    "kustomize", "proxy", "replace", "set",
)  # fmt: skip

CHOOSING = ("-n", "--namespace", "-s", "--server", "--kubeconfig", "--context", "--token")  # a cluster, and where in it


def chosen_last(args: list[str]) -> list[str]:
    """What chooses a cluster may stand before the verb, too, as people write it for kubectl: `-n web get pods`."""
    at = 0
    while at < len(args) and (name := args[at].partition("=")[0]) in CHOOSING:
        at += 1 if args[at] != name else 2
    first, rest = args[:at], args[at:]
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *first, *rest[end:]] if rest else args


class LazyGroup(click.Group):
    """Looks commands up in `COMMANDS`; a misspelt one gets a suggestion."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"minik8s.cli.{module}"), attribute)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, chosen_last(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            if args[0] in KUBECTLS_OWN:  # and "set" is not meant to be "reset"
                ctx.fail(f'there is no "{args[0]}" here: take kubectl, which works with this cluster, too')
            ctx.fail(unknown("command", args[0], list(COMMANDS)))
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **settings: Any) -> Any:
        """As click's, but every mistake is one line and exit code 1, as kubectl's users and scripts expect."""
        if settings.get("standalone_mode") is False:
            return super().main(*args, **settings)
        from minik8s.cli.failure import run_to_exit

        return run_to_exit(lambda: super(LazyGroup, self).main(*args, **{**settings, "standalone_mode": False}))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, _, help) in COMMANDS.items()])


def unknown(what: str, word: str, known: Sequence[str]) -> str:
    """`unknown command "gte", did you mean "get"?`"""
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f'unknown {what} "{word}"' + (f', did you mean "{near[0]}"?' if near else "")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(minik8s.__version__, "-V", "--version", message="minik8s %(version)s")
def cli() -> None:
    """A small Kubernetes in one process: real pods on Docker, kubectl's own API, services and names."""
