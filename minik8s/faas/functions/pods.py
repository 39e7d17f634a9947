"""Pods of functions, and pods that wait in a pool for one: what they are, which are taken, which go. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from minik8s.api.kinds.environment import POOL_LABEL
from minik8s.api.kinds.function import LABEL
from minik8s.api.kinds.functionrevision import SHAPE_LABEL
from minik8s.api.kinds.pod import Pod
from minik8s.api.resource import Json
from minik8s.controllers.pod_facts import is_active, is_ready
from minik8s.faas.environments.plan import volumes

CONTAINER: Final = "function"
PORT: Final = 8080
GRACE: Final = 930  # seconds: the longest call (timeoutSeconds) and a little; the runtime ends by itself when idle


class Make(NamedTuple):
    """What containers of a shape are made of."""

    shape: str
    environment: str  # its hash
    image: str
    resources: Json
    node_selector: dict[str, str]
    account: str


def token(key: bytes, namespace: str, name: str) -> str:
    """What a gateway shows to load code into a pod."""
    return hmac.new(key, f"{namespace}/{name}".encode(), hashlib.sha256).hexdigest()


def pod(make: Make, name: str, namespace: str, *, key: bytes, root: Path | str) -> Json:
    """Without labels and owners: see `for_function`, `for_pool`. It knows its token's hash alone: who may read pods, or
    runs inside of one, must not learn how to put code into it. `root`: the folder of environments on nodes."""
    proof = hashlib.sha256(token(key, namespace, name).encode()).hexdigest()
    mounted, mounts = volumes(root, make.environment)
    container: Json = {
        "name": CONTAINER,
        "image": make.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": [
            {"name": "FUNCTION_TOKEN_SHA256", "value": proof},
            {"name": "POD_NAMESPACE", "value": namespace},
            {"name": "POD_NAME", "value": name},
        ],
        "resources": make.resources,
    }
    # The first process of a namespace of processes is deaf to SIGTERM until it has a handler: a supervisor in its place
    # that is just starting when it is told to end would stay for all of its grace.
    spec: Json = {"containers": [container], "terminationGracePeriodSeconds": GRACE, "enableServiceLinks": False,
                  "shareProcessNamespace": True}  # fmt: skip
    if mounted:
        container["volumeMounts"], spec["volumes"] = mounts, mounted
    if make.node_selector:
        spec["nodeSelector"] = make.node_selector
    if make.account:
        spec["serviceAccountName"] = make.account
    else:
        spec["automountServiceAccountToken"] = False  # one volume less to prepare, and nothing to steal
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def labels(function: str, shape: str) -> dict[str, str]:
    return {LABEL: function, SHAPE_LABEL: shape}


def for_function(made: Json, function: str, shape: str, owners: list[Json]) -> Json:
    return made | {"metadata": made["metadata"] | {"labels": labels(function, shape), "ownerReferences": owners}}


def for_pool(made: Json, make: Make) -> Json:
    """Owned by nobody until it is taken; its pool's controller counts it by the label."""
    return made | {"metadata": made["metadata"] | {"labels": {POOL_LABEL: make.environment, SHAPE_LABEL: make.shape}}}


def claim(environment: str, function: str, shape: str, owners: list[Json]) -> list[Json]:
    """The JSON patch that takes a pod out of a pool; of two who do it at once, one fails."""
    pointer = POOL_LABEL.replace("~", "~0").replace("/", "~1")
    return [
        {"op": "test", "path": f"/metadata/labels/{pointer}", "value": environment},
        {"op": "replace", "path": "/metadata/labels", "value": labels(function, shape)},
        {"op": "add", "path": "/metadata/ownerReferences", "value": owners},
    ]


def counting(pods: Iterable[Pod], lost: Collection[str]) -> list[Pod]:
    """Those that serve or are about to: neither ended nor going, nor on one of the nodes that are `lost`."""
    return [each for each in pods if is_active(each) and each.spec.nodeName not in lost]


def best(waiting: Iterable[Pod], near: Collection[str]) -> list[Pod]:
    """Pods of a pool, the first to take first: ready ones, then those on nodes that calls wait on, then the oldest."""
    return sorted(
        waiting,
        key=lambda each: (
            not is_ready(each), each.spec.nodeName not in near, each.metadata.creationTimestamp, each.metadata.name
        ),
    )  # fmt: skip


def first_to_go(pods: Iterable[Pod], count: int) -> list[Pod]:
    """Those that do not serve yet, then the newest: the oldest have the most revisions and connections warm."""
    by_name = sorted(pods, key=lambda each: each.metadata.name)
    by_age = sorted(by_name, key=lambda each: each.metadata.creationTimestamp, reverse=True)
    return sorted(by_age, key=is_ready)[:count]


def trouble(pods: Iterable[Pod]) -> str:
    """Why pods do not start, as the first that tells says: "ErrImagePull: …"; "" if none does."""
    for each in pods:
        for status in each.status.containerStatuses:
            waiting = status.state.waiting
            if waiting is not None and waiting.reason not in ("", "ContainerCreating", "PodInitializing"):
                return f"{waiting.reason}: {waiting.message}".rstrip(": ")
        for known in each.status.conditions:
            if known.type == "PodScheduled" and known.status == "False":
                return f"{known.reason}: {known.message}".rstrip(": ")
    return ""
