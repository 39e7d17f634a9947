"""What the pod network costs: wiring a pod, and TCP between pods of two hosts beside the bare VXLAN of the same cables.

Two lab hosts in two subnets with an agent each; the bare tunnel is made by hand between the hosts themselves.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from minik8s.net.netlink import Netlink
from minik8s.net.nftables import Nftables
from minik8s.net.routed import RoutedPodNetwork
from tests.bench.agent import BenchError
from tests.bench.report import Result, number
from tests.e2e.space import Space
from tests.lab.host import LabHost
from tests.lab.lab import Lab
from tests.multihost.cluster import Cluster, on
from tests.net.kernel import Host, private_namespace

NAMES = ("pod-wiring", "pod-throughput")
PORT = 5201
RECEIVE = """
import socket, sys, time
server = socket.create_server(("", int(sys.argv[1])))
print(flush=True)
peer, _ = server.accept()
room, count, began = bytearray(1 << 20), 0, time.monotonic()
while got := peer.recv_into(room):
    count += got
print(count / (time.monotonic() - began))
"""
SEND = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as peer:
    end, data = time.monotonic() + float(sys.argv[3]), bytes(1 << 20)
    while time.monotonic() < end:
        peer.sendall(data)
"""


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    if os.geteuid() != 0 or shutil.which("nft") is None:
        raise BenchError("network namespaces and nftables need root and the package nftables")
    if "pod-wiring" in names:
        with private_namespace():
            yield await wiring(20 if quick else 100)
    if "pod-throughput" in names:
        if lacking := LabHost.lacking():
            raise BenchError(lacking)
        with tempfile.TemporaryDirectory(prefix="minik8s-bench-") as folder, Lab(Path(folder), 2, 2) as lab:
            yield await asyncio.to_thread(throughput, lab, 3 if quick else 9)


async def wiring(count: int) -> Result:
    """From the process of a sandbox to a pod that is reached: by the clock, and of it in this process's CPU."""
    host, spent, worked = Host(), [], []
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with Netlink() as netlink, Nftables() as nftables:
                ranges = {"cluster_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/12"}
                async with RoutedPodNetwork("10.244.0.0/24", Path(folder), netlink, nftables, **ranges) as network:
                    for which in range(count):
                        pid = host.pod()
                        await asyncio.sleep(0.02)  # the namespace's own beginning is not our work
                        began, before = time.perf_counter(), time.process_time()
                        await network.attach(f"pod-{which}", pid)
                        spent.append((time.perf_counter() - began) * 1000)
                        worked.append((time.process_time() - before) * 1000)
    finally:
        host.close()
    beside = f"{number(statistics.median(worked))} ms of CPU"
    return Result("wiring a pod, median", statistics.median(spent), "ms", 5, beside=beside)


def throughput(lab: Lab, turns: int) -> Result:
    """Turn by turn, so that whatever else this machine does is shared; medians are compared."""
    cluster = Cluster(lab)
    try:
        cluster.start()
        space = Space.make(cluster.master, "throughput")
        space.apply(*(on(name, f"p-{name}") for name in cluster.hosts))
        space.wait("condition=Ready", "pod/p-h1", "pod/p-h2")
        target = space.path("pod/p-h2", ".status.podIP")
        inside = [_pid_of(host, space.name) for host in lab.hosts]
        first, second = lab.hosts
        _bare_tunnel(first, second, "1")
        _bare_tunnel(second, first, "2")
        pods, bare = [], []
        for _ in range(turns):
            pods.append(_flow(inside[0], inside[1], target))
            bare.append(_flow(first.pid, second.pid, "10.250.0.2"))
        share = statistics.median(pods) / statistics.median(bare) * 100
        beside = f"{number(statistics.median(pods))} of {number(statistics.median(bare))} Gbit/s"
        return Result("pod to pod across hosts, of bare VXLAN", share, "%", 90, more=True, beside=beside)
    finally:
        cluster.stop()


def _pid_of(host: LabHost, space: str) -> int:
    """Of a process in the only pod of a namespace here, by this machine's count."""
    (sandbox,) = host.docker("ps", "-q", "--filter", f"label=io.kubernetes.pod.namespace={space}",
                             "--filter", "name=k8s_POD").out.split()  # fmt: skip
    local = host.docker("inspect", "-f", "{{.State.Pid}}", sandbox).out.strip()
    return next(pid for pid in _below(host.pid) if _local(pid) == local)


def _below(pid: int) -> Iterator[int]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield int(child)
            yield from _below(int(child))


def _local(pid: int) -> str:
    """Its number in the host's namespace of processes, the last but those of containers in it."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:"))
    return line.split()[2]


def _bare_tunnel(host: LabHost, peer: LabHost, last: str) -> None:
    script = (
        f"ip link add bare type vxlan id 99 dstport 4789 local {host.address} remote {peer.address};"
        f"ip address add 10.250.0.{last}/24 dev bare; ip link set bare up"
    )
    host.run("sh", "-c", script)


def _flow(source: int, target: int, address: str, seconds: float = 1.0) -> float:
    """Gbit/s of one TCP connection between the networks of two processes."""

    def at(pid: int, program: str, *arguments: str) -> subprocess.Popen[str]:
        command = ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", program, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with at(target, RECEIVE, str(PORT)) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        with at(source, SEND, address, str(PORT), str(seconds)) as sender:
            sender.wait(30)
        return float(receiver.stdout.readline()) * 8 / 1e9
