"""The driver of one GpuJob, in a pod of its own: `python -m minik8s.hpc.sidecar NAMESPACE NAME [UID]`.

It is the master's controller (`gpujob.py`) over the API instead of inside of it, with the rights of its ServiceAccount
(`driver_pod.rules`): sources are read, and results written, through the subresources of the job. It ends with its job.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import ssl
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from minik8s.aio import background
from minik8s.api.errors import BadRequest, Conflict, NotFound, RequestEntityTooLarge, StatusError
from minik8s.api.kinds.gpujob import RUNNING, Archive, GpuJob
from minik8s.api.kinds.hpccluster import SIDECAR, TRUST_ON_FIRST_USE, HpcCluster, HpcClusterSpec
from minik8s.api.meta import Json, Object
from minik8s.apiserver.uploads import Blobs
from minik8s.client.base import Client
from minik8s.client.http import HttpTransport
from minik8s.client.informer import Informer, Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import parse_time
from minik8s.hpc import progress, sources
from minik8s.hpc.clusters import HpcClusterController, Key
from minik8s.hpc.gpujob import RETRY, GpuJobController
from minik8s.hpc.place import Place
from minik8s.hpc.results import CHUNK, RemoteFile, Results
from minik8s.hpc.site import Site
from minik8s.hpc.slurm import SlurmPlace
from minik8s.hpc.ssh import Login, RemoteFileError, Unreachable
from minik8s.log import configure, get_logger

T = TypeVar("T", bound=Object)
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LOOK = 2.0  # seconds between questions whether somebody reads the output of the running job
LAST_WORDS = 5.0  # seconds for events that are still to be written at the end
log = get_logger("hpc")


class OfOneJob(Informers):
    """Copies of a single job and its cluster: nothing else may be read."""

    def __init__(self, client: Client, namespace: str, names: Mapping[type[Object], str]) -> None:
        super().__init__(client)
        self._namespace = namespace
        self._names = names

    def of(self, kind: type[T], **scope: str) -> Informer[T]:
        narrow = {"namespace": self._namespace, "fields": f"metadata.name={self._names[kind]}"}
        return super().of(kind, **{**narrow, **scope})


class JobFiles:
    """A job's sources and results, where the master keeps them."""

    def __init__(self, client: Client, namespace: str, name: str) -> None:
        self._wire = client.transport
        self._path = f"{client.resource(GpuJob).base_path(namespace)}/{quote(name, safe=':@')}"

    async def archive(self, archive: Archive, target: Path) -> None:
        with target.open("wb") as file:
            while file.tell() < archive.size:
                query = {"content": "true", "offset": str(file.tell())}
                piece = await self._wire.request("GET", f"{self._path}/source", query=query)
                if not piece:
                    raise sources.BadSource("the archive that is with the master is shorter than announced")
                file.write(piece)

    async def watched(self) -> bool:
        index: Json = msgspec.json.decode(await self._wire.request("GET", f"{self._path}/results"))
        return bool(index.get("watched"))

    async def send(self, path: str, local: Path, offset: int = 0, *, whole: bool) -> int:
        """A file from `offset` on; where its end is. `whole`: it will not grow."""
        query = {"of": str(local.stat().st_size)} if whole else {}  # noqa: ASYNC240 - a file of this pod
        with local.open("rb") as file:
            file.seek(offset)
            piece, first = file.read(CHUNK), True
            while piece or (first and whole):
                await self._wire.request(
                    "PUT", f"{self._path}/results/{quote(path)}", query={**query, "offset": str(offset)}, body=piece,
                    content_type="application/octet-stream",
                )  # fmt: skip
                offset += len(piece)
                piece, first = file.read(CHUNK), False
        return offset


class KeptElsewhere(Results):
    """Results on their way to the master, where their readers are."""

    watched = False

    def has_reader(self, uid: str) -> bool:
        return self.watched


class SendingPlace(SlurmPlace):
    """Each result goes to the master as soon as it is here."""

    def __init__(self, site: Site, work_root: str, kept: Results, files: JobFiles, turn: asyncio.Lock) -> None:
        super().__init__(site, work_root, kept)
        self._files = files
        self._turn = turn  # of those who send

    async def _fetch(self, remote: str, uid: str, each: RemoteFile) -> None:
        await super()._fetch(remote, uid, each)
        try:
            async with self._turn:
                await self._files.send(each.path, self._results.place(uid, each.path), whole=True)
        except (BadRequest, RequestEntityTooLarge) as error:
            raise RemoteFileError(f"the master does not take it: {error.message}") from None


class Connections(HpcClusterController):
    """Connections alone: what is said of the cluster is the master's business."""

    async def reconcile(self, key: str) -> float | None:
        namespace, _, name = key.partition("/")
        self.on_cluster(namespace, name)
        return None

    async def _login(self, key: Key, cluster: HpcCluster) -> tuple[HpcClusterSpec, Login, str]:
        spec, pinned = cluster.spec, cluster.status.hostKey
        if spec.hostKeyPolicy == TRUST_ON_FIRST_USE and not spec.knownHosts.strip() and not pinned:
            text = "the master has not seen the cluster's key yet; drivers trust the one that it sees first"
            raise Unreachable("HostKeyUnknown", text)
        try:
            return await super()._login(key, cluster)
        except StatusError as error:
            raise Unreachable("InvalidSecret", f"the login cannot be read: {error.message}") from None


