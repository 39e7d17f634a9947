"""What Services cost on one node's kernel, in a network namespace of its own: changes, connections, beside iptables.

A proxy on informers that are fed by hand; real packets from a namespace that stands for a client to one that stands
for a pod.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from minik8s.aio import background
from minik8s.net.nftables import Nftables
from minik8s.net.proxy import ServiceProxy
from tests.bench.agent import BenchError
from tests.bench.report import Result, number
from tests.net.kernel import Host, inside, private_namespace, sh
from tests.net.objects import Feed, endpoint, make_service, make_slice

NAMES = ("service-change", "service-connections")
RANGES = {"cluster_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/12"}
ENDPOINTS = 10
ROUNDS = 8
SERVER = """
import socket
server = socket.create_server(("0.0.0.0", 8080), backlog=4096)
print(flush=True)
while True:
    server.accept()[0].close()
"""


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    if os.geteuid() != 0 or shutil.which("nft") is None:
        raise BenchError("network namespaces and nftables need root and the package nftables")
    with private_namespace():
        if "service-change" in names:
            for count in (1000,) if quick else (1000, 5000):
                yield await change(count)
        if "service-connections" in names:
            async for result in connections((1, 1000) if quick else (1, 5000), 0.8 if quick else 4.0):
                yield result


def vip(which: int) -> str:
    return f"10.{96 + which // 60000}.{which // 250 % 240}.{which % 250 + 1}"


def fill(feed: Feed, count: int) -> None:
    for which in range(count):
        put(feed, which, which)


def put(feed: Feed, which: int, shift: int) -> None:
    ips = (shift * ENDPOINTS + each for each in range(ENDPOINTS))
    endpoints = (endpoint(f"10.244.{n // 250 % 250}.{n % 250 + 1}", f"n{n % 10}") for n in ips)
    name = f"s{which}"
    feed.put(make_slice(*endpoints, of=name))
    if feed.services.by_key(f"default/{name}") is None:
        feed.put(make_service(name, vip(which)))


class Watched(Nftables):
    """Tells when a transaction is in the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.applied = asyncio.Event()

    async def apply(self, script: str) -> None:
        await super().apply(script)
        self.applied.set()


async def change(count: int) -> Result:
    """All endpoints of one of `count` Services are replaced: from the informer's word to the kernel's."""
    feed = Feed()
    fill(feed, count)
    spent, waited = [], []
    async with Watched() as tables:
        async with background(ServiceProxy(feed.services, feed.slices, "n1", tables, **RANGES).run()):
            await tables.applied.wait()
            await asyncio.sleep(1)
            for turn in range(100):
                which = turn * 37 % count
                tables.applied.clear()
                begun, cpu = time.perf_counter(), time.process_time()
                put(feed, which, which + turn + 1)
                await tables.applied.wait()
                waited.append(time.perf_counter() - begun)
                spent.append(time.process_time() - cpu)
                await asyncio.sleep(0.002)
        await tables.apply("flush ruleset\n")
    beside = f"{statistics.median(spent) * 1e3:.1f} ms of CPU"
    name = f"change of one of {count} Services with {ENDPOINTS} endpoints each, p50"
    return Result(name, statistics.median(waited) * 1e3, "ms", 5, beside=beside)


async def connections(counts: Sequence[int], seconds: float) -> AsyncIterator[Result]:
    """New TCP connections from the node to the last of `count` Services, by us and by kube-proxy's rules."""
    with served() as ip:
        rates = {}
        for count in counts:
            feed = Feed()
            fill(feed, count)
            last = f"s{count - 1}"
            feed.put(make_slice(endpoint(ip), of=last))
            async with Watched() as tables:
                async with background(ServiceProxy(feed.services, feed.slices, "n1", tables, **RANGES).run()):
                    await tables.applied.wait()
                rates[count] = connect(vip(count - 1), seconds)
                await tables.apply("flush ruleset\n")
            iptables(count, ip)
            beside = f"{number(connect(vip(count - 1), seconds))} with iptables"
            sh("iptables -t nat -F; iptables -t nat -X")
            yield Result(f"new connections with {count} Services", rates[count], "per cpu-s", beside=beside)
        share = rates[counts[-1]] / rates[counts[0]] * 100
        yield Result(f"connections with {counts[-1]} Services, of those with {counts[0]}", share, "%", 90, more=True)


@contextmanager
def served() -> Iterator[str]:
    """A namespace that closes every connection to its port 8080; its address."""
    host = Host()
    try:
        pid = host.pod()
        ip = "10.244.0.5"
        sh(
            f"ip link add pod0 type veth peer name eth0 netns {pid}; ip link set pod0 up;"
            f"ip addr add 10.244.0.1/24 dev pod0; nsenter -t {pid} -n sh -c 'ip link set eth0 up;"
            f" ip addr add {ip}/24 dev eth0; ip route add default via 10.244.0.1'"
        )
        server = inside(pid, lambda: subprocess.Popen(["python3", "-c", SERVER], stdout=subprocess.PIPE))
        try:
            assert server.stdout is not None
            server.stdout.readline()
            yield ip
        finally:
            server.kill()
            server.communicate()
    finally:
        host.close()


def connect(address: str, seconds: float) -> float:
    """The best of some rounds of `seconds` in all: what else this machine does also costs caches."""
    return max(_connect(address, seconds / ROUNDS) for _ in range(ROUNDS))


def _connect(address: str, seconds: float) -> float:
    """Connections, one after the other, in a second of the client's CPU, in which the kernel translates them as well.

    By the clock, whatever else this machine does would count. The kernel remembers closed connections for two minutes:
    those of the round before lead to the same endpoint from the same ports, and a free one would have to be searched.
    """
    sh("conntrack -F")
    count, begun, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        with socket.create_connection((address, 80), timeout=5) as client:
            client.recv(1)  # until the other side has closed first: its port waits, not ours
        count += 1
    return count / (time.process_time() - cpu)


def iptables(count: int, ip: str) -> None:
    """The rules kube-proxy makes: one chain for all Services in order, one for each Service and each endpoint."""
    chains, rules = [":KUBE-SERVICES - [0:0]"], ["-A PREROUTING -j KUBE-SERVICES", "-A OUTPUT -j KUBE-SERVICES"]
    for which in range(count):
        own = f"KUBE-SVC-{which}"
        chains.append(f":{own} - [0:0]")
        rules.append(f"-A KUBE-SERVICES -d {vip(which)}/32 -p tcp -m tcp --dport 80 -j {own}")
        for each in range(ENDPOINTS if which < count - 1 else 1):
            left = ENDPOINTS - each if which < count - 1 else 1
            chosen = f" -m statistic --mode random --probability {1 / left:.8f}" if left > 1 else ""
            target = f"KUBE-SEP-{which}-{each}"
            chains.append(f":{target} - [0:0]")
            rules.append(f"-A {own}{chosen} -j {target}")
            to = ip if which == count - 1 else f"10.244.{which // 250 % 250}.{each + 1}"
            rules.append(f"-A {target} -p tcp -m tcp -j DNAT --to-destination {to}:8080")
    script = "\n".join(["*nat", *chains, *rules, "COMMIT", ""])
    subprocess.run(["iptables-restore"], input=script, text=True, check=True)
