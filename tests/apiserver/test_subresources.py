"""scale, binding, eviction, ephemeral containers; reviews; discovery; tables; health."""

from __future__ import annotations

import asyncio

import pytest
from api_harness import TABLE, Api, pod

from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import Attributes, Decision, User
from minik8s.apiserver.handler import AllowAll
from minik8s.apiserver.request import ApiResponse
from minik8s.store.watch_cache import WatchCache

PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


async def deploy(api: Api, replicas: int = 1) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    assert (await api.post(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec})).code == 201


async def test_scale(api: Api) -> None:
    await deploy(api, 2)
    scale = await api.get(f"{DEPLOYMENTS}/d/scale")
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 2},
        {"replicas": 0, "selector": "a=b"},
    )
    assert (await api.put(f"{DEPLOYMENTS}/d/scale", {**scale.body, "spec": {"replicas": 5}}))["spec"]["replicas"] == 5
    stale = await api.put(f"{DEPLOYMENTS}/d/scale", {**scale.body, "spec": {"replicas": 6}})
    assert stale.code == 409
    assert (await api.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 0}}))["spec"]["replicas"] == 0
    deployment = await api.get(f"{DEPLOYMENTS}/d")
    assert (deployment["spec"]["replicas"], deployment["metadata"]["generation"]) == (0, 3)
    assert (await api.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": -1}})).code == 422
    assert (await api.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": "x"}})).code == 422
    assert (await api.get(f"{PODS}/x/scale")).code == 404


async def test_binding_happens_once(api: Api) -> None:
    await api.post(PODS, pod("a"))
    target = {"target": {"kind": "Node", "name": "n1"}}
    codes = [a.code for a in await asyncio.gather(*(api.post(f"{PODS}/a/binding", target) for _ in range(4)))]
    assert sorted(codes) == [201, 409, 409, 409]
    bound = await api.get(f"{PODS}/a")
    assert bound["spec"]["nodeName"] == "n1"
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    again = await api.post(f"{PODS}/a/binding", target)
    assert 'is already assigned to node "n1"' in again.message
    assert (await api.post(f"{PODS}/b/binding", target)).code == 404
    await api.post(PODS, pod("b"))
    old = await api.post("/api/v1/namespaces/default/bindings", {"metadata": {"name": "b"}, **target})
    assert old.code == 201
    assert (await api.get(f"{PODS}?fieldSelector=spec.nodeName=n1"))["items"][1]["metadata"]["name"] == "b"
    assert (await api.patch(f"{PODS}/a", {"spec": {"nodeName": "n2"}})).code == 422


async def test_eviction_asks_the_budget(cache: WatchCache, api: Api) -> None:
    await api.post(PODS, pod("a", nodeName="n1"))
    await api.patch(f"{PODS}/a/status", {"status": {"phase": "Running"}})
    refusing = build_handler(cache, authenticator=None, authorizer=AllowAll(), budget=lambda pod: "needs 1, has 1")
    strict = Api(refusing, api.clock, cache)
    refused = await strict.post(f"{PODS}/a/eviction", {"metadata": {"name": "a"}})
    assert (refused.code, refused["details"]["causes"][0]["reason"]) == (429, "DisruptionBudget")
    assert refused.raw.headers["retry-after"] == "10"
    assert (await api.post(f"{PODS}/a/eviction", {"metadata": {"name": "a"}})).code == 201
    assert (await api.get(f"{PODS}/a"))["metadata"]["deletionGracePeriodSeconds"] == 30


async def test_ephemeral_containers(api: Api) -> None:
    await api.post(PODS, pod("a"))
    added = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "lab/busybox:1"}]}}
    answer = await api.patch(f"{PODS}/a/ephemeralcontainers", added, "strategic-merge-patch")
    assert answer.code == 200, answer.body
    assert (await api.get(f"{PODS}/a"))["spec"]["ephemeralContainers"][0]["name"] == "debug"
    assert (await api.patch(f"{PODS}/a/ephemeralcontainers", {"spec": {"ephemeralContainers": []}})).code == 422


