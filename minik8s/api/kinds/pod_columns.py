"""How `kubectl get pods` sums a pod up in one word, one fraction and one count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minik8s.api.kinds.columns import AGE, NAME, NONE, UNKNOWN, condition, dig, since
from minik8s.api.resource import Column, Json


class Summary(NamedTuple):
    """One pod in one row."""

    status: str
    ready: int
    total: int
    restarts: int
    last_restart: str  # RFC 3339, "" if there was none


def summarize(pod: Json) -> Summary:
    """What a pod is doing, judged in the order in which its containers come: init containers count until they are over,
    and then only those that go on beside the others (sidecars) do.
    """
    sidecars = {c.get("name", "") for c in dig(pod, "spec.initContainers", ()) if c.get("restartPolicy") == "Always"}
    total = len(dig(pod, "spec.containers", ())) + len(sidecars)
    status = str(dig(pod, "status.reason") or dig(pod, "status.phase") or UNKNOWN)
    if _condition(pod, "PodScheduled").get("reason") == "SchedulingGated":
        status = "SchedulingGated"
    init, main = dig(pod, "status.initContainerStatuses", ()), dig(pod, "status.containerStatuses", ())
    begun, blocked, ready = _initialization(init, sidecars, len(dig(pod, "spec.initContainers", ())))
    counted = init[:begun]
    status = blocked or status
    if not blocked or _condition(pod, "Initialized").get("status") == "True":
        counted = [*(s for s in counted if s.get("name") in sidecars), *main]
        ready += sum(_is_ready(s) for s in main)
        status = _of_containers(pod, main, status)
    if pod["metadata"].get("deletionTimestamp"):
        if dig(pod, "status.reason") == "NodeLost":
            status = "Unknown"
        elif dig(pod, "status.phase") not in ("Succeeded", "Failed"):
            status = "Terminating"
    restarts = sum(s.get("restartCount", 0) for s in counted)
    last = max((dig(s, "lastState.terminated.finishedAt", "") for s in counted), default="")
    return Summary(status, ready, total, restarts, last)


def _initialization(statuses: Sequence[Json], sidecars: set[str], total: int) -> tuple[int, str, int]:
    """(how many init containers were looked at, what keeps the pod from going on or "", ready sidecars)."""
    ready = 0
    for index, status in enumerate(statuses):
        terminated, waiting = dig(status, "state.terminated"), dig(status, "state.waiting")
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        if status.get("name") in sidecars and status.get("started"):
            ready += bool(status.get("ready"))
            continue
        if terminated is not None:
            return index + 1, f"Init:{_ended(terminated)}", ready
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return index + 1, f"Init:{waiting['reason']}", ready
        return index + 1, f"Init:{index}/{total}", ready
    return len(statuses), "", ready


def _ended(terminated: Json) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _is_ready(status: Json) -> bool:
    ended = dig(status, "state.terminated") is not None or bool(dig(status, "state.waiting.reason"))
    return not ended and bool(status.get("ready")) and dig(status, "state.running") is not None


def _of_containers(pod: Json, statuses: Sequence[Json], text: str) -> str:
    """The first container that has something to say wins."""
    for status in reversed(statuses):
        waiting, terminated = dig(status, "state.waiting"), dig(status, "state.terminated")
        if waiting is not None and waiting.get("reason"):
            text = str(waiting["reason"])
        elif terminated is not None:
            text = _ended(terminated)
    if text == "Completed" and any(_is_ready(status) for status in statuses):
        return "Running" if _condition(pod, "Ready").get("status") == "True" else "NotReady"
    return text


def _condition(pod: Json, type: str) -> Json:
    return condition(pod, type) or {}


def reason(pod: Json) -> str:
    """The STATUS column: phase, unless a container, an initialisation or a deletion has something better to tell."""
    return summarize(pod).status


def ready(pod: Json, now: float) -> str:
    found = summarize(pod)
    return f"{found.ready}/{found.total}"


def restarts(pod: Json, now: float) -> str:
    """`3 (5m ago)`: how often, and how long since the last time."""
    found = summarize(pod)
    ago = f" ({since(found.last_restart, now)} ago)" if found.restarts and found.last_restart else ""
    return f"{found.restarts}{ago}"


def readiness_gates(pod: Json, now: float) -> str:
    gates = dig(pod, "spec.readinessGates", ())
    if not gates:
        return NONE
    return f"{sum(_condition(pod, g.get('conditionType', '')).get('status') == 'True' for g in gates)}/{len(gates)}"


COLUMNS = (
    NAME,
    Column("Ready", ready, description="Ready containers of all containers."),
    Column("Status", lambda pod, now: reason(pod), description="What the pod is doing, in one word."),
    Column("Restarts", restarts, description="How often its containers were restarted, and when last."),
    AGE,
    Column("IP", lambda pod, now: dig(pod, "status.podIP", "") or NONE, description="Address.", priority=1),
    Column("Node", lambda pod, now: dig(pod, "spec.nodeName", "") or NONE, description="Where it runs.", priority=1),
    Column(
        "Nominated Node",
        lambda pod, now: dig(pod, "status.nominatedNodeName", "") or NONE,
        description="Where room is being made for it.",
        priority=1,
    ),
    Column("Readiness Gates", readiness_gates, description="Extra conditions that hold, of all.", priority=1),
)
