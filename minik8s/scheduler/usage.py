"""Live utilisation of nodes, as metrics.k8s.io tells it; read only while a strategy goes by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from minik8s.api.errors import StatusError
from minik8s.api.meta import ObjectMeta, Struct
from minik8s.api.quantity import parse_quantity, to_bytes
from minik8s.client.base import Transport
from minik8s.clock import parse_time
from minik8s.log import get_logger
from minik8s.scheduler.model import Usage

PATH = "/apis/metrics.k8s.io/v1beta1/nodes"
ReadUsage = Callable[[], Awaitable[Mapping[str, Usage]]]
log = get_logger("scheduler")


class _NodeMetrics(Struct):
    metadata: ObjectMeta = ObjectMeta()
    timestamp: str = ""
    usage: dict[str, str] = {}


class _List(Struct):
    items: tuple[_NodeMetrics, ...] = ()


def measured(document: bytes) -> dict[str, Usage]:
    """What a NodeMetricsList says, by node. A node of which it does not tell both is missing."""
    found: dict[str, Usage] = {}
    for item in msgspec.json.decode(document, type=_List).items:
        cpu, memory = item.usage.get("cpu"), item.usage.get("memory")
        if cpu is not None and memory is not None:
            found[item.metadata.name] = Usage(float(parse_quantity(cpu)), to_bytes(memory), parse_time(item.timestamp))
    return found


def from_api(transport: Transport) -> ReadUsage:
    """Reads NodeMetrics; where they cannot be had, nothing is known, and pods' requests count."""

    async def read() -> Mapping[str, Usage]:
        try:
            return measured(await transport.request("GET", PATH))
        except StatusError as error:
            log.debug("no live utilisation", error=str(error))
            return {}

    return read
