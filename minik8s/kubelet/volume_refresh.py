"""Keeps mounted configuration as it is in the API: when an object changes, and before a token expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from minik8s.api.kinds.pod import Pod
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.kubelet.objects import Unavailable
from minik8s.kubelet.volume_sources import MountFailed
from minik8s.kubelet.volumes import Volumes

RETRY = 10.0  # seconds after a refresh that did not work; the old files stay meanwhile


class VolumeRefresh(Controller):
    """Keys are pod uids; `pod_of` gives the pod while its volumes are in use."""

    name = "volumes"
    workers = 2

    def __init__(
        self, client: Client, informers: Informers, volumes: Volumes | None, pod_of: Callable[[str], Pod | None]
    ) -> None:
        super().__init__(client, informers)
        self._volumes = volumes
        self._pod_of = pod_of

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.workers):
                tasks.create_task(self._work(), name=f"{self.name}-{number}")

    async def reconcile(self, key: str) -> float | None:
        pod = self._pod_of(key)
        if pod is None or self._volumes is None:
            return None
        try:
            return await self._volumes.refresh(pod)
        except (MountFailed, Unavailable, OSError) as error:
            self.log.debug("volumes not refreshed", pod=pod.key, error=str(error))
            return RETRY
