"""Links, addresses and routes of the kernel by netlink; the only file that talks to it.

A pod is wired without a bridge: a veth pair whose inner end is born inside the pod's namespace as eth0 with a /32
address and a default route via a link-local gateway; the outer end has a /32 route to the pod and answers ARP for the
gateway. Messages (rtnl.py makes and reads them) are sent in batches over plain sockets from one thread of our
own, because entering another network namespace is a property of the thread: it opens a socket inside and goes home at
once, the socket stays inside. A pod costs two batches and a few sysctls.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from minik8s.net import rtnl
from minik8s.net.base import NetworkError

LINK_PREFIX = "mk8s"  # every link of ours begins so: rules match `mk8s*`, reset removes them
PROBE_LINK = "mk8s-probe"
GATEWAY = "169.254.1.1"  # never assigned anywhere: the host's end of the pair answers for it
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"  # of every host end, so that a pod's neighbour entry can be permanent
HOST_SCOPE = 254
BATCH = 100  # messages at once: acknowledgements of some 250 fit into a socket's buffer
DOOMED = 0x6D6B3873  # a link group of ours; links are in it only while they are deleted
CLONE_NEWNET = 0x40000000
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_GET_STRICT_CHK = 270, 1, 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


Request = tuple[str, bytes]  # what it is for, in words of the error; a message of rtnl.py


def link_name(pod_uid: str) -> str:
    """The host's end of a pod: 15 characters, the kernel's limit."""
    return LINK_PREFIX + hashlib.sha256(pod_uid.encode()).hexdigest()[:11]


class Netlink:
    """`async with Netlink() as netlink`. All methods are idempotent and raise NetworkError."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netlink")
        self._doomed: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)

    async def _do(self, work: Callable[..., T], *args: Any) -> T:
        # Shielded: a cancelled caller must not leave the loop while the thread is half-way through a pod.
        task = asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with suppress(NetworkError):
                await task
            raise

    async def wire(self, pod_uid: str, netns_pid: int, ip: str, mtu: int) -> str:
        """Give the namespace of a process an eth0 with `ip`; answers the name of the host's end."""
        return await self._do(_wire, pod_uid, netns_pid, ip, mtu)

    async def remove(self, name: str) -> None:
        """Delete a link of this host; the other end and the routes go with it. Many at once are one work."""
        self._doomed.add(name)
        await self._do(_remove, self._doomed)

    async def pods(self) -> dict[str, str]:
        """pod uid -> address, of every pod link on this host."""
        return dict(
            link.alias.split(" ") for link in await self.links() if link.alias.count(" ") == 1  # "uid ip"
        )  # fmt: skip

    async def links(self) -> list[rtnl.Link]:
        """The links of this host that are ours."""
        (found,) = await self.dump(rtnl.dump_links())
        return [link for link in map(rtnl.read_link, found) if link.name.startswith(LINK_PREFIX)]

    async def open_probe(self, ip: str, mtu: int) -> socket.socket:
        """A raw ICMP socket in a namespace of its own that is wired like a pod; it goes when the socket is closed."""
        return await self._do(_open_probe, ip, mtu)

    async def hold_address(self, name: str, ip: str) -> None:
        """A dummy link that carries `ip` alone: the host answers for it, and never chooses it as a source by itself."""
        await self._do(_hold_address, name, ip)

    async def dump(self, *requests: bytes) -> list[list[bytes]]:
        """The kernel's answers to dump requests of rtnl.py: a list of messages for each."""
        return await self._do(_dump, requests)

    async def request(self, *requests: Request) -> None:
        """Messages of rtnl.py, each with what it is for; the first that failed is raised when its batch was tried."""
        await self._do(_request, requests)

    async def uplink_mtu(self, node_ip: str = "") -> int:
        """MTU of the link with the node's address, which pods must not exceed; else that with the default route."""
        return await self._do(_uplink_mtu, node_ip)


# -- the work itself, in the netlink thread


