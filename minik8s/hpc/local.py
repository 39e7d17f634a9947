"""GpuJobs on this very cluster: each task is a pod, whose files go in and come out through its kubelet.

What is decided is in `pods.py`. Whether a pod has its sources, and whether its results have been fetched, is only
remembered: after a restart both are done once more, which changes nothing.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote, urlencode

from minik8s.api.errors import AlreadyExists, NotFound, StatusError
from minik8s.api.kinds.gpujob import RUNNING, GpuJob
from minik8s.api.kinds.hpccluster import HpcCluster, LocalCluster
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.hpc import pods, progress, results, sources
from minik8s.hpc.batch_script import batch_script
from minik8s.hpc.place import Refused, Seen
from minik8s.hpc.remote_text import CONTROL, Submitted
from minik8s.hpc.reports import observe
from minik8s.hpc.ssh import RemoteFileError, Unreachable

BLOCK = 256 * 1024  # bytes of a file in one message
LOOK = 2.0  # seconds between looks at what a running job has written, if somebody reads it
TAILED = 256 * 1024  # bytes of a running job's output in one go
NAMES_AT_ONCE = 200  # files in one tar of results
TAR_MEMBER = 4096  # bytes, at the most, that a tar needs for a file besides what is in it
LONGEST_ANSWER = 16 * 2**20  # bytes that a command may print
PATIENCE = 1800.0  # seconds for a command in a pod: archives and results are large
OVER = ("Succeeded", "Failed")
BY_JOB = "gpujob"  # informer index


class Exec(Protocol):
    """See `apiserver.resource_metrics.Kubelets.exec`."""

    def __call__(
        self, node: Node, path: str, stdin: AsyncIterator[bytes], stdout: Callable[[bytes], object]
    ) -> Awaitable[tuple[int, str]]: ...


class LocalPlaces:
    """What the clusters of type Local have in common."""

    def __init__(self, client: Client, informers: Informers, kept: results.Results, folder: Path, run: Exec) -> None:
        self.client = client
        self.results = kept
        self.folder = folder  # of tars that wait for their pods, and of those that came back
        self.run = run
        self.pods = informers.of(Pod)
        self.nodes = informers.of(Node)
        self.begun: set[str] = set()  # uids of pods that have their sources
        self.emptied: set[str] = set()  # and of those whose results are here
        self.seen: defaultdict[str, set[str]] = defaultdict(set)  # names of a job's pods, by its uid
        self.failures: defaultdict[str, list[str]] = defaultdict(list)  # results that did not come, by its uid
        self.told: Callable[[str], None] = lambda uid: None
        self.pods.add_index(BY_JOB, lambda pod: [pod.metadata.labels.get(pods.UID_LABEL, "")])
        self.pods.on_change(self._changed)

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is not None and (uid := pod.metadata.labels.get(pods.UID_LABEL, "")):
            if new is None:
                self.begun.discard(pod.metadata.uid)
                self.emptied.discard(pod.metadata.uid)
            self.told(uid)

    def of(self, cluster: HpcCluster) -> LocalPlace:
        return LocalPlace(self, cluster.spec.local or LocalCluster())

    def devices(self, local: LocalCluster) -> str:
        """For the cluster's condition: how many there are. "" if there is none."""
        found = {
            node.metadata.name: int(node.status.allocatable.get(local.resourceName, "0"))
            for node in self.nodes.list()
            if all(node.metadata.labels.get(key) == value for key, value in local.nodeSelector.items())
        }
        total, nodes = sum(found.values()), sum(1 for number in found.values() if number)
        return f"{total} {local.resourceName} on {nodes} node{'s' * (nodes != 1)}" if total else ""