async def test_service_account_tokens(cache: WatchCache, api: Api) -> None:
    class Issuer:
        def issue(self, account: ServiceAccount, *, audiences: object, seconds: int, bound: tuple) -> tuple[str, float]:
            return f"{account.metadata.name}/{bound[0]}/{bound[1]}", api.clock() + seconds

    handler = build_handler(cache, authenticator=None, authorizer=AllowAll(), tokens=Issuer(), clock=api.clock)
    api = Api(handler, api.clock, cache)
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await api.post(accounts, {"metadata": {"name": "sa"}})
    made = await api.post(PODS, pod("a", serviceAccountName="sa", nodeName="n1"))
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "a", "uid": made["metadata"]["uid"]}
    wish = {"spec": {"audiences": [], "expirationSeconds": 600, "boundObjectRef": reference}}
    answer = await api.post(f"{accounts}/sa/token", wish)
    assert answer["status"] == {"token": "sa/Pod/a", "expirationTimestamp": "2023-11-14T22:23:20Z"}
    node = {name: User(f"system:node:{name}", ("system:nodes",)) for name in ("n1", "n2")}
    assert (await api.post(f"{accounts}/sa/token", wish, user=node["n1"])).code == 201
    assert (await api.post(f"{accounts}/sa/token", wish, user=node["n2"])).code == 403
    assert (await api.post(f"{accounts}/sa/token", {"spec": {"audiences": []}}, user=node["n1"])).code == 403
    reference["uid"] = "x"
    assert (await api.post(f"{accounts}/sa/token", wish)).code == 409
    assert (await api.post(f"{accounts}/sa/token", {"spec": {"audiences": [], "expirationSeconds": 5}})).code == 422


async def test_who_may_read_one_object_may_watch_it_as_well(cache: WatchCache, api: Api) -> None:
    class OnlyMine:
        def authorize(self, a: Attributes) -> Decision:
            return Decision(a.name == "mine")

    api = Api(build_handler(cache, authenticator=None, authorizer=OnlyMine()), api.clock, cache)
    jane, path = User("jane", ("people",)), "/api/v1/namespaces/default/configmaps"
    for selector, code in (
        ("metadata.name=mine", 200), ("metadata.name==mine", 200), ("metadata.name!=mine", 403),
        ("metadata.name=other", 403), ("metadata.namespace=mine", 403), ("", 403),
    ):  # fmt: skip
        assert (await api.get(f"{path}?fieldSelector={selector}", user=jane)).code == code, selector
    made = await api.post(f"{path}?fieldSelector=metadata.name=mine", {"metadata": {"name": "mine"}}, user=jane)
    assert made.code == 403, "a selector says nothing of what is created"


async def test_reviews(cache: WatchCache, api: Api) -> None:
    class Readers:
        def authorize(self, a: Attributes) -> Decision:
            return Decision(a.verb in ("get", "create") or "system:masters" in a.user.groups)

    api = Api(build_handler(cache, authenticator=None, authorizer=Readers()), api.clock, cache)
    jane, root = User("jane", ("people",)), "/apis/authorization.k8s.io/v1"
    for verb, allowed in (("get", True), ("delete", False)):
        spec = {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}
        answer = await api.post(f"{root}/selfsubjectaccessreviews", {"spec": spec}, user=jane)
        assert (answer.code, answer["status"]["allowed"]) == (201, allowed)
        of_jane = await api.post(f"{root}/subjectaccessreviews", {"spec": {**spec, "user": "jane"}})
        assert of_jane["status"]["allowed"] == allowed
        local = f"{root}/namespaces/default/localsubjectaccessreviews"
        assert (await api.post(local, {"spec": {**spec, "user": "jane"}}))["status"]["allowed"] == allowed
    assert (await api.post(f"{root}/selfsubjectaccessreviews", {"spec": {}}, user=jane)).code == 422
    me = await api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, user=jane)
    assert me["status"]["userInfo"] == {"username": "jane", "groups": ["people"]}
    rules = await api.post(f"{root}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}, user=jane)
    assert rules["status"]["incomplete"] is False
    assert (await api.get(f"{root}/selfsubjectaccessreviews")).code == 405
    refused = await api.delete(f"{PODS}/a", user=jane)
    assert refused.message == (
        'pods "a" is forbidden: User "jane" cannot delete resource "pods" in API group "" in the namespace "default"'
    )
    assert (await api.get("/api/v1/nodes", user=jane)).message == (
        'nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope'
    )


async def test_acting_as_somebody_else(api: Api) -> None:
    headers = {"impersonate-user": "jane", "impersonate-group": "a\nb"}
    me = await api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, headers=headers)
    assert me["status"]["userInfo"] == {"username": "jane", "groups": ["a", "b", "system:authenticated"]}


async def test_discovery_both_ways(api: Api) -> None:
    assert (await api.get("/api"))["versions"] == ["v1"]
    groups = {group["name"]: group for group in (await api.get("/apis/"))["groups"]}
    assert groups["autoscaling"]["preferredVersion"]["version"] == "v2"
    assert (await api.get("/apis/apps"))["preferredVersion"]["groupVersion"] == "apps/v1"
    listed = {item["name"]: item for item in (await api.get("/apis/apps/v1"))["resources"]}
    assert listed["deployments"]["shortNames"] == ["deploy"]
    assert listed["deployments/scale"] == {
        "name": "deployments/scale", "singularName": "", "namespaced": True, "kind": "Scale",
        "group": "autoscaling", "version": "v1", "verbs": ["get", "patch", "update"],
    }  # fmt: skip
    assert (await api.get("/apis/nope")).code == 404
    assert (await api.get("/apis/apps/v9")).code == 404
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    whole = await api.get("/apis", accept=accept)
    assert whole["kind"] == "APIGroupDiscoveryList"
    etag = whole.raw.headers["etag"]
    assert (await api.get("/apis", accept=accept, headers={"if-none-match": etag})).code == 304
    pods = {r["resource"]: r for r in (await api.get("/api", accept=accept))["items"][0]["versions"][0]["resources"]}
    assert pods["pods"]["scope"] == "Namespaced"
    assert "status" in {sub["subresource"] for sub in pods["pods"]["subresources"]}


