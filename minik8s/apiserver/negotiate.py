"""Which form of an object does a client want? The object itself, a Table, or its metadata alone."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from minik8s.api.errors import NotAcceptable

META_GROUP = "meta.k8s.io"
_FORMS = {"Table": "table", "PartialObjectMetadata": "partial", "PartialObjectMetadataList": "partial"}


class Form(NamedTuple):
    """`shape` is object, table or partial; `version` that of meta.k8s.io; `include` what a Table row carries."""

    shape: str = "object"
    version: str = "v1"
    include: str = "Metadata"  # None | Metadata | Object


OBJECT = Form()


def parse(accept: str, include: str = "") -> Form:
    """The first form in an Accept header that is served. NotAcceptable when there is none."""
    if not accept or accept in ("application/json", "*/*"):
        return OBJECT
    form = _parse(accept)
    if form.shape != "table" or not include:
        return form
    if include not in ("None", "Metadata", "Object"):
        raise NotAcceptable(f'includeObject must be None, Metadata or Object, not "{include[:40]}"')
    return form._replace(include=include)


@lru_cache(maxsize=256)
def _parse(accept: str) -> Form:
    for offer in accept.split(","):
        media, *pairs = (piece.strip() for piece in offer.split(";"))
        parameters = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if media not in ("application/json", "application/*", "*/*"):
            continue
        wanted = parameters.get("as", "")
        if not wanted:
            return OBJECT
        version = parameters.get("v", "v1")
        if wanted in _FORMS and parameters.get("g", META_GROUP) == META_GROUP and version in ("v1", "v1beta1"):
            return Form(_FORMS[wanted], version)
    raise NotAcceptable(
        "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io, "
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    )
