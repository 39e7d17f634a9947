"""Stored bytes to what clients asked for: an object, a list, a frame of a watch; in each form, each built once.

The common case, the object itself in its stored version, is the stored bytes: nothing is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from minik8s.apiserver import http_answer
from minik8s.apiserver.body import Served
from minik8s.apiserver.negotiate import Form
from minik8s.apiserver.selection import Selection
from minik8s.apiserver.table import Tables, partial
from minik8s.clock import Clock
from minik8s.store.base import Change, Record, stamp

KEPT_CHANGES = 1_024  # changes whose frames are kept for watchers that are not there yet

_encode = msgspec.json.encode


class View(NamedTuple):
    """What one request sees: a resource in a version, a form, a selection. `text` identifies it among others."""

    served: Served
    form: Form
    selection: Selection | None
    text: str


def view(served: Served, form: Form, selection: Selection | None) -> View:
    chosen = selection.text if selection else ""
    return View(served, form, selection, f"{served.api_version}|{'|'.join(form)}|{chosen}")


class Views:
    """Renders; keeps table rows and the frames of recent changes, which all watchers of a view share."""

    def __init__(self, clock: Clock) -> None:
        self.tables = Tables(clock)
        self._frames: dict[int, dict[str, bytes | None]] = {}
        self._batch: Sequence[Change] = ()
        self._chunks: dict[str, bytes] = {}  # of `_batch`, by view

    def object(self, served: Served, form: Form, record: Record) -> bytes:
        if form.shape == "object":
            return record.value if served.alias is None else self._converted(served, record.value)
        if form.shape == "partial":
            return partial(record.value, form.version)
        meta = b'{"resourceVersion":"%d"}' % record.rev
        return self._table(served, form, [record], meta)

    def list(self, served: Served, form: Form, records: Sequence[Record], meta: bytes) -> bytes:
        """`meta` is the JSON of the list's metadata."""
        if form.shape == "table":
            return self._table(served, form, records, meta)
        if form.shape == "partial":
            kind, version = "PartialObjectMetadataList", f"meta.k8s.io/{form.version}"
            items = [partial(record.value, form.version) for record in records]
        else:
            kind, version = served.resource.kind + "List", served.api_version
            if served.alias is None:
                items = [record.value for record in records]
            else:
                items = [self._converted(served, record.value) for record in records]
        items = items or [b""]
        head = b'{"kind":"%s","apiVersion":"%s","metadata":%s,"items":[' % (kind.encode(), version.encode(), meta)
        items[0] = head + items[0]
        items[-1] += b"]}"
        return b",".join(items)  # one copy: a list may have megabytes

    def added(self, seen: View, record: Record) -> bytes:
        """The frame that introduces an object at the start of a watch."""
        return _frame(b"ADDED", self.object(seen.served, seen.form, record))

    def frame(self, seen: View, change: Change) -> bytes | None:
        """The frame that tells watchers of a view of a change; None if it does not concern them."""
        frames = self._frames.get(change.rev)
        if frames is None:
            if len(self._frames) >= KEPT_CHANGES:
                del self._frames[next(iter(self._frames))]
            frames = self._frames[change.rev] = {}
        if seen.text in frames:
            return frames[seen.text]
        made = frames[seen.text] = self._make(seen, change)
        return made

    def chunk(self, seen: View, changes: Sequence[Change]) -> bytes:
        """The frames of changes that are being published, as one chunk of HTTP; empty if none concerns the view."""
        if changes is not self._batch:
            self._batch, self._chunks = changes, {}
        made = self._chunks.get(seen.text)
        if made is None:
            frames = [frame for change in changes if (frame := self.frame(seen, change)) is not None]
            made = self._chunks[seen.text] = http_answer.chunk(b"".join(frames))
        return made

    def _make(self, seen: View, change: Change) -> bytes | None:
        select = seen.selection
        was = change.prev is not None and (select is None or select.matches(change.prev.value))
        record = change.record()
        if record is not None and (select is None or select.matches(record.value)):
            return _frame(b"MODIFIED" if was else b"ADDED", self.object(seen.served, seen.form, record))
        if not was or change.prev is None:
            return None
        gone = Record(change.key, stamp(change.prev.value, change.rev), change.rev, change.prev.create_rev)
        return _frame(b"DELETED", self.object(seen.served, seen.form, gone))

    def _table(self, served: Served, form: Form, records: Sequence[Record], meta: bytes) -> bytes:
        if form.include == "Object" and served.alias is not None:
            records = [record._replace(value=self._converted(served, record.value)) for record in records]
        return self.tables.table(served.resource, records, meta, version=form.version, include=form.include)

    @staticmethod
    def _converted(served: Served, value: bytes) -> bytes:
        return _encode(served.show(msgspec.json.decode(value)))


def bookmark(seen: View, rev: int, *, initial_end: bool = False) -> bytes:
    """A frame that says only how far the watch is, and, if asked for, that the initial objects are complete."""
    meta: dict[str, object] = {"resourceVersion": str(rev), "creationTimestamp": None}
    if initial_end:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj: dict[str, object] = {
        "kind": seen.served.resource.kind,
        "apiVersion": seen.served.api_version,
        "metadata": meta,
    }
    if seen.form.shape == "partial":
        obj |= {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{seen.form.version}"}
    elif seen.form.shape == "table":
        row = {"cells": [], "object": {**obj, "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}}
        obj = {
            "kind": "Table", "apiVersion": f"meta.k8s.io/{seen.form.version}",
            "metadata": {"resourceVersion": str(rev)}, "columnDefinitions": None, "rows": [row],
        }  # fmt: skip
    return _frame(b"BOOKMARK", _encode(obj))


def error_frame(status: dict[str, object]) -> bytes:
    return _frame(b"ERROR", _encode(status))


def _frame(kind: bytes, obj: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind, obj)
