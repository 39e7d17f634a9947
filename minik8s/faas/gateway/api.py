"""What the API server answers of calls that were made: `functions/NAME/calls`, put together from all gateways.

Nothing is kept centrally: each node is asked when somebody reads it, and one that does not answer is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from minik8s.api.errors import BadRequest, StatusError
from minik8s.api.kinds.function import Function
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.workflow import GROUP
from minik8s.api.meta import is_true
from minik8s.apiserver.request import ApiResponse, json_response
from minik8s.apiserver.verbs import Call
from minik8s.client.informer import Informers
from minik8s.faas.gateway import ANNOTATION
from minik8s.faas.gateway.records import KEPT, merged
from minik8s.log import get_logger

PAGE: Final = "/functions/calls"  # of kubelets
PATIENCE: Final = 2.0  # seconds for a node to answer

Json = dict[str, Any]
log = get_logger("gateway")


class CallRecords:
    """`fetch` reads a page of a node's kubelet. `get` answers {"items": [newest first], "edges": [...]}."""

    def __init__(self, informers: Informers, fetch: Callable[[Node, str], Awaitable[bytes]]) -> None:
        self._client = informers.client
        self._nodes = informers.of(Node)
        self._fetch = fetch

    async def get(self, call: Call) -> ApiResponse:
        namespace, name = call.info.namespace, call.info.name
        await self._client.get(Function, name, namespace)
        limit = call.query.get("limit") or str(KEPT)
        if not (limit.isascii() and limit.isdecimal() and 0 < int(limit[:9]) <= 10 * KEPT):
            raise BadRequest(f"limit: must be a number from 1 to {10 * KEPT}, not {limit[:40]!r}")
        path = f"{PAGE}?{urlencode({'namespace': namespace, 'name': name})}"
        gateways = [
            node
            for node in self._nodes.list()
            if ANNOTATION in node.metadata.annotations and is_true(node.status.conditions, "Ready")
        ]
        pages = await asyncio.gather(*(self._page(node, path) for node in gateways))
        meta = {"name": name, "namespace": namespace}
        head: Json = {"kind": "FunctionCallRecordList", "apiVersion": f"{GROUP}/v1", "metadata": meta}
        return json_response(head | merged(pages, int(limit)))

    async def _page(self, node: Node, path: str) -> Json:
        try:
            async with asyncio.timeout(PATIENCE):
                found: Json = msgspec.json.decode(await self._fetch(node, path), type=dict[str, Any])
                return found
        except (StatusError, TimeoutError, msgspec.MsgspecError) as error:
            log.debug("a node tells of no calls", node=node.metadata.name, error=str(error) or type(error).__name__)
            return {}
