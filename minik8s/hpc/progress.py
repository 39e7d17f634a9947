"""What a GpuJob's status becomes when its cluster has said something, and which way its folder is. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from minik8s.api.kinds.gpujob import (
    CANCELLED,
    DOWNLOADING,
    FAILED,
    LOST,
    PENDING,
    QUEUED,
    RUNNING,
    SUBMITTED,
    SUCCEEDED,
    TERMINAL,
    GpuJob,
    GpuJobSpec,
    GpuJobStatus,
    task_ids,
)  # fmt: skip
from minik8s.clock import rfc3339
from minik8s.hpc.remote_text import CONTROL
from minik8s.hpc.reports import WHOLE, Observation


class Wait(NamedTuple):
    """Why a job cannot begin. `for_good`: it never will."""

    reason: str
    message: str
    for_good: bool = False


def submission_id(job: GpuJob, attempt: int) -> str:
    return f"{job.metadata.uid[:8]}-{attempt}"


def remote_folder(job: GpuJob, home: str, work_root: str) -> str:
    """Absolute; the uid tells apart jobs that have the same name one after the other."""
    root = work_root if work_root.startswith("/") else f"{home}/{work_root}"
    return f"{root}/{job.metadata.name}-{job.metadata.uid[:8]}"


def expected_tasks(spec: GpuJobSpec) -> list[int]:
    return task_ids(spec.array) if spec.array else [WHOLE]


def outputs(spec: GpuJobSpec) -> tuple[str, ...]:
    """Files that can be followed while the job runs: those whose names are known beforehand."""
    names = (spec.output.stdout, spec.output.stderr)
    return tuple(dict.fromkeys(f"{spec.workDir}/{n}" if spec.workDir else n for n in names if "%" not in n))


def script_path(job: GpuJob) -> str:
    folder = job.status.remotePath
    return f"{folder}/work/{job.spec.script}" if job.spec.script else f"{folder}/{CONTROL}/{job.status.submissionId}.sh"


def dependencies(spec: GpuJobSpec, find: Callable[[str], GpuJob | None]) -> Wait | None:
    """What of `dependsOn` is still to come."""
    for each in spec.dependsOn:
        other = find(each.name)
        if other is None:
            return Wait("DependencyMissing", f"waits for the GpuJob {each.name}, which is not there")
        phase = other.status.phase
        if phase not in TERMINAL:
            return Wait("Dependency", f"waits for the GpuJob {each.name} ({phase or PENDING})")
        succeeded = phase == SUCCEEDED
        if each.condition != "Finished" and succeeded != (each.condition == "Succeeded"):
            text = f"the GpuJob {each.name} is {phase}, and this job runs only if it has {each.condition.lower()}"
            return Wait("DependencyNeverSatisfied", text, True)
    return None


def advanced(job: GpuJob, seen: Observation, now: float, *, lost: bool = False) -> GpuJobStatus:
    """The status after an observation: on its way, to be tried again, or with results to fetch."""
    status = job.status
    replace = msgspec.structs.replace
    if lost:
        text = "neither the queue nor accounting nor its own folder tells of the job any more"
        seen = Observation(True, LOST, "Lost", text)
    status = replace(
        status,
        slurmState=seen.state or status.slurmState,
        partition=seen.partition or status.partition,
        nodes=seen.nodes or status.nodes,
        tasks=seen.tasks or status.tasks,
        reason=seen.reason,
        message=seen.message,
        startTime=rfc3339(seen.started) if seen.started else status.startTime,
    )
    if seen.phase in (QUEUED, RUNNING):
        return replace(status, phase=seen.phase)
    cancelled = job.spec.cancel and seen.phase == CANCELLED
    if not job.spec.cancel and seen.phase in (FAILED, LOST) and may_retry(job, seen.reason):
        text = f"attempt {status.attempt + 1} ended: {seen.message or seen.reason}; another one follows"
        attempt = status.attempt + 1
        return replace(
            status, phase=SUBMITTED, attempt=attempt, submissionId=submission_id(job, attempt), jobId="",
            message=text, startTime="", tasks=None,
        )  # fmt: skip
    return replace(
        status,
        phase=DOWNLOADING,
        outcome=seen.phase,
        reason="CancelledByUser" if cancelled else seen.reason,
        message="cancelled by spec.cancel" if cancelled else seen.message,
        exitCode=seen.exit_code,
        completionTime=rfc3339(seen.ended or now),
    )


def may_retry(job: GpuJob, reason: str) -> bool:
    return reason in job.spec.retry.on and job.status.attempt < job.spec.retry.limit


def keeps_folder(job: GpuJob, outcome: str) -> bool:
    """Whether the folder on the cluster stays when the results are here."""
    return job.spec.cleanup == "Never" or (job.spec.cleanup == "OnSuccess" and outcome != SUCCEEDED)
