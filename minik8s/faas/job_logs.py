"""The last lines of what a Job's pod said before it failed: what people look for first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from minik8s.api.errors import StatusError
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.resource import Json
from minik8s.apiserver.streaming import kubelet_address, log_target
from minik8s.client.base import Client
from minik8s.faas.outbound import Outbound, Refused, Unreachable

if TYPE_CHECKING:
    from minik8s.client.informer import Informer

JOB_NAME = "batch.kubernetes.io/job-name"
LINES, LARGEST = 20, 4096  # bytes
SECONDS = 10.0
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class JobLogs:
    """`kubelets` reaches nodes with the master's certificate: so who asks must be allowed to read the pod's log."""

    def __init__(self, nodes: Informer[Node], kubelets: Outbound) -> None:
        self._node: Callable[[str], Node | None] = nodes.by_key
        self._kubelets = kubelets

    async def tail(self, client: Client, job: Json) -> str:
        """Of the container that failed last, as far as `client` may read it; "" if there is nothing to be had."""
        meta = job["metadata"]
        try:
            pods = (await client.list(Pod, meta["namespace"], labels=f"{JOB_NAME}={meta['name']}")).items
            found = culprit(pods)
            if found is None or not await _may_read(client, found[0]):
                return ""
            pod, container = found
            node = self._node(pod.spec.nodeName)
            if node is None:
                return ""
            address, port = kubelet_address(node)
            host = f"[{address}]" if ":" in address else address
            path = log_target(pod, {"container": container, "tailLines": str(LINES)})
            reply = await self._kubelets.send("GET", f"https://{host}:{port}{path}", headers={}, largest=2**20,
                                              seconds=SECONDS, encoded=True)  # fmt: skip
        except (StatusError, Unreachable, Refused):  # the failure itself is told all the same
            return ""
        return reply.body[-LARGEST:].decode(errors="replace").strip() if reply.code == 200 else ""


def culprit(pods: Iterable[Pod]) -> tuple[Pod, str] | None:
    """The pod and the container that ended badly last. Pure."""
    ended = [
        (state.finishedAt, pod, status.name)
        for pod in pods
        for status in (*pod.status.initContainerStatuses, *pod.status.containerStatuses)
        if (state := status.state.terminated or status.lastState.terminated) is not None and state.exitCode != 0
    ]
    if not ended:
        return None
    _, pod, container = max(ended, key=lambda each: each[0])
    return pod, container


async def _may_read(client: Client, pod: Pod) -> bool:
    attributes = {"namespace": pod.metadata.namespace, "verb": "get", "resource": "pods", "subresource": "log",
                  "name": pod.metadata.name}  # fmt: skip
    review: Any = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                   "spec": {"resourceAttributes": attributes}}  # fmt: skip
    answer = await client.transport.request("POST", REVIEWS, body=msgspec.json.encode(review))
    return bool(msgspec.json.decode(answer)["status"].get("allowed"))
