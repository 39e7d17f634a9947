"""Pods of functions found and made: indexes of copies that controllers share, and what all new pods have in common."""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable

import msgspec

from minik8s.api.errors import AlreadyExists, NotFound
from minik8s.api.kinds.environment import POOL_LABEL
from minik8s.api.kinds.function import LABEL, RUNTIME_SECRET, Function
from minik8s.api.kinds.functionrevision import FunctionRevision, FunctionRevisionSpec
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.meta import is_true
from minik8s.api.resource import Json
from minik8s.client.base import Client
from minik8s.client.informer import Informer
from minik8s.controllers.ownership import owned
from minik8s.controllers.templates import ALPHABET
from minik8s.faas.functions import pods
from minik8s.faas.functions.pods import Make

BY_CROWD = "function crowd"  # index of pods: namespace/function, or namespace/SHARED
BY_POOL = "function pool"  # index of pods: namespace/environment hash


class Workshop:
    def __init__(self, client: Client, *, image: Callable[[], str], environments: str) -> None:
        """`image`: of functions without one of their own; `environments`: their folder on nodes."""
        self._client = client
        self._image = image
        self._environments = environments

    def make(self, spec: FunctionRevisionSpec) -> Make:
        return Make(
            spec.shape, spec.environmentHash, spec.image or self._image(), msgspec.to_builtins(spec.resources),
            spec.nodeSelector, spec.serviceAccountName,
        )  # fmt: skip

    async def pods(self, make: Make, namespace: str, prefix: str, count: int) -> list[Json]:
        """`count` pods that are to be created, without labels and owners."""
        key = await runtime_key(self._client)
        names = [f"{prefix}-{''.join(secrets.choice(ALPHABET) for _ in range(5))}" for _ in range(count)]
        return [pods.pod(make, name, namespace, key=key, root=self._environments) for name in names]


async def runtime_key(client: Client) -> bytes:
    """What control tokens of pods are made of; made when it is first needed."""
    namespace, _, name = RUNTIME_SECRET.partition("/")
    for _ in range(3):
        try:
            found = await client.get(Secret, name, namespace)
            return b64decode(found.data.get("hmac", ""))
        except NotFound:
            document = {"metadata": {"name": name}, "data": {"hmac": b64encode(secrets.token_bytes(32)).decode()}}
            try:
                await client.create(Secret, document, namespace)
            except AlreadyExists:
                continue
    raise NotFound(f"the Secret {RUNTIME_SECRET} comes and goes")


def index_by_crowd(informer: Informer[Pod]) -> None:
    informer.add_index(BY_CROWD, lambda pod: _labelled(pod, LABEL))


def index_by_pool(informer: Informer[Pod]) -> None:
    informer.add_index(BY_POOL, lambda pod: _labelled(pod, POOL_LABEL))


def _labelled(pod: Pod, label: str) -> list[str]:
    value = pod.metadata.labels.get(label)
    return [f"{pod.metadata.namespace}/{value}"] if value else []


def history_of(informer: Informer[FunctionRevision], function: Function) -> list[FunctionRevision]:
    """Its revisions, the oldest first."""
    return sorted(owned(informer, function), key=lambda each: each.spec.number)


def is_up(node: Node) -> bool:
    return is_true(node.status.conditions, "Ready")


def lost_nodes(nodes: Informer[Node]) -> set[str]:
    return {node.metadata.name for node in nodes.list() if not is_up(node)}
