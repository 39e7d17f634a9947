"""HTTP without a network: what any cutting of the bytes, and any lie in them, comes to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.faas.runtime import http1
from minik8s.faas.runtime.http1 import MAX_HEAD, Reader, Refused

GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-Some: Thing\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\n\r\n"


def read(*pieces: bytes, max_body: int = 1000) -> Reader:
    reader = Reader(max_body)
    for piece in pieces:
        reader.feed(piece)
    return reader


def test_a_request() -> None:
    (request,) = read(GET).ready
    assert (request.method, request.target, request.body, request.keep_alive) == ("GET", b"/a?b=c", b"", True)
    assert request.header(b"x-some") == b"Thing"
    assert request.header(b"x-none") is None


@settings(max_examples=40)
@given(st.lists(st.sampled_from([GET, POST, CHUNKED]), min_size=1, max_size=4), st.data())
def test_pipelined_requests_come_in_order_however_they_are_cut(requests: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(requests)
    reader = Reader(1000)
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:cut])
        stream = stream[cut:]
    assert [each.body for each in reader.ready] == [b"" if each == GET else b"hello" for each in requests]
    assert reader.current is None


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + 1001 * b"x", 413),
        (b"GET / HTTP/1.1\r\nX: " + MAX_HEAD * b"y", 431),
        (b"POST / HTTP/1.1\r\nExpect: something\r\nContent-Length: 1\r\n\r\n", 417),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # a TLS greeting
    ],
)
def test_what_is_refused(sent: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        read(sent)
    assert refused.value.status == status


def test_a_client_that_waits_for_leave_to_send() -> None:
    reader = read(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.current is not None
    assert reader.current.expects
    reader.feed(b"ok")
    assert reader.ready[0].body == b"ok"


def test_early_requests_are_given_with_their_head() -> None:
    reader = Reader(1000, early=True)
    reader.feed(POST[:-3])
    (request,) = reader.ready
    assert (request.complete, request.parts) == (False, [b"he"])
    reader.feed(POST[-3:])
    assert (request.complete, request.body) == (True, b"hello")


@pytest.mark.parametrize(
    ("sent", "keeps"),
    [
        (GET, True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", False),
    ],
)
def test_whether_the_connection_goes_on(sent: bytes, keeps: bool) -> None:
    assert read(sent).ready[0].keep_alive is keeps


def test_answers() -> None:
    assert http1.whole(200, [(b"a", b"b")], b"hi") == b"HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 2\r\n\r\nhi"
    assert http1.whole(200, [], b"hi", method="HEAD") == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    assert http1.whole(204, [], b"", close=True) == b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
    assert http1.whole(299, [], b"").startswith(b"HTTP/1.1 299 ")
    assert http1.chunk(b"0123456789abcdef") == b"10\r\n0123456789abcdef\r\n"
    with pytest.raises(ValueError, match="line break"):
        http1.whole(200, [(b"a", b"b\r\nset-cookie: x")], b"")
