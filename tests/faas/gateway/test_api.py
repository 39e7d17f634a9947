"""`functions/NAME/calls`: what several gateways remember, read from their nodes' kubelets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from minik8s.aio import background
from minik8s.api.errors import BadRequest, NotFound, ServiceUnavailable
from minik8s.api.kinds.function import Function
from minik8s.api.kinds.node import Node
from minik8s.apiserver import routes
from minik8s.apiserver.request import ApiRequest
from minik8s.client.informer import Informers
from minik8s.faas.gateway import ANNOTATION
from minik8s.faas.gateway.api import CallRecords
from tests.faas.gateway.site import site


class Asked:
    """As much of a Call as the answer needs."""

    def __init__(self, name: str, **query: str) -> None:
        path = f"/apis/faas.minik8s.io/v1/namespaces/default/functions/{name}/calls"
        self.info = routes.parse("GET", path, query)
        self.request = ApiRequest("GET", path, query, {}, b"")
        self.query = query


def item(second: int) -> dict[str, Any]:
    return {"id": str(second), "time": f"2024-01-01T00:00:{second:02}.000Z"}


async def test_what_nodes_remember_is_one_list_without_those_that_do_not_answer() -> None:
    fetched: list[str] = []

    async def fetch(node: Node, path: str) -> bytes:
        fetched.append(f"{node.metadata.name} {path}")
        if node.metadata.name == "silent":
            raise ServiceUnavailable("no")
        second = {"here": 1, "there": 2}[node.metadata.name]
        edges = [{"from": "f", "to": "g", "count": second}]
        return json.dumps({"items": [item(second)], "edges": edges}).encode()

    async with site() as it:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        for name in ("here", "there", "silent", "without"):
            if name != "here":
                await it.client.create(Node, {"metadata": {"name": name}})
            announced = {} if name == "without" else {"metadata": {"annotations": {ANNOTATION: "http://x:1"}}}
            await it.client.patch(Node, name, None, announced)
            await it.client.patch(Node, name, None, {"status": ready}, subresource="status")
        await it.client.create(Function, {"metadata": {"name": "f", "namespace": "default"}, "spec": {}})
        informers = Informers(it.client)
        records = CallRecords(informers, fetch)
        async with background(informers.run()):
            await informers.synced()
            answer = json.loads((await records.get(Asked("f"))).body)  # type: ignore[arg-type]
            assert [each["id"] for each in answer["items"]] == ["2", "1"]
            assert answer["edges"] == [{"from": "f", "to": "g", "count": 3}]
            assert sorted(fetched) == [
                f"{name} /functions/calls?namespace=default&name=f" for name in ("here", "silent", "there")
            ]
            assert len(json.loads((await records.get(Asked("f", limit="1"))).body)["items"]) == 1  # type: ignore[arg-type]
            with pytest.raises(BadRequest, match="limit"):
                await records.get(Asked("f", limit="x"))  # type: ignore[arg-type]
            with pytest.raises(NotFound):
                await records.get(Asked("g"))  # type: ignore[arg-type]
