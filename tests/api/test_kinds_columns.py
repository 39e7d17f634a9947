"""How `kubectl get` sums objects up: pods in the states that people meet, ages, and the cells of other kinds."""

from __future__ import annotations

from typing import Any

import pytest

from minik8s.api.kinds.columns import duration, selector_text, since
from minik8s.api.resource import Json
from minik8s.api.scheme import SCHEME
from minik8s.clock import rfc3339

NOW = 1_700_000_000.0
FIVE_MINUTES_AGO = rfc3339(NOW - 300)
MINUTE, HOUR, DAY = 60, 3600, 86400


def row(obj: Json, version: str = "v1") -> dict[str, Any]:
    resource = SCHEME.by_kind(version, obj["kind"])
    assert resource is not None
    obj.setdefault("metadata", {}).setdefault("name", "x")
    return {column.name: column.cell(obj, NOW) for column in resource.columns}


def status(name: str = "c", *, ready: bool = False, restarts: int = 0, last: str = "", **state: Any) -> Json:
    """A container's status; `state` is one of waiting, running, terminated."""
    made: Json = {"name": name, "ready": ready, "restartCount": restarts, "state": state}
    if last:
        made["lastState"] = {"terminated": {"finishedAt": last, "exitCode": 1}}
    return made


def pod(*statuses: Json, phase: str = "Running", **more: Any) -> Json:
    init = more.pop("init", ())
    spec = {"containers": [{"name": s["name"]} for s in statuses] or [{"name": "c"}]}
    spec |= {"initContainers": more.pop("inits", [{"name": s["name"]} for s in init])} if init else {}
    meta = more.pop("metadata", {})
    inside = {"phase": phase, "containerStatuses": list(statuses), "initContainerStatuses": list(init)}
    return {"kind": "Pod", "metadata": meta, "spec": spec | more.pop("spec", {}), "status": inside | more}


RUNNING = {"running": {"startedAt": FIVE_MINUTES_AGO}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}
SIDECAR = [{"name": "side", "restartPolicy": "Always"}]


def up(name: str = "c", **more: Any) -> Json:
    return status(name, ready=True, **more, **RUNNING)


def side(**more: Any) -> Json:
    return status("side", **more) | {"started": "running" in more}


def is_true(type: str) -> Json:
    return {"type": type, "status": "True"}


