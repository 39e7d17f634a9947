"""Targets: what a verb's words and files mean, `pods web-0 web-1`, `deploy/web svc/web`, `pods,svc`, `-f web.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from minik8s.cli.connection import Cluster
from minik8s.cli.discovery import Kind

if TYPE_CHECKING:
    from minik8s.cli.manifests import Manifest

Json = dict[str, Any]


class Target(NamedTuple):
    """One object, or with an empty name all of a kind. `namespace` None: cluster-wide, or all namespaces."""

    kind: Kind
    name: str
    namespace: str | None
    manifest: Manifest | None = None

    @property
    def path(self) -> str:
        return self.kind.path(self.namespace, self.name)

    @property
    def text(self) -> str:
        """`deployment.apps/web`"""
        return f"{self.kind.one}/{self.name}"

    @property
    def quoted(self) -> str:
        """`deployment.apps "web"`"""
        return f'{self.kind.one} "{self.name}"'


def parse(cluster: Cluster, words: Sequence[str], *, everywhere: bool = False) -> list[Target]:
    """The targets that words name. One kind (or several, with commas) without names means all of them."""
    if not words:
        return []
    if any("/" in word for word in words):
        return [_pair(cluster, word) for word in words]
    kinds = [kind for word in words[0].split(",") for kind in _kinds(cluster, word)]
    if not kinds:
        raise click.ClickException('no kind is named: write KIND NAME, e.g. "pods web-0"')
    names = words[1:]
    if names and everywhere:
        raise click.ClickException("an object cannot be asked for by name across all namespaces: use -n NAMESPACE")
    if names and len(kinds) > 1:
        return [_target(cluster, kind, name) for kind in kinds for name in names]
    return [_target(cluster, kind, name, everywhere=everywhere) for kind in kinds for name in names or [""]]


def of_one_kind(cluster: Cluster, words: Sequence[str], plural: str) -> list[Target]:
    """Targets among words that may leave the kind out: `logs web`, `logs pod/web`, `drain n1`."""
    kind = cluster.kinds.find(plural)
    return [_pair(cluster, word) if "/" in word else _target(cluster, kind, word) for word in words]


def from_files(cluster: Cluster, filenames: Sequence[str], *, recursive: bool = False) -> list[Target]:
    """The objects of files; kinds are known and namespaces settled, in the manifests as well."""
    from minik8s.cli import manifests  # and with it a YAML parser, which most verbs do without

    written = manifests.read(filenames, recursive=recursive)
    found = [resolve(cluster, native) for manifest in written for native in manifests.native(manifest)]
    manifests.refuse_doubles(
        ((target.kind.name, target.namespace or "", target.name), target.manifest)
        for target in found
        if target.manifest is not None
    )
    return found


def resolve(cluster: Cluster, manifest: Manifest) -> Target:
    kind = cluster.kinds.of(manifest.api_version, manifest.kind)
    if kind is None:
        missing = cluster.kinds.explain_missing(manifest.api_version, manifest.kind)
        raise click.ClickException(f"{manifest.where('kind')}: {missing}")
    if not kind.namespaced:
        return Target(kind, manifest.name, None, manifest)
    wanted = cluster.choice.namespace
    if wanted and manifest.namespace and wanted != manifest.namespace:
        raise click.ClickException(
            f"{manifest.where('metadata.namespace')}: the namespace of the object ({manifest.namespace}) is not that "
            f"of the option -n ({wanted})"
        )
    namespace = manifest.namespace or cluster.namespace
    manifest.obj["metadata"]["namespace"] = namespace
    return Target(kind, manifest.name, namespace, manifest)


def _kinds(cluster: Cluster, word: str) -> list[Kind]:
    if not word:
        return []
    return cluster.kinds.category(word) or [cluster.kinds.find(word)]


def _pair(cluster: Cluster, word: str) -> Target:
    kind, slash, name = word.partition("/")
    if not slash or not kind or not name or "/" in name:
        raise click.ClickException(f'"{word}" is not KIND/NAME; in one command either all are written so, or none')
    return _target(cluster, cluster.kinds.find(kind), name)


def _target(cluster: Cluster, kind: Kind, name: str, *, everywhere: bool = False) -> Target:
    return Target(kind, name, None if everywhere or not kind.namespaced else cluster.namespace)
