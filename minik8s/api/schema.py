"""One schema per kind, compiled once: it drops unknown fields and says where they were, checks types, and defaults.

`compile_schema("io.k8s.api.core.v1.Pod")` compiles a native kind on first use, `Schema.from_openapi(schema)` the
structural schema of a CustomResourceDefinition; both become the same tree of nodes (`schema_nodes`), which also
tells strategic merge patch (and server-side apply) how lists merge. What the types cannot say (names, quantities,
which fields go together) is for each kind's `validate`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from minik8s.api import definitions
from minik8s.api.errors import Cause
from minik8s.api.formats import INT32, INT64, STRINGS
from minik8s.api.schema_nodes import (
    QUANTITY,
    Anything,
    FreeObject,
    ListNode,
    MapNode,
    Node,
    ObjectNode,
    QuantityNode,
    Scalar,
)
from minik8s.api.schema_rules import rules

Json = dict[str, Any]
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

ABSENT_IS_ZERO = frozenset((
    "CustomResourceDefinitionVersion.served", "CustomResourceDefinitionVersion.storage", "CSINodeSpec.drivers",
    "ControllerRevision.revision", "EndpointSlice.endpoints", "Event.eventTime", "HTTPHeader.value",
    "ISCSIPersistentVolumeSource.lun", "ISCSIVolumeSource.lun", "LimitRangeSpec.limits",
    "NetworkPolicySpec.podSelector", "PreferredSchedulingTerm.preference", "PriorityClass.value",
    "RoleRef.apiGroup", "TokenRequestSpec.audiences", "VolumeAttachmentStatus.attached",
))  # fmt: skip
"""`Definition.field`s that OpenAPI calls required only because Go always writes them; a server takes their absence."""


class Schema:
    """A compiled schema; all methods work on plain JSON values and raise nothing, whatever they are given."""

    __slots__ = ("root",)

    def __init__(self, root: Node) -> None:
        self.root = root

    @classmethod
    def from_openapi(cls, schema: Json) -> Schema:
        """From a CustomResourceDefinition's openAPIV3Schema; apiVersion, kind and metadata are added to its root."""
        return cls(_Compiler(native=False).node(schema | {"x-kubernetes-embedded-resource": True}))

    def fits(self, obj: Any) -> bool:
        """Whether `prune` and `check` have nothing to say of `obj`, in a few microseconds."""
        try:
            return self.root.fits(obj)
        except RecursionError:
            return False

    def admit(self, obj: Any) -> tuple[list[str], list[Cause]]:
        """`prune`, then `check`, at the price of one look when there is nothing to say."""
        return ([], []) if self.fits(obj) else (self.prune(obj), self.check(obj))

    def prune(self, obj: Any) -> list[str]:
        """Drop unknown and null fields, in place; the paths of the unknown: `spec.containers[0].foo`. Quantities come
        out as Kubernetes writes them: `0.5` as `500m`."""
        unknown: list[str] = []
        with suppress(RecursionError):  # as much is dropped as can be reached; `check` refuses the object
            if not self.root.fits(obj):
                self.root.prune(obj, "", unknown)
        return unknown

    def check(self, obj: Any) -> list[Cause]:
        """What is wrong with the types, the formats and the presence of fields; [] when nothing is."""
        causes: list[Cause] = []
        try:
            if not self.root.fits(obj):
                self.root.check(obj, "", causes)
        except RecursionError:
            causes.append(Cause("<root>", "FieldValueInvalid", "Invalid value: nested too deeply"))
        return causes

    def apply_defaults(self, obj: Json) -> None:
        """Put the schema's own defaults where fields are absent, in place (native kinds have a `default` instead)."""
        self.root.fill(obj)


@cache
def compile_schema(definition: str) -> Schema:
    """The schema of a native definition; KeyError when the schema file has none of that name."""
    return Schema(_NATIVE.definition(definition, lenient=False))


