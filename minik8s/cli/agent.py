"""`minik8s run` and what is told about the program itself."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

import minik8s
from minik8s.config import Config, ConfigError, load, resume


def config_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options for the named settings (all if none is named), with help, choices and environment as config.py says."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([f for f in fields(Config) if not names or f.name in names]):
            choices = option.metadata["choices"]
            default = f"  [default: {option.default}]" if option.default not in ("", None, False) else ""
            flag = option.name.replace("_", "-")
            switch = isinstance(option.default, bool)
            function = click.option(
                f"--{flag}/--no-{flag}" if switch else f"--{flag}",
                option.name,
                default=None,
                type=bool if switch else click.Choice(choices) if choices else str,
                metavar=None if choices or switch else option.metadata["metavar"],
                help=f"{option.metadata['help']}{default}  [env: MINIK8S_{option.name.upper()}]",
            )(function)
        file = click.option(
            "--config", "config_file", type=click.Path(path_type=Path), envvar="MINIK8S_CONFIG",
            help="YAML file of settings, named like the options in camelCase.",
        )  # fmt: skip
        return file(function)

    return decorate


def read_config(config_file: Path | None, flags: dict[str, Any]) -> Config:
    """The settings, or a one-line error and exit code 1.

    Without a file of its own, a data folder that has been used goes on with the settings it was used with.
    """
    try:
        return resume(flags) if config_file is None else load(flags, file=config_file)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


@click.command()
@config_options()
def run(config_file: Path | None, **flags: Any) -> None:
    """Run the agent in the foreground until SIGTERM or SIGINT; pods keep running afterwards.

    Settings come from --config, then the environment, then options, the later ones winning.
    """
    config = read_config(config_file, flags)
    gc.disable()  # until the agent has settled: what is imported stays
    from minik8s.roles.agent import AgentError, run_agent

    try:
        run_agent(config)
    except AgentError as error:
        raise click.ClickException(str(error)) from None


@click.command()
@click.option("--client", is_flag=True, help="Only this program's version.")
@click.option("-o", "output", type=click.Choice(["yaml", "json"]), help="Machine-readable form.")
def version(client: bool, output: str | None) -> None:
    """Print the versions of this program and of the cluster that it speaks with."""
    versions: dict[str, Any] = {"clientVersion": minik8s.__version__, "apiVersion": minik8s.KUBERNETES_VERSION}
    if not client:
        from minik8s.cli.connection import server_version

        versions["serverVersion"] = server_version()
    if output:
        from minik8s.cli.printing import dump

        click.echo(dump(versions, output), nl=False)
        return
    click.echo(f"minik8s {minik8s.__version__} (Kubernetes API {minik8s.KUBERNETES_VERSION})")
    if not client:
        click.echo(f"server  {versions['serverVersion'] or 'not reached'}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), required=False)
def completion(shell: str | None) -> None:
    """Print the completion script: source <(minik8s completion bash)."""
    from click.shell_completion import get_completion_class

    from minik8s.cli import cli

    name = shell or Path(os.environ.get("SHELL", "bash")).name
    found = get_completion_class(name)
    if found is None:
        raise click.ClickException(f"no completion for {name}; there is one for bash, zsh and fish")
    sys.stdout.write(found(cli, {}, "minik8s", "_MINIK8S_COMPLETE").source())
