"""A Job runs pods until enough of them have succeeded, and counts each exactly once.

A pod that ended is first noted in the status (`uncountedTerminatedPods`), then loses its finalizer, then moves into
the counters: at whatever point we are cut off, the next look goes on from there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from minik8s.api.errors import Conflict, Invalid, NotFound
from minik8s.api.kinds.job import Job, JobStatus, UncountedTerminatedPods
from minik8s.api.kinds.pod import Pod
from minik8s.api.labels import selects
from minik8s.api.meta import Condition, Object, is_true
from minik8s.client.base import STRATEGIC_MERGE_PATCH, Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, rfc3339
from minik8s.controllers.job_indexes import counts_per_index, free, index_of, indexed_pod, is_indexed, show
from minik8s.controllers.job_plan import (
    TRACKING,
    Tally,
    Verdict,
    backoff_in,
    deadline_in,
    expires_in,
    failures_of,
    index_backoffs,
    is_over,
    replaces_failed_only,
    tally,
    verdict,
    wanted,
)
from minik8s.controllers.ownership import claim, index_by_controller, owned, owner_reference
from minik8s.controllers.pod_control import BURST, PodControl, attempt_all, namespace_is_ending
from minik8s.controllers.pod_facts import is_finished
from minik8s.controllers.replicas import first_to_go
from minik8s.controllers.status import difference, only_status_changed, with_condition
from minik8s.controllers.templates import Templates, pod_from

SUFFIX = "job-tracking"
BY_JOB = "job"  # informer index: key of the Job that a pod still has to be counted by


class JobController(Controller):
    name = "job-controller"

    def __init__(self, client: Client, informers: Informers, recorder: Recorder, clock: Clock) -> None:
        super().__init__(client, informers)
        self._clock = clock
        self._recorder = recorder
        self._resource = client.resource(Job)
        self._jobs = informers.of(Job)
        self._pods = informers.of(Pod)
        index_by_controller(self._pods)
        self._pods.add_index(BY_JOB, _tracked_by)
        self._control = PodControl(client, self._pods, recorder)
        self._templates = Templates(client)
        self._jobs.on_change(self._job_changed)
        self._pods.on_change(self._pod_changed)

    def _job_changed(self, old: Job | None, new: Job | None) -> None:
        if old is not None and (new is None or old.metadata.uid != new.metadata.uid):
            self._templates.forget(old.metadata.uid)
        if not only_status_changed(old, new):
            self.queue.add((new or old or Job()).key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            reference = pod.controller if pod is not None else None
            if pod is not None and reference is not None and reference.kind == "Job":
                self.queue.add(f"{pod.metadata.namespace}/{reference.name}")
        if new is not None and new.controller is None:
            if TRACKING in new.metadata.finalizers:
                self.queue.add(f"{new.metadata.namespace}/{new.metadata.name}/{SUFFIX}")
            for job in self._jobs.list(new.metadata.namespace):
                if selects(job.spec.selector, new.metadata.labels):
                    self.queue.add(job.key)

    async def reconcile(self, key: str) -> float | None:
        if key.endswith(f"/{SUFFIX}"):
            orphan = self._pods.by_key(key.removesuffix(f"/{SUFFIX}"))
            if orphan is not None and orphan.controller is None:
                await self._untrack([orphan])
            return None
        job = self._jobs.by_key(key)
        await self._release_orphans(key, job)
        if job is None:
            return None
        uid, selector = job.metadata.uid, job.spec.selector

        def matches(pod: Object) -> bool:
            if selector is None:
                return pod.controller is not None and pod.controller.uid == uid
            return selects(selector, pod.metadata.labels)

        await claim(self.client, job, matches, self._pods)
        if is_over(job):
            await self._untrack([pod for pod in owned(self._pods, job) if pod.deleting or is_finished(pod)])
            return await self._expire(job)
        job = await self._begin(job)
        return await self._advance(job)

    async def _release_orphans(self, key: str, job: Job | None) -> None:
        """Pods of a Job that is gone will not be counted any more."""
        namespace, _, name = key.partition("/")
        uid = job.metadata.uid if job is not None else ""
        lost = [pod for pod in self._pods.by_index(BY_JOB, key) if _owner_uid(pod) != uid]
        if lost:
            live = await self._live_uid(namespace, name)
            await self._untrack([pod for pod in lost if _owner_uid(pod) != live])

    async def _live_uid(self, namespace: str, name: str) -> str:
        try:
            return (await self.client.get(Job, name, namespace)).metadata.uid
        except NotFound:
            return ""

    async def _begin(self, job: Job) -> Job:
        """Set the start time, and the Suspended condition as the spec says."""
        now, status, spec = self._clock(), job.status, job.spec
        conditions, start = status.conditions, status.startTime
        if spec.suspend and not is_true(conditions, "Suspended"):
            conditions = with_condition(
                conditions, _condition("Suspended", "True", "JobSuspended", "Job suspended"), now
            )
            self._recorder.event(job, "Normal", "Suspended", "Job suspended")
        elif not spec.suspend and is_true(conditions, "Suspended"):
            conditions = with_condition(conditions, _condition("Suspended", "False", "JobResumed", "Job resumed"), now)
            start = rfc3339(now)  # the deadline counts from the resumption
            self._recorder.event(job, "Normal", "Resumed", "Job resumed")
        if not spec.suspend and not start:
            start = rfc3339(now)
        return await self._write(job, msgspec.structs.replace(status, conditions=conditions, startTime=start))

    async def _advance(self, job: Job) -> float | None:
        pods = owned(self._pods, job)
        known = tally(job, pods, over=job.deleting)
        now = self._clock()
        decided = verdict(job, known, now) if not job.deleting else None
        if decided is not None:
            known = tally(job, pods, over=True)
        job = await self._note(job, known, decided)
        if known.settled:
            await self._untrack(known.settled)
            self.queue.add(job.key)  # the next look moves them into the counters
            if not job.deleting and decided is None:
                await self._manage(job, known, pods)
            return None
        again: float | None = None
        if decided is not None:
            await self._stop(job, decided, known)
        elif not job.deleting:
            again = await self._manage(job, known, pods)
        left = deadline_in(job, self._clock())
        return min((each for each in (again, left) if each is not None and each > 0), default=None)

    async def _note(self, job: Job, known: Tally, decided: Verdict | None) -> Job:
        """Write the status: counts, what is still to be counted, and the verdict's first half.

        Pods in `uncounted` that no longer carry the finalizer are moved into the counters.
        """
        carrying = {pod.metadata.uid for pod in known.settled}
        fresh = known.fresh
        left = UncountedTerminatedPods(
            tuple(uid for uid in fresh.succeeded if uid in carrying),
            tuple(uid for uid in fresh.failed if uid in carrying),
        )
        status, now = job.status, self._clock()
        conditions = status.conditions
        if decided is not None:
            conditions = with_condition(
                conditions, _condition(decided.type, "True", decided.reason, decided.message), now
            )
        indexed = {"completedIndexes": show(known.indexes)} if is_indexed(job) else {}
        if counts_per_index(job):
            indexed["failedIndexes"] = show(known.failed_indexes)
        counted = msgspec.structs.replace(
            status,
            active=len(known.active),
            ready=known.ready,
            terminating=len(known.terminating),
            succeeded=status.succeeded + len(fresh.succeeded) - len(left.succeeded),
            failed=status.failed + len(fresh.failed) - len(left.failed),
            uncountedTerminatedPods=left,
            conditions=conditions,
            **indexed,
        )
        return await self._write(job, counted)

    async def _stop(self, job: Job, decided: Verdict, known: Tally) -> None:
        """Remove what still runs; when all has ended, say the final word."""
        if known.active and decided.final == "Complete":
            await self._remove_uncounted(job, known.active)  # not needed any more, which is no failure
            return
        if known.active:
            outcome = await self._control.delete(job, known.active)
            if outcome.error is not None:
                raise outcome.error
            return
        if known.terminating:
            return
        now = self._clock()
        final = _condition(decided.final, "True", decided.reason, decided.message)
        end = {"completionTime": rfc3339(now)} if decided.final == "Complete" else {}
        conditions = with_condition(job.status.conditions, final, now)
        await self._write(job, msgspec.structs.replace(job.status, conditions=conditions, **end))
        if decided.final == "Complete":
            self._recorder.event(job, "Normal", "Completed", "Job completed")
        else:
            self._recorder.event(job, "Warning", decided.reason, decided.message)
        self.queue.add(job.key)  # for the time it may stay

    async def _manage(self, job: Job, known: Tally, pods: list[Pod]) -> float | None:
        """Make or remove pods. Returns the seconds until a failure's back-off is over, if it is what hinders."""
        active = [pod for pod in known.active if not self._control.is_going(pod)]
        surplus = self._surplus(job, known, active)
        if surplus:
            await self._remove_uncounted(job, surplus)
            return None
        missing = wanted(job, known) - len(active)
        if replaces_failed_only(job):
            missing -= len(known.terminating)
        if missing <= 0:
            return None
        waits: dict[int, float] = {}
        if counts_per_index(job):
            waits = index_backoffs(job, known, self._clock())
        elif (wait := backoff_in(pods, self._clock())) > 0:
            return wait
        documents = await self._documents(job, known, min(missing, BURST), late=set(waits))
        outcome = await self._control.create(job, documents)
        if outcome.error is not None and not namespace_is_ending(outcome.error):
            raise outcome.error
        if outcome.error is None and missing > BURST:
            self.queue.add(job.key)
        return min(waits.values(), default=None)

    def _surplus(self, job: Job, known: Tally, active: list[Pod]) -> list[Pod]:
        """Active pods that are too many: of an index that is done, out of range or taken twice, then the cheapest."""
        useless = []
        if is_indexed(job):
            taken = set(known.indexes | known.failed_indexes)
            for pod in sorted(active, key=lambda each: (each.metadata.creationTimestamp, each.metadata.name)):
                index = index_of(pod)
                if index in taken or not 0 <= index < (job.spec.completions or 0):
                    useless.append(pod)
                taken.add(index)
        rest = [pod for pod in active if pod not in useless]
        return useless + first_to_go(rest, max(0, len(rest) - wanted(job, known)), self._clock())

    async def _documents(self, job: Job, known: Tally, count: int, *, late: set[int]) -> list[dict[str, Any]]:
        """Pods to be made. `late` indexes have to wait."""
        template = await self._templates.of(job)
        pod = pod_from(template, owner_reference(job, self._resource))
        meta = pod["metadata"]
        meta["finalizers"] = [*meta.get("finalizers", ()), TRACKING]
        if not is_indexed(job):
            return [pod] * count
        replaced = list(known.waiting.values())
        held = (each for each in (*known.active, *known.terminating) if each not in replaced)
        taken = known.indexes | known.failed_indexes | late | {index_of(each) for each in held}
        return [
            indexed_pod(pod, job, index, failures_of(job, known.waiting[index]) if index in known.waiting else (0, 0))
            for index in free(job.spec.completions or 0, taken, count)
        ]

    # -- writes

    async def _remove_uncounted(self, job: Job, pods: list[Pod]) -> None:
        """Pods that are not needed (suspended, scaled down) are no failures: they lose the finalizer first."""
        await self._untrack(pods)
        outcome = await self._control.delete(job, pods)
        if outcome.error is not None:
            raise outcome.error

    async def _untrack(self, pods: list[Pod]) -> None:
        newest = 0
        tracked = [pod for pod in pods if TRACKING in pod.metadata.finalizers]
        for result in await attempt_all(self._drop_finalizer, tracked):
            if isinstance(result, Exception):
                raise result
            newest = max(newest, int(result or 0))
        if newest:
            await self._pods.caught_up(str(newest))

    async def _drop_finalizer(self, pod: Pod) -> str:
        meta = pod.metadata
        patch = {"metadata": {"uid": meta.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]}}
        try:
            done = await self.client.patch(Pod, meta.name, meta.namespace, patch, content_type=STRATEGIC_MERGE_PATCH)
        except (NotFound, Conflict):
            return ""  # gone, or another pod by now
        return done.metadata.resourceVersion

    async def _expire(self, job: Job) -> float | None:
        left = expires_in(job, self._clock())
        if left is None or job.deleting:
            return None
        if left > 0:
            return left
        meta = job.metadata
        try:
            await self.client.delete(Job, meta.name, meta.namespace, propagation="Foreground", uid=meta.uid)
        except (NotFound, Conflict):
            return None
        return None

    async def _write(self, job: Job, status: JobStatus) -> Job:
        """Write the status if it differs, only over the very state that it was made from: it counts."""
        patch = difference(job.status, status)
        if patch is None:
            return job
        if "uncountedTerminatedPods" in patch and status.uncountedTerminatedPods is not None:
            # A merge patch would keep a list that is left out for being empty.
            uncounted = status.uncountedTerminatedPods
            patch["uncountedTerminatedPods"] = {
                "succeeded": list(uncounted.succeeded) or None,
                "failed": list(uncounted.failed) or None,
            }
        meta = job.metadata
        body = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resourceVersion}, "status": patch}
        try:
            written = await self.client.patch(Job, meta.name, meta.namespace, body, subresource="status")
        except Invalid as error:
            raise Conflict(str(error)) from error
        await self._jobs.caught_up(written.metadata.resourceVersion)
        return written


def _tracked_by(pod: Pod) -> tuple[str, ...]:
    owner = pod.controller
    if owner is None or owner.kind != "Job" or TRACKING not in pod.metadata.finalizers:
        return ()
    return (f"{pod.metadata.namespace}/{owner.name}",)


def _owner_uid(pod: Pod) -> str:
    return pod.controller.uid if pod.controller is not None else ""


def _condition(type: str, status: str, reason: str, message: str) -> Condition:
    return Condition(type=type, status=status, reason=reason, message=message)
