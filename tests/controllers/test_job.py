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
from minik8s.controllers.job_indexes import free, parse, show
from minik8s.controllers.job_plan import TRACKING, backoff_in, failure_action, tally, verdict, wanted

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
