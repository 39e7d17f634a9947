"""A Workflow is stored only if it can be run: faults are told with the field they are in, all at once."""

from __future__ import annotations

from typing import Any

import msgspec

from minik8s.api.errors import Cause, Invalid
from minik8s.api.kinds.workflow import RESOURCE
from minik8s.apiserver.admission import Operation
from minik8s.faas import resources
from minik8s.faas.workflow.data import Json
from minik8s.faas.workflow.definition import Problem, problems

SHOWN = 50  # causes of one answer


class WorkflowDefinitions:
    """An admission step."""

    resources = frozenset((RESOURCE.name,))

    def admit(self, op: Operation) -> None:
        if op.verb == "delete" or op.obj["metadata"].get("deletionTimestamp"):
            return  # what is on its way out, whatever an older version let in
        found = faults((op.obj.get("spec") or {}).get("definition"))
        if found:
            causes = [Cause(f"spec.definition{each.pointer}", "FieldValueInvalid", f"Invalid value: {each.reason}")
                      for each in found[:SHOWN]]  # fmt: skip
            raise Invalid(RESOURCE.kind, op.name, causes, group=RESOURCE.group)


def faults(definition: Any) -> list[Problem]:
    """All that keeps a definition, an object or its JSON text, from being run."""
    try:
        return problems(parsed(definition), resource=resources.fault)
    except msgspec.DecodeError as error:
        return [Problem("", f"the text is not JSON: {error}")]


def parsed(definition: Any) -> Json:
    """The state machine. msgspec.DecodeError for a text that is none."""
    found: Json = msgspec.json.decode(definition) if isinstance(definition, str) else definition
    return found
