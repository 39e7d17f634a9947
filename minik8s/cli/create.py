"""The verb create: objects out of files, or out of a few words, `create deployment web --image nginx`."""

from __future__ import annotations

import click

from minik8s.cli import targets
from minik8s.cli.connection import Cluster
from minik8s.cli.targets import Target
from minik8s.cli.verb import (
    after_dashes,
    dry_run_option,
    files_option,
    output_option,
    recursive_option,
    validate_option,
    verb,
)
from minik8s.cli.write import Writing, need_files


@verb()
@files_option
@recursive_option
@output_option
@dry_run_option
@validate_option
@click.option("--save-config", is_flag=True, help="Leave what apply needs to go on from here.")
@click.option("--image", multiple=True, help="deployment, job: image of a container.")
@click.option("--replicas", type=int, help="deployment: number of pods.")
@click.option("--port", type=int, help="deployment: port that the container listens at.")
@click.option("--from-literal", multiple=True, metavar="KEY=VALUE", help="configmap, secret generic: an entry.")
@click.option("--from-file", multiple=True, metavar="[KEY=]FILE", help="configmap, secret generic: a file or folder.")
@click.option("--from-env-file", multiple=True, metavar="FILE", help="configmap, secret generic: lines KEY=VALUE.")
@click.option("--type", help="secret generic: its type.")
@click.option("--cert", metavar="FILE", help="secret tls: the certificate.")
@click.option("--key", metavar="FILE", help="secret tls: its key.")
@click.option("--docker-server", help="secret docker-registry: the registry.")
@click.option("--docker-username", help="secret docker-registry: who logs in.")
@click.option("--docker-password", help="secret docker-registry: with what.")
@click.option("--docker-email", help="secret docker-registry: an address.")
@click.option("--tcp", multiple=True, metavar="PORT[:TARGET]", help="service: a port.")
@click.option("--clusterip", help="service clusterip: its address, or None.")
@click.option("--node-port", type=int, help="service nodeport: port of the nodes.")
@click.option("--external-name", help="service externalname: the name outside.")
@click.argument("words", metavar="[KIND [TYPE] NAME [-- COMMAND...]]", nargs=-1)
def create(
    cluster: Cluster, words: tuple[str, ...], filenames: tuple[str, ...], recursive: bool, output: str, dry_run: str,
    validate: str, save_config: bool, **options: object,
) -> None:  # fmt: skip
    """Create the objects of files, or one that a few words describe.

    \b
    create -f web.yaml
    create deployment web --image nginx --replicas 2 --port 80
    create job once --image busybox -- echo done
    create configmap settings --from-literal colour=blue --from-file app.ini
    create secret generic|tls|docker-registry NAME …
    create service clusterip|nodeport|loadbalancer|externalname NAME …
    create namespace|serviceaccount NAME
    """
    if words and filenames:
        raise click.ClickException("say either -f FILE or what to create in words, not both")
    writing = Writing(cluster, output=output, dry_run=dry_run, validate=validate)

    def act(target: Target) -> None:
        from minik8s.cli.apply import with_annotation

        assert target.manifest is not None
        obj = with_annotation(target.manifest.obj) if save_config else target.manifest.obj
        if dry_run != "client":
            obj = cluster.wire.send("POST", target.kind.path(target.namespace), obj, writing.query)
        writing.told(target, obj, "created")

    if words:
        wanted = [
            _described(cluster, words, {name: value for name, value in options.items() if value not in (None, ())})
        ]
    else:
        need_files(filenames)
        wanted = targets.from_files(cluster, filenames, recursive=recursive)
    writing.each(wanted, act, "creating")


def _described(cluster: Cluster, words: tuple[str, ...], options: dict[str, object]) -> Target:
    from minik8s.cli.manifests import Manifest
    from minik8s.cli.shorthand import make

    command = after_dashes()
    obj = make(words[: len(words) - len(command)], options, command)
    target = targets.resolve(cluster, Manifest(obj, "", {}))
    if not cluster.choice.namespace:
        obj["metadata"].pop("namespace", None)  # what a dry run prints is for any namespace
    return target
