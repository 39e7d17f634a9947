"""What the API looks like, for `kubectl explain`, client-side validation and client generators: /openapi/v3 and /v2.

Documents are rendered from the table of kinds when they are first asked for, and kept gzip-compressed (all of them
together under 1 MB); what they were made from is dropped. Rendering one is pure CPU work of 10 to 500 ms: a server
calls these methods in a thread.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from minik8s import __version__
from minik8s.api import definitions
from minik8s.api.errors import NotFound
from minik8s.api.resource import Resource
from minik8s.apiserver.gnostic import encode_document
from minik8s.apiserver.openapi_paths import Operation, View, operations, views
from minik8s.apiserver.openapi_render import document_v2, document_v3

Json = dict[str, Any]
V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"  # what clients write in Accept
V2_PROTOBUF_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"  # Content-Type: Go refuses the @ there


class OpenAPI:
    """The documents of these rows; make a new one when rows change (a custom resource came or went).

    `extra` has definitions that the schema file lacks, by the name that rows give: schemas in OpenAPI form, complete
    with descriptions and x-kubernetes-group-version-kind. Every returned document is gzip-compressed.
    """

    def __init__(self, resources: Iterable[Resource], *, extra: Mapping[str, Json] | None = None) -> None:
        self._extra = dict(extra or {})
        self._views: dict[str, list[View]] = {}
        for resource in resources:
            for view in views(resource):
                self._views.setdefault(view.group_version, []).append(view)
        self._done: dict[str, bytes] = {}

    def v3_index(self) -> Json:
        """The body of /openapi/v3: where each group-version's document is; its hash changes when the document does."""
        paths = {}
        for group_version in sorted(self._views):
            place = f"{'apis' if '/' in group_version else 'api'}/{group_version}"
            paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={self._hash(group_version)}"}
        return {"paths": paths}

    def v3(self, group_version: str) -> bytes:
        """OpenAPI 3.0 JSON of `v1`, `apps/v1`, …, gzip-compressed; NotFound when it is not served."""
        if group_version not in self._views:
            raise NotFound(f"no OpenAPI document for group version {group_version!r}")
        if group_version not in self._done:
            document = document_v3(self._operations(group_version), self._shape, __version__)
            self._done[group_version] = _packed(msgspec.json.encode(document))
        return self._done[group_version]

    def v2_json(self) -> bytes:
        """Swagger 2.0 JSON of everything, gzip-compressed."""
        if "v2" not in self._done:
            self._done["v2"] = _packed(msgspec.json.encode(self._v2()))
        return self._done["v2"]

    def v2_protobuf(self) -> bytes:
        """The same as gnostic's protobuf (`V2_PROTOBUF`), gzip-compressed."""
        if "v2.protobuf" not in self._done:
            self._done["v2.protobuf"] = _packed(encode_document(self._v2()))
        return self._done["v2.protobuf"]

    def _v2(self) -> Json:
        everything = [
            operation for group_version in sorted(self._views) for operation in self._operations(group_version)
        ]
        return document_v2(everything, self._shape, __version__)

    def _operations(self, group_version: str) -> list[Operation]:
        return [operation for view in self._views[group_version] for operation in operations(view)]

    def _shape(self, name: str) -> Json:
        return self._extra[name] if name in self._extra else definitions.shape(name)

    def _hash(self, group_version: str) -> str:
        """Of what the document is made from, so that the index costs no rendering."""
        made_from = hashlib.sha256(f"{__version__} {definitions.fingerprint()}".encode())
        for view in self._views[group_version]:
            row = view.resource
            own = self._extra.get(view.of.definition)
            made_from.update(
                msgspec.json.encode((view.of, row.plural, row.namespaced, row.verbs, sorted(row.subresources), own))
            )
        return made_from.hexdigest().upper()


def _packed(document: bytes) -> bytes:
    return gzip.compress(document, compresslevel=6, mtime=0)
