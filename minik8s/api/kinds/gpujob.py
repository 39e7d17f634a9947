"""GpuJob: sources, what to build and to run, and what it needs: sent to a Slurm cluster, its results brought back.

apiVersion: hpc.minik8s.io/v1
    kind: GpuJob
    metadata: {name: matrix}
    spec:
      clusterName: supercomputer
      source: {inline: {hello.cu: "…"}}
      modules: [cuda/12.4]
      build: [nvcc -O3 hello.cu -o hello]
      run: [./hello]
      resources: {partition: gpu, gpus: 1, cpusPerTask: 6, memory: 4Gi, time: 10m}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from minik8s.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from minik8s.api.kinds.columns import AGE, NAME, dig
from minik8s.api.kinds.hpccluster import DRIVERS, EnvVar, validate_env
from minik8s.api.kinds.validation import DNS_SUBDOMAIN, DNS_SUBDOMAIN_HINT, choice, validate_quantity
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Condition, LocalObjectReference, Object, Struct
from minik8s.api.quantity import parse_quantity
from minik8s.api.resource import Column, Json, Resource

FINALIZER: Final = "hpc.minik8s.io/remote-job"
PENDING, UPLOADING, SUBMITTED, QUEUED, RUNNING, DOWNLOADING = (
    "Pending", "Uploading", "Submitted", "Queued", "Running", "Downloading"
)  # fmt: skip
SUCCEEDED, FAILED, CANCELLED, LOST = "Succeeded", "Failed", "Cancelled", "Lost"
TERMINAL: Final = (SUCCEEDED, FAILED, CANCELLED, LOST)
CLEANUP: Final = ("Always", "OnSuccess", "Never")
RETRYABLE: Final = ("NodeFail", "BootFail", "Preempted", "Revoked", "LaunchFailed", "ReconfigFail")
CAUSES: Final = (*RETRYABLE, "NonZeroExit", "TimeLimit", "DeadlineExceeded", "OOMKilled", "Lost")
DEPENDENCY_CONDITIONS: Final = ("Succeeded", "Failed", "Finished")
MAX_ARCHIVE = 2**30  # bytes
MAX_TASKS = 10_000

WORD = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.,:+@/=&|*()\[\]!]{0,254}")  # what Slurm's options take; nothing of a shell
TIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}|(\d+[dhms])+")
ARRAY = re.compile(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?")
SHA256 = re.compile(r"[0-9a-f]{64}")
FILE_NAME = re.compile(r"[^\0/\n\r]+(/[^\0/\n\r]+)*")


class Archive(Struct):
    name: str = ""
    sha256: str = ""
    size: int = 0


class Source(Struct):
    inline: dict[str, str] = {}
    configMap: LocalObjectReference | None = None
    archive: Archive | None = None


class Resources(Struct):
    partition: str = ""
    nodes: int = 0  # 0: Slurm's own default, here and below
    ntasks: int = 0
    ntasksPerNode: int = 0
    cpusPerTask: int = 0
    gpus: int = 0
    gres: str = ""
    memory: str = ""
    time: str = ""
    constraint: str = ""
    qos: str = ""
    account: str = ""


class Dependency(Struct):
    name: str = ""
    condition: str = "Succeeded"


class Output(Struct):
    stdout: str = "job.out"
    stderr: str = "job.err"
    artifacts: tuple[str, ...] = ()


class Retry(Struct):
    limit: int = 2
    on: tuple[str, ...] = RETRYABLE


class GpuJobSpec(Struct):
    clusterName: str = ""
    driver: str = ""  # "": as its cluster says
    secretRef: LocalObjectReference | None = None
    source: Source = Source()
    modules: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    script: str = ""
    workDir: str = ""
    resources: Resources = Resources()
    array: str = ""
    dependsOn: tuple[Dependency, ...] = ()
    output: Output = Output()
    retry: Retry = Retry()
    ttlSecondsAfterFinished: int | None = None
    cleanup: str = "OnSuccess"
    cancel: bool = False


class Tasks(Struct):
    """Of an array, how many are where."""

    total: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0


class GpuJobStatus(Struct):
    phase: str = ""
    reason: str = ""
    message: str = ""
    clusterName: str = ""
    driver: str = ""  # Sidecar, once it is decided that a pod drives the job
    attempt: int = 0
    submissionId: str = ""  # intent: written before the cluster is touched
    jobId: str = ""
    slurmState: str = ""
    partition: str = ""
    nodes: str = ""
    exitCode: int | None = None
    tasks: Tasks | None = None
    outcome: str = ""  # the terminal phase that follows once results are here
    submitTime: str = ""
    startTime: str = ""
    completionTime: str = ""
    remotePath: str = ""
    files: int = 0
    bytes: int = 0
    conditions: tuple[Condition, ...] = ()
    observedGeneration: int = 0


class GpuJob(Object):
    spec: GpuJobSpec = GpuJobSpec()
    status: GpuJobStatus = GpuJobStatus()


def _default(job: Json) -> None:
    spec = job.get("spec")
    if not isinstance(spec, dict):
        return
    fill(spec, "cleanup", "OnSuccess")
    output = spec.setdefault("output", {})
    if isinstance(output, dict):
        suffix = "-%a" if spec.get("array") else ""
        fill(output, "stdout", f"job{suffix}.out")
        fill(output, "stderr", f"job{suffix}.err")
    retry = spec.setdefault("retry", {})
    if isinstance(retry, dict):
        retry.setdefault("limit", 2)
        retry.setdefault("on", list(RETRYABLE))
    for each in spec.get("dependsOn") or ():
        if isinstance(each, dict):
            fill(each, "condition", "Succeeded")


def _prepare(job: Json, old: Json | None) -> None:
    """What is begun stays as it is but for cancelling, and how long it is kept."""
    if old is None:
        job["status"] = {"phase": PENDING}
        finalizers = job["metadata"].setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)


CHANGEABLE = ("cancel", "ttlSecondsAfterFinished", "cleanup")


def _validate(job: Json, old: Json | None) -> list[Cause]:
    spec = job.get("spec") or {}
    causes = [
        *_source(spec), *_commands(spec), *_resources(spec.get("resources") or {}), *_output(spec),
        *validate_env(spec.get("env") or (), "spec.env"), *choice(spec, "spec", "cleanup", CLEANUP),
        *choice(spec, "spec", "driver", DRIVERS),
        *_dependencies(spec, job["metadata"].get("name", "")), *_retry(spec.get("retry") or {}),
    ]  # fmt: skip
    name = spec.get("clusterName") or ""
    if name and not DNS_SUBDOMAIN.fullmatch(name):
        causes.append(invalid("spec.clusterName", name, DNS_SUBDOMAIN_HINT))
    if (spec.get("ttlSecondsAfterFinished") or 0) < 0:
        causes.append(invalid("spec.ttlSecondsAfterFinished", spec["ttlSecondsAfterFinished"], "must not be negative"))
    array = spec.get("array") or ""
    if array and (not ARRAY.fullmatch(array) or not 0 < len(task_ids(array)) <= MAX_TASKS):
        detail = f"write e.g. 0-15, 1,3,5 or 0-99%4 (four at a time), of at most {MAX_TASKS} tasks"
        causes.append(invalid("spec.array", array, detail))
    if old is not None:
        before = old.get("spec") or {}
        for field in sorted({*spec, *before} - set(CHANGEABLE)):
            if spec.get(field) != before.get(field):
                causes.append(forbidden(f"spec.{field}", "a job cannot be changed once it is there: delete it and "
                                        f"make it anew (only {', '.join(CHANGEABLE)} may change)"))  # fmt: skip
        if before.get("cancel") and not spec.get("cancel"):
            causes.append(forbidden("spec.cancel", "what is cancelled stays so: make the job anew"))
    return causes


def _source(spec: Json) -> Iterator[Cause]:
    source = spec.get("source") or {}
    given = [name for name in ("inline", "configMap", "archive") if source.get(name)]
    if len(given) > 1:
        yield forbidden(f"spec.source.{given[1]}", f"may not be set together with `{given[0]}`")
    for name in source.get("inline") or {}:
        yield from relative_path(name, f"spec.source.inline[{name}]")
    if source.get("configMap") is not None and not source["configMap"].get("name"):
        yield required("spec.source.configMap.name")
    archive = source.get("archive")
    if archive is not None:
        if not SHA256.fullmatch(archive.get("sha256") or ""):
            yield invalid("spec.source.archive.sha256", archive.get("sha256") or "", "64 digits of hexadecimal")
        if not 0 < (archive.get("size") or 0) <= MAX_ARCHIVE:
            yield invalid("spec.source.archive.size", archive.get("size"), f"1 to {MAX_ARCHIVE} bytes")


def _commands(spec: Json) -> Iterator[Cause]:
    if not spec.get("run") and not spec.get("script"):
        yield required("spec.run", "the commands to run, or `script`: a Slurm script among the sources")
    if spec.get("script"):
        for name in ("run", "build", "modules", "env"):
            if spec.get(name):
                yield forbidden(f"spec.{name}", "may not be set together with `script`, which says all of that itself")
        yield from relative_path(spec["script"], "spec.script")
    for name in ("run", "build"):
        for index, command in enumerate(spec.get(name) or ()):
            if "\0" in command:
                yield invalid(f"spec.{name}[{index}]", "", "must not contain NUL")
    for index, module in enumerate(spec.get("modules") or ()):
        if not WORD.fullmatch(module):
            yield invalid(f"spec.modules[{index}]", module, "must be a module's name, e.g. cuda/12.4")
    if spec.get("workDir"):
        yield from relative_path(spec["workDir"], "spec.workDir")


def _resources(resources: Json) -> Iterator[Cause]:
    for name in ("partition", "gres", "constraint", "qos", "account"):
        if resources.get(name) and not WORD.fullmatch(resources[name]):
            yield invalid(f"spec.resources.{name}", resources[name], "letters, digits and -_.,:+@/=&|*()[]! only")
    for name in ("nodes", "ntasks", "ntasksPerNode", "cpusPerTask", "gpus"):
        if not 0 <= (resources.get(name) or 0) <= 10**6:
            yield invalid(f"spec.resources.{name}", resources[name], "must be between 1 and 1000000")
    if resources.get("gpus") and resources.get("gres"):
        yield forbidden("spec.resources.gres", "may not be set together with `gpus`")
    if resources.get("memory"):
        faults = list(validate_quantity(resources["memory"], "spec.resources.memory"))
        yield from faults
        if not faults and parse_quantity(resources["memory"]) < 2**20:
            yield invalid("spec.resources.memory", resources["memory"], "must be at least 1Mi (bytes, or 4Gi, 500M …)")
    if resources.get("time") and not TIME.fullmatch(resources["time"]):
        yield invalid("spec.resources.time", resources["time"], "write 30m, 1h30m, 2d, or as Slurm HH:MM:SS, D-HH:MM")


def _output(spec: Json) -> Iterator[Cause]:
    output = spec.get("output") or {}
    for name in ("stdout", "stderr"):
        if output.get(name):
            yield from relative_path(output[name], f"spec.output.{name}")
            if spec.get("array") and not re.search(r"%[aAjJ]", output[name]):
                yield invalid(f"spec.output.{name}", output[name], "needs %a, or all tasks would write the same file")
    for index, pattern in enumerate(output.get("artifacts") or ()):
        yield from relative_path(pattern, f"spec.output.artifacts[{index}]")


def _dependencies(spec: Json, own: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, each in enumerate(spec.get("dependsOn") or ()):
        here, name = f"spec.dependsOn[{index}]", each.get("name") or ""
        if not DNS_SUBDOMAIN.fullmatch(name):
            yield invalid(f"{here}.name", name, DNS_SUBDOMAIN_HINT)
        if name == own:
            yield invalid(f"{here}.name", name, "a job cannot wait for itself")
        if name in seen:
            yield duplicate(f"{here}.name", name)
        seen.add(name)
        yield from choice(each, here, "condition", DEPENDENCY_CONDITIONS)


def _retry(retry: Json) -> Iterator[Cause]:
    if not 0 <= retry.get("limit", 0) <= 100:
        yield invalid("spec.retry.limit", retry["limit"], "must be between 0 and 100")
    for index, cause in enumerate(retry.get("on") or ()):
        if cause not in CAUSES:
            yield not_supported(f"spec.retry.on[{index}]", cause, CAUSES)


def relative_path(path: str, field: str) -> Iterator[Cause]:
    """A path that stays below the job's folder."""
    if not FILE_NAME.fullmatch(path) or {"..", "."} & set(path.split("/")) or len(path) > 1024:
        yield invalid(field, path, "must be a path below the job's folder: no '/' first, no '.' or '..', one line")
    elif path.split("/")[0] == ".mk8s":
        yield invalid(field, path, "the folder .mk8s is minik8s's own")


