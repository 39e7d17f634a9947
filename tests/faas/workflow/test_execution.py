"""What runs do: each state type, data on its way, errors; and that a run cut anywhere goes on to the same end."""

from __future__ import annotations

import re
from typing import Any

import pytest

from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.execution import Execution, HistoryMismatch

from .world import START, WHO, Never, World, machine

ADD = {"add": lambda p: p + 5, "x5": lambda p: {"x": p["x"] + 5}}


def fails(*errors: str, then: Any = "ok") -> Any:
    """A task that fails with each of `errors`, and then succeeds."""
    left = list(errors)

    def task(parameters: Any) -> Any:
        if left:
            raise StateError(left.pop(0), "as told")
        return then

    return task


# -- states


def test_pass_puts_its_result_where_it_is_told() -> None:
    states = {
        "A": {"Type": "Pass", "Result": {"n": 1}, "ResultPath": "$.a.b", "Next": "B"},
        "B": {"Type": "Pass", "Parameters": {"seen.$": "$.a.b.n", "fixed": 2}, "ResultPath": "$.c", "Next": "C"},
        "C": {"Type": "Pass", "OutputPath": "$.c", "End": True},
    }
    world = World(machine(states)).run({"x": 0})
    assert world.result == {"seen": 1, "fixed": 2}
    assert world.types == [
        "ExecutionStarted",
        *["PassStateEntered", "PassStateExited"] * 3,
        "ExecutionSucceeded",
    ]
    assert [event.previousEventId for event in world.recorded] == list(range(8))


def test_paths_of_a_task() -> None:
    states = {
        "T": {
            "Type": "Task",
            "Resource": "f",
            "InputPath": "$.in",
            "Parameters": {"n.$": "$.n", "who.$": "$$.Execution.Name", "all.$": "States.Array($.n, 'x')"},
            "ResultSelector": {"got.$": "$.value"},
            "ResultPath": "$.out",
            "End": True,
        }
    }
    world = World(machine(states), {"f": lambda p: {"value": p, "more": 1}}).run({"in": {"n": 7}})
    parameters = {"n": 7, "who": "run", "all": [7, "x"]}
    assert world.calls == [("f", parameters)]
    assert world.result == {"in": {"n": 7}, "out": {"got": parameters}}
    assert world.types[1:6] == ["TaskStateEntered", "TaskScheduled", "TaskStarted", "TaskSucceeded", "TaskStateExited"]


@pytest.mark.parametrize(("field", "output"), [("InputPath", {}), ("OutputPath", {}), ("ResultPath", {"x": 1})])
def test_null_paths(field: str, output: Any) -> None:
    states = {"P": {"Type": "Pass", field: None, "End": True}}
    assert World(machine(states)).run({"x": 1}).result == output


@pytest.mark.parametrize(("x", "end"), [(5, "Ten"), (6, "Other"), ("5", "Text")])
def test_choice(x: Any, end: str) -> None:
    states = {
        "C": {
            "Type": "Choice",
            "Choices": [
                {
                    "And": [{"Variable": "$.x", "IsNumeric": True}, {"Variable": "$.x", "NumericEquals": 5}],
                    "Next": "Ten",
                },
                {"Not": {"Variable": "$.x", "IsString": False}, "Next": "Text"},
            ],
            "Default": "Other",
        },
        **{name: {"Type": "Succeed"} for name in ("Ten", "Other", "Text")},
    }
    assert World(machine(states)).run({"x": x}).route() == ["C", end]


def test_no_choice_matched_cannot_be_caught_here() -> None:
    states = {
        "C": {"Type": "Choice", "Choices": [{"Variable": "$.x", "IsNull": True, "Next": "S"}]},
        "S": {"Type": "Succeed"},
    }
    assert World(machine(states)).run({"x": 1}).failure[0] == "States.NoChoiceMatched"