async def test_tables(api: Api) -> None:
    await api.post(PODS, pod("a"))
    api.clock.advance(75)
    table = await api.get(PODS, accept=TABLE)
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    names = [column["name"] for column in table["columnDefinitions"]]
    cells = dict(zip(names, table["rows"][0]["cells"], strict=True))
    assert (cells["Name"], cells["Ready"], cells["Status"], cells["Age"]) == ("a", "0/1", "Pending", "75s")
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    api.clock.advance(300)
    assert "6m15s" in (await api.get(f"{PODS}/a", accept=TABLE))["rows"][0]["cells"]
    assert (await api.get(f"{PODS}?includeObject=None", accept=TABLE))["rows"][0]["object"] is None
    assert (await api.get(f"{PODS}?includeObject=Object", accept=TABLE))["rows"][0]["object"]["spec"]
    await api.patch(f"{PODS}/a/status", {"status": {"phase": "Running"}})
    assert "Running" in (await api.get(f"{PODS}/a", accept=TABLE))["rows"][0]["cells"]
    assert (await api.get(PODS, accept="application/yaml")).code == 406
    assert (await api.get(PODS, accept="application/vnd.kubernetes.protobuf,application/json"))["kind"] == "PodList"
    partial = await api.get(PODS, accept="application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
    assert partial["kind"] == "PartialObjectMetadataList"
    assert "spec" not in partial["items"][0]


async def test_events_under_both_names(api: Api) -> None:
    event = {
        "metadata": {"name": "e", "namespace": "default"}, "reason": "Started", "note": "hello", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "a", "namespace": "default"}, "action": "Start",
        "eventTime": "2024-01-01T00:00:00.000000Z", "reportingController": "x", "reportingInstance": "y",
    }  # fmt: skip
    made = await api.post("/apis/events.k8s.io/v1/namespaces/default/events", event)
    assert made.code == 201, made.body
    assert (made["apiVersion"], made["note"]) == ("events.k8s.io/v1", "hello")
    stored = await api.get("/api/v1/namespaces/default/events/e")
    assert (stored["apiVersion"], stored["message"], stored["involvedObject"]["name"]) == ("v1", "hello", "a")
    (found,) = (await api.get("/api/v1/events?fieldSelector=involvedObject.name=a,type=Normal"))["items"]
    assert found["metadata"]["name"] == "e"
    (other,) = (await api.get("/apis/events.k8s.io/v1/events"))["items"]
    assert other["regarding"]["name"] == "a"


async def test_health_version_and_metrics(api: Api) -> None:
    assert (await api.get("/livez")).body == b"ok"
    api.handler.health.add_ready("store", lambda: "the disk is full")
    ready = await api.get("/readyz?verbose")
    assert ready.code == 500
    assert b"[-]store failed: the disk is full" in ready.body
    assert (await api.get("/readyz?exclude=store")).code == 200
    assert (await api.get("/livez/ping")).code == 200
    assert (await api.get("/version"))["major"] == "1"
    await api.get("/api/v1/unicorns")
    metrics = (await api.get("/metrics")).body.decode()
    assert (
        'apiserver_request_total{verb="POST",group="",version="v1",resource="namespaces",subresource="",scope="resource",'
        'code="201"} 3' in metrics
    )
    assert "unicorns" not in metrics
    assert "apiserver_request_duration_seconds_bucket{" in metrics


async def test_waiting_that_was_asked_for_makes_no_request_slow(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def patient(*_: object) -> ApiResponse:
        return ApiResponse(waited=100.0)

    told: list[float] = []
    monkeypatch.setattr(api.handler, "_dispatch", patient)
    monkeypatch.setattr(api.handler, "observe", lambda request, info, code, seconds: told.append(seconds))
    assert (await api.get("/api/v1/namespaces")).code == 200
    assert told[0] < 0


async def test_hpa_under_both_versions(api: Api) -> None:
    path = "/namespaces/default/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    spec = {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
    made = await api.post(f"/apis/autoscaling/v1{path}", {"metadata": {"name": "h"}, "spec": spec})
    assert made.code == 201, made.body
    assert made["spec"]["targetCPUUtilizationPercentage"] == 50
    newer = await api.get(f"/apis/autoscaling/v2{path}/h")
    assert newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
