"""Disk space given back: images that this agent pulled and nobody uses, the least recently used first.

`plan_images` is pure. Images that came from elsewhere are never touched. Dead containers are the planner's business.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from minik8s.runtime.base import ImageInfo

MIN_AGE = 120.0  # seconds that an image is kept after its last use; kubelet's --minimum-image-ttl-duration


class Disk(NamedTuple):
    capacity: int  # bytes
    used: int

    @property
    def percent(self) -> float:
        return 100 * self.used / self.capacity if self.capacity else 0.0


def disk_of(path: str) -> Disk:
    """Blocking."""
    usage = shutil.disk_usage(path)
    return Disk(usage.total, usage.used)


def plan_images(
    images: Sequence[ImageInfo],
    in_use: set[str],
    pulled: Mapping[str, float],
    disk: Disk,
    now: float,
    *,
    high: int,
    low: int,
) -> tuple[list[ImageInfo], int]:
    """(images to remove in this order, bytes wanted). `in_use` holds image ids; `pulled` when ours were last used."""
    if disk.percent < high:
        return [], 0
    wanted = disk.used - disk.capacity * low // 100
    idle = [i for i in images if i.id in pulled and i.id not in in_use and now - pulled[i.id] >= MIN_AGE]
    chosen: list[ImageInfo] = []
    for image in sorted(idle, key=lambda image: pulled[image.id]):
        if sum(known.size for known in chosen) >= wanted:
            break
        chosen.append(image)
    return chosen, wanted
