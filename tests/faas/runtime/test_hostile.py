"""Code that does its worst harms its own call, and nobody else's.

Most tests keep good calls going through the same function at the same time, and every one of them must succeed.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faas.runtime.pod import Pod, Reply, children, wait_for

CODE = """
    import ctypes, os, sys, threading, time
    def main(params):
        match params.get("do"):
            case "raise": raise ValueError("as told")
            case "exit": sys.exit(3)
            case "_exit": os._exit(4)
            case "crash": ctypes.string_at(0)
            case "abort": os.abort()
            case "sleep":
                while True: ctypes.CDLL(None).sleep(1000)
            case "spin":
                while True: pass
            case "kill": os.kill(os.getpid(), 9)
            case "killall": os.kill(0, 9)
            case "parent": os.kill(os.getppid(), 15); os._exit(1)
            case "recurse":
                def deeper(): return deeper()
                return deeper()
            case "set": return {1, 2}
            case "nan": return float("nan")
            case "circle":
                circle = []; circle.append(circle)
                return circle
            case "header":
                from serverless import Response
                return Response("", headers={"X": "a\\r\\nSet-Cookie: b"})
            case "base":
                class Nasty(BaseException): pass
                raise Nasty
            case "print":
                for _ in range(100): print("x" * 1_000_000)
            case "fork":
                for _ in range(params["n"]):
                    if os.fork() == 0:
                        os.setsid()
                        time.sleep(1000)
                if params["then"] == "hang": time.sleep(1000)
                if params["then"] == "exit": os._exit(0)
            case "threads":
                threading.Thread(target=time.sleep, args=(1000,)).start()
            case "close":
                os.closerange(3, 1000)
            case "signals":
                import signal
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGUSR1):
                    signal.signal(number, signal.SIG_IGN)
                while True: pass
        return os.getpid()
"""


@pytest.fixture(scope="module")
def name(runtime: Pod) -> str:
    runtime.load("bad-00001", CODE, timeoutSeconds=1)
    return "bad-00001"


@contextmanager
def others(runtime: Pod, name: str) -> Iterator[None]:
    """Good calls of the same function, one after the other on two connections, all the time."""
    stop = threading.Event()

    def caller() -> int:
        connection, count = runtime.connect(), 0
        while not stop.is_set() or count == 0:
            reply = runtime.call(name, {}, on=connection)
            assert reply.status == 200, reply
            count += 1
        connection.close()
        return count

    with ThreadPoolExecutor(2) as threads:
        callers = [threads.submit(caller) for _ in range(2)]
        try:
            yield
        finally:
            stop.set()
        for each in callers:
            each.result()


@pytest.mark.parametrize("do", ["raise", "exit", "recurse", "set", "nan", "circle", "header", "base"])
def test_errors(runtime: Pod, name: str, do: str) -> None:
    connection = runtime.connect()
    with others(runtime, name):
        reply = runtime.call(name, {"do": do}, on=connection)
        assert (reply.status, reply.headers["minik8s-error"]) == (500, "FunctionError")
        assert set(reply.json) == {"error", "message", "traceback"}
        assert runtime.call(name, {}, on=connection).status == 200  # in the same process


@pytest.mark.parametrize(
    ("do", "text"),
    [
        ("_exit", "exited with status 4"),
        ("crash", "signal 11"),
        ("abort", "signal 6"),
        ("kill", "signal 9"),
        ("killall", "signal 9"),
    ],
)
def test_deaths(runtime: Pod, name: str, do: str, text: str) -> None:
    with others(runtime, name):
        reply = runtime.call(name, {"do": do})
    assert (reply.status, reply.headers["minik8s-error"]) == (502, "WorkerLost")
    assert text in reply.json["message"]


@pytest.mark.parametrize("do", ["sleep", "spin", "signals"])
def test_hangs(runtime: Pod, name: str, do: str) -> None:
    with others(runtime, name):
        begun = time.monotonic()
        reply = runtime.call(name, {"do": do})
        assert (reply.status, reply.headers["minik8s-error"]) == (504, "Timeout")
        assert 1 < time.monotonic() - begun < 5
    if do == "sleep":
        assert re.search(r"func.py\", line \d+ in main", runtime.log())  # where it hung


def test_asynchronous_code_that_blocks_its_loop(runtime: Pod) -> None:
    code = """
        import asyncio, time
        async def main(params):
            if params.get('block'):
                time.sleep(1000)
            await asyncio.sleep(params['s'])
            return 'fine'
    """
    runtime.load("block-00001", code, timeoutSeconds=1)
    assert runtime.call("block-00001", {"s": 5}).headers["minik8s-error"] == "Timeout"  # cancelled by its own process
    idle = runtime.connect()
    assert runtime.call("block-00001", {"s": 0}, on=idle).status == 200
    assert runtime.call("block-00001", {"block": True}).status == 504
    assert runtime.call("block-00001", {"s": 0}, on=idle).status == 200  # on the connection that was not in a call


def test_floods_of_output_are_cut(runtime: Pod, name: str) -> None:
    before = len(runtime.log())
    with others(runtime, name):
        assert runtime.call(name, {"do": "print"}, Minik8s_Call="flood").status == 200
    assert "the rest of the output is left out" in runtime.log()
    assert len(runtime.log()) - before < 5 * 2**20


def test_no_dead_children_pile_up(own: Pod) -> None:
    code = """
        import os
        def main(params):
            if os.fork() == 0:
                if os.fork() == 0: os._exit(0)
                os._exit(0)
    """
    own.load("dead-00001", code)
    connection = own.connect()
    for _ in range(20):
        assert own.call("dead-00001", {}, on=connection).status == 200
    (worker,) = children(own.pid)
    assert len(children(worker)) < 10


@pytest.mark.parametrize("then", ["hang", "exit"])
def test_what_code_has_forked_ends_with_its_worker(runtime: Pod, name: str, then: str) -> None:
    def forked() -> int:
        return sum(len(descendants(worker)) for worker in children(runtime.pid)) + len(children(runtime.pid))

    with others(runtime, name):
        reply = runtime.call(name, {"do": "fork", "n": 5, "then": then})
        assert reply.status == (504 if then == "hang" else 502)
    known = runtime.revisions()
    wait_for(lambda: forked() == sum(each["workers"] for each in known.values()))


def descendants(pid: int) -> list[int]:
    """Of those that are alive."""
    try:
        found = [child for child in children(pid) if " Z " not in Path(f"/proc/{child}/stat").read_text()]
    except OSError:
        return []
    return found + [each for child in found for each in descendants(child)]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_copy_of_a_worker_does_not_answer_too(runtime: Pod, kind: str) -> None:
    """A second answer would be taken for that of the connection's next call."""
    code = f"""
        import os, time
        {kind} main(params):
            if os.fork() == 0: return "from the copy"
            time.sleep(0.1)
            return params
    """
    name = f"copy-0000{len(kind)}"
    runtime.load(name, code)
    connection = runtime.connect()
    for number in range(3):
        assert runtime.call(name, number, on=connection).json == number
    assert runtime.call(name, path="/-/ready", on=connection).status == 404


