"""A worker that waits for code: it is forked before anybody knows for what."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from minik8s.faas.runtime.fleet import FAILURES, HANDED
from tests.faas.runtime.pod import Pod, children, pod, wait_for

WHO = "import os\n\nasync def main(params):\n    return [os.getpid(), os.getppid(), os.getcwd(), os.environ.get('A')]\n"


def spare_of(made: Pod) -> int:
    wait_for(lambda: children(made.pid))
    (found,) = children(made.pid)
    return found


def test_the_first_code_is_loaded_by_the_process_that_waited_for_it(own: Pod) -> None:
    spare = spare_of(own)
    assert own.load("f-00001", WHO, env={"A": "b"}) == "main"
    pid, parent, folder, variable = own.call("f-00001").json
    assert (pid, parent, Path(folder).stem, variable) == (spare, own.pid, "f-00001", "b")
    own.load("f-00002", WHO)
    assert own.call("f-00002").json[0] != spare
    assert own.call("f-00001").json[0] == spare
    assert own.revisions()["f-00001"]["workers"] == 1


def test_code_that_a_spare_cannot_load_is_told_of_like_any_other(own: Pod) -> None:
    spare_of(own)
    reply = own.put("f-00001", "raise ValueError('not today')\n")
    assert (reply.status, reply.json["reason"]) == (422, "LoadError")
    assert "not today" in reply.json["message"]
    wait_for(lambda: children(own.pid))  # there is no code in the pod, and so there is another one
    own.load("f-00002", WHO)


def test_what_is_large_is_for_a_worker_of_its_own(own: Pod) -> None:
    spare = spare_of(own)
    own.load("f-00001", WHO, filling="x" * HANDED)
    assert own.call("f-00001").json[0] != spare


def test_a_spare_that_is_killed_is_followed_by_another_one_until_that_is_hopeless(own: Pod) -> None:
    for _ in range(FAILURES):
        spare = spare_of(own)
        os.kill(spare, signal.SIGKILL)
        wait_for(lambda gone=spare: gone not in children(own.pid))
    own.load("f-00001", WHO)
    assert own.call("f-00001").json[1] == own.pid


@pytest.mark.long
def test_a_spare_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    with pod(tmp_path) as made:
        told = spare_of(made)
        os.kill(made.pid, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{told}").exists())
