"""What the API server answers about functions besides objects: their code, what a runtime is told, and demand.

GET  …/functions/NAME/code                  {"sha256", "size", "received"}
    PUT  …/functions/NAME/code?offset=N         a chunk of the archive that spec.code announces
    GET  …/functionrevisions/NAME/code          the archive, tar.gz
    GET  …/functionrevisions/NAME/settings      what a runtime is told: the gateways', for variables may be secrets
    POST /apis/faas.minik8s.io/v1/functiondemands   what a gateway has in flight; tells pods that held calls may go to
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from minik8s.api.errors import BadRequest, Conflict, Forbidden, NotFound
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.function import Code, Function
from minik8s.api.kinds.functionrevision import FunctionRevision
from minik8s.api.kinds.pod import EnvVar, KeySelector
from minik8s.api.kinds.secret import Secret
from minik8s.api.kinds.workflow import GROUP
from minik8s.api.meta import Object
from minik8s.api.resource import Json
from minik8s.apiserver import body
from minik8s.apiserver.request import ApiResponse, json_response
from minik8s.apiserver.steps import node_of
from minik8s.apiserver.verbs import Call
from minik8s.client.base import Client
from minik8s.faas.functions.codes import Codes
from minik8s.faas.functions.crowd import Demand
from minik8s.faas.functions.revisions import settings
from minik8s.faas.promise import Promise

Answer = Callable[[Call], Awaitable[ApiResponse]]
MANY = 10_000  # functions in one report


class FunctionApi:
    def __init__(
        self, client: Client, codes: Codes, *, arrived: Callable[[str, str], None],
        tell: Callable[[str, list[Demand]], list[Promise]],
    ) -> None:  # fmt: skip
        self._client = client
        self._codes = codes
        self._arrived = arrived
        self._tell = tell

    def subresources(self) -> Mapping[tuple[str, str], Answer]:
        return {("code", "get"): self.code, ("code", "update"): self.put_code, ("settings", "get"): self.settings}

    def virtuals(self) -> Mapping[tuple[str, str, str], Answer]:
        return {(GROUP, "v1", "functiondemands"): self.demand}

    # -- code

    async def code(self, call: Call) -> ApiResponse:
        if call.info.resource == "functionrevisions":
            return await self._archive(call)
        code = await self._announced(call)
        return _received(code, self._codes.received(call.info.namespace, code))

    async def _archive(self, call: Call) -> ApiResponse:
        revision = await self._client.get(FunctionRevision, call.info.name, call.info.namespace)
        code = revision.spec.code
        packed = await asyncio.to_thread(self._codes.read, call.info.namespace, code)
        return ApiResponse(200, packed, "application/gzip", {"etag": f'"{code.sha256}"'})

    async def put_code(self, call: Call) -> ApiResponse:
        if call.info.resource != "functions":
            raise BadRequest("a revision's code is that of its function: put it there")
        code, offset = await self._announced(call), call.query.get("offset", "0")
        if not offset.isascii() or not offset.isdecimal() or len(offset) > 15:
            raise BadRequest(f"offset={offset[:40]}: write a number of bytes")
        namespace = call.info.namespace
        received = await asyncio.to_thread(self._codes.append, namespace, code, int(offset), call.request.body)
        if received == code.size:
            self._arrived(namespace, call.info.name)
        return _received(code, received)

    async def _announced(self, call: Call) -> Code:
        code = (await self._client.get(Function, call.info.name, call.info.namespace)).spec.code
        if not code.sha256:
            raise Conflict("this function's code is no archive: spec.code.sha256 and size do not announce one")
        return code

    # -- what a runtime is told

    async def settings(self, call: Call) -> ApiResponse:
        """Raises Conflict for a variable whose ConfigMap, Secret or key is not there."""
        revision = await self._client.get(FunctionRevision, call.info.name, call.info.namespace)
        env = {}
        for variable in revision.spec.env:
            value = await self._value(variable, call.info.namespace)
            if value is not None:
                env[variable.name] = value
        return json_response(settings(revision, env))

    async def _value(self, variable: EnvVar, namespace: str) -> str | None:
        source = variable.valueFrom
        if source is None:
            return variable.value
        reference, kind = source.configMapKeyRef or source.secretKeyRef, ConfigMap if source.configMapKeyRef else Secret
        if reference is None:
            return None
        return await self._follow(variable.name, kind, reference, namespace)

    async def _follow(
        self, variable: str, kind: type[ConfigMap] | type[Secret], reference: KeySelector, namespace: str
    ) -> str | None:
        what = f'{kind.__name__} "{reference.name}"'
        try:
            found: Object = await self._client.get(kind, reference.name, namespace)
        except NotFound:
            if reference.optional:
                return None
            raise Conflict(f"variable {variable}: there is no {what} in namespace {namespace!r}") from None
        data = found.data if isinstance(found, ConfigMap | Secret) else {}
        if reference.key in data:
            text = data[reference.key]
            return b64decode(text).decode(errors="replace") if kind is Secret else text
        if reference.optional:
            return None
        raise Conflict(f"variable {variable}: {what} has no key {reference.key!r}")

    # -- demand

    async def demand(self, call: Call) -> ApiResponse:
        asked = body.from_request(call.request)
        gateway, node = asked.get("gateway"), node_of(call.user)
        if not isinstance(gateway, str) or not gateway:
            raise BadRequest("gateway: write the name of the node whose gateway tells this")
        if node and node != gateway:
            raise Forbidden(f"node {node!r} can only tell of its own gateway")
        functions = asked.get("functions")
        if not isinstance(functions, dict) or len(functions) > MANY:
            raise BadRequest("functions: must be a map from namespace/name to what is in flight")
        promises = self._tell(gateway, [demand for name, told in functions.items() for demand in _demands(name, told)])
        return json_response({"kind": "FunctionDemand", "apiVersion": f"{GROUP}/v1", "promises": promises}, 201)


def _demands(name: str, told: Any) -> Iterator[Demand]:
    """One entry, or a list of one for each shape."""
    for entry in told if isinstance(told, list) else [told]:
        if not isinstance(entry, dict) or not isinstance(entry.get("shape"), str):
            raise BadRequest(f"functions[{name[:80]}]: must have a shape, concurrency, waiting and requests")
        waiting, requests = (_amount(entry, name, field) for field in ("waiting", "requests"))
        yield Demand(name, entry["shape"], _amount(entry, name, "concurrency"), int(waiting), int(requests))


def _amount(entry: Json, name: str, field: str) -> float:
    value = entry.get(field, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise BadRequest(f"functions[{name[:80]}].{field}: must be a number that is not negative")
    return float(value)


def _received(code: Code, received: int) -> ApiResponse:
    return json_response({"sha256": code.sha256, "size": code.size, "received": received})
