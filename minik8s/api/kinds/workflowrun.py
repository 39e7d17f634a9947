"""WorkflowRun: one execution of a Workflow, as the definition was when it began. Its history is a subresource.

With `functionRef` in place of `workflowRef` it is a call of a function, and of those that it hands over to by Invoke.
"""

from __future__ import annotations

from typing import Any

from minik8s.api.errors import Cause, invalid, required
from minik8s.api.kinds.columns import AGE, NAME, dig, duration
from minik8s.api.kinds.validation import DNS_SUBDOMAIN, DNS_SUBDOMAIN_HINT
from minik8s.api.kinds.workflow import GROUP
from minik8s.api.meta import LocalObjectReference, Object, Struct
from minik8s.api.resource import Column, Json, Resource
from minik8s.clock import parse_time

ENDED = ("Succeeded", "Failed", "TimedOut", "Aborted")


class WorkflowRunSpec(Struct):
    workflowRef: LocalObjectReference = LocalObjectReference()
    functionRef: LocalObjectReference = LocalObjectReference()  # either of them
    input: Any = None
    serviceAccountName: str = ""  # "" = default: whose rights its tasks have


class WorkflowRunStatus(Struct):
    phase: str = ""  # Running or one of ENDED
    output: Any = None
    error: str = ""
    cause: str = ""
    startTime: str = ""
    completionTime: str = ""
    currentStates: tuple[str, ...] = ()
    events: int = 0
    redrives: int = 0
    workflowRevision: int = 0
    definitionHash: str = ""


class WorkflowRun(Object):
    spec: WorkflowRunSpec = WorkflowRunSpec()
    status: WorkflowRunStatus = WorkflowRunStatus()


def _prepare(run: Json, old: Json | None) -> None:
    if old is None:
        run.pop("status", None)


def _validate(run: Json, old: Json | None) -> list[Cause]:
    spec = run.get("spec") or {}
    if old is not None:
        if spec != (old.get("spec") or {}):
            return [invalid("spec", "...", "field is immutable: a run keeps what it began with; make another one")]
        return []
    causes = []
    workflow, function = (dig(spec, f"{field}.name", "") for field in ("workflowRef", "functionRef"))
    if not workflow and not function:
        causes.append(required("spec.workflowRef.name", "the name of a Workflow of this namespace"))
    if workflow and function:
        causes.append(invalid("spec.functionRef.name", function, "a run has workflowRef or functionRef, not both"))
    for field, name in (
        ("spec.workflowRef.name", workflow),
        ("spec.functionRef.name", function),
        ("spec.serviceAccountName", spec.get("serviceAccountName") or ""),
    ):
        if name and not DNS_SUBDOMAIN.fullmatch(name):
            causes.append(invalid(field, name, DNS_SUBDOMAIN_HINT))
    return causes


def _of(run: Json, now: float) -> str:
    function = dig(run, "spec.functionRef.name", "")
    return f"function/{function}" if function else str(dig(run, "spec.workflowRef.name", ""))


def _duration(run: Json, now: float) -> str:
    begun, ended = dig(run, "status.startTime", ""), dig(run, "status.completionTime", "")
    return duration((parse_time(ended) if ended else now) - parse_time(begun)) if begun else ""


RESOURCE = Resource(
    kind="WorkflowRun",
    plural="workflowruns",
    singular="workflowrun",
    shortNames=("wfr",),
    group=GROUP,
    type=WorkflowRun,
    definition="io.minik8s.api.faas.v1.WorkflowRun",
    subresources=frozenset(("status", "history", "graph", "stop", "redrive")),
    columns=(
        NAME,
        Column("Workflow", _of, description="What it runs."),
        Column("Phase", lambda run, now: dig(run, "status.phase", "Pending"), description="How it stands."),
        Column("State", lambda run, now: ",".join(dig(run, "status.currentStates", ())), description="Where it is."),
        Column("Events", lambda run, now: dig(run, "status.events", 0), type="integer", description="Of its history."),
        Column("Duration", _duration, description="How long it took, or has taken so far."),
        AGE,
        Column("Error", lambda run, now: dig(run, "status.error", ""), priority=1, description="Why it failed."),
    ),
    prepare=_prepare,
    validate=_validate,
    selectable={"status.phase": lambda run: str(dig(run, "status.phase", "")),
                "spec.workflowRef.name": lambda run: str(dig(run, "spec.workflowRef.name", ""))},
)  # fmt: skip
