"""Heads of HTTP/1.1 as they come in and as they go on: what concerns one connection alone stays behind. Pure.

From clients a head is taken as strictly as a server must that passes it on (RFC 9112): whoever reads the length of a
body otherwise than the next in line lets requests be smuggled. The parser (llhttp) refuses most of that; the rest here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from minik8s.api.errors import BadRequest, MethodNotAllowed
from minik8s.faas.gateway.body import Body
from minik8s.faas.gateway.trace import Trace

MAX_LINE = 16 * 1024  # bytes of a target, and of one header
CALL_ID = re.compile(rb"[A-Za-z0-9-]{1,64}")
HAND_BACK = b"return"  # Minik8s-Invoke of a request: answer with an Invoke in place of following it
BODYLESS = (204, 304)  # statuses of answers without body and length

Line = tuple[bytes, bytes]

# Headers of one connection, and such as only a gateway may say: they are not passed on as they are.
_NOTED = {
    b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"te",
    b"trailer", b"upgrade", b"http2-settings", b"expect", b"prefer", b"traceparent", b"x-minik8s-async",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"minik8s-call", b"minik8s-revision",
    b"minik8s-invoke", b"minik8s-runtime", b"minik8s-error",
}  # fmt: skip
_NOT_ANSWERED = {
    b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"upgrade",
    b"minik8s-runtime", b"minik8s-invoke", b"minik8s-call",
}  # fmt: skip


class Asked:
    """A request. `lines` are those that go on, `noted` (lower case names) those that do not; `path` is as on the wire.
    `length`: of the body in bytes, None for chunks."""

    __slots__ = ("body", "expects", "keep_alive", "length", "lines", "method", "modern", "noted", "onward", "path",
                 "peer", "query", "secure")  # fmt: skip

    def __init__(self, method: bytes, target: bytes, *, modern: bool) -> None:
        self.method = method
        path, _, query = target.partition(b"?")
        self.path = path.decode("latin-1")
        self.query = query
        self.modern = modern  # HTTP/1.1: its client understands chunks
        self.lines: list[Line] = []
        self.noted: dict[bytes, bytes] = {}
        self.length: int | None = 0
        self.keep_alive = True
        self.expects = False  # the client waits for `100 Continue` before it sends the body
        self.body: Body
        self.peer = b""  # the client's address
        self.secure = False
        self.onward = b""  # `onward` of it, where that was asked before

    def again(self, body: Body) -> Asked:
        """A request with the same head, on the same connection or another one."""
        new = Asked.__new__(Asked)
        new.method, new.path, new.query, new.modern = self.method, self.path, self.query, self.modern
        new.lines, new.noted, new.length, new.onward = self.lines, self.noted, self.length, self.onward
        new.keep_alive, new.expects, new.body = True, False, body
        new.peer, new.secure = self.peer, self.secure
        return new

    @property
    def usual(self) -> bool:
        """Its head may come again, and says all that there is to know of where it ends. With a trace it will not."""
        noted = self.noted
        return self.keep_alive and self.length is not None and not self.expects and b"traceparent" not in noted

    @property
    def asynchronous(self) -> bool:
        noted = self.noted
        if b"prefer" not in noted and b"x-minik8s-async" not in noted:
            return False
        return b"respond-async" in noted.get(b"prefer", b"") or noted.get(b"x-minik8s-async", b"").lower() == b"true"


def read_head(method: bytes, target: bytes, version: str, lines: Iterable[Line]) -> Asked:
    """The request that begins so. Raises StatusError for one that is not to be served."""
    if version != "1.1" and version != "1.0":
        raise BadRequest(f"HTTP/{version} is not spoken here, only HTTP/1.1 and HTTP/1.0")
    if method == b"CONNECT":
        raise MethodNotAllowed("this is no proxy: CONNECT is not served")
    if not target.startswith(b"/"):
        target = _of_url(target)
    if len(target) > MAX_LINE:
        raise BadRequest(f"the target of the request is longer than {MAX_LINE} bytes")
    asked = Asked(method, target, modern=version == "1.1")
    passed, noted = asked.lines, asked.noted
    for line in lines:
        name = line[0].lower()
        if len(line[1]) > MAX_LINE:
            raise BadRequest(f"a header of the request is longer than {MAX_LINE} bytes")
        if name not in _NOTED:
            passed.append(line)
        elif name in noted:
            noted[name] += b", " + line[1]
        else:
            noted[name] = line[1]
    _check(asked, noted)
    return asked


def _check(asked: Asked, noted: dict[bytes, bytes]) -> None:
    host = noted.get(b"host")
    if (host is None and asked.modern) or (host is not None and b"," in host):
        raise BadRequest("this is no HTTP request: it must have one Host header")
    length, coding = noted.get(b"content-length"), noted.get(b"transfer-encoding")
    if length is not None:
        asked.length = int(length)
    if coding is not None:
        if coding.strip().lower() != b"chunked" or not asked.modern:
            shown = coding[:60].decode("latin-1")
            raise BadRequest(f'the transfer encoding "{shown}" is not understood, only chunked in HTTP/1.1')
        asked.length = None
    if b"expect" in noted:
        if noted[b"expect"].lower() != b"100-continue":
            raise BadRequest("that expectation is not understood, only 100-continue")
        asked.expects = asked.modern
    if b"connection" in noted:
        private = {word.strip().lower() for word in noted[b"connection"].split(b",")}
        asked.lines[:] = [line for line in asked.lines if line[0].lower() not in private]


def _of_url(target: bytes) -> bytes:
    """A request line may have a whole URL (RFC 9112, section 3.2.2)."""
    scheme, mark, rest = target.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        raise BadRequest(f'the target of the request is no path: "{target[:60].decode("latin-1")}"')
    return b"/" + rest.partition(b"/")[2]


class Sent(NamedTuple):
    """A request to a pod but for its first lines; one may be sent again, to another pod. `body` is all of it, or what
    comes bit by bit and can be sent once."""

    method: bytes
    target: bytes  # path and query
    lines: bytes  # of headers, with their ends
    body: bytes | Body
    length: int | None  # of the body; None for chunks


def onward(asked: Asked, *, known: bool) -> bytes:
    """The lines that go on, and such as are the same for all requests with this head. `known`: its trace goes on."""
    noted = asked.noted
    host = noted.get(b"host", b"")
    forwarded = noted.get(b"x-forwarded-for")
    scheme = noted.get(b"x-forwarded-proto") or (b"https" if asked.secure else b"http")
    shown = noted.get(b"x-forwarded-host", host)
    lines = b"".join([b"%s: %s\r\n" % line for line in asked.lines if known or line[0].lower() != b"tracestate"])
    own = b"Host: %s\r\nX-Forwarded-Host: %s\r\nX-Forwarded-Proto: %s\r\n" % (host, shown, scheme)
    return b"%s%sX-Forwarded-For: %s" % (own, lines, b"" if forwarded is None else forwarded + b", ")


def passed_on(asked: Asked, target: str, trace: Trace, body: bytes | Body) -> Sent:
    """The client's request as a pod gets it, all but `Minik8s-Revision`."""
    lines = asked.onward or onward(asked, known=trace.known)
    path = target.encode("latin-1")
    whole = path + b"?" + asked.query if asked.query else path
    length = len(body) if isinstance(body, bytes) else asked.length
    return Sent(asked.method, whole, b"%s%s\r\ntraceparent: %s\r\n" % (lines, asked.peer, trace.parent), body, length)


