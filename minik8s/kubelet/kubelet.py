"""The kubelet of one node: keeps its pods as the API wants them, with one worker per pod.

Keys are pod uids: a pod that took over another's name is another pod. The API's watch, the engine's events, probes and
timers all only put a uid into the queue; the worker then looks at everything. After any restart the state is rebuilt
from API and engine; while the API is away, what the node knew last goes on, and nothing is removed as a stray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from minik8s.aio import periodic
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, system_clock
from minik8s.kubelet import cache, pod_files
from minik8s.kubelet.handlers import Handlers
from minik8s.kubelet.host_ports import HostPorts, pod_host_ports
from minik8s.kubelet.housekeeping import Housekeeping
from minik8s.kubelet.images import Images
from minik8s.kubelet.kit import Devices, Kit, NoDevices, Settings, at_once
from minik8s.kubelet.node_facts import Facts, read_facts
from minik8s.kubelet.node_status import NodeStatus
from minik8s.kubelet.objects import Objects
from minik8s.kubelet.pleg import Pleg
from minik8s.kubelet.pod_source import PodSource, own_pods
from minik8s.kubelet.pod_worker import PodWorker
from minik8s.kubelet.specs import PodSpecs
from minik8s.kubelet.tokens import Tokens
from minik8s.kubelet.volume_refresh import VolumeRefresh
from minik8s.kubelet.volumes import Volumes
from minik8s.net.base import NetworkError, PodNetwork
from minik8s.runtime.base import Runtime, RuntimeEvent, RuntimeFailure

ENGINE_RETRY = 2.0  # seconds between looks while the engine does not answer
LAST_LOOK = 2.0  # seconds after the end of a pod, for what the engine made of it in spite of us
CACHE_DELAY = 1.0  # seconds in which changes are gathered before the cache is written


class Kubelet(Controller):
    """`run()` is eternal. Whoever composes it runs `informers`, `recorder`, `network` and enters `runtime`."""

    name = "kubelet"

    def __init__(
        self,
        client: Client,
        informers: Informers,
        runtime: Runtime,
        network: PodNetwork,
        recorder: Recorder,
        settings: Settings,
        clock: Clock = system_clock,
        *,
        pods: PodSource | None = None,
        devices: Devices | None = None,
        facts: Facts | None = None,
        engine: str = "docker",
        withdrawn: Callable[[Pod], Awaitable[None]] = at_once,
    ) -> None:
        super().__init__(client, informers)
        self.settings = settings
        self.pods: dict[str, Pod] = {}  # by uid: what should run here
        self.workers_by_uid: dict[str, PodWorker] = {}
        self._source = pods if pods is not None else own_pods(informers, settings.node_name)
        self._synced = False  # the API has told which pods are ours: what it does not name is a stray
        self._fresh: set[str] = set()  # uids of pods that were made since, of which the engine has nothing yet
        self._stale = asyncio.Event()  # the cache on disk is older than what we know
        objects = Objects(client, self._object_changed)
        data = settings.data_dir
        volumes = None
        facts = facts or read_facts(data)
        specs = PodSpecs(settings, objects, informers.of(Service), facts)
        if data is not None:
            volumes = Volumes(data / "pods", objects, Tokens(client, clock), self._dns, specs.field)
        self.volumes = VolumeRefresh(client, informers, volumes, self._refreshable)
        self.kit = Kit(
            client=client,
            runtime=runtime,
            network=network,
            recorder=recorder,
            images=Images(runtime, clock, data / "kubelet" / "images.json" if data is not None else None),
            objects=objects,
            volumes=volumes,
            handlers=Handlers(runtime),
            host_ports=HostPorts(network),
            specs=specs,
            devices=devices or NoDevices(),
            clock=clock,
            settings=settings,
            engine=engine,
            refresh_volumes=self.volumes.queue.add,
            withdrawn=withdrawn,
        )
        self.node = NodeStatus(
            self.kit, facts, check_network=self._network_problem, extended=self.kit.devices.amounts
        )  # fmt: skip
        self.kit.devices.on_change(self.node.nudge, self._devices_changed)
        self.pleg = Pleg(
            runtime, self.queue.add, settings.relist_seconds, look_anew=self._look_anew, is_news=self._is_news
        )  # fmt: skip
        self.housekeeping = Housekeeping(self.kit, self.node, lambda: list(self.pods))
        self._source.on_change(self._pod_changed)

    # -- what should be

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self.pods.pop(old.metadata.uid, None)
            self.queue.add(old.metadata.uid)
        if new is not None:
            uid = new.metadata.uid
            known = self.pods.get(uid)
            self.pods[uid] = new
            worker = self.workers_by_uid.get(uid)
            if worker is not None:
                worker.pod = new
            if known is None and self._synced and not new.status.startTime:
                self._fresh.add(uid)
            if known is None or worker is None or not _same(known, new):
                self.queue.add(uid)
            if known is not None and (known.metadata.labels, known.metadata.annotations) != (
                new.metadata.labels, new.metadata.annotations
            ):  # fmt: skip
                self.volumes.queue.add(uid)  # the downward API shows these
        self._stale.set()

    def _object_changed(self, uid: str) -> None:
        worker = self.workers_by_uid.get(uid)
        if worker is not None:
            worker.retry_now()
            self.volumes.queue.add(uid)
        self._stale.set()

    def _devices_changed(self, uid: str) -> None:
        worker = self.workers_by_uid.get(uid)
        if worker is not None:
            worker.retry_now()

    def _refreshable(self, uid: str) -> Pod | None:
        """The pod whose volumes are mounted and still needed."""
        worker = self.workers_by_uid.get(uid)
        if worker is None or not worker.memory.wired or worker.memory.stopping_since or worker.memory.gone:
            return None
        return worker.pod

    def _is_news(self, event: RuntimeEvent) -> bool:
        worker = self.workers_by_uid.get(event.pod_uid)
        return worker is None or worker.is_news(event)

    def _look_anew(self, uid: str, listed: Collection[str]) -> None:
        worker = self.workers_by_uid.get(uid)
        if worker is not None:
            worker.containers.compare(listed)
        self.queue.add(uid)

    async def _network_problem(self) -> str:
        try:
            await self.kit.network.known()
        except NetworkError as error:
            return str(error)
        return ""

    # -- one pod

    async def reconcile(self, key: str) -> float | None:
        pod, worker = self.pods.get(key), self.workers_by_uid.get(key)
        try:
            if worker is None:
                if pod is None:
                    await self._remove_stray(key)
                    return None
                fresh = key in self._fresh
                worker = PodWorker(self.kit, pod, lambda: self.queue.add(key), fresh=fresh)
                self.workers_by_uid[key] = worker
            self._fresh.discard(key)
            worker.memory.gone = pod is None
            again = await worker.sync()
        except RuntimeFailure as error:
            self.log.debug("engine does not answer", pod=key, error=str(error))
            return ENGINE_RETRY
        if worker.finished and pod is None:
            await worker.close()
            del self.workers_by_uid[key]
            # A start that was cancelled may have gone on in the engine, and ended after the worker's last look.
            return None if worker.containers.sure else LAST_LOOK
        return again

    async def _remove_stray(self, uid: str) -> None:
        """Containers with our label whose pod the API does not know."""
        if not self._synced:
            return
        for info in await self.kit.runtime.containers(uid):
            self.log.warning(
                "removing a stray container",
                container=info.id[:12],
                name=info.name,
                pod_uid=uid,
                remedy="nothing: its pod was deleted while this agent was away",
            )
            await self.kit.runtime.remove(info.id)
        await self.kit.network.detach(uid)

    # -- running

    async def run(self) -> None:
        await self._recall()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.node.run(), name="node")
                tasks.create_task(self._take_over(), name="kubelet take-over")
                tasks.create_task(self.pleg.run(), name="pleg")
                tasks.create_task(self.volumes.run(), name="volumes")
                tasks.create_task(self.housekeeping.run(), name="housekeeping")
                if self.settings.data_dir is not None:
                    tasks.create_task(self._keep_cache(self.settings.data_dir), name="kubelet cache")
                for number in range(self.settings.workers):
                    tasks.create_task(self._work(), name=f"kubelet-{number}")
        finally:
            await self._close()

    async def _recall(self) -> None:
        """Start from the node's own copy; the API's word replaces it as soon as it comes."""
        data = self.settings.data_dir
        if data is None:
            return
        known = await asyncio.to_thread(cache.read, data / "kubelet" / "cache")
        self.kit.objects.remember((*known.configMaps, *known.secrets))
        for pod in known.pods:
            if not self._source.has_synced:
                self.pods.setdefault(pod.metadata.uid, pod)
        await self._load_host_ports()
        for uid in self.pods:
            self.queue.add(uid)

    def _dns(self) -> pod_files.DNS:
        """What there is now, for a pod that starts. Blocking."""
        settings = self.settings
        servers, searches, options = pod_files.parse_resolv_conf(settings.host_resolv_conf())
        return pod_files.DNS(settings.cluster_dns, settings.cluster_domain, servers, searches, options)

    async def _load_host_ports(self) -> None:
        mapped = {pod.metadata.uid: pod_host_ports(pod, pod.status.podIP) for pod in self.pods.values()}
        try:
            await self.kit.host_ports.load({uid: p for uid, p in mapped.items() if self.pods[uid].status.podIP})
        except NetworkError as error:
            self.log.warning(
                "host ports not set: each pod's are set when it is looked at",
                error=str(error),
                remedy="'minik8s doctor' tells what the kernel lacks",
            )

    async def _take_over(self) -> None:
        """Once the API has told our pods: forget others, remove strays. From then on the watch is enough."""
        await self._source.synced()
        present = {pod.metadata.uid for pod in self._source.list()}
        for uid in [uid for uid in self.pods if uid not in present]:
            del self.pods[uid]
            self.queue.add(uid)
        await self._load_host_ports()
        self._synced = True
        await periodic(self.settings.relist_seconds, self._sweep)

    async def _sweep(self) -> None:
        """Look for what belongs to no pod of ours: containers, addresses, folders."""
        try:
            seen = await self.kit.runtime.containers()
            for uid in {info.pod_uid for info in seen} - self.pods.keys():
                self.queue.add(uid)
            self.kit.devices.retain([*self.pods, *self.workers_by_uid])
            strangers = (await self.kit.network.known()).keys() - self.pods.keys() - self.workers_by_uid.keys()
            for uid in strangers:
                await self.kit.network.detach(uid)
            if self.kit.volumes is not None:
                await self.kit.volumes.remove_orphans([*self.pods, *self.workers_by_uid])
        except (RuntimeFailure, NetworkError, OSError) as error:
            self.log.warning(
                "could not look for leftovers: will look again",
                error=str(error),
                remedy="see that the Docker Engine answers ('docker ps', 'minik8s doctor')",
            )

    async def _keep_cache(self, data: Path) -> None:
        while True:
            await self._stale.wait()
            await asyncio.sleep(CACHE_DELAY)
            self._stale.clear()
            content = cache.known(list(self.pods.values()), self.kit.objects.known())
            try:
                await asyncio.to_thread(cache.write, data / "kubelet" / "cache", content)
            except OSError as error:
                self.log.warning(
                    "cache not written: a restart without the master would miss news",
                    error=str(error),
                    remedy="make space, or make the data folder writable",
                )

    async def _close(self) -> None:
        for worker in self.workers_by_uid.values():
            await worker.close()
        await self.kit.objects.close()
        await self.kit.handlers.close()


def _same(old: Pod, new: Pod) -> bool:
    """Whether nothing changed but our own part of the status, which we need not look at again."""
    a, b = old.metadata, new.metadata
    if (a.deletionTimestamp, a.deletionGracePeriodSeconds) != (b.deletionTimestamp, b.deletionGracePeriodSeconds):
        return False
    if old.spec != new.spec or a.annotations != b.annotations or a.labels != b.labels:
        return False
    ended = new.status.phase in ("Succeeded", "Failed") and old.status.phase != new.status.phase
    return not ended and (not new.spec.readinessGates or old.status.conditions == new.status.conditions)
