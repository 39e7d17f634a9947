"""Strategic merge patch: a merge patch that knows which lists merge, by which key, and in what order.

The rules are those of Kubernetes' API server (k8s.io/apimachinery strategicpatch), since kubectl computes its patches
against them: lists marked `merge` in the schema merge item by item on their merge key, or as sets when they hold
scalars; all other lists are replaced. Directives inside a patch:

    $patch: replace | delete | merge       of the object (or, inside a merging list, of the list or the item)
    $retainKeys: [...]                     drop all other fields of this object
    $deleteFromPrimitiveList/FIELD: [...]  take these scalars out of FIELD
    $setElementOrder/FIELD: [...]          the order of FIELD's items; items it does not name keep their place

Null deletes a field. The result shares nothing with the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minik8s.api.errors import BadRequest
from minik8s.api.rfc_patch import duplicated
from minik8s.api.schema import Schema
from minik8s.api.schema_nodes import ListNode, MapNode, Node, ObjectNode, join

Json = dict[str, Any]
PATCH, RETAIN = "$patch", "$retainKeys"
DELETE, ORDER = "$deleteFromPrimitiveList/", "$setElementOrder/"


def strategic_merge(doc: Json, patch: Any, schema: Schema) -> Json:
    """`doc` after `patch`; BadRequest when the patch is malformed, naming the field."""
    if not isinstance(patch, dict):
        raise BadRequest("a strategic merge patch must be an object")
    try:
        return _merge_object(duplicated(doc), duplicated(patch), schema.root, "")
    except RecursionError:
        raise BadRequest("the patch is nested too deeply") from None


def _child(node: Node | None, key: str) -> Node | None:
    if isinstance(node, ObjectNode):
        return node.fields.get(key)
    return node.item if isinstance(node, MapNode) else None


def _bad(path: str, detail: str) -> BadRequest:
    return BadRequest(f"strategic merge patch: {path or 'the object'}: {detail}")


def _merge_object(doc: Json, patch: Json, node: Node | None, path: str) -> Json:
    """Both `doc` and `patch` are ours to change."""
    directive = patch.pop(PATCH, "merge")
    if directive == "replace":
        return _plain_object(patch)
    if directive == "delete":
        return {}
    if directive != "merge":
        raise _bad(path, f"{PATCH} must be replace, delete or merge")
    _retain_keys(doc, patch, path)
    for key in [key for key in patch if key.startswith(ORDER)]:
        field = key.removeprefix(ORDER)
        _set_order(doc, patch, field, patch.pop(key), _child(node, field), join(path, field))
    for key, value in patch.items():
        if key.startswith(DELETE):
            _delete_scalars(doc, key.removeprefix(DELETE), value, path)
        elif value is None:
            doc.pop(key, None)
        else:
            replaced = isinstance(node, ObjectNode) and key in node.replaced
            doc[key] = _plain(value) if replaced else _merge(doc.get(key), value, _child(node, key), join(path, key))
    return doc


def _merge(live: Any, value: Any, node: Node | None, path: str) -> Any:
    if isinstance(live, dict) and isinstance(value, dict):
        return _merge_object(live, value, node, path)
    if isinstance(live, list) and isinstance(value, list) and isinstance(node, ListNode) and node.merges:
        return _merge_list(live, value, node, path)
    return _plain(value)


def _plain(value: Any) -> Any:
    """A value of the patch where the object has none to merge with: without its nulls and directives."""
    if isinstance(value, dict):
        return _plain_object(value)
    if isinstance(value, list):
        return [_plain(item) for item in value if not _is_directed(item)]
    return value


def _plain_object(patch: Json) -> Json:
    return {
        key: _plain(value)
        for key, value in patch.items()
        if value is not None and key not in (PATCH, RETAIN) and not key.startswith((DELETE, ORDER))
    }


def _retain_keys(doc: Json, patch: Json, path: str) -> None:
    if RETAIN not in patch:
        return
    retained = patch.pop(RETAIN)
    if not isinstance(retained, list) or not all(isinstance(key, str) for key in retained):
        raise _bad(path, f"{RETAIN} must be a list of field names")
    for key, value in patch.items():
        if value is not None and not key.startswith((DELETE, ORDER)) and key not in retained:
            raise _bad(path, f"{RETAIN} must name {key}, which the patch sets")
    for key in doc.keys() - set(retained):
        del doc[key]


def _delete_scalars(doc: Json, field: str, gone: Any, path: str) -> None:
    if not isinstance(gone, list) or not _are_scalars(gone):
        raise _bad(path, f"{DELETE}{field} must be a list of scalars")
    if isinstance(live := doc.get(field), list):
        unwanted = set(map(_identity, gone))
        doc[field] = [item for item in live if not _is_scalar(item) or _identity(item) not in unwanted]


def _is_directed(item: Any) -> bool:
    return isinstance(item, dict) and PATCH in item


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _are_scalars(items: Iterable[Any]) -> bool:
    return all(map(_is_scalar, items))


Identity = tuple[type[Any], Any]


def _identity(value: Any) -> Identity:
    """What tells scalars apart: 1 is not true."""
    return (type(value), value)


def _identities(items: list[Any], key: str, path: str) -> list[Identity]:
    """One per item: the scalar itself when `key` is "", else the value of that field, which every item must have."""
    found = []
    for index, item in enumerate(items):
        value = item if not key else item.get(key) if isinstance(item, dict) else None
        if not _is_scalar(value):
            raise _bad(f"{path}[{index}]", f"must have the merge key {key!r}" if key else "must be a scalar")
        found.append(_identity(value))
    return found


def _merge_list(live: list[Any], patch: list[Any], node: ListNode, path: str) -> list[Any]:
    if _are_scalars(live) and _are_scalars(patch):
        merged = list(dict(zip(map(_identity, live + patch), live + patch, strict=True)).values())
        return _ordered(merged, _identities(patch, "", path), _identities(live, "", path), "", path)
    key = node.merge_key
    if not key:
        raise _bad(path, "its items cannot be merged: they have no merge key")
    directed = [item for item in patch if _is_directed(item)]
    patch = [item for item in patch if not _is_directed(item)]
    if any(item[PATCH] == "replace" for item in directed):
        return list(map(_plain, patch))
    before = _identities(live, key, path)
    deleted = {_deleted(item, key, path) for item in directed}
    merged = [item for item, name in zip(live, before, strict=True) if name not in deleted]
    places: dict[Identity, int] = {}
    for index, name in enumerate(_identities(merged, key, path)):
        places.setdefault(name, index)
    wanted = _identities(patch, key, path)
    for item, name in zip(patch, wanted, strict=True):
        if name in places:
            at = places[name]
            merged[at] = _merge_object(merged[at], item, node.item, f"{path}[{at}]")
        else:
            places[name] = len(merged)
            merged.append(_plain(item))
    return _ordered(merged, wanted, before, key, path)


def _deleted(item: Json, key: str, path: str) -> Identity:
    if item[PATCH] != "delete":
        raise _bad(path, f"{PATCH} of a list item must be replace or delete")
    return _identities([item], key, path)[0]


def _set_order(doc: Json, patch: Json, field: str, order: Any, node: Node | None, path: str) -> None:
    """Merge `field` and put it into the order of `$setElementOrder`; the field is taken out of the patch."""
    given, live = patch.get(field, []), doc.get(field, [])
    if not isinstance(order, list) or not isinstance(given, list) or not isinstance(live, list):
        raise _bad(path, f"{ORDER}{field} is for lists")
    if field not in patch and field not in doc:
        return
    key = node.merge_key if isinstance(node, ListNode) and not _are_scalars([*order, *live, *given]) else ""
    names = _identities(order, key, path)
    kept = [item for item in given if not _is_directed(item)]
    _must_follow(_identities(kept, key, path), names, path)
    before = _identities(live, key, path)
    merged = live
    if field in patch:
        merged = _merge(live, patch.pop(field), node, path) if field in doc else _plain(given)
    doc[field] = _ordered(merged, names, before, key, path)


def _must_follow(items: list[Identity], order: list[Identity], path: str) -> None:
    """The patch's items must all be in the order list, in the same order, when it names any."""
    if order:
        rest = iter(order)
        for item in items:
            if item not in rest:  # consumes `rest` up to the item
                raise _bad(path, f"its items do not follow {ORDER}: {item[1]!r} is missing or out of order")


def _ordered(merged: list[Any], order: list[Identity], live: list[Identity], key: str, path: str) -> list[Any]:
    """`merged` with the items that `order` names in that order, and the others as near their old place as can be."""
    rank, place = _first(order), _first(live)
    named = list(zip(_identities(merged, key, path), merged, strict=True))
    ours = sorted((pair for pair in named if pair[0] in rank), key=lambda pair: rank[pair[0]])
    others = sorted((pair for pair in named if pair[0] not in rank), key=lambda pair: place.get(pair[0], len(place)))
    result: list[Any] = []
    at = 0
    for name, item in ours:
        while at < len(others) and name in place and place.get(others[at][0], len(place)) < place[name]:
            result.append(others[at][1])
            at += 1
        result.append(item)
    return result + [item for _, item in others[at:]]


def _first(names: list[Identity]) -> dict[Identity, int]:
    places: dict[Identity, int] = {}
    for index, name in enumerate(names):
        places.setdefault(name, index)
    return places
