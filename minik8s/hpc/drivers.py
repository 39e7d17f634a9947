"""Pods that drive GpuJobs: each is there as long as its job goes on, with the rights that it needs.

The kubelet starts a driver again that fails; a pod that is gone, or was given up, is made anew. What a driver was doing
is in its job's status and on the cluster, so the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from minik8s.api.errors import NotFound
from minik8s.api.kinds.gpujob import GpuJob
from minik8s.api.kinds.hpccluster import HpcCluster
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.rbac import PolicyRule, Role, RoleBinding
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.api.meta import Json, Object
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, parse_time, system_clock
from minik8s.hpc import driver_pod
from minik8s.hpc.ssh import Unreachable

T = TypeVar("T", bound=Object)
AGAIN = 10.0  # seconds between two pods of one job, at least
OVER = ("Succeeded", "Failed")


class NotDriven(Unreachable):
    """The job has no driver that runs; `reason` and text say why."""


class Drivers:
    """`told(uid)` is called when a job's driver has changed. `image` names the image of this very source."""

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, image: Callable[[], str],
        clock: Clock = system_clock,
    ) -> None:  # fmt: skip
        self._client = client
        self._recorder = recorder
        self._image = image
        self._clock = clock
        self._pods = informers.of(Pod)
        self.told: Callable[[str], None] = lambda uid: None
        self._pods.on_change(self._changed)

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is not None and (uid := pod.metadata.labels.get(driver_pod.UID_LABEL, "")):
            self.told(uid)

    async def keep(self, job: GpuJob, cluster: HpcCluster) -> float | None:
        """See that the job has its driver. Seconds until that should be seen to again; raises NotDriven."""
        await self._permit(job, cluster)
        name, space = driver_pod.name_of(job), job.metadata.namespace
        pod = self._pods.get(space, name)
        if pod is None:
            made = await self._made(Pod, driver_pod.pod(job, self._image()), job)
            await self._pods.caught_up(made.metadata.resourceVersion)
            self._recorder.event(job, "Normal", "DriverCreated", f"Created pod {name}, which drives the job")
            return None
        _own(pod, job)
        if pod.deleting:
            return None
        if pod.status.phase in OVER:
            left = parse_time(pod.metadata.creationTimestamp) + AGAIN - self._clock()
            if left > 0:
                return left
            await self._client.delete(Pod, name, space, uid=pod.metadata.uid)
            return None
        reason, message = driver_pod.trouble(pod)
        if reason and pod.spec.containers[0].image != self._image():  # of an older source: no node makes it any more
            await self._client.delete(Pod, name, space, uid=pod.metadata.uid)
            return None
        if reason:
            raise NotDriven("DriverWaiting", f"the pod {name}, which is to drive the job, waits: {reason}: {message}")
        return None

    async def _permit(self, job: GpuJob, cluster: HpcCluster) -> None:
        """The rules follow the cluster, whose Secret may become another one."""
        own, rules = {"metadata": driver_pod.metadata(job)}, driver_pod.rules(job, cluster)
        role = await self._made(Role, {**own, "rules": rules}, job)
        if role.rules != msgspec.convert(rules, tuple[PolicyRule, ...]):
            meta = role.metadata
            patch = {"metadata": {"uid": meta.uid}, "rules": rules}
            await self._client.patch(Role, meta.name, meta.namespace, patch)
        await self._made(ServiceAccount, own, job)
        await self._made(RoleBinding, driver_pod.binding(job), job)

    async def _made(self, kind: type[T], document: Json, job: GpuJob) -> T:
        """The object that is there already, or else this one."""
        try:
            found = await self._client.get(kind, document["metadata"]["name"], job.metadata.namespace)
        except NotFound:
            return await self._client.create(kind, document)
        return _own(found, job)


def _own(found: T, job: GpuJob) -> T:
    """Raises NotDriven for what somebody else has made under this name: it is given no rights, and none are taken."""
    if found.controller is None or found.controller.uid != job.metadata.uid:
        what = f"a {type(found).__name__} {found.metadata.name} is there that is not of this job: delete it"
        raise NotDriven("DriverConflict", what)
    return found
