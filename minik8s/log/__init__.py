"""Logs are events with fields: coloured lines on a terminal, one JSON object a line elsewhere; repeats are folded.

An agent keeps its log in a file of its own, too (`keep`), unless systemd's journal has it already.
"""

from __future__ import annotations

import atexit
import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

if "rich" not in sys.modules:  # structlog imports it where it can: 6 MB and 80 ms for tracebacks that nobody gets here
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog

    del sys.modules["rich"]
import structlog

from minik8s.log.file import NAME, BoundedFile
from minik8s.log.folding import Event, Folding

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "console", "json")
REPORT = "this is a fault of minik8s itself, which goes on: please report it, with this line"  # a remedy, of a kind
Render = Callable[[Event], str]


def configure(level: str = "info", format: str = "auto") -> None:
    """Set up structlog for this process. `format` auto = console on a terminal, JSON otherwise."""
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    render = words(colours=sys.stderr.isatty()) if console else as_json
    _output.begin(render)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _output.take],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    # Libraries log by the standard module: only their warnings are of interest.
    logging.basicConfig(level=logging.WARNING, handlers=[_Libraries()], force=True)


def keep(folder: Path) -> None:
    """Write the log to `agent.log` in this folder, too. Raises OSError.

    Not where standard error is systemd's journal, which keeps it already; and where it is itself a file in this
    folder (an agent in the background) nothing is written twice.
    """
    if not _is_journal():
        _output.keep(BoundedFile(folder / NAME), alone=_is_file_in(folder))


def get_logger(component: str) -> Any:
    """A logger that names its component in every line."""
    return structlog.get_logger(component=component)


def as_json(event: Event) -> str:
    renderer = structlog.processors.JSONRenderer()
    return str(renderer(None, "", structlog.processors.format_exc_info(None, "", dict(event))))


def words(*, colours: bool) -> Render:
    """For people. An exception's traceback follows its line."""
    plain = structlog.dev.plain_traceback
    renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)
    return lambda event: str(renderer(None, "", dict(event)))


class _Output:
    """Where events go: standard error and a file. From whatever thread; in the order in which they come."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._folding = Folding()
        self._render: Render | None = as_json
        self._file: BoundedFile | None = None
        self._timer: threading.Timer | None = None

    def begin(self, render: Render) -> None:
        self._render, self._folding = render, Folding()

    def keep(self, file: BoundedFile, *, alone: bool) -> None:
        with self._lock:
            self._file = file
            self._render = None if alone else self._render

    def take(self, logger: object, method: str, event: Any) -> NoReturn:
        """The last of structlog's processors."""
        if event.get("exc_info") is True:
            event["exc_info"] = sys.exc_info()[1]
        with self._lock:
            now = time.monotonic()
            self._tell_due(now)
            if self._folding.take(dict(event), now):
                self._write(event)
            self._wake_later(now)
        raise structlog.DropEvent

    def _tell_due(self, now: float) -> None:
        for event in self._folding.due(now):
            self._write(event)

    def _wake_later(self, now: float) -> None:
        """Nobody may say anything any more: the number of repeats is told all the same."""
        due = self._folding.next_due
        if due is not None and self._timer is None:
            self._timer = threading.Timer(due - now + 0.1, self._woken)
            self._timer.daemon = True
            self._timer.start()

    def _woken(self) -> None:
        with self._lock:
            self._timer = None
            now = time.monotonic()
            self._tell_due(now)
            self._wake_later(now)

    def _write(self, event: Event) -> None:
        stamped = dict(structlog.processors.TimeStamper(fmt="iso", utc=True)(None, "", dict(event)))
        if self._render is not None:
            with suppress(OSError, ValueError):  # nobody reads it any more
                print(self._render(stamped), file=sys.stderr, flush=True)
        if self._file is not None:
            self._file.write(as_json(stamped))

    def close(self) -> None:
        with self._lock:
            for event in self._folding.rest():
                self._write(event)


_output = _Output()
atexit.register(_output.close)


class _Libraries(logging.Handler):
    """What libraries say becomes events of components that bear their names."""

    def emit(self, record: logging.LogRecord) -> None:
        tell = structlog.get_logger(component=record.name)
        level = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(tell, level)(record.getMessage(), **({"exc_info": record.exc_info[1]} if record.exc_info else {}))


def _is_journal() -> bool:
    """systemd.exec(5), $JOURNAL_STREAM: device and inode of the stream that leads to the journal."""
    with suppress(OSError):
        is_there = os.fstat(2)
        return os.environ.get("JOURNAL_STREAM") == f"{is_there.st_dev}:{is_there.st_ino}"
    return False


def _is_file_in(folder: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(os.fstat(2).st_mode) and Path(os.readlink("/proc/self/fd/2")).parent == folder.resolve()
    return False
