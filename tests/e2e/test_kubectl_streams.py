"""kubectl's verbs that reach into pods: logs, exec, attach, cp, port-forward, debug."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import subprocess
import urllib.request
from pathlib import Path

from tests.agent import free_port, until
from tests.e2e.space import FOREVER, Space, container, pod, service, web
from tests.images import BUSYBOX

TALKER = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done"


def test_logs(both: Space) -> None:
    once = "[ -e /v/again ] && { echo second life; exec sleep 1000000; }; touch /v/again; echo first life; exit 3"
    both.apply(
        pod("two", containers=[container("a", "sh", "-c", "echo from a; sleep 1000000"),
                               container("b", "sh", "-c", TALKER)]),
        pod("again", containers=[container("c", "sh", "-c", once, volumeMounts=[{"name": "v", "mountPath": "/v"}])],
            volumes=[{"name": "v", "emptyDir": {}}]),
    )  # fmt: skip
    both.wait("condition=Ready", "pod/two")
    assert both.out("logs", "two", "-c", "a") == "from a"
    assert both.k("logs", "two").out == "from a\n"  # the first container, with a note on stderr
    follow = both.popen("logs", "-f", "two", "-c", "b", "--tail=2", stdout=-1, text=True)
    try:
        numbers = [int(follow.stdout.readline().split()[1]) for _ in range(5)]
    finally:
        follow.kill()
        follow.communicate()
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert len(both.out("logs", "two", "-c", "b", "--tail=3").splitlines()) == 3
    everything = both.out("logs", "two", "--all-containers", "--prefix", "--tail=4")
    assert "[pod/two/a] from a" in everything
    assert "[pod/two/b] line" in everything
    assert re.match(
        r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line \d+$",
        both.out("logs", "two", "-c", "b", "--timestamps", "--tail=1"),
    )
    assert both.out("logs", "two", "-c", "a", "--since=1h") == "from a"
    assert both.out("logs", "-l", "app=two", "-c", "a") == "from a"
    assert both.out("logs", "two", "-c", "b", "--limit-bytes=6") == "line 1"
    both.until("pod again", lambda p: p["status"]["containerStatuses"][0].get("state", {}).get("running"))
    assert both.out("logs", "again", "--previous") == "first life"
    until(lambda: both.out("logs", "again") == "second life")
    none = both.k("logs", "two", "-c", "nobody", check=False)
    assert none.code == 1
    assert "container nobody is not valid for pod two" in none.err
    assert "previous terminated container" in both.k("logs", "two", "-c", "a", "--previous", check=False).err


def test_exec(both: Space) -> None:
    both.pod("p")
    assert both.k("exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False).code == 7
    ended = both.k("exec", "p", "--", "sh", "-c", "echo out; echo err >&2")
    assert (ended.out, ended.err) == ("out\n", "err\n")
    assert both.k("exec", "-i", "p", "--", "sh", stdin="echo $((6*7)); exit 0\n").out == "42\n"
    assert (
        both.k("exec", "-i", "p", "--", "md5sum", stdin="x" * 3_000_000).out.split()[0]
        == hashlib.md5(b"x" * 3_000_000).hexdigest()
    )
    missing = both.k("exec", "p", "--", "no-such-program", check=False)
    assert missing.code != 0
    assert "no-such-program" in missing.both
    both.apply(web("w", 1))
    both.k("rollout", "status", "deploy/w", "--timeout=30s")
    assert both.out("exec", "deploy/w", "--", "hostname").startswith("w-")


def test_exec_on_a_terminal(both: Space) -> None:
    both.pod("p")
    ours, theirs = pty.openpty()
    shell = both.popen(
        "exec", "-it", "p", "--", "sh", stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    said = b""

    def read_until(wanted: bytes) -> None:
        nonlocal said
        while wanted not in said:
            said += os.read(ours, 4096)
        said = said.partition(wanted)[2]

    try:
        read_until(b"# ")
        os.write(ours, b"[ -t 0 ] && echo it is a $((1))terminal\n")
        read_until(b"it is a 1terminal\r\n")
        os.write(ours, b"sh -c 'echo begun $((1+1)); exec sleep 100'\n")  # it speaks once it is in the foreground
        read_until(b"begun 2\r\n")
        os.write(ours, b"\x03")  # Ctrl-C ends the sleep, not the shell
        read_until(b"^C")
        read_until(b"# ")  # an interrupted shell throws away what was typed before its prompt
        os.write(ours, b"echo still $((1+1)) here\n")
        read_until(b"still 2 here")
        os.write(ours, b"exit 5\n")
        assert shell.wait(10) == 5
    finally:
        shell.kill()
        os.close(ours)


def test_attach(both: Space) -> None:
    both.pod("p", containers=[container("c", "sh", "-c", "while read x; do echo got $x; done", stdin=True)])
    attached = both.popen("attach", "-i", "p", stdin=-1, stdout=-1, text=True)
    try:
        attached.stdin.write("hello\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == "got hello\n"
    finally:
        attached.kill()
        attached.communicate()
    run = both.k(
        "run",
        "-i",
        "--rm",
        "--restart=Never",
        "once",
        f"--image={BUSYBOX}",
        "--",
        "sh",
        "-c",
        "cat; exit 0",
        stdin="typed\n",
    )
    assert "typed" in run.out
    assert both.k("get", "pod", "once", check=False).code == 1


def test_cp_both_ways(both: Space, tmp_path: Path) -> None:
    both.pod("p")
    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(10_000_000))
    digest = hashlib.sha256(sent.read_bytes()).hexdigest()
    both.k("cp", str(sent), f"{both.name}/p:/tmp/received")
    assert both.exec("p", "sha256sum", "/tmp/received").split()[0] == digest
    both.k("cp", f"{both.name}/p:/tmp/received", str(tmp_path / "back"))
    assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == digest
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "file").write_text("deep")
    both.k("cp", str(tmp_path / "folder"), f"{both.name}/p:/tmp/folder")
    assert both.exec("p", "cat", "/tmp/folder/deep/file") == "deep"


def test_port_forward(both: Space) -> None:
    both.apply(web("w", 1), service("w", {"name": "http", "port": 8080, "targetPort": "http"}))
    both.k("rollout", "status", "deploy/w", "--timeout=30s")
    for what, port in (("deploy/w", 80), ("svc/w", 8080)):
        local = free_port()
        forward = both.popen("port-forward", what, f"{local}:{port}", stdout=-1, stderr=subprocess.STDOUT, text=True)
        try:
            assert "Forwarding from 127.0.0.1" in forward.stdout.readline()
            for _ in range(3):
                with urllib.request.urlopen(f"http://127.0.0.1:{local}/", timeout=5) as page:
                    assert b"It works" in page.read()
        finally:
            forward.kill()
            forward.communicate()


def test_debug_adds_an_ephemeral_container(both: Space) -> None:
    both.pod("p", image="minik8s.test/nginx:1")
    debugged = both.k("debug", "p", f"--image={BUSYBOX}", "--container=look", "--target=c", "--", *FOREVER)
    assert debugged.code == 0
    both.until(
        "pod p", lambda p: p["status"].get("ephemeralContainerStatuses", [{}])[0].get("state", {}).get("running")
    )
    assert "nginx" in both.exec("p", "ps", container="look")  # --target: it shares the target's processes
    assert "It works" in both.exec("p", "wget", "-qO-", "http://localhost/", container="look")
