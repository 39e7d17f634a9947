"""Logs: a JSON object a line, or words on a terminal; levels; repeats folded; a file that stays small."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minik8s
from minik8s.log.file import KEPT, NAME, BoundedFile, Reader, files
from minik8s.log.folding import Folding

PROGRAM = """
import logging, sys
from minik8s.log import configure, get_logger
configure(sys.argv[1], sys.argv[2])
log = get_logger("part")
log.debug("small", key="a/b")
log.info("fact", count=3)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("fault")
logging.getLogger("library").info("chatter")
logging.getLogger("library").warning("trouble")
"""


def run(program: str, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *args], text=True, check=True, **more)


def said(level: str, format: str) -> list[str]:
    done = run(PROGRAM, level, format, capture_output=True)
    assert done.stdout == "", "logs go to standard error"
    return done.stderr.splitlines()


@pytest.mark.parametrize("format", ["json", "auto"])
def test_one_json_object_a_line_where_no_terminal_is(format: str) -> None:
    facts, fault, library = (msgspec.json.decode(line) for line in said("info", format))
    assert facts.pop("timestamp").endswith("Z")
    assert facts == {"component": "part", "count": 3, "event": "fact", "level": "info"}
    assert "ZeroDivisionError" in fault["exception"]
    assert (library["component"], library["event"], library["level"]) == ("library", "trouble", "warning")


def test_levels() -> None:
    assert any("small" in line for line in said("debug", "json"))
    assert not any("fact" in line for line in said("warning", "json"))


def test_words_for_people() -> None:
    text = "\n".join(said("info", "console"))
    assert "fact" in text
    assert "count=3" in text
    assert "\033[" not in text, "colours are for terminals"
    assert "Traceback" in text


# -- repeats


def event(name: str, **fields: Any) -> dict[str, Any]:
    return {"component": "part", "level": "warning", "event": name, **fields}


def test_a_repeat_is_counted_and_told_when_its_window_ends() -> None:
    folding = Folding(window=60)
    assert [folding.take(event("a"), now) for now in (0, 1, 2)] == [True, False, False]
    assert folding.take(event("a", key="other"), 2)
    assert folding.take({**event("a"), "component": "another"}, 2)
    assert folding.next_due == 60
    assert folding.due(59) == []
    assert folding.due(60) == [event("a", repeated=2)]
    assert not folding.take(event("a"), 61), "a new window has begun"
    assert folding.due(120) == [event("a", repeated=1)]
    assert folding.due(180) == []
    assert folding.take(event("a"), 181), "it was away for a whole window"


def test_how_long_it_took_does_not_make_another_event_of_it() -> None:
    folding = Folding()
    assert folding.take(event("a", retry_seconds=1, error=ValueError("x")), 0)
    assert not folding.take(event("a", retry_seconds=2, error=ValueError("x")), 1)
    assert folding.take(event("a", retry_seconds=2, error=ValueError("y")), 1)


def test_few_events_are_remembered() -> None:
    folding = Folding(window=60, most=10)
    told = []
    for number in range(100):
        told += folding.due(number / 100)
        assert folding.take(event(str(number)), number / 100)
        assert not folding.take(event(str(number)), number / 100)
    assert len(told) == 89
    assert len(folding.rest()) == 11


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 50))))
def test_every_event_is_written_or_counted(steps: list[tuple[str, float]]) -> None:
    folding, now, seen = Folding(window=60), 0.0, 0
    for name, pause in steps:
        now += pause
        seen += sum(each["repeated"] for each in folding.due(now))
        seen += folding.take(event(name), now)
    assert seen + sum(each["repeated"] for each in folding.rest()) == len(steps)


FOLDED = """
import time
from minik8s import log
log.configure("info", "json")
log._output._folding._window = 0.2
log.keep(__import__("pathlib").Path(__import__("sys").argv[1]))
part = log.get_logger("part")
for _ in range(5): part.warning("again", key="x")
time.sleep(0.5)
for _ in range(3): part.warning("again", key="x")
"""


def test_repeats_are_told_though_nothing_else_is_said_and_at_the_end(tmp_path: Path) -> None:
    done = run(FOLDED, str(tmp_path), capture_output=True)
    for text in (done.stderr, (tmp_path / NAME).read_text()):
        lines = [msgspec.json.decode(line) for line in text.splitlines()]
        assert [line.get("repeated") for line in lines][:2] == [None, 4]
        assert sum(line.get("repeated", 1) for line in lines) == 8, "all are told in the end"
        assert {line["event"] for line in lines} == {"again"}
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_in_the_background_nothing_is_written_twice_and_the_journal_is_enough(tmp_path: Path) -> None:
    with (tmp_path / "start.log").open("wb") as own:
        run(FOLDED, str(tmp_path), stderr=own)
    assert (tmp_path / "start.log").read_bytes() == b""
    assert '"repeated": 4' in (tmp_path / NAME).read_text()
    folder = tmp_path / "journal"
    with (tmp_path / "stream").open("wb") as stream:
        place = os.fstat(stream.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{place.st_dev}:{place.st_ino}"}
        run(FOLDED, str(folder), stderr=stream, env=environment)
    assert not folder.exists()
    assert (tmp_path / "stream").stat().st_size > 0


# -- what is said


def test_every_error_names_a_remedy() -> None:
    """Warnings too, but some are for others to judge: what is an error is somebody's to mend."""
    for path in Path(minik8s.__file__).parent.rglob("*.py"):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)) if any(f"{each}(" in source for each in ERRORS) else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ERRORS:
                assert "remedy" in {each.arg for each in node.keywords}, f"{path}:{node.lineno} tells no remedy"


ERRORS = {f"{log}.{level}" for log in ("log", "self.log") for level in ("error", "exception", "critical")}


# -- the file


def test_a_file_stays_small_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "log" / NAME
    for _ in range(2):  # a restart goes on with the file
        file = BoundedFile(path, largest=1000)
        for number in range(100):
            file.write(f"line {number:03} " + "x" * 40)
        file.close()
    assert len(files(path)) == KEPT
    assert all(each.stat().st_size <= 1000 and stat.S_IMODE(each.stat().st_mode) == 0o600 for each in files(path))
    kept = Reader(path).new()
    assert [line[:8] for line in kept] == [f"line {number:03}" for number in range(100 - len(kept), 100)]
    assert len(kept) > 40


def test_a_line_larger_than_the_file_is_written_all_the_same(tmp_path: Path) -> None:
    file = BoundedFile(tmp_path / NAME, largest=100)
    for line in ("small", "x" * 500, "after"):
        file.write(line)
    assert Reader(tmp_path / NAME).new() == ["small", "x" * 500, "after"]


def test_a_reader_follows_over_a_change_of_files_and_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / NAME
    file, reader = BoundedFile(path, largest=100), Reader(path)
    seen = []
    for number in range(30):
        file.write(f"line {number:02} " + "x" * 20)
        seen += reader.new()
    assert [line[:7] for line in seen] == [f"line {number:02}" for number in range(30)]
    with path.open("ab") as other:
        other.write(b"half")
        other.flush()
        assert reader.new() == []
        other.write(b" and half\n")
    assert reader.new() == ["half and half"]


def test_a_full_disk_stops_nobody(tmp_path: Path) -> None:
    file = BoundedFile(tmp_path / NAME)
    os.close(file._descriptor)
    file._descriptor = os.open("/dev/full", os.O_WRONLY)
    file.write("lost")
