"""ConfigMap: settings for pods, as text and bytes."""

from __future__ import annotations

from minik8s.api.meta import Object
from minik8s.api.resource import Resource


class ConfigMap(Object):
    data: dict[str, str] = {}
    binaryData: dict[str, str] = {}  # base64
    immutable: bool = False


RESOURCE = Resource(
    kind="ConfigMap",
    plural="configmaps",
    type=ConfigMap,
    definition="io.k8s.api.core.v1.ConfigMap",
    shortNames=("cm",),
    spec_generation=False,
)
