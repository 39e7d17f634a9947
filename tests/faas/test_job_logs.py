"""Whose log tells why a Job has failed."""

from __future__ import annotations

from minik8s.api.kinds.pod import ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus
from minik8s.api.meta import ObjectMeta
from minik8s.faas.job_logs import culprit


def pod(name: str, *ends: tuple[str, int, str], restarted: bool = False) -> Pod:
    states = [ContainerState(terminated=ContainerStateTerminated(exitCode=code, finishedAt=at)) for _, code, at in ends]
    statuses = tuple(
        ContainerStatus(name=end[0], lastState=state) if restarted else ContainerStatus(name=end[0], state=state)
        for end, state in zip(ends, states, strict=True)
    )
    return Pod(metadata=ObjectMeta(name=name), status=PodStatus(containerStatuses=statuses))


def test_the_container_that_ended_badly_last() -> None:
    first = pod("first", ("main", 1, "2026-01-01T00:00:01Z"))
    second = pod("second", ("good", 0, "2026-01-01T00:00:09Z"), ("main", 2, "2026-01-01T00:00:05Z"))
    found = culprit([second, first])
    assert found is not None
    assert (found[0].metadata.name, found[1]) == ("second", "main")
    again = pod("again", ("main", 1, "2026-01-01T00:00:07Z"), restarted=True)
    assert culprit([second, again]) == (again, "main")
    assert culprit([pod("fine", ("main", 0, "2026-01-01T00:00:01Z"))]) is None
    assert culprit([Pod()]) is None
