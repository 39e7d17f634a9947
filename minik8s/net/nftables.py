"""The way to the kernel's nftables: libnftables in a thread of its own, `nft -f -` where the library is missing.

Every script is one transaction: all of it or nothing. 0.2 ms by the library, 12 ms by the program.
The kernel tells who committed each transaction, so that a flush by somebody else is seen at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from minik8s.net.base import NetworkError
from minik8s.net.nft import Ruleset

THREAD_NAME = "minik8s-nft"  # by this the kernel's notices of our own transactions are told from others'
NETLINK_NETFILTER, NFNLGRP_NFTABLES = 12, 7
NEW_RULE, GET_RULE, NEW_GENERATION = 10 << 8 | 6, 10 << 8 | 7, 10 << 8 | 15
GET_GENERATION = 10 << 8 | 16
_POSITION = re.compile(r"^(?:/dev/stdin|<cmdline>|-):(\d+):", re.MULTILINE)


class NftError(NetworkError):
    """The kernel or the parser refused a script; nothing of it has been done."""


class NotThere(NftError):
    """An object that the script names does not exist (any more)."""


class Table(NamedTuple):
    """What the kernel has in one table."""

    contents: Ruleset
    affinity: Mapping[str, Mapping[str, str]]  # map -> "client . address . port timeout … expires …" -> "pod . port"


class Nftables:
    """`async with Nftables() as nft`; scripts run one after the other."""

    def __init__(self, *, library: str = "libnftables.so.1") -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nftables")
        self._library = library
        self._run: Callable[[str], str] = _program
        self._disturbed: list[Callable[[], None]] = []
        self._events: socket.socket | None = None
        self._commits = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            self._run = await loop.run_in_executor(self._thread, _Library, self._library)
        self._events = _listen()
        loop.add_reader(self._events, self._notice)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._events:
            asyncio.get_running_loop().remove_reader(self._events)
            self._events.close()
        self._thread.shutdown(wait=True)

    def on_disturbance(self, callback: Callable[[], None]) -> None:
        """Call when another program (nft, iptables, dockerd) has changed any rules of this host."""
        self._disturbed.append(callback)

    def _notice(self) -> None:
        foreign = False
        while self._events:
            try:
                message = self._events.recv(4096)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: notices were lost
                foreign = True
                continue
            foreign = foreign or f"{THREAD_NAME}\0".encode() not in message
        if foreign:
            for callback in self._disturbed:
                callback()

    async def apply(self, script: str) -> None:
        """Run a script as one transaction; raises NftError with the line that was refused."""
        await self._do(script)
        self._commits += 1

    async def strangers(self) -> int:
        """A number that stays as it is for as long as nobody but this object changes any rules of this host.

        The kernel counts transactions; ours are taken off. Tens of microseconds, however many elements there are.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, _generation) - self._commits

    async def table(self, name: str) -> Table | None:
        """A table as the kernel has it now; None if there is none."""
        try:
            text = await self._do(f"list table inet {name}")
        except NotThere:
            return None
        # Parsed in the thread too: a big table takes some 50 ms.
        return await asyncio.get_running_loop().run_in_executor(self._thread, parse_table, text)

    async def maps(self, table: str, *names: str) -> Mapping[str, Mapping[str, str]]:
        """Some maps of a table, `affinity_…`, read without the others."""
        text = "".join([await self._do(f"list map inet {table} {name}") for name in names])
        return parse_table(text).affinity

    async def rules(self, name: str) -> dict[str, bytes]:
        """Chain -> its rules, in the kernel's own form, to be compared with an earlier answer; {} if there is no table.

        Half a millisecond, however many elements there are: a listing by libnftables always reads those as well.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, _rules, name)

    async def _do(self, script: str) -> str:
        # Shielded: whoever is cancelled must not leave a transaction of which nobody knows whether it was done.
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._run, script)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            with suppress(NftError):
                await work
            raise


def _listen() -> socket.socket:
    """A socket that receives one small message per transaction: who has made the rules' next generation."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
    )
    # A filter in the kernel drops the messages about each single element: 16-bit load at 4 (the type), compare, return.
    wanted = socket.ntohs(NEW_GENERATION)  # the load takes it for network order
    code = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in ((0x28, 0, 0, 4), (0x15, 0, 1, wanted), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0))
    )
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 4, ctypes.addressof(buffer)))  # SO_ATTACH_FILTER
    sock.bind((0, 0))  # without an address of its own a socket is skipped
    sock.setsockopt(270, 1, NFNLGRP_NFTABLES)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
    return sock


