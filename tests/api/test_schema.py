"""What the compiled schemas drop, refuse and default: by example, and by laws over arbitrary JSON."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
import timeit
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.api import definitions
from minik8s.api.kinds import RESOURCES
from minik8s.api.schema import ABSENT_IS_ZERO, Schema, compile_schema

POD = compile_schema("io.k8s.api.core.v1.Pod")
DEPLOYMENT = compile_schema("io.k8s.api.apps.v1.Deployment")
Json = dict[str, Any]


def pod() -> Json:
    """A pod with a value of every type that the schema knows."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web",
            "labels": {"app": "web"},
            "creationTimestamp": "2024-02-29T12:00:00Z",
            "finalizers": ["example.com/hold"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1"}],
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {"f:anything": {}}}}],
        },
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "hostNetwork": False,
            "nodeSelector": {"disk": "ssd"},
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "c", "configMap": {"name": "c"}}],
            "containers": [
                {
                    "name": "c",
                    "image": "nginx",
                    "args": ["-g", "daemon off;"],
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                    "readinessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 5},
                }
            ],
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"name": "c"}]},
    }


def test_a_good_pod_passes_untouched() -> None:
    obj = pod()
    assert POD.fits(obj)
    assert POD.prune(obj) == []
    assert POD.check(obj) == []
    assert obj == pod()


