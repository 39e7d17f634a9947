"""Several hosts, the network between them, and everything that can go wrong with it.

with Lab(folder, hosts=3, subnets=2) as lab:
    h1, h2, h3 = lab.hosts               # each a LabHost; h1 and h3 in the first subnet, h2 in the second
    lab.start_engines(); lab.make_images("busybox")
    lab.cut(h2)                          # its cable is pulled: no carrier
    lab.isolate(h2)                      # nothing comes through, though the cable is in
    lab.drop(h1, h2)                     # h2 hears nothing of h1, h1 hears h2
    lab.split([h1], [h2, h3])            # the two groups hear nothing of each other
    lab.lossy(h2, 10)                    # percent of its packets, each way
    lab.heal()                           # all of that undone; hosts that are off stay off
    lab.power_cut(h2); lab.power_on(h2)  # its disk stays; its engine must be started again

One namespace, the fabric, is switch and router at once: a bridge for each subnet, which a host's cable is plugged
into, and routing between them. Faults mark packets by the port they come in by and drop them at the port they would
go out by, so they hold for whatever is sent between two hosts, also through the router or in a tunnel. The test
process reaches all of it by an uplink of the fabric, and a fault between hosts does not concern it.

Several labs exist side by side: each takes the first number that is free on this machine, and 10.(16 + number).0.0/16
is its network; host i is 10.x.s.i in subnet s = (i - 1) mod subnets.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.agent import Failed, run
from tests.lab.host import LabHost

FIRST, LABS = 16, 60  # 10.16 … 10.75: below the service range
ROUTER, HERE = 254, "255.253"  # the router's last number in each subnet; the test process's last two

FAULTS = """table bridge faults {{
  map ports {{ type ifname : mark; elements = {{ {ports} }} }}
  set deaf {{ type mark . ifname; }}
  set silent {{ type ifname; }}
  chain incoming {{
    type filter hook prerouting priority 0; policy accept;
    iifname @silent drop
    meta mark set iifname map @ports
  }}
  chain outgoing {{
    type filter hook postrouting priority 0; policy accept;
    oifname @silent drop
    meta mark . oifname @deaf drop
  }}
  chain losses_in {{ type filter hook prerouting priority -10; }}
  chain losses_out {{ type filter hook postrouting priority -10; }}
}}
"""


class Lab:
    """`hosts` are on when it is entered, without engines. Everything ends with it, also if this process is killed."""

    def __init__(self, folder: Path, hosts: int = 3, subnets: int = 2) -> None:
        self.folder = folder
        self.subnets = subnets
        self._count = hosts
        self._stack = ExitStack()
        self.hosts: tuple[LabHost, ...] = ()

    def __enter__(self) -> Lab:
        with ExitStack() as stack:
            self.number = stack.enter_context(_Number())
            self.name, self.network = f"lab{self.number}", f"10.{FIRST + self.number}"
            self.hosts = tuple(self._host(i) for i in range(1, self._count + 1))
            self._fabric = stack.enter_context(
                subprocess.Popen(
                    ["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            stack.callback(self._end_fabric)
            assert self._fabric.stdout is not None
            self._fabric.stdout.readline()  # its namespace is there
            self._build()
            for host in self.hosts:
                stack.callback(host.power_cut)
            self.at_once(self.power_on, self.hosts)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _host(self, i: int) -> LabHost:
        address = f"{self.network}.{(i - 1) % self.subnets}.{i}"
        return LabHost(self.folder / f"h{i}", f"{self.name}h{i}", f"h{i}", address)

    def _build(self) -> None:
        uplink, router = f"{self.network}.{HERE}", f"{self.network}.255.{ROUTER}"
        lines = ["echo 1 >/proc/sys/net/ipv4/ip_forward", "ip link set lo up"]
        # Frames on a bridge are the switch's business, not that of the router's iptables.
        lines += ["for f in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 >$f; done 2>/dev/null || true"]
        for subnet in range(self.subnets):
            lines += [
                f"ip link add s{subnet} type bridge",
                f"ip address add {self.network}.{subnet}.{ROUTER}/24 dev s{subnet}",
                f"ip link set s{subnet} up",
            ]
        lines += [f"ip address add {router}/24 dev uplink", "ip link set uplink up"]
        run(["ip", "link", "add", self.name, "type", "veth", "peer", "name", "uplink", "netns", str(self._fabric.pid)])
        self.fabric("; ".join(["set -e", *lines]))
        run(["ip", "address", "add", f"{uplink}/24", "dev", self.name])
        run(["ip", "link", "set", self.name, "up"])
        run(["ip", "route", "add", f"{self.network}.0.0/16", "via", router])
        ports = ", ".join(f'"{self._port(host)}" : {number}' for number, host in enumerate(self.hosts, 1))
        self._nft(FAULTS.format(ports=ports))

    def _end_fabric(self) -> None:
        with suppress(Failed):
            run(["ip", "link", "delete", self.name])
        self._fabric.kill()

    def fabric(self, script: str) -> str:
        """Run a shell script in the network between the hosts, such as tcpdump on a port (`h1`, `h2` …)."""
        return run(["nsenter", f"--net=/proc/{self._fabric.pid}/ns/net", "sh", "-c", script]).out

    def _nft(self, script: str) -> None:
        run(["nsenter", f"--net=/proc/{self._fabric.pid}/ns/net", "nft", "-f", "-"], stdin=script)

    def _port(self, host: LabHost) -> str:
        """The switch's end of a host's cable."""
        return host.name

    # -- hosts

    def power_on(self, host: LabHost) -> None:
        """Boot and plug in; what it had on disk is there, its daemons are not."""
        number, port = self.hosts.index(host) % self.subnets, self._port(host)
        host.power_on()
        self.fabric(
            f"ip link add {port} type veth peer name eth0 netns {host.pid};"
            f"ip link set {port} master s{number}; ip link set {port} up"
        )
        host.configure(f"{self.network}.{number}.{ROUTER}")

    def power_cut(self, host: LabHost) -> None:
        host.power_cut()
        with suppress(Failed):  # it goes with the host's network, which takes the kernel a moment
            self.fabric(f"ip link delete {self._port(host)}")

    def start_engines(self) -> None:
        self.at_once(LabHost.start_engine, self.hosts)

    def make_images(self, *names: str) -> None:
        """On every host; made once."""
        first, *others = self.hosts
        first.make_images(*names)
        tags = first.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "minik8s.test/*").out.split()
        archive = self.folder / "images.tar"
        first.docker("save", "-o", str(archive), *tags)
        self.at_once(lambda host: host.docker("load", "-i", str(archive)), others)
        archive.unlink()

    @staticmethod
    def at_once(work: Callable[[LabHost], object], hosts: Iterable[LabHost]) -> None:
        """The same on several hosts at the same time."""
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, hosts))

    # -- faults

    def cut(self, *hosts: LabHost) -> None:
        """Pull the cable: the host sees it."""
        for host in hosts:
            self.fabric(f"ip link set {self._port(host)} down")

    def isolate(self, *hosts: LabHost) -> None:
        """Like a dead switch: the host does not see it. The test process does not reach it either."""
        self._nft("".join(f'add element bridge faults silent {{ "{self._port(host)}" }}\n' for host in hosts))

    def drop(self, source: LabHost, target: LabHost) -> None:
        """One way: what `source` sends does not reach `target`."""
        mark = self.hosts.index(source) + 1
        self._nft(f'add element bridge faults deaf {{ {mark} . "{self._port(target)}" }}')

    def split(self, one: Iterable[LabHost], other: Iterable[LabHost]) -> None:
        """Nobody of one group hears anybody of the other."""
        others = list(other)
        for a in one:
            for b in others:
                self.drop(a, b)
                self.drop(b, a)

    def lossy(self, host: LabHost, percent: int) -> None:
        port = self._port(host)
        self._nft(
            f'add rule bridge faults losses_in iifname "{port}" numgen random mod 100 < {percent} drop\n'
            f'add rule bridge faults losses_out oifname "{port}" numgen random mod 100 < {percent} drop\n'
        )

    def block(self, host: LabHost, match: str) -> None:
        """Drop what a rule of nftables matches on its way to a host: `ip protocol udp udp dport 8472`."""
        self._nft(f'add rule bridge faults losses_out oifname "{self._port(host)}" {match} drop')

    def heal(self) -> None:
        """Undo every fault of the network."""
        self._nft(
            "flush set bridge faults deaf; flush set bridge faults silent;"
            "flush chain bridge faults losses_in; flush chain bridge faults losses_out"
        )
        for host in self.hosts:
            if host.is_on:
                self.fabric(f"ip link set {self._port(host)} up")


class _Number:
    """The first number that no other lab of this machine has and whose network no route leads to."""

    def __enter__(self) -> int:
        routes = [ipaddress.ip_network(word, strict=False) for word in run(["ip", "route"]).out.split() if "/" in word]
        os.makedirs("/run/lock", exist_ok=True)
        for number in range(LABS):
            network = ipaddress.ip_network(f"10.{FIRST + number}.0.0/16")
            descriptor = os.open(f"/run/lock/minik8s-lab-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            if any(network.overlaps(route) for route in routes):
                os.close(descriptor)
                continue
            self._descriptor = descriptor
            return number
        raise Failed("no network is free for a lab")

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)
