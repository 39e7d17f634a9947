"""Functions that hand over to each other by `Invoke`, as a state machine: a Task for each, which makes one hop. Pure.

The machine has the functions that can be reached by what they declare (`spec.invokes`) when a run begins. Its history
has each hop with what went in and out, and its graph shows the way that a run has taken. A Task's Resource is
`invoke:NAME`; its Parameters are a `Hop`, and its result what `outcome` gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from minik8s.faas.gateway.routing import hop_refused
from minik8s.faas.workflow import errors
from minik8s.faas.workflow.data import Json
from minik8s.faas.workflow.errors import StateError

ANSWER = "Answer"  # no function can be called so: a capital, and a space below
REFUSED = "Function.InvokeError"  # as an InvokeError of a gateway reaches a workflow


class Hop(msgspec.Struct, forbid_unknown_fields=True):
    """`chain`: functions that have handed over already, the first one first. `to`: to whom this one may."""

    params: Any = None
    chain: list[str] = []
    to: list[str] = []


def definition(start: str, declared: Mapping[str, Sequence[str]]) -> Json:
    """The machine for a chain that begins with `start`; `declared`: function -> its invokes, for all within reach.

    The input of a run are the parameters of `start`, its output is what the last function answers.
    """
    states: Json = {}
    for name, targets in declared.items():
        given: Json = {"params.$": "$", "chain": []} if name == start else {
            "params.$": "$.params", "chain.$": "$.chain"}  # fmt: skip
        after = f"after {name}"
        states[name] = {"Type": "Task", "Resource": f"invoke:{name}", "Parameters": {**given, "to": list(targets)},
                        "Next": after if targets else ANSWER}  # fmt: skip
        if targets:
            rules = [{"Variable": "$.next", "StringEquals": each, "Next": each} for each in dict.fromkeys(targets)]
            states[after] = {"Type": "Choice", "Choices": rules, "Default": ANSWER}
    states[ANSWER] = {"Type": "Succeed", "OutputPath": "$.response"}
    return {"Comment": f"A chain of Invokes from {start}", "StartAt": start, "States": states}


def asked(parameters: Any) -> Hop:
    """The Parameters of a Task. StateError if they are none."""
    try:
        return msgspec.convert(parameters, Hop)
    except msgspec.ValidationError as error:
        raise StateError(errors.RUNTIME, f"the parameters of invoke: are params, chain and to: {error}") from None


def outcome(hop: Hop, name: str, following: str, said: Any) -> Json:
    """`{next, params, chain}` of a function that hands over to `following`, else `{next: "", response}`.

    StateError where it must not: to none that it has declared, in a circle, or too deep.
    """
    if not following:
        return {"next": "", "response": said}
    chain = [*hop.chain, name]
    if why := hop_refused(chain, following, hop.to):
        raise StateError(REFUSED, why)
    return {"next": following, "params": said, "chain": chain}
