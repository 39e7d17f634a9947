"""`minik8s cluster`: whole clusters whose nodes are containers on one Docker Engine."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")

name_option = click.option(
    "--name", default="minik8s", show_default=True, envvar="MINIK8S_CLUSTER", help="Name of the cluster."
)
kubeconfig_option = click.option(
    "--kubeconfig", type=click.Path(path_type=Path, dir_okay=False),
    help="File that its access is written into (default: the first of KUBECONFIG, else ~/.kube/config).",
)  # fmt: skip


@click.group()
def cluster() -> None:
    """Make and remove clusters whose nodes are containers on this machine's Docker Engine."""


@cluster.command()
@name_option
@click.option("--workers", type=click.IntRange(0, 50), default=0, help="Nodes beside the control plane.")
@click.option("--subnets", type=click.IntRange(1, 8), default=1, help="Networks that the nodes are spread over.")
@click.option("--image", default="", help="Node image (default: the one that 'minik8s cluster build-image' makes).")
@click.option("--api-port", type=click.IntRange(0, 65535), default=0, help="Port of the API server on 127.0.0.1.")
@kubeconfig_option
def create(name: str, workers: int, subnets: int, image: str, api_port: int, kubeconfig: Path | None) -> None:
    """Make a cluster: a control plane that is a node too, and its workers; then let kubectl speak with it."""
    from minik8s.cli import kubeconfig as file
    from minik8s.cli import node_containers as nodes
    from minik8s.cli import node_image

    if not NAME.fullmatch(name):
        raise click.ClickException(f"{name!r}: a name has at most 32 lower case letters, digits and '-'")
    image = image or node_image.IMAGE
    began = time.monotonic()
    with told():
        if name in nodes.clusters():
            raise click.ClickException(f"there is a cluster {name} already: give another --name, or delete it first")
        if not node_image.image_id(image):
            raise click.ClickException(f"there is no image {image}: make it with 'minik8s cluster build-image'")
        try:
            config = nodes.create(name, image, workers=workers, subnets=subnets, api_port=api_port)
            path = kubeconfig or file.default_path()
            context = context_of(name)
            file.write_merged(path, context, config["clusters"][0]["cluster"], config["users"][0]["user"])
        except BaseException:
            nodes.delete(name)
            raise
    click.echo(f"cluster {name} with {workers + 1} node{'s'[: workers > 0]} is ready after {_seconds(began)}")
    click.echo(f"\nTo use it (context {context} of {path}, which is the current one):\n  kubectl get nodes")


@cluster.command(name="list")
def list_() -> None:
    """List the clusters of this machine's engine."""
    from minik8s.cli import node_containers as nodes

    with told():
        rows = [("NAME", "NODES", "RUNNING", "CONTAINERS")]
        for name, found in nodes.clusters().items():
            real = [node for node in found if node.role != nodes.ROUTER]
            running = sum(node.running for node in real)
            rows.append((name, str(len(real)), str(running), ",".join(node.name for node in found)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        click.echo("   ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]).rstrip())


@cluster.command()
@name_option
@kubeconfig_option
def delete(name: str, kubeconfig: Path | None) -> None:
    """Remove a cluster: its containers, volumes and networks, and its entries of the kubeconfig."""
    from minik8s.cli import kubeconfig as file
    from minik8s.cli import node_containers as nodes

    with told():
        there = nodes.delete(name)
        there = file.write_unmerged(kubeconfig or file.default_path(), context_of(name)) or there
    click.echo(f"cluster {name} is gone" if there else f"there is no cluster {name}")


@cluster.command(name="load-image")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@name_option
def load_image(images: tuple[str, ...], name: str) -> None:
    """Give images of this machine's engine to all nodes of a cluster."""
    from minik8s.cli import node_containers as nodes
    from minik8s.cli.docker_command import docker

    with told(), tempfile.TemporaryDirectory(prefix="minik8s-images-") as folder:
        found = nodes.clusters().get(name)
        if not found:
            raise click.ClickException(f"there is no cluster {name}: 'minik8s cluster list' tells which there are")
        archive = f"{folder}/images.tar"
        docker("save", "--output", archive, *images)
        names = [node.name for node in found if node.role != nodes.ROUTER]
        nodes.load_images(names, archive)
    click.echo(f"{', '.join(images)}: loaded into {', '.join(names)}")


@cluster.command(name="build-image")
@click.option("--base", default="", help="An image of Debian or Ubuntu to build on (default: this machine's programs).")
@click.option("--image", default="", help="Name of the image to make.")
def build_image(base: str, image: str) -> None:
    """Make the node image: a Docker Engine and this minik8s. Without --base no registry is needed."""
    from minik8s.cli import node_image

    began = time.monotonic()
    with told():
        node_image.build(image or node_image.IMAGE, base)
    click.echo(f"made {image or node_image.IMAGE} in {_seconds(began)}")


def context_of(name: str) -> str:
    """The name of a cluster in kubeconfigs."""
    return name if name == "minik8s" else f"minik8s-{name}"


def _seconds(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


@contextmanager
def told() -> Iterator[None]:
    """What is to be expected of engines and files is one line and exit code 1."""
    from minik8s.cli.docker_command import DockerError
    from minik8s.cli.node_image import ImageError

    try:
        yield
    except (DockerError, ImageError) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'files'}: {error.strerror or error}") from None
