"""What containers may do, seen from inside: system calls, namespaces, capabilities, users, kernel settings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent import until
from tests.e2e.space import FOREVER, Space, container, pod
from tests.images import PYTHON

PROFILES = Path("/var/lib/kubelet/seccomp")
UNCONFINED, FILTERED = "0", "2"  # proc(5), Seccomp
CAP_SYS_RESOURCE = 24
NO_FOLDERS = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
}


def inside(space: Space, name: str, container: str = "") -> dict[str, str]:
    """/proc/1/status of a container."""
    text = space.exec(name, "cat", "/proc/1/status", container=container)
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def capabilities(space: Space, name: str) -> int:
    """Those in effect, as a set of bits, of a container's first process."""
    return int(inside(space, name)["CapEff"], 16)


def waiting(space: Space, name: str, reason: str) -> str:
    """The message with which its only container waits, once it does so for `reason`."""

    def state(p: dict[str, Any]) -> dict[str, str]:
        statuses = p["status"].get("containerStatuses") or [{}]
        found: dict[str, str] = statuses[0].get("state", {}).get("waiting", {})
        return found

    return str(state(space.until(f"pod {name}", lambda p: state(p).get("reason") == reason)).get("message", ""))


@pytest.fixture
def profile() -> Iterator[str]:
    """A seccomp profile of this node, by its path below the folder of profiles."""
    made = [folder for folder in (PROFILES.parent, PROFILES) if not folder.exists()]
    PROFILES.mkdir(parents=True, exist_ok=True)
    file = PROFILES / f"minik8s-test-{os.getpid()}.json"
    file.write_text(json.dumps(NO_FOLDERS))
    yield file.name
    file.unlink()
    for folder in reversed(made):
        folder.rmdir()


def test_seccomp(space: Space, profile: str) -> None:
    def asked(**wanted: str) -> dict[str, Any]:
        return {"securityContext": {"seccompProfile": wanted}}

    space.apply(
        pod("nothing"),
        pod("default", **asked(type="RuntimeDefault")),
        pod("local", **asked(type="Localhost", localhostProfile=profile)),
        pod("mixed", **asked(type="RuntimeDefault"), containers=[
            container("inherits", *FOREVER), container("own", *FOREVER, **asked(type="Unconfined")),
        ]),
        pod("absent", **asked(type="Localhost", localhostProfile="no/such.json")),
    )  # fmt: skip
    space.wait("condition=Ready", "pod/nothing", "pod/default", "pod/local", "pod/mixed")
    assert inside(space, "nothing")["Seccomp"] == UNCONFINED
    assert inside(space, "default")["Seccomp"] == FILTERED
    assert inside(space, "mixed", "inherits")["Seccomp"] == FILTERED
    assert inside(space, "mixed", "own")["Seccomp"] == UNCONFINED
    assert "Operation not permitted" in space.sh("local", "mkdir /tmp/x", check=False)
    assert space.sh("local", "echo fine > /tmp/x && cat /tmp/x") == "fine"
    assert space.sh("nothing", "mkdir /tmp/x && echo made") == "made"
    assert "no/such.json" in waiting(space, "absent", "CreateContainerConfigError")


def test_seccomp_profiles_that_cannot_be(space: Space) -> None:
    for wanted, told in (
        ({"type": "Localhost", "localhostProfile": "../../../../etc/shadow"}, "must not contain '..'"),
        ({"type": "Localhost", "localhostProfile": "/etc/shadow"}, "must be a relative path"),
    ):
        for place in ({"securityContext": {"seccompProfile": wanted}},
                      {"more": {"securityContext": {"seccompProfile": wanted}}}):  # fmt: skip
            refused = space.k("apply", "-f", "-", stdin=json.dumps(pod("p", **place)), check=False)
            assert refused.code == 1, wanted
            assert "seccompProfile" in refused.err
            assert told in refused.err