@pytest.mark.parametrize(
    ("field", "value", "seconds"),
    [
        ("Seconds", 10, 10),
        ("SecondsPath", "$.n", 3),
        ("Timestamp", "2023-11-14T22:13:25Z", 5),
        ("TimestampPath", "$.t", 6),
        ("Timestamp", "2020-01-01T00:00:00Z", 0),
    ],
)
def test_wait(field: str, value: Any, seconds: float) -> None:
    states = {"W": {"Type": "Wait", field: value, "End": True}}
    world = World(machine(states)).run({"n": 3, "t": "2023-11-14T22:13:26Z"})
    assert world.result == {"n": 3, "t": "2023-11-14T22:13:26Z"}
    assert world.now == START + seconds


def test_fail_says_what_it_is_told_or_finds() -> None:
    states = {"F": {"Type": "Fail", "Error": "Mine", "CausePath": "States.Format('no {}', $.what)"}}
    assert World(machine(states)).run({"what": "luck"}).failure == ("Mine", "no luck")
    for found in ({"code": 5}, 5, None):
        states = {"F": {"Type": "Fail", "Error": "Mine", "CausePath": "$.what"}}
        error, cause = World(machine(states)).run({"what": found}).failure
        assert (error, cause) == ("States.Runtime", "CausePath must lead to a string: $.what does not")


def test_parallel_joins_in_order_whoever_is_first() -> None:
    slow = machine({"W": {"Type": "Wait", "Seconds": 5, "End": True}})
    fast = machine({"P": {"Type": "Pass", "Result": 2, "End": True}})
    states = {"B": {"Type": "Parallel", "Branches": [slow, fast], "ResultPath": "$.both", "End": True}}
    assert World(machine(states)).run({"x": 1}).result == {"x": 1, "both": [{"x": 1}, 2]}


def test_map_with_few_at_a_time() -> None:
    seen: list[int] = []
    states = {
        "M": {
            "Type": "Map",
            "ItemsPath": "$.items",
            "ItemSelector": {"value.$": "$$.Map.Item.Value", "at.$": "$$.Map.Item.Index", "of.$": "$.name"},
            "MaxConcurrency": 2,
            "ItemProcessor": machine(
                {
                    "Wait": {"Type": "Wait", "Seconds": 1, "Next": "T"},
                    "T": {"Type": "Task", "Resource": "f", "End": True},
                }
            ),
            "End": True,
        }
    }
    world = World(machine(states), {"f": lambda p: seen.append(p["at"]) or [p["value"], p["of"]]})
    world.run({"items": [3, 4, 5], "name": "n"})
    assert world.result == [[3, "n"], [4, "n"], [5, "n"]]
    assert seen == [0, 1, 2]
    assert world.now == START + 2  # two, then one
    assert world.types.count("MapIterationSucceeded") == 3


def test_map_of_nothing() -> None:
    states = {"M": {"Type": "Map", "ItemProcessor": machine({"P": {"Type": "Pass", "End": True}}), "End": True}}
    assert World(machine(states)).run([]).result == []
    assert World(machine(states)).run({}).failure[0] == "States.Runtime"


# -- errors


def retrying(**retrier: Any) -> dict[str, Any]:
    rule = {"ErrorEquals": ["Busy"], **retrier}
    catch = {"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Caught"}
    return machine(
        {
            "T": {"Type": "Task", "Resource": "f", "Retry": [rule], "Catch": [catch], "End": True},
            "Caught": {"Type": "Pass", "End": True},
        }
    )


def test_retries_wait_longer_each_time() -> None:
    world = World(retrying(IntervalSeconds=2, BackoffRate=3.0, MaxAttempts=3, MaxDelaySeconds=7), {})
    world.tasks["f"] = fails("Busy", "Busy", "Busy")
    assert world.run({}).result == "ok"
    assert world.now == START + 2 + 6 + 7


def test_after_the_last_attempt_it_is_caught_with_the_raw_input() -> None:
    world = World(retrying(MaxAttempts=1), {"f": fails("Busy", "Busy")}).run({"a": 1})
    assert world.result == {"a": 1, "error": {"Error": "Busy", "Cause": "as told"}}
    assert world.route() == ["T", "Caught"]


