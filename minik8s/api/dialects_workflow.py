"""Both older forms of Workflow manifests as state machines of the Amazon States Language.

`nodes` at the top (`startAt`, `params`): a Task calls the function of its own name, in lower case, unless it says so.
`spec.workflowNodes`: a list of functions and of choices with two ways out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from minik8s.api.dialects_function import function_name
from minik8s.api.errors import BadRequest, Invalid, forbidden, not_supported, required
from minik8s.api.resource import Json

API_VERSION = "faas.minik8s.io/v1"
_OPERATOR = re.compile(
    r"(string|numeric|boolean)(Equals|NotEquals|GreaterThan|LessThan|GreaterThanEquals|LessThanEquals)"
)
_CHECK = re.compile(r"(num|str|string|bool)(Not)?(Equals?|GreaterThan|LessThan|Greater|Less)(AndEquals?)?(Than)?")
_TYPES = {"num": "Numeric", "numeric": "Numeric", "str": "String", "string": "String", "bool": "Boolean",
          "boolean": "Boolean"}  # fmt: skip


def workflow(doc: Json) -> list[Json]:
    """The native Workflow. Raises BadRequest and Invalid in the dialect's own terms."""
    spec = doc.get("spec")
    if "nodes" in doc:
        made = _of_nodes(doc)
    elif isinstance(spec, dict) and "workflowNodes" in spec:
        made = _of_list(spec)
    else:
        return [doc]
    meta = _map(doc.get("metadata"), "metadata")
    return [{"apiVersion": API_VERSION, "kind": "Workflow", "metadata": meta, "spec": made}]


# -- nodes as a map


def _of_nodes(doc: Json) -> Json:
    _known(doc, ("apiVersion", "kind", "metadata", "startAt", "params", "nodes", "comment"), "")
    nodes = _map(doc["nodes"], "nodes")
    if not nodes:
        raise Invalid("Workflow", "", [required("nodes", "name at least one node")])
    states = {name: _node(name, _map(node, f"nodes.{name}")) for name, node in nodes.items()}
    definition: Json = {"StartAt": doc.get("startAt") or next(iter(nodes)), "States": states}
    if doc.get("comment"):
        definition["Comment"] = str(doc["comment"])
    return {"definition": definition} | ({"input": doc["params"]} if "params" in doc else {})


def _node(name: str, node: Json) -> Json:
    kind = node.get("type")
    if kind == "Task":
        _known(node, ("type", "next", "end", "function", "namespace"), f"nodes.{name}.")
        return _task(node.get("function") or name, node.get("namespace"), node.get("next"))
    if kind == "Choice":
        _known(node, ("type", "choices", "default"), f"nodes.{name}.")
        rules = node.get("choices")
        if not isinstance(rules, list) or not rules:
            raise Invalid("Workflow", "", [required(f"nodes.{name}.choices", "a list of at least one rule")])
        state: Json = {"Type": "Choice", "Choices": []}
        for index, rule in enumerate(rules):
            here = f"nodes.{name}.choices[{index}]"
            state["Choices"].append(_rule(_map(rule, here), here))
        return state | ({"Default": node["default"]} if node.get("default") else {})
    raise Invalid("Workflow", "", [not_supported(f"nodes.{name}.type", kind, ("Task", "Choice"))])


def _rule(rule: Json, here: str) -> Json:
    operators = [key for key in rule if key not in ("variable", "next")]
    if len(operators) != 1:
        raise BadRequest(f"{here}: needs `variable`, `next` and exactly one comparison, such as numericEquals")
    match = _OPERATOR.fullmatch(operators[0])
    if match is None:
        known = [f"{t}{o}" for t in ("string", "numeric", "boolean") for o in ("Equals", "NotEquals")]
        cause = not_supported(f"{here}.{operators[0]}", operators[0], [*known, "numericGreaterThan", "numericLessThan"])
        raise Invalid("Workflow", "", [cause])
    type, order = _TYPES[match[1]], match[2]
    compared = _compare(rule.get("variable"), type, order, rule[operators[0]], here)
    return {**compared, "Next": rule.get("next")}


# -- nodes as a list