def invoked(asked: Asked, trace: Trace, params: bytes) -> Sent:
    """The request to the next function of a chain: JSON parameters, and nothing of the client's but who it is."""
    noted = asked.noted
    lines = b"Host: %s\r\nX-Forwarded-For: %s\r\ntraceparent: %s\r\nContent-Type: application/json\r\n" % (
        noted.get(b"host", b""), asked.peer, trace.parent,
    )  # fmt: skip
    return Sent(b"POST", b"/", lines, params, len(params))


def request_bytes(sent: Sent, marks: bytes) -> bytes:
    """The head of a request to a pod, and its body if that is here. `marks` are header lines that tell the runtime what
    the call is."""
    if sent.length is None:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif sent.length or sent.method not in (b"GET", b"HEAD", b"DELETE", b"OPTIONS"):
        framing = b"Content-Length: %d\r\n" % sent.length
    else:
        framing = b""
    body = sent.body if isinstance(sent.body, bytes) else b""
    return b"%s %s HTTP/1.1\r\n%s%s%s\r\n%s" % (sent.method, sent.target, marks, framing, sent.lines, body)


class Answer:
    """What a pod has answered. `length` None: until its end, however that is said."""

    __slots__ = ("body", "chunked", "error", "head", "invoke", "keep_alive", "length", "runtime", "status")

    def __init__(self, status: int, lines: Sequence[Line], body: Body) -> None:
        self.status = status
        self.body = body
        self.length: int | None = None
        self.chunked = False
        self.runtime = self.invoke = self.error = b""
        passed = [status_line(status)]
        for line in lines:
            name = line[0].lower()
            if name not in _NOT_ANSWERED:
                passed.append(b"%s: %s\r\n" % line)
                if name == b"minik8s-error":
                    self.error = line[1]
            elif name == b"content-length":
                self.length = int(line[1])
            elif name == b"transfer-encoding":
                self.chunked = True
            elif name == b"minik8s-runtime":
                self.runtime = line[1]
            elif name == b"minik8s-invoke":
                self.invoke = line[1]
        self.head = b"".join(passed)  # what of it goes on
        self.keep_alive = True

    def again(self, body: Body) -> Answer:
        """An answer with the same head."""
        new = Answer.__new__(Answer)
        new.status, new.head, new.length, new.chunked = self.status, self.head, self.length, self.chunked
        new.runtime, new.invoke, new.error = self.runtime, self.invoke, self.error
        new.keep_alive, new.body = True, body
        return new

    @property
    def usual(self) -> bool:
        """Its head may come again, and says all that there is to know of where it ends."""
        return self.keep_alive and self.length is not None and not self.chunked and self.status not in BODYLESS


