"""Whatever strangers send: a clear 4xx, and the server stays up."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from api_harness import Api, config_map, pod
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minik8s.apiserver import protobuf
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.handler import AllowAll
from minik8s.clock import ManualClock
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache

PODS = "/api/v1/namespaces/default/pods"
CMS = "/api/v1/namespaces/default/configmaps"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WORKLOAD = {
    "metadata": {"name": "x", "labels": {"a": "b"}, "finalizers": ["a.b/c"], "ownerReferences": [
        {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": True}]},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]},
    },
}  # fmt: skip
OBJECTS: dict[str, dict[str, Any]] = {
    PODS: pod("x"),
    CMS: config_map("x", data={"a": "b"}),
    "/api/v1/namespaces/default/services": {
        "metadata": {"name": "x"},
        "spec": {"ports": [{"port": 80, "targetPort": "http"}], "clusterIP": "", "type": "NodePort"},
    },
    "/apis/apps/v1/namespaces/default/deployments": WORKLOAD,
    "/apis/events.k8s.io/v1/namespaces/default/events": {
        "metadata": {"name": "x"}, "regarding": {"name": "a"}, "note": "n", "eventTime": "2024-01-01T00:00:00.000000Z",
    },
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": {"spec": {"resourceAttributes": {"verb": "get"}}},
    f"{PODS}/base/binding": {"metadata": {"name": "base"}, "target": {"kind": "Node", "name": "n1"}},
    f"{PODS}/base/eviction": {"metadata": {"name": "base"}, "deleteOptions": {"gracePeriodSeconds": 3}},
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All paths into a JSON value."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def run(check: Any) -> None:
    async def inside() -> None:
        async with MemoryStore() as store, WatchCache(store) as cache:
            clock = ManualClock()
            handler = build_handler(cache, authenticator=None, authorizer=AllowAll(), clock=clock, rng=random.Random(1))
            api = Api(handler, clock, cache)
            await api.post("/api/v1/namespaces", {"metadata": {"name": "default"}})
            await api.post(PODS, pod("base"))
            await check(api)
            assert (await api.get(PODS)).code == 200

    asyncio.run(inside())


SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(st.sampled_from(sorted(OBJECTS)), st.data())
def test_wrong_values_in_every_field(path: str, data: st.DataObject) -> None:
    obj = OBJECTS[path]
    place = data.draw(st.sampled_from(places(obj)))
    body = json.dumps(replaced(obj, place, data.draw(values))).encode()

    async def check(api: Api) -> None:
        made = await api.post(path, body)
        assert made.code < 500, (made.body, body)
        for accept in ("application/json", "application/json;as=Table;v=v1;g=meta.k8s.io"):
            assert (
                await api.get(path.replace("/base/binding", "").replace("/base/eviction", ""), accept=accept)
            ).code in (200, 405)

    run(check)


@SETTINGS
@given(
    st.sampled_from(["merge-patch", "strategic-merge-patch", "json-patch"]),
    values,
    st.sampled_from(["", "/status", "/scale"]),
)
def test_patches_of_anything(kind: str, patch: Any, subresource: str) -> None:
    async def check(api: Api) -> None:
        for body in (patch, {"spec": patch}, {"metadata": patch}, {"status": patch}):
            answer = await api.patch(f"{PODS}/base{subresource}", json.dumps(body).encode(), kind)
            assert answer.code < 500, answer.body

    run(check)


@SETTINGS
@given(st.binary(max_size=60), st.booleans())
def test_bytes_of_any_kind(junk: bytes, magic: bool) -> None:
    async def check(api: Api) -> None:
        head = b"k8s\x00\x0a\x09\x0a\x02v1\x12\x03Pod\x12" + bytes([len(junk)]) if magic else b""
        for media in ("application/json", protobuf.MEDIA_TYPE):
            answer = await api.post(PODS, head + junk, content_type=media)
            assert 400 <= answer.code < 500, answer.body
            assert (await api.delete(f"{PODS}/base2", head + junk, content_type=media)).code < 500

    run(check)


@SETTINGS
@given(
    st.text(max_size=40), st.text(max_size=20), st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "BREW", ""])
)
def test_paths_and_parameters_of_any_kind(path: str, parameter: str, method: str) -> None:
    names = (
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "resourceVersion",
        "timeoutSeconds",
        "dryRun",
        "fieldValidation",
    )

    async def check(api: Api) -> None:
        for start in ("/", "/api/v1/", "/apis/", "/api/v1/namespaces/default/", f"{PODS}/"):
            assert (await api.call(method, start + path.partition("?")[0], b"{}")).code < 500
        for name in names:
            from minik8s.apiserver.request import ApiRequest

            request = ApiRequest("GET", PODS, {name: parameter, "resourceVersionMatch": ""}, user=None)
            response = await api.handler.handle(request)
            assert response.code < 500 or response.code == 504, response.body

    run(check)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b'{"metadata":1}', b'{"metadata":{"name":{}}}', b"{}" * 2,
     b'{"metadata":{"name":"\\ud800"}}', b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000,
     b'{"metadata":{"name":"a"},"data":' + b'{"a":' * 500 + b"1" + b"}" * 501,
     b'{"metadata":{"name":"a","generation":' + b"9" * 5000 + b"}}", b'{"metadata":{"name":"a","labels":{"a":NaN}}}'],
    ids=range(16),
)  # fmt: skip
async def test_bodies_that_are_no_objects(api: Api, body: bytes) -> None:
    for kind in ("", "merge-patch", "json-patch", "strategic-merge-patch"):
        answer = await (api.patch(f"{CMS}/a", body, kind) if kind else api.post(CMS, body))
        assert 400 <= answer.code < 500, answer.body
        assert answer["kind"] == "Status"
        assert answer.message
