"""Workflow: a state machine in the Amazon States Language; WorkflowRuns run it.

    apiVersion: faas.minik8s.io/v1
    kind: Workflow
    metadata: {name: greet}
    spec:
      definition:
        StartAt: Hello
        States: {Hello: {Type: Pass, Result: {said: hello}, End: true}}

`definition` may also be the JSON text of it, as Step Functions takes it. Whether it is a workflow is checked by an
admission step (`faas/admission.py`): the language is known up there only.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from minik8s.api.kinds.columns import AGE, NAME, dig
from minik8s.api.meta import Object, Struct
from minik8s.api.resource import Column, Json, Resource

GROUP = "faas.minik8s.io"


class WorkflowSpec(Struct):
    definition: Any = None
    input: Any = None  # of runs that bring none


class Workflow(Object):
    spec: WorkflowSpec = WorkflowSpec()


def _definition(workflow: Json) -> Json:
    """What columns tell; nothing of what is no definition."""
    found = dig(workflow, "spec.definition", {})
    if isinstance(found, str):
        with suppress(msgspec.DecodeError):
            found = msgspec.json.decode(found)
    return found if isinstance(found, dict) else {}


def _states(workflow: Json, now: float) -> int:
    states = _definition(workflow).get("States")
    return len(states) if isinstance(states, dict) else 0


RESOURCE = Resource(
    kind="Workflow",
    plural="workflows",
    singular="workflow",
    shortNames=("wf",),
    group=GROUP,
    type=Workflow,
    definition="io.minik8s.api.faas.v1.Workflow",
    subresources=frozenset(("graph",)),
    columns=(
        NAME,
        Column("Start", lambda wf, now: str(_definition(wf).get("StartAt", "")), description="The first state."),
        Column("States", _states, type="integer", description="How many states there are at the top."),
        Column("Revision", lambda wf, now: dig(wf, "metadata.generation", 0), type="integer",
               description="Counts changes; a run keeps the one that it began with."),
        AGE,
        Column("Comment", lambda wf, now: str(_definition(wf).get("Comment", "")), priority=1,
               description="What the definition says of itself."),
    ),
)  # fmt: skip
