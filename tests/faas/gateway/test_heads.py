"""What is remembered of heads, and above all what is not: whoever reads where a message ends otherwise than the parser
does lets requests be smuggled."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.faas.gateway.heads import KEPT, LONGEST, Heads
from minik8s.faas.gateway.inbound import Clients, Inbound
from minik8s.faas.gateway.wire import Asked

HEAD = b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"


class Said(NamedTuple):
    length: int | None


def test_a_known_head_is_found_with_all_of_its_body_behind_it_only() -> None:
    heads: Heads[Said] = Heads()
    assert heads.whole(HEAD + b"abc") is None
    heads.learn(HEAD + b"ab", Said(3))
    assert heads.whole(HEAD + b"abc") == (Said(3), b"abc")
    for other in (HEAD, HEAD + b"ab", HEAD + b"abcd", HEAD.lower() + b"abc", HEAD[:-2], b"", b"\r\n\r\n"):
        assert heads.whole(other) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n" + HEAD,  # its first END is not its end
        b"\r\n\r\n" + HEAD,
        b"POST /f HTTP/1.1\nHost: a\nContent-Length: 30\n\nbody\r\n\r\n",  # an END in the body
        b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\nbody\r\n\r\n",
        b"POST /f HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        b"POST /f HTTP/1.1\r\nHost: a\r\n",
        b"POST /f HTTP/1.1\r\nA: " + b"x" * LONGEST + b"\r\n\r\n",
    ],
)
def test_of_what_may_end_elsewhere_nothing_is_remembered(data: bytes) -> None:
    heads: Heads[Said] = Heads()
    heads.learn(data, Said(0))
    assert not heads._known


def test_no_more_than_so_many_are_kept() -> None:
    heads: Heads[Said] = Heads()
    for number in range(KEPT + 5):
        heads.learn(b"GET /%d HTTP/1.1\r\n\r\n" % number, Said(0))
    assert len(heads._known) == KEPT
    assert heads.whole(b"GET /0 HTTP/1.1\r\n\r\n") is None
    assert heads.whole(b"GET /%d HTTP/1.1\r\n\r\n" % (KEPT + 4)) == (Said(0), b"")


# -- a client whose heads are known is understood as one whose heads are not


class _Transport(asyncio.Transport):
    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("192.0.2.7", 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class _Forgetful(Heads[Asked]):
    def learn(self, data: bytes, head: Asked) -> None: ...


_MESSAGES = [
    HEAD + b"abc",
    HEAD + b"xyz",
    b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /f?q=1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /f HTTP/1.1\nHost: a\nContent-Length: 8\n\nab\r\n\r\ncd",
    b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nab\r\n\r\ncd",
    b"\r\n",
    b"GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"PUT /f HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nab",
]


async def _understood(pieces: list[bytes], heads: Heads[Asked]) -> list[object]:
    seen: list[object] = []

    async def serve(asked: Asked, client: Inbound) -> None:
        body = await asked.body.all(1 << 20)
        seen.append((asked.method, asked.path, asked.query, asked.modern, asked.keep_alive, dict(asked.noted),
                     list(asked.lines), asked.peer, asked.length, body))  # fmt: skip

    def refused(error: Exception) -> bytes:
        seen.append(str(error))
        return b""

    clients = Clients(serve, refused)
    clients.heads = heads
    inbound = clients()
    inbound.connection_made(_Transport())
    for piece in pieces:
        inbound.get_buffer(-1)[: len(piece)] = piece
        inbound.buffer_updated(len(piece))
        for _ in range(5):
            await asyncio.sleep(0)
    inbound.connection_lost(None)
    return seen


@given(st.lists(st.sampled_from(_MESSAGES), min_size=2, max_size=6), st.lists(st.integers(1, 200), max_size=8))
def test_what_is_remembered_changes_nothing(messages: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(messages)
    pieces = messages
    if cuts:  # in other pieces than messages
        places = sorted({cut for cut in cuts if cut < len(whole)})
        pieces = [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]

    async def both() -> tuple[list[object], list[object]]:
        known: Heads[Asked] = Heads()
        await _understood(messages, known)  # all that can be learnt is
        return await _understood(pieces, known), await _understood(pieces, _Forgetful())

    remembered, parsed = asyncio.run(both())
    assert remembered == parsed
    assert parsed or not whole.strip()
