"""Pods and services on the real kernel: real packets, in a network namespace of the test's own."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dnslib import DNSRecord

from minik8s.aio import background
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.net import nft
from minik8s.net.base import HostPort
from minik8s.net.dns import ClusterDns
from minik8s.net.metrics import proxy_metrics
from minik8s.net.netlink import Netlink
from minik8s.net.nftables import Nftables, NftError, Table
from minik8s.net.proxy import ServiceProxy
from minik8s.net.routed import RoutedPodNetwork
from tests.patience import patience

from .kernel import NODE, OUTSIDE, Host, UdpClient, ask, inside, server, sh
from .objects import Feed, endpoint, make_service, make_slice

pytestmark = pytest.mark.root
CLUSTER = {"cluster_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/12"}
VIP = "10.96.0.7"


class Node:
    """A node with two pods, `a` and `b`, that answer on 8080, and the feed of its proxy."""

    def __init__(self, host: Host, network: RoutedPodNetwork, nftables: Nftables, feed: Feed) -> None:
        self.host, self.network, self.nft, self.feed = host, network, nftables, feed
        self.a, self.b = host.pod(), host.pod()
        self.ip_a = self.ip_b = ""
        self.proxy: ServiceProxy

    async def start(self, stack: AsyncExitStack) -> None:
        self.ip_a = (await self.network.attach("a", self.a)).ip
        self.ip_b = (await self.network.attach("b", self.b)).ip
        await stack.enter_async_context(server(self.a, "a", 8080))
        await stack.enter_async_context(server(self.b, "b", 8080))

    def serve(self, service: Service, *names: str, **conditions: bool) -> None:
        ips = {"a": self.ip_a, "b": self.ip_b}
        ports = [{"port": 8080, "name": p.name, "protocol": p.protocol} for p in service.spec.ports]
        piece = make_slice(*(endpoint(ips[n], **conditions) for n in names), of=service.metadata.name, ports=ports)
        self.feed.put(service, piece)


@pytest.fixture
async def node(host: Host, tmp_path: Path) -> AsyncIterator[Node]:
    # What dockerd does to a host.
    sh("iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER")
    feed = Feed()
    async with AsyncExitStack() as stack:
        netlink = await stack.enter_async_context(Netlink())
        tables = await stack.enter_async_context(Nftables())
        network = RoutedPodNetwork("10.244.0.0/24", tmp_path, netlink, tables, **CLUSTER)
        await stack.enter_async_context(network)
        proxy = ServiceProxy(feed.services, feed.slices, "n1", tables, own_addresses=["10.96.0.10"], **CLUSTER)
        await stack.enter_async_context(background(proxy.run(), network.run()))
        node = Node(host, network, tables, feed)
        node.proxy = proxy
        await node.start(stack)
        yield node


async def until(check: Callable[[], Awaitable[bool]], timeout: float = 5) -> None:
    """Real packets tell when the kernel has got it; there is no event for that."""
    async with asyncio.timeout(patience(timeout)):
        while not await check():
            await asyncio.sleep(0.002)


async def answers(pid: int | None, address: str, port: int, *wanted: str) -> None:
    async def check() -> bool:
        try:
            return (await ask(pid, address, port, timeout=1)).split()[0] in wanted
        except (OSError, TimeoutError):
            return False

    await until(check)


async def refuses(pid: int | None, address: str, port: int) -> None:
    """Refused, and at once."""

    async def check() -> bool:
        started = time.perf_counter()
        try:
            await ask(pid, address, port, timeout=1)
        except ConnectionRefusedError:
            return time.perf_counter() - started < 0.5
        except TimeoutError:
            return False
        return False

    await until(check)


async def drops(pid: int | None, address: str, port: int) -> None:
    async def check() -> bool:
        try:
            await ask(pid, address, port, timeout=0.3)
        except TimeoutError:
            return True
        return False

    await until(check)


async def test_pods_the_host_and_the_outside_reach_each_other(node: Node) -> None:
    assert await ask(node.a, node.ip_b, 8080) == f"b {node.ip_a}"
    assert await ask(None, node.ip_a, 8080) == f"a {NODE}"
    async with server(None, "host", 7000), server(node.host.outside, "outside", 7000):
        assert await ask(node.a, NODE, 7000) == f"host {node.ip_a}"
        assert await ask(node.a, OUTSIDE, 7000) == f"outside {NODE}"  # masqueraded


async def test_a_service_address_leads_to_its_endpoints_in_turn(node: Node) -> None:
    node.serve(make_service(), "a", "b")
    await answers(node.a, VIP, 80, "a", "b")
    seen = Counter([(await ask(None, VIP, 80)).split()[0] for _ in range(100)])
    assert set(seen) == {"a", "b"}
    assert min(seen.values()) >= 25  # random: less has a chance of one in ten million


async def test_a_pod_sees_the_clients_own_address_and_reaches_itself(node: Node) -> None:
    node.serve(make_service(), "a")
    await answers(node.b, VIP, 80, "a")
    assert await ask(node.b, VIP, 80) == f"a {node.ip_b}"
    name, source = (await ask(node.a, VIP, 80)).split()  # hairpin: from the host's address, or the answer is lost
    assert name == "a"
    assert source != node.ip_a


async def test_a_change_of_endpoints_is_in_the_kernel_at_once(node: Node) -> None:
    """Not with the next full look, a minute later. How soon it is there: `scripts/bench service-change`."""
    service = make_service()
    node.serve(service, "a")
    await answers(None, VIP, 80, "a")
    for name in ("b", "a", "b", "a", "b"):
        node.serve(service, name)
        await answers(None, VIP, 80, name)


async def test_without_endpoints_and_elsewhere_in_the_range_it_is_refused_at_once(node: Node) -> None:
    service = make_service()
    node.serve(service)
    for client in (None, node.a):
        await refuses(client, VIP, 80)
        await refuses(client, VIP, 81)
        await refuses(client, "10.97.1.2", 80)
    node.serve(service, "a")
    await answers(node.b, VIP, 80, "a")
    node.serve(service, "a", ready=False)
    await refuses(node.b, VIP, 80)
    node.serve(service, "a", ready=False, serving=True, terminating=True)
    await answers(node.b, VIP, 80, "a")
    node.feed.drop(service)
    await refuses(node.b, VIP, 80)


async def test_node_ports_from_outside_from_a_pod_and_on_the_host_itself(node: Node) -> None:
    node.serve(make_service(ports=[{"port": 80, "nodePort": 30080}], type="NodePort"), "a", "b")
    await answers(node.host.outside, NODE, 30080, "a", "b")
    await answers(node.a, NODE, 30080, "a", "b")
    await answers(None, NODE, 30080, "a", "b")
    await answers(None, "127.0.0.1", 30080, "a", "b")
    node.serve(make_service(ports=[{"port": 80, "nodePort": 30080}], type="NodePort"))
    await refuses(node.host.outside, NODE, 30080)


async def test_external_addresses_and_those_of_load_balancers(node: Node) -> None:
    balancer = {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}
    node.serve(make_service(externalIPs=["203.0.113.5"], type="LoadBalancer", status=balancer), "a")
    for address in ("203.0.113.5", "203.0.113.9"):
        await answers(node.host.outside, address, 80, "a")
        await answers(node.b, address, 80, "a")


async def test_external_traffic_policy_local_keeps_the_source_and_never_leaves_the_node(node: Node) -> None:
    ports = [{"port": 80, "nodePort": 30080}]
    service = make_service(ports=ports, type="NodePort", externalTrafficPolicy="Local")
    node.feed.put(service, make_slice(endpoint(node.ip_a), endpoint(node.ip_b, "n2")))
    await answers(node.host.outside, NODE, 30080, "a")
    for _ in range(10):
        assert await ask(node.host.outside, NODE, 30080) == f"a {OUTSIDE}"
    assert {(await ask(node.a, NODE, 30080)).split()[0] for _ in range(40)} == {"a", "b"}  # inside: all of them
    node.feed.put(make_slice(endpoint(node.ip_b, "n2")))
    await drops(node.host.outside, NODE, 30080)  # a load balancer must see that this node is no good
    await answers(node.a, NODE, 30080, "b")


async def test_balancers_are_told_which_nodes_have_endpoints(node: Node) -> None:
    service = make_service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=32100)

    async def told() -> tuple[str, int]:
        sock = inside(node.host.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (NODE, 32100))
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        head, body = (await asyncio.wait_for(reader.read(), 3)).split(b"\r\n\r\n")
        writer.close()
        return head.split(b" ")[1].decode(), json.loads(body)["localEndpoints"]

    async def becomes(*wanted: object) -> None:
        async def check() -> bool:
            try:
                return await told() == wanted
            except ConnectionRefusedError:
                return False

        await until(check)

    node.feed.put(service, make_slice(endpoint(node.ip_a), endpoint(node.ip_b, "n2")))
    await becomes("200", 1)
    node.feed.put(make_slice(endpoint(node.ip_a, ready=False), endpoint(node.ip_b, "n2")))
    await becomes("503", 0)
    node.feed.drop(service)
    await refuses(node.host.outside, NODE, 32100)


async def test_internal_traffic_policy_local(node: Node) -> None:
    service = make_service(internalTrafficPolicy="Local")
    node.feed.put(service, make_slice(endpoint(node.ip_a), endpoint(node.ip_b, "n2")))
    await answers(node.b, VIP, 80, "a")
    assert {(await ask(node.b, VIP, 80)).split()[0] for _ in range(20)} == {"a"}


async def test_udp_follows_the_endpoints_even_for_a_client_that_keeps_its_port(node: Node) -> None:
    service = make_service(ports=[{"port": 53, "protocol": "UDP"}])
    node.serve(service)
    client = UdpClient(node.b)
    try:
        for name in ("a", "b", "a"):
            node.serve(service, name)

            async def check(name: str = name) -> bool:
                try:
                    return (await client.ask(VIP, 53, timeout=0.2)).startswith(name)
                except (OSError, TimeoutError):
                    return False

            await until(check)
    finally:
        client.close()


async def test_a_client_sticks_to_its_endpoint_until_it_goes(node: Node) -> None:
    config = {"clientIP": {"timeoutSeconds": 60}}
    service = make_service(sessionAffinity="ClientIP", sessionAffinityConfig=config)
    node.serve(service, "a", "b")
    await answers(None, VIP, 80, "a", "b")
    await answers(node.host.outside, VIP, 80, "a", "b")
    chosen = {(await ask(None, VIP, 80)).split()[0] for _ in range(20)}
    assert len(chosen) == 1
    table = await node.nft.table("minik8s")
    assert table
    assert len(table.affinity["affinity_tcp"]) == 2  # clients
    gone = chosen.pop()
    stays = "b" if gone == "a" else "a"
    node.serve(service, stays)
    await answers(None, VIP, 80, stays)
    node.serve(service, "a", "b")
    assert {(await ask(None, VIP, 80)).split()[0] for _ in range(20)} == {stays}


async def test_host_ports(node: Node) -> None:
    port = HostPort("TCP", "", 8443, node.ip_a, 8080)
    await node.network.set_host_ports({"a": [port], "b": [HostPort("TCP", "127.0.0.1", 8444, node.ip_b, 8080)]})
    assert (await ask(node.host.outside, NODE, 8443)) == f"a {OUTSIDE}"
    for client, address in ((None, NODE), (None, "127.0.0.1"), (node.b, NODE), (node.a, NODE)):
        assert (await ask(client, address, 8443)).startswith("a")
    assert (await ask(None, "127.0.0.1", 8444)).startswith("b")
    with pytest.raises(ConnectionRefusedError):
        await ask(node.host.outside, NODE, 8444)
    await node.network.set_host_ports({})
    with pytest.raises(ConnectionRefusedError):
        await ask(node.host.outside, NODE, 8443)


async def test_pods_cannot_reach_the_hosts_loopback(node: Node) -> None:
    """The links route 127.0.0.0/8 for the sake of 127.0.0.1:nodePort; a hostile pod must not profit from it."""
    hostile = "for c in all eth0 lo; do echo 1 > /proc/sys/net/ipv4/conf/$c/route_localnet; done"
    inside(node.a, lambda: sh(f"{hostile}; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1/32 via 169.254.1.1"))
    async with server(None, "secret", 7001, ip="127.0.0.1"):
        with pytest.raises(TimeoutError):
            await ask(node.a, "127.0.0.1", 7001, source=node.ip_a, timeout=0.3)


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft flush table inet minik8s",
        "iptables -F DOCKER-USER",
    ],
)
async def test_what_others_flush_is_healed_at_once(node: Node, damage: str) -> None:
    node.serve(make_service(ports=[{"port": 80, "nodePort": 30080}], type="NodePort"), "a")
    await answers(node.b, VIP, 80, "a")
    sh(damage)
    await answers(node.b, VIP, 80, "a")
    await answers(None, VIP, 80, "a")
    async with server(node.host.outside, "outside", 7000):
        await answers(node.a, OUTSIDE, 7000, "outside")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minik8s.net.proxy.FULL_SECONDS", 0.05)


async def test_an_element_removed_by_hand_is_counted_and_healed(often: None, node: Node) -> None:
    config = {"clientIP": {"timeoutSeconds": 60}}
    ports = [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP", "name": "dns"}]
    node.serve(make_service("sticky", "10.96.0.9", sessionAffinity="ClientIP", sessionAffinityConfig=config), "a")
    node.serve(make_service(ports=ports, type="NodePort"), "a", "b")
    await answers(None, VIP, 80, "a", "b")
    await answers(None, "10.96.0.9", 80, "a")
    drift = proxy_metrics().drift
    before = drift.value
    looks = 0
    table = node.nft.table

    async def counted(name: str) -> Table | None:
        nonlocal looks
        looks += name == "minik8s"
        return await table(name)

    node.nft.table = counted  # type: ignore[method-assign]
    sh("nft add table inet elsewhere")  # as dockerd does all day
    await until_true(lambda: looks == 1)
    await asyncio.sleep(0.1)
    assert looks == 1  # read once: nobody has written since
    assert drift.value == before  # nothing of our own looks like drift
    sh(f"nft 'delete element inet minik8s services {{ {VIP} . tcp . 80 }}'")
    await answers(None, VIP, 80, "a", "b")
    assert drift.value == before + 1


async def until_true(check: Callable[[], bool]) -> None:
    async def asked() -> bool:
        return check()

    await until(asked)


async def test_only_strangers_transactions_are_told(host: Host) -> None:
    async with Nftables() as tables:
        quiet = await tables.strangers()
        await tables.apply("add table inet minik8s\nadd set inet minik8s s { type mark; }\n")
        await tables.apply("add element inet minik8s s { 1 }\nadd element inet minik8s s { 2 }\n")
        with pytest.raises(NftError):
            await tables.apply("delete element inet minik8s s { 3 }\n")
        await tables.table("minik8s")
        assert await tables.strangers() == quiet
        sh("nft add table inet elsewhere; nft delete element inet minik8s s { 1 }")
        assert await tables.strangers() == quiet + 2


def guarded(*sources: str, **more: Any) -> Service:
    balancer = {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}
    return make_service(type="LoadBalancer", status=balancer, loadBalancerSourceRanges=list(sources), **more)


async def test_load_balancer_source_ranges(node: Node) -> None:
    node.serve(guarded("198.51.100.0/24", "10.244.0.0/16", " 10.244.0.0/24"), "a")
    await answers(node.b, "203.0.113.9", 80, "a")
    await drops(node.host.outside, "203.0.113.9", 80)
    await answers(node.host.outside, VIP, 80, "a")  # the balancer's address alone is guarded
    node.feed.put(guarded(f"{OUTSIDE}/32"))
    await answers(node.host.outside, "203.0.113.9", 80, "a")
    await drops(node.b, "203.0.113.9", 80)
    node.feed.put(guarded("0.0.0.0/0"))
    await answers(node.b, "203.0.113.9", 80, "a")


async def test_udp_is_refused_at_once_and_so_are_ports_without_endpoints(node: Node) -> None:
    node.serve(make_service(ports=[{"port": 53, "protocol": "UDP", "nodePort": 30053}], type="NodePort"))
    for client, address, port in ((node.b, VIP, 53), (None, VIP, 53), (node.host.outside, NODE, 30053)):

        async def check(client: int | None = client, address: str = address, port: int = port) -> bool:
            sock = inside(client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            with sock:
                sock.connect((address, port))
                try:
                    sock.send(b"?")
                    await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 100), 0.3)
                except (ConnectionRefusedError, PermissionError):  # the second is what the kernel tells the host itself
                    return True
                except TimeoutError:
                    return False
            return False

        await until(check)


async def test_a_service_of_the_host_network(node: Node) -> None:
    """Its endpoint is the node itself: from a pod, from the node, from outside, through each kind of address."""
    service = make_service(ports=[{"port": 80, "nodePort": 30080}], type="NodePort")
    async with server(None, "host", 8080):
        node.feed.put(service, make_slice(endpoint(NODE)))
        for client in (node.a, None):
            await answers(client, VIP, 80, "host")
            await answers(client, NODE, 30080, "host")
        await answers(node.host.outside, NODE, 30080, "host")
        assert await ask(node.a, VIP, 80) == f"host {node.ip_a}"


async def test_a_node_port_leads_on_by_the_link_it_was_asked_on(node: Node) -> None:
    """Into the same subnet again, in spite of Docker's policy DROP for what is forwarded."""
    node.feed.put(
        make_service(ports=[{"port": 80, "nodePort": 30080}], type="NodePort"), make_slice(endpoint(OUTSIDE, "n2"))
    )
    inside(node.host.outside, lambda: sh("ip addr add 192.0.2.77/24 dev eth0"))
    async with server(node.host.outside, "far", 8080):
        await answers(node.host.outside, NODE, 30080, "far")
        assert await ask(node.host.outside, NODE, 30080, source="192.0.2.77") == f"far {NODE}"


