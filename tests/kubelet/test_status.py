"""Status as kubectl and `wait` read it."""

from __future__ import annotations

import msgspec

from minik8s.clock import rfc3339
from minik8s.kubelet.status import status_patch, termination_message
from minik8s.kubelet.view import Failure

from .sim import NOW, World, make_pod

PROBED = {"name": "web", "readinessProbe": {"tcpSocket": {"port": 80}}}


def test_a_new_pod_is_pending_and_creating():
    world = World(make_pod())
    world.up()
    assert world.status["phase"] == "Pending"
    assert world.container("web")["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert world.condition("PodScheduled")["status"] == "True"
    assert world.condition("Initialized")["status"] == "True"
    assert world.condition("Ready") == {
        "type": "Ready",
        "status": "False",
        "reason": "ContainersNotReady",
        "message": "containers with unready status: [web]",
        "lastTransitionTime": rfc3339(NOW),
    }


def test_running_without_a_probe_is_ready():
    world = World(make_pod())
    world.settle()
    assert world.status["phase"] == "Running"
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("PodReadyToStartContainers")["status"] == "True"
    web = world.container("web")
    assert web["state"] == {"running": {"startedAt": rfc3339(NOW)}}
    assert (web["ready"], web["started"], web["restartCount"]) == (True, True, 0)
    assert web["containerID"] == f"docker://{world.find('web').id}"
    assert web["imageID"] == "docker://sha256:1"
    assert world.status["podIPs"] == [{"ip": "10.244.0.5"}]
    assert world.status["hostIPs"] == [{"ip": "10.0.0.1"}]


def test_readiness_follows_the_probe_and_transition_times_stay_otherwise():
    world = World(make_pod(PROBED))
    world.settle()
    assert world.condition("Ready")["status"] == "False"
    world.now += 5
    world.memory.ready = {world.find("web").id}
    world.step()
    assert world.condition("Ready")["lastTransitionTime"] == rfc3339(NOW + 5)
    assert world.condition("Initialized")["lastTransitionTime"] == rfc3339(NOW)


def test_init_containers_in_turn():
    world = World(make_pod(init=({"name": "one"}, {"name": "two"})))
    world.settle()
    assert world.status["phase"] == "Pending"
    assert world.container("web")["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert world.condition("Initialized")["message"] == "containers with incomplete status: [one two]"
    world.exit(world.find("one").id)
    world.settle()
    assert world.container("one")["ready"]
    assert world.condition("Initialized")["message"] == "containers with incomplete status: [two]"
    world.exit(world.find("two").id)
    world.settle()
    assert world.condition("Initialized")["status"] == "True"
    assert world.status["phase"] == "Running"


def test_crash_loop():
    world = World(make_pod())
    world.settle()
    world.exit(world.find("web").id, 1)
    world.settle()
    assert world.container("web")["lastState"]["terminated"]["exitCode"] == 1
    world.exit(world.find("web").id, 1)
    world.settle()
    web = world.container("web")
    assert web["state"]["waiting"] == {
        "reason": "CrashLoopBackOff",
        "message": "back-off 10s restarting failed container=web pod=web-0_default(u1)",
    }
    assert web["lastState"]["terminated"]["reason"] == "Error"
    assert web["restartCount"] == 1
    assert world.status["phase"] == "Running"


def test_oom_and_start_failures_have_their_reasons():
    world = World(make_pod({"name": "a"}, {"name": "b"}, policy="Never"))
    world.settle()
    world.exit(world.find("a").id, 137, oom_killed=True)
    world.exit(world.find("b").id, 127, error="no such file or directory")
    world.settle()
    assert world.container("a")["state"]["terminated"]["reason"] == "OOMKilled"
    broken = world.container("b")["state"]["terminated"]
    assert (broken["reason"], broken["message"]) == ("ContainerCannotRun", "no such file or directory")
    assert world.status["phase"] == "Failed"
    assert world.condition("Ready")["reason"] == "PodFailed"


def test_image_failure_waits_with_its_reason():
    world = World(make_pod())
    world.up()
    world.memory.failures = {"web": Failure("ImagePullBackOff", 'Back-off pulling image "app:1"', NOW + 10)}
    world.step()
    assert world.container("web")["state"]["waiting"]["reason"] == "ImagePullBackOff"
    assert world.status["phase"] == "Pending"


def test_success():
    world = World(make_pod(policy="OnFailure"))
    world.settle()
    world.exit(world.find("web").id)
    world.memory.messages = {world.find("web").id: "done"}
    world.settle()
    ended = world.container("web")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"], ended["message"]) == ("Completed", 0, "done")
    assert world.status["phase"] == "Succeeded"
    assert world.condition("Ready") | {"lastTransitionTime": ""} == {
        "type": "Ready",
        "status": "False",
        "reason": "PodCompleted",
        "lastTransitionTime": "",
    }
    world.memory.messages = {}
    world.step()
    assert world.container("web")["state"]["terminated"]["message"] == "done"


def test_readiness_gates():
    world = World(make_pod(readinessGates=[{"conditionType": "lb"}]))
    world.settle()
    assert world.condition("Ready")["reason"] == "ReadinessGatesNotReady"
    conditions = [*world.status["conditions"], {"type": "lb", "status": "True", "lastTransitionTime": rfc3339(NOW)}]
    document = msgspec.to_builtins(world.pod)
    document["status"]["conditions"] = conditions
    world.pod = msgspec.convert(document, type(world.pod))
    world.step()
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("lb")["status"] == "True"


def test_a_lost_container_is_told_as_lost():
    world = World(make_pod())
    world.settle()
    lost = world.find("web").id
    del world.infos[lost]
    world.step()
    ended = world.container("web")["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["containerID"]) == (
        137,
        "ContainerStatusUnknown",
        f"docker://{lost}",
    )


def test_patches_hold_only_changes_and_never_others_conditions():
    told = {
        "phase": "Pending",
        "podIPs": [{"ip": "1"}],
        "reason": "x",
        "conditions": [{"type": "Ready", "status": "False", "reason": "r"}, {"type": "lb", "status": "True"}],
    }
    status = {
        "phase": "Pending",
        "podIPs": [{"ip": "2"}],
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "lb", "status": "True"}],
    }
    assert status_patch(told, status) == {
        "reason": None,
        "podIPs": [{"$patch": "replace"}, {"ip": "2"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": None}],
    }
    assert status_patch(status, status) == {}


def test_termination_messages():
    assert termination_message("File", b"bye", b"log", failed=True) == "bye"
    assert termination_message("File", b"", b"log", failed=True) == ""
    assert termination_message("FallbackToLogsOnError", b"", b"log", failed=True) == "log"
    assert termination_message("FallbackToLogsOnError", b"", b"log", failed=False) == ""
    assert len(termination_message("File", b"x" * 9000, b"", failed=False)) == 4096
