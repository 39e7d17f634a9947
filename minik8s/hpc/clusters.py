"""HpcClusters: a connection to each, and its condition Reachable; further connections for jobs that log in as
others."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

from msgspec.structs import replace

from minik8s.api.errors import NotFound
from minik8s.api.kinds.hpccluster import LOCAL, HpcCluster, HpcClusterSpec, HpcClusterStatus, LocalCluster
from minik8s.api.kinds.secret import Secret
from minik8s.api.meta import Condition
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, system_clock
from minik8s.controllers.status import difference, with_condition
from minik8s.hpc.local import LocalPlaces
from minik8s.hpc.results import Results
from minik8s.hpc.site import Site
from minik8s.hpc.ssh import Login, Unreachable

LOOK_AT_NODES = 30.0  # seconds until the devices of a local cluster are counted again
Key = tuple[str, str, str]  # namespace, cluster, Secret


class HpcClusterController(Controller):
    """`site` gives jobs their connection; jobs are told of by `on_job(uid)`, clusters that come back by
    `on_cluster`."""

    name = "hpccluster-controller"
    workers = 2

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, results: Results, local: LocalPlaces | None,
        clock: Clock = system_clock,
    ) -> None:  # fmt: skip
        super().__init__(client, informers)
        self._clusters = informers.of(HpcCluster)
        self._recorder = recorder
        self._results = results
        self._local = local
        self._clock = clock
        self._sites: dict[Key, tuple[Site, asyncio.Task[None], HpcClusterSpec]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self.on_job: Callable[[str], None] = lambda uid: None
        self.on_cluster: Callable[[str, str], None] = lambda namespace, name: None
        self._clusters.on_change(self._changed)

    def _changed(self, old: HpcCluster | None, new: HpcCluster | None) -> None:
        cluster = new or old
        if cluster is not None and (old is None or new is None or old.spec != new.spec):
            self.queue.add(cluster.key)

    async def run(self) -> None:
        await self.informers.synced()
        async with asyncio.TaskGroup() as self._tasks:
            await super().run()

    def site(self, cluster: HpcCluster, secret: str = "") -> Site:
        """The connection to a cluster, begun if there is none. Must be called while the controllers run."""
        meta = cluster.metadata
        key = (meta.namespace, meta.name, secret or cluster.spec.secretRef.name)
        held = self._sites.get(key)
        if held is not None and held[2] == cluster.spec:
            return held[0]
        if held is not None:
            held[1].cancel()
        if self._tasks is None:
            raise Unreachable("Connecting", "the controllers are still being started")

        async def login() -> tuple[HpcClusterSpec, Login, str]:
            return await self._login(key, self._clusters.get(meta.namespace, meta.name) or cluster)

        site = Site(
            f"{meta.namespace}/{meta.name}", self._results, login,
            told=lambda uid: self.on_job(uid), state_changed=lambda: self._state_changed(key),
        )  # fmt: skip
        if held is not None:
            site.jobs = held[0].jobs
        self._sites[key] = (site, self._tasks.create_task(site.run(), name=f"cluster {meta.name}"), cluster.spec)
        return site

    async def _login(self, key: Key, cluster: HpcCluster) -> tuple[HpcClusterSpec, Login, str]:
        """With the key of the host that is pinned, if one is. Raises Unreachable."""
        return cluster.spec, await self._read_secret(key, cluster.spec), cluster.status.hostKey

    def release(self, namespace: str, cluster: str, secret: str) -> None:
        """Nobody needs the login of a job of its own any more."""
        held = self._clusters.get(namespace, cluster)
        if held is None or held.spec.secretRef.name != secret:
            site = self._sites.pop((namespace, cluster, secret), None)
            if site is not None:
                site[1].cancel()

    def _state_changed(self, key: Key) -> None:
        self.queue.add(f"{key[0]}/{key[1]}")
        self.on_cluster(key[0], key[1])

    async def _read_secret(self, key: Key, spec: HpcClusterSpec) -> Login:
        try:
            secret = await self.client.get(Secret, key[2], key[0])
        except NotFound:
            raise Unreachable("InvalidSecret", f'the Secret "{key[2]}" with the login is not there') from None
        data = {name: base64.b64decode(value).decode(errors="replace") for name, value in secret.data.items()}
        own = key[2] != spec.secretRef.name
        user = (data.get("username", "") if own or not spec.user else "") or spec.user
        login = Login(user, data.get("password", ""), data.get("ssh-privatekey", ""), data.get("passphrase", ""))
        if not (login.password or login.private_key):
            text = f'the Secret "{key[2]}" has neither ssh-privatekey nor password'
            raise Unreachable("InvalidSecret", text)
        if not user:
            raise Unreachable(
                "InvalidSecret", f'neither spec.user nor username in the Secret "{key[2]}" says who logs in'
            )
        return login

    async def reconcile(self, key: str) -> float | None:
        cluster = self._clusters.by_key(key)
        namespace, _, name = key.partition("/")
        local = cluster is not None and cluster.spec.type == LOCAL
        if cluster is None or cluster.deleting or local:
            for each in [each for each in self._sites if each[:2] == (namespace, name)]:
                self._sites.pop(each)[1].cancel()
        if cluster is None or cluster.deleting:
            self.on_cluster(namespace, name)
            return None
        if local:
            await self._tell_local(cluster, cluster.spec.local or LocalCluster())
            return LOOK_AT_NODES
        await self._tell(cluster, self.site(cluster))
        return None

    async def _tell_local(self, cluster: HpcCluster, local: LocalCluster) -> None:
        devices = self._local.devices(local) if self._local is not None else ""
        none = f"no node has {local.resourceName}: jobs with gpus wait (minik8s doctor gpu says what a node lacks)"
        reason, text = ("Devices", devices) if devices else ("NoDevice", none)
        condition = Condition(type="Reachable", status="True", reason=reason, message=text)
        conditions = with_condition(cluster.status.conditions, condition, self._clock())
        generation = cluster.metadata.generation
        await self._write(cluster, replace(cluster.status, conditions=conditions, observedGeneration=generation))

    async def _tell(self, cluster: HpcCluster, site: Site) -> None:
        old = cluster.status
        if site.trouble is None and not site.slurm_trouble:
            condition = Condition(type="Reachable", status="True", reason="Connected", message="")
        elif site.trouble is None:
            condition = Condition(
                type="Reachable", status="True", reason="SlurmNotAnswering", message=site.slurm_trouble
            )
        else:
            condition = Condition(
                type="Reachable", status="False", reason=site.trouble.reason, message=str(site.trouble)
            )
        pin = cluster.spec.hostKeyPolicy == "TrustOnFirstUse" and not cluster.spec.knownHosts.strip()
        new = replace(
            old,
            version=site.version or old.version,
            hostKey=(old.hostKey or site.host_key) if pin else "",
            jobs=sum(
                len(each[0].jobs) for key, each in self._sites.items() if key[:2] == tuple(cluster.key.split("/"))
            ),
            conditions=with_condition(old.conditions, condition, self._clock()),
            observedGeneration=cluster.metadata.generation,
        )
        if not await self._write(cluster, new):
            return
        if condition.status == "False" and condition.reason != "Connecting":
            self._recorder.event(cluster, "Warning", condition.reason, condition.message)

    async def _write(self, cluster: HpcCluster, status: HpcClusterStatus) -> bool:
        """Whether it is another one."""
        patch = difference(cluster.status, status)
        if patch is None:
            return False
        meta = cluster.metadata
        done = await self.client.patch(HpcCluster, meta.name, meta.namespace, {"status": patch}, subresource="status")
        await self._clusters.caught_up(done.metadata.resourceVersion)
        return True
