"""The agent: one process that hosts a master, a node, or both, on one data folder, until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from minik8s import log as logging
from minik8s.aio import supervise
from minik8s.config import LOG_FOLDER, Config, save
from minik8s.metrics import Histogram
from minik8s.net.base import NetworkError
from minik8s.roles.address import follow_address
from minik8s.roles.identity import IdentityError, NodeIdentity, local_node_identity, master_identity
from minik8s.roles.listening import CannotListen
from minik8s.roles.lock import AlreadyRunning, agent_lock
from minik8s.runtime.base import RuntimeFailure
from minik8s.store.base import StoreError

if TYPE_CHECKING:
    from minik8s.roles.master import Activity, Master

# Objects that may be made before the youngest are looked through for cycles; Python's 700 is for small programs.
COLLECT_AFTER = 20_000
LAG_PERIOD = 1.0  # seconds between looks at how late the event loop is
_LAG = Histogram("minik8s_event_loop_lag_seconds", "How late the event loop is: what all parts of a process wait for.")
log = logging.get_logger("agent")
# What can be wrong with a machine or its settings: told in one line, without a traceback.
UNDERSTOOD = (StoreError, RuntimeFailure, NetworkError, AlreadyRunning, CannotListen, IdentityError)


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
            logging.keep(config.path(LOG_FOLDER))
            save(config)
            runner.run(_until_signalled(config))
    except UNDERSTOOD as error:
        raise AgentError(str(error)) from error
    except OSError as error:  # before anything runs; later it may be a fault of the program
        raise AgentError(_trouble(error, config)) from error
    except ExceptionGroup as group:
        first = _first(group)
        if isinstance(first, UNDERSTOOD):
            raise AgentError(str(first)) from group
        log.error(
            "the agent stops", error=str(first), kind=type(first).__name__, exc_info=first,
            remedy="start it again ('minik8s start'), and report it with these lines: it is a fault of minik8s itself",
        )  # fmt: skip
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
    """Host what the role says; eternal.

    What the API server can answer without is read when it already does, in a thread, so that it goes on answering.
    """
    async with AsyncExitStack() as stack:
        activities: list[Activity] = []
        master = None
        identity: NodeIdentity | None = None
        if config.hosts_master:
            from minik8s.roles.master import open_master  # not at the top: a worker does without it

            keys = master_identity(config)
            master = await stack.enter_async_context(open_master(config, keys))
            activities += [("api server", master.serve()), *master.activities()]
            if config.dashboard_listen != "off":
                activities.append(("dashboard", _dashboard(config, master)))
            if config.hosts_node:
                identity = local_node_identity(config, keys.ca)
            else:
                activities.append(("address", _follow_address(config, master)))
        if config.hosts_node:
            activities.append(("node", _node(config, identity, master)))
        await supervise([*activities, ("loop lag", _measure_lag())])


async def _measure_lag() -> None:
    now = asyncio.get_running_loop().time
    while True:
        due = now() + LAG_PERIOD
        await asyncio.sleep(LAG_PERIOD)
        _LAG.observe(max(now() - due, 0.0))


async def _node(config: Config, identity: NodeIdentity | None, master: Master | None) -> None:
    """Be a node."""
    if master is not None:
        await master.informers.synced()
    run_node = (await asyncio.to_thread(importlib.import_module, "minik8s.roles.node")).run_node
    _settle()
    await run_node(config, identity, master)


async def _dashboard(config: Config, master: Master) -> None:
    await master.informers.synced()
    serve = (await asyncio.to_thread(importlib.import_module, "minik8s.roles.dashboard")).serve_dashboard
    await serve(config, master)


async def _follow_address(config: Config, master: Master) -> None:
    """Of a master that is no node: a node's own sees to that."""
    await master.informers.synced()
    _settle()
    if config.node_ip or config.advertise:
        await asyncio.Event().wait()

    async def changed(address: str) -> None:
        await master.readdress()

    await follow_address(config, config.ip, changed)


def _settle() -> None:
    """What lives now lives for ever: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    gc.enable()


def _trouble(error: OSError, config: Config) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = f"; make space there ('df {config.data_dir}'), then start again" if full else ""
    return f"{error.filename or config.data_dir}: {error.strerror or error}{remedy}"


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The innermost first error of a group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
