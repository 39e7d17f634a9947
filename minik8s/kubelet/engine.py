"""The node's container engine for people who look after the node: all that it holds; stop, restart and remove.

Under `/engine` of the kubelet's server, and so behind `nodes/proxy` of the API server, which says who may: GET is its
verb get, POST create, DELETE delete. A container of a pod is restarted by its kubelet: here it is only stopped, lest
the engine start again what the kubelet replaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web

from minik8s.api.errors import BadRequest, NotFound
from minik8s.api.kinds.pod import Pod
from minik8s.clock import Clock, system_clock
from minik8s.kubelet.lookup import Pods
from minik8s.kubelet.streaming.log_answer import answer_log
from minik8s.kubelet.streaming.logs import parse_log_options
from minik8s.kubelet.trouble import engine_trouble
from minik8s.runtime.base import (
    LABEL_CONTAINER,
    LABEL_IMAGE,
    LABEL_MANAGED,
    LABEL_POD_NAME,
    LABEL_POD_NAMESPACE,
    LABEL_POD_UID,
    Runtime,
)
from minik8s.runtime.inventory import KINDS, EngineContainer, Inventory

GRACE = 10.0  # seconds that a container is given to end, as with `docker stop`
SANDBOX = "POD"


class EnginePages:
    def __init__(self, runtime: Runtime, pods: Pods, *, clock: Clock = system_clock) -> None:
        self._runtime, self._pods, self._clock = runtime, pods, clock

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/engine", self._show)
        app.router.add_get("/engine/containers/{id}/log", self._log)
        app.router.add_post("/engine/containers/{id}/{act:stop|restart}", self._act)
        app.router.add_delete("/engine/{kind}/{id}", self._discard)

    async def _show(self, request: web.Request) -> web.StreamResponse:
        with engine_trouble():
            found = await self._runtime.inventory(sizes=request.query.get("sizes") == "true")
        return _json(shown(found, self._pods.list()))

    async def _log(self, request: web.Request) -> web.StreamResponse:
        container_id = request.match_info["id"]
        options = parse_log_options(request.query, container_id, self._clock())
        return await answer_log(request, self._runtime, container_id, options)

    async def _act(self, request: web.Request) -> web.StreamResponse:
        container_id, act = request.match_info["id"], request.match_info["act"]
        with engine_trouble():
            container = self._known(await self._runtime.inventory(), container_id)
            if act == "restart" and not self._is_kept(container):
                await self._runtime.restart(container.id, GRACE)
            else:
                await self._runtime.stop(container.id, GRACE)
        return _json({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    @staticmethod
    def _known(found: Inventory, container_id: str) -> EngineContainer:
        for container in found.containers:
            if container_id in (container.id, container.name):
                return container
        raise NotFound(f"No such container: {container_id}")

    def _is_kept(self, container: EngineContainer) -> bool:
        """Does a kubelet look after it?"""
        uid = container.labels.get(LABEL_POD_UID)
        return any(pod.metadata.uid == uid for pod in self._pods.list()) or LABEL_MANAGED in container.labels

    async def _discard(self, request: web.Request) -> web.StreamResponse:
        kind, id = request.match_info["kind"], request.match_info["id"]
        chosen = next((known for known in KINDS if known == kind), None)
        if chosen is None:
            raise BadRequest(f"an engine has {', '.join(KINDS)}, and no {kind}")
        with engine_trouble():
            await self._runtime.discard(chosen, id)
        return _json({"kind": "Status", "apiVersion": "v1", "status": "Success"})


def shown(found: Inventory, pods: Iterable[Pod]) -> dict[str, list[dict[str, Any]]]:
    """The inventory as JSON; containers of pods with their `pod`, its address and its ports. Pure."""
    known = {pod.metadata.uid: pod for pod in pods}
    document: dict[str, list[dict[str, Any]]] = {
        kind: [asdict(each) for each in getattr(found, kind)] for kind in KINDS
    }
    tags = {image.id: image.names[0] for image in found.images if image.names}
    for container in document["containers"]:
        labels = container["labels"]
        if container["image"].startswith("sha256:"):  # a kubelet names them so
            container["image"] = labels.get(LABEL_IMAGE) or tags.get(container["image_id"], container["image"])
        if LABEL_POD_NAME not in labels:
            continue
        name = labels.get(LABEL_CONTAINER, "")
        container["pod"] = {"namespace": labels.get(LABEL_POD_NAMESPACE, ""), "name": labels[LABEL_POD_NAME]}
        container["pod"]["container"] = "" if name == SANDBOX else name
        pod = known.get(labels.get(LABEL_POD_UID, ""))
        if pod is None:
            continue
        if pod.status.podIP:
            container["networks"] = {"pod network" if not pod.spec.hostNetwork else "host": pod.status.podIP}
        container["ports"] = [
            f"{port.hostPort}→{inside}" if port.hostPort else inside
            for each in pod.spec.containers
            if each.name == name
            for port in each.ports
            for inside in [f"{port.containerPort}/{port.protocol.lower()}"]
        ]
    return document


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