def test_threads_that_stay(runtime: Pod, name: str) -> None:
    with others(runtime, name):
        assert runtime.call(name, {"do": "threads"}).status == 200
        assert runtime.call(name, {}).status == 200


def test_a_worker_that_loses_its_connections(runtime: Pod, name: str) -> None:
    with others(runtime, name):
        with pytest.raises(http.client.RemoteDisconnected):
            runtime.call(name, {"do": "close"})
        assert runtime.call(name, {}).status == 200


def test_processes_that_run_away_are_caught(runtime: Pod) -> None:
    """Each generation leaves a sleeper behind, forks the next one, and ends: there is never the same one to kill."""
    code = """
        import os, time
        def main(params):
            while True:
                time.sleep(0.1)
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        time.sleep(1000)
                else:
                    os._exit(0) if params.get("leave") else time.sleep(1000)
    """
    runtime.load("run-00001", code, timeoutSeconds=1)
    assert runtime.call("run-00001", {}).status == 504
    assert runtime.call("run-00001", {"leave": 1}).status == 502
    wait_for(lambda: len(children(runtime.pid)) == sum(each["workers"] for each in runtime.revisions().values()))
    wait_for(lambda: sum(len(descendants(worker)) for worker in children(runtime.pid)) == 0)


def test_the_supervisor_does_not_end_because_code_wants_it(own: Pod) -> None:
    """In a pod it is the first process, and another user's; here it only drains, as if it was told to."""
    own.load("bad-00001", CODE, timeoutSeconds=1)
    assert own.call("bad-00001", {"do": "parent"}).status == 502
    assert own.call("bad-00001", {}).status == 200


def test_code_that_loads_once_and_never_again(runtime: Pod, tmp_path: Path) -> None:
    marker = tmp_path / "loaded"
    code = f"""
        import os, pathlib
        if pathlib.Path({str(marker)!r}).exists(): raise RuntimeError("only once")
        pathlib.Path({str(marker)!r}).touch()
        def main(params):
            if params.get("die"): os._exit(1)
            return 1
    """
    runtime.load("once-00001", code)
    assert runtime.call("once-00001", {"die": True}).status == 502
    wait_for(lambda: runtime.call("once-00001", {}).headers.get("minik8s-error") == "LoadError")
    assert "only once" in runtime.call("once-00001", {}).json["message"]
    marker.unlink()
    wait_for(lambda: runtime.call("once-00001", {}).status == 200)


def test_an_import_that_hangs_is_ended(own: Pod) -> None:
    """LOADING would be a minute: the calls of other revisions go on meanwhile."""
    own.load("good-00001", "def main(params):\n    return 1\n")
    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(own.put, "hang-00001", "import time\ntime.sleep(1000)\n")
        wait_for(lambda: "hang-00001" in own.revisions())
        assert own.call("good-00001", {}).status == 200
        assert own.control("DELETE", "/-/revisions/hang-00001").status == 200
        assert hanging.result().status == 422


def test_clients_that_do_not_behave(own: Pod) -> None:
    own.load("good-00001", "def main(params):\n    return 1\n", timeoutSeconds=1)
    slow = [own.socket() for _ in range(30)]
    head = b"POST / HTTP/1.1\r\nMinik8s-Revision: good-00001\r\nContent-Length: 5\r\n\r\n"
    for number, sock in enumerate(slow):
        sock.sendall(head[:40] if number % 2 else b"")  # half a head, or nothing: no worker is bothered
    for _ in range(20):  # gone before the answer
        with own.socket() as sock:
            sock.sendall(head.replace(b"5", b"0"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    half = own.socket()
    half.sendall(head + b"ab")  # half a body
    replies: list[Reply] = []
    with ThreadPoolExecutor(8) as threads:
        replies += threads.map(lambda _: own.call("good-00001", {}), range(40))
    assert {reply.status for reply in replies} == {200}
    assert half.recv(1000) == b""  # given up after the function's timeout
    for sock in (*slow, half):
        sock.close()
    wait_for(lambda: own.revisions()["good-00001"]["connections"] == 0)
    assert len(os.listdir(f"/proc/{own.pid}/fd")) < 20