def answer_head(answer: Answer, asked: Asked, call: bytes, length: int | None) -> bytes:
    """The head of an answer to a client; `length` None: chunks, or all until the connection is closed."""
    if length is not None and answer.status not in BODYLESS:
        framing = b"Content-Length: %d\r\n" % length
    elif length is None and asked.modern:
        framing = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = b""
    if not asked.keep_alive:
        framing += b"Connection: close\r\n"
    elif not asked.modern:
        framing += b"Connection: keep-alive\r\n"
    return b"%s%sMinik8s-Call: %s\r\n\r\n" % (answer.head, framing, call)


def own_answer(status: int, body: bytes, asked: Asked | None, *, more: Iterable[Line] = ()) -> bytes:
    """A whole answer of the gateway itself; to what was no request (`asked` None), the last on its connection."""
    lines = [b"%s: %s\r\n" % line for line in more]
    if asked is not None and not asked.body.ended:
        asked.keep_alive = False  # what follows on the connection is the rest of a body that nobody wants
    if asked is None or not asked.keep_alive:
        lines.append(b"Connection: close\r\n")
    elif not asked.modern:
        lines.append(b"Connection: keep-alive\r\n")
    shown = b"" if asked is not None and asked.method == b"HEAD" else body
    head = b"%sContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
    return head % (status_line(status), len(body), b"".join(lines)) + shown


@lru_cache(maxsize=128)
def status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # a number that a function has made up
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


def chunk(data: bytes) -> bytes:
    """One chunk of a body. An empty one would end it."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


LAST_CHUNK = b"0\r\n\r\n"
