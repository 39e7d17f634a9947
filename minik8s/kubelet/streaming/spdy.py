"""SPDY/3.1 as kubectl speaks it: bytes in, events out, and bytes to send. No I/O.

Many streams share a connection; each has two halves that end separately (FIN) or together (RST_STREAM).
There is no flow control by WINDOW_UPDATE, on purpose: the one implementation in use on the other side (that of
Kubernetes' Go clients) neither sends nor heeds such frames, so waiting for one would be waiting for ever. What holds a
fast sender back is TCP: whoever drives this machine stops reading while a stream's reader is behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import pack, unpack_from
from typing import NamedTuple

from minik8s.kubelet.streaming.spdy_headers import HeaderPacker, HeaderUnpacker

MAX_CONTROL = 64 * 1024  # bytes of a control frame; data frames are passed on in pieces, as they come
MAX_DATA = 32 * 1024  # bytes of a data frame that we send
MAX_STREAMS = 1024  # open at once; more are refused

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN, UNIDIRECTIONAL = 1, 2
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, STREAM_ALREADY_CLOSED = 1, 2, 3, 5, 9
_MIN_LENGTH = {SYN_STREAM: 10, SYN_REPLY: 4, RST_STREAM: 8, PING: 4, GOAWAY: 4, HEADERS: 4, WINDOW_UPDATE: 8}
_VERSION = 0x8003
_ID = 0x7FFFFFFF


class ProtocolError(Exception):
    """The peer broke the rules in a way that spoils the whole connection."""


class Opened(NamedTuple):
    """The peer has opened a stream; it waits for our `reply`."""

    stream: int
    headers: dict[str, str]


class Replied(NamedTuple):
    stream: int
    headers: dict[str, str]


class Data(NamedTuple):
    stream: int
    data: bytes


class Ended(NamedTuple):
    """The peer will send no more on this stream."""

    stream: int


class Reset(NamedTuple):
    """The stream is gone, both halves."""

    stream: int
    status: int


class GoneAway(NamedTuple):
    """The peer will open no more streams and ignores those of ours after `last`."""

    last: int


Event = Opened | Replied | Data | Ended | Reset | GoneAway


class _Halves:
    """Which halves of a stream are still open."""

    __slots__ = ("local", "remote")

    def __init__(self, *, local: bool = True, remote: bool = True) -> None:
        self.local = local
        self.remote = remote


class Spdy:
    """One end of a connection. After each call, send what `take()` gives."""

    def __init__(self, *, client: bool = False) -> None:
        self._next = 1 if client else 2
        self._peer_parity = 0 if client else 1
        self._peer_last = 0
        self._ping = self._next
        self._streams: dict[int, _Halves] = {}
        self._packer, self._unpacker = HeaderPacker(), HeaderUnpacker()
        self._in, self._out = bytearray(), bytearray()
        self._data_stream = self._data_left = 0
        self._data_fin = False

    @property
    def streams(self) -> frozenset[int]:
        """Those that are open, at least by half."""
        return frozenset(self._streams)

    def take(self) -> bytes:
        """What is to be sent, once."""
        out = bytes(self._out)
        self._out.clear()
        return out

    # -- sending

    def open(self, headers: Mapping[str, str], *, fin: bool = False) -> int:
        """Open a stream; with `fin` we send nothing more on it."""
        stream, self._next = self._next, self._next + 2
        self._streams[stream] = _Halves(local=not fin)
        self._control(SYN_STREAM, pack(">IIH", stream, 0, 0) + self._packer.pack(headers), FIN if fin else 0)
        return stream

    def reply(self, stream: int, headers: Mapping[str, str] | None = None) -> None:
        """Accept a stream that the peer has opened."""
        self._control(SYN_REPLY, pack(">I", stream) + self._packer.pack(headers or {}))

    def send(self, stream: int, data: bytes = b"", *, fin: bool = False) -> None:
        """Send data, and with `fin` the end. On a stream that is reset or ended already this does nothing."""
        halves = self._streams.get(stream)
        if halves is None or not halves.local:
            return
        for at in range(0, len(data), MAX_DATA):
            piece = data[at : at + MAX_DATA]
            self._out += pack(">II", stream, len(piece)) + piece
        if fin:
            self._out += pack(">II", stream, FIN << 24)
            halves.local = False
            self._forget(stream, halves)

    def reset(self, stream: int, status: int = CANCEL) -> None:
        """Give a stream up; what still comes for it is dropped."""
        if self._streams.pop(stream, None) is not None:
            self._control(RST_STREAM, pack(">II", stream, status))

    def ping(self) -> None:
        """Have the peer answer, so that a dead connection shows."""
        self._control(PING, pack(">I", self._ping))
        self._ping = self._ping + 2 & _ID

    def go_away(self) -> None:
        """Tell the peer to open no more streams."""
        self._control(GOAWAY, pack(">II", self._peer_last, 0))

    def _control(self, kind: int, payload: bytes, flags: int = 0) -> None:
        self._out += pack(">HHI", _VERSION, kind, flags << 24 | len(payload)) + payload

    def _forget(self, stream: int, halves: _Halves) -> None:
        if not halves.local and not halves.remote:
            del self._streams[stream]

    # -- receiving

    def receive(self, data: bytes) -> list[Event]:
        """The events of what has come; an unfinished frame waits for the next call. Raises ProtocolError."""
        self._in += data
        return list(self._events())

    def _events(self) -> Iterator[Event]:
        while self._in:
            if self._data_left:
                yield from self._data_piece()
            elif len(self._in) < 8:
                return
            elif not self._in[0] & 0x80:
                self._data_stream, sized = unpack_from(">II", self._in)
                self._data_fin, self._data_left = bool(sized >> 24 & FIN), sized & 0xFFFFFF
                del self._in[:8]
                if not self._data_left:
                    yield from self._data_end()
            else:
                version, kind, sized = unpack_from(">HHI", self._in)
                length = sized & 0xFFFFFF
                if version != _VERSION:
                    raise ProtocolError(f"this is no SPDY/3.1: a frame begins with {version:#06x}")
                if length > MAX_CONTROL or length < _MIN_LENGTH.get(kind, 0):
                    raise ProtocolError(f"a control frame of kind {kind} has {length} bytes")
                if len(self._in) < 8 + length:
                    return
                payload = bytes(self._in[8 : 8 + length])
                del self._in[: 8 + length]
                yield from self._frame(kind, sized >> 24, payload)

    def _data_piece(self) -> Iterator[Event]:
        piece = bytes(self._in[: self._data_left])
        del self._in[: len(piece)]
        self._data_left -= len(piece)
        halves = self._streams.get(self._data_stream)
        if halves is not None and halves.remote:
            yield Data(self._data_stream, piece)
        elif halves is not None:
            self.reset(self._data_stream, STREAM_ALREADY_CLOSED)
            yield Reset(self._data_stream, STREAM_ALREADY_CLOSED)
        elif self._unknown(self._data_stream):
            self._control(RST_STREAM, pack(">II", self._data_stream, INVALID_STREAM))
        if not self._data_left:
            yield from self._data_end()

    def _unknown(self, stream: int) -> bool:
        """It never was; as against one that has been reset, whose last data may still be on the way."""
        return stream > (self._peer_last if stream % 2 == self._peer_parity else self._next - 2)

    def _data_end(self) -> Iterator[Event]:
        if self._data_fin:
            yield from self._ended(self._data_stream)

    def _ended(self, stream: int) -> Iterator[Event]:
        halves = self._streams.get(stream)
        if halves is not None and halves.remote:
            halves.remote = False
            self._forget(stream, halves)
            yield Ended(stream)

    def _frame(self, kind: int, flags: int, payload: bytes) -> Iterator[Event]:
        if kind not in _MIN_LENGTH:  # SETTINGS, and what SPDY/3.1 lets us ignore
            return
        stream = unpack_from(">I", payload)[0] & _ID
        if kind == SYN_STREAM:
            yield from self._opened(stream, flags, self._headers(payload[10:]))
        elif kind in (SYN_REPLY, HEADERS):
            headers = self._headers(payload[4:])
            if kind == SYN_REPLY and stream in self._streams:
                yield Replied(stream, headers)
            if flags & FIN:
                yield from self._ended(stream)
        elif kind == RST_STREAM and self._streams.pop(stream, None) is not None:
            yield Reset(stream, unpack_from(">I", payload, 4)[0])
        elif kind == PING and stream % 2 == self._peer_parity:
            self._control(PING, payload[:4])
        elif kind == GOAWAY:
            yield GoneAway(stream)

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            return self._unpacker.unpack(block)
        except ValueError as error:
            raise ProtocolError(str(error)) from None

    def _opened(self, stream: int, flags: int, headers: dict[str, str]) -> Iterator[Event]:
        if stream % 2 != self._peer_parity or stream <= self._peer_last:
            raise ProtocolError(f"stream {stream} cannot be opened after {self._peer_last}")
        self._peer_last = stream
        if len(self._streams) >= MAX_STREAMS:
            self._control(RST_STREAM, pack(">II", stream, REFUSED_STREAM))
            return
        self._streams[stream] = _Halves(local=not flags & UNIDIRECTIONAL)
        yield Opened(stream, headers)
        if flags & FIN:
            yield from self._ended(stream)