async def test_a_pod_may_end_when_no_service_leads_to_it_any_more(node: Node) -> None:
    pod = msgspec.convert({"metadata": {"name": "a", "namespace": "default", "uid": "u-a"}}, Pod)
    await asyncio.wait_for(node.proxy.withdrawn(pod), 0.1)  # none ever did
    mine = {"targetRef": {"kind": "Pod", "uid": "u-a"}}
    node.feed.put(make_service(), make_slice(endpoint(node.ip_a) | mine, endpoint(node.ip_b)))
    await answers(None, VIP, 80, "a")
    ending = asyncio.create_task(node.proxy.withdrawn(pod))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(ending), 0.3)  # it was asked to end, but the slices do not say so yet
    leaving = endpoint(node.ip_a, ready=False, serving=True, terminating=True) | mine
    node.feed.put(make_slice(leaving, endpoint(node.ip_b)))
    await asyncio.wait_for(ending, 3)
    assert {(await ask(None, VIP, 80)).split()[0] for _ in range(20)} == {"b"}


async def test_affinity_ends_with_its_timeout(node: Node) -> None:
    config = {"clientIP": {"timeoutSeconds": 1}}
    node.serve(make_service(sessionAffinity="ClientIP", sessionAffinityConfig=config), "a", "b")
    await answers(None, VIP, 80, "a", "b")
    assert len({(await ask(None, VIP, 80)).split()[0] for _ in range(10)}) == 1
    seen = set()

    async def forgotten() -> bool:
        table = await node.nft.maps(nft.SERVICES, *nft.AFFINITY)
        if table["affinity_tcp"]:
            return False
        seen.add((await ask(None, VIP, 80)).split()[0])
        return seen == {"a", "b"}

    await until(forgotten, timeout=30)


