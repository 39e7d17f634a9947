"""ControllerRevision: one remembered template of a DaemonSet (later: StatefulSet), for rollback."""

from __future__ import annotations

from typing import Any

from minik8s.api.meta import Object
from minik8s.api.resource import Resource


class ControllerRevision(Object):
    data: dict[str, Any] = {}
    revision: int = 0


RESOURCE = Resource(
    kind="ControllerRevision",
    plural="controllerrevisions",
    group="apps",
    type=ControllerRevision,
    definition="io.k8s.api.apps.v1.ControllerRevision",
    spec_generation=False,
)
