"""How many names of the cluster the DNS answers per second of its own CPU time, as pods ask for them: by UDP."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import msgspec

from minik8s.aio import background
from minik8s.api.kinds import endpointslice, service
from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.service import Service
from minik8s.client.informer import Informer
from minik8s.net.dns import ClusterDns
from minik8s.net.dns_forward import Forwarder
from tests.bench.report import Result

NAMES = ("dns-names", "dns-search")
SERVICES = 1000
WINDOW = 32  # questions that one client has under way
GOAL = 30_000.0  # answers per second of one core

CLIENT = """
import random, socket, struct, sys
port, total, window, names = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
def question(name, kind):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    return struct.pack("!5H", 0x100, 1, 0, 0, 0) + labels + bytes(1) + struct.pack("!HH", kind, 1)
asked = [question(name, kind) for name in names for kind in (1, 28)]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("127.0.0.1", port))
sock.settimeout(5)
for turn in range(total // window):
    for number in range(window):
        at = turn * window + number
        sock.send(struct.pack("!H", at & 0xFFFF) + asked[at % len(asked)])
    for _ in range(window):
        sock.recv(2048)
"""


async def measure(chosen: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    services: Informer[Service] = Informer(cast(Any, None), service.RESOURCE, Service)
    slices: Informer[EndpointSlice] = Informer(cast(Any, None), endpointslice.RESOURCE, EndpointSlice)
    for number in range(SERVICES):
        spec = {"clusterIP": f"10.96.{number // 250}.{number % 250 + 1}", "ports": [{"port": 80}]}
        made = {"metadata": {"name": f"s{number}", "namespace": "default"}, "spec": spec}
        services._set(f"default/s{number}", msgspec.convert(made, Service))
    services._synced.set()
    slices._synced.set()
    dns = ClusterDns(services, slices, "cluster.local", ("127.0.0.1", 0), forwarder=Forwarder(upstreams=[]))
    full = [f"s{number}.default.svc.cluster.local" for number in range(SERVICES)]
    # What ndots:5 makes of a name outside: three attempts in the cluster's domain, all of them answered here.
    tails = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")
    wrong = [f"www{number}.example.com.{tail}" for number in range(100) for tail in tails]
    total = 64_000 if quick else 256_000
    async with background(dns.run()):
        while not dns.server.complete or not dns.server.port:
            await asyncio.sleep(0)
        for name, names, what in (
            ("dns-names", full, f"A and AAAA of {SERVICES} services"),
            ("dns-search", wrong, "names of search lists that do not exist"),
        ):
            if name in chosen:
                yield Result(name, await rate(dns.server.port, names, total), "/cpu-s", GOAL, more=True, beside=what)


async def rate(port: int, names: Sequence[str], total: int) -> float:
    """Answers per second of this process's CPU time; the client is another process."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    command = [sys.executable, "-c", CLIENT, str(port), str(total), str(WINDOW), *names]
    client = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PYTHONPATH": ""})
    if await client.wait():
        raise RuntimeError("the client of the DNS measure failed")
    after = resource.getrusage(resource.RUSAGE_SELF)
    return total // WINDOW * WINDOW / (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