def task_ids(array: str) -> list[int]:
    """`0-3,8%2` -> [0, 1, 2, 3, 8]; [] for what is none, or has more than MAX_TASKS."""
    found: set[int] = set()
    for part in array.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?", part)
        if match is None:
            return []
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        numbers = range(first, last + 1, max(step, 1))
        if len(found) + len(numbers) > MAX_TASKS:
            return []
        found.update(numbers)
    return sorted(found)


def _status(name: str) -> Callable[[Json, float], str]:
    return lambda job, now: str(dig(job, f"status.{name}", ""))


RESOURCE = Resource(
    kind="GpuJob",
    plural="gpujobs",
    singular="gpujob",
    shortNames=("gj",),
    categories=("all",),
    group="hpc.minik8s.io",
    type=GpuJob,
    definition="io.minik8s.api.hpc.v1.GpuJob",
    subresources=frozenset(("status", "source", "results")),
    columns=(
        NAME,
        Column("Status", _status("phase"), description="How far it is."),
        Column("Slurm-ID", _status("jobId"), description="The job's number on its cluster."),
        Column("Partition", lambda job, now: dig(job, "status.partition", "")
               or dig(job, "spec.resources.partition", ""), description="Where it runs."),
        Column("Reason", _status("reason"), description="Why it is there."),
        AGE,
        Column("Cluster", _status("clusterName"), description="Its HpcCluster.", priority=1),
        Column("Nodes", _status("nodes"), description="The cluster's nodes that run it.", priority=1),
        Column("Exit-Code", _status("exitCode"), description="Of its commands.", priority=1),
    ),
    default=_default,
    validate=_validate,
    prepare=_prepare,
    selectable={"status.phase": lambda job: str(dig(job, "status.phase", ""))},
)  # fmt: skip
