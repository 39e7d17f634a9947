"""How `kubectl get pods` sums a pod up in one word, one fraction and one count."""

from __future__ import annotations

from minik8s.api.kinds.columns import AGE, NAME, NONE, UNKNOWN, dig, since
from minik8s.api.resource import Column, Json


def _sidecars(pod: Json) -> set[str]:
    return {c.get("name", "") for c in dig(pod, "spec.initContainers", ()) if c.get("restartPolicy") == "Always"}


def _true(pod: Json, type: str) -> bool:
    return any(c.get("type") == type and c.get("status") == "True" for c in dig(pod, "status.conditions", ()))


def reason(pod: Json) -> str:
    """The STATUS column: phase, unless a container, an initialisation or a deletion has something better to tell."""
    text = dig(pod, "status.reason") or dig(pod, "status.phase") or UNKNOWN
    if any(
        c.get("reason") == "SchedulingGated" for c in dig(pod, "status.conditions", ()) if c["type"] == "PodScheduled"
    ):
        text = "SchedulingGated"
    initializing, text = _initializing(pod, text)
    if not initializing:
        text = _of_containers(pod, text)
    if pod["metadata"].get("deletionTimestamp"):
        return UNKNOWN.strip("<>").capitalize() if dig(pod, "status.reason") == "NodeLost" else "Terminating"
    return str(text)


def _initializing(pod: Json, text: str) -> tuple[bool, str]:
    sidecars, total = _sidecars(pod), len(dig(pod, "spec.initContainers", ()))
    for index, status in enumerate(dig(pod, "status.initContainerStatuses", ())):
        terminated, waiting = dig(status, "state.terminated"), dig(status, "state.waiting")
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        if status.get("name") in sidecars and status.get("started"):
            continue
        if terminated is not None:
            return True, f"Init:{_ended(terminated)}"
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return True, f"Init:{waiting['reason']}"
        return True, f"Init:{index}/{total}"
    return False, text


def _ended(terminated: Json) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _of_containers(pod: Json, text: str) -> str:
    running = False
    for status in reversed(dig(pod, "status.containerStatuses", ())):
        waiting, terminated = dig(status, "state.waiting"), dig(status, "state.terminated")
        if waiting is not None and waiting.get("reason"):
            text = waiting["reason"]
        elif terminated is not None:
            text = _ended(terminated)
        elif status.get("ready") and dig(status, "state.running") is not None:
            running = True
    if text == "Completed" and running:
        return "Running" if _true(pod, "Ready") else "NotReady"
    return text


def ready(pod: Json, now: float) -> str:
    sidecars = _sidecars(pod)
    total = len(dig(pod, "spec.containers", ())) + len(sidecars)
    count = sum(bool(s.get("ready")) and dig(s, "state.running") is not None
                for s in dig(pod, "status.containerStatuses", ()))  # fmt: skip
    count += sum(s.get("name") in sidecars and bool(s.get("started")) and bool(s.get("ready"))
                 for s in dig(pod, "status.initContainerStatuses", ()))  # fmt: skip
    return f"{count}/{total}"


def restarts(pod: Json, now: float) -> str:
    statuses = [*dig(pod, "status.containerStatuses", ()), *dig(pod, "status.initContainerStatuses", ())]
    count = sum(s.get("restartCount", 0) for s in statuses)
    last = max((dig(s, "lastState.terminated.finishedAt", "") for s in statuses), default="")
    return f"{count} ({since(last, now)} ago)" if count and last else str(count)


def readiness_gates(pod: Json, now: float) -> str:
    gates = dig(pod, "spec.readinessGates", ())
    if not gates:
        return NONE
    return f"{sum(_true(pod, g.get('conditionType', '')) for g in gates)}/{len(gates)}"


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
