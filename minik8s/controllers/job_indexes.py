"""Completion indexes: a pod's number in an Indexed Job, and sets of them as text, `0-2,5`. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from minik8s.api.kinds.job import Job
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Json

INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_ENV = "JOB_COMPLETION_INDEX"


def is_indexed(job: Job) -> bool:
    return job.spec.completionMode == "Indexed"


def index_of(pod: Pod) -> int:
    """-1 for a pod without a usable index."""
    text = pod.metadata.annotations.get(INDEX, "")
    return int(text) if text.isdecimal() else -1


def parse(text: str) -> set[int]:
    """`0-2,5` -> {0, 1, 2, 5}; what is no range is skipped, since only we write it."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found.update(range(int(first), int(last or first) + 1))
    return found


def show(indexes: Iterable[int]) -> str:
    parts: list[list[int]] = []
    for index in sorted(indexes):
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def free(completions: int, taken: set[int], count: int) -> list[int]:
    """The lowest `count` indexes that nobody has."""
    found: list[int] = []
    for index in range(completions):
        if len(found) >= count:
            break
        if index not in taken:
            found.append(index)
    return found


def indexed_pod(pod: Json, job: Job, index: int) -> Json:
    """A pod document for one index: name, host name, annotation, label and environment variable tell it."""
    name, meta, spec = job.metadata.name, pod["metadata"], pod["spec"]
    marked = {
        **meta,
        "generateName": f"{name}-{index}-",
        "annotations": {**meta.get("annotations", {}), INDEX: str(index)},
        "labels": {**meta.get("labels", {}), INDEX: str(index)},
    }
    variable = {"name": INDEX_ENV, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}}
    told = {
        kind: [_with_variable(container, variable) for container in spec[kind]]
        for kind in ("containers", "initContainers")
        if spec.get(kind)
    }
    return {"metadata": marked, "spec": {"hostname": f"{name}-{index}", **spec, **told}}


def _with_variable(container: Json, variable: Json) -> Json:
    known = container.get("env") or []
    if any(each.get("name") == INDEX_ENV for each in known):
        return container
    return {**container, "env": [*known, variable]}