class LocalPlace:
    """See `place.Place`."""

    def __init__(self, shared: LocalPlaces, cluster: LocalCluster) -> None:
        self._shared = shared
        self._cluster = cluster

    def folder(self, job: GpuJob) -> str:
        pods.check(job.spec)
        return pods.FOLDER

    def _tar(self, job: GpuJob) -> Path:
        return self._shared.folder / f"{job.metadata.uid}.local.tar"

    async def put_sources(self, job: GpuJob, packed: Path, sha256: str) -> None:
        """They wait here until there is a pod."""
        packed.replace(self._tar(job))  # noqa: ASYNC240 - renamed

    def _pods(self, job: GpuJob) -> dict[int, Pod]:
        found = pods.by_task(self._shared.pods.by_index(BY_JOB, job.metadata.uid), job.status.attempt)
        self._shared.seen[job.metadata.uid].update(pod.metadata.name for pod in found.values())
        return found

    async def submit(self, job: GpuJob) -> Submitted:
        await self._remove(job, attempt=job.status.attempt)
        await self._make(job, self._pods(job))
        return Submitted(pods.base_name(job))

    async def _make(self, job: GpuJob, there: dict[int, Pod]) -> None:
        """Pods that are due; one that was there and is gone does not come again."""
        seen = self._shared.seen[job.metadata.uid]
        for task in pods.missing(job, there):
            name = pods.pod_name(job, task)
            if name in seen:
                continue
            try:
                made = await self._shared.client.create(Pod, pods.pod(job, task, self._cluster))
            except AlreadyExists:  # made before a restart
                made = await self._shared.client.get(Pod, name, job.metadata.namespace)
                if made.metadata.labels.get(pods.UID_LABEL) != job.metadata.uid:
                    raise Refused(f"a pod {name} is there that is not of this job: delete one of them") from None
            await self._shared.pods.caught_up(made.metadata.resourceVersion)
            seen.add(name)

    async def _remove(self, job: GpuJob, *, attempt: int | None = None) -> None:
        """The job's pods; with `attempt` only those of others."""
        for pod in self._shared.pods.by_index(BY_JOB, job.metadata.uid):
            if attempt is None or pod.metadata.labels.get(pods.ATTEMPT_LABEL) != str(attempt):
                await self._delete(pod)

    async def _delete(self, pod: Pod) -> None:
        meta = pod.metadata
        with suppress(NotFound):
            await self._shared.client.delete(Pod, meta.name, meta.namespace, uid=meta.uid)

    async def look(self, job: GpuJob) -> Seen:
        there = self._pods(job)
        if not job.spec.cancel:
            # The first were made by `submit`: a job of one pod whose pod is not there has lost it.
            if job.spec.array:
                await self._make(job, there)
                there = self._pods(job)
            else:
                self._shared.seen[job.metadata.uid].add(pods.base_name(job))
        for pod in there.values():
            await self._serve(job, pod)
        seen = self._shared.seen[job.metadata.uid]
        reports = {
            task: pods.report(
                there.get(task), cancelled=job.spec.cancel,
                begun=task in there and there[task].metadata.uid in self._shared.begun,
                emptied=task in there and there[task].metadata.uid in self._shared.emptied,
            )
            for task in progress.expected_tasks(job.spec)
            if task in there or pods.pod_name(job, task) in seen or job.spec.cancel
        }  # fmt: skip
        for task in progress.expected_tasks(job.spec):
            reports.setdefault(task, pods.WAITING)
        observation = observe(progress.expected_tasks(job.spec), reports, {}, {})
        if observation.phase == RUNNING:
            await self._tail(job, there)
            return Seen(observation, again=LOOK)
        text = pods.waits_for(there.values())
        return Seen(observation._replace(message=text) if observation.reason and text else observation)

    async def _serve(self, job: GpuJob, pod: Pod) -> None:
        """Sources in, once it runs; results out, once it has run."""
        job_state, files_state = pods.state(pod, pods.JOB), pods.state(pod, pods.FILES)
        uid = pod.metadata.uid
        if files_state.running is None or pod.deleting:
            return
        if job_state.running is not None and uid not in self._shared.begun:
            await self._send(job, pod)
            self._shared.begun.add(uid)
        elif job_state.terminated is not None and uid not in self._shared.emptied:
            await self._empty(job, pod)
            self._shared.emptied.add(uid)
            await self._run(pod, pods.FILES, pods.DONE)

    async def _send(self, job: GpuJob, pod: Pod) -> None:
        tar = self._tar(job)
        if tar.exists():
            with tar.open("rb") as file:
                await self._run(pod, pods.FILES, pods.UNPACK, _blocks(file))
        else:
            raise RemoteFileError("its sources are not on this master any more: delete the job and make it anew")
        text = pods.script(batch_script(job.spec, f"{pods.FOLDER}/{CONTROL}", job.status.submissionId))
        await self._run(pod, pods.FILES, pods.BEGIN, _once(text.encode()))

    async def _empty(self, job: GpuJob, pod: Pod) -> None:
        uid, failures = job.metadata.uid, self._shared.failures[job.metadata.uid]
        listed = pods.parse_list((await self._run(pod, pods.FILES, pods.LIST)).decode(errors="replace"))
        chosen, missing = results.within_limits(results.choose(job.spec, listed))
        failures += missing
        for start in range(0, len(chosen), NAMES_AT_ONCE):
            back = self._shared.folder / f"{pod.metadata.uid}.back.tar"
            try:
                part = chosen[start : start + NAMES_AT_ONCE]
                limit = sum(each.size + TAR_MEMBER for each in part) + LONGEST_ANSWER
                with back.open("wb") as file:
                    script = pods.send_back(each.path for each in part)
                    await self._run(pod, pods.FILES, script, stdout=_bounded(file.write, limit))
                failures += await asyncio.to_thread(self._unpack, uid, back)
            finally:
                back.unlink(missing_ok=True)

    def _unpack(self, uid: str, back: Path) -> list[str]:
        """Ordinary files alone, each there whole or under a name that nobody lists; what was refused."""
        refused = []
        with tarfile.open(back) as read:
            for member in read:
                file = read.extractfile(member) if member.isreg() else None
                try:
                    if file is not None:
                        place = self._shared.results.place(uid, member.name)
                        partial = place.with_name(place.name + results.PARTIAL)
                        with partial.open("wb") as sink:
                            for block in results.blocks(file):
                                sink.write(block)
                        partial.replace(place)
                except sources.BadSource as error:
                    refused.append(f"{member.name[:80]}: {error}")
        return refused

    async def _tail(self, job: GpuJob, there: dict[int, Pod]) -> None:
        uid = job.metadata.uid
        if not self._shared.results.has_reader(uid):
            return
        for pod in there.values():
            if pod.metadata.uid not in self._shared.begun or pods.state(pod, pods.JOB).running is None:
                continue
            for path in progress.outputs(job.spec):
                local = self._shared.results.place(uid, path)
                size = local.stat().st_size if local.exists() else 0
                fresh = await self._run(pod, pods.FILES, pods.tail(path, size, TAILED))
                with local.open("ab") as file:
                    file.write(fresh)

    async def cancel(self, job: GpuJob) -> None:
        for pod in self._pods(job).values():
            running = pods.state(pod, pods.JOB).running is not None and pod.metadata.uid in self._shared.begun
            if pod.status.phase in OVER or pods.state(pod, pods.JOB).terminated is not None:
                continue
            if running and not pod.deleting:
                await self._run(pod, pods.JOB, "kill -TERM 1")
            else:
                await self._delete(pod)

    def forget(self, job: GpuJob) -> None:
        """What is remembered of its pods goes with them."""

    def gone(self, job: GpuJob) -> bool:
        """Results of a job that is being deleted are nobody's: `files` need not end by itself."""
        there = self._pods(job).values()
        return all(pod.status.phase in OVER or pods.state(pod, pods.JOB).terminated is not None for pod in there)

    async def bring(self, job: GpuJob) -> list[str]:
        """They came as each pod ended."""
        self._tar(job).unlink(missing_ok=True)
        return self._shared.failures.pop(job.metadata.uid, [])

    async def clean(self, job: GpuJob) -> None:
        await self._remove(job)
        self._tar(job).unlink(missing_ok=True)
        self._shared.seen.pop(job.metadata.uid, None)
        self._shared.failures.pop(job.metadata.uid, None)

    async def _run(
        self, pod: Pod, container: str, script: str, stdin: AsyncIterator[bytes] | None = None,
        stdout: Callable[[bytes], object] | None = None,
    ) -> bytes:  # fmt: skip
        """What it has printed. Raises Unreachable, and RemoteFileError if it fails."""
        node = self._shared.nodes.get(None, pod.spec.nodeName)
        if node is None:
            raise Unreachable("NodeMissing", f"the node {pod.spec.nodeName} is not there")
        printed: list[bytes] = []
        words: Sequence[tuple[str, str]] = [("command", word) for word in ("sh", "-c", script)]
        asked = [*words, ("input", "1"), ("output", "1"), ("error", "1")]
        place = "/".join(quote(part, safe="") for part in (pod.metadata.namespace, pod.metadata.name, container))
        try:
            async with asyncio.timeout(PATIENCE):
                code, said = await self._shared.run(
                    node, f"/exec/{place}?{urlencode(asked)}", stdin or _once(b""),
                    stdout or _bounded(printed.append, LONGEST_ANSWER),
                )  # fmt: skip
        except TimeoutError:
            raise Unreachable("Timeout", f"a command in the pod did not end within {PATIENCE:.0f} s") from None
        except StatusError as error:
            text = f"the node {pod.spec.nodeName} did not do what was asked of it: {error.message}"
            raise Unreachable("NodeUnreachable", text) from None
        if code != 0:
            raise RemoteFileError(said.strip()[-300:] or f"a command in the pod ended with {code}")
        return b"".join(printed)


def _bounded(sink: Callable[[bytes], object], limit: int) -> Callable[[bytes], object]:
    """An image may hold anything under the name of a tool: it does not fill this machine."""
    left = limit

    def take(data: bytes) -> None:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise RemoteFileError(f"the pod sends more than the {limit} bytes that there should be")
        sink(data)

    return take


async def _once(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


async def _blocks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while block := await asyncio.to_thread(file.read, BLOCK):
        yield block
