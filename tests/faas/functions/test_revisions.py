"""What revisions are made of, who gets calls, who is forgotten, what a Function says: tables and laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.kinds.environment import PLAIN, Environment, EnvironmentSpec, EnvironmentStatus, environment_hash
from minik8s.api.kinds.function import Code, Function, FunctionSpec, Share
from minik8s.api.kinds.functionrevision import FunctionRevision, FunctionRevisionSpec, FunctionRevisionStatus
from minik8s.api.kinds.pod import EnvVar, ResourceRequirements
from minik8s.api.meta import Condition, ObjectMeta
from minik8s.faas.functions.revisions import (
    Built,
    Trouble,
    built,
    name_of,
    ready_condition,
    same,
    shape,
    spec_of,
    superfluous,
    traffic,
)

CODE = Code("0" * 64, 10)
SIX = EnvironmentSpec(requirements=["six"])


def rev(number: int, ready: str = "True", reason: str = "Loaded", message: str = "") -> FunctionRevision:
    conditions = (Condition(type="Ready", status=ready, reason=reason, message=message),) if ready else ()
    return FunctionRevision(
        metadata=ObjectMeta(name=name_of("f", number), namespace="default"),
        spec=FunctionRevisionSpec(function="f", number=number),
        status=FunctionRevisionStatus(conditions=conditions),
    )


def shares(**percents: int) -> tuple[Share, ...]:
    return tuple(Share(f"f-0000{name[1:]}", percent) for name, percent in percents.items())


def function(**spec: object) -> Function:
    return Function(metadata=ObjectMeta(name="f", namespace="default"), spec=FunctionSpec(**spec))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "another_revision", "another_shape"),
    [
        ({}, False, False),
        ({"handler": "func:other"}, True, False),
        ({"env": (EnvVar("A", "1"),)}, True, False),
        ({"timeoutSeconds": 5}, True, False),
        ({"concurrency": 1}, True, False),
        ({"invokes": ("g",)}, True, False),
        ({"isolation": "Process"}, True, False),
        ({"traffic": shares(r1=100)}, False, False),
        ({"revisionHistoryLimit": 3}, False, False),
        ({"resources": ResourceRequirements(limits={"memory": "1Gi"})}, True, True),
        ({"nodeSelector": {"a": "b"}}, True, True),
        ({"serviceAccountName": "builder"}, True, True),
    ],
)
def test_what_makes_another_revision_and_another_shape(
    changed: dict[str, object], another_revision: bool, another_shape: bool
) -> None:
    before = spec_of(function(), CODE, Built(), 1)
    after = spec_of(function(**changed), CODE, Built(), 2)
    assert same(before, after) is not another_revision
    assert (before.shape != after.shape) is another_shape


def test_code_makes_another_revision_and_an_environment_another_shape_too() -> None:
    before = spec_of(function(), CODE, Built(), 1)
    assert not same(before, spec_of(function(), Code("1" * 64, 10), Built(), 2))
    assert shape(Built("e", "abc"), ResourceRequirements()) != shape(Built(), ResourceRequirements())
    assert shape(Built("e", "abc"), ResourceRequirements()) == shape(Built("other", "abc"), ResourceRequirements())


@pytest.mark.parametrize(
    ("wanted", "history", "known", "found"),
    [
        ((), (), (), {}),
        ((), (rev(1, ""),), (), {}),
        ((), (rev(1),), (), {1: 100}),
        ((), (rev(1), rev(2)), (), {2: 100}),
        ((), (rev(1), rev(2, "False")), (), {1: 100}),
        ((), (rev(1), rev(2, "")), shares(r1=100), {1: 100}),
        (shares(r1=50, r2=50), (rev(1), rev(2)), (), {1: 50, 2: 50}),
        (shares(r1=50, r2=50), (rev(1), rev(2, "False")), (), {1: 100}),
        (shares(r1=10, r2=20, r3=70), (rev(1), rev(2), rev(3, "False")), (), {1: 33, 2: 67}),
        (shares(r1=0, r2=100), (rev(1), rev(2)), (), {2: 100}),
        (shares(r3=100), (rev(1), rev(2), rev(3, "False")), shares(r1=100), {1: 100}),
        (shares(r3=100), (rev(1), rev(2)), (), {2: 100}),
    ],
)
def test_who_gets_calls(
    wanted: tuple[Share, ...], history: tuple[FunctionRevision, ...], known: tuple[Share, ...], found: dict[int, int]
) -> None:
    assert {share.revision: share.percent for share in traffic(wanted, history, known)} == {
        name_of("f", number): percent for number, percent in found.items()
    }


@given(st.lists(st.integers(0, 100), max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_calls_go_to_ready_revisions_alone_and_are_a_hundred_together(percents: list[int], ready: list[bool]) -> None:
    history = [rev(number + 1, "True" if good else "False") for number, good in enumerate(ready)]
    wanted = [Share(name_of("f", number + 1), percent) for number, percent in enumerate(percents)]
    found = traffic(wanted, history, ())
    assert sum(share.percent for share in found) == (100 if any(ready) else 0)
    assert {share.revision for share in found} <= {name_of("f", n + 1) for n, good in enumerate(ready) if good}


@pytest.mark.parametrize(
    ("history", "limit", "called", "gone"),
    [
        ((rev(1), rev(2)), 2, (), []),
        ((rev(1), rev(2), rev(3)), 2, (), [1]),
        ((rev(1), rev(2), rev(3)), 1, shares(r1=100), [2]),
        ((rev(1), rev(2, "False"), rev(3, "")), 1, (), [2]),
    ],
)
def test_who_is_forgotten(
    history: tuple[FunctionRevision, ...], limit: int, called: tuple[Share, ...], gone: list[int]
) -> None:
    assert [each.spec.number for each in superfluous(history, limit, called)] == gone


@pytest.mark.parametrize(
    ("latest", "trouble", "stuck", "status", "reason", "message"),
    [
        (None, None, "", "Unknown", "Loading", "the first revision is being made"),
        (rev(1, ""), None, "", "Unknown", "Loading", "f-00001 waits to be loaded into a pod"),
        (rev(1, ""), None, "ErrImagePull: no", "False", "PodNotStarting", "f-00001: ErrImagePull: no"),
        (rev(1), None, "CrashLoopBackOff: x", "True", "Loaded", "f-00001 is loaded"),
        (rev(2, "False", "LoadError", "boom"), None, "", "False", "LoadError", "f-00002: boom"),
        (rev(2, "Unknown", "CannotLoad", "no Secret"), None, "", "Unknown", "CannotLoad", "f-00002: no Secret"),
        (rev(1), Trouble("NoCode", "none"), "", "False", "NoCode", "none"),
        (rev(1), Trouble("EnvironmentNotReady", "soon", waiting=True), "", "Unknown", "EnvironmentNotReady", "soon"),
    ],
)
def test_what_a_function_says(
    latest: FunctionRevision | None, trouble: Trouble | None, stuck: str, status: str, reason: str, message: str
) -> None:
    found = ready_condition(latest, trouble, stuck)
    assert (found.type, found.status, found.reason, found.message) == ("Ready", status, reason, message)


def environment(status: str = "", reason: str = "", hashed: str = "", spec: EnvironmentSpec = SIX) -> Environment:
    conditions = (Condition(type="Ready", status=status, reason=reason, message="why"),) if status else ()
    return Environment(spec=spec, status=EnvironmentStatus(hash=hashed, conditions=conditions))


HASH = environment_hash(SIX)


@pytest.mark.parametrize(
    ("name", "found", "result"),
    [
        ("", None, Built()),
        ("e", None, "EnvironmentNotFound"),
        ("e", environment(spec=EnvironmentSpec(poolSize=3)), Built("e", PLAIN)),
        ("e", environment(), "EnvironmentNotReady"),
        ("e", environment("False", "Building", HASH), "EnvironmentNotReady"),
        ("e", environment("True", "Built", HASH), Built("e", HASH)),
        ("e", environment("True", "Built", "of what it was"), "EnvironmentNotReady"),
        ("e", environment("False", "BuildFailed", HASH), "BuildFailed"),
    ],
)
def test_environments(name: str, found: Environment | None, result: Built | str) -> None:
    given_ = built(name, "default", found, made_for_it=False)
    assert (given_.reason if isinstance(given_, Trouble) else given_) == result
