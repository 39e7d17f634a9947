"""A master: store, API server, controllers and scheduler in one process, meeting only through the API.

`open_master` reads as its own summary: open the store, build the handler, give every component a loopback client that
acts as that component, and begin the cluster if it is new. The activities then run until one of them fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from minik8s.api.kinds.lease import INTERVAL_ANNOTATION, NODE_LEASES
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.scheme import SCHEME
from minik8s.apiserver.allocator import ServiceAllocator
from minik8s.apiserver.app import ApiServer
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import AUTHENTICATED, MASTERS, User
from minik8s.apiserver.authn import ClusterAuthenticator
from minik8s.apiserver.bootstrap import bootstrap, kubernetes_service
from minik8s.apiserver.handler import Handler
from minik8s.apiserver.keeper import Keeper
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.apiserver.openapi import OpenAPI
from minik8s.apiserver.rbac import RBACAuthorizer
from minik8s.apiserver.resource_metrics import Kubelets, ResourceMetrics
from minik8s.apiserver.streaming import NodeStreams
from minik8s.apiserver.tokens import ServiceAccountTokens
from minik8s.client.base import Client, Transport
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.config import Config
from minik8s.controllers import build as build_controllers
from minik8s.controllers.certificates import CertificateController
from minik8s.controllers.settings import Settings
from minik8s.faas.admission import WorkflowDefinitions
from minik8s.faas.gateway.api import CallRecords
from minik8s.faas.perform import NoFunctions
from minik8s.faas.queue.triggers import TriggerSchedules
from minik8s.hpc import build as build_hpc
from minik8s.hpc.endpoints import JobFiles
from minik8s.log import get_logger
from minik8s.pki import names_of
from minik8s.roles.agent_image import agent_image
from minik8s.roles.calls import Calls, open_calls
from minik8s.roles.functions import Functions, open_functions
from minik8s.roles.identity import MasterIdentity, master_identity
from minik8s.roles.listening import listening_at
from minik8s.roles.renewal import Credentials
from minik8s.roles.workflows import Workflows, open_workflows
from minik8s.scheduler.scheduler import Scheduler
from minik8s.store import open_store
from minik8s.store.watch_cache import WatchCache

Activity = tuple[str, Coroutine[Any, Any, Any]]
log = get_logger("master")


class _Late:
    """The loopback of a handler that is being built: authorizing needs copies that only the handler can give."""

    target: Transport

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
    ) -> bytes:
        return await self.target.request(method, path, query=query, body=body, content_type=content_type)

    def stream(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[bytes]]]:
        return self.target.stream(path, query=query)


class Master:
    """A control plane that is ready to run; a node in the same process speaks to it through `client`."""

    def __init__(self, config: Config, identity: MasterIdentity, cache: WatchCache) -> None:
        late = _Late()
        self._config = config
        self.identity = identity
        self._cache = cache
        self.functions: Functions | None = None
        self.workflows: Workflows | None = None
        self.calls: Calls | None = None
        self._allocator = ServiceAllocator(cache, config.service_cidr)
        self.informers = Informers(Client(late))
        self.credentials = Credentials(identity.certificates, lambda: asyncio.to_thread(master_identity, config))
        self.kubelets = Kubelets(self.credentials.client(identity.kubelets, identity.ca_file))
        self._job_files = JobFiles(config.path("hpc"), self.informers.client)
        tokens = ServiceAccountTokens(identity.service_account_key, self.informers)
        authorizer = RBACAuthorizer(self.informers)
        self.handler: Handler = build_handler(
            cache,
            authenticator=ClusterAuthenticator(tokens, self.informers),
            authorizer=authorizer,
            allocator=self._allocator,
            rules=authorizer,
            tokens=tokens,
            openapi=OpenAPI(SCHEME.resources),
            tolerated_seconds=round(config.default_toleration),
            usage=ResourceMetrics(self.informers, self.kubelets.summary),
            steps=(WorkflowDefinitions(), TriggerSchedules()),
            more_answers=self._job_files.answers(),
        )
        late.target = LoopbackTransport(self.handler, _component("system:kube-controller-manager"))
        self.handler.health.add_ready("informers", lambda: "" if self.informers.has_synced else "copies are being made")

    def client(self, user: User) -> Client:
        """A client that acts as `user`, with that user's rights."""
        return Client(LoopbackTransport(self.handler, user))

    async def begin(self) -> None:
        """Create what every cluster begins with; idempotent."""
        await self._allocator.repair()
        _, port = self._config.listen_address
        await bootstrap(
            self.client(_component("system:apiserver")),
            ca=self.identity.ca.certificate.decode(),
            service_ip=self._config.kubernetes_ip,
            address=self._config.advertised,
            port=port,
        )
        interval = {INTERVAL_ANNOTATION: f"{self._config.node_lease_interval:g}"}
        await self.informers.client.patch(Namespace, NODE_LEASES, None, {"metadata": {"annotations": interval}})

    async def _tell_where(self) -> None:
        config = self._config
        client = self.client(_component("system:apiserver"))
        await kubernetes_service(client, config.kubernetes_ip, config.advertised, config.listen_address[1])

    async def readdress(self) -> None:
        """This machine has another address: speak for it, and tell pods."""
        self.credentials.nudge()
        await self.begin()

    def activities(self) -> list[Activity]:
        """What must run for ever besides `serve`: storing, copying, controlling, scheduling."""
        recorders: dict[str, Recorder] = {}

        def recorder(component: str) -> Recorder:
            if component not in recorders:
                recorders[component] = Recorder(self.informers.client, component)
            return recorders[component]

        settings = Settings(
            ca=self.identity.ca.certificate.decode(),
            pod_cidr=self._config.pod_cidr,
            node_monitor_grace=self._config.node_monitor_grace,
            cluster_domain=self._config.cluster_domain,
            dns_ip=self._config.dns_ip,
            ingress=self._config.ingress != "off",
            ingress_image=self._config.ingress_image,
            ingress_ports=(self._config.ingress_http_port, self._config.ingress_https_port),
        )
        controllers = build_controllers(self.informers.client, self.informers, recorder, settings=settings)
        if self._config.gpu_jobs:
            controllers += build_hpc(
                self.informers.client, self.informers, recorder, self._job_files, self.kubelets.exec, agent_image
            )
        # What pods call the API server; its address may well be a node's too, on the same machine.
        names = names_of(self.identity.serving[0].read_bytes())
        own = {name for name in names if name.startswith("kubernetes")} | {self._config.kubernetes_ip}
        certificates = CertificateController(
            self.informers.client, self.informers, self.identity.ca,
            reserved=own, duration=self._config.cluster_signing_duration,
        )  # fmt: skip
        keeper = Keeper(self.informers.client, self.informers, self._tell_where)
        scheduler = Scheduler(self.client(_component("system:kube-scheduler")), self.informers)
        return [
            ("store", self._cache.run()),
            ("service allocator", self._allocator.run()),
            ("informers", self.informers.run()),
            *((controller.name, controller.run()) for controller in (*controllers, certificates, keeper)),
            *((f"recorder {name}", one.run()) for name, one in recorders.items()),
            ("scheduler", scheduler.run()),
            ("certificates", self.credentials.run()),
            ("kubelets", self.kubelets.run()),
            *(self.functions.activities() if self.functions is not None else ()),
            *(self.workflows.activities() if self.workflows is not None else ()),
            *(self.calls.activities() if self.calls is not None else ()),
        ]

    async def serve(self) -> None:
        """Answer clients over TLS at the configured address, for ever."""
        identity = self.identity
        context = self.credentials.server(identity.serving, identity.ca_file)
        streams = NodeStreams(self.informers.client, self.kubelets.context)
        server = ApiServer(self.handler, streams=streams)
        host, port = self._config.listen_address
        async with AsyncExitStack() as stack:
            with listening_at(host, port, "API server", "--listen"):
                address, bound = await stack.enter_async_context(server.listening(host, port, context))
            await self.informers.synced()
            log.info("API server ready", address=f"{address}:{bound}", store=self._config.store)
            await asyncio.Event().wait()


@asynccontextmanager
async def open_master(config: Config, identity: MasterIdentity) -> AsyncIterator[Master]:
    """A master over its open store. Raises StoreError for a store that cannot be used."""
    async with open_store(config.store, data_dir=config.data_dir) as store, WatchCache(store) as cache:
        master = Master(config, identity, cache)
        await master.begin()
        async with AsyncExitStack() as stack:
            master.functions = open_functions(config, master.handler, master.informers)
            master.calls = await stack.enter_async_context(open_calls(config, master.handler, master.informers))
            if master.calls is not None:
                master.calls.api.records = CallRecords(master.informers, master.kubelets.page).get
            functions = master.calls.functions if master.calls is not None else NoFunctions()
            kubelets = master.kubelets.context
            workflows = open_workflows(config, master.handler, master.informers, functions, kubelets)
            master.workflows = await stack.enter_async_context(workflows)
            yield master


def _component(name: str) -> User:
    """A part of the control plane as a user of its own, so that logs tell who wrote."""
    return User(name, (MASTERS, AUTHENTICATED))