_SCALARS: dict[tuple[str, str], Callable[[], Scalar]] = {
    ("string", ""): lambda: Scalar((str,), "must be a string"),
    ("string", "int-or-string"): lambda: Scalar(
        (int, str), "must be an integer or a string", lambda v: type(v) is str or v in INT32, "must be a 32-bit integer"
    ),
    ("string", "quantity"): lambda: Scalar((str, int, float), QUANTITY),
    ("integer", ""): lambda: Scalar((int,), "must be an integer", INT64.__contains__, "must be a 64-bit integer"),
    ("integer", "int32"): lambda: Scalar((int,), "must be an integer", INT32.__contains__, "must be a 32-bit integer"),
    ("number", ""): lambda: Scalar((int, float), "must be a number"),
    ("boolean", ""): lambda: Scalar((bool,), "must be true or false"),
}
_ZEROES: dict[str, Callable[[], Any]] = {"string": str, "integer": int, "number": int, "boolean": bool}


class _Compiler:
    """Schemas to nodes. `lenient` is for what components report under `status`: nothing is required of it."""

    def __init__(self, *, native: bool) -> None:
        self.native = native
        self._done: dict[tuple[str, bool], Node] = {}

    def definition(self, name: str, *, lenient: bool) -> Node:
        known = self._done.get((name, lenient))
        if known is None:
            known = self._done[name, lenient] = self.node(definitions.shape(name), lenient=lenient, name=name)
        return known

    def node(self, schema: Json, *, lenient: bool = False, name: str = "") -> Node:
        if "$ref" in schema:
            return self.definition(schema["$ref"], lenient=lenient)
        if schema.get("x-kubernetes-int-or-string") and not self.native:
            return self._finish(Scalar((int, str), "must be an integer or a string"), schema)
        match schema.get("type"):
            case "object":
                made = self._object(schema, lenient=lenient, name=name)
            case "array":
                made = ListNode(self.node(schema.get("items") or {}, lenient=lenient), schema)
            case None:
                made = self._object(schema, lenient=lenient, name=name) if "properties" in schema else Anything()
            case kind:
                made = self._scalar(kind, schema.get("format", ""))
        return made if self.native else self._finish(made, schema)

    def _finish(self, node: Node, schema: Json) -> Node:
        if own := rules(schema):
            node.add_rules(own)
        if schema.get("nullable"):
            node.allow_null()
        return node

    def _scalar(self, kind: str, format: str) -> Scalar:
        if self.native and format == "quantity":  # custom resources keep what is written, as in Kubernetes
            return QuantityNode()
        if kind == "string" and format in STRINGS:
            test, detail = STRINGS[format]
            made = Scalar((str,), "must be a string", test, detail)
        else:
            made = _SCALARS.get((kind, format), _SCALARS[kind, ""])()
        if self.native:
            made.zero = _ZEROES[kind]
        return made

    def _object(self, schema: Json, *, lenient: bool, name: str) -> Node:
        more, fields = schema.get("additionalProperties"), schema.get("properties")
        free = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        atomic = schema.get("x-kubernetes-map-type") == "atomic"
        embedded = bool(schema.get("x-kubernetes-embedded-resource"))
        if isinstance(more, dict) and not fields:
            return MapNode(self.node(more, lenient=lenient), atomic=atomic)
        if (free or more is True) and not fields and not embedded:
            return FreeObject()
        wanted = () if lenient else _required(name, schema)
        made = ObjectNode(wanted, open=free or more is True, atomic=atomic)
        if name:
            self._done[name, lenient] = made
        for key, inner in (fields or {}).items():
            status = self.native and key == "status" and "x-kubernetes-group-version-kind" in schema
            made.add(key, self.node(inner, lenient=lenient or status))
            if "default" in inner:
                made.add_default(key, inner["default"])
            strategy = inner.get("x-kubernetes-patch-strategy")
            if strategy == "replace":
                made.replaced.add(key)
            elif strategy == "retainKeys":
                made.retained.add(key)
        if embedded:
            made.add("apiVersion", _SCALARS["string", ""]())
            made.add("kind", _SCALARS["string", ""]())
            made.add("metadata", _NATIVE.definition(OBJECT_META, lenient=False))
        made.seal_defaults()
        return made


def _required(name: str, schema: Json) -> list[str]:
    short = name.rpartition(".")[2]
    zero = {"items"} | {entry.partition(".")[2] for entry in ABSENT_IS_ZERO if entry.startswith(f"{short}.")}
    return [field for field in schema.get("required", ()) if field not in zero]


_NATIVE = _Compiler(native=True)
