"""The agent: one process that hosts a master, a node, or both, on one data folder, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import AsyncExitStack

from minik8s import log as logging
from minik8s.aio import supervise
from minik8s.config import Config, save
from minik8s.net.base import NetworkError
from minik8s.roles.identity import NodeIdentity, local_node_identity, master_identity
from minik8s.roles.lock import AlreadyRunning, agent_lock
from minik8s.roles.master import Activity, open_master
from minik8s.roles.node import run_node
from minik8s.runtime.base import RuntimeFailure
from minik8s.store.base import StoreError

log = logging.get_logger("agent")
# What can be wrong with a machine or its settings: told in one line, without a traceback.
EXPECTED = (StoreError, RuntimeFailure, NetworkError, AlreadyRunning, OSError)


class AgentError(Exception):
    """The agent cannot run here; the message says why and what to do."""


def run_agent(config: Config) -> None:
    """Run until SIGTERM or SIGINT; raises AgentError."""
    logging.configure(config.log_level, config.log_format)
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    try:
        with runner, agent_lock(config.data_dir):
            save(config)
            runner.run(_until_signalled(config))
    except EXPECTED as error:
        raise AgentError(str(error)) from error
    except ExceptionGroup as group:
        first = _first(group)
        log.error("the agent stops", error=str(first), kind=type(first).__name__, exc_info=first)
        raise AgentError(f"{type(first).__name__}: {first}") from group


async def _until_signalled(config: Config) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.current_task()
    assert work is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await agent(config)
    except asyncio.CancelledError:
        log.info("stopped; pods keep running")


async def agent(config: Config) -> None:
    """Host what the role says; eternal."""
    async with AsyncExitStack() as stack:
        activities: list[Activity] = []
        master = None
        identity: NodeIdentity | None = None
        if config.hosts_master:
            keys = master_identity(config)
            master = await stack.enter_async_context(open_master(config, keys))
            activities += [("api server", master.serve()), *master.activities()]
            if config.hosts_node:
                identity = local_node_identity(config, keys.ca)
        if config.hosts_node:
            activities.append(("node", run_node(config, identity, master)))
        # What lives now lives for ever: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        await supervise(activities)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The innermost first error of a group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
