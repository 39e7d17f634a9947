"""GpuJobs on a Slurm cluster: each step as one or two exchanges with its login node."""

from __future__ import annotations

from pathlib import Path

from minik8s.api.kinds.gpujob import QUEUED, RUNNING, GpuJob
from minik8s.hpc import progress, remote_text, results, sources
from minik8s.hpc.batch_script import batch_script, options
from minik8s.hpc.place import Seen
from minik8s.hpc.site import Site, Tracked
from minik8s.hpc.ssh import RemoteFileError


class SlurmPlace:
    """See `place.Place`. `site` is a login on the cluster, `work_root` the folder there that holds those of jobs."""

    def __init__(self, site: Site, work_root: str, kept: results.Results) -> None:
        self._site = site
        self._work_root = work_root
        self._results = kept

    def folder(self, job: GpuJob) -> str:
        self._site.connection  # noqa: B018 - raises while there is none: the home folder is not known yet
        return progress.remote_folder(job, self._site.home, self._work_root)

    async def put_sources(self, job: GpuJob, packed: Path, sha256: str) -> None:
        await self._site.put_sources(job.status.remotePath, packed, sha256)

    async def submit(self, job: GpuJob) -> remote_text.Submitted:
        status, spec = job.status, job.spec
        control = f"{status.remotePath}/{remote_text.CONTROL}"
        text = "" if spec.script else batch_script(spec, control, status.submissionId)
        unit = remote_text.submit(
            status.remotePath, status.submissionId, options(spec), spec.workDir, progress.script_path(job), text
        )
        return remote_text.submitted(*await self._site.connection.run(unit))

    async def look(self, job: GpuJob) -> Seen:
        status, uid = job.status, job.metadata.uid
        self._site.track(
            Tracked(
                uid, status.remotePath, status.submissionId, status.jobId,
                progress.expected_tasks(job.spec), progress.outputs(job.spec),
            )
        )  # fmt: skip
        tracked = self._site.jobs[uid]
        return Seen(tracked.observation, tracked.lost)

    async def cancel(self, job: GpuJob) -> None:
        status = job.status
        unit = remote_text.cancel(status.remotePath, status.submissionId, status.jobId)
        await self._site.connection.run(unit)
        self._site.wake()

    def forget(self, job: GpuJob) -> None:
        self._site.forget(job.metadata.uid)

    def gone(self, job: GpuJob) -> bool:
        tracked = self._site.jobs.get(job.metadata.uid)
        if tracked is None:
            return True
        return tracked.observation is not None and tracked.observation.phase not in (QUEUED, RUNNING)

    async def bring(self, job: GpuJob) -> list[str]:
        answer = await self._site.connection.run(remote_text.listing(job.status.remotePath, results.MAX_FILES * 4))
        chosen, missing = results.within_limits(results.choose(job.spec, results.parse_listing(answer.text)))
        for each in chosen:
            try:
                await self._fetch(f"{job.status.remotePath}/work/{each.path}", job.metadata.uid, each)
            except (RemoteFileError, sources.BadSource) as error:
                missing.append(f"{each.path}: {error}")
        return missing

    async def _fetch(self, remote: str, uid: str, each: results.RemoteFile) -> None:
        """A file is there whole, or under a name that nobody lists."""
        place = self._results.place(uid, each.path)
        if place.exists() and place.stat().st_size == each.size and place.stat().st_mtime >= each.modified:
            return
        partial = place.with_name(place.name + results.PARTIAL)
        await self._site.connection.download(remote, str(partial))
        partial.replace(place)

    async def clean(self, job: GpuJob) -> None:
        await self._site.connection.run(remote_text.clean(job.status.remotePath))