def test_unknown_fields_are_dropped_and_named_as_kubectl_names_them() -> None:
    obj = {
        "spec": {"replicaz": 3, "selector": {}, "template": {"spec": {"containers": [{"name": "a", "foo": {"b": 1}}]}}},
        "extra": 1,
    }
    assert sorted(DEPLOYMENT.prune(obj)) == ["extra", "spec.replicaz", "spec.template.spec.containers[0].foo"]
    assert obj == {"spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "a"}]}}}}


def test_quantities_are_written_as_kubernetes_writes_them() -> None:
    given = {"cpu": 0.5, "memory": "1024Mi", "ephemeral-storage": "1e3", "pods": 2}
    given |= {"a": "1000m", "b": None, "c": "many"}
    container = {"name": "web", "image": "web", "resources": {"limits": given}}
    volume = {"name": "v", "emptyDir": {"sizeLimit": "2048Ki"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
           "spec": {"containers": [container], "volumes": [volume]}}  # fmt: skip
    assert POD.prune(pod) == []
    assert given == {
        "cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1e3", "pods": "2", "a": "1", "b": "0", "c": "many",
    }  # fmt: skip
    assert volume["emptyDir"] == {"sizeLimit": "2Mi"}
    assert POD.check(pod) == []  # what is no quantity is the kind's to refuse
    del given["c"]
    assert POD.fits(pod)


def test_free_form_parts_are_kept_whole() -> None:
    obj = pod()
    obj["metadata"]["annotations"] = {"any/thing": "1", "x": "{}"}
    before = copy.deepcopy(obj)
    assert POD.prune(obj) == []
    assert obj == before


def test_nulls_become_what_go_makes_of_them() -> None:
    obj = pod()
    obj["metadata"]["creationTimestamp"] = None
    obj["metadata"]["labels"]["empty"] = None
    obj["spec"]["containers"][0]["args"] = ["a", None]
    obj["spec"]["containers"][0]["resources"] = None
    assert POD.prune(obj) == []
    assert "creationTimestamp" not in obj["metadata"]
    assert obj["metadata"]["labels"]["empty"] == ""
    assert obj["spec"]["containers"][0]["args"] == ["a", ""]
    assert "resources" not in obj["spec"]["containers"][0]
    assert POD.check(obj) == []


@pytest.mark.parametrize(
    ("schema", "change", "expected"),
    [
        (
            "apps.v1.Deployment",
            ("spec", "replicas", "three"),
            'spec.replicas: Invalid value: "three": must be an integer',
        ),
        ("apps.v1.Deployment", ("spec", "replicas", True), "spec.replicas: Invalid value: true: must be an integer"),
        (
            "apps.v1.Deployment",
            ("spec", "replicas", 2**31),
            "spec.replicas: Invalid value: 2147483648: must be a 32-bit integer",
        ),
        ("core.v1.ConfigMap", ("data", "a", 1), "data[a]: Invalid value: 1: must be a string"),
        ("core.v1.Secret", ("data", "a", "no!"), 'data[a]: Invalid value: "no!": must be base64'),
        ("core.v1.Node", ("spec", "taints", {}), "spec.taints: Invalid value: {}: must be an array"),
        ("core.v1.Node", ("metadata", "labels", []), "metadata.labels: Invalid value: []: must be an object"),
        ("core.v1.Pod", ("spec", "hostNetwork", "no"), 'spec.hostNetwork: Invalid value: "no": must be true or false'),
        ("core.v1.Pod", ("spec", "containers", [{}]), "spec.containers[0].name: Required value"),
        (
            "core.v1.Pod",
            ("metadata", "deletionTimestamp", "2023-02-29T00:00:00Z"),
            'metadata.deletionTimestamp: Invalid value: "2023-02-29T00:00:00Z": must be a time in RFC 3339 form, '
            "e.g. 2024-01-31T09:30:00Z",
        ),
    ],
)
def test_faults_name_the_field(schema: str, change: tuple[str, str, Any], expected: str) -> None:
    top, field, value = change
    full = {"spec": {"selector": {}, "template": {}, "containers": []}} if schema.startswith("apps") else {}
    if schema == "core.v1.Pod" and top != "spec":
        full = {"spec": {"containers": []}}
    full.setdefault(top, {})[field] = value
    found = [str(cause) for cause in compile_schema(f"io.k8s.api.{schema}").check(full)]
    assert expected in found
    assert len(found) == 1 or schema == "core.v1.Pod"


def test_what_is_missing_is_required_except_in_status() -> None:
    causes = DEPLOYMENT.check({"spec": {}, "status": {"conditions": [{}]}})
    assert [(cause.field, cause.reason) for cause in causes] == [
        ("spec.selector", "FieldValueRequired"),
        ("spec.template", "FieldValueRequired"),
    ]


def test_absence_that_kubernetes_takes_as_zero_is_no_fault() -> None:
    policy = compile_schema("io.k8s.api.networking.v1.NetworkPolicy")
    assert policy.check({"spec": {}}) == []
    for entry in ABSENT_IS_ZERO:
        kind, _, field = entry.partition(".")
        shapes = [definitions.shape(name) for name in definitions.names() if name.rpartition(".")[2] == kind]
        assert any(field in shape.get("required", ()) for shape in shapes), f"{entry} is not required anyway"


def test_every_kind_of_the_table_has_a_schema_that_takes_the_least_object() -> None:
    for row in RESOURCES:
        for name in (row.definition, *(alias.definition for alias in row.aliases)):
            obj = {"apiVersion": row.api_version, "kind": row.kind, "metadata": {"name": "a"}}
            assert compile_schema(name).prune(obj) == [], name


def test_a_schema_that_contains_itself() -> None:
    schema = compile_schema("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    obj = {"properties": {"a": {"properties": {"b": {"typo": 1, "maxLength": "x"}}}}}
    assert schema.prune(obj) == ["properties.a.properties.b.typo"]
    assert [cause.field for cause in schema.check(obj)] == ["properties[a].properties[b].maxLength"]
    deep: Json = {}
    for _ in range(5000):
        deep = {"not": deep}
    schema.prune(deep)
    assert [cause.message for cause in schema.check(deep)] == ["Invalid value: nested too deeply"]


# --- laws ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


PLACES = list(places(pod()))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), JSON)
def test_any_value_in_any_field_of_a_pod_leads_to_causes_not_exceptions(path: tuple[Any, ...], value: Any) -> None:
    obj: Any = pod()
    at = obj
    for key in path[:-1]:
        at = at[key]
    was, at[path[-1]] = at[path[-1]], value
    POD.prune(obj)
    causes = POD.check(obj)
    assert (causes == []) == POD.fits(obj)
    if value is not None and {type(value), type(was)} <= {str, list, dict, bool} and type(value) is not type(was):
        assert causes or "fieldsV1" in path, f"{path} took {value!r}"


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_anything_at_all_as_an_object(value: Any) -> None:
    for schema in (POD, DEPLOYMENT, CRD):
        obj = copy.deepcopy(value)
        schema.prune(obj)
        assert (schema.check(obj) == []) == schema.fits(obj)
        again = copy.deepcopy(obj)
        assert schema.prune(again) == []
        assert again == obj


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["spec", "status", "metadata"]), JSON))
def test_anything_inside_a_pod(parts: Json) -> None:
    obj = pod() | parts
    POD.prune(obj)
    assert (POD.check(obj) == []) == POD.fits(obj)


# --- custom resources ---

CRD = Schema.from_openapi(
    {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1, "maximum": 9},
                    "port": {"x-kubernetes-int-or-string": True},
                    "color": {"type": "string", "enum": ["red", "green"], "default": "red"},
                    "code": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
                    "when": {"type": "string", "format": "date-time", "minLength": 1},
                    "note": {"type": "string", "nullable": True},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "closed": {"type": "object"},
                    "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                    "limits": {"type": "object", "additionalProperties": {"type": "integer"}},
                    "parts": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object",
                            "properties": {"name": {"type": "string"}, "count": {"type": "integer", "default": 1}},
                        },
                    },
                    "choice": {
                        "type": "object",
                        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                    },
                    "template": {"type": "object", "x-kubernetes-embedded-resource": True},
                },
            }
        },
    }
)


