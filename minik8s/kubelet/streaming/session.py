"""One exec or attach: the client's channels joined to the process's streams, and how it ended as a Status.

The client's side is a `Channels`, of which there are two: SPDY's streams and a WebSocket's numbered frames.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, suppress
from typing import NamedTuple, Protocol

from minik8s.api.resource import Json
from minik8s.runtime.base import RuntimeFailure, Streams
from minik8s.takeover import first_of

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE = 255  # v5.channel.k8s.io: the channel whose number follows has ended
MAX_SIZE = 0xFFFF  # of a terminal, in columns or rows


class Streaming(NamedTuple):
    """What a client said that it has. With a terminal there is no stderr: all is stdout."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class Channels(Protocol):
    """The client of an exec or attach. All methods raise ConnectionError when it has gone."""

    async def feed(self, process: Streams) -> bool:
        """Carry what the client types, and its terminal's sizes, to the process; False when the client has gone."""

    async def send(self, stream: int, data: bytes) -> None:
        """Output; 1 stdout, 2 stderr."""

    async def ping(self) -> bool:
        """Now and then send something, for ever."""

    async def finish(self, status: Json) -> None:
        """Tell how it ended, after all output, and take leave."""


async def converse(channels: Channels, opened: AbstractAsyncContextManager[Streams]) -> None:
    """Run a session to its end. When the client goes first, the process's streams are closed and nobody is told."""
    with suppress(ConnectionError):
        try:
            async with opened as process:
                if not await first_of(_output(process, channels), channels.feed(process), channels.ping()):
                    return
                code = await process.exit_code()
            status = exited(code or 0)
        except RuntimeFailure as error:
            status = failed(str(error))
        await channels.finish(status)


async def _output(process: Streams, channels: Channels) -> bool:
    """True at the end of the process's output."""
    while (piece := await process.read()) is not None:
        await channels.send(*piece)
    return True


def exited(code: int) -> Json:
    """The Status of a process that ran: clients find the exit code among its causes."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failed(message: str) -> Json:
    """The Status of a process that could not be run or reached."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"error executing command in container: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


async def resize(process: Streams, size: object) -> None:
    """Apply a client's `{"Width": columns, "Height": rows}`; nonsense is ignored, as is a size of nothing."""
    if isinstance(size, dict):
        width, height = size.get("Width"), size.get("Height")
        if isinstance(width, int) and isinstance(height, int) and 0 < width <= MAX_SIZE and 0 < height <= MAX_SIZE:
            await process.resize(width, height)
