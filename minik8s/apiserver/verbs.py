"""The verbs as clients speak them: parameters, forms, selectors and patches around the registry's plain operations."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from minik8s.api import dialects
from minik8s.api.errors import BadRequest, Gone, StatusError, UnsupportedMediaType
from minik8s.api.patch import json_patch, merge_patch, strategic_merge
from minik8s.api.resource import Json
from minik8s.api.schema import Schema
from minik8s.apiserver import body, negotiate, protobuf, strategy, watch
from minik8s.apiserver.auth import User
from minik8s.apiserver.body import Served
from minik8s.apiserver.deletion import DeleteOptions, parse_options
from minik8s.apiserver.negotiate import Form
from minik8s.apiserver.registry import Outcome, Registry, Writer
from minik8s.apiserver.request import JSON, ApiRequest, ApiResponse
from minik8s.apiserver.routes import RequestInfo
from minik8s.apiserver.selection import Selection, select
from minik8s.apiserver.strategy import Part
from minik8s.apiserver.views import Views, view
from minik8s.apiserver.watch import Watches, parse_version
from minik8s.store.base import Record

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class Call(NamedTuple):
    """One request on a resource that is known, by a user who may."""

    served: Served
    info: RequestInfo
    request: ApiRequest
    user: User

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    @property
    def form(self) -> Form:
        return negotiate.parse(self.request.headers.get("accept", ""), self.query.get("includeObject", ""))

    @property
    def writer(self) -> Writer:
        dry = self.query.get("dryRun")
        if dry not in (None, "", "All"):
            raise BadRequest(f'dryRun must be All, not "{dry[:40]}"')
        return Writer(self.user, dry == "All")


class Verbs:
    """`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`: the names of RBAC."""

    def __init__(self, registry: Registry, views: Views, watches: Watches) -> None:
        self.registry = registry
        self.views = views
        self._watches = watches
        self._cache = registry.cache

    # -- reading

    async def get(self, call: Call) -> ApiResponse:
        info, version = call.info, call.query.get("resourceVersion", "")
        if version not in ("", "0"):
            await self._cache.wait(parse_version(version))
        record = self.registry.get(call.served.resource, info.namespace, info.name)
        return ApiResponse(200, self.views.object(call.served, call.form, record))

    async def list(self, call: Call) -> ApiResponse:
        query, form = call.query, call.form
        selection = _selection(call)
        start, pinned = _continued(query)
        if not start:
            await self._await_version(query)
        elif query.get("resourceVersion", "") not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        records, rev = self._cache.list(_folder(call))
        limit = _natural(query, "limit")
        chosen, token, remaining = _page(records, selection, start, limit, pinned or rev)
        meta: Json = {"resourceVersion": str(pinned or rev)}
        if token:
            meta["continue"] = token
            if selection is None:
                meta["remainingItemCount"] = remaining
        return ApiResponse(200, self.views.list(call.served, form, chosen, msgspec.json.encode(meta)))

    async def watch(self, call: Call) -> ApiResponse:
        selection = _selection(call)
        folder = _folder(call)
        name = call.info.name or (selection.name if selection else "")
        scoped = bool(call.info.namespace) or not call.served.resource.namespaced
        prefix = folder + name if scoped else folder
        seen = view(call.served, call.form, selection)
        options = watch.parse_options(call.query, self._watches.rng)
        content_type = JSON + (";stream=watch" if call.form.shape != "object" else "")
        return ApiResponse(
            200,
            content_type=content_type,
            stream=await self._watches.stream(prefix, folder, seen, options, call.request.push),
        )

    async def _await_version(self, query: Mapping[str, str]) -> None:
        version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
        if match not in ("", "NotOlderThan", "Exact"):
            raise BadRequest(f'resourceVersionMatch must be NotOlderThan or Exact, not "{match[:40]}"')
        if match and not version:
            raise BadRequest("resourceVersionMatch is forbidden unless resourceVersion is provided")
        if version in ("", "0"):
            if match == "Exact":
                raise BadRequest('resourceVersionMatch Exact is forbidden for resourceVersion "0"')
            return
        wanted = parse_version(version)
        await self._cache.wait(wanted)
        if match == "Exact" and wanted != self._cache.revision:
            raise Gone(f"the provided resource version {wanted} is no longer held, the current one is served instead")

    # -- writing

    async def create(self, call: Call) -> ApiResponse:
        writer, form = call.writer, call.form
        reading = self._read(call)
        served, info = call.served, call.info
        obj = served.store(reading.obj)
        if info.name and info.resource != "namespaces":
            obj["metadata"].setdefault("name", info.name)
        outcome = await self.registry.create(served.resource, info.namespace, obj, writer)
        return self._answer(served, form, outcome, 201, reading.warnings)

    async def update(self, call: Call, part: Part = strategy.main_part) -> ApiResponse:
        writer, form = call.writer, call.form
        reading = self._read(call)
        new = msgspec.json.encode(call.served.store(reading.obj))
        outcome = await self._store(call, lambda _: msgspec.json.decode(new), part, writer)
        return self._answer(call.served, form, outcome, 200, reading.warnings)

    async def patch(self, call: Call, part: Part = strategy.main_part) -> ApiResponse:
        writer, form = call.writer, call.form
        apply = patcher(call)
        mode = body.validation(call.query.get("fieldValidation", ""))
        warnings: list[str] = []

        def change(old: Json) -> Json:
            reading = body.read(call.served, apply(call.served.show(old)), mode)
            warnings[:] = reading.warnings
            return call.served.store(reading.obj)

        outcome = await self._store(call, change, part, writer)
        return self._answer(call.served, form, outcome, 200, warnings)

    async def delete(self, call: Call) -> ApiResponse:
        options = _delete_options(call)
        writer = _deleting(call.writer, options.dryRun)
        served, info = call.served, call.info
        outcome = await self.registry.delete(served.resource, info.namespace, info.name, options, writer)
        if outcome.removed:
            return ApiResponse(200, _deleted(served, outcome.value))
        return self._answer(served, call.form, outcome, 200, ())

    async def deletecollection(self, call: Call) -> ApiResponse:
        options = _delete_options(call)
        writer, resource = _deleting(call.writer, options.dryRun), call.served.resource
        records, rev = self._cache.list(_folder(call))
        selection = _selection(call)
        gone: list[Record] = []
        for record in records:
            if selection is not None and not selection.matches(record.value):
                continue
            *_, namespace, name = record.key.split("/")
            try:
                outcome = await self.registry.delete(resource, namespace, name, options, writer)
            except StatusError as error:
                if error.code != 404:  # somebody else was faster
                    raise
                continue
            gone.append(record._replace(value=outcome.value))
        meta = msgspec.json.encode({"resourceVersion": str(rev)})
        return ApiResponse(200, self.views.list(call.served, call.form, gone, meta))

    async def _store(self, call: Call, change: Callable[[Json], Json], part: Part, writer: Writer) -> Outcome:
        info = call.info
        return await self.registry.update(
            call.served.resource, info.namespace, info.name, change, writer, part=part, subresource=info.subresource
        )

    @staticmethod
    def _read(call: Call) -> body.Reading:
        mode = body.validation(call.query.get("fieldValidation", ""))
        obj = body.from_request(call.request)
        native = dialects.convert(obj)
        if not native.changed:
            return body.read(call.served, obj, mode, call.request.body)
        if len(native.objects) > 1:
            raise BadRequest(f"this {obj['kind']} makes several objects: apply it with 'minik8s apply -f'")
        served = Served(call.served.resource)
        reading = body.read(served, native.objects[0], mode)
        return body.Reading(call.served.show(reading.obj), [*native.warnings, *reading.warnings])

    def _answer(self, served: Served, form: Form, outcome: Outcome, code: int, warnings: Sequence[str]) -> ApiResponse:
        headers = {"warning": ", ".join(warning_header(text) for text in warnings)} if warnings else {}
        if form is negotiate.OBJECT and served.alias is None:
            return ApiResponse(code, outcome.value, headers=headers)
        meta = msgspec.json.decode(outcome.value)["metadata"]
        rev = int(meta.get("resourceVersion") or 0)
        key = served.resource.key(meta.get("namespace"), meta["name"]) + ("" if rev else "?dry")
        return ApiResponse(code, self.views.object(served, form, Record(key, outcome.value, rev, rev)), headers=headers)


def patcher(call: Call, schema: Schema | None = None) -> Callable[[Json], Json]:
    """The patch of a request as a function from an object to the changed one. `schema` is the object's, if not the
    kind's own."""
    media = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == APPLY_PATCH:
        raise UnsupportedMediaType(
            "server-side apply (application/apply-patch+yaml) is not served yet: apply without --server-side"
            " (helm 4: --server-side=false)"
        )
    if media not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH):
        known = ", ".join((JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH))
        raise UnsupportedMediaType(f'the body is of media type "{media[:80]}": patches are of {known}')
    patch: Any = body.decode(call.request.body)
    if media == JSON_PATCH:
        return lambda old: json_patch(old, patch)
    if media == MERGE_PATCH:
        return lambda old: merge_patch(old, patch)
    merged_by = schema or call.served.schema
    return lambda old: strategic_merge(old, patch, merged_by)