def test_the_hosts_namespaces(space: Space) -> None:
    space.apply(pod("own"), pod("ipc", hostIPC=True), pod("pid", hostPID=True))
    space.wait("condition=Ready", "pod/own", "pod/ipc", "pod/pid")
    for kind, name in (("ipc", "ipc"), ("pid", "pid")):
        assert space.exec(name, "readlink", f"/proc/self/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
        assert space.exec("own", "readlink", f"/proc/self/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    marked = Path("/dev/shm") / f"minik8s-test-{os.getpid()}"  # shared memory belongs to the namespace
    marked.write_text("shared")
    try:
        assert space.sh("ipc", f"cat {marked}") == "shared"
        assert "No such file" in space.sh("own", f"cat {marked}", check=False)
    finally:
        marked.unlink()
    space.exec("pid", "test", "-d", f"/proc/{os.getpid()}")
    assert space.sh("own", "ls -d /proc/[0-9]* | wc -l") in ("2", "3", "4")  # its own shell, and no one else's


def test_capabilities(space: Space) -> None:
    def having(**wanted: list[str]) -> dict[str, Any]:
        return {"securityContext": {"capabilities": wanted}}

    net_bind, net_admin, chown = 1 << 10, 1 << 12, 1 << 0
    space.apply(
        pod("usual"), pod("more", more=having(add=["NET_ADMIN"])), pod("less", more=having(drop=["CHOWN"])),
        pod("least", more=having(drop=["ALL"], add=["NET_BIND_SERVICE"])),
        pod("all", more={"securityContext": {"privileged": True}}),
    )  # fmt: skip
    space.wait("condition=Ready", "pod/usual", "pod/more", "pod/less", "pod/least", "pod/all")
    usual = capabilities(space, "usual")
    assert usual & chown
    assert not usual & net_admin
    assert capabilities(space, "more") == usual | net_admin
    assert capabilities(space, "less") == usual & ~chown
    assert capabilities(space, "least") == net_bind
    mine = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd:"))
    known = (1 << 38) - 1  # to the oldest Engine that we support
    assert capabilities(space, "all") & known == int(mine.split()[1], 16) & known  # all that there is to give
    if not int(mine.split()[1], 16) >> CAP_SYS_RESOURCE & 1:  # less than a privileged pod has elsewhere: it is told
        (told,) = until(lambda: space.events("Reduced", name="all"))
        assert "privileged is reduced" in told["message"]
    assert not space.events("Reduced", name="usual")
    assert "Operation not permitted" in space.sh("usual", "ip link set lo down", check=False)
    assert space.sh("more", "ip link set lo down && echo done") == "done"


def test_root_is_refused_where_it_is_not_wanted(space: Space) -> None:
    space.apply(
        pod("image", securityContext={"runAsNonRoot": True}),
        pod("said", securityContext={"runAsNonRoot": True}, more={"securityContext": {"runAsUser": 0}}),
        pod("fine", securityContext={"runAsNonRoot": True, "runAsUser": 33}),
    )
    assert "image will run as root" in waiting(space, "image", "CreateContainerConfigError")
    assert "breaks non-root policy" in waiting(space, "said", "CreateContainerConfigError")
    space.wait("condition=Ready", "pod/fine")
    assert space.exec("fine", "id", "-u") == "33"
    assert until(lambda: [e for e in space.events("Failed", name="image") if "run as root" in e["message"]])


def test_kernel_settings_of_a_pod_are_its_own(space: Space) -> None:
    name = "net/ipv4/ip_local_port_range"
    before = Path("/proc/sys", name).read_text()
    sysctls = [{"name": "net.ipv4.ip_local_port_range", "value": "20000 20100"},
               {"name": "kernel.shm_rmid_forced", "value": "1"}]  # fmt: skip
    space.pod("p", securityContext={"sysctls": sysctls})
    assert space.exec("p", "cat", f"/proc/sys/{name}").split() == ["20000", "20100"]
    assert space.exec("p", "cat", "/proc/sys/kernel/shm_rmid_forced") == "1"
    assert Path("/proc/sys", name).read_text() == before
    # One that would change the whole machine.
    space.pod("host", wait="", securityContext={"sysctls": [{"name": "vm.swappiness", "value": "1"}]})
    until(lambda: any("vm.swappiness" in event["message"] for event in space.get("events")))
    assert space.path("pod/host", ".status.phase") != "Running"


HEALTH_SERVER = r"""
import os, socket, struct, threading

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

def read(connection, count):
    data = b""
    while len(data) < count:
        data += connection.recv(count - len(data)) or exit()
    return data

def serve(connection):
    read(connection, 24)  # the preface
    connection.sendall(frame(4, 0, 0))
    while True:
        head = read(connection, 9)
        body, kind, flags = read(connection, int.from_bytes(head[:3], "big")), head[3], head[4]
        stream = int.from_bytes(head[5:], "big")
        if kind == 0 and flags & 1:  # the question is complete: a service's name, or none
            service = body[7:].decode()
            state = 1 if service == "live" or os.path.exists("/tmp/serving") else 2
            literal = lambda name, value: b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
            connection.sendall(
                frame(1, 4, stream, b"\x88" + literal(b"content-type", b"application/grpc"))  # :status 200
                + frame(0, 0, stream, b"\x00" + struct.pack(">I", 2) + bytes([8, state]))
                + frame(1, 5, stream, literal(b"grpc-status", b"0"))
            )

listening = socket.create_server(("", 9090))
while True:
    threading.Thread(target=serve, args=listening.accept()[:1], daemon=True).start()
"""


def test_a_pod_is_as_healthy_as_its_grpc_server_says(space: Space) -> None:
    asked = {"periodSeconds": 1, "failureThreshold": 2}
    space.apply(
        pod("p", "python3", "-c", HEALTH_SERVER, image=PYTHON, more={
            "readinessProbe": {"grpc": {"port": 9090}, **asked},
            "livenessProbe": {"grpc": {"port": 9090, "service": "live"}, "periodSeconds": 1, "failureThreshold": 20},
        }),
        pod("sick", "python3", "-c", HEALTH_SERVER, image=PYTHON, more={
            "livenessProbe": {"grpc": {"port": 9090, "service": "other"}, **asked},
        }),
        pod("deaf", more={"readinessProbe": {"grpc": {"port": 9090}, **asked}}),
    )  # fmt: skip
    no = "Readiness probe failed: service unhealthy (responded with 'NOT_SERVING')"
    until(lambda: any(event["message"].startswith(no) for event in space.events("Unhealthy", name="p")))
    space.exec("p", "touch", "/tmp/serving")
    space.wait("condition=Ready", "pod/p")
    space.exec("p", "rm", "/tmp/serving")
    space.wait("condition=Ready=false", "pod/p")
    assert space.path("pod/p", ".status.containerStatuses[0].restartCount") == "0"
    space.until("pod sick", lambda p: p["status"]["containerStatuses"][0]["restartCount"] >= 1)
    assert "refused" in until(lambda: space.events("Unhealthy", name="deaf"))[0]["message"].lower()
