"""Logs: a JSON object a line, or words on a terminal; levels; nothing of libraries but their warnings."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

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


def said(level: str, format: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, level, format], capture_output=True, text=True, check=True)
    assert done.stdout == "", "logs go to standard error"
    return done.stderr.splitlines()


@pytest.mark.parametrize("format", ["json", "auto"])
def test_one_json_object_a_line_where_no_terminal_is(format: str) -> None:
    *lines, library = said("info", format)
    facts, fault = (msgspec.json.decode(line) for line in lines)
    assert facts.pop("timestamp").endswith("Z")
    assert facts == {"component": "part", "count": 3, "event": "fact", "level": "info"}
    assert "ZeroDivisionError" in fault["exception"]
    assert library == "library: trouble"


def test_levels() -> None:
    assert any("small" in line for line in said("debug", "json"))
    assert not any("fact" in line for line in said("warning", "json"))


def test_words_for_people() -> None:
    text = "\n".join(said("info", "console"))
    assert "fact" in text
    assert "count=3" in text
    assert "\033[" not in text, "colours are for terminals"
    assert "Traceback" in text