@pytest.mark.parametrize(
    ("it", "ready", "word", "restarts"),
    [
        pytest.param(pod(phase="Pending"), "0/1", "Pending", "0", id="pending"),
        pytest.param(
            pod(status(waiting={"reason": "ContainerCreating"}), phase="Pending"),
            "0/1", "ContainerCreating", "0", id="creating",
        ),
        pytest.param(pod(up()), "1/1", "Running", "0", id="running"),
        pytest.param(pod(up(), status("d", **RUNNING)), "1/2", "Running", "0", id="half ready"),
        pytest.param(
            pod(status(waiting={"reason": "CrashLoopBackOff"}, restarts=3, last=FIVE_MINUTES_AGO)),
            "0/1", "CrashLoopBackOff", "3 (5m ago)", id="crash loop",
        ),
        pytest.param(pod(up(restarts=2)), "1/1", "Running", "2", id="restarted at an unknown time"),
        pytest.param(
            pod(status(waiting={"reason": "ErrImagePull"}), phase="Pending"), "0/1", "ErrImagePull", "0", id="pull",
        ),
        pytest.param(pod(status(**DONE), phase="Succeeded"), "0/1", "Completed", "0", id="completed"),
        pytest.param(
            pod(status(terminated={"exitCode": 137, "reason": "OOMKilled"})), "0/1", "OOMKilled", "0", id="oom",
        ),
        pytest.param(pod(status(terminated={"exitCode": 3})), "0/1", "ExitCode:3", "0", id="exit code"),
        pytest.param(pod(status(terminated={"exitCode": 137, "signal": 9})), "0/1", "Signal:9", "0", id="signal"),
        pytest.param(pod(up(), status("d", **DONE)), "1/2", "NotReady", "0", id="one of two is over"),
        pytest.param(
            pod(up(), status("d", **DONE), conditions=[is_true("Ready")]), "1/2", "Running", "0", id="over, and ready",
        ),
        pytest.param(pod(phase="Failed", reason="Evicted"), "0/1", "Evicted", "0", id="evicted"),
        pytest.param(
            pod(phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
            "0/1", "SchedulingGated", "0", id="gated",
        ),
        pytest.param(
            pod(up(), metadata={"deletionTimestamp": FIVE_MINUTES_AGO}), "1/1", "Terminating", "0", id="terminating",
        ),
        pytest.param(
            pod(status(**DONE), phase="Succeeded", metadata={"deletionTimestamp": FIVE_MINUTES_AGO}),
            "0/1", "Completed", "0", id="over and held by a finalizer",
        ),
        pytest.param(
            pod(up(), reason="NodeLost", metadata={"deletionTimestamp": FIVE_MINUTES_AGO}),
            "1/1", "Unknown", "0", id="lost",
        ),
        pytest.param(
            pod(init=[status("i", waiting={"reason": "PodInitializing"})], phase="Pending"),
            "0/1", "Init:0/1", "0", id="init",
        ),
        pytest.param(
            pod(init=[status("i", **DONE), status("j", **RUNNING)], phase="Pending"),
            "0/1", "Init:1/2", "0", id="second init",
        ),
        pytest.param(
            pod(init=[status("i", terminated={"exitCode": 1, "reason": "Error"})], phase="Pending"),
            "0/1", "Init:Error", "0", id="init error",
        ),
        pytest.param(
            pod(init=[status("i", terminated={"exitCode": 2})], phase="Pending"),
            "0/1", "Init:ExitCode:2", "0", id="init exit code",
        ),
        pytest.param(
            pod(init=[status("i", waiting={"reason": "CrashLoopBackOff"}, restarts=4, last=FIVE_MINUTES_AGO)]),
            "0/1", "Init:CrashLoopBackOff", "4 (5m ago)", id="init crash loop",
        ),
        pytest.param(
            pod(up(restarts=1, last=FIVE_MINUTES_AGO), init=[status("i", restarts=7, **DONE)]),
            "1/1", "Running", "1 (5m ago)", id="restarts of what is over do not count",
        ),
        pytest.param(
            pod(up(), init=[side(ready=True, restarts=2, **RUNNING)], inits=SIDECAR),
            "2/2", "Running", "2", id="sidecar",
        ),
        pytest.param(
            pod(status(waiting={"reason": "PodInitializing"}), init=[side(waiting={})], inits=SIDECAR, phase="Pending"),
            "0/2", "Init:0/1", "0", id="sidecar starting",
        ),
        pytest.param(
            pod(
                up(), init=[side(restarts=2, waiting={"reason": "CrashLoopBackOff"})], inits=SIDECAR,
                conditions=[is_true("Initialized")],
            ),
            "1/2", "Init:CrashLoopBackOff", "2", id="sidecar crashing later",
        ),
    ],
)  # fmt: skip
def test_a_pod_in_one_row(it: Json, ready: str, word: str, restarts: str) -> None:
    cells = row(it)
    assert (cells["Ready"], cells["Status"], cells["Restarts"]) == (ready, word, restarts)


def test_wide_cells_of_a_pod() -> None:
    bare = row(pod())
    assert [bare[name] for name in ("IP", "Node", "Nominated Node", "Readiness Gates")] == ["<none>"] * 4
    gates = {"readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}], "nodeName": "n1"}
    full = row(pod(spec=gates, podIP="10.0.0.1", conditions=[is_true("a")]))
    assert (full["IP"], full["Node"], full["Readiness Gates"]) == ("10.0.0.1", "n1", "1/2")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (130, "2m10s"), (599, "9m59s"),
        (600, "10m"), (3 * HOUR - 1, "179m"), (3 * HOUR, "3h"), (3 * HOUR + 5 * MINUTE, "3h5m"), (8 * HOUR, "8h"),
        (47 * HOUR + 59, "47h"), (48 * HOUR, "2d"), (50 * HOUR, "2d2h"), (8 * DAY, "8d"), (729 * DAY, "729d"),
        (730 * DAY, "2y"), (765 * DAY, "2y35d"), (3000 * DAY, "8y"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_the_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ages_of_times_that_are_none() -> None:
    assert since(None, NOW) == since("", NOW) == since("yesterday", NOW) == "<unknown>"


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (None, "<none>"),
        ({}, "<none>"),
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]}, "a in (x,y)"),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, "!a"),
    ],
)
def test_selectors_as_text(selector: Json | None, text: str) -> None:
    assert selector_text(selector) == text


def test_services() -> None:
    ports = [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]
    cells = row({"kind": "Service", "spec": {"type": "NodePort", "clusterIP": "10.96.0.1", "ports": ports}})
    assert (cells["Cluster-IP"], cells["External-IP"], cells["Port(s)"]) == (
        "10.96.0.1", "<none>", "80:30080/TCP,53/UDP",
    )  # fmt: skip
    assert row({"kind": "Service", "spec": {"type": "LoadBalancer"}})["External-IP"] == "<pending>"
    assert row({"kind": "Service", "spec": {"type": "ExternalName", "externalName": "x.org"}})["External-IP"] == "x.org"


def test_nodes() -> None:
    labels = {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/edge": ""}
    ready = {"conditions": [is_true("Ready")]}
    node = {"kind": "Node", "metadata": {"labels": labels}, "spec": {"unschedulable": True}, "status": ready}
    assert (row(node)["Status"], row(node)["Roles"]) == ("Ready,SchedulingDisabled", "control-plane,edge")
    assert row({"kind": "Node"})["Status"] == "Unknown"


def test_jobs() -> None:
    spec = {"completions": 3, "parallelism": 1}
    over = {"startTime": rfc3339(NOW - 90), "completionTime": rfc3339(NOW - 60), "succeeded": 3}
    job = {"kind": "Job", "spec": spec, "status": over | {"conditions": [is_true("Complete")]}}
    cells = row(job, "batch/v1")
    assert (cells["Status"], cells["Completions"], cells["Duration"]) == ("Complete", "3/3", "30s")
    queue = row({"kind": "Job", "spec": {"parallelism": 4}}, "batch/v1")
    assert (queue["Status"], queue["Completions"], queue["Duration"]) == ("Running", "0/1 of 4", "")


def test_endpoints_show_three_and_count_the_rest() -> None:
    addresses = [{"ip": f"10.0.0.{i}"} for i in range(1, 6)]
    subset = {"addresses": addresses, "ports": [{"port": 80}]}
    text = "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."
    assert row({"kind": "Endpoints", "subsets": [subset]})["Endpoints"] == text
    assert row({"kind": "Endpoints"})["Endpoints"] == "<none>"
