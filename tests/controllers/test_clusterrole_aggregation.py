"""ClusterRoles that are the sum of others."""

from __future__ import annotations

from typing import Any

from minik8s.api.kinds.rbac import AggregationRule, ClusterRole, PolicyRule
from minik8s.api.meta import LabelSelector, ObjectMeta
from minik8s.apiserver.bootstrap import AGGREGATE_TO, AGGREGATED
from minik8s.controllers.clusterrole_aggregation import aggregated
from minik8s.testing import cluster

from .cluster import control_plane

READ, WRITE = PolicyRule(("get",), ("",), ("pods",)), PolicyRule(("create",), ("",), ("pods",))


def role(name: str, *rules: PolicyRule, selects: dict[str, str] | None = None, **labels: str) -> ClusterRole:
    chosen = AggregationRule((LabelSelector(matchLabels=selects),)) if selects is not None else None
    return ClusterRole(metadata=ObjectMeta(name=name, labels=labels), rules=rules, aggregationRule=chosen)


def test_rules_come_in_order_and_once() -> None:
    parts = [role("b", WRITE, READ, to="x"), role("a", READ, to="x"), role("c", PolicyRule(("list",)), to="y")]
    whole = role("whole", PolicyRule(("delete",)), selects={"to": "x"}, to="x")  # selects itself, too
    assert aggregated(whole, [*parts, whole]) == (READ, WRITE)
    assert aggregated(role("none", READ, selects={"to": "nobody"}), parts) == ()


def document(name: str, rules: list[dict[str, Any]], **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **meta}, "rules": rules}


async def test_roles_follow_those_they_select() -> None:
    async with control_plane() as it:

        def rules(name: str) -> tuple[PolicyRule, ...]:
            found = it.get(ClusterRole, name, None)
            return found.rules if found is not None else ()

        read = {"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["things"]}
        whole = document("whole", []) | {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "x"}}]}}
        await it.client.create(ClusterRole, whole)
        await it.client.create(ClusterRole, document("part", [read], labels={"to": "x"}))
        await it.until(lambda: rules("whole") == rules("part") != ())
        await it.client.patch(ClusterRole, "part", None, {"rules": [{**read, "verbs": ["get", "list"]}]})
        await it.until(lambda: rules("whole") and rules("whole")[0].verbs == ("get", "list"))
        by_hand = await it.client.patch(ClusterRole, "whole", None, {"rules": []})
        await it.informers.of(ClusterRole).caught_up(by_hand.metadata.resourceVersion)
        await it.until(lambda: rules("whole"))  # in vain
        await it.client.patch(ClusterRole, "part", None, {"metadata": {"labels": {"to": None}}})
        await it.until(lambda: rules("whole") == ())


async def test_new_kinds_join_the_roles_of_every_cluster() -> None:
    """And what a cluster begins with is already what it aggregates to: nothing is written at the start."""
    async with cluster(nodes=0) as it:
        before = {name: await it.client.get(ClusterRole, name) for name in AGGREGATED}
        rule = {"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["things"]}
        labels = {AGGREGATE_TO + "view": "true"}
        await it.client.create(ClusterRole, document("things", [rule], labels=labels))
        for name in AGGREGATED:  # view is a part of edit, and that of admin

            def has_it(role: ClusterRole, name: str = name) -> bool:
                return role.metadata.name == name and any("things" in rule.resources for rule in role.rules)

            found = await it.until(ClusterRole, has_it)
            assert set(found.rules) == {*before[name].rules, PolicyRule(("get",), ("example.com",), ("things",))}
