"""One WebSocket a page carries all that lives in it: watches and logs, each under an id that the page has chosen.

The page sends `{"id": "pods", "path": "/api/v1/pods", "query": {…}, "version": "42"}` to follow a collection (from a
resourceVersion if it has one), `{"id": …, "path": …/log, "log": true}` to follow a log, `{"id": …, "stop": true}` to
end either. It is sent JSON arrays:

    [id, "PAGE", first, list]     a part of the collection; `first` begins it anew, no `metadata.continue` completes it
    [id, "EVENTS", [frame, …]]    watch events as the API has them, bookmarks included
    [id, "TEXT", text]            of a log;  [id, "END"] after its last
    [id, "ERROR", status]         a Kubernetes Status; a watch is tried again, a log is not

Objects pass through as the bytes that the API server sent.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from minik8s.aio import backoff
from minik8s.api.errors import BadRequest, Forbidden, Gone, NotFound, StatusError, Unauthorized, from_status
from minik8s.api.meta import Struct
from minik8s.web import gate
from minik8s.web.upstream import Upstream

PAGE = 500  # objects asked for at once: the first can be shown while the rest are read
MOST = 64  # followed at once by a page
REFUSED_PAUSE = 30.0  # seconds until what was refused or unknown is asked for again


class Socket(Protocol):
    async def send_str(self, data: str) -> None: ...


class _Meta(Struct):
    resourceVersion: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _Headed(Struct):
    metadata: _Meta = _Meta()


class _Frame(Struct):
    type: str = ""
    object: _Headed = _Headed()


class Request(Struct):
    """What a page sends."""

    id: str
    path: str = ""
    query: dict[str, str] = {}
    version: str = ""
    log: bool = False
    stop: bool = False


_request = msgspec.json.Decoder(Request)
_headed = msgspec.json.Decoder(_Headed)
_frame = msgspec.json.Decoder(_Frame)


class Live:
    """`take` what the page sends; everything ends with `tasks`."""

    def __init__(self, socket: Socket, upstream: Upstream, tasks: asyncio.TaskGroup) -> None:
        self._socket, self._upstream, self._tasks = socket, upstream, tasks
        self._running: dict[str, asyncio.Task[None]] = {}

    def take(self, text: str) -> None:
        """Raises BadRequest."""
        try:
            asked = _request.decode(text)
        except msgspec.DecodeError as error:
            raise BadRequest(f"not understood: {error}") from None
        running = self._running.pop(asked.id, None)
        if running is not None:
            running.cancel()
        if asked.stop:
            return
        if len(self._running) >= MOST:
            raise BadRequest(f"a page follows {MOST} collections at most")
        task = self._tasks.create_task(self._log(asked) if asked.log else self._watch(asked))
        self._running[asked.id] = task
        task.add_done_callback(lambda done: self._forget(asked.id, done))

    def _forget(self, id: str, task: asyncio.Task[None]) -> None:
        if self._running.get(id) is task:
            del self._running[id]

    def stop(self) -> None:
        for task in self._running.values():
            task.cancel()

    async def _watch(self, asked: Request) -> None:
        """List, then follow, for ever; a version that has become too old is listed anew."""
        version, delays = asked.version, backoff(0.2, 5.0)
        while True:
            pause = 0.1  # also where a server ends watches at once
            try:
                path = _checked(asked)
                if not version:
                    version = await self._list(asked, path)
                version = await self._follow(asked, path, version)
                delays = backoff(0.2, 5.0)
            except _Cut as cut:
                version, pause = cut.version, next(delays)
                await self._send(asked.id, b"ERROR", msgspec.json.encode(cut.error.to_status()))
            except Gone:
                version = ""
            except StatusError as error:
                await self._send(asked.id, b"ERROR", msgspec.json.encode(error.to_status()))
                refused = isinstance(error, Forbidden | NotFound | Unauthorized | BadRequest)
                version, pause = "", REFUSED_PAUSE if refused else next(delays)
            await asyncio.sleep(pause)

    async def _list(self, asked: Request, path: gate.Target) -> str:
        """The version to follow from: of the first page, so that nothing that changes meanwhile is missed."""
        version, more = "", ""
        while True:
            query = [*asked.query.items(), ("limit", str(PAGE)), *([("continue", more)] if more else [])]
            data = await self._upstream.request("GET", path.path, query)
            if path.resource == "secrets":
                data = msgspec.json.encode(gate.hidden(msgspec.json.decode(data)))
            meta = _headed.decode(data).metadata
            await self._send(asked.id, b"PAGE", b"false" if more else b"true", data)
            version, more = version or meta.resourceVersion, meta.continue_
            if not more:
                return version

    async def _follow(self, asked: Request, path: gate.Target, version: str) -> str:
        """Pass events on until the server ends the watch; the version to go on from. Raises Gone, _Cut."""
        query = [*asked.query.items(), ("watch", "true"), ("resourceVersion", version), ("allowWatchBookmarks", "true")]
        rest = b""
        try:
            async with self._upstream.stream(path.path, query, watch=True) as pieces:
                async for piece in pieces:
                    *lines, rest = (rest + piece).split(b"\n")
                    frames = [_plain(line, path) for line in lines if line]
                    for frame in frames:
                        version = _version(frame) or version
                    if frames:
                        await self._send(asked.id, b"EVENTS", b"[" + b",".join(frames) + b"]")
        except (Gone, Forbidden, Unauthorized):
            raise
        except StatusError as error:
            raise _Cut(version, error) from error
        return version

    async def _log(self, asked: Request) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        try:
            path = _checked(asked)
            if not path.is_log:
                raise BadRequest(f"{asked.path} is no log")
            async with self._upstream.stream(path.path, list(asked.query.items()), watch=False) as pieces:
                async for piece in pieces:
                    await self._send(asked.id, b"TEXT", msgspec.json.encode(decoder.decode(piece)))
            await self._send(asked.id, b"END")
        except StatusError as error:
            await self._send(asked.id, b"ERROR", msgspec.json.encode(error.to_status()))

    async def _send(self, id: str, *parts: bytes) -> None:
        kind, *values = parts
        data = b",".join([msgspec.json.encode(id), b'"' + kind + b'"', *values])
        await self._socket.send_str(f"[{data.decode()}]")


class _Cut(Exception):
    """A watch broke off; it can go on after `version`."""

    def __init__(self, version: str, error: StatusError) -> None:
        super().__init__(str(error))
        self.version, self.error = version, error


def _checked(asked: Request) -> gate.Target:
    path = gate.target(asked.path)
    gate.check("GET", path, write=False)
    return path


def _plain(line: bytes, path: gate.Target) -> bytes:
    if path.resource != "secrets":
        return line
    frame: Mapping[str, Any] = msgspec.json.decode(line)
    return msgspec.json.encode({**frame, "object": gate.hidden(frame["object"])})


def _version(line: bytes) -> str:
    """Of the frame's object. Raises the StatusError that an ERROR frame holds."""
    try:
        frame = _frame.decode(line)
    except msgspec.ValidationError:
        return ""
    if frame.type == "ERROR":
        raise from_status(msgspec.json.decode(line)["object"])
    return frame.object.metadata.resourceVersion
