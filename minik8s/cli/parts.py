"""`enable` and `disable`: the parts of an agent that one may do without. Each is a setting, kept in the data folder."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import click

from minik8s.cli import unknown
from minik8s.cli.lifecycle import data_dir_option
from minik8s.cli.printing import dump
from minik8s.config import Config, ConfigError, resume, save


class Part(NamedTuple):
    setting: str  # a field of Config
    off: Any
    what: str
    on: Any = None  # None: the setting's default

    def is_on(self, config: Config) -> bool:
        return bool(getattr(config, self.setting) != self.off)

    def set(self, config: Config, *, on: bool) -> Config:
        usual: Any = next(option.default for option in fields(Config) if option.name == self.setting)
        wanted: dict[str, Any] = {self.setting: (usual if self.on is None else self.on) if on else self.off}
        return replace(config, **wanted)


PARTS = {
    "dashboard": Part("dashboard_listen", "off", "the web page on the master's port 8080"),
    "functions": Part("functions", False, "Functions, their gateway and their queue"),
    "gpu-jobs": Part("gpu_jobs", False, "GpuJobs on Slurm clusters"),
    "host-dns": Part("host_dns", False, "the cluster's names on this host itself", on=True),
    "ingress": Part("ingress", "off", "nginx for Ingress and DNS objects"),
    "workflows": Part("workflows", False, "WorkflowRuns"),
}


@click.command()
@click.argument("part", required=False)
@data_dir_option
@click.option("-o", "output", type=click.Choice(["json", "yaml"]), help="Machine-readable form of the list.")
def enable(part: str | None, data_dir: Path, output: str | None) -> None:
    """Let this machine's agent have a part from its next start on; without PART, list the parts."""
    _switch(part, data_dir, output, on=True)


@click.command()
@click.argument("part", required=False)
@data_dir_option
@click.option("-o", "output", type=click.Choice(["json", "yaml"]), help="Machine-readable form of the list.")
def disable(part: str | None, data_dir: Path, output: str | None) -> None:
    """Let this machine's agent do without a part from its next start on; without PART, list the parts."""
    _switch(part, data_dir, output, on=False)


def _switch(name: str | None, data_dir: Path, output: str | None, *, on: bool) -> None:
    try:
        config = resume({"data_dir": data_dir})
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    if name is None:
        _list(config, output)
        return
    if name not in PARTS:
        raise click.ClickException(unknown("part", name, list(PARTS)))
    part, word = PARTS[name], "enabled" if on else "disabled"
    if part.is_on(config) == on:
        click.echo(f"{name} is {word} already")
        return
    try:
        save(part.set(config, on=on))
    except OSError as error:
        raise click.ClickException(f"cannot write the settings in {data_dir}: {error.strerror}") from None
    from minik8s.roles.lock import running_pid

    runs = running_pid(config.data_dir) is not None
    click.echo(f"{name} {word}" + ("; it takes effect with: minik8s stop && minik8s start" if runs else ""))


def _list(config: Config, output: str | None) -> None:
    states = {name: part.is_on(config) for name, part in PARTS.items()}
    if output:
        click.echo(dump(states, output), nl=False)
        return
    for name, is_on in states.items():
        click.echo(f"{name:<10} {'enabled' if is_on else 'disabled':<9} {PARTS[name].what}")
