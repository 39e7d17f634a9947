"""Completion indexes: a pod's number in an Indexed Job, and sets of them as text, `0-2,5`. Pure.

Where failures are counted for each index (`backoffLimitPerIndex`), a pod knows how often its index has failed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from minik8s.api.kinds.job import Job
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Json

INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_ENV = "JOB_COMPLETION_INDEX"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"


def is_indexed(job: Job) -> bool:
    return job.spec.completionMode == "Indexed"


def counts_per_index(job: Job) -> bool:
    return is_indexed(job) and job.spec.backoffLimitPerIndex is not None


def index_of(pod: Pod) -> int:
    """-1 for a pod without a usable index."""
    text = pod.metadata.annotations.get(INDEX, "")
    return int(text) if text.isdecimal() else -1


def failures_before(pod: Pod) -> tuple[int, int]:
    """How often the pod's index had failed when it was made: what counts, and what the failure policy ignored."""
    texts = (pod.metadata.annotations.get(name, "") for name in (FAILURES, IGNORED))
    counted, ignored = (int(text) if text.isdecimal() else 0 for text in texts)
    return counted, ignored


def parse(text: str) -> set[int]:
    """`0-2,5` -> {0, 1, 2, 5}; what is no range is skipped, since only we write it."""
    return {index for first, last in ranges(text) for index in range(first, last + 1)}


def ranges(text: str) -> list[tuple[int, int]]:
    """`0-2,5` -> [(0, 2), (5, 5)]"""
    found: list[tuple[int, int]] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found.append((int(first), int(last or first)))
    return found


def show(indexes: Iterable[int]) -> str:
    parts: list[list[int]] = []
    for index in sorted(indexes):
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def free(completions: int, taken: Set[int], count: int) -> list[int]:
    """The lowest `count` indexes that nobody has."""
    found: list[int] = []
    for index in range(completions):
        if len(found) >= count:
            break
        if index not in taken:
            found.append(index)
    return found


def indexed_pod(pod: Json, job: Job, index: int, failures: tuple[int, int] = (0, 0)) -> Json:
    """A pod document for one index: name, host name, annotation, label and environment variable tell it."""
    name, meta, spec = job.metadata.name, pod["metadata"], pod["spec"]
    counted, ignored = failures
    told = {INDEX: str(index)}
    if counts_per_index(job):
        told |= {FAILURES: str(counted)} | ({IGNORED: str(ignored)} if ignored else {})
    marked = {
        **meta,
        "generateName": f"{name}-{index}-",
        "annotations": {**meta.get("annotations", {}), **told},
        "labels": {**meta.get("labels", {}), INDEX: str(index)},
    }
    variable = {"name": INDEX_ENV, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}}
    containers = {
        kind: [_with_variable(container, variable) for container in spec[kind]]
        for kind in ("containers", "initContainers")
        if spec.get(kind)
    }
    return {"metadata": marked, "spec": {"hostname": f"{name}-{index}", **spec, **containers}}


def _with_variable(container: Json, variable: Json) -> Json:
    known = container.get("env") or []
    if any(each.get("name") == INDEX_ENV for each in known):
        return container
    return {**container, "env": [*known, variable]}
