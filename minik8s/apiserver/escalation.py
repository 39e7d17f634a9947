"""Nobody gives away rights that they do not have: admission of roles and of their bindings.

Who writes a role must hold all that it allows, or have the verb `escalate` on it; who binds one must hold it as well,
or have the verb `bind` on it. That holds for updates too, but for those that only concern an object's owners and
finalizers, since garbage collection must go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from minik8s.api.errors import Forbidden, not_found
from minik8s.api.kinds.rbac import CLUSTER_ROLE, GROUP, ROLE, PolicyRule
from minik8s.api.resource import Json
from minik8s.apiserver.admission import Operation
from minik8s.apiserver.auth import MASTERS, Attributes, Decision, User
from minik8s.store.watch_cache import WatchCache

EVERYTHING = (
    PolicyRule(("*",), ("*",), ("*",)),
    PolicyRule(("*",), nonResourceURLs=("*",)),
)
FOR_THE_COLLECTOR = ("ownerReferences", "finalizers", "resourceVersion")


class Rights(Protocol):
    """An authorizer that can compare rules."""

    def authorize(self, attributes: Attributes) -> Decision: ...

    def lacking(self, user: User, namespace: str, wanted: Iterable[PolicyRule]) -> list[PolicyRule]: ...


class Escalation:
    resources = frozenset(
        f"{plural}.{GROUP}" for plural in ("roles", "clusterroles", "rolebindings", "clusterrolebindings")
    )

    def __init__(self, cache: WatchCache, rights: Rights) -> None:
        self._cache = cache
        self._rights = rights

    def admit(self, op: Operation) -> None:
        if op.verb == "delete" or MASTERS in op.user.groups or _is_for_the_collector(op):
            return
        if op.resource.kind.endswith("Binding"):
            self._check_binding(op)
        else:
            self._check_role(op)

    def _check_role(self, op: Operation) -> None:
        wanted = _rules(op.obj)
        if op.obj.get("aggregationRule") or (op.old or {}).get("aggregationRule"):
            wanted = EVERYTHING  # what will be put into it is not known
        if not self._allows(op, "escalate", op.resource.plural, op.name):
            self._check(op, wanted)

    def _check_binding(self, op: Operation) -> None:
        ref = op.obj["roleRef"]
        row = CLUSTER_ROLE if ref.get("kind") == "ClusterRole" else ROLE
        name = ref.get("name") or ""
        if self._allows(op, "bind", row.plural, name):
            return
        record = self._cache.get(row.key(op.namespace, name))
        if record is None:
            raise not_found(row.plural, name, group=GROUP)
        self._check(op, _rules(msgspec.json.decode(record.value)))

    def _allows(self, op: Operation, verb: str, plural: str, name: str) -> bool:
        asked = Attributes(op.user, verb, GROUP, "v1", plural, namespace=op.namespace, name=name)
        return self._rights.authorize(asked).allowed

    def _check(self, op: Operation, wanted: Iterable[PolicyRule]) -> None:
        lacking = self._rights.lacking(op.user, op.namespace, wanted)
        if not lacking:
            return
        shown = "\n".join(_text(rule) for rule in lacking[:20]) + ("\n…" if len(lacking) > 20 else "")
        groups = ", ".join(f'"{group}"' for group in op.user.groups)
        raise Forbidden(
            f'{op.resource.name} "{op.name}" is forbidden: user "{op.user.name}" (groups=[{groups}]) is attempting to '
            f"grant RBAC permissions not currently held:\n{shown}",
            details={"name": op.name, "group": GROUP, "kind": op.resource.plural},
        )


def _rules(role: Json) -> Sequence[PolicyRule]:
    return msgspec.convert(role.get("rules") or [], tuple[PolicyRule, ...])


def _is_for_the_collector(op: Operation) -> bool:
    """An update that changes nothing but owners and finalizers."""
    return op.old is not None and _rest(op.obj) == _rest(op.old)


def _rest(obj: Json) -> Json:
    meta = {key: value for key, value in obj["metadata"].items() if key not in FOR_THE_COLLECTOR}
    return {**obj, "metadata": meta}


def _text(rule: PolicyRule) -> str:
    parts = {
        "APIGroups": rule.apiGroups,
        "Resources": rule.resources,
        "ResourceNames": rule.resourceNames,
        "NonResourceURLs": rule.nonResourceURLs,
        "Verbs": rule.verbs,
    }
    listed = (f"{name}:{msgspec.json.encode(values).decode()}" for name, values in parts.items() if values)
    return "{" + ", ".join(listed) + "}"
