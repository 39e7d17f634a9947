"""A small host of one's own on the real kernel: network namespaces with pods, an uplink and somebody outside.

Sockets stay in the namespace in which they were made. So servers "in" pods and clients anywhere are plain asyncio
sockets of the test process, made while its main thread was inside for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

NODE, OUTSIDE = "192.0.2.2", "192.0.2.1"
T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


def sh(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


@contextmanager
def private_namespace() -> Iterator[None]:
    """The main thread (and threads and children it starts) in a network namespace of its own."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert _libc.unshare(0x40000000) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert _libc.setns(home, 0x40000000) == 0
        os.close(home)


class Host:
    """The node (this namespace) with its uplink, and processes that stand for pods."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self.outside = self.pod()
        sh(
            f"ip link set lo up; ip link add up0 type veth peer name eth0 netns {self.outside}; ip link set up0 up;"
            f"ip addr add {NODE}/24 dev up0; ip route add default via {OUTSIDE};"
            f"nsenter -t {self.outside} -n sh -c 'ip link set lo up; ip link set eth0 up;"
            f" ip addr add {OUTSIDE}/24 dev eth0; ip route add 10.96.0.0/12 via {NODE};"
            f" ip route add 203.0.113.0/24 via {NODE}'"
        )

    def pod(self) -> int:
        """pid of a process in a fresh namespace."""
        process = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 3600"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        self._processes.append(process)
        return process.pid

    def end(self, pid: int) -> None:
        for process in self._processes:
            if process.pid == pid:
                process.kill()
                process.wait()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def snapshot(self) -> str:
        """Everything of this host's network that a teardown has to leave as it was."""
        return sh(
            "ip -o link | sed 's/^[0-9]*: //'; ip -o addr | grep -v fe80; ip route show table all | grep -v fe80;"
            "nft list ruleset | sed 's/counter packets .*bytes [0-9]*/counter/';"
            "iptables-save | grep -v '^#' | sed 's/\\[.*//'; cat /proc/sys/net/ipv4/ip_forward"
        )


def inside(pid: int | None, work: Callable[[], T]) -> T:
    """Do something short in the namespace of a process (None: where we are)."""
    if pid is None:
        return work()
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        assert _libc.setns(there, 0x40000000) == 0
        try:
            return work()
        finally:
            assert _libc.setns(home, 0x40000000) == 0
    finally:
        os.close(home)
        os.close(there)


@asynccontextmanager
async def server(pid: int | None, name: str, port: int, *, ip: str = "0.0.0.0") -> AsyncIterator[None]:
    """TCP and UDP on one port, answering `name client-address`."""
    tcp = inside(pid, lambda: socket.create_server((ip, port)))
    udp = inside(pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind((ip, port))

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(f"{name} {writer.get_extra_info('peername')[0]}".encode())
            await writer.drain()
            writer.close()

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            self.transport.sendto(f"{name} {address[0]}".encode(), address)  # type: ignore[attr-defined]

    loop = asyncio.get_running_loop()
    listener = await asyncio.start_server(answer, sock=tcp)
    transport, _ = await loop.create_datagram_endpoint(Echo, sock=udp)
    try:
        yield
    finally:
        transport.close()
        listener.close()


async def ask(pid: int | None, address: str, port: int, *, source: str = "", timeout: float = 3) -> str:
    """Body of a TCP answer. Checks bodies, not connects: some gateways accept a connection to any address."""
    sock = inside(pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    if source:
        sock.bind((source, 0))
    loop = asyncio.get_running_loop()
    with sock:
        async with asyncio.timeout(timeout):
            await loop.sock_connect(sock, (address, port))
            return (await loop.sock_recv(sock, 1000)).decode()


class UdpClient:
    """A client that keeps its source port."""

    def __init__(self, pid: int | None) -> None:
        self._sock = inside(pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))

    async def ask(self, address: str, port: int, *, timeout: float = 3) -> str:
        return (await self.exchange(address, port, b"?", timeout=timeout)).decode()

    async def exchange(self, address: str, port: int, data: bytes, *, timeout: float = 3) -> bytes:
        """Asks again every 50 ms, as the other side may not listen yet."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            while True:
                await loop.sock_sendto(self._sock, data, (address, port))
                try:
                    return await asyncio.wait_for(loop.sock_recv(self._sock, 1000), 0.05)
                except (TimeoutError, ConnectionRefusedError):
                    await asyncio.sleep(0.01)

    def close(self) -> None:
        self._sock.close()