async def test_a_client_of_a_pod_that_vanished_is_reset_and_one_of_a_pod_that_is_taken_out_goes_on(node: Node) -> None:
    service = make_service()
    node.serve(service, "a")
    await answers(node.b, VIP, 80, "a")
    loop = asyncio.get_running_loop()
    talk = inside(node.a, lambda: socket.create_server(("0.0.0.0", 8081)))
    talk.setblocking(False)
    piece = make_slice(endpoint(node.ip_a), ports=[{"port": 8081}])
    node.feed.put(service, piece)

    async def connected() -> socket.socket:
        sock = inside(node.b, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        await asyncio.wait_for(loop.sock_connect(sock, (VIP, 80)), 3)
        return sock

    with talk:
        client = await connected()
        while True:  # the change may not be in the kernel yet
            try:
                served, _ = await asyncio.wait_for(loop.sock_accept(talk), 0.2)
                break
            except TimeoutError:
                client.close()
                client = await connected()
        with client, served:
            for conditions in ({"ready": False}, {"ready": False, "serving": True, "terminating": True}):
                node.feed.put(make_slice(endpoint(node.ip_a, **conditions), ports=[{"port": 8081}]))
                await asyncio.sleep(0.05)
                await loop.sock_sendall(client, b"still here")
                assert await asyncio.wait_for(loop.sock_recv(served, 100), 3) == b"still here"
            node.host.end(node.a)
            node.feed.put(make_slice(endpoint(node.ip_b)))
            await answers(node.b, VIP, 80, "b")
            await loop.sock_sendall(client, b"anybody?")
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(loop.sock_recv(client, 100), 3)


async def test_who_comes_from_the_port_of_an_unanswered_attempt_is_not_led_after_it(node: Node) -> None:
    service = make_service()
    sh("ip link add hole type veth peer name nowhere && ip link set hole up && ip link set nowhere up")
    sh("ip route add 10.244.9.9 dev hole && ip neighbour add 10.244.9.9 lladdr 02:00:00:00:00:09 dev hole")
    node.feed.put(service, make_slice(endpoint("10.244.9.9"), ports=[{"port": 8080}]))
    loop = asyncio.get_running_loop()

    async def connects(port: int) -> bool:
        sock = inside(node.b, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((node.ip_b, port))
            try:
                await asyncio.wait_for(loop.sock_connect(sock, (VIP, 80)), 0.3)
            except TimeoutError:
                return False
        return True

    async def swallowed() -> bool:
        try:
            return not await connects(40001)
        except ConnectionRefusedError:  # the kernel does not know the service yet
            return False

    await until(swallowed)
    node.serve(service, "a")
    await answers(node.b, VIP, 80, "a")
    assert await connects(40001)


async def test_a_restarted_proxy_disturbs_nobody(host: Host, tmp_path: Path) -> None:
    config = {"clientIP": {"timeoutSeconds": 60}}
    feed = Feed()
    async with Netlink() as netlink, Nftables() as tables:
        network = RoutedPodNetwork("10.244.0.0/24", tmp_path, netlink, tables, **CLUSTER)
        async with network, AsyncExitStack() as servers:
            ips = []
            for name in "ab":
                pid = host.pod()
                ips.append((await network.attach(name, pid)).ip)
                await servers.enter_async_context(server(pid, name, 8080))
            feed.put(make_service(sessionAffinity="ClientIP", sessionAffinityConfig=config))
            feed.put(make_slice(*map(endpoint, ips)))
            chosen = ""
            for _ in range(3):
                proxy = ServiceProxy(feed.services, feed.slices, "n1", tables, **CLUSTER)
                async with background(proxy.run()):
                    await answers(None, VIP, 80, chosen or "a", chosen or "b")
                    seen = {(await ask(None, VIP, 80)).split()[0] for _ in range(10)}
                    assert len(seen) == 1
                    chosen = chosen or seen.copy().pop()
                    assert seen == {chosen}
                assert (await ask(None, VIP, 80)).startswith(chosen)  # goes on without an agent


async def test_dns_is_reached_at_its_service_address_from_pods_and_the_host(node: Node) -> None:
    cluster = ClusterDns(node.feed.services, node.feed.slices, "cluster.local", ("10.96.0.10", 53))
    async with Netlink() as netlink:
        await netlink.hold_address("mk8s-dns", "10.96.0.10")
        await netlink.hold_address("mk8s-dns", "10.96.0.10")
    ports = [{"port": 53, "protocol": "UDP"}]
    node.feed.put(make_service("kube-dns", "10.96.0.10", ports=ports), make_service())  # without endpoints
    await answers_dns(cluster, node.a)
    await answers_dns(cluster, None)


async def answers_dns(cluster: ClusterDns, pid: int | None) -> None:
    query = DNSRecord.question("web.default.svc.cluster.local")
    async with background(cluster.run()):
        client = UdpClient(pid)
        try:
            reply = DNSRecord.parse(await client.exchange("10.96.0.10", 53, bytes(query.pack())))
        finally:
            client.close()
    assert [str(answer.rdata) for answer in reply.rr] == [VIP]


async def test_the_program_does_what_the_library_does(host: Host) -> None:
    text = nft.replace(nft.SERVICES, nft.services_table(**CLUSTER), nft.EMPTY, CLUSTER["cluster_cidr"])
    element = "add element inet minik8s services { 10.96.0.7 . tcp . 80 : goto refuse }\n"
    found = []
    for library in ("libnftables.so.1", "no-such-library.so"):
        async with Nftables(library=library) as tables:
            assert await tables.table("minik8s") is None
            await tables.apply(text + element)
            found.append(await tables.table("minik8s"))
            with pytest.raises(NftError, match=r"File exists.*in: add element inet minik8s services"):
                await tables.apply(element.replace("goto refuse", "drop"))
            await tables.apply(nft.remove(nft.SERVICES))
    assert found[0] == found[1]
    assert found[0]
    assert found[0].contents.elements["services"] == {"10.96.0.7 . tcp . 80": "goto refuse"}


async def test_teardown_leaves_the_host_as_it_was(host: Host, tmp_path: Path) -> None:
    sh("iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER")
    sh("echo 0 > /proc/sys/net/ipv4/ip_forward")
    before = host.snapshot()
    feed = Feed()
    async with Netlink() as netlink, Nftables() as tables:
        async with RoutedPodNetwork("10.244.0.0/24", tmp_path, netlink, tables, **CLUSTER) as network:
            proxy = ServiceProxy(feed.services, feed.slices, "n1", tables, **CLUSTER)
            async with background(proxy.run(), network.run()):
                ip = (await network.attach("a", pid := host.pod())).ip
                await netlink.hold_address("mk8s-dns", "10.96.0.10")
                await network.set_host_ports({"a": [HostPort("TCP", "", 8443, ip, 8080)]})
                feed.put(make_service(), make_slice(endpoint(ip)))
                async with server(pid, "a", 8080):
                    await answers(None, VIP, 80, "a")
        assert host.snapshot() != before
    async with Netlink() as netlink, Nftables() as tables:  # another process: `minik8s reset`
        await RoutedPodNetwork("10.244.0.0/24", tmp_path, netlink, tables, **CLUSTER).teardown()
    assert host.snapshot() == before
