"""Is it a workflow? Every fault of a definition, each with its place (a JSON Pointer) and what would be right. Pure.

The table `_FIELDS` says which fields each state type has; whatever the language defines and this engine does not do
yet is refused by name rather than ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from minik8s.faas.workflow import choice, intrinsics, paths
from minik8s.faas.workflow.data import Json
from minik8s.faas.workflow.errors import ALL

NAME_LIMIT = 80  # characters of a state's name
SECONDS_LIMIT = 99_999_999


class Problem(NamedTuple):
    """`pointer` by RFC 6901, "" is the whole document."""

    pointer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.pointer or '/'}: {self.reason}"


_COMMON = ("Type", "Comment", "InputPath", "OutputPath", "QueryLanguage")
_MOVING = ("Next", "End")
_RESULT = ("Parameters", "ResultPath")
_TRYING = ("ResultSelector", "Retry", "Catch")
_FIELDS: dict[str, tuple[str, ...]] = {
    "Pass": (*_COMMON, *_MOVING, *_RESULT, "Result"),
    "Task": (
        *_COMMON, *_MOVING, *_RESULT, *_TRYING, "Resource", "TimeoutSeconds", "TimeoutSecondsPath", "HeartbeatSeconds",
        "HeartbeatSecondsPath", "Credentials",
    ),
    "Choice": (*_COMMON, "Choices", "Default"),
    "Wait": (*_COMMON, *_MOVING, "Seconds", "SecondsPath", "Timestamp", "TimestampPath"),
    "Succeed": _COMMON,
    "Fail": ("Type", "Comment", "QueryLanguage", "Error", "ErrorPath", "Cause", "CausePath"),
    "Parallel": (*_COMMON, *_MOVING, *_RESULT, *_TRYING, "Branches"),
    "Map": (
        *_COMMON, *_MOVING, *_RESULT, *_TRYING, "ItemsPath", "ItemSelector", "ItemProcessor", "Iterator",
        "MaxConcurrency", "MaxConcurrencyPath", "Label",
    ),
}  # fmt: skip
_LATER = {
    **dict.fromkeys(("Assign", "Output", "Arguments", "Items", "Condition"), "JSONata and variables are"),
    **dict.fromkeys(
        ("ItemReader", "ItemBatcher", "ResultWriter", "ToleratedFailureCount", "ToleratedFailurePercentage",
         "ToleratedFailureCountPath", "ToleratedFailurePercentagePath"),
        "distributed Map is",
    ),
}  # fmt: skip
_TOP = ("Comment", "StartAt", "States", "Version", "TimeoutSeconds", "QueryLanguage")
_INNER = ("Comment", "StartAt", "States", "ProcessorConfig", "QueryLanguage")


def problems(definition: Any, *, resource: Callable[[str], str] = lambda text: "") -> list[Problem]:
    """All faults, in the order of the document; none if it can be run.

    `resource` says what is wrong with a Task's Resource, "" if nothing is.
    """
    return list(_Checker(resource).machine(definition, "", _TOP))


class _Checker:
    """Walks a definition once. Names of states are gathered, since they must differ in the whole document."""

    def __init__(self, resource: Callable[[str], str]) -> None:
        self._seen: dict[str, str] = {}
        self._resource = resource

    # -- a machine and its states

    def machine(self, machine: Any, at: str, fields: tuple[str, ...]) -> Iterator[Problem]:
        if not isinstance(machine, dict):
            yield Problem(at, "must be an object with StartAt and States")
            return
        yield from _unknown(machine, fields, at)
        yield from _language(machine, at)
        if machine.get("Version", "1.0") != "1.0":
            yield Problem(f"{at}/Version", 'must be "1.0"')
        yield from _number(machine, "TimeoutSeconds", at, least=1, most=SECONDS_LIMIT)
        config = machine.get("ProcessorConfig")
        if config is not None and (not isinstance(config, dict) or config.get("Mode", "INLINE") != "INLINE"):
            yield Problem(f"{at}/ProcessorConfig/Mode", 'must be "INLINE": distributed Map is not supported yet')
        states = machine.get("States")
        if not isinstance(states, dict) or not states:
            yield Problem(f"{at}/States", "must be an object with at least one state")
            return
        start = machine.get("StartAt")
        if not isinstance(start, str) or start not in states:
            yield Problem(f"{at}/StartAt", f"must be the name of one of the states: {', '.join(states)}")
        for name, state in states.items():
            yield from self._state(name, state, states, f"{at}/States/{escape(name)}")
        yield from _unreachable(states, start, at)

    def _state(self, name: str, state: Any, states: Json, at: str) -> Iterator[Problem]:
        if len(name) > NAME_LIMIT:
            yield Problem(at, f"the name has more than {NAME_LIMIT} characters")
        if name in self._seen:
            yield Problem(at, f"the name is taken by {self._seen[name]}: names differ in the whole definition")
        self._seen.setdefault(name, at)
        if not isinstance(state, dict):
            yield Problem(at, "must be an object")
            return
        kind = state.get("Type")
        if not isinstance(kind, str) or kind not in _FIELDS:
            yield Problem(f"{at}/Type", f"must be one of {', '.join(_FIELDS)}")
            return
        yield from _unknown(state, _FIELDS[kind], at)
        yield from _language(state, at)
        yield from _common(state, at)
        if "Next" in _FIELDS[kind]:
            yield from _moving(state, states, at)
        yield from self._own(kind, state, states, at)
        yield from _retriers(state, at)
        yield from _catchers(state, states, at)

    def _own(self, kind: str, state: Json, states: Json, at: str) -> Iterator[Problem]:
        """What only one type of state has."""
        if kind == "Task":
            yield from _task(state, at, self._resource)
        elif kind == "Choice":
            yield from _choices(state, states, at)
        elif kind == "Wait":
            yield from _wait(state, at)
        elif kind == "Fail":
            yield from _fail(state, at)
        elif kind == "Parallel":
            branches = state.get("Branches")
            if not isinstance(branches, list) or not branches:
                yield Problem(f"{at}/Branches", "must be an array of at least one branch")
                return
            for number, branch in enumerate(branches):
                yield from self.machine(branch, f"{at}/Branches/{number}", _INNER)
        elif kind == "Map":
            yield from self._map(state, at)

    def _map(self, state: Json, at: str) -> Iterator[Problem]:
        yield from _one_of(state, ("ItemProcessor", "Iterator"), at)
        yield from _at_most_one(state, ("ItemSelector", "Parameters"), at)
        yield from _at_most_one(state, ("MaxConcurrency", "MaxConcurrencyPath"), at)
        for field in ("ItemProcessor", "Iterator"):
            if field in state:
                yield from self.machine(state[field], f"{at}/{field}", _INNER)
        yield from _template(state.get("ItemSelector"), f"{at}/ItemSelector")
        yield from _number(state, "MaxConcurrency", at, least=0, most=1_000_000)
        yield from _paths(state, ("ItemsPath", "MaxConcurrencyPath"), at)


# -- parts that several types share


def _unknown(found: Json, fields: tuple[str, ...], at: str) -> Iterator[Problem]:
    for field in found:
        if field in fields:
            continue
        if field in _LATER:
            yield Problem(f"{at}/{escape(field)}", f"{_LATER[field]} not supported yet")
        else:
            yield Problem(f"{at}/{escape(field)}", f"unknown field; here may stand {', '.join(fields)}")


def _language(found: Json, at: str) -> Iterator[Problem]:
    if found.get("QueryLanguage", "JSONPath") != "JSONPath":
        yield Problem(f"{at}/QueryLanguage", 'must be "JSONPath": JSONata is not supported yet')


def _common(state: Json, at: str) -> Iterator[Problem]:
    for field in ("InputPath", "OutputPath"):
        if state.get(field) is not None:
            yield from _path(state[field], f"{at}/{field}")
    yield from _result_path(state, at)
    for field in ("Parameters", "ResultSelector"):
        yield from _template(state.get(field), f"{at}/{field}")


def _result_path(state: Json, at: str) -> Iterator[Problem]:
    if state.get("ResultPath") is not None:
        text = state["ResultPath"]
        if isinstance(text, str) and text.startswith("$$"):
            yield Problem(f"{at}/ResultPath", "the context object cannot be written")
        else:
            yield from _parsed(paths.reference, text, f"{at}/ResultPath")


def _moving(state: Json, states: Json, at: str) -> Iterator[Problem]:
    if "End" in state and state["End"] is not True:
        yield Problem(f"{at}/End", "must be true, or left out")
    if ("Next" in state) == ("End" in state):
        yield Problem(at, 'must have either "Next" or "End": true')
    if "Next" in state:
        yield from _target(state["Next"], states, f"{at}/Next")


def _target(name: Any, states: Json, at: str) -> Iterator[Problem]:
    if not isinstance(name, str) or name not in states:
        yield Problem(at, f"there is no state {name!r} beside this one; there are {', '.join(states)}")


def _unreachable(states: Json, start: Any, at: str) -> Iterator[Problem]:
    reached, ahead = set(), [start]
    while ahead:
        name = ahead.pop()
        if not isinstance(name, str) or name in reached or not isinstance(states.get(name), dict):
            continue
        reached.add(name)
        ahead += targets(states[name])
    if reached:
        for name in states.keys() - reached:
            yield Problem(f"{at}/States/{escape(name)}", "no state leads here: name it in a Next, or take it out")


def targets(state: Json) -> list[Any]:
    """Where a state may lead, as far as it says."""
    rules = [rule for field in ("Choices", "Catch") for rule in _list(state.get(field)) if isinstance(rule, dict)]
    found = [state.get("Next"), state.get("Default"), *(rule.get("Next") for rule in rules)]
    return [name for name in found if name is not None]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _template(template: Any, at: str) -> Iterator[Problem]:
    if isinstance(template, dict):
        for key, value in template.items():
            place = f"{at}/{escape(key)}"
            if not key.endswith(".$"):
                yield from _template(value, place)
            elif isinstance(value, str) and not value.startswith("$"):
                yield from _call(value, place)
            else:
                yield from _path(value, place)
    elif isinstance(template, list):
        for number, value in enumerate(template):
            yield from _template(value, f"{at}/{number}")


def _call(text: str, at: str) -> Iterator[Problem]:
    try:
        for path in intrinsics.paths(intrinsics.parse(text)):
            yield from _path(path, at)
    except intrinsics.InvalidCall as error:
        yield Problem(at, str(error))


def _path(text: Any, at: str) -> Iterator[Problem]:
    if isinstance(text, str) and text.startswith("$$"):
        text = text[1:]
    yield from _parsed(paths.parse, text, at)


def _parsed(parse: Callable[[str], Any], text: Any, at: str) -> Iterator[Problem]:
    try:
        if not isinstance(text, str):
            raise paths.InvalidPath("must be a path, a string that begins with $")
        parse(text)
    except paths.InvalidPath as error:
        yield Problem(at, str(error))


def _paths(state: Json, fields: tuple[str, ...], at: str) -> Iterator[Problem]:
    for field in fields:
        if field in state:
            yield from _path(state[field], f"{at}/{field}")


def _number(
    found: Json, field: str, at: str, *, least: float, most: float, whole: bool = True
) -> Iterator[Problem]:  # fmt: skip
    if field not in found:
        return
    value = found[field]
    fits = choice.is_number(value) and least <= value <= most and (not whole or value == int(value))
    if not fits:
        yield Problem(f"{at}/{field}", f"must be a{' whole' if whole else ''} number from {least:g} to {most:g}")


def _one_of(state: Json, fields: tuple[str, ...], at: str) -> Iterator[Problem]:
    if sum(field in state for field in fields) != 1:
        yield Problem(at, f"must have exactly one of {', '.join(fields)}")


def _at_most_one(state: Json, fields: tuple[str, ...], at: str) -> Iterator[Problem]:
    if sum(field in state for field in fields) > 1:
        yield Problem(at, f"may have only one of {', '.join(fields)}")


# -- Task, Wait, Fail


def _task(state: Json, at: str, check: Callable[[str], str]) -> Iterator[Problem]:
    resource = state.get("Resource")
    if not isinstance(resource, str) or not resource:
        yield Problem(f"{at}/Resource", "must say what does the task, such as the name of a function")
    elif reason := check(resource):
        yield Problem(f"{at}/Resource", reason)
    for field in ("TimeoutSeconds", "HeartbeatSeconds"):
        yield from _number(state, field, at, least=1, most=SECONDS_LIMIT)
        yield from _at_most_one(state, (field, f"{field}Path"), at)
        yield from _paths(state, (f"{field}Path",), at)
    limits = [state.get(field) for field in ("HeartbeatSeconds", "TimeoutSeconds")]
    numbers = [limit for limit in limits if choice.is_number(limit)]
    if len(numbers) == 2 and numbers[0] >= numbers[1]:
        yield Problem(f"{at}/HeartbeatSeconds", "must be less than TimeoutSeconds")


def _wait(state: Json, at: str) -> Iterator[Problem]:
    yield from _one_of(state, ("Seconds", "SecondsPath", "Timestamp", "TimestampPath"), at)
    yield from _number(state, "Seconds", at, least=0, most=SECONDS_LIMIT)
    yield from _paths(state, ("SecondsPath", "TimestampPath"), at)
    if "Timestamp" in state and not choice.is_timestamp(state["Timestamp"]):
        yield Problem(f"{at}/Timestamp", "must be a time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z")


def _fail(state: Json, at: str) -> Iterator[Problem]:
    for field in ("Error", "Cause"):
        yield from _at_most_one(state, (field, f"{field}Path"), at)
        if field in state and not isinstance(state[field], str):
            yield Problem(f"{at}/{field}", "must be a string")
        text = state.get(f"{field}Path")
        if isinstance(text, str) and not text.startswith("$"):
            yield from _call(text, f"{at}/{field}Path")
        elif text is not None:
            yield from _path(text, f"{at}/{field}Path")


# -- Choice


def _choices(state: Json, states: Json, at: str) -> Iterator[Problem]:
    rules = state.get("Choices")
    if not isinstance(rules, list) or not rules:
        yield Problem(f"{at}/Choices", "must be an array of at least one rule")
        rules = []
    for number, rule in enumerate(rules):
        place = f"{at}/Choices/{number}"
        yield from _rule(rule, place, ("Next",))
        if isinstance(rule, dict):
            yield from _target(rule.get("Next"), states, f"{place}/Next")
    if "Default" in state:
        yield from _target(state["Default"], states, f"{at}/Default")


def _rule(rule: Any, at: str, more: tuple[str, ...] = ()) -> Iterator[Problem]:
    if not isinstance(rule, dict):
        yield Problem(at, "must be an object")
        return
    said = [key for key in rule if key in (*choice.OPERATORS, *choice.COMBINATIONS)]
    yield from _unknown({k: v for k, v in rule.items() if k not in said}, ("Variable", "Comment", *more), at)
    if len(said) != 1:
        yield Problem(at, f"must have exactly one operator, not {len(said)}: And, Or, Not, or a comparison")
        return
    name, operand = said[0], rule[said[0]]
    if name == "Not":
        yield from _rule(operand, f"{at}/Not")
    elif name in ("And", "Or"):
        if not isinstance(operand, list) or not operand:
            yield Problem(f"{at}/{name}", "must be an array of at least one rule")
        for number, each in enumerate(_list(operand)):
            yield from _rule(each, f"{at}/{name}/{number}")
    else:
        yield from _path(rule.get("Variable"), f"{at}/Variable")
        yield from _operand(name, operand, f"{at}/{name}")


def _operand(name: str, operand: Any, at: str) -> Iterator[Problem]:
    if name in choice.TESTS:
        if not isinstance(operand, bool):
            yield Problem(at, "must be true or false")
    elif name == "StringMatches":
        if not isinstance(operand, str):
            yield Problem(at, "must be a string, in which * stands for any characters")
    elif name.endswith("Path"):
        yield from _path(operand, at)
    elif not choice.COMPARISONS[name][0].fits(operand):
        words = {"S": "a string", "N": "a number", "B": "true or false", "T": "a time such as 2026-01-31T12:00:00Z"}
        yield Problem(at, f"must be {words[name[0]]}")


# -- Retry and Catch


def _retriers(state: Json, at: str) -> Iterator[Problem]:
    fields = (
        "Comment",
        "ErrorEquals",
        "IntervalSeconds",
        "MaxAttempts",
        "BackoffRate",
        "MaxDelaySeconds",
        "JitterStrategy",
    )
    for place, retrier in _rules(state, "Retry", fields, at):
        if isinstance(retrier, Problem):
            yield retrier
            continue
        yield from _number(retrier, "IntervalSeconds", place, least=1, most=SECONDS_LIMIT)
        yield from _number(retrier, "MaxAttempts", place, least=0, most=SECONDS_LIMIT)
        yield from _number(retrier, "BackoffRate", place, least=1, most=1_000, whole=False)
        yield from _number(retrier, "MaxDelaySeconds", place, least=1, most=31_622_400)
        if retrier.get("JitterStrategy", "NONE") not in ("FULL", "NONE"):
            yield Problem(f"{place}/JitterStrategy", "must be FULL or NONE")


def _catchers(state: Json, states: Json, at: str) -> Iterator[Problem]:
    for place, catcher in _rules(state, "Catch", ("Comment", "ErrorEquals", "Next", "ResultPath"), at):
        if isinstance(catcher, Problem):
            yield catcher
            continue
        yield from _target(catcher.get("Next"), states, f"{place}/Next")
        yield from _result_path(catcher, place)


def _rules(state: Json, field: str, fields: tuple[str, ...], at: str) -> Iterator[tuple[str, Json | Problem]]:
    """Each Retrier or Catcher with its place, and what is wrong with its error names."""
    rules = state.get(field, [])
    if not isinstance(rules, list):
        yield at, Problem(f"{at}/{field}", "must be an array")
        return
    for number, rule in enumerate(rules):
        place = f"{at}/{field}/{number}"
        if not isinstance(rule, dict):
            yield place, Problem(place, "must be an object")
            continue
        for problem in _unknown(rule, fields, place):
            yield place, problem
        names = rule.get("ErrorEquals")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            yield place, Problem(f"{place}/ErrorEquals", "must be an array of at least one error's name")
        elif ALL in names and (len(names) > 1 or number + 1 < len(rules)):
            yield place, Problem(f"{place}/ErrorEquals", f"{ALL} must stand alone, and in the last place")
        yield place, rule


def escape(name: str) -> str:
    """A name as part of a JSON Pointer."""
    return name.replace("~", "~0").replace("/", "~1")