def test_other_errors_are_not_retried() -> None:
    world = World(retrying(), {"f": fails("Broken")}).run({})
    assert world.now == START
    assert world.result["error"]["Error"] == "Broken"


def test_states_all_does_not_mean_what_cannot_be_helped() -> None:
    world = World(retrying(), {"f": lambda p: "x" * 300_000}).run({})
    assert world.failure[0] == "States.DataLimitExceeded"


def test_an_output_that_grows_and_grows_ends_the_run() -> None:
    double = {"Type": "Pass", "Parameters": {"a.$": "States.Array($, $)"}, "Next": "Double"}
    world = World(machine({"Double": double})).run({"x": "y"})
    assert world.failure[0] == "States.DataLimitExceeded"
    task = {"Type": "Task", "Resource": "f", "Parameters": {"a.$": "$", "b.$": "$"}, "End": True}
    many = World(machine({"T": task}), {"f": lambda p: 1}).run("x" * 200_000)
    assert (many.failure[0], many.calls) == ("States.DataLimitExceeded", [])


@pytest.mark.parametrize(("levels", "phase"), [(195, "SUCCEEDED"), (196, "FAILED"), (900, "FAILED")])
def test_an_output_that_no_object_could_hold_fails_the_run(levels: int, phase: str) -> None:
    deep: Any = 1
    for number in range(levels):
        deep = [deep] if number % 2 else {"a": deep}
    world = World(machine({"T": {"Type": "Task", "Resource": "f", "End": True}}), {"f": lambda p: deep}).run({})
    assert world.execution.status == phase
    if phase == "FAILED":
        error, cause = world.failure
        assert (error, cause) == ("States.DataLimitExceeded", "the output is nested more than 195 levels deep")
    assert world.resumed(len(world.recorded) - 1).execution.status == phase


def test_a_catcher_whose_output_has_no_place_fails_and_is_not_caught() -> None:
    catch = {"ErrorEquals": ["States.ALL"], "ResultPath": "$.a.b", "Next": "Caught"}
    task = {"Type": "Task", "Resource": "f", "Catch": [catch], "End": True}
    states = {"T": task, "Caught": {"Type": "Pass", "End": True}}
    assert World(machine(states), {"f": fails("E")}).run({"a": 5}).failure[0] == "States.ResultPathMatchFailure"
    states["Again"] = {
        "Type": "Parallel",
        "Branches": [
            machine({"T2": {**task, "Catch": [{**catch, "Next": "C2"}]}, "C2": {"Type": "Pass", "End": True}})
        ],
        "Catch": [{"ErrorEquals": ["States.ResultPathMatchFailure"], "Next": "Caught"}],
        "End": True,
    }
    del states["T"]
    world = World(machine(states, "Again"), {"f": fails("E")}).run({"a": 5})
    assert world.result["Error"] == "States.ResultPathMatchFailure"


def test_numbers_beyond_all_bounds_end_nothing_but_the_run() -> None:
    endless = retrying(BackoffRate=1000, MaxAttempts=200, MaxDelaySeconds=1)
    assert World(endless, {"f": fails(*["Busy"] * 150)}).run({}).now == START + 150
    assert World(retrying(BackoffRate=1000, MaxAttempts=200), {"f": fails(*["Busy"] * 120)}).run({}).result == "ok"
    item = machine({"P": {"Type": "Pass", "End": True}})
    many = {"Type": "Map", "ItemsPath": "$.i", "MaxConcurrencyPath": "$.n", "ItemProcessor": item, "End": True}
    assert World(machine({"M": many})).run({"i": [1, 2], "n": 1e300}).result == [1, 2]


