"""A typed client over a transport; two transports exist: HTTP, and loopback inside the master's own process.

Components say `await client.get(Pod, "web-0", "default")` and get frozen structs. They write dicts: a whole object
(`create`, `update`) or a patch of what they own. All failures are `minik8s.api.errors.StatusError`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from minik8s.api.errors import InternalError, from_status
from minik8s.api.meta import Object, ObjectMeta, Struct
from minik8s.api.resource import Json, Resource
from minik8s.api.scheme import SCHEME, Scheme
from minik8s.log import get_logger

T = TypeVar("T", bound=Object)

log = get_logger("client")

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"


class Transport(Protocol):
    """Carries one request to the API server. Both methods raise `StatusError`; ServiceUnavailable if out of reach."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
    ) -> bytes: ...

    def stream(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[bytes]]]:
        """A watch: batches of frames, each a JSON document `{"type": …, "object": …}`. Ends when the server ends it."""
        ...


class WatchEvent(NamedTuple, Generic[T]):
    type: str  # ADDED | MODIFIED | DELETED | BOOKMARK
    object: T


class _Frame(Struct):
    type: str
    object: msgspec.Raw


class ListMeta(Struct):
    resourceVersion: str = ""
    remainingItemCount: int | None = None
    # `continue` is a Python keyword
    continue_: str = msgspec.field(name="continue", default="")


class ObjectList(Struct, Generic[T]):
    metadata: ListMeta = ListMeta()
    items: tuple[T, ...] = ()


class _Bookmark(Struct):
    """Only its revision counts; servers send the rest of the metadata as null."""

    metadata: ListMeta = ListMeta()


class _Described(Struct):
    metadata: ObjectMeta = ObjectMeta()


_frame = msgspec.json.Decoder(_Frame)
_described = msgspec.json.Decoder(_Described)
_bookmarked = msgspec.json.Decoder(_Bookmark)


def _bookmark(view: type[T], data: msgspec.Raw) -> T:
    return view(metadata=ObjectMeta(resourceVersion=_bookmarked.decode(data).metadata.resourceVersion))


@functools.cache
def _decoder(type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type)


class _RawList(Struct):
    metadata: ListMeta = ListMeta()
    items: tuple[msgspec.Raw, ...] = ()


_raw_list = msgspec.json.Decoder(_RawList)


def _read(view: type[T], raw: msgspec.Raw) -> T | None:
    """The object, or None and a line in the log if it is none of this shape."""
    try:
        found: T = _decoder(view).decode(raw)
    except msgspec.ValidationError as error:
        log.error(
            "object cannot be read and is ignored",
            kind=view.__name__,
            error=str(error),
            object=bytes(raw)[:200],
            remedy="mend it ('minik8s edit') or delete it: it was written by another version, or around the API",
        )
        return None
    return found