def test_a_custom_resource_is_pruned_but_for_its_free_parts() -> None:
    obj = {
        "apiVersion": "example.com/v1",
        "kind": "Thing",
        "metadata": {"name": "a", "bogus": 1},
        "spec": {
            "size": 1, "x": 1, "note": None, "port": None, "free": {"a": {"b": None}}, "closed": {"gone": 1},
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "no": 1}, "spec": {}},
        },
    }  # fmt: skip
    assert sorted(CRD.prune(obj)) == [
        "metadata.bogus", "spec.closed.gone", "spec.template.metadata.no", "spec.template.spec", "spec.x",
    ]  # fmt: skip
    assert obj["spec"] == {
        "size": 1, "note": None, "free": {"a": {"b": None}}, "closed": {},
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
    }  # fmt: skip
    assert CRD.check(obj) == []


def test_a_custom_resource_keeps_quantities_as_they_are_written() -> None:
    fields = {"size": {"type": "string", "format": "quantity"}}
    schema = Schema.from_openapi({"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}})
    obj = {"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a"}, "spec": {"size": "0.5", "typo": 1}}
    assert schema.prune(obj) == ["spec.typo"]
    assert obj["spec"] == {"size": "0.5"}


def test_a_custom_resource_gets_its_defaults_each_time_fresh() -> None:
    first: Json = {"spec": {"size": 1, "parts": [{"name": "a"}, {"name": "b", "count": 2}]}}
    CRD.apply_defaults(first)
    assert first["spec"]["color"] == "red"
    assert [part["count"] for part in first["spec"]["parts"]] == [1, 2]
    nested = Schema.from_openapi({"type": "object", "properties": {"spec": {"type": "object", "default": {"a": []}}}})
    one: Json = {}
    two: Json = {}
    nested.apply_defaults(one)
    one["spec"]["a"].append(1)
    nested.apply_defaults(two)
    assert two == {"spec": {"a": []}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "spec.size: Required value"),
        ({"size": 0}, "spec.size: Invalid value: 0: must be greater than or equal to 1"),
        ({"size": 10}, "spec.size: Invalid value: 10: must be less than or equal to 9"),
        ({"size": "1"}, 'spec.size: Invalid value: "1": must be an integer'),
        ({"size": 1, "port": 1.5}, "spec.port: Invalid value: 1.5: must be an integer or a string"),
        ({"size": 1, "color": "blue"}, 'spec.color: Unsupported value: "blue": supported values: "red", "green"'),
        ({"size": 1, "code": "A"}, "spec.code: Invalid value: \"A\": must match '^[a-z]+$'"),
        ({"size": 1, "code": "abcd"}, 'spec.code: Invalid value: "abcd": must have at most 3 characters'),
        (
            {"size": 1, "when": "now"},
            'spec.when: Invalid value: "now": must be a time in RFC 3339 form, e.g. 2024-01-31T09:30:00Z',
        ),
        ({"size": 1, "tags": ["a", "a"]}, 'spec.tags[1]: Duplicate value: "a"'),
        ({"size": 1, "limits": {"a": "b"}}, 'spec.limits[a]: Invalid value: "b": must be an integer'),
        ({"size": 1, "parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]: Duplicate value: {'name': 'a'}"),
        ({"size": 1, "choice": {"a": "", "b": ""}}, "must satisfy the schema's oneOf"),
        ({"size": 1, "tags": [None]}, "spec.tags[0]: Invalid value: null: must be a string"),
    ],
)
def test_a_custom_resources_validations(spec: Json, expected: str) -> None:
    causes = [str(cause) for cause in CRD.check({"spec": spec})]
    assert len(causes) == 1
    assert expected in causes[0]


# --- cost ---


def test_loading_is_small_and_quick() -> None:
    """A fresh interpreter: what a server's schemas add, in MB and CPU seconds; with room for a slow day."""
    script = """
import json, re, time, zlib, msgspec, minik8s.api.kinds, importlib.resources
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
before, start = resident(), time.process_time()
from minik8s.api.schema import compile_schema
for row in minik8s.api.kinds.RESOURCES:
    compile_schema(row.definition)
print(resident() - before, time.process_time() - start)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert float(out[0]) < 10
    assert float(out[1]) < 0.12


def test_admission_is_quick() -> None:
    """Measured on a busy 2-core machine: 27 us for this pod; the ceiling catches a slip into the slow walk."""
    obj = pod()
    best = min(timeit.repeat(lambda: POD.admit(obj), number=200, repeat=5)) / 200
    assert POD.admit(obj) == ([], [])
    assert best < 200e-6


def test_a_wide_and_deep_object_takes_linear_time() -> None:
    schema = compile_schema("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    obj: Json = {"properties": {f"k{i}": {"type": "string"} for i in range(20_000)}, "typo": 1}
    for _ in range(200):
        obj = {"not": obj}
    start = time.process_time()
    unknown, causes = schema.admit(obj)
    assert time.process_time() - start < 2
    assert (len(unknown), causes) == (1, [])
