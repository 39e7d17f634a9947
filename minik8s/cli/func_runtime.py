"""`func build-runtime`: the image of functions, loaded into this machine's Docker Engine or written to a file.

Nodes make it by themselves when they need it; this is for machines that are to have it before, or that run no agent.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from minik8s.cli.docker_command import DockerError, docker
from minik8s.faas import runtime_image


def build(output: Path | None) -> None:
    name = runtime_image.image_name()
    try:
        if output is not None:
            with output.open("wb") as file:
                runtime_image.write(file)
            click.echo(f"{name} is in {output}: docker load -i {output}")
            return
        with tempfile.TemporaryFile() as archive:
            runtime_image.write(archive)
            archive.seek(0)
            docker("load", "--quiet", stdin=archive)
    except (DockerError, runtime_image.ImageError) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{output or 'the archive'} cannot be written: {error.strerror}") from None
    click.echo(f"made {name}")
