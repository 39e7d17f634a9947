"""What minik8s itself has to say on this machine: its agent's log, from its file or from systemd's journal."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

POLL = 0.2  # seconds between looks at a file that is followed
ALL = "all"
LEVELS = ("debug", "info", "warning", "error", "critical")
JOURNAL = ("journalctl", "--unit", "minik8s", "--output", "cat", "--no-pager", "--quiet")
CURSOR = "-- cursor: "
Event = dict[str, Any]


def show(
    component: str, data_dir: Path, *, level: str, follow: bool, tail: int | None = None, since: float | None = None
) -> None:
    """Print the lines of a component, or of all; `since` in seconds. Raises ClickException."""
    from minik8s.log import words
    from minik8s.roles.process import has_unit

    render = words(colours=sys.stdout.isatty())
    batches = _journal(follow=follow) if has_unit(data_dir) else _file(data_dir, follow=follow)
    first = True
    for lines in batches:
        events = [event for line in lines if (event := read(line)) is not None]
        chosen = [event for event in events if fits(event, component, level, _begin(since))]
        if first and not chosen:
            _say_who_speaks(component, events)
        for event in last(chosen, tail) if first else chosen:
            click.echo(event["event"] if len(event) == 1 else render(dict(event)))
        sys.stdout.flush()
        first = False


def _begin(since: float | None) -> str:
    return "" if since is None else (datetime.now(UTC) - timedelta(seconds=since)).isoformat()


def read(line: str) -> Event | None:
    """A line of the log; what is no event (a traceback of a fall) has nothing but words. None for an empty line."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event:
        return event
    return {"event": line} if line.strip() else None


def fits(event: Event, component: str, level: str, begin: str) -> bool:
    """Is it of that component (or `all`), of that level at least, and not before that time (RFC 3339, UTC)?"""
    if component not in (ALL, event.get("component")):
        return False
    rank = LEVELS.index(event["level"]) if event.get("level") in LEVELS else len(LEVELS)
    return rank >= LEVELS.index(level) and str(event.get("timestamp", begin)) >= begin


def last(events: list[Event], tail: int | None) -> list[Event]:
    """As kubectl's --tail: all if it is not given or negative."""
    return events if tail is None or tail < 0 else events[len(events) - min(tail, len(events)) :]


def _say_who_speaks(component: str, events: Iterable[Event]) -> None:
    from minik8s.cli import unknown

    known = sorted({str(event["component"]) for event in events if "component" in event})
    if component in (ALL, *known):
        return
    of = f"; there are lines of {', '.join(known)}" if known else ""
    click.echo(f"{unknown('component', component, known)}, or one that has said nothing yet{of}", err=True)


# -- where lines come from: first all that are there, then, if they are followed, what comes


def _file(data_dir: Path, *, follow: bool) -> Iterator[Sequence[str]]:
    from minik8s.config import LOG_FOLDER
    from minik8s.log.file import NAME, Reader

    path = data_dir / LOG_FOLDER / NAME
    with closing(Reader(path)) as reader:
        try:
            yield reader.new()
            while follow:
                time.sleep(POLL)
                if lines := reader.new():
                    yield lines
        except FileNotFoundError:
            raise click.ClickException(
                f"no agent has kept a log in {path.parent}: give the agent's --data-dir, "
                "or read 'journalctl' if a service of yours runs it"
            ) from None
        except PermissionError:
            raise click.ClickException(f"{path} is its owner's alone to read: try with sudo") from None


def _journal(*, follow: bool) -> Iterator[Sequence[str]]:
    try:
        done = subprocess.run([*JOURNAL, "--show-cursor"], capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise click.ClickException("systemd runs the agent, and there is no journalctl to read its journal") from None
    if done.returncode:
        raise click.ClickException(f"journalctl: {done.stderr.strip()}")
    lines = done.stdout.splitlines()
    cursor = lines.pop().removeprefix(CURSOR) if lines and lines[-1].startswith(CURSOR) else ""
    yield lines
    if not follow:
        return
    begin = ("--after-cursor", cursor) if cursor else ("--lines", "0")
    with subprocess.Popen(
        [*JOURNAL, "--follow", *begin], stdout=subprocess.PIPE, text=True, errors="replace"
    ) as journal:
        try:
            for line in journal.stdout or ():
                yield [line]
        finally:
            journal.terminate()
