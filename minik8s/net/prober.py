"""Tries the ways to other nodes by ICMP echoes that the kernels there answer; what it means is said in reach.py.

So that forwarding is tried as pods meet it, each node has a probe: a network namespace that is wired like a pod, with
the last address of the node's range, which no pod gets. It lives as long as the agent. New peers are tried by
themselves, all of them whenever somebody asks.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from types import TracebackType
from typing import Self

from minik8s.log import get_logger
from minik8s.net import reach, routes
from minik8s.net.netlink import Netlink
from minik8s.net.peers import PeerRoutes
from minik8s.net.reach import HEADERS, Reach
from minik8s.net.routes import Peer

ECHO, ECHO_REPLY = 8, 0
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3  # never cut into fragments, and believe no one who says it is too big
TIMEOUT, ATTEMPTS = 1.0, 2
PATIENCE, ROUNDS = 4.0, 3  # seconds between attempts with a new peer, whose agent may still be starting, and how many
AT_ONCE = 16
OWN_LINK = "mk8s-self"  # has the node's own address in the pod network, also where there is no tunnel

log = get_logger("reach")


class Pinger:
    """Echo requests from one raw ICMP socket, which decides where they come from. `with Pinger(socket) as pinger`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        self._number = int.from_bytes(os.urandom(2), "big")  # ours among all that ping on this host
        self._sequence = count(1)
        self._waiting: dict[tuple[int, str], asyncio.Future[None]] = {}

    def __enter__(self) -> Pinger:
        asyncio.get_running_loop().add_reader(self._sock, self._readable)
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    async def echo(self, target: str, size: int = 56, timeout: float = TIMEOUT) -> float | None:
        """Milliseconds until `target` gave `size` bytes back; None if it did not within `timeout` seconds, twice."""
        loop = asyncio.get_running_loop()
        for _ in range(ATTEMPTS):
            sequence = next(self._sequence) & 0xFFFF
            answer = self._waiting[sequence, target] = loop.create_future()
            began = loop.time()
            try:
                self._sock.sendto(_request(self._number, sequence, size), (target, 0))
                async with asyncio.timeout(timeout):
                    await answer
                return (loop.time() - began) * 1000
            except (TimeoutError, OSError):  # nobody answers, or there is no way, or it is too big for the link here
                continue
            finally:
                del self._waiting[sequence, target]
        return None

    def _readable(self) -> None:
        with suppress(BlockingIOError, OSError):
            while True:
                data, sender = self._sock.recvfrom(65536)
                start = (data[0] & 0xF) * 4  # a raw socket gives the IP header as well
                type, number, sequence = struct.unpack_from("!BxxxHH", data, start)
                answer = self._waiting.get((sequence, sender[0]))
                if type == ECHO_REPLY and number == self._number and answer is not None and not answer.done():
                    answer.set_result(None)


def _raw(source: str = "") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
    if source:
        sock.bind((source, 0))
    return sock


def _request(number: int, sequence: int, size: int) -> bytes:
    header = struct.pack("!BBHHH", ECHO, 0, 0, number, sequence)
    total = sum(struct.unpack("!4H", header))  # the checksum of RFC 1071; what follows the header is zeros
    return header[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[4:] + bytes(size)


class Prober:
    """`async with` makes the probe; `run()` tries new peers for ever; `all()` tries everybody now.

    `mtu` is that of pods; `tell` is called with words about a new peer whose pods ours do not reach.
    """

    def __init__(self, peers: PeerRoutes, netlink: Netlink, mtu: int, tell: Callable[[str], None]) -> None:
        self._peers = peers
        self._netlink = netlink
        self._mtu = mtu
        self._tell = tell
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        own = self._peers.own
        await self._netlink.hold_address(OWN_LINK, own.tunnel)
        inside = await self._netlink.open_probe(own.probe, self._mtu)
        with ExitStack() as stack:
            self._pod = stack.enter_context(Pinger(inside))
            self._node = stack.enter_context(Pinger(_raw()))
            self._tunnel = stack.enter_context(Pinger(_raw(own.tunnel)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()  # the probe goes with the last socket in it

    async def run(self) -> None:
        known: frozenset[Peer] = frozenset()
        while True:
            self._peers.moved.clear()
            present = frozenset(self._peers.peers)
            if fresh := sorted(present - known):
                await self._try_for_long(fresh)
            known = present
            await self._peers.moved.wait()

    async def all(self) -> Sequence[Reach]:
        return await self._try(sorted(self._peers.peers))

    async def _try_for_long(self, fresh: Sequence[Peer]) -> None:
        for turn in range(ROUNDS):
            await asyncio.sleep(PATIENCE * min(turn, 1))
            fresh = [peer for peer in fresh if peer in self._peers.peers]
            found = await self._try(fresh)
            fresh = [peer for peer, result in zip(fresh, found, strict=True) if not result.well]
            if not fresh:
                return
        for result in found:
            if not result.well:
                said = reach.words(self._peers.own.name, self._peers.own.address, result)
                log.warning("pods do not reach those of another node", trouble=said.detail, remedy=said.remedy)
                self._tell(f"{said.detail}; {said.remedy}")

    async def _try(self, peers: Sequence[Peer]) -> Sequence[Reach]:
        async with asyncio.TaskGroup() as tasks:
            trying = [tasks.create_task(self._try_one(peer)) for peer in peers]
        return [task.result() for task in trying]

    async def _try_one(self, peer: Peer) -> Reach:
        uplink = self._peers.uplink
        way = routes.way_to(peer, self._peers.mode, uplink.networks if uplink else ())
        result = Reach(peer.name, peer.address, way, largest=self._mtu)
        async with self._slots:
            node, tunnel, pod = await asyncio.gather(
                self._node.echo(peer.address), self._tunnel.echo(peer.tunnel), self._pod.echo(peer.probe)
            )
            result = result._replace(node=node is not None, tunnel=tunnel is not None, pod=pod is not None)
            if pod is None:
                return result
            return result._replace(milliseconds=round(pod, 3), size=await self._largest(peer, pod))

    async def _largest(self, peer: Peer, milliseconds: float) -> int:
        """Found in a dozen echoes, half of them lost: each is waited for a few times as long as a small one took."""
        asking, through, timeout = reach.sizes(self._mtu), 0, 0.2 + 4 * milliseconds / 1000
        with suppress(StopIteration):
            size = next(asking)
            while True:
                answered = await self._pod.echo(peer.probe, size, timeout) is not None
                through = size + HEADERS if answered else through
                size = asking.send(answered)
        return through