@pytest.mark.parametrize("unforeseen", [RecursionError("too deep"), re.error("of a library's own kind")])
def test_what_nobody_foresaw_ends_the_run_and_not_who_moves_it(
    monkeypatch: pytest.MonkeyPatch, unforeseen: Exception
) -> None:
    def broken(state: Any, scope: Any) -> str:
        raise unforeseen

    monkeypatch.setattr("minik8s.faas.workflow.choice.choose", broken)
    states = {
        "C": {"Type": "Choice", "Choices": [{"Variable": "$.x", "IsNull": True, "Next": "S"}]},
        "S": {"Type": "Succeed"},
    }
    error, cause = World(machine(states)).run({"x": 1}).failure
    assert error == "States.Runtime"
    assert cause == f"in state C: {type(unforeseen).__name__}: {unforeseen}"


def test_jitter_is_the_same_again() -> None:
    worlds = [World(retrying(JitterStrategy="FULL", IntervalSeconds=100), {"f": fails("Busy")}) for _ in range(2)]
    assert worlds[0].run({}).now == worlds[1].run({}).now
    assert START < worlds[0].now < START + 100


def test_a_failed_branch_takes_the_others_along_and_can_be_caught() -> None:
    forever = machine({"T": {"Type": "Task", "Resource": "never", "End": True}})
    broken = machine(
        {"W": {"Type": "Wait", "Seconds": 1, "Next": "F"}, "F": {"Type": "Fail", "Error": "E", "Cause": "c"}}
    )
    states = {
        "B": {
            "Type": "Parallel",
            "Branches": [forever, broken],
            "Catch": [{"ErrorEquals": ["States.BranchFailed"], "Next": "C"}],
            "End": True,
        },
        "C": {"Type": "Pass", "End": True},
    }
    world = World(machine(states), {"never": lambda p: Never}).run({})
    assert world.result == {"Error": "E", "Cause": "c"}
    assert world.given_up == list(world.begun)
    assert not world.execution.succeed(next(iter(world.begun)), 1, world.now)  # nobody waits for it


def test_a_failed_item_fails_the_map() -> None:
    item = machine({"T": {"Type": "Task", "Resource": "f", "End": True}})
    states = {"M": {"Type": "Map", "MaxConcurrency": 1, "ItemProcessor": item, "End": True}}

    def f(p: Any) -> Any:
        if p == 2:
            raise StateError("Two", "no")
        return p

    world = World(machine(states), {"f": f}).run([1, 2, 3])
    assert world.failure == ("Two", "no")
    assert len(world.calls) == 2


def test_timeouts_and_heartbeats() -> None:
    task = {"Type": "Task", "Resource": "f", "TimeoutSeconds": 30, "HeartbeatSecondsPath": "$.beat", "End": True}
    world = World(machine({"T": task}), {"f": lambda p: Never}).start({"beat": 10})
    (id,) = world.begun
    world.now += 9
    world.report(lambda run: run.heartbeat(id, world.now))
    assert world.execution.next_due == START + 19
    world.go_on()
    assert world.failure[0] == "States.HeartbeatTimeout"
    assert world.given_up == [id]
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "C"}]  # which means both
    caught = machine({"T": {**task, "Catch": catch}, "C": {"Type": "Pass", "End": True}})
    assert World(caught, {"f": lambda p: Never}).run({"beat": 10}).result["Error"] == "States.HeartbeatTimeout"
    late = World(machine({"T": task}), {"f": lambda p: Never}).start({"beat": 1000}).go_on()
    assert (late.failure[0], late.now) == ("States.Timeout", START + 30)


def test_heartbeats_are_waited_for_anew_after_a_restart() -> None:
    task = {"Type": "Task", "Resource": "f", "HeartbeatSeconds": 10, "End": True}
    world = World(machine({"T": task}), {"f": lambda p: Never}).start({})
    (id,) = world.begun
    for _ in range(9):
        world.now += 9
        world.report(lambda run: run.heartbeat(id, world.now))
    again = world.resumed(len(world.recorded))
    again.execution.renew(again.now)
    assert again.execution.next_due == again.now + 10
    assert again.go_on().failure[0] == "States.HeartbeatTimeout"


