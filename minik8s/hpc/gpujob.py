"""GpuJobs: sources up, one submission, results down. Each step is idempotent and what it means to do is stored before.

Pending → Uploading → Submitted → Queued → Running → Downloading → Succeeded | Failed | Cancelled | Lost. A controller
that is killed anywhere begins the step again, and the cluster's own marks make that harmless (`remote_text.submit`).
A job with a driver of its own (`spec.driver: Sidecar`) only begins and ends here; `sidecar.py` does in a pod what is
between, with this same code.
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

from msgspec.structs import replace

from minik8s.api.errors import NotFound
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.gpujob import (
    CANCELLED,
    DOWNLOADING,
    FAILED,
    FINALIZER,
    LOST,
    PENDING,
    QUEUED,
    RUNNING,
    SUBMITTED,
    SUCCEEDED,
    TERMINAL,
    UPLOADING,
    GpuJob,
    GpuJobStatus,
)  # fmt: skip
from minik8s.api.kinds.hpccluster import LOCAL, SIDECAR, HpcCluster
from minik8s.api.meta import Json
from minik8s.apiserver.uploads import Blobs
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, parse_time, rfc3339, system_clock
from minik8s.controllers.status import difference
from minik8s.hpc import driver_pod, progress, results, sources
from minik8s.hpc.clusters import HpcClusterController
from minik8s.hpc.drivers import Drivers, NotDriven
from minik8s.hpc.local import LocalPlaces
from minik8s.hpc.place import Place, Refused
from minik8s.hpc.reports import hopeless
from minik8s.hpc.slurm import SlurmPlace
from minik8s.hpc.ssh import RemoteFileError, Unreachable

RETRY = 5.0  # seconds until a cluster that is out of reach, or full, is tried again
ABANDON = 60.0  # seconds for which the deletion of a job waits for its cluster
CANCEL_AGAIN = 20.0  # seconds until a job that does not end is cancelled once more


class GpuJobController(Controller):
    name = "gpujob-controller"
    workers = 16  # uploads and slow login nodes hold one each

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, clusters: HpcClusterController,
        local: LocalPlaces | None, drivers: Drivers | None, files: Path, kept: results.Results, blobs: Blobs,
        clock: Clock = system_clock,
    ) -> None:  # fmt: skip
        """A sidecar has neither pods (`local`) nor sidecars of its own (`drivers`)."""
        super().__init__(client, informers)
        self._jobs = informers.of(GpuJob)
        self._clusters = informers.of(HpcCluster)
        self._recorder = recorder
        self._sites = clusters
        self._local = local
        self._drivers = drivers
        self._packed = files
        self._results = kept
        self._blobs = blobs
        self._clock = clock
        self._cancelled: dict[str, float] = {}  # uid -> when it was cancelled last
        self._jobs.add_index("uid", lambda job: (job.metadata.uid,))
        self._jobs.on_change(self._changed)
        clusters.on_job = self._told
        clusters.on_cluster = self._cluster_changed
        for each in (local, drivers):
            if each is not None:
                each.told = self._told

    def _changed(self, old: GpuJob | None, new: GpuJob | None) -> None:
        job = new or old
        if job is None:
            return
        self.queue.add(job.key)
        if job.spec.secretRef is not None and (new is None or new.status.phase in TERMINAL):
            self._release(job, job.spec.secretRef.name)
        if new is None or (old is not None and old.status.phase != new.status.phase and new.status.phase in TERMINAL):
            for other in self._jobs.list(job.metadata.namespace):
                if any(each.name == job.metadata.name for each in other.spec.dependsOn):
                    self.queue.add(other.key)

    def _release(self, job: GpuJob, secret: str) -> None:
        """Its own login goes with the last job that uses it."""
        others = self._jobs.list(job.metadata.namespace)
        logins = (o.spec.secretRef for o in others if o.key != job.key and o.status.phase not in TERMINAL)
        if not any(login is not None and login.name == secret for login in logins):
            cluster = self._cluster(job)
            self._sites.release(job.metadata.namespace, cluster.metadata.name if cluster else "", secret)

    def _told(self, uid: str) -> None:
        for job in self._jobs.by_index("uid", uid):
            self.queue.add(job.key)

    def _cluster_changed(self, namespace: str, name: str) -> None:
        for job in self._jobs.list(namespace):
            if job.status.phase not in TERMINAL and job.status.clusterName in ("", name):
                self.queue.add(job.key)

    def source_arrived(self, namespace: str, name: str) -> None:
        self.queue.add(f"{namespace}/{name}")

    async def run(self) -> None:
        await self.informers.synced()
        self._sweep()
        await super().run()

    def _sweep(self) -> None:
        """Remove archives and results of jobs that went while nobody looked."""
        jobs = self._jobs.list()
        named = [(j.metadata.namespace, j.spec.source.archive.sha256) for j in jobs if j.spec.source.archive]
        self._blobs.keep_only(set(named))

    # -- one job

    async def reconcile(self, key: str) -> float | None:
        job = self._jobs.by_key(key)
        if job is None:
            return None
        if job.deleting:
            return await self._delete(job)
        if job.status.phase in TERMINAL:
            return await self._expire(job)
        try:
            if self._is_apart(job) and not (job.spec.cancel and job.status.phase in (PENDING, UPLOADING)):
                return await self._oversee(job)
            return await self._step(job)
        except NotDriven as error:
            await self._say(job, error.reason, str(error))
            return RETRY
        except Unreachable as error:
            await self._say(job, "ClusterUnreachable", str(error))
            return RETRY
        except Refused as error:
            await self._finish(job, FAILED, "NotSupported", str(error))
            return None
        except RemoteFileError as error:
            await self._say(job, "RemoteFileError", f"the cluster cannot take the job's files: {error}")
            return RETRY
        except OSError as error:
            await self._say(job, "LocalFileError", f"this machine cannot keep the job's files: {error}")
            return RETRY

    def _is_apart(self, job: GpuJob) -> bool:
        return self._drivers is not None and job.status.driver == SIDECAR

    async def _oversee(self, job: GpuJob) -> float | None:
        """See that another one drives it."""
        assert self._drivers is not None
        return await self._drivers.keep(job, self._its_cluster(job))

    async def _step(self, job: GpuJob) -> float | None:
        phase = job.status.phase or PENDING
        if job.spec.cancel and phase in (PENDING, UPLOADING):
            await self._finish(job, CANCELLED, "CancelledByUser", "cancelled before it was submitted")
            return None
        if phase == PENDING:
            return await self._begin(job)
        place = self._place(job)
        if phase == UPLOADING:
            await self._upload(job, place)
        elif phase == SUBMITTED:
            return await self._submit(job, place)
        elif phase in (QUEUED, RUNNING):
            return await self._follow(job, place)
        elif phase == DOWNLOADING:
            await self._download(job, place)
        return None

    def _cluster(self, job: GpuJob) -> HpcCluster | None:
        name = job.status.clusterName or job.spec.clusterName
        space = job.metadata.namespace
        if name:
            return self._clusters.get(space, name)
        found = self._clusters.list(space)
        return found[0] if len(found) == 1 else self._clusters.get(space, "default")

    def _its_cluster(self, job: GpuJob) -> HpcCluster:
        cluster = self._cluster(job)
        if cluster is None:
            name = job.status.clusterName or job.spec.clusterName
            what = f'the HpcCluster "{name}" is not there' if name else (
                "there is no HpcCluster in this namespace, or several: name one in spec.clusterName")  # fmt: skip
            raise Unreachable("ClusterMissing", what)
        return cluster

    def _place(self, job: GpuJob) -> Place:
        cluster = self._its_cluster(job)
        if cluster.spec.type == LOCAL:
            if self._local is None:
                raise Refused("spec.driver: the cluster is of type Local, whose jobs are pods without a Sidecar")
            return self._local.of(cluster)
        site = self._sites.site(cluster, job.spec.secretRef.name if job.spec.secretRef else "")
        return SlurmPlace(site, cluster.spec.workRoot, self._results)

    def _waits(self, job: GpuJob) -> progress.Wait | None:
        """For what is to come before the job."""
        wait = progress.dependencies(job.spec, lambda name: self._jobs.get(job.metadata.namespace, name))
        archive = job.spec.source.archive
        if wait is None and archive and self._blobs.received(job.metadata.namespace, archive) < archive.size:
            return progress.Wait("SourceMissing", "waits for its archive to be uploaded (minik8s apply -j FILE)")
        return wait

    async def _begin(self, job: GpuJob) -> float | None:
        wait = self._waits(job)
        if wait is not None and wait.for_good:
            await self._finish(job, FAILED, wait.reason, wait.message)
            return None
        if wait is not None:
            await self._say(job, wait.reason, wait.message)
            return None
        cluster = self._its_cluster(job)
        if self._drivers is not None and driver_pod.wanted(job, cluster):
            name = cluster.metadata.name
            await self._write(job, replace(job.status, driver=SIDECAR, reason="", message="", clusterName=name))
            return None
        folder = self._place(job).folder(job)
        status = replace(
            job.status, phase=UPLOADING, reason="", message="", clusterName=cluster.metadata.name, remotePath=folder,
            submissionId=progress.submission_id(job, 0), observedGeneration=job.metadata.generation,
        )  # fmt: skip
        await self._write(job, status)
        return None

    async def _upload(self, job: GpuJob, place: Place) -> None:
        packed = self._packed / f"{job.metadata.uid}.tar"
        try:
            sha256 = await self._pack(job, packed)
        except sources.BadSource as error:
            await self._finish(job, FAILED, "InvalidSource", str(error))
            return
        await place.put_sources(job, packed, sha256)
        packed.unlink(missing_ok=True)
        await self._write(job, replace(job.status, phase=SUBMITTED, reason="", message=""))

    async def _pack(self, job: GpuJob, target: Path) -> str:
        source, space = job.spec.source, job.metadata.namespace
        if source.archive is not None:
            return await asyncio.to_thread(sources.pack_archive, self._blobs.path(space, source.archive), target)
        files = {sources.clean_name(name): text.encode() for name, text in source.inline.items()}
        if source.configMap is not None:
            try:
                found = await self.client.get(ConfigMap, source.configMap.name, space)
            except NotFound:
                raise sources.BadSource(f'the ConfigMap "{source.configMap.name}" is not there') from None
            files = {name: text.encode() for name, text in found.data.items()}
            files |= {name: base64.b64decode(data) for name, data in found.binaryData.items()}
        return await asyncio.to_thread(sources.pack_files, files, target)

    async def _submit(self, job: GpuJob, place: Place) -> float | None:
        status = job.status
        if job.spec.cancel:
            return await self._cancel(job, place)
        answer = await place.submit(job)
        if answer.refused:
            await self._finish(job, FAILED, "SubmitRejected", answer.message)
            return None
        if not answer.job_id:
            await self._say(job, "SubmitDelayed", answer.message)
            return RETRY
        now = rfc3339(self._clock())
        await self._write(
            job, replace(status, phase=QUEUED, reason="", message="", jobId=answer.job_id, submitTime=now)
        )
        self._recorder.event(job, "Normal", "Submitted", f"Submitted to {status.clusterName} as job {answer.job_id}")
        return None

    async def _follow(self, job: GpuJob, place: Place) -> float | None:
        status = job.status
        seen, lost, again = await place.look(job)
        if seen is None:
            return await self._cancel(job, place) if job.spec.cancel else again
        new = progress.advanced(job, seen, self._clock(), lost=lost)
        if new.phase in (DOWNLOADING, SUBMITTED):
            place.forget(job)
        if new.phase == RUNNING and status.phase != RUNNING:
            self._recorder.event(job, "Normal", "Started", f"Job {status.jobId} runs on {new.nodes or 'the cluster'}")
        if new.phase == SUBMITTED:
            self._recorder.event(job, "Warning", "Retrying", new.message)
        if new.phase == QUEUED and hopeless(seen):
            await place.cancel(job)
            place.forget(job)
            await self._finish(job, FAILED, seen.reason, "the job waits for a dependency that will never be satisfied")
            return None
        await self._write(job, new)
        return await self._cancel(job, place) if job.spec.cancel and new.phase in (QUEUED, RUNNING) else again

    async def _cancel(self, job: GpuJob, place: Place) -> float | None:
        """Say it, and wait until the cluster says so too; what was never submitted is at its end."""
        uid, now = job.metadata.uid, self._clock()
        if now_due(now, self._cancelled.get(uid)):
            await place.cancel(job)
            self._cancelled[uid] = now
        if not job.status.jobId:
            await self._finish(job, CANCELLED, "CancelledByUser", "cancelled before the cluster had taken it")
            return None
        return CANCEL_AGAIN

    async def _download(self, job: GpuJob, place: Place) -> None:
        missing = await place.bring(job)
        here = self._results.index(job.metadata.uid)
        message = job.status.message
        if missing:
            message = f"{message}; {len(missing)} results could not be fetched ({missing[0]})".lstrip("; ")
        status = replace(job.status, message=message, files=len(here), bytes=sum(each.size for each in here))
        if not progress.keeps_folder(job, status.outcome):
            await place.clean(job)
        await self._finish(replace(job, status=status), status.outcome or LOST, status.reason, message)

    async def _expire(self, job: GpuJob) -> float | None:
        self._cancelled.pop(job.metadata.uid, None)
        ttl = job.spec.ttlSecondsAfterFinished
        if ttl is None:
            return None
        left = parse_time(job.status.completionTime) + ttl - self._clock()
        if left > 0:
            return left
        await self.client.delete(GpuJob, job.metadata.name, job.metadata.namespace, uid=job.metadata.uid)
        return None

    # -- the end

    async def _delete(self, job: GpuJob) -> float | None:
        """Ended on the cluster, its files gone here and there; a cluster that is gone holds nobody up for long."""
        if FINALIZER not in job.metadata.finalizers:
            return None
        waited = self._clock() - parse_time(job.metadata.deletionTimestamp)
        apart = self._is_apart(job)
        if job.status.remotePath and not (apart and driver_pod.leaves_nothing(job)):
            try:
                left = await (self._end_apart if apart else self._end_remotely)(job, waited)
                if left is not None:
                    return left
            except Unreachable as error:
                if error.reason != "ClusterMissing" and waited < ABANDON:
                    await self._say(job, "ClusterUnreachable", f"waits to be ended on its cluster: {error}")
                    return min(RETRY, ABANDON - waited + 0.1)
                self._recorder.event(job, "Warning", "RemoteJobAbandoned", f"Job {job.status.jobId or 'of ours'} may "
                                     f"still run on {job.status.clusterName}: {error}")  # fmt: skip
        uid, archive = job.metadata.uid, job.spec.source.archive
        for file in self._packed.glob(f"{uid}.*"):
            file.unlink(missing_ok=True)
        await asyncio.to_thread(self._results.remove, uid)
        kept = [f for f in job.metadata.finalizers if f != FINALIZER]
        patch: Json = {"metadata": {"uid": uid, "finalizers": kept or None}}
        done = await self.client.patch(GpuJob, job.metadata.name, job.metadata.namespace, patch)
        if archive is not None:
            await self._jobs.caught_up(done.metadata.resourceVersion)
            self._sweep()
        return None

    async def _end_apart(self, job: GpuJob, waited: float) -> float:
        """Its driver says that it is done by forgetting the folder."""
        if waited >= ABANDON:
            raise Unreachable("DriverMissing", "its driver did not end it in time")
        again = await self._oversee(job)
        return min(ABANDON - waited + 0.1, again or ABANDON)

    async def _end_remotely(self, job: GpuJob, waited: float) -> float | None:
        """Seconds to wait for it, None when it has ended."""
        uid = job.metadata.uid
        place = self._place(job)
        if job.status.phase in (SUBMITTED, QUEUED, RUNNING):
            if now_due(self._clock(), self._cancelled.get(uid)):
                await place.cancel(job)
                self._cancelled[uid] = self._clock()
            if not place.gone(job) and waited < ABANDON:
                return 1.0
        if job.spec.cleanup != "Never":
            await place.clean(job)
        place.forget(job)
        self._cancelled.pop(uid, None)
        return None

    async def _finish(self, job: GpuJob, phase: str, reason: str, message: str) -> None:
        ended = job.status.completionTime or rfc3339(self._clock())
        await self._write(job, replace(job.status, phase=phase, reason=reason, message=message, completionTime=ended))
        kind = "Normal" if phase == SUCCEEDED else "Warning"
        (self._packed / f"{job.metadata.uid}.tar").unlink(missing_ok=True)
        self._recorder.event(job, kind, reason or "Completed", message or f"The job has {phase.lower()}")

    async def _say(self, job: GpuJob, reason: str, message: str) -> None:
        """Why it does not go on; the phase stays."""
        current = self._jobs.by_key(job.key) or job
        await self._write(current, replace(current.status, reason=reason, message=message))

    async def _write(self, job: GpuJob, status: GpuJobStatus) -> None:
        held = self._jobs.by_key(job.key)
        patch = difference(held.status if held is not None else job.status, status)
        if patch is None:
            return
        if status.tasks is not None and "tasks" in patch:
            patch["tasks"] = {field: getattr(status.tasks, field) for field in status.tasks.__struct_fields__}
        meta = job.metadata
        body = {"metadata": {"uid": meta.uid}, "status": patch}
        done = await self.client.patch(GpuJob, meta.name, meta.namespace, body, subresource="status")
        await self._jobs.caught_up(done.metadata.resourceVersion)


def now_due(now: float, last: float | None) -> bool:
    return last is None or now - last >= CANCEL_AGAIN
