"""Client-side apply, decided: which patch takes a live object from what was applied last to what is applied now.

Three versions meet: `original` (the annotation that the last apply left), `modified` (the manifest) and `live` (the
server's). What the manifest says is set where the live object differs; what it said last time and says no more is
deleted; what others have set is left alone. Lists merge as the schema says. It is kubectl's algorithm (k8s.io/kubectl
apply, apimachinery strategicpatch) and the same annotation, so either may go on where the other has left off.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from minik8s.api.schema_nodes import ListNode, MapNode, Node, ObjectNode

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
Json = dict[str, Any]


def with_annotation(obj: Json) -> Json:
    """A manifest with itself in the annotation, as it is sent."""
    meta = dict(obj.get("metadata") or {})
    annotations = {key: value for key, value in (meta.get("annotations") or {}).items() if key != LAST_APPLIED}
    bare = {**obj, "metadata": {**meta, "annotations": annotations}}
    return {**obj, "metadata": {**meta, "annotations": {**annotations, LAST_APPLIED: annotation_text(bare)}}}


def annotation_text(obj: Json) -> str:
    """Compact JSON with sorted keys and a newline, byte for byte what kubectl writes (Go escapes what HTML would)."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text + "\n"


def last_applied(live: Json) -> Json | None:
    """What was applied last; None if nobody has applied this object."""
    annotations = (live.get("metadata") or {}).get("annotations") or {}
    if LAST_APPLIED not in annotations:
        return None
    try:
        original = json.loads(annotations[LAST_APPLIED])
    except ValueError:
        return None
    return original if isinstance(original, dict) else None


def three_way(original: Json | None, modified: Json, live: Json, root: Node | None) -> Json:
    """The strategic merge patch (with `root` None: the JSON merge patch); {} when there is nothing to do."""
    patch = _object(original or {}, modified, live, root)
    for key in ("apiVersion", "kind"):
        patch.pop(key, None)
    return patch


def _object(original: Json, modified: Json, live: Json, node: Node | None) -> Json:
    patch: Json = {}
    for key, wanted in modified.items():
        if wanted is None:  # a null asks for absence
            if live.get(key) is not None:
                patch[key] = None
            continue
        replaced = isinstance(node, ObjectNode) and key in node.replaced
        retained = isinstance(node, ObjectNode) and key in node.retained
        patch |= _field(
            key, original.get(key), wanted, live.get(key), None if replaced else _child(node, key), replaced
        )
        if retained and isinstance(wanted, dict) and isinstance(patch.get(key), dict) and live.get(key):
            patch[key]["$retainKeys"] = sorted(wanted)
    for key, before in original.items():
        if before is not None and key not in modified and live.get(key) is not None:
            patch |= _removed(key, before, live[key], node)
    return patch


def _field(key: str, before: Any, wanted: Any, live: Any, node: Node | None, replaced: bool) -> Json:
    if live is None:
        return {key: _bare(wanted)}
    if isinstance(wanted, dict) and isinstance(live, dict) and not replaced:
        inner = _object(before if isinstance(before, dict) else {}, wanted, live, node)
        return {key: inner} if inner else {}
    if isinstance(wanted, list) and isinstance(live, list) and isinstance(node, ListNode) and node.merges:
        return _list(key, before if isinstance(before, list) else [], wanted, live, node)
    return {} if wanted == live else {key: _bare(wanted)}


def _removed(key: str, before: Any, live: Any, node: Node | None) -> Json:
    """A field that the manifest has no more. Merging lists lose only what the last apply put there."""
    inner = _child(node, key)
    if isinstance(inner, ListNode) and inner.merges and isinstance(before, list) and isinstance(live, list):
        return _list(key, before, [], live, inner) if len(live) > len(before) else {key: None}
    return {key: None}


def _list(key: str, before: list[Any], wanted: list[Any], live: list[Any], node: ListNode) -> Json:
    if all(not isinstance(item, dict | list) for item in (*before, *wanted, *live)):
        return _scalars(key, before, wanted, live)
    name = node.merge_key
    if not name or not all(isinstance(item, dict) and name in item for item in (*before, *wanted, *live)):
        return {} if wanted == live else {key: _bare(wanted)}
    held, applied = _by(name, live), _by(name, before)
    items: list[Json] = []
    for item in wanted:
        mine = held.get(item[name])
        if mine is None:
            items.append(_bare(item))
            continue
        inner = _object(applied.get(item[name], {}), item, mine, node.item)
        if inner and "retainKeys" in node.strategy.split(","):
            inner["$retainKeys"] = sorted(item)
        if inner:
            items.append({name: item[name], **inner})
    kept = _by(name, wanted)
    gone = [{"$patch": "delete", name: n} for n in applied if n not in kept and n in held]
    if not items and not gone:
        return {}
    order = {f"$setElementOrder/{key}": [{name: item[name]} for item in wanted]} if wanted else {}
    return {**order, key: [*items, *gone]}


def _scalars(key: str, before: list[Any], wanted: list[Any], live: list[Any]) -> Json:
    new = [item for item in wanted if item not in live]
    gone = [item for item in before if item not in wanted and item in live]
    patch: Json = {key: new} if new else {}
    if gone:
        patch[f"$deleteFromPrimitiveList/{key}"] = gone
    if patch and wanted:
        patch[f"$setElementOrder/{key}"] = list(wanted)
    return patch


def _by(name: str, items: Iterable[Json]) -> dict[Any, Json]:
    return {item[name]: item for item in items}


def _child(node: Node | None, key: str) -> Node | None:
    if isinstance(node, ObjectNode):
        return node.fields.get(key)
    return node.item if isinstance(node, MapNode) else None


def _bare(value: Any) -> Any:
    """Without nulls, which in a patch would mean deletion of what is not there."""
    if isinstance(value, dict):
        return {key: _bare(inner) for key, inner in value.items() if inner is not None}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def schema_root(api_version: str, kind: str) -> Node | None:
    """The compiled schema of a native kind, None for others (whose lists are replaced whole)."""
    from minik8s.api import definitions
    from minik8s.api.schema import compile_schema

    group, _, version = api_version.rpartition("/")
    tail = f".{group.partition('.')[0] or 'core'}.{version}.{kind}"
    name = next((name for name in definitions.names() if name.startswith("io.k8s.api.") and name.endswith(tail)), None)
    return compile_schema(name).root if name else None
