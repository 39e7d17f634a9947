"""How often an autoscaler is looked at: an annotation that people, older manifests and the command line write. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

SYNC_PERIOD = "autoscaling.minik8s.io/sync-period"  # whole seconds, such as `5s`
DEFAULT_SYNC_PERIOD = 15  # seconds; kube-controller-manager's --horizontal-pod-autoscaler-sync-period
_PERIOD = re.compile(r"([1-9][0-9]{0,3})s?")


def sync_period(annotations: Mapping[str, str]) -> int:
    """Seconds between two looks; ValueError if the annotation cannot be read."""
    text = annotations.get(SYNC_PERIOD)
    if text is None:
        return DEFAULT_SYNC_PERIOD
    match = _PERIOD.fullmatch(text)
    if match is None:
        raise ValueError("must be a number of seconds, 1s or more, such as 5s")
    return int(match[1])


def looked_at_every(seconds: int, metadata: Mapping[str, object]) -> dict[str, object]:
    """`metadata` of an autoscaler that may move every `seconds`: then it must be looked at as often."""
    if seconds >= DEFAULT_SYNC_PERIOD:
        return dict(metadata)
    annotations = metadata.get("annotations")
    return {**metadata, "annotations": {SYNC_PERIOD: f"{seconds}s", **(annotations or {})}}  # type: ignore[dict-item]