def _of_list(spec: Json) -> Json:
    _known(spec, ("entryParams", "entryNodeName", "workflowNodes"), "spec.")
    nodes = spec["workflowNodes"]
    if not isinstance(nodes, list) or not nodes:
        raise Invalid("Workflow", "", [required("spec.workflowNodes", "a list of at least one node")])
    states: Json = {}
    for index, node in enumerate(nodes):
        here = f"spec.workflowNodes[{index}]"
        node = _map(node, here)
        _known(node, ("name", "type", "funcData", "choiceData"), f"{here}.")
        name = str(node.get("name") or "")
        if not name or name in states:
            raise BadRequest(f"{here}.name: {'is missing' if not name else f'{name!r} is taken by another node'}")
        states[name] = _listed(node, here)
    made: Json = {"definition": {"StartAt": spec.get("entryNodeName") or next(iter(states)), "States": states}}
    return made | ({"input": _params(spec["entryParams"])} if spec.get("entryParams") else {})


def _listed(node: Json, here: str) -> Json:
    if node.get("type") == "func":
        data = _map(node.get("funcData"), f"{here}.funcData")
        _known(data, ("funcName", "funcNamespace", "nextNodeName"), f"{here}.funcData.")
        name = data.get("funcName") or str(node["name"])
        return _task(name, data.get("funcNamespace"), data.get("nextNodeName"))
    if node.get("type") != "choice":
        raise Invalid("Workflow", "", [not_supported(f"{here}.type", node.get("type"), ("func", "choice"))])
    here = f"{here}.choiceData"
    data = _map(node.get("choiceData"), here)
    fields = ("trueNextNodeName", "falseNextNodeName", "checkType", "checkVarName", "compareValue")
    _known(data, fields, f"{here}.")
    match = _CHECK.fullmatch(str(data.get("checkType")))
    if match is None:
        known = ("numEqual", "numNotEqual", "numGreaterThan", "numLessThan", "strEqual", "strNotEqual", "boolEqual")
        raise Invalid("Workflow", "", [not_supported(f"{here}.checkType", data.get("checkType"), known)])
    order = {"E": "Equals", "G": "GreaterThan", "L": "LessThan"}[match[3][0]]
    order = ("Not" if match[2] else "") + order + ("Equals" if match[4] else "")
    rule = _compare(data.get("checkVarName"), _TYPES[match[1]], order, data.get("compareValue"), here)
    ways = [data.get(f"{way}NextNodeName") for way in ("true", "false")]
    state: Json = {"Type": "Choice", "Choices": [{**rule, "Next": ways[0]}]}
    return state | ({"Default": ways[1]} if ways[1] else {})


def _params(value: Any) -> Any:
    """`entryParams` is the JSON text of an object."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise BadRequest(f"spec.entryParams: {value!r} is not JSON: {error}") from None


# -- what both share


def _task(function: Any, namespace: Any, following: Any) -> Json:
    name = function_name(str(function))
    where = f"function:{namespace}/{name}" if namespace else f"function:{name}"
    return {"Type": "Task", "Resource": where} | ({"Next": following} if following else {"End": True})


def _compare(variable: Any, type: str, order: str, value: Any, here: str) -> Json:
    if not isinstance(variable, str) or not variable:
        raise BadRequest(f"{here}: the variable to compare is missing: write `x` or `$.x`")
    path = variable if variable.startswith("$") else f"$.{variable}"
    if type == "Numeric" and isinstance(value, str):
        value = _number(value, here)
    elif type == "Boolean" and isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    elif type == "String" and value is not None and not isinstance(value, str):
        value = msgspec.json.encode(value).decode()
    if order.startswith("Not"):
        return {"Not": {"Variable": path, f"{type}{order[3:]}": value}}
    return {"Variable": path, f"{type}{order}": value}


def _number(text: str, here: str) -> float:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise BadRequest(f"{here}: {text!r} is no number") from None


def _map(value: Any, path: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{path}: expected a map, found {type(value).__name__}")
    return value


def _known(value: Json, names: Iterable[str], path: str) -> None:
    for key in value:
        if key not in names:
            cause = forbidden(f"{path}{key}", f"unknown field; this Workflow knows {', '.join(names)}")
            raise Invalid("Workflow", "", [cause])
