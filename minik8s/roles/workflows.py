"""Workflows put together: the log of runs, the runner, those who do tasks, the controller, and the API's part."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.service import Service
from minik8s.api.kinds.workflowrun import WorkflowRun
from minik8s.apiserver.auth import AUTHENTICATED, MASTERS, SERVICE_ACCOUNT_PREFIX, SERVICE_ACCOUNTS, User
from minik8s.apiserver.handler import Handler
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.config import Config
from minik8s.faas.api import WorkflowApi
from minik8s.faas.controller import WorkflowRunController
from minik8s.faas.egress import EVERYWHERE, Egress, networks
from minik8s.faas.http_task import HttpTasks
from minik8s.faas.job_logs import JobLogs
from minik8s.faas.outbound import Outbound
from minik8s.faas.perform import Functions, Performer
from minik8s.faas.run_log import MemoryLog, RunLog
from minik8s.faas.runner import Runner
from minik8s.faas.sqlite_log import SqliteLog
from minik8s.faas.tokens import Tokens
from minik8s.metrics import Reading, labels

FILE = "workflows.db"
CONTROLLER = User("system:workflow-controller", (MASTERS, AUTHENTICATED))


class Workflows:
    """`functions` is what calls the cluster's functions."""

    def __init__(
        self, config: Config, handler: Handler, informers: Informers, history: RunLog, functions: Functions,
        kubelets: ssl.SSLContext,
    ) -> None:  # fmt: skip
        client = Client(LoopbackTransport(handler, CONTROLLER))
        services = informers.of(Service)

        def service(namespace: str, name: str) -> str:
            found = services.get(namespace, name)
            return "" if found is None or found.spec.clusterIP == "None" else found.spec.clusterIP

        def acting(namespace: str, account: str) -> Client:
            groups = (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}", AUTHENTICATED)
            user = User(f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{account}", groups)
            return Client(LoopbackTransport(handler, user))

        egress = Egress({config.ip, config.advertised}, networks(config.workflow_http_allow))
        self._outbound = Outbound(egress, service)
        self._to_nodes = Outbound(Egress(allowed=EVERYWHERE), context=lambda: kubelets)
        logs = JobLogs(informers.of(Node), self._to_nodes)
        self.performer = Performer(functions, HttpTasks(self._outbound), acting, logs.tail)
        tokens = Tokens()
        self.runner = Runner(history, self.performer, elsewhere=tokens.elsewhere)
        tokens.runner = self.runner
        self._recorder = Recorder(client, "workflow-controller")
        self._controller = WorkflowRunController(client, informers, self.runner, self._recorder)
        runs = informers.of(WorkflowRun)
        Reading("workflow_runs", "gauge", "WorkflowRuns by phase.", lambda: (
            (labels(phase=phase), count)
            for phase, count in sorted(Counter(run.status.phase or "Pending" for run in runs.list()).items())
        ))  # fmt: skip
        api = WorkflowApi(client, self.runner, tokens)
        handler.extend(api.subresources(), api.virtuals())

    def activities(self) -> list[tuple[str, Coroutine[Any, Any, Any]]]:
        return [
            ("workflows", self.runner.run()),
            ("workflow tasks", self._outbound.run()),
            ("logs of workflow tasks", self._to_nodes.run()),
            ("recorder workflow-controller", self._recorder.run()),
            (self._controller.name, self._controller.run()),
        ]


@asynccontextmanager
async def open_workflows(
    config: Config, handler: Handler, informers: Informers, functions: Functions, kubelets: ssl.SSLContext
) -> AsyncIterator[Workflows | None]:
    """None where they are switched off. Raises StoreError for a log that cannot be used."""
    if not config.workflows:
        yield None
        return
    async with AsyncExitStack() as stack:
        history: RunLog = MemoryLog()
        if config.store != "memory":
            history = await stack.enter_async_context(SqliteLog(config.path(FILE)))
        yield Workflows(config, handler, informers, history, functions, kubelets)
