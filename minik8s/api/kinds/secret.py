"""Secret: what pods may know and logs may not."""

from __future__ import annotations

from minik8s.api.meta import Object
from minik8s.api.resource import Resource


class Secret(Object):
    type: str = "Opaque"
    data: dict[str, str] = {}  # base64
    immutable: bool = False


RESOURCE = Resource(
    kind="Secret",
    plural="secrets",
    type=Secret,
    definition="io.k8s.api.core.v1.Secret",
    spec_generation=False,
)
