"""Jobs: the plan as tables, then whole runs on the real API server."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.kinds.job import Job
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import condition, is_true
from minik8s.clock import rfc3339
from minik8s.controllers.job import JobController
from minik8s.controllers.job_indexes import FAILURES, IGNORED, INDEX, free, index_of, parse, show
from minik8s.controllers.job_plan import (
    TRACKING,
    backoff_in,
    failure_action,
    index_backoffs,
    success_rule,
    tally,
    verdict,
    wanted,
)

from .cluster import Cluster, control_plane
from .objects import NOW, pod


def job(status: dict[str, Any] | None = None, **spec: Any) -> Job:
    meta = {"name": "work", "namespace": "default", "uid": "uid-work"}
    return msgspec.convert({"metadata": meta, "spec": spec, "status": status or {}}, Job)


def ended(name: str, phase: str, *, ago: float = 1, code: int = 0, tracked: bool = True, conditions: Any = ()) -> Pod:
    terminated = {"exitCode": code, "finishedAt": rfc3339(NOW - ago)}
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": f"uid-{name}",
                "finalizers": [TRACKING] * tracked,
            },
            "status": {
                "phase": phase,
                "conditions": list(conditions),
                "containerStatuses": [{"name": "main", "state": {"terminated": terminated}}],
            },
        },
        Pod,
    )


@given(st.sets(st.integers(0, 200)))
def test_indexes_survive_being_written(indexes):
    assert parse(show(indexes)) == indexes


def test_indexes_are_shown_as_ranges():
    assert show({0, 1, 2, 5, 7, 8}) == "0-2,5,7-8"
    assert free(5, {0, 2}, 2) == [1, 3]


@pytest.mark.parametrize(
    ("spec", "succeeded", "active", "expected"),
    [
        ({}, 0, 0, 1),
        ({"parallelism": 3}, 0, 0, 3),
        ({"parallelism": 3}, 1, 2, 2),
        ({"parallelism": 3, "completions": 5}, 0, 0, 3),
        ({"parallelism": 3, "completions": 5}, 4, 0, 1),
        ({"parallelism": 0, "completions": 5}, 0, 0, 0),
        ({"parallelism": 3, "completions": 5, "suspend": True}, 0, 3, 0),
    ],
)
def test_how_many_pods(spec, succeeded, active, expected):
    it = job({"succeeded": succeeded}, **spec)
    assert wanted(it, tally(it, [pod(f"a{n}") for n in range(active)])) == expected


def test_each_pod_counts_once():
    counted = {"succeeded": 3, "uncountedTerminatedPods": {"succeeded": ["uid-a"]}}
    it = job(counted, completions=10)
    known = tally(it, [ended("a", "Succeeded"), ended("b", "Succeeded"), ended("c", "Succeeded", tracked=False)])
    assert known.succeeded == 5
    assert known.fresh.succeeded == ("uid-a", "uid-b")


def test_verdicts():
    it = job(backoffLimit=1)
    assert verdict(it, tally(it, [ended("a", "Failed")]), NOW) is None
    assert verdict(it, tally(it, [ended("a", "Failed"), ended("b", "Failed")]), NOW).reason == "BackoffLimitExceeded"
    late = job({"startTime": rfc3339(NOW - 100)}, activeDeadlineSeconds=60)
    assert verdict(late, tally(late, []), NOW).reason == "DeadlineExceeded"
    done = job(completions=1)
    assert verdict(done, tally(done, [ended("a", "Succeeded")]), NOW).type == "SuccessCriteriaMet"
    stays = job({"conditions": [{"type": "FailureTarget", "status": "True", "reason": "Early"}]}, completions=1)
    assert verdict(stays, tally(stays, [ended("a", "Succeeded")]), NOW).reason == "Early"


@pytest.mark.parametrize(
    ("phases", "expected"),
    [([], 0), (["Failed"], 9), (["Failed"] * 3, 39), (["Failed"] * 30, 599), (["Failed", "Succeeded"], 0)],
)
def test_backoff_doubles_until_a_success(phases, expected):
    pods = [ended(f"p{n:02}", phase, ago=len(phases) - n) for n, phase in enumerate(phases)]
    assert backoff_in(pods, NOW) == expected


def test_pod_failure_policy_first_match_wins():
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
        {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [1]}},
    ]
    it = job(podFailurePolicy={"rules": rules})
    action, why = failure_action(it, ended("a", "Failed", code=42))
    assert action == "FailJob"
    assert why.message == "Container main for pod default/a failed with exit code 42 matching FailJob rule at index 1"
    disrupted = ended("b", "Failed", code=42, conditions=[{"type": "DisruptionTarget", "status": "True"}])
    assert failure_action(it, disrupted) == ("Ignore", None)
    assert tally(it, [disrupted]).failed == 0
    assert failure_action(it, ended("c", "Failed", code=1)) == ("Count", None)


def numbered(index: int, phase: str, *, before: int = 0, ignored: int = 0, **more: Any) -> Pod:
    """A pod of an index that had failed so often before."""
    made = ended(f"p{index}-{before + ignored}", phase, **more)
    marks = {INDEX: str(index), FAILURES: str(before), IGNORED: str(ignored)}
    return msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, annotations=marks))


def per_index(limit: int = 1, **spec: Any) -> Job:
    return job(
        completionMode="Indexed",
        completions=3,
        parallelism=3,
        backoffLimitPerIndex=limit,
        backoffLimit=2**31 - 1,
        **spec,
    )


def test_each_index_has_tries_of_its_own():
    it = per_index()
    pods = [numbered(0, "Failed"), numbered(0, "Failed", before=1), numbered(1, "Failed"), numbered(2, "Succeeded")]
    known = tally(it, pods)
    assert (known.failed_indexes, known.indexes) == ({0}, {2})
    assert known.waiting == {1: pods[2]}  # to be tried again; keeps its finalizer, as it knows how often
    assert (known.failed, len(known.settled)) == (3, 3)
    assert wanted(it, known) == 1
    assert verdict(it, known, NOW) is None
    assert len(tally(it, pods, over=True).settled) == 4


def test_a_failed_pod_is_counted_once_another_has_followed():
    it, old = per_index(), numbered(1, "Failed")
    assert not tally(it, [old]).settled
    follower = msgspec.structs.replace(numbered(1, "Running", before=1), status=pod("x").status)
    assert tally(it, [old, follower]).settled == [old]


def test_an_index_waits_twice_as_long_after_each_failure():
    it = per_index(limit=9)
    pods = [numbered(0, "Failed", ago=1), numbered(1, "Failed", before=2, ago=1), numbered(2, "Failed", ago=11)]
    assert index_backoffs(it, tally(it, pods), NOW) == {0: 9, 1: 39}


@pytest.mark.parametrize(
    ("action", "failed", "after"), [("FailIndex", {0}, None), ("Ignore", set(), (0, 1)), ("Count", set(), (1, 0))]
)
def test_what_the_failure_policy_says_about_an_index(action, failed, after):
    rules = [{"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]
    it = per_index(podFailurePolicy={"rules": rules})
    known = tally(it, [numbered(0, "Failed", code=42)])
    assert known.failed_indexes == failed
    assert (0 in known.waiting) == (after is not None)


def test_a_job_fails_with_its_last_index_or_with_too_many():
    lost = [numbered(0, "Failed", before=1), numbered(1, "Succeeded")]
    it = per_index()
    assert verdict(it, tally(it, lost), NOW) is None
    lost.append(numbered(2, "Succeeded"))
    assert verdict(it, tally(it, lost), NOW).reason == "FailedIndexes"
    strict = per_index(maxFailedIndexes=0)
    assert verdict(strict, tally(strict, lost[:1]), NOW).reason == "MaxFailedIndexesExceeded"


@pytest.mark.parametrize(
    ("rules", "done", "met"),
    [
        ([{"succeededIndexes": "0,2-3"}], {0, 2}, None),
        ([{"succeededIndexes": "0,2-3"}], {0, 2, 3}, 0),
        ([{"succeededIndexes": "0,2-3", "succeededCount": 2}], {1, 2}, None),
        ([{"succeededIndexes": "0,2-3", "succeededCount": 2}], {2, 3}, 0),
        ([{"succeededIndexes": "0"}, {"succeededCount": 2}], {3, 4}, 1),
    ],
)
def test_a_job_has_succeeded_when_a_rule_is_met(rules, done, met):
    it = job(completionMode="Indexed", completions=5, successPolicy={"rules": rules})
    assert success_rule(it, frozenset(done)) == met


# -- on the real API server


async def create(cluster: Cluster, **spec: Any) -> None:
    template = {"spec": {"containers": [{"name": "main", "image": "x"}], "restartPolicy": "Never"}}
    body = {"metadata": {"name": "work", "namespace": "default"}, "spec": {"template": template, **spec}}
    await cluster.client.create(Job, body)


def end_with(cluster: Cluster, code: int = 0):
    kubelet = cluster.kubelet

    def behave(seen: Pod) -> dict[str, Any] | None:
        if seen.status.phase in ("Succeeded", "Failed"):
            return None
        return kubelet.ended(seen, code=code)

    kubelet.behave = behave


def finished(cluster: Cluster, type: str = "Complete") -> Job | None:
    found = cluster.get(Job, "work")
    return found if found and is_true(found.status.conditions, type) else None


async def test_runs_to_completion_and_counts_exactly(cluster: Cluster):
    end_with(cluster)
    await create(cluster, completions=7, parallelism=3)
    done = await cluster.until(lambda: finished(cluster))
    assert (done.status.succeeded, done.status.failed, done.status.active) == (7, 0, 0)
    assert done.status.startTime
    assert done.status.completionTime
    assert condition(done.status.conditions, "SuccessCriteriaMet").reason == "CompletionsReached"
    await cluster.until(lambda: not any(each.metadata.finalizers for each in cluster.all(Pod)))
    await cluster.settle()
    assert len(cluster.all(Pod)) == 7
    uncounted = cluster.get(Job, "work").status.uncountedTerminatedPods
    assert not uncounted or not (uncounted.succeeded or uncounted.failed)
    assert [event.message for event in await cluster.events("Completed")] == ["Job completed"]


async def test_counting_survives_being_cut_off_anywhere(monkeypatch: pytest.MonkeyPatch):
    """The controller is cancelled at a random place again and again; each pod is still counted exactly once."""
    rng = random.Random(4)
    honest = JobController.reconcile

    async def cut(self: JobController, key: str) -> float | None:
        steps = rng.randrange(1, 12)
        task = asyncio.ensure_future(honest(self, key))
        for _ in range(steps):
            await asyncio.sleep(0)
            if task.done():
                return task.result()
        if rng.random() < 0.5:
            return await task
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            self.queue.add(key)
        return None

    monkeypatch.setattr(JobController, "reconcile", cut)
    async with control_plane() as cluster:
        end_with(cluster)
        await create(cluster, completions=25, parallelism=5)
        done = await cluster.until(lambda: finished(cluster))
        assert done.status.succeeded == 25
        assert done.status.failed == 0


async def test_indexed_pods_know_their_number(cluster: Cluster):
    end_with(cluster)
    await create(cluster, completions=4, parallelism=2, completionMode="Indexed")
    done = await cluster.until(lambda: finished(cluster))
    assert (done.status.succeeded, done.status.completedIndexes) == (4, "0-3")
    pods = cluster.all(Pod)
    assert sorted(each.spec.hostname for each in pods) == [f"work-{n}" for n in range(4)]
    env = pods[0].spec.containers[0].env
    assert (env[0].name, env[0].valueFrom.fieldRef.fieldPath) == (
        "JOB_COMPLETION_INDEX",
        "metadata.annotations['batch.kubernetes.io/job-completion-index']",
    )


async def test_suspend_removes_pods_without_counting_them(cluster: Cluster):
    await create(cluster, completions=3, parallelism=3)
    await cluster.until(lambda: (it := cluster.get(Job, "work")) and it.status.active == 3)
    await cluster.client.patch(Job, "work", "default", {"spec": {"suspend": True}})
    await cluster.until(
        lambda: not cluster.all(Pod) and is_true(cluster.get(Job, "work").status.conditions, "Suspended")
    )
    await cluster.settle()
    assert (cluster.get(Job, "work").status.failed, cluster.get(Job, "work").status.active) == (0, 0)
    end_with(cluster)
    await cluster.client.patch(Job, "work", "default", {"spec": {"suspend": False}})
    done = await cluster.until(lambda: finished(cluster))
    assert condition(done.status.conditions, "Suspended").reason == "JobResumed"


async def test_a_deleted_job_lets_its_pods_go(cluster: Cluster):
    await create(cluster, completions=2, parallelism=2)
    await cluster.until(lambda: (it := cluster.get(Job, "work")) and it.status.active == 2)
    await cluster.client.delete(Job, "work", "default", propagation="Background")
    await cluster.until(lambda: not cluster.all(Pod) and not cluster.all(Job))


async def test_a_deleted_pod_counts_as_failed_and_is_replaced(cluster: Cluster):
    await create(cluster, completions=1, parallelism=1)
    await cluster.until(lambda: (it := cluster.get(Job, "work")) and it.status.active == 1 and it.status.ready == 1)
    first = cluster.all(Pod)[0]
    await cluster.client.delete(Pod, first.metadata.name, "default")
    await cluster.until(lambda: (p := cluster.all(Pod)) and all(e.metadata.uid != first.metadata.uid for e in p))
    await cluster.until(lambda: cluster.get(Job, "work").status.failed == 1)


@pytest.mark.looptime
async def test_failures_back_off_until_the_limit():
    loop = asyncio.get_running_loop()
    async with control_plane(clock=lambda: NOW + loop.time()) as cluster:
        end_with(cluster, code=3)
        await create(cluster, backoffLimit=3)
        failed = await cluster.until_virtual(lambda: finished(cluster, "Failed"), 200)
        why = condition(failed.status.conditions, "Failed")
        assert (why.reason, why.message) == ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        assert condition(failed.status.conditions, "FailureTarget").reason == "BackoffLimitExceeded"
        assert failed.status.failed == 4
        assert 65 < loop.time() < 80  # 10 + 20 + 40 seconds of back-off


@pytest.mark.looptime
async def test_deadline_and_time_to_live():
    loop = asyncio.get_running_loop()
    async with control_plane(clock=lambda: NOW + loop.time()) as cluster:
        await create(cluster, activeDeadlineSeconds=30, ttlSecondsAfterFinished=60)
        failed = await cluster.until_virtual(lambda: finished(cluster, "Failed"), 100)
        assert condition(failed.status.conditions, "Failed").reason == "DeadlineExceeded"
        assert 29 <= loop.time() <= 35
        await cluster.until_virtual(lambda: not cluster.all(Job) and not cluster.all(Pod), 200)
        assert 89 <= loop.time() <= 100


def end_each_with(cluster: Cluster, codes: dict[int, int | None]) -> None:
    """By index: the exit code, None to run on."""
    kubelet = cluster.kubelet

    def behave(seen: Pod) -> dict[str, Any] | None:
        if seen.status.phase in ("Succeeded", "Failed"):
            return None
        code = codes[index_of(seen)]
        if code is None:
            return kubelet.running(seen) if seen.status.phase != "Running" else None
        return kubelet.ended(seen, code=code)

    kubelet.behave = behave


@pytest.mark.looptime
async def test_an_index_that_fails_leaves_the_others_their_tries():
    loop = asyncio.get_running_loop()
    async with control_plane(clock=lambda: NOW + loop.time()) as cluster:
        end_each_with(cluster, {0: 0, 1: 3, 2: 0})
        await create(cluster, completionMode="Indexed", completions=3, parallelism=1, backoffLimitPerIndex=2)
        failed = await cluster.until_virtual(lambda: finished(cluster, "Failed"), 200)
        assert condition(failed.status.conditions, "Failed").reason == "FailedIndexes"
        assert (failed.status.completedIndexes, failed.status.failedIndexes) == ("0,2", "1")
        assert (failed.status.succeeded, failed.status.failed, failed.status.active) == (2, 3, 0)
        assert 29 < loop.time() < 40  # 10 + 20 seconds of back-off
        await cluster.until(lambda: not any(each.metadata.finalizers for each in cluster.all(Pod)))
        tries = [each.metadata.annotations[FAILURES] for each in cluster.all(Pod) if index_of(each) == 1]
        assert sorted(tries) == ["0", "1", "2"]


async def test_too_many_failed_indexes_end_the_others(cluster: Cluster):
    end_each_with(cluster, {0: 3, 1: None, 2: None})
    await create(
        cluster, completionMode="Indexed", completions=3, parallelism=3, backoffLimitPerIndex=0, maxFailedIndexes=0
    )
    failed = await cluster.until(lambda: finished(cluster, "Failed"))
    assert condition(failed.status.conditions, "Failed").reason == "MaxFailedIndexesExceeded"
    assert 0 in parse(
        failed.status.failedIndexes
    )  # and those of pods that are taken away count as Kubernetes counts them
    assert failed.status.active == 0


@pytest.mark.looptime
async def test_a_pod_that_is_taken_away_by_force_is_a_failure_of_its_index():
    loop = asyncio.get_running_loop()
    async with control_plane(clock=lambda: NOW + loop.time()) as cluster:
        end_each_with(cluster, {0: None})
        await create(cluster, completionMode="Indexed", completions=1, backoffLimitPerIndex=1)
        await cluster.until(lambda: (it := cluster.get(Job, "work")) and it.status.ready == 1)
        first = cluster.all(Pod)[0]
        await cluster.client.delete(Pod, first.metadata.name, "default", grace=0)

        def others() -> list[Pod]:
            return [each for each in cluster.all(Pod) if each.metadata.uid != first.metadata.uid]

        await cluster.until_virtual(others, 30)
        assert others()[0].metadata.annotations[FAILURES] == "1"
        await cluster.until(lambda: len(cluster.all(Pod)) == 1 and cluster.get(Job, "work").status.failed == 1)


async def test_a_rule_of_success_ends_the_rest(cluster: Cluster):
    end_each_with(cluster, {0: 0, 1: None, 2: None})
    rules = [{"succeededIndexes": "0"}]
    await create(cluster, completionMode="Indexed", completions=3, parallelism=3, successPolicy={"rules": rules})
    done = await cluster.until(lambda: finished(cluster))
    assert condition(done.status.conditions, "Complete").reason == "SuccessPolicy"
    assert condition(done.status.conditions, "SuccessCriteriaMet").message == "Matched rules at index 0"
    assert (done.status.succeeded, done.status.failed, done.status.active) == (1, 0, 0)


async def test_a_deleted_job_keeps_no_failed_pod(cluster: Cluster):
    end_each_with(cluster, {0: 3})
    await create(cluster, completionMode="Indexed", completions=1, backoffLimitPerIndex=1)
    await cluster.until(lambda: [p for p in cluster.all(Pod) if p.status.phase == "Failed"])
    await cluster.settle()
    assert cluster.all(Pod)[0].metadata.finalizers
    await cluster.client.delete(Job, "work", "default", propagation="Foreground")
    await cluster.until(lambda: not cluster.all(Pod) and not cluster.all(Job))
