"""The life of a pod, decided: order, restarts with back-off, endings, and laws that hold whatever happens."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.clock import rfc3339
from minik8s.kubelet.plan import (
    CreateSandbox,
    Finish,
    Release,
    RemoveContainer,
    StartContainer,
    StopContainer,
    backoff_delay,
)
from minik8s.kubelet.view import LABEL_SANDBOX, Failure, Unhealthy

from .sim import NOW, World, make_pod

SIDECAR = {"name": "proxy", "restartPolicy": "Always"}
STARTUP = {"startupProbe": {"tcpSocket": {"port": 80}}}


def started(world: World) -> list[str]:
    return [action.name for action in world.log if isinstance(action, StartContainer)]


def test_sandbox_and_all_containers_at_once():
    world = World(make_pod({"name": "a"}, {"name": "b"}))
    starts = (StartContainer("a", 0, 0), StartContainer("b", 0, 0))
    assert world.plan().actions == (CreateSandbox(0), *starts)
    world.up()
    assert world.plan().actions == starts
    world.memory.busy = {"start:a", "start:b"}
    assert world.plan().actions == ()


def test_only_the_first_containers_come_with_their_sandbox():
    assert World(make_pod(init=({"name": "one"}, {"name": "two"}))).plan().actions == (
        CreateSandbox(0),
        StartContainer("one", 0, 0),
    )


def test_a_sandbox_that_failed_takes_no_container_with_it_before_its_time():
    world = World(make_pod())
    world.memory.failures = {"": Failure("CreateContainerError", "no", NOW + 10)}
    assert world.plan() == ((), 10.0, False)


@pytest.mark.parametrize("sandbox", ["created", "exited", None])
def test_a_cut_before_the_sandbox_ran_leaves_nothing_behind(sandbox: str | None):
    """The agent was killed when the engine had made both containers, and started none of them for long."""
    world = World(make_pod())
    if sandbox is not None:
        world.add("POD", 0, state=sandbox)
    world.add("web", 0, {LABEL_SANDBOX: "c1"}, state="created")
    assert not any(isinstance(action, StartContainer) for action in world.plan().actions)
    world.settle()
    assert world.names() == ["POD", "web"]
    assert [info.state for info in world.seen] == ["running", "running"]
    assert world.find("web").labels[LABEL_SANDBOX] == world.find("POD").id


def test_init_containers_run_in_order_and_gate_the_app():
    world = World(make_pod(init=({"name": "one"}, {"name": "two"})))
    world.settle()
    assert world.names() == ["POD", "one"]
    world.exit(world.find("one").id)
    world.settle()
    assert world.names() == ["POD", "two"]
    world.exit(world.find("two").id)
    world.settle()
    assert world.names() == ["POD", "web"]


def test_a_sidecar_must_have_started_before_the_next_and_goes_on():
    world = World(make_pod(init=(SIDECAR | STARTUP, {"name": "after"})))
    world.settle()
    assert world.names() == ["POD", "proxy"]
    world.memory.started = {world.find("proxy").id}
    world.settle()
    assert world.names() == ["POD", "after", "proxy"]
    world.exit(world.find("after").id)
    world.settle()
    assert world.names() == ["POD", "proxy", "web"]


def test_sidecars_stop_last_in_reverse_order():
    world = World(make_pod(init=({**SIDECAR, "name": "p1"}, {**SIDECAR, "name": "p2"})))
    world.settle()
    world.change(deletionTimestamp=rfc3339(NOW + 30), deletionGracePeriodSeconds=30)
    world.log.clear()
    world.settle()
    assert [a.name for a in world.log if isinstance(a, StopContainer)] == ["web", "p2", "p1"]
    assert isinstance(world.log[-1], Finish)


def test_sidecars_end_with_a_job_pod():
    world = World(make_pod(init=(SIDECAR,), policy="Never"))
    world.settle()
    world.exit(world.find("web").id)
    world.settle()
    assert world.names() == []
    assert world.status["phase"] == "Succeeded"
    assert world.memory.released


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_restart_policy(policy: str, code: int, again: bool):
    world = World(make_pod(policy=policy))
    world.settle()
    world.exit(world.find("web").id, code)
    world.settle()
    assert (world.find("web").state == "running") is again


def test_crash_loop_waits_10_20_40_up_to_300_and_is_forgotten_after_ten_minutes():
    world = World(make_pod())
    world.settle()
    waits = []
    for _ in range(8):
        world.exit(world.find("web").id, 1)
        plan = world.step()
        waits.append(plan.requeue_after or 0)
        world.now += plan.requeue_after or 0
        world.settle()
        assert world.find("web").state == "running"
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    world.now += 600
    world.exit(world.find("web").id, 1)
    world.settle()
    assert world.find("web").state == "running"


def test_backoff_delays():
    assert [backoff_delay(n) for n in (0, 1, 2, 6, 7, 10_000)] == [0, 10, 20, 300, 300, 300]


def test_a_changed_definition_restarts_the_container():
    world = World(make_pod())
    world.memory.hashes = {"web": "one"}
    world.settle()
    world.memory.hashes = {"web": "two"}
    world.settle()
    assert world.find("web").attempt == 1
    assert world.find("web").hash == "two"


def test_a_condemned_container_is_stopped_with_the_probes_grace():
    world = World(make_pod())
    world.settle()
    world.memory.unhealthy = {world.find("web").id: Unhealthy("failed liveness probe", 3)}
    (stop,) = world.plan().actions
    assert isinstance(stop, StopContainer)
    assert stop.deadline == NOW + 3
    assert stop.message == "Container web failed liveness probe, will be restarted"


def test_a_shorter_grace_shortens_a_stop_that_is_under_way():
    world = World(make_pod())
    world.settle()
    world.change(deletionTimestamp=rfc3339(NOW + 30), deletionGracePeriodSeconds=30)
    (stop,) = world.plan().actions
    world.memory.busy, world.memory.stop_deadlines = {stop.key}, {stop.id: stop.deadline}
    world.memory.stopping_since = NOW
    assert world.plan().actions == ()
    world.now += 5
    world.change(deletionGracePeriodSeconds=1)
    (shorter,) = world.plan().actions
    assert shorter.deadline == NOW + 1


def test_deletion_abandons_starts_and_waits_for_them():
    world = World(make_pod(meta={"deletionTimestamp": rfc3339(NOW), "deletionGracePeriodSeconds": 0}))
    world.memory.busy = {"start:web"}
    assert world.plan() == ((), None, True)
    world.memory.busy = frozenset()
    assert world.plan().actions == (Finish(),)


def test_a_dead_sandbox_is_replaced_and_init_runs_again():
    world = World(make_pod(init=({"name": "one"},)))
    world.settle()
    world.exit(world.find("one").id)
    world.settle()
    world.exit(world.find("POD").id, 255)
    world.settle()
    assert world.find("POD").attempt == 1
    assert world.names() == ["POD", "one"]
    world.exit(world.find("one").id)
    world.settle()
    assert world.names() == ["POD", "web"]
    assert world.find("web").attempt == 1


def test_a_power_cut_restarts_all_at_once_without_back_off():
    world = World(make_pod({"name": "a"}, {"name": "b"}))
    world.settle()
    for info in world.seen:
        world.exit(info.id, 255)
    world.settle()
    assert world.names() == ["POD", "a", "b"]


def test_a_removed_container_is_made_again_with_a_higher_attempt():
    world = World(make_pod())
    world.settle()
    del world.infos[world.find("web").id]
    world.step()
    assert world.find("web").attempt == 1
    assert world.container("web")["restartCount"] == 1


def test_a_pruned_init_container_is_not_run_again():
    world = World(make_pod(init=({"name": "one"},)))
    world.settle()
    world.exit(world.find("one").id)
    world.step()
    world.settle()
    del world.infos[world.find("one").id]
    world.log.clear()
    world.settle()
    assert started(world) == []
    assert world.condition("Initialized")["status"] == "True"


def test_what_was_created_and_not_started_is_started_as_the_same_attempt():
    world = World(make_pod())
    world.up()
    world.add("web", 3, state="created")
    assert world.plan().actions == (StartContainer("web", 3, 0),)


def test_strays_doubles_and_old_dead_ones_are_removed_the_last_dead_one_stays():
    world = World(make_pod())
    world.settle()
    web = world.find("web")
    stray = world.add("stranger", 0)
    olds = [world.add("web", n, state="exited") for n in (-3, -2, -1)]
    double = world.add("web", -4)
    removed = {action.id for action in world.plan().actions if isinstance(action, RemoveContainer)}
    assert removed == {stray.id, olds[0].id, olds[1].id, double.id}
    world.settle()
    assert web.id in world.infos
    assert olds[2].id in world.infos


def test_deadline_ends_the_pod():
    world = World(make_pod(activeDeadlineSeconds=60))
    world.settle()
    assert world.step().requeue_after == 60
    world.now += 60
    world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "DeadlineExceeded")
    assert world.names() == []


def test_a_failed_start_is_not_repeated_before_its_time():
    world = World(make_pod())
    world.up()
    world.memory.failures = {"web": Failure("ErrImagePull", "no such image", NOW + 10)}
    assert world.plan() == ((), 10.0, False)
    world.now += 10
    assert world.plan().actions == (StartContainer("web", 0, 0),)


def test_never_and_a_failing_init_container_fail_the_pod():
    world = World(make_pod(init=({"name": "one"},), policy="Never"))
    world.settle()
    world.exit(world.find("one").id, 1)
    world.settle()
    assert world.status["phase"] == "Failed"
    assert "web" not in started(world)


def test_an_ended_pod_is_released_once():
    world = World(make_pod(policy="Never"))
    world.settle()
    world.exit(world.find("web").id, 0)
    world.settle()
    assert [action for action in world.log if isinstance(action, Release)] == [Release()]
    assert world.find("web").state == "exited"  # its logs stay


def test_a_post_start_hook_holds_the_next_container_back():
    hooked = {"name": "a", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}
    world = World(make_pod(hooked, {"name": "b"}))
    world.up()
    assert world.plan().actions == (StartContainer("a", 0, 0),)
    world.step()
    world.memory.busy = {"start:a"}
    assert world.plan().actions == ()
    world.memory.busy = frozenset()
    assert world.plan().actions == (StartContainer("b", 0, 0),)


def test_ephemeral_containers_start_at_once_and_once_only():
    world = World(make_pod(init=({"name": "slow"},), ephemeralContainers=[{"name": "dbg", "image": "x"}]))
    world.settle()
    assert world.names() == ["POD", "dbg", "slow"]
    world.exit(world.find("dbg").id, 1)
    world.settle()
    assert world.find("dbg").state == "exited"
    assert world.status["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 1


# -- laws

pods = st.builds(
    make_pod,
    st.just({"name": "a"}),
    st.just({"name": "b"}),
    init=st.sampled_from([(), ({"name": "i"},), (SIDECAR, {"name": "i"}), ({"name": "i"}, SIDECAR)]),
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
)
blows = st.lists(
    st.tuples(
        st.sampled_from(["exit0", "exit1", "vanish", "sandbox", "stray", "forget", "reboot", "delete", "condemn"]),
        st.integers(0, 9),
        st.sampled_from([0, 1, 15, 700]),
    ),
    max_size=12,
)


def blow(world: World, kind: str, choice: int) -> None:
    running = [i for i in world.seen if i.state == "running" and not i.is_sandbox]
    victim = running[choice % len(running)] if running else None
    if kind in ("exit0", "exit1") and victim:
        world.exit(victim.id, int(kind[-1]))
    elif kind == "vanish" and world.infos:
        del world.infos[sorted(world.infos)[choice % len(world.infos)]]
    elif kind == "sandbox" and any(i.is_sandbox for i in world.seen):
        world.exit(world.find("POD").id, 137)
    elif kind == "stray":
        world.add(["a", "i", "other"][choice % 3], -1 - choice)
    elif kind == "forget":  # the agent is restarted
        fresh = dataclasses.replace(world.memory, wired="", attempts={}, stopping_since=0, released=False, ended=None)
        world.memory = fresh
    elif kind == "reboot":
        for info in world.seen:
            world.exit(info.id, 255)
    elif kind == "delete" and choice == 0:
        world.change(deletionTimestamp=rfc3339(world.now + 30), deletionGracePeriodSeconds=30)
    elif kind == "condemn" and victim:
        world.memory.unhealthy = {victim.id: Unhealthy("failed liveness probe")}


@settings(max_examples=150, deadline=None)
@given(pods, blows, st.booleans())
def test_laws(pod, history, report):
    """Whatever happens it settles, planning again then does nothing, and nothing ever runs twice (see `perform`).

    Also when no status ever reaches the API (`report` False).
    """
    world = World(pod, report=report)
    for kind, choice, seconds in [("", 0, 0), *history]:
        blow(world, kind, choice)
        world.now += seconds
        world.settle()
        if world.finished:
            assert not world.infos
            return
        assert world.plan().actions == ()
        running = [i.name for i in world.seen if i.state == "running"]
        assert len(running) == len(set(running))
        for name in {i.name for i in world.seen}:
            assert len([i for i in world.seen if i.name == name]) <= 2
    while world.pod.status.phase not in ("Succeeded", "Failed") and world.plan().requeue_after:
        world.now += world.plan().requeue_after or 0
        world.settle()
    up = {i.name for i in world.seen if i.state == "running"}
    if pod.spec.restartPolicy == "Always":
        waits_for_init = any(c.name == "i" for c in pod.spec.initContainers) and "i" in up
        assert {"a", "b"} <= up or waits_for_init
