"""SPDY's state machine: two of them talk to each other, byte by byte if need be."""

from __future__ import annotations

import contextlib
import zlib
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.kubelet.streaming import spdy
from minik8s.kubelet.streaming.spdy import Data, Ended, GoneAway, Opened, ProtocolError, Replied, Reset, Spdy
from minik8s.kubelet.streaming.spdy_headers import DICTIONARY, MAX_HEADERS, HeaderPacker, HeaderUnpacker


def pair() -> tuple[Spdy, Spdy]:
    return Spdy(client=True), Spdy()


def test_the_dictionary_is_the_protocols_own() -> None:
    # A zlib stream names its dictionary by this checksum; a wrong one could not be unpacked by anybody else.
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def test_a_stream_is_opened_answered_and_ended_by_both() -> None:
    client, server = pair()
    stream = client.open({"streamType": "stdin", "port": "80"})
    assert server.receive(client.take()) == [Opened(1, {"streamtype": "stdin", "port": "80"})]
    server.reply(stream)
    assert client.receive(server.take()) == [Replied(1, {})]
    client.send(stream, b"hello", fin=True)
    assert server.receive(client.take()) == [Data(1, b"hello"), Ended(1)]
    assert server.streams == {1}
    server.send(stream, b"bye", fin=True)
    assert client.receive(server.take()) == [Data(1, b"bye"), Ended(1)]
    assert client.streams == server.streams == frozenset()


def test_streams_of_client_and_server_have_odd_and_even_numbers() -> None:
    client, server = pair()
    assert [client.open({}), client.open({}), server.open({}), server.open({})] == [1, 3, 2, 4]


def test_a_stream_opened_with_fin_has_ended_on_that_side() -> None:
    client, server = pair()
    stream = client.open({"streamtype": "error"}, fin=True)
    assert server.receive(client.take()) == [Opened(1, {"streamtype": "error"}), Ended(1)]
    client.send(stream, b"too late")
    assert client.take() == b""


def test_reset_drops_both_halves_and_what_was_on_the_way() -> None:
    client, server = pair()
    stream = client.open({})
    server.receive(client.take())
    server.reset(stream)
    client.send(stream, b"on the way")
    assert server.receive(client.take()) == []
    assert client.receive(server.take()) == [Reset(1, spdy.CANCEL)]
    server.send(stream, b"nobody listens")
    assert server.take() == b""


def test_data_after_the_end_resets_the_stream() -> None:
    client, server = pair()
    client.open({})
    server.receive(client.take())
    frame = pack(">II", 1, spdy.FIN << 24) + pack(">II", 1, 3) + b"abc"
    assert server.receive(frame) == [Ended(1), Reset(1, spdy.STREAM_ALREADY_CLOSED)]


def test_data_for_a_stream_that_never_was_is_refused() -> None:
    client, server = pair()
    assert server.receive(pack(">II", 7, 1) + b"x") == []
    assert server.take() == pack(">HHIII", 0x8003, spdy.RST_STREAM, 8, 7, spdy.INVALID_STREAM)
    assert client.receive(b"") == []


def test_pings_of_the_peer_are_answered_and_answers_are_not() -> None:
    client, server = pair()
    client.ping()
    asked = client.take()
    assert server.receive(asked) == []
    assert server.take() == asked
    client.receive(asked)
    assert client.take() == b""


def test_going_away_is_told() -> None:
    client, server = pair()
    client.open({})
    server.receive(client.take())
    server.go_away()
    assert client.receive(server.take()) == [GoneAway(1)]


def test_window_updates_and_settings_are_let_pass() -> None:
    _, server = pair()
    update = pack(">HHIII", 0x8003, spdy.WINDOW_UPDATE, 8, 0, 65536)
    settings = pack(">HHII", 0x8003, spdy.SETTINGS, 4, 0)
    unknown = pack(">HHI", 0x8003, 99, 3) + b"abc"
    assert server.receive(update + settings + unknown) == []


def test_more_streams_than_allowed_are_refused_and_the_headers_stay_in_step() -> None:
    client, server = pair()
    for _ in range(spdy.MAX_STREAMS + 1):
        client.open({"a": "b"})
    assert len(server.receive(client.take())) == spdy.MAX_STREAMS
    assert client.receive(server.take()) == [Reset(2 * spdy.MAX_STREAMS + 1, spdy.REFUSED_STREAM)]
    server.reset(1)
    client.open({"still": "understood"})
    assert server.receive(client.take()) == [Opened(2 * spdy.MAX_STREAMS + 3, {"still": "understood"})]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", None),  # a data frame by its first bit: for an unknown stream, and endless
        (pack(">HHI", 0x8002, 1, 0), "no SPDY/3.1"),
        (pack(">HHI", 0x8003, spdy.SYN_STREAM, 4), "has 4 bytes"),
        (pack(">HHI", 0x8003, spdy.SYN_STREAM, spdy.MAX_CONTROL + 1), "bytes"),
        (pack(">HHI", 0x8003, spdy.SYN_STREAM, 14) + bytes(14), "headers"),
    ],
)
def test_nonsense(data: bytes, words: str | None) -> None:
    _, server = pair()
    if words is None:
        assert server.receive(data) == []
    else:
        with pytest.raises(ProtocolError, match=words):
            server.receive(data)


def test_a_stream_number_may_not_be_used_again() -> None:
    client, server = pair()
    client.open({})
    server.receive(client.take())
    client._next = 1
    client.open({})
    with pytest.raises(ProtocolError, match="cannot be opened"):
        server.receive(client.take())


def test_headers_that_blow_up_are_refused() -> None:
    bomb = HeaderPacker().pack({"a": "0" * (MAX_HEADERS + 1)})
    assert len(bomb) < 1000
    with pytest.raises(ValueError, match="longer"):
        HeaderUnpacker().unpack(bomb)


@pytest.mark.parametrize("count", [1, 2**31])
def test_headers_that_promise_too_much_are_refused(count: int) -> None:
    packer = zlib.compressobj(zdict=DICTIONARY)
    block = packer.compress(pack(">II", count, 1000) + b"short") + packer.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(ValueError, match="early"):
        HeaderUnpacker().unpack(block)


@given(st.lists(st.dictionaries(st.text("abc", min_size=1, max_size=9), st.text("xyz", max_size=9)), max_size=5))
def test_headers_come_as_they_were_sent(blocks: list[dict[str, str]]) -> None:
    packer, unpacker = HeaderPacker(), HeaderUnpacker()
    for headers in blocks:
        assert unpacker.unpack(packer.pack(headers)) == headers


@given(data=st.binary(max_size=100_000), cuts=st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_bytes_arrive_whole_however_the_wire_cuts_them(data: bytes, cuts: list[int]) -> None:
    client, server = pair()
    stream = client.open({"streamtype": "data"})
    client.send(stream, data, fin=True)
    wire, got, at, turn = client.take(), b"", 0, 0
    events: list[spdy.Event] = []
    while at < len(wire):
        size = cuts[turn % len(cuts)]
        events += server.receive(wire[at : at + size])
        at, turn = at + size, turn + 1
    got = b"".join(event.data for event in events if isinstance(event, Data))
    assert got == data
    assert [type(event) for event in events if not isinstance(event, Data)] == [Opened, Ended]


@given(st.binary(max_size=300))
def test_hostile_bytes_are_a_protocol_error_or_nothing(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        Spdy().receive(data)
