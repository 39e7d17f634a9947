"""A node that has the image already starts the pod sooner."""

from __future__ import annotations

from minik8s.scheduler.model import NodeInfo, PodInfo

LEAST = 23 * 2**20  # bytes; smaller images are pulled in no time (Kubernetes' minThreshold)
MOST_PER_CONTAINER = 1000 * 2**20  # bytes; more makes no difference (Kubernetes' maxContainerThreshold)


def score(pod: PodInfo, info: NodeInfo) -> float:
    """0 to 100 by the bytes that need no pull."""
    if not info.images:
        return 0.0
    present = sum(_size(info, image) for image in pod.shape.images)
    most = MOST_PER_CONTAINER * len(pod.shape.images)
    return 100.0 * max(0, min(present, most) - LEAST) / (most - LEAST)


def _size(info: NodeInfo, image: str) -> int:
    size = info.images.get(image)
    if size is None and ":" not in image.rpartition("/")[2]:
        size = info.images.get(image + ":latest")
    return size or 0