def test_heartbeats_of_an_activity_count_from_when_a_worker_has_it() -> None:
    task = {"Type": "Task", "Resource": "activity:dig", "TimeoutSeconds": 99, "HeartbeatSeconds": 10, "End": True}
    world = World(machine({"T": task})).start({})
    assert world.execution.next_due == START + 99
    (id,) = world.begun
    world.now += 50
    world.report(lambda run: run.taken(id, "me", world.now))
    assert world.execution.next_due == START + 60
    world.now += 9
    world.report(lambda run: run.heartbeat(id, world.now))
    assert world.execution.next_due == START + 69
    world.go_on()
    assert (world.failure[0], world.now) == ("States.HeartbeatTimeout", START + 69)
    assert world.resumed(len(world.recorded)).failure == world.failure


def test_the_whole_run_may_take_so_long() -> None:
    states = {"W": {"Type": "Wait", "Seconds": 100, "End": True}}
    world = World(machine(states, TimeoutSeconds=7)).run({})
    assert (world.execution.status, world.now, world.types[-1]) == ("TIMED_OUT", START + 7, "ExecutionTimedOut")


def test_tokens_and_activities() -> None:
    states = {
        "Ask": {
            "Type": "Task",
            "Resource": "mail.waitForTaskToken",
            "Parameters": {"token.$": "$$.Task.Token"},
            "ResultPath": "$.answer",
            "Next": "Act",
        },
        "Act": {"Type": "Task", "Resource": "activity:sort", "End": True},
    }
    world = World(machine(states)).start({})
    ask = max(world.begun)
    assert world.calls == [("mail.waitForTaskToken", {"token": f"token-{ask}"})]
    world.report(lambda run: run.submitted(ask, "sent", world.now))
    world.report(lambda run: run.succeed(ask, "yes", world.now))
    act = max(world.begun)
    world.report(lambda run: run.taken(act, "me", world.now))
    world.report(lambda run: run.succeed(act, "sorted", world.now))
    assert world.result == "sorted"
    assert [type for type in world.types if type.startswith(("Task", "Activity")) and "State" not in type] == [
        "TaskScheduled", "TaskStarted", "TaskSubmitted", "TaskSucceeded",
        "ActivityScheduled", "ActivityStarted", "ActivitySucceeded",
    ]  # fmt: skip


def test_abort_and_redrive() -> None:
    answers = iter([Never, 7])
    branch = machine({"T": {"Type": "Task", "Resource": "f", "End": True}})
    done = machine({"P": {"Type": "Task", "Resource": "once", "End": True}})
    states = {"B": {"Type": "Parallel", "Branches": [branch, done], "End": True}}
    world = World(machine(states), {"f": lambda p: next(answers), "once": lambda p: "kept"}).start({"in": 1})
    world.report(lambda run: run.abort("Stopped", "by hand", world.now))
    assert world.execution.status == "ABORTED"
    assert world.given_up
    again = world.resumed(len(world.recorded))
    again.report(lambda run: run.redrive(world.now))
    assert again.result == [7, "kept"]
    assert [resource for resource, _ in again.calls] == ["f"]  # what was done stays done
    assert again.resumed(len(again.recorded)).result == [7, "kept"]


def test_the_context_tells_of_the_redrive() -> None:
    answers = iter([Never, 7])
    parameters = {"count.$": "$$.Execution.RedriveCount", "all.$": "$$.Execution"}
    states = {"T": {"Type": "Task", "Resource": "f", "Parameters": parameters, "End": True}}
    world = World(machine(states), {"f": lambda p: next(answers)}).start({})
    world.report(lambda run: run.abort("Stopped", "", world.now))
    world.now += 90
    world.report(lambda run: run.redrive(world.now))
    (_, before), (_, after) = world.calls
    assert (before["count"], after["count"]) == (0, 1)
    assert "RedriveTime" not in before["all"]
    assert after["all"]["RedriveTime"] == "2023-11-14T22:14:50.000Z"