class Client:
    """Typed verbs. `kind` is a struct type (`Pod`); `view` another struct to decode into, e.g. `Object` (metadata)."""

    def __init__(self, transport: Transport, scheme: Scheme = SCHEME) -> None:
        self.transport = transport
        self.scheme = scheme

    def resource(self, kind: type[T] | Resource) -> Resource:
        return kind if isinstance(kind, Resource) else self.scheme.of(kind)

    async def get(self, kind: type[T], name: str, namespace: str | None = None) -> T:
        return self._decode(kind, await self._call("GET", kind, namespace, name))

    async def list(
        self, kind: type[T], namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> ObjectList[T]:
        return await self.list_as(self.resource(kind), kind, namespace, labels=labels, fields=fields)

    async def list_as(
        self, resource: Resource, view: type[T], namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> ObjectList[T]:
        query = _selectors(labels, fields)
        answer = await self.transport.request("GET", resource.base_path(namespace), query=query)
        found = _raw_list.decode(answer)
        if not found.items:  # of most kinds there is nothing when a cluster begins: no decoder is made for them
            return ObjectList(found.metadata)
        try:
            items = tuple(map(_decoder(view).decode, found.items))
        except msgspec.ValidationError:  # one odd object must not blind a component to all others
            items = tuple(item for raw in found.items if (item := _read(view, raw)) is not None)
        return ObjectList(found.metadata, items)

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        view: type[T],
        namespace: str | None = None,
        *,
        after: str,
        labels: str = "",
        fields: str = "",
    ) -> AsyncIterator[AsyncIterator[Sequence[WatchEvent[T]]]]:
        """Batches of events after revision `after`. An ERROR event is raised as its StatusError (Gone: list again)."""
        query = {"watch": "true", "resourceVersion": after, "allowWatchBookmarks": "true"}
        query |= _selectors(labels, fields)
        async with self.transport.stream(resource.base_path(namespace), query=query) as batches:

            async def events() -> AsyncIterator[Sequence[WatchEvent[T]]]:
                async for batch in batches:
                    decoded = []
                    for line in batch:
                        frame = _frame.decode(line)
                        if frame.type == "ERROR":
                            raise from_status(msgspec.json.decode(frame.object))
                        if frame.type == "BOOKMARK":
                            decoded.append(WatchEvent(frame.type, _bookmark(view, frame.object)))
                            continue
                        obj = _read(view, frame.object)
                        if obj is None and frame.type == "DELETED":
                            obj = view(metadata=_described.decode(frame.object).metadata)  # gone is gone
                        if obj is not None:
                            decoded.append(WatchEvent(frame.type, obj))
                    yield decoded

            yield events()

    async def create(self, kind: type[T], obj: Mapping[str, Any], namespace: str | None = None) -> T:
        """Create from a dict; `apiVersion` and `kind` are filled in, `namespace` defaults to the object's own."""
        resource = self.resource(kind)
        namespace = namespace or (obj.get("metadata") or {}).get("namespace")
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        return self._decode(kind, await self._call("POST", kind, namespace, body=body))

    async def update(self, kind: type[T], obj: Json, *, subresource: str = "") -> T:
        """Replace the whole object; with `metadata.resourceVersion` in it, only if unchanged (else Conflict)."""
        meta = obj["metadata"]
        answer = await self._call("PUT", kind, meta.get("namespace"), meta["name"], subresource, body=obj)
        return self._decode(kind, answer)

    async def patch(
        self,
        kind: type[T],
        name: str,
        namespace: str | None,
        patch: Json | Sequence[Json],
        *,
        subresource: str = "",
        content_type: str = MERGE_PATCH,
    ) -> T:
        answer = await self._call("PATCH", kind, namespace, name, subresource, body=patch, content_type=content_type)
        return self._decode(kind, answer)

    async def delete(
        self,
        kind: type[T] | Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace: int | None = None,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
    ) -> None:
        """Delete; `uid` and `resource_version` are preconditions (else Conflict). `grace` in seconds, 0 = at once."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation:
            options["propagationPolicy"] = propagation
        if uid or resource_version:
            pairs = (("uid", uid), ("resourceVersion", resource_version))
            options["preconditions"] = {key: value for key, value in pairs if value}
        await self._call("DELETE", kind, namespace, name, body=options)

    async def post(self, kind: type[T], name: str, namespace: str | None, subresource: str, body: Json) -> Json:
        """Create a subresource: `binding`, `eviction`, `token`. Returns what the server answers."""
        answer: Json = msgspec.json.decode(await self._call("POST", kind, namespace, name, subresource, body=body))
        return answer

    async def raw(self, kind: type[T] | Resource, name: str, namespace: str | None = None) -> Json:
        """The object as stored, all fields."""
        answer: Json = msgspec.json.decode(await self._call("GET", kind, namespace, name))
        return answer

    async def _call(
        self,
        method: str,
        kind: type[T] | Resource,
        namespace: str | None,
        name: str = "",
        subresource: str = "",
        *,
        body: Any = None,
        content_type: str = "application/json",
    ) -> bytes:
        path = self.resource(kind).base_path(namespace)
        path += (f"/{quote(name, safe=':@')}" if name else "") + (f"/{subresource}" if subresource else "")
        data = b"" if body is None else msgspec.json.encode(body)
        return await self.transport.request(method, path, body=data, content_type=content_type)

    @staticmethod
    def _decode(kind: type[T], data: bytes) -> T:
        try:
            decoded: T = _decoder(kind).decode(data)
        except msgspec.ValidationError as error:
            raise InternalError(f"the server's {kind.__name__} cannot be read: {error}") from None
        return decoded


def _selectors(labels: str, fields: str) -> dict[str, str]:
    pairs = (("labelSelector", labels), ("fieldSelector", fields))
    return {key: value for key, value in pairs if value}
