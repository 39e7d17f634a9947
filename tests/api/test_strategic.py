"""Strategic merge patch: golden cases of what kubectl sends and what the API server makes of it, and laws."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.errors import BadRequest
from minik8s.api.patch import strategic_merge
from minik8s.api.schema import compile_schema

POD = compile_schema("io.k8s.api.core.v1.Pod")
Json = dict[str, Any]


def spec(**fields: Any) -> Json:
    return {"spec": fields}


def one(**fields: Any) -> Json:
    """A pod with one container `c`."""
    return spec(containers=[{"name": "c", **fields}])


def named(*names: str) -> list[Json]:
    return [{"name": name} for name in names]


CASES: dict[str, tuple[Json, Json, Json]] = {
    "kubectl set image": (
        spec(containers=[{"name": "a", "image": "x:1", "tty": True}, {"name": "b", "image": "y:1"}]),
        {"spec": {"$setElementOrder/containers": named("a", "b"), "containers": [{"name": "b", "image": "y:2"}]}},
        spec(containers=[{"name": "a", "image": "x:1", "tty": True}, {"name": "b", "image": "y:2"}]),
    ),
    "items without an order directive are put in the patch's order, before what follows them": (
        spec(containers=[{"name": "a"}, {"name": "b"}, {"name": "c"}]),
        spec(containers=[{"name": "c", "image": "2"}, {"name": "a", "image": "1"}, {"name": "new"}]),
        spec(containers=[{"name": "b"}, {"name": "c", "image": "2"}, {"name": "a", "image": "1"}, {"name": "new"}]),
    ),
    "an order directive reorders; the others stay before what followed them": (
        spec(volumes=named("a", "injected", "b")),
        {"spec": {"$setElementOrder/volumes": named("b", "a"), "volumes": []}},
        spec(volumes=named("injected", "b", "a")),
    ),
    "an order directive alone": (
        spec(volumes=named("a", "b", "c")),
        {"spec": {"$setElementOrder/volumes": named("c", "b", "a")}},
        spec(volumes=named("c", "b", "a")),
    ),
    "$patch: delete of an item": (
        spec(containers=named("a", "b")),
        {"spec": {"$setElementOrder/containers": named("b"), "containers": [{"$patch": "delete", "name": "a"}]}},
        spec(containers=named("b")),
    ),
    "$patch: replace of a list": (
        spec(containers=named("a", "b")),
        spec(containers=[{"$patch": "replace"}, {"name": "c"}]),
        spec(containers=named("c")),
    ),
    "$patch: replace of an object": (
        spec(securityContext={"runAsUser": 1, "fsGroup": 2}),
        spec(securityContext={"$patch": "replace", "runAsGroup": 3}),
        spec(securityContext={"runAsGroup": 3}),
    ),
    "$patch: delete of an object": (
        spec(securityContext={"runAsUser": 1}),
        spec(securityContext={"$patch": "delete"}),
        spec(securityContext={}),
    ),
    "$patch: merge is what happens anyway": (
        spec(securityContext={"runAsUser": 1}),
        spec(securityContext={"$patch": "merge", "fsGroup": 2}),
        spec(securityContext={"runAsUser": 1, "fsGroup": 2}),
    ),
    "$retainKeys: another volume source": (
        spec(volumes=[{"name": "v", "emptyDir": {}}]),
        spec(
            volumes=[{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}, "emptyDir": None}]
        ),
        spec(volumes=[{"name": "v", "configMap": {"name": "c"}}]),
    ),
    "env by name": (
        one(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]),
        one(env=[{"name": "B", "value": None, "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]),
        one(env=[{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]),
    ),
    "ports by containerPort, the first of equals": (
        one(ports=[{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]),
        one(ports=[{"containerPort": 53, "name": "dns"}]),
        one(ports=[{"containerPort": 53, "protocol": "UDP", "name": "dns"}, {"containerPort": 53, "protocol": "TCP"}]),
    ),
    "volumeMounts by mountPath": (
        one(volumeMounts=[{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]),
        one(volumeMounts=[{"mountPath": "/b", "readOnly": True}]),
        one(volumeMounts=[{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b", "readOnly": True}]),
    ),
    "args and tolerations are replaced whole": (
        spec(tolerations=[{"key": "a"}], containers=[{"name": "c", "args": ["1"]}]),
        spec(tolerations=[{"key": "b"}], containers=[{"name": "c", "args": ["2"]}]),
        spec(tolerations=[{"key": "b"}], containers=[{"name": "c", "args": ["2"]}]),
    ),
    "conditions by type": (
        {"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}]}},
        {
            "status": {
                "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "Initialized"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            }
        },
        {"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]}},
    ),
    "finalizers merge as a set": (
        {"metadata": {"finalizers": ["a", "b"]}},
        {"metadata": {"finalizers": ["c", "a"]}},
        {"metadata": {"finalizers": ["c", "a", "b"]}},
    ),
    "finalizers are taken out": (
        {"metadata": {"finalizers": ["a", "b", "c"]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"]}},
        {"metadata": {"finalizers": ["c", "a"]}},
    ),
    "ownerReferences by uid": (
        {"metadata": {"ownerReferences": [{"uid": "1", "name": "a"}, {"uid": "2", "name": "b"}]}},
        {"metadata": {"ownerReferences": [{"uid": "1", "$patch": "delete"}, {"uid": "2", "controller": True}]}},
        {"metadata": {"ownerReferences": [{"uid": "2", "name": "b", "controller": True}]}},
    ),
    "kubectl label and unlabel": (
        {"metadata": {"labels": {"a": "1", "b": "2"}}},
        {"metadata": {"labels": {"a": None, "c": "3"}}},
        {"metadata": {"labels": {"b": "2", "c": "3"}}},
    ),
    "new parts come without nulls and directives": (
        {},
        {
            "metadata": {"labels": {"a": None}},
            "spec": {
                "$setElementOrder/containers": named("c"),
                "containers": [{"name": "c", "tty": None}, {"name": "d", "$patch": "delete"}],
                "volumes": [{"$retainKeys": ["name", "emptyDir"], "name": "v", "emptyDir": {}}],
            },
        },
        {
            "metadata": {"labels": {}},
            "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {}}]},
        },
    ),
    "all items deleted": (
        spec(volumes=named("a")),
        {"spec": {"$setElementOrder/volumes": [], "volumes": [{"name": "a", "$patch": "delete"}]}},
        spec(volumes=[]),
    ),
    "null deletes a list": (spec(volumes=named("a"), nodeName="n"), spec(volumes=None), spec(nodeName="n")),
}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    doc, patch, expected = CASES[case]
    before = copy.deepcopy((doc, patch))
    assert strategic_merge(doc, patch, POD) == expected
    assert (doc, patch) == before


def test_a_field_marked_replace_is_replaced() -> None:
    budget = compile_schema("io.k8s.api.policy.v1.PodDisruptionBudget")
    patch = {"spec": {"selector": {"matchLabels": {"b": "2"}}}}
    assert strategic_merge({"spec": {"selector": {"matchLabels": {"a": "1"}}}}, patch, budget) == patch


def test_service_ports_by_port() -> None:
    service = compile_schema("io.k8s.api.core.v1.Service")
    doc = {"spec": {"ports": [{"port": 80, "targetPort": "http", "nodePort": 30080}, {"port": 443}]}}
    patch = {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}
    merged = strategic_merge(doc, patch, service)
    assert {"port": 80, "targetPort": 8080, "nodePort": 30080} in merged["spec"]["ports"]
    assert len(merged["spec"]["ports"]) == 2


def test_a_deployments_strategy_keeps_only_what_retain_keys_names() -> None:
    deployment = compile_schema("io.k8s.api.apps.v1.Deployment")
    doc = spec(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, replicas=2)
    patch = spec(strategy={"$retainKeys": ["type"], "type": "Recreate"})
    assert strategic_merge(doc, patch, deployment) == spec(strategy={"type": "Recreate"}, replicas=2)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ([], "must be an object"),
        ({"$patch": "explode"}, "the object: $patch must be replace, delete or merge"),
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0]: must have the merge key 'name'"),
        ({"spec": {"containers": ["x"]}}, "spec.containers[0]: must have the merge key 'name'"),
        ({"spec": {"containers": [{"name": "c", "$patch": "merge"}]}}, "$patch of a list item"),
        ({"spec": {"containers": [{"$patch": "delete"}]}}, "spec.containers[0]: must have the merge key 'name'"),
        ({"spec": {"$retainKeys": "containers"}}, "spec: $retainKeys must be a list"),
        ({"spec": {"$retainKeys": ["volumes"], "nodeName": "n"}}, "spec: $retainKeys must name nodeName"),
        (
            {"spec": {"$setElementOrder/containers": named("c"), "containers": named("d")}},
            "spec.containers: its items do not follow $setElementOrder/: 'd' is missing or out of order",
        ),
        ({"spec": {"$setElementOrder/containers": {}}}, "spec.containers: $setElementOrder/containers is for lists"),
        (
            {"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}},
            "$deleteFromPrimitiveList/finalizers must be a list",
        ),
    ],
)
def test_a_malformed_patch_names_the_field(patch: Any, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        strategic_merge({"metadata": {}} | spec(containers=named("c")), patch, POD)
    assert message in str(caught.value)


NAMES = st.sampled_from("abcde")
CONTAINERS = st.lists(NAMES, unique=True, max_size=5).flatmap(
    lambda names: st.tuples(*(st.fixed_dictionaries({"name": st.just(n)}, optional={"image": NAMES}) for n in names))
)
PODS = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"finalizers": st.lists(NAMES, unique=True), "labels": st.dictionaries(NAMES, NAMES)}
        )
    },
    optional={"spec": st.fixed_dictionaries({"containers": CONTAINERS.map(list)}, optional={"nodeName": NAMES})},
)


@given(PODS, PODS)
def test_a_patch_without_deletions_twice_is_as_once(doc: Json, patch: Json) -> None:
    once = strategic_merge(doc, patch, POD)
    assert strategic_merge(once, patch, POD) == once


@given(PODS)
def test_nothing_and_itself_change_nothing(doc: Json) -> None:
    assert strategic_merge(doc, {}, POD) == doc
    assert strategic_merge(doc, doc, POD) == doc


@given(PODS, PODS)
def test_merging_keeps_both_sides_items(doc: Json, patch: Json) -> None:
    merged = strategic_merge(doc, patch, POD)
    for field in ("finalizers",):
        assert set(merged["metadata"][field]) == set(doc["metadata"][field]) | set(patch["metadata"][field])
    if "spec" in doc and "spec" in patch:
        ours = [c["name"] for c in patch["spec"]["containers"]]
        found = [c["name"] for c in merged["spec"]["containers"]]
        assert set(found) == {c["name"] for c in doc["spec"]["containers"]} | set(ours)
        assert [name for name in found if name in ours] == ours


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["a", "delete", "replace", "merge"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([
                "name", "containers", "spec", "env", "metadata", "finalizers", "$patch", "$retainKeys",
                "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers", "$setElementOrder/finalizers",
            ]),
            inner, max_size=3,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(PODS, JSON)
def test_whatever_a_patch_says_it_applies_or_is_a_bad_request(doc: Json, patch: Any) -> None:
    before = copy.deepcopy(doc)
    with suppress(BadRequest):
        strategic_merge(doc, patch, POD)
    assert doc == before