class Driver(GpuJobController):
    """`done` once the job needs no driver any more."""

    workers = 1

    def __init__(self, informers: OfOneJob, recorder: Recorder, folder: Path, job: GpuJob) -> None:
        self._kept = kept = KeptElsewhere(folder / "results")
        blobs = Blobs(folder / "blobs")  # stays empty: archives are with the master
        self.sites = Connections(informers.client, informers, recorder, kept, None)
        super().__init__(informers.client, informers, recorder, self.sites, None, None, folder, kept, blobs)
        self._files = JobFiles(informers.client, job.metadata.namespace, job.metadata.name)
        self._turn = asyncio.Lock()
        self._job = job
        self.done = asyncio.Event()
        self.queue.add(job.key)

    async def reconcile(self, key: str) -> float | None:
        job = self._jobs.by_key(key)
        if job is None or job.metadata.uid != self._job.metadata.uid:
            self.done.set()
            return None
        return await super().reconcile(key)

    def _waits(self, job: GpuJob) -> progress.Wait | None:
        """The master has made sure of that before there was a driver."""
        return None

    def _place(self, job: GpuJob) -> Place:
        cluster = self._its_cluster(job)
        site = self._sites.site(cluster, job.spec.secretRef.name if job.spec.secretRef else "")
        return SendingPlace(site, cluster.spec.workRoot, self._kept, self._files, self._turn)

    async def _pack(self, job: GpuJob, target: Path) -> str:
        archive = job.spec.source.archive
        if archive is None:
            return await super()._pack(job, target)
        fetched = target.with_suffix(".archive")
        await self._files.archive(archive, fetched)
        with fetched.open("rb") as file:
            digest = await asyncio.to_thread(hashlib.file_digest, file, "sha256")
        if digest.hexdigest() != archive.sha256:
            raise RemoteFileError("the archive came from the master with another SHA-256 than announced")
        return await asyncio.to_thread(sources.pack_archive, fetched, target)

    async def _expire(self, job: GpuJob) -> float | None:
        self.done.set()
        return None

    async def _delete(self, job: GpuJob) -> float | None:
        """Ended on the cluster; the rest is the master's, which waits for the folder to be forgotten."""
        if job.status.remotePath:
            try:
                left = await self._end_remotely(job, self._clock() - parse_time(job.metadata.deletionTimestamp))
            except Unreachable as error:
                await self._say(job, "ClusterUnreachable", f"waits to be ended on its cluster: {error}")
                return RETRY
            if left is not None:
                return left
            await self._write(job, replace(job.status, remotePath=""))
        self.done.set()
        return None

    async def follow(self) -> None:
        """Send on what the running job writes, as long as somebody reads it. For ever."""
        sent: dict[str, int] = {}
        while True:
            try:
                async with self._turn:
                    await self._send_more(sent)
            except Conflict:
                sent.clear()  # the master knows less of it than we thought, or the job is further than we know
            except StatusError as error:
                log.warning("output not sent", error=str(error), remedy="it is tried again")
            await asyncio.sleep(LOOK)

    async def _send_more(self, sent: dict[str, int]) -> None:
        job = self._jobs.by_key(self._job.key)
        if job is None or job.status.phase != RUNNING:
            self._kept.watched = False
            return
        self._kept.watched = await self._files.watched()
        for path in progress.outputs(job.spec) if self._kept.watched else ():
            local = self._kept.place(job.metadata.uid, path)
            size, known = local.stat().st_size if local.exists() else 0, sent.get(path, 0)
            if size != known:  # smaller: it was begun anew
                sent[path] = await self._files.send(path, local, known if known < size else 0, whole=False)


async def drive(client: Client, namespace: str, name: str, uid: str) -> None:
    """Until the job has ended. Raises StatusError while the API server is out of reach."""
    try:
        job = await client.get(GpuJob, name, namespace)
    except NotFound:
        return
    if job.status.driver != SIDECAR or uid not in ("", job.metadata.uid):
        log.warning("nothing to drive", job=job.key, remedy="the job is the master's, or another one of that name")
        return
    informers = OfOneJob(client, namespace, {GpuJob: name, HpcCluster: job.status.clusterName})
    recorder = Recorder(client, "gpujob-driver", host=os.uname().nodename)
    with TemporaryDirectory() as folder:
        driver = Driver(informers, recorder, Path(folder), job)
        async with background(informers.run(), recorder.run(), driver.sites.run(), driver.run(), driver.follow()):
            await driver.done.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    while not recorder.idle:
                        await asyncio.sleep(0.05)


async def run(namespace: str, name: str, uid: str) -> None:
    """With the pod's own account."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # process 1 dies of no signal otherwise
    server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    token = (ACCOUNT / "token").read_text  # read again for each request: the kubelet renews it
    async with HttpTransport(server, context, token=lambda: token().strip()) as transport:
        await drive(Client(transport), namespace, name, uid)


def main() -> None:
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python -m minik8s.hpc.sidecar NAMESPACE NAME [UID]")
    configure()
    try:
        asyncio.run(run(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else ""))
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    except StatusError as error:
        sys.exit(f"the API server cannot be asked: {error.message}")


if __name__ == "__main__":
    main()