def _wire(pod_uid: str, netns_pid: int, ip: str, mtu: int) -> str:
    try:
        namespace = os.open(f"/proc/{netns_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetworkError(f"process {netns_pid} of the pod's sandbox is gone: {error.strerror}") from None
    try:
        return _wire_namespace(link_name(pod_uid), f"{pod_uid} {ip}", namespace, ip, mtu)
    finally:
        os.close(namespace)


def _wire_namespace(name: str, alias: str, namespace: int, ip: str, mtu: int) -> str:
    with _netlink() as host, _netlink_of(namespace) as pod:
        if not _is_wired(host, pod, name, alias):
            _remove({name})
            pair = rtnl.new_pair(name, GATEWAY_MAC, "eth0", namespace, mtu)
            _talk(host, [(f"create link {name} with eth0 in the pod", pair)])
        try:
            _tune(name)
            index = socket.if_nametoindex(name)
            _talk(host, [_up(index, alias), (f"set route {ip}", rtnl.pod_route(ip, 32, index))])
            _talk(pod, list(_inside(_link(pod, "eth0").number, ip)))
        except (NetworkError, OSError):
            _remove({name})
            raise
    return name


def _inside(eth0: int, ip: str) -> Iterator[Request]:
    yield _up(1)  # lo
    yield f"set address {ip}", rtnl.address(eth0, ip)
    yield _up(eth0)
    yield f"set the neighbour {GATEWAY}", rtnl.neighbour(eth0, GATEWAY, GATEWAY_MAC)
    yield f"set route {GATEWAY}", rtnl.pod_route(GATEWAY, 32, eth0)
    yield "set the default route", rtnl.pod_route("0.0.0.0", 0, eth0, GATEWAY)


def _up(index: int, alias: str = "", group: int = 0) -> Request:
    return f"bring link {index} up", rtnl.set_link(index, alias=alias, group=group)


def _is_wired(host: socket.socket, pod: socket.socket, name: str, alias: str) -> bool:
    """Whether the pair is there, ends in this very namespace and has this address (which the alias tells)."""
    try:
        outer, inner = _link(host, name), _link(pod, "eth0")
    except NetworkError:
        return False
    return outer.alias == alias and outer.peer == inner.number and inner.peer == outer.number


def _tune(name: str) -> None:
    """proxy_arp without its delay (0.8 s at first contact), and 127.0.0.1:nodePort of this host into the pod."""
    for key, value in (
        (f"ipv4/conf/{name}/proxy_arp", "1"),
        (f"ipv4/conf/{name}/route_localnet", "1"),
        (f"ipv4/neigh/{name}/proxy_delay", "0"),
    ):
        Path("/proc/sys/net", key).write_text(value)


def _remove(names: set[str]) -> None:
    """All in one message, by a link group: the kernel waits some 20 ms for each message, not for each link."""
    doomed = [names.pop() for _ in range(len(names))]
    with _netlink() as host:
        moved = 0
        for name in doomed:
            with suppress(OSError, NetworkError):  # its namespace may have gone at this moment, and the link with it
                _talk(host, [_up(socket.if_nametoindex(name), group=DOOMED)])
                moved += 1
        if moved:
            with suppress(NetworkError):
                _talk(host, [("delete links", rtnl.delete_group(DOOMED))])


def _hold_address(name: str, ip: str) -> None:
    with _netlink() as host:
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            try:
                _talk(host, [(f"create link {name}", rtnl.new_link(name, "dummy"))])
            except NetworkError:  # small kernels lack it; a bridge without ports does the same and Docker needs it too
                _talk(host, [(f"create link {name}", rtnl.new_link(name, "bridge"))])
            index = socket.if_nametoindex(name)
        _talk(host, [(f"set address {ip}", rtnl.address(index, ip, scope=HOST_SCOPE)), _up(index)])
    (held,) = _dump([rtnl.dump_addresses()])
    others = [a.ip for a in map(rtnl.read_address, held) if a.link == index and a.ip != ip]  # of earlier settings
    _request([(f"delete address {other}", rtnl.address(index, other, delete=True)) for other in others])


def _uplink_mtu(node_ip: str) -> int:
    """The default route from /proc/thread-self/net/route: destination and mask all zero; the lowest metric wins."""
    links, addresses = _dump([rtnl.dump_links(), rtnl.dump_addresses()])
    holding = {a.link for a in map(rtnl.read_address, addresses) if a.ip == node_ip}
    for link in map(rtnl.read_link, links):
        if link.number in holding:
            return link.mtu
    rows = [line.split() for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]]
    uplinks = sorted((int(row[6]), row[0]) for row in rows if row[1] == row[7] == "00000000")
    if not uplinks:
        return 1500
    with _netlink() as host:
        return _link(host, uplinks[0][1]).mtu