def test_a_run_without_end_ends_at_its_limit() -> None:
    states = {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}}
    run = Execution(machine(states), WHO, {}, max_events=1000)
    run.start(START)
    rounds = 0
    while run.run(100):
        rounds += 1
    assert rounds > 5  # others had their turn
    assert (run.status, run.error) == ("FAILED", "States.Runtime")
    assert 1000 < run.events < 1005


# -- cut and resumed

EVERYTHING = machine(
    {
        "Init": {"Type": "Pass", "Parameters": {"n.$": "$.n", "id.$": "States.UUID()"}, "Next": "Fork"},
        "Fork": {
            "Type": "Parallel",
            "Branches": [
                machine(
                    {
                        "Try": {
                            "Type": "Task",
                            "Resource": "flaky",
                            "Retry": [{"ErrorEquals": ["Busy"], "JitterStrategy": "FULL", "MaxAttempts": 9}],
                            "End": True,
                        }
                    }
                ),
                machine(
                    {
                        "Each": {
                            "Type": "Map",
                            "ItemsPath": "$.n",
                            "MaxConcurrency": 2,
                            "ItemProcessor": machine(
                                {
                                    "Nap": {"Type": "Wait", "SecondsPath": "$", "Next": "Add"},
                                    "Add": {"Type": "Task", "Resource": "add", "End": True},
                                }
                            ),
                            "End": True,
                        }
                    }
                ),
            ],
            "ResultPath": "$.made",
            "Next": "Late",
        },
        "Late": {
            "Type": "Task",
            "Resource": "never",
            "TimeoutSeconds": 3,
            "Catch": [{"ErrorEquals": ["States.Timeout"], "ResultPath": "$.late", "Next": "Pick"}],
            "End": True,
        },
        "Pick": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.late.Error", "StringMatches": "States.*", "Next": "Roll"}],
        },
        "Roll": {
            "Type": "Pass",
            "Parameters": {"dice.$": "States.MathRandom(1, 1000000)", "made.$": "$.made"},
            "End": True,
        },
    }
)


def whole() -> dict[str, Any]:
    return {"flaky": fails("Busy", "Busy"), "add": ADD["add"], "never": lambda p: Never}


def test_killed_at_every_event_it_comes_to_the_same_end() -> None:
    first = World(EVERYTHING, whole()).run({"n": [1, 2, 3]})
    kinds = {(event.type, event.details.get("name")) for event in first.recorded}
    assert len(first.recorded) > 40
    for cut in range(1, len(first.recorded)):
        second = World(EVERYTHING, whole())
        second.recorded, second._input, second.now = first.recorded, {"n": [1, 2, 3]}, first.recorded[cut - 1].timestamp
        again = second.resumed(cut).go_on()
        assert again.result["made"] == first.result["made"], cut
        exits = [e.details["name"] for e in again.recorded if e.type.endswith("StateExited")]
        assert len(exits) == len([e for e in first.recorded if e.type.endswith("StateExited")]), cut
        assert {(event.type, event.details.get("name")) for event in again.recorded} == kinds, cut


def test_resuming_says_which_tasks_were_under_way() -> None:
    states = {"T": {"Type": "Task", "Resource": "f", "TimeoutSeconds": 50, "End": True}}
    world = World(machine(states), {"f": lambda p: Never}).start({})
    run = Execution(machine(states), WHO, {})
    run.resume(world.recorded)
    (task,) = run.take().tasks
    assert (task.id, task.again, run.next_due) == (3, True, START + 50)
    cut = Execution(machine(states), WHO, {})
    cut.resume(world.recorded[:2])
    assert [task.again for task in cut.take().tasks] == [False]


def test_another_definition_is_noticed() -> None:
    world = World(machine({"A": {"Type": "Pass", "End": True}})).run({})
    other = Execution(machine({"B": {"Type": "Pass", "End": True}}), WHO, {})
    with pytest.raises(HistoryMismatch, match="event 2"):
        other.resume(world.recorded)
