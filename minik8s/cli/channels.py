"""Standard streams of a container over one WebSocket: v5.channel.k8s.io, or v4 where the server knows no better.

A message's first byte is its channel: 0 stdin, 1 stdout, 2 stderr, 3 the Status at the end, 4 the terminal's size;
255 (v5) closes the channel that the next byte names.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import click

from minik8s.api.errors import from_status
from minik8s.cli.wire import Credentials, Unreachable

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
CHUNK = 32 * 1024  # bytes of standard input in a message
HEARTBEAT = 30.0  # seconds between pings


@asynccontextmanager
async def websocket(
    credentials: Credentials, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str]
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """An open WebSocket. A refusal raises the StatusError that the server answered with."""
    url = f"{credentials.server.rstrip('/')}{path}?{urlencode(query)}"
    async with aiohttp.ClientSession(headers=dict(credentials.headers), raise_for_status=_refused) as session:
        try:
            opening = session.ws_connect(
                url, protocols=protocols, ssl=credentials.tls or True, heartbeat=HEARTBEAT, max_msg_size=0
            )
            async with opening as socket:
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            raise from_status({"message": f"{path.rpartition('/')[2]}: {error.message}"}, code=error.status) from None
        except aiohttp.ClientConnectionError as error:
            raise Unreachable(
                f'unable to reach the server {credentials.server}: {error}; "minik8s start" starts it'
            ) from None


async def _refused(response: aiohttp.ClientResponse) -> None:
    if response.status >= 400:
        body = await response.read()
        try:
            status = json.loads(body)
        except ValueError:
            status = {"message": body.decode(errors="replace").strip()[:500]}
        raise from_status(status if isinstance(status, dict) else {}, code=response.status)


class Conversation:
    """`run` carries the streams until the command ends, and returns its exit code."""

    def __init__(
        self, credentials: Credentials, path: str, query: Sequence[tuple[str, str]], *, stdin: bool, tty: bool
    ) -> None:
        self._credentials, self._path, self._query = credentials, path, query
        self._stdin, self._tty = stdin, tty

    async def run(self) -> int:
        async with websocket(self._credentials, self._path, self._query, PROTOCOLS) as socket:
            with _raw_terminal(self._tty), _ended_in_order(self._tty):
                sending = [asyncio.create_task(self._send(socket))] if self._stdin else []
                sending += [asyncio.create_task(self._resize(socket))] if self._tty else []
                try:
                    return await self._receive(socket)
                finally:
                    for task in sending:
                        task.cancel()
                    await asyncio.gather(*sending, return_exceptions=True)

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> int:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel in (STDOUT, STDERR):
                out = sys.stdout.buffer if channel == STDOUT else sys.stderr.buffer
                out.write(data)
                out.flush()
            elif channel == ERROR:
                return exit_code(json.loads(data))
        raise click.ClickException("the connection to the container broke off")

    async def _send(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Standard input, read by a thread that dies with the process: a blocked read cannot be interrupted."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[bytes] = asyncio.Queue(8)

        def read() -> None:
            while True:
                data = os.read(sys.stdin.fileno(), CHUNK)
                try:
                    asyncio.run_coroutine_threadsafe(chunks.put(data), loop).result()
                except RuntimeError:
                    return  # the loop has ended
                if not data:
                    return

        import threading

        threading.Thread(target=read, daemon=True).start()
        while data := await chunks.get():
            await socket.send_bytes(bytes([STDIN]) + data)
        if socket.protocol == PROTOCOLS[0]:
            await socket.send_bytes(bytes([CLOSE, STDIN]))

    async def _resize(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """The terminal's size, now and whenever it changes."""
        changed = asyncio.Event()
        changed.set()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, changed.set)
        try:
            while await changed.wait():
                changed.clear()
                size = os.get_terminal_size(sys.stdin.fileno())
                body = json.dumps({"Width": size.columns, "Height": size.lines}).encode()
                await socket.send_bytes(bytes([RESIZE]) + body)
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)


def exit_code(status: dict[str, Any]) -> int:
    """The command's exit code out of the Status at the end. Raises StatusError if it could not be run."""
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        causes = (status.get("details") or {}).get("causes") or ()
        code = next((c["message"] for c in causes if c.get("reason") == "ExitCode"), "1")
        return int(code)
    raise _Failed(str(status.get("message") or "the command could not be run"))


class _Failed(click.ClickException):
    """The container's side could not do it."""


@contextmanager
def _ended_in_order(wanted: bool) -> Iterator[None]:
    """A signal that would end the process at once ends the conversation, so that the terminal is put back."""
    if not wanted:
        yield
        return
    loop, task, got = asyncio.get_running_loop(), asyncio.current_task(), [0]
    assert task is not None

    def end(number: int) -> None:
        got[0] = number
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        yield
    except asyncio.CancelledError:
        raise SystemExit(128 + got[0]) from None


@contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    """Keys go to the container as they are pressed; the terminal is put back whatever happens."""
    if not wanted:
        yield
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal, termios.TCSANOW)  # without throwing away what was typed meanwhile
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