# -- messages of rtnl.py


def _dump(requests: Sequence[bytes]) -> list[list[bytes]]:
    with _netlink() as host:
        host.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)  # the kernel itself leaves out what was not asked for
        return [list(_dumped(host, request)) for request in requests]


def _dumped(host: socket.socket, request: bytes) -> Iterator[bytes]:
    host.send(request)
    while True:
        for type, message in rtnl.split(host.recv(1 << 20)):
            if type == NLMSG_DONE:
                return
            if type == NLMSG_ERROR:
                code = -struct.unpack_from("=i", message, 16)[0]
                if code == errno.ENODEV:  # the link has just gone, and with it what was asked for
                    return
                raise NetworkError(f"cannot read the kernel's network: {os.strerror(code)}")
            yield message


def _request(requests: Sequence[Request]) -> None:
    with _netlink() as host:
        for start in range(0, len(requests), BATCH):
            _talk(host, requests[start : start + BATCH])


def listen(groups: Iterable[int]) -> socket.socket:
    """A socket that is told what changes, in messages for `rtnl.notices`; ENOBUFS when some were lost."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    sock.bind((0, 0))
    for group in groups:
        sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    return sock


# -- talking


@contextmanager
def _netlink() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        sock.settimeout(10)
        yield sock


@contextmanager
def _netlink_of(namespace: int) -> Iterator[socket.socket]:
    """A netlink socket inside a namespace, given by a descriptor."""
    with _inside_of(namespace):
        inside = _netlink()
        sock = inside.__enter__()
    try:
        yield sock
    finally:
        inside.__exit__(None, None, None)


@contextmanager
def _inside_of(namespace: int) -> Iterator[None]:
    """This thread, for a moment. -1: in a namespace that is new."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if namespace >= 0:
            _enter(namespace)
        elif _libc.unshare(CLONE_NEWNET) != 0:
            raise NetworkError(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _open_probe(ip: str, mtu: int) -> socket.socket:
    with _inside_of(-1):
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
    try:
        _wire_namespace(PROBE_LINK, "probe", namespace, ip, mtu)
    except NetworkError:
        sock.close()
        raise
    finally:
        os.close(namespace)
    return sock


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        raise NetworkError(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}; minik8s needs root")


def _talk(sock: socket.socket, requests: Sequence[Request]) -> None:
    """Send all in one go and read one acknowledgement each; the kernel works them off in order, whatever fails."""
    sock.send(b"".join(rtnl.acknowledged(message, number) for number, (_, message) in enumerate(requests)))
    failed = ""
    for _ in requests:
        answer = sock.recv(65536)
        number, code = struct.unpack_from("=I", answer, 8)[0], -struct.unpack_from("=i", answer, 16)[0]
        purpose = requests[number][0]
        # To delete what is gone already, or with its link, is no failure.
        if code and not failed and not (purpose.startswith("delete") and code in GONE):
            failed = f"cannot {purpose}: {os.strerror(code)}"
    if failed:
        raise NetworkError(failed)


def _link(sock: socket.socket, name: str) -> rtnl.Link:
    sock.send(rtnl.get_link(name))
    answer = sock.recv(65536)
    if struct.unpack_from("=H", answer, 4)[0] != rtnl.NEWLINK:
        raise NetworkError(f"there is no link {name}")
    return rtnl.read_link(answer)