def _generation() -> int:
    """How many transactions the kernel has seen."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as sock:
        sock.settimeout(10)
        sock.send(struct.pack("=IHHIIBBH", 20, GET_GENERATION, 1, 1, 0, 0, 0, 0))
        answer = sock.recv(4096)
    kind = struct.unpack_from("=H", answer, 4)[0]
    if kind != NEW_GENERATION:
        raise NftError("the kernel does not tell the generation of its rules; minik8s needs root")
    return int(struct.unpack_from("!I", answer, 24)[0])  # after both headers and NFTA_GEN_ID's own


def _rules(table: str) -> dict[str, bytes]:
    name = table.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(name), 1) + name + bytes(-len(name) % 4)  # NFTA_RULE_TABLE
    body = struct.pack("=BBH", 1, 0, 0) + attribute  # NFPROTO_INET
    request = struct.pack("=IHHII", 16 + len(body), GET_RULE, 0x301, 1, 0) + body  # REQUEST | DUMP
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as sock:
        sock.settimeout(10)
        while True:
            sock.send(request)
            rules = _read_rules(sock, len(attribute))
            if rules is not None:
                return rules


def _read_rules(sock: socket.socket, skip: int) -> dict[str, bytes] | None:
    """One dump; None if somebody has changed the rules in the middle of it."""
    rules: dict[str, bytes] = {}
    torn = False
    while True:
        answer, at = sock.recv(1 << 20), 0
        while at < len(answer):
            length, kind, flags = struct.unpack_from("=IHH", answer, at)
            torn = torn or bool(flags & 0x10)  # NLM_F_DUMP_INTR
            if kind != NEW_RULE:  # done, or an error: there is no such table
                return None if torn else rules
            rule = answer[at + 20 + skip : at + length]  # after both headers and the table's name: NFTA_RULE_CHAIN
            chain = rule[4 : struct.unpack_from("=H", rule)[0]].rstrip(b"\0").decode()
            rules[chain] = rules.get(chain, b"") + rule
            at += (length + 3) & ~3


class _Library:
    """libnftables by ctypes. Only used in the thread that made it; ctypes releases the GIL while it works."""

    def __init__(self, name: str) -> None:
        library = ctypes.CDLL(name)
        ctypes.CDLL(None).prctl(15, THREAD_NAME.encode(), 0, 0, 0)  # PR_SET_NAME
        library.nft_ctx_new.restype = ctypes.c_void_p
        for get in (library.nft_ctx_get_output_buffer, library.nft_ctx_get_error_buffer):
            get.restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(library.nft_ctx_new(0))
        if not self._context:
            raise OSError("libnftables gives no context")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        self._library = library

    def __call__(self, script: str) -> str:
        failed = self._library.nft_run_cmd_from_buffer(self._context, script.encode())
        output = self._library.nft_ctx_get_output_buffer(self._context) or b""
        errors = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise translate(script, errors.decode(errors="replace"))
        return bytes(output).decode()


def _program(script: str) -> str:
    try:
        done = subprocess.run(["nft", "-f", "-"], input=script.encode(), capture_output=True, timeout=60, check=False)
    except FileNotFoundError:
        raise NftError("neither libnftables.so.1 nor nft is here; install the package nftables") from None
    except subprocess.TimeoutExpired:
        raise NftError("nft has not answered within 60 s") from None
    if done.returncode:
        raise translate(script, done.stderr.decode(errors="replace"))
    return done.stdout.decode()


def translate(script: str, errors: str) -> NftError:
    """nft's own message, shortened, with the line of the script that it is about."""
    message = next((line for line in errors.splitlines() if "Error:" in line), errors.strip() or "no reason given")
    position = _POSITION.search(errors)
    lines = script.splitlines()
    line = lines[int(position[1]) - 1] if position and int(position[1]) <= len(lines) else lines[0] if lines else ""
    kind = NotThere if "No such file or directory" in message else NftError
    reason = message.split("Error:", 1)[-1].strip()
    remedy = "; minik8s needs root" if "not permitted" in reason else ""
    return kind(f"nftables refused a change: {reason}{remedy} (in: {line.strip()[:200]})")


# -- reading


_BLOCK = re.compile(r"^\t(map|set|chain) (\S+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
_ELEMENTS = re.compile(r"\telements = \{(.*?)\}\n", re.DOTALL)


def parse_table(text: str) -> Table:
    """A table from `nft list table`. (Its JSON is no help: libnftables 1.0.6 cannot print our rules in it.)"""
    chains: set[str] = set()
    elements: dict[str, dict[str, str]] = {}
    affinity: dict[str, dict[str, str]] = {}
    for kind, name, body in _BLOCK.findall(text):
        if kind == "chain":
            chains.add(name)
            continue
        listed = _ELEMENTS.search(body)
        words = " ".join(listed[1].split()) if listed else ""
        pairs = (item.partition(" : ") for item in words.split(", ") if item)
        into = affinity if name.startswith("affinity_") else elements
        into[name] = {key: value for key, _, value in pairs}
    return Table(Ruleset(frozenset(chains), elements), affinity)
