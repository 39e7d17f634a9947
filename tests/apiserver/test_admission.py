"""What the cluster adds to writes, or has against them."""

from __future__ import annotations

import asyncio

import pytest
from api_harness import Api, config_map, pod

from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import User
from minik8s.apiserver.handler import AllowAll
from minik8s.clock import ManualClock
from minik8s.store.watch_cache import WatchCache

PODS = "/api/v1/namespaces/default/pods"
SERVICES = "/api/v1/namespaces/default/services"
NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))


def service(name: str, **spec: object) -> dict:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


async def test_namespaces_must_be_there_and_stay(api: Api) -> None:
    missing = await api.post("/api/v1/namespaces/zzz/configmaps", config_map("a"))
    assert (missing.code, missing.message) == (404, 'namespaces "zzz" not found')
    marked = await api.delete("/api/v1/namespaces/other")
    assert marked["status"]["phase"] == "Terminating"
    refused = await api.post("/api/v1/namespaces/other/configmaps", config_map("a"))
    assert refused.code == 403
    assert "because it is being terminated" in refused.message
    assert refused["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    assert (await api.delete("/api/v1/namespaces/default")).code == 403
    body = {**marked.body, "spec": {"finalizers": []}}
    assert (await api.put("/api/v1/namespaces/other/finalize", body)).code == 200
    assert (await api.get("/api/v1/namespaces/other")).code == 404


async def test_pods_get_account_token_tolerations_and_priority(api: Api) -> None:
    made = await api.post(PODS, pod("a"))
    spec = made["spec"]
    assert spec["serviceAccountName"] == "default"
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    assert [next(iter(source)) for source in volume["projected"]["sources"]] == [
        "serviceAccountToken", "configMap", "downwardAPI",
    ]  # fmt: skip
    mount = spec["containers"][0]["volumeMounts"][0]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/var/run/secrets/kubernetes.io/serviceaccount")
    assert {t["key"]: t["tolerationSeconds"] for t in spec["tolerations"]} == {
        "node.kubernetes.io/not-ready": 300, "node.kubernetes.io/unreachable": 300,
    }  # fmt: skip
    assert spec["priority"] == 0
    bare = await api.post(PODS, pod("b", automountServiceAccountToken=False, priorityClassName="system-node-critical"))
    assert "volumes" not in bare["spec"]
    assert bare["spec"]["priority"] == 2_000_001_000
    assert (await api.post(PODS, pod("c", priorityClassName="nope"))).code == 403
    assert (await api.post(PODS, pod("c", serviceAccountName="nope"))).code == 403


async def test_cluster_ips(api: Api) -> None:
    first = (await api.post(SERVICES, service("a"))).body
    address = first["spec"]["clusterIP"]
    assert address.startswith("10.")
    assert first["spec"]["clusterIPs"] == [address]
    taken = await api.post(SERVICES, service("b", clusterIP=address))
    assert taken.code == 422
    assert "already allocated" in taken.message
    assert "not in the valid range" in (await api.post(SERVICES, service("b", clusterIP="1.2.3.4"))).message
    assert (await api.post(SERVICES, service("h", clusterIP="None")))["spec"]["clusterIP"] == "None"
    external = await api.post(SERVICES, service("e", type="ExternalName", externalName="example.com"))
    assert "clusterIP" not in external["spec"]
    blind = await api.put(f"{SERVICES}/a", service("a", selector={"x": "y"}))
    assert blind["spec"]["clusterIP"] == address
    await api.delete(f"{SERVICES}/a")
    again = await api.post(SERVICES, service("b", clusterIP=address))
    assert again["spec"]["clusterIP"] == address
    assert (await api.post(f"{SERVICES}?dryRun=All", service("d", clusterIP="10.96.0.10"))).code == 201
    assert (await api.post(SERVICES, service("dns", clusterIP="10.96.0.10"))).code == 201


async def test_node_ports(api: Api) -> None:
    made = await api.post(SERVICES, service("a", type="NodePort"))
    port = made["spec"]["ports"][0]["nodePort"]
    assert 30000 <= port <= 32767
    wanted = [{"port": 80, "nodePort": port}]
    assert "already allocated" in (await api.post(SERVICES, service("b", type="NodePort", ports=wanted))).message
    wanted[0]["nodePort"] = 80
    assert "valid range" in (await api.post(SERVICES, service("b", type="NodePort", ports=wanted))).message
    kept = await api.put(f"{SERVICES}/a", service("a", type="NodePort", selector={"x": "y"}))
    assert kept["spec"]["ports"][0]["nodePort"] == port
    plain = await api.patch(f"{SERVICES}/a", {"spec": {"type": "ClusterIP"}})
    assert plain.code == 200, plain.body
    assert "nodePort" not in plain["spec"]["ports"][0]
    wanted[0]["nodePort"] = port
    assert (await api.post(SERVICES, service("b", type="NodePort", ports=wanted))).code == 201


async def test_no_address_is_given_twice(api: Api) -> None:
    made = await asyncio.gather(*(api.post(SERVICES, service(f"s{i}", type="NodePort")) for i in range(60)))
    assert len({answer["spec"]["clusterIP"] for answer in made}) == 60
    assert len({answer["spec"]["ports"][0]["nodePort"] for answer in made}) == 60
    clash = await asyncio.gather(*(api.post(SERVICES, service("same", clusterIP="10.96.0.77")) for _ in range(5)))
    assert sorted(answer.code for answer in clash) == [201, 409, 409, 409, 409]
    assert (await api.post(SERVICES, service("same", clusterIP="10.96.0.77"))).code == 409
    assert (await api.post(SERVICES, service("other", clusterIP="10.96.0.77"))).code == 422


async def test_numbers_are_claimed_for_those_who_have_them_and_for_nobody_else(api: Api, cache: WatchCache) -> None:
    def claims() -> set[str]:
        return {record.key.removeprefix("/claims/") for record in cache.list("/claims/")[0]}

    made = await api.post(SERVICES, service("a", type="NodePort"))
    address, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
    assert claims() == {f"clusterips/{address}", f"nodeports/{port}"}
    for refused in (
        service("b", clusterIP="10.96.0.9", type="NodePort", ports=[{"port": 80, "nodePort": port}]),
        service("b", clusterIP="10.96.0.9", sessionAffinity="nonsense"),
        service("a", clusterIP="10.96.0.9"),
    ):
        assert (await api.post(SERVICES, refused)).code in (409, 422)
    await api.post(f"{SERVICES}?dryRun=All", service("b", clusterIP="10.96.0.9"))
    assert claims() == {f"clusterips/{address}", f"nodeports/{port}"}
    await api.patch(f"{SERVICES}/a", {"spec": {"type": "ClusterIP"}})
    assert claims() == {f"clusterips/{address}"}
    await api.patch(f"{SERVICES}/a", {"metadata": {"finalizers": ["x.example/wait"]}})
    await api.delete(f"{SERVICES}/a")
    assert claims() == {f"clusterips/{address}"}
    await api.patch(f"{SERVICES}/a", {"metadata": {"finalizers": None}})
    assert claims() == set()


async def test_when_all_numbers_are_given_out(cache: WatchCache) -> None:
    api = Api(
        build_handler(cache, authenticator=None, authorizer=AllowAll(), service_cidr="10.1.0.0/29"),
        ManualClock(),
        cache,
    )
    await api.post("/api/v1/namespaces", {"metadata": {"name": "default"}})
    made = await asyncio.gather(*(api.post(SERVICES, service(f"s{i}")) for i in range(9)))
    assert sorted(answer.code for answer in made) == [201] * 6 + [500] * 3
    assert len({answer["spec"]["clusterIP"] for answer in made if answer.code == 201}) == 6
    assert "no address is left in 10.1.0.0/29" in next(answer.message for answer in made if answer.code == 500)
    given = next(answer for answer in made if answer.code == 201)
    await api.delete(f"{SERVICES}/{given['metadata']['name']}")
    assert (await api.post(SERVICES, service("late")))["spec"]["clusterIP"] == given["spec"]["clusterIP"]


async def test_a_node_touches_only_its_own(api: Api) -> None:
    nodes, leases = "/api/v1/nodes", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    await api.post("/api/v1/namespaces", {"metadata": {"name": "kube-node-lease"}})
    assert (await api.post(nodes, {"metadata": {"name": "n1"}}, user=NODE)).code == 201
    assert (await api.post(nodes, {"metadata": {"name": "n2"}}, user=NODE)).code == 403
    label = {"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}}
    assert (await api.patch(f"{nodes}/n1", label, user=NODE)).code == 403
    assert (await api.post(leases, {"metadata": {"name": "n1"}}, user=NODE)).code == 201
    assert (await api.post(leases, {"metadata": {"name": "n2"}}, user=NODE)).code == 403
    await api.post(PODS, pod("mine", nodeName="n1"))
    await api.post(PODS, pod("theirs", nodeName="n2"))
    status = {"status": {"phase": "Running"}}
    assert (await api.patch(f"{PODS}/mine/status", status, user=NODE)).code == 200
    refused = await api.patch(f"{PODS}/theirs/status", status, user=NODE)
    assert refused.code == 403
    assert 'node "n1" can only update pods' in refused.message
    assert (await api.delete(f"{PODS}/theirs", {"gracePeriodSeconds": 0}, user=NODE)).code == 403
    assert (await api.delete(f"{PODS}/mine", {"gracePeriodSeconds": 0}, user=NODE)).code == 200
    assert (await api.post(PODS, pod("new", nodeName="n1"), user=NODE)).code == 403
    await api.post(nodes, {"metadata": {"name": "n3"}})
    assert (await api.delete(f"{nodes}/n3", user=NODE)).code == 403
    assert (await api.delete(f"{nodes}/n1", user=NODE)).code == 200  # it leaves


async def test_who_asks_for_a_certificate(api: Api) -> None:
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    spec = {
        "request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K",  # how one begins
        "signerName": "kubernetes.io/kubelet-serving",
        "usages": ["server auth"],
        "username": "root",
    }
    made = await api.post(path, {"metadata": {"name": "r"}, "spec": spec}, user=NODE)
    assert made.code == 201, made.body
    assert made["spec"]["username"] == NODE.name
    approved = {**made.body, "status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="}}
    answer = await api.put(f"{path}/r/approval", approved)
    assert answer["status"]["conditions"][0]["lastTransitionTime"]
    assert "certificate" not in answer["status"]
    assert (await api.put(f"{path}/r/status", {**answer.body, "status": approved["status"]}))["status"][
        "certificate"
    ] == "eA=="


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "ä"])
async def test_names_that_cannot_be(api: Api, name: str) -> None:
    assert (await api.post("/api/v1/namespaces/default/configmaps", config_map(name))).code == 422
