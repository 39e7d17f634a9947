"""A whole cluster in memory for tests, here and in users' own projects: the real control plane, simulated nodes.

    async with cluster(nodes=2) as it:
        await it.client.create(Deployment, {...}, "default")
        pod = await it.until(Pod, lambda pod: pod.status.phase == "Running")

Nothing listens, nothing is written but keys in a temporary folder, and no container runs; all else is what
`minik8s run` runs: API server, controllers, scheduler, kubelets.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from minik8s.aio import background, supervise
from minik8s.api.meta import Object
from minik8s.apiserver.auth import AUTHENTICATED, MASTERS, User
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.config import Config
from minik8s.roles.identity import master_identity
from minik8s.roles.master import Master, open_master
from minik8s.roles.node import simulated_nodes

T = TypeVar("T", bound=Object)
PATIENCE = 10.0  # seconds that `until` waits for what must come


class Cluster:
    """A running cluster. `client` may do everything; `master.client(user)` does what a user may."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self.client: Client = master.client(User("test", (MASTERS, AUTHENTICATED)))
        self.informers: Informers = master.informers

    async def until(
        self, kind: type[T], test: Callable[[T], Any], namespace: str | None = None, *, seconds: float = PATIENCE
    ) -> T:
        """The first object of `kind` for which `test` holds, now or as soon as one does. Raises TimeoutError."""
        found: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        informer = self.informers.of(kind)

        def look(old: T | None, new: T | None) -> None:
            if new is not None and namespace in (None, new.metadata.namespace) and not found.done() and test(new):
                found.set_result(new)

        informer.on_change(look)
        async with asyncio.timeout(seconds):
            return await found


@asynccontextmanager
async def cluster(*, nodes: int = 1, **settings: Any) -> AsyncIterator[Cluster]:
    """A cluster with `nodes` simulated nodes (0: a control plane alone). `settings` are fields of `Config`."""
    with tempfile.TemporaryDirectory(prefix="minik8s-") as folder:
        config = Config(data_dir=Path(folder), store="memory", runtime="fake", node_ip="127.0.0.1", node_name="node")
        config = replace(config, **{"replicas": max(nodes, 1), **settings})
        async with open_master(config, master_identity(config)) as master:
            activities = master.activities()
            informers = Informers(master.client(User("simulator", (MASTERS, AUTHENTICATED))))
            if nodes:
                activities += simulated_nodes(config, informers.client, informers, here=master.kubelets.here)
            async with background(supervise(activities), informers.run()):
                await master.informers.synced()
                yield Cluster(master)
