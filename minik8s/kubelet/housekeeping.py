"""Now and then: give disk space back. Node-pressure eviction is not here yet; pressure conditions stay False."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from minik8s.aio import periodic
from minik8s.kubelet.gc import disk_of, plan_images
from minik8s.kubelet.kit import Kit
from minik8s.kubelet.node_status import NodeStatus
from minik8s.log import get_logger
from minik8s.runtime.base import RuntimeFailure

log = get_logger("housekeeping")


class Housekeeping:
    def __init__(self, kit: Kit, node: NodeStatus, pods: Callable[[], Sequence[str]]) -> None:
        self._kit = kit
        self._node = node
        self._pods = pods

    async def run(self) -> None:
        if self._kit.settings.data_dir is None:
            await asyncio.Event().wait()
        await periodic(self._kit.settings.housekeeping_seconds, self.collect_images)

    async def collect_images(self) -> int:
        """Remove what the plan says; returns the bytes that it freed."""
        kit, settings = self._kit, self._kit.settings
        try:
            root = (await kit.runtime.info()).root or "/"
            images = await kit.runtime.images()
            in_use = {info.image_id for info in await kit.runtime.containers()}
        except RuntimeFailure as error:
            log.debug("images not looked at", error=str(error))
            return 0
        disk = await asyncio.to_thread(disk_of, root)
        high, low = settings.image_gc_high, settings.image_gc_low
        chosen, wanted = plan_images(images, in_use, kit.images.pulled, disk, kit.clock(), high=high, low=low)
        freed = 0
        for image in chosen:
            try:
                freed += await kit.runtime.remove_image(image.id)
            except RuntimeFailure as error:
                log.warning(
                    "image not removed", image=image.id, error=str(error), remedy="'docker image rm' tells who holds it"
                )
                continue
            kit.images.collected(image)
        if wanted:
            self._tell(freed, wanted, disk.percent)
            await self._save()
        return freed

    async def _save(self) -> None:
        try:
            await asyncio.to_thread(self._kit.images.save)
        except OSError as error:
            log.warning(
                "the list of pulled images is not written",
                error=str(error),
                remedy="make space, or make the data folder writable",
            )

    def _tell(self, freed: int, wanted: int, percent: float) -> None:
        node = self._node.node
        text = f"disk usage {percent:.0f} %: wanted to free {wanted} bytes, removed images of {freed} bytes"
        if node is not None:
            reason = "ImageGCFailed" if freed < wanted else "FreedDiskSpace"
            self._kit.recorder.event(node, "Warning" if freed < wanted else "Normal", reason, text)
