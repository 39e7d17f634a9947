"""What time brings, without waiting for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minik8s.faas.runtime.board import CALLING, IDLE, OFFERED, READING, SLOTS, Board
from minik8s.faas.runtime.fleet import UNUSED, Fleet
from minik8s.faas.runtime.revision import Revision
from minik8s.faas.runtime.settings import Settings


def nobody(*_: Any) -> None:
    raise AssertionError("there is no connection and no worker here")


def fleet(tmp_path: Path, **used: float) -> Fleet:
    """With loaded revisions, by when they were used last."""
    made = Fleet(Board(), tmp_path, first_uid=None, returned=nobody, ended=nobody, answered=nobody, watch=nobody,
                 unwatch=nobody)  # fmt: skip
    for name, at in used.items():
        revision = made.revisions[name] = Revision(Settings(name), tmp_path / name, None)
        revision.contract, revision.used = "main", at
        revision.folder.mkdir()
    return made


def test_what_is_not_used_is_dropped_but_for_what_was_used_last(tmp_path: Path) -> None:
    made = fleet(tmp_path, a=100.0, b=130.0, c=90.0)
    made.check(100.0 + UNUSED)
    assert sorted(made.revisions) == ["b"]
    made.check(1000.0)
    assert [each.name for each in tmp_path.iterdir()] == ["b"]


def test_the_newest_by_number(tmp_path: Path) -> None:
    newest = fleet(tmp_path, **{"f-99999": 3.0, "f-100000": 1.0}).newest()
    assert newest is not None
    assert newest.settings.revision == "f-100000"


def test_the_board() -> None:
    board = Board()
    slots = [board.allot() for _ in range(SLOTS)]
    assert len(set(slots)) == SLOTS
    assert board.allot() is None
    board.offer(7)
    assert board.read(7).state == OFFERED
    board.mark(7, READING)
    board.call(7)
    board.call(7)
    state, since, calls = board.read(7)
    assert (state, since > 0, calls) == (CALLING, True, 2)
    assert board.read(6).state == board.read(8).state == IDLE
    board.offer(7)
    assert board.read(7).calls == 0
    board.release(7)
    assert board.allot() == 7
