"""Which container a client means by namespace, pod and container name; or why there is none, in words.

What runs is known from the engine, which is never behind; why something does not run, from the pod's status.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from minik8s.api.errors import BadRequest, NotFound, ServiceUnavailable, not_found
from minik8s.api.kinds.pod import Container, ContainerStatus, Pod
from minik8s.runtime.base import ContainerInfo, EngineUnavailable, Runtime

_CANNOT_PULL = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


class Pods(Protocol):
    """The pods of this node."""

    def list(self) -> Sequence[Pod]: ...


class Found(NamedTuple):
    """A container's id at the engine, and whether it has a terminal and an input by its spec."""

    id: str
    tty: bool = False
    stdin: bool = False


class PodLookup(Protocol):
    """Raises StatusError in words that a user understands."""

    def pod(self, namespace: str, name: str) -> Pod: ...

    async def logged(self, namespace: str, pod: str, container: str, *, previous: bool) -> Found:
        """The container whose log is wanted, running or not."""

    async def running(self, namespace: str, pod: str, container: str) -> Found: ...

    async def sandbox(self, namespace: str, pod: str) -> str:
        """The id of the pod's running sandbox."""


class RuntimeLookup:
    """Answers from the kubelet's pods and the engine's containers."""

    def __init__(self, pods: Pods, runtime: Runtime) -> None:
        self._pods = pods
        self._runtime = runtime

    def pod(self, namespace: str, name: str) -> Pod:
        for pod in self._pods.list():
            if pod.metadata.name == name and pod.metadata.namespace == namespace:
                return pod
        raise not_found("pods", name)

    async def logged(self, namespace: str, pod: str, container: str, *, previous: bool) -> Found:
        found, spec, attempts = await self._attempts(namespace, pod, container)
        chosen = choose_logged(found, container, attempts, previous=previous)
        return Found(chosen.id, spec.tty, spec.stdin)

    async def running(self, namespace: str, pod: str, container: str) -> Found:
        _, spec, attempts = await self._attempts(namespace, pod, container)
        if not attempts or attempts[0].state != "running":
            raise NotFound(f'container not found ("{container}"): it does not run')
        return Found(attempts[0].id, spec.tty, spec.stdin)

    async def sandbox(self, namespace: str, pod: str) -> str:
        for info in await self._newest_first(self.pod(namespace, pod)):
            if info.is_sandbox and info.state == "running":
                return info.id
        raise NotFound(f"pod {namespace}/{pod} is not running")

    async def _attempts(
        self, namespace: str, name: str, container: str
    ) -> tuple[Pod, Container, Sequence[ContainerInfo]]:
        """The pod, the container's spec, and its attempts, newest first."""
        pod = self.pod(namespace, name)
        spec = pod.spec
        for known in (*spec.containers, *spec.initContainers, *spec.ephemeralContainers):
            if known.name == container:
                infos = await self._newest_first(pod)
                return pod, known, [info for info in infos if info.name == container]
        raise BadRequest(f"container {container} is not valid for pod {name}")

    async def _newest_first(self, pod: Pod) -> list[ContainerInfo]:
        try:
            infos = await self._runtime.containers(pod.metadata.uid)
        except EngineUnavailable as error:
            raise ServiceUnavailable(f"the container engine does not answer: {error}") from None
        return sorted(infos, key=lambda info: (info.attempt, info.created_at), reverse=True)


def choose_logged(pod: Pod, container: str, attempts: Sequence[ContainerInfo], *, previous: bool) -> ContainerInfo:
    """Which of a container's attempts (newest first) has the log; BadRequest says why none.

    While a container waits to be restarted, the attempt that ended is both the current and the previous one.
    """
    status = _status(pod, container)
    waiting = status.state.waiting if status is not None else None
    ran = [info for info in attempts if info.state == "running" or info.started_at]
    if previous:
        ended = ran if waiting is not None else ran[1:]
        dead = [info for info in ended if info.state == "exited"]
        if not dead:
            raise BadRequest(f'previous terminated container "{container}" in pod "{pod.metadata.name}" not found')
        return dead[0]
    if ran:
        return ran[0]
    reason = waiting.reason if waiting is not None and waiting.reason else "ContainerCreating"
    raise BadRequest(
        f'container "{container}" in pod "{pod.metadata.name}" is waiting to start: {_CANNOT_PULL.get(reason, reason)}'
    )


def _status(pod: Pod, container: str) -> ContainerStatus | None:
    status = pod.status
    for known in (*status.containerStatuses, *status.initContainerStatuses, *status.ephemeralContainerStatuses):
        if known.name == container:
            return known
    return None