def warning_header(text: str) -> str:
    """One value of a Warning header (RFC 7234): code 299, quoted, on one line."""
    quoted = (
        "".join(c if c.isprintable() and c.isascii() else "?" for c in text).replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'299 - "{quoted[:1000]}"'


def _folder(call: Call) -> str:
    resource = call.served.resource
    if call.info.namespace and resource.namespaced:
        return f"{resource.prefix}{call.info.namespace}/"
    return resource.prefix


def _selection(call: Call) -> Selection | None:
    query = call.query
    return select(call.served.resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))


def _natural(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadRequest(f'{name} must be a number, not "{text[:40]}"')
    return int(text)


def _continued(query: Mapping[str, str]) -> tuple[str, int]:
    """(the last key sent, the revision of the first page) of a `continue` token."""
    token = query.get("continue", "")
    if not token:
        return "", 0
    try:
        rev, _, key = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(":")
        if not key.startswith("/"):
            raise ValueError(key)
        return key, parse_version(rev)
    except (ValueError, BadRequest):
        raise Gone("the continue token is not one of this server: list again from the beginning") from None


def _page(
    records: Sequence[Record], selection: Selection | None, start: str, limit: int, rev: int
) -> tuple[Sequence[Record], str, int]:
    """The selected records after key `start`, at most `limit` (0: all), the token for what follows, and how many do.

    A later page comes from the newest state, but says the revision of the first: by keys nothing is skipped or sent
    twice, and a watch from that revision tells all that changed meanwhile.
    """
    if start:
        records = [record for record in records if record.key > start]
    if not limit and selection is None:
        return records, "", 0
    chosen: list[Record] = []
    for index, record in enumerate(records):
        if selection is not None and not selection.matches(record.value):
            continue
        if limit and len(chosen) == limit:
            token = base64.urlsafe_b64encode(f"{rev}:{chosen[-1].key}".encode()).decode()
            return chosen, token, len(records) - index
        chosen.append(record)
    return chosen, "", 0


def _delete_options(call: Call) -> DeleteOptions:
    data = call.request.body
    if data.startswith(protobuf.MAGIC):
        data = msgspec.json.encode(body.from_request(call.request))
    return parse_options(data, call.query)


def _deleting(writer: Writer, dry_run: Sequence[str] | None) -> Writer:
    return Writer(writer.user, writer.dry_run or "All" in (dry_run or ()))


def _deleted(served: Served, value: bytes) -> bytes:
    meta = msgspec.json.decode(value)["metadata"]
    details = {"name": meta["name"], "kind": served.resource.plural, "uid": meta.get("uid", "")}
    if served.group:
        details["group"] = served.group
    return msgspec.json.encode(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    )
