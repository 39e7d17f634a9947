"""Endpoints and EndpointSlices: what is rendered, how few writes it takes, and how fast it follows pods."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.errors import Invalid
from minik8s.api.kinds.endpoints import EndpointPort, Endpoints
from minik8s.api.kinds.endpointslice import Endpoint, EndpointSlice
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.kinds.service import RESOURCE as SERVICE
from minik8s.api.kinds.service import Service
from minik8s.api.meta import ObjectReference
from minik8s.controllers.endpoint_render import ports, render
from minik8s.controllers.endpoints import subsets
from minik8s.controllers.service_lb import Given, assign
from minik8s.controllers.slice_plan import plan

from .cluster import Cluster, workload
from .objects import pod, service

WEB = {"app": "web"}


def test_conditions_of_endpoints():
    pods = [
        pod("a", ready=True, ip="10.0.0.1", labels=WEB),
        pod("b", ready=False, ip="10.0.0.2", labels=WEB),
        pod("c", ready=True, ip="10.0.0.3", labels=WEB, deleting=True),
        pod("done", ready=False, ip="10.0.0.4", labels=WEB, phase="Succeeded"),
        pod("new", labels=WEB, phase="Pending"),
        pod("other", ready=True, ip="10.0.0.5"),
    ]
    (endpoints,) = render(service(), pods, "IPv4").values()
    told = {e.targetRef.name: (e.conditions.ready, e.conditions.serving, e.conditions.terminating) for e in endpoints}
    assert told == {"a": (True, True, False), "b": (False, False, False), "c": (False, True, True)}
    (endpoints,) = render(service(publishNotReadyAddresses=True), pods, "IPv4").values()
    assert all(e.conditions.ready for e in endpoints)


def test_named_ports_are_looked_up_in_each_pod():
    def with_port(name: str, number: int) -> Pod:
        container = {"name": "c", "ports": [{"name": "http", "containerPort": number}]}
        return pod(name, ready=True, ip=f"10.0.0.{number % 250}", labels=WEB, spec={"containers": [container]})

    target = service(ports=[{"name": "web", "port": 80, "targetPort": "http"}])
    groups = render(target, [with_port("a", 8080), with_port("b", 8081)], "IPv4")
    assert {group[0].port for group in groups} == {8080, 8081}
    assert ports(target, pod("c")) == ()
    assert ports(service(), pod("c")) == (EndpointPort("", 80, "TCP"),)


def test_hostnames_belong_to_the_subdomain():
    named = pod("a", ready=True, ip="10.0.0.1", labels=WEB, spec={"hostname": "db-0", "subdomain": "web"})
    (endpoints,) = render(service(), [named], "IPv4").values()
    assert endpoints[0].hostname == "db-0"
    (endpoints,) = render(service("web2"), [named], "IPv4").values()
    assert endpoints[0].hostname == ""


def test_addresses_by_family():
    both = pod("a", ready=True, ip="10.0.0.1", labels=WEB)
    assert render(service(), [both], "IPv6") == {}


def test_endpoints_leave_out_what_terminates():
    pods = [
        pod("a", ready=True, ip="10.0.0.1", labels=WEB),
        pod("b", ready=False, ip="10.0.0.2", labels=WEB),
        pod("c", ready=True, ip="10.0.0.3", labels=WEB, deleting=True),
    ]
    ((subset,), cut) = subsets(service(), pods)
    assert [a.ip for a in subset.addresses] == ["10.0.0.1"]
    assert [a.ip for a in subset.notReadyAddresses] == ["10.0.0.2"]
    assert not cut


PORTS = (EndpointPort("", 80),)


def some(numbers: set[int]) -> list[Endpoint]:
    return [Endpoint((f"10.0.0.{n}",), targetRef=ObjectReference(uid=str(n))) for n in sorted(numbers)]


def carry_out(slices: list[EndpointSlice], groups, limit: int, serial: int) -> tuple[list[EndpointSlice], int]:
    todo = plan(groups, slices, {}, limit)
    names = {each.metadata.name for each in (*todo.delete, *todo.update)}
    left = [each for each in slices if each.metadata.name not in names] + todo.update
    for number, (ports_, endpoints) in enumerate(todo.create):
        meta = {"name": f"s{serial}-{number}"}
        left.append(
            msgspec.structs.replace(
                EndpointSlice(ports=ports_, endpoints=endpoints),
                metadata=msgspec.convert(meta, type(slices[0].metadata)),
            )
            if slices
            else EndpointSlice(
                metadata=msgspec.convert(meta, type(EndpointSlice().metadata)), ports=ports_, endpoints=endpoints
            )
        )
    return left, len(todo.create) + len(todo.update) + len(todo.delete)


@given(st.lists(st.sets(st.integers(0, 30)), max_size=8), st.integers(1, 7))
def test_slices_say_exactly_what_is_wanted_and_a_second_look_writes_nothing(histories, limit):
    slices: list[EndpointSlice] = []
    for serial, numbers in enumerate(histories):
        groups = {PORTS: some(numbers)} if numbers else {}
        slices, _ = carry_out(slices, groups, limit, serial)
        told = [endpoint.addresses[0] for each in slices for endpoint in each.endpoints]
        assert sorted(told) == sorted(f"10.0.0.{n}" for n in numbers)
        assert all(len(each.endpoints) <= limit for each in slices)
        assert len(slices) >= 1
        assert carry_out(slices, groups, limit, serial)[1] == 0


def test_one_change_writes_one_slice():
    slices, _ = carry_out([], {PORTS: some(set(range(10)))}, 4, 0)
    changed = plan({PORTS: some(set(range(10)) - {5})}, slices, {}, 4)
    assert (len(changed.create), len(changed.update), len(changed.delete)) == (0, 1, 0)


# -- against the real API server


async def web(cluster: Cluster, **spec: object) -> None:
    body = {"selector": WEB, "ports": [{"port": 80}], **spec}
    await cluster.client.create(Service, {"metadata": {"name": "web", "namespace": "default"}, "spec": body})


def ready_addresses(cluster: Cluster) -> set[str]:
    return {
        address
        for each in cluster.all(EndpointSlice)
        for endpoint in each.endpoints
        if endpoint.conditions.ready
        for address in endpoint.addresses
    }


def old_addresses(cluster: Cluster) -> set[str]:
    found = cluster.get(Endpoints, "web")
    return {a.ip for subset in (found.subsets if found else ()) for a in subset.addresses}


async def test_endpoints_follow_pods_within_milliseconds(cluster: Cluster):
    await web(cluster)
    await cluster.until(lambda: cluster.all(EndpointSlice) and cluster.get(Endpoints, "web"))
    assert not ready_addresses(cluster)
    await cluster.client.create(ReplicaSet, workload(replicas=3))
    await cluster.until(lambda: len(ready_addresses(cluster)) == 3 == len(old_addresses(cluster)))
    await cluster.settle()
    victim = cluster.all(Pod)[0]
    body = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    started = time.perf_counter()
    await cluster.client.patch(
        Pod, victim.metadata.name, "default", body, subresource="status",
        content_type="application/strategic-merge-patch+json",
    )  # fmt: skip
    await cluster.until(lambda: victim.status.podIP not in ready_addresses(cluster))
    milliseconds = (time.perf_counter() - started) * 1000
    print(f"pod not ready -> slice written and seen: {milliseconds:.1f} ms")
    assert milliseconds < 500
    await cluster.until(lambda: victim.status.podIP not in old_addresses(cluster))
    each = cluster.all(EndpointSlice)[0]
    assert each.metadata.labels["kubernetes.io/service-name"] == "web"
    assert each.metadata.labels["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
    assert each.ports == (EndpointPort("", 80, "TCP"),)


async def test_deleting_the_service_takes_both_along(cluster: Cluster):
    await web(cluster)
    await cluster.until(lambda: cluster.all(EndpointSlice) and cluster.get(Endpoints, "web"))
    await cluster.client.delete(Service, "web", "default")
    await cluster.until(lambda: not cluster.all(EndpointSlice) and not cluster.get(Endpoints, "web"))


async def test_services_without_selector_show_what_their_maker_wrote(cluster: Cluster):
    await cluster.client.create(
        Service, {"metadata": {"name": "db", "namespace": "default"}, "spec": {"ports": [{"port": 5432}]}}
    )
    own = {
        "metadata": {"name": "db", "namespace": "default"},
        "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 5432}]}],
    }
    await cluster.client.create(Endpoints, own)
    mirrored = await cluster.until(lambda: cluster.all(EndpointSlice))
    await cluster.settle()
    assert cluster.get(Endpoints, "db").subsets[0].addresses[0].ip == "192.0.2.7"
    assert [e.addresses for each in mirrored for e in each.endpoints] == [("192.0.2.7",)]
    assert mirrored[0].ports[0].port == 5432
    manager = mirrored[0].metadata.labels["endpointslice.kubernetes.io/managed-by"]
    assert manager == "endpointslicemirroring-controller.k8s.io"
    await cluster.client.delete(Endpoints, "db", "default")
    await cluster.until(lambda: not cluster.all(EndpointSlice))


async def test_load_balancers_are_reached_at_the_nodes(cluster: Cluster):
    await web(cluster, type="LoadBalancer")
    await cluster.until(
        lambda: (s := cluster.get(Service, "web")) and [i.ip for i in s.status.loadBalancer.ingress] == ["192.0.2.1"]
    )
    cluster.all(Node)
    await cluster.client.patch(Service, "web", "default", {"spec": {"type": "ClusterIP"}})
    await cluster.until(lambda: not cluster.get(Service, "web").status.loadBalancer.ingress)


def balancer(name: str, made: int, *ports: int, **spec: object) -> Service:
    meta = {"name": name, "namespace": "default", "creationTimestamp": f"2026-01-01T00:00:{made:02}Z"}
    wanted = {"type": "LoadBalancer", "ports": [{"port": port} for port in ports], **spec}
    return msgspec.convert({"metadata": meta, "spec": wanted}, Service)


def ready_node(name: str, ip: str) -> Node:
    conditions = [{"type": "Ready", "status": "True"}]
    status = {"addresses": [{"type": "InternalIP", "address": ip}], "conditions": conditions}
    return msgspec.convert({"metadata": {"name": name}, "status": status}, Node)


NODES = [ready_node("n1", "192.0.2.1"), ready_node("n2", "192.0.2.2")]


def test_a_port_of_an_address_belongs_to_the_oldest():
    first, second = balancer("z", 1, 80), balancer("a", 2, 443, 80)
    given = assign([second, first], NODES, {}, {})
    assert given["default/z"] == Given(("192.0.2.1", "192.0.2.2"))
    assert given["default/a"].ingress == ()
    assert "80/TCP belongs to Service default/z; choose another port" in given["default/a"].refusal
    assert assign([second], NODES, {}, {})["default/a"].ingress == ("192.0.2.1", "192.0.2.2")
    elsewhere = balancer("a", 2, 80, loadBalancerIP="203.0.113.7")
    assert assign([elsewhere, first], NODES, {}, {})["default/a"] == Given(("203.0.113.7",))


def test_what_the_cluster_listens_on_is_given_to_nobody():
    given = assign([balancer("a", 1, 6443)], NODES, {}, {("192.0.2.1", 6443, "TCP"): "the API server"})
    assert given["default/a"].ingress == ("192.0.2.2",)
    assert "the API server" in given["default/a"].refusal


def test_policy_local_names_nodes_with_ready_endpoints():
    local = balancer("a", 1, 80, externalTrafficPolicy="Local")
    assert assign([local], NODES, {"default/a": frozenset({"n2"})}, {})["default/a"] == Given(("192.0.2.2",))
    assert assign([local], NODES, {}, {})["default/a"] == Given()


async def test_the_port_of_a_load_balancer_that_goes_is_given_on(cluster: Cluster):
    def ips(name: str) -> list[str]:
        found = cluster.get(Service, name)
        return [entry.ip for entry in found.status.loadBalancer.ingress] if found else []

    await web(cluster, type="LoadBalancer")
    await cluster.until(lambda: ips("web"))
    spec = {"type": "LoadBalancer", "selector": WEB, "ports": [{"port": 80}]}
    await cluster.client.create(Service, {"metadata": {"name": "later", "namespace": "default"}, "spec": spec})
    await cluster.until(lambda: cluster.get(Service, "later"))
    await cluster.settle()
    assert not ips("later")
    await cluster.client.delete(Service, "web", "default")
    await cluster.until(lambda: ips("later") == ["192.0.2.1"])


async def test_a_port_for_health_checks_is_given_out_and_taken_back(cluster: Cluster):
    await web(cluster, type="LoadBalancer", externalTrafficPolicy="Local")
    made = await cluster.client.get(Service, "web", "default")
    assert 30000 <= made.spec.healthCheckNodePort <= 32767
    assert made.spec.healthCheckNodePort not in [port.nodePort for port in made.spec.ports]
    again = await cluster.client.patch(Service, "web", "default", {"metadata": {"labels": {"a": "b"}}})
    assert again.spec.healthCheckNodePort == made.spec.healthCheckNodePort
    port = {"port": 80, "nodePort": made.spec.healthCheckNodePort}
    spec = {"type": "NodePort", "ports": [port]}
    with pytest.raises(Invalid, match="already allocated"):
        await cluster.client.create(Service, {"metadata": {"name": "b", "namespace": "default"}, "spec": spec})
    with pytest.raises(Invalid, match="healthCheckNodePort"):
        await cluster.client.patch(Service, "web", "default", {"spec": {"healthCheckNodePort": 32001}})
    plain = await cluster.client.patch(Service, "web", "default", {"spec": {"type": "ClusterIP"}})
    assert not plain.spec.healthCheckNodePort
    assert not plain.spec.ports[0].nodePort


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"loadBalancerSourceRanges": ["10.0.0.0/33"], "type": "LoadBalancer"}, "spec.loadBalancerSourceRanges[0]"),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "spec.loadBalancerSourceRanges"),
        ({"loadBalancerIP": "127.0.0.1", "type": "LoadBalancer"}, "spec.loadBalancerIP"),
        ({"externalIPs": ["127.0.0.1"]}, "spec.externalIPs[0]"),
        ({"externalIPs": ["0.0.0.0"]}, "spec.externalIPs[0]"),
        ({"externalIPs": ["169.254.1.1"]}, "spec.externalIPs[0]"),
        ({"healthCheckNodePort": 32000}, "spec.healthCheckNodePort"),
        ({"ports": [{"port": 80, "protocol": "SCTP"}]}, "spec.ports[0].protocol"),
    ],
)
def test_what_a_service_may_not_ask_for(spec: dict[str, object], field: str):
    body = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], **spec}}
    SERVICE.default(body)
    assert [cause.field for cause in SERVICE.validate(body, None)] == [field]
