"""One login on one cluster: kept connected, its queue looked at for all jobs at once, what changed told.

The controller asks a site to do a step (each is one round trip); the site's own task connects, with back-off, and
polls: one command for the queue, and a second one only for jobs that the queue does not tell enough about. A queue
that cannot be asked changes nothing that is known.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from minik8s.aio import backoff
from minik8s.api.kinds.gpujob import QUEUED, RUNNING
from minik8s.api.kinds.hpccluster import HpcClusterSpec
from minik8s.hpc import remote_text, sources
from minik8s.hpc.reports import Observation, TaskReport, observe, parse_look, parse_queue
from minik8s.hpc.results import Results
from minik8s.hpc.ssh import Connection, Login, RemoteFileError, Unreachable, connect
from minik8s.hpc.states import meaning
from minik8s.log import get_logger
from minik8s.metrics import Counter

GRACE = 30.0  # seconds for which no source may know a job: accounting is some seconds late
GRACE_WITHOUT_ACCOUNTING = 600.0  # seconds, where accounting is there and does not answer
LOOKED_AT = 400  # jobs in one look: what does not fit waits for the next poll
TAILED = 256 * 1024  # bytes of a running job's output in one go
INLINE = 24 * 1024  # bytes of a tar that go with a command: the shell reads its commands byte by byte
PACKED, THERE = "packed.part", 4  # a tar on its way up; that it is unpacked already
REFUSED_AGAIN = 60.0  # seconds until a refused login is tried again: some sites lock accounts
GROWTH = 1.5  # of the time between polls at rest
POLLS = Counter("hpc_polls_total", "Times that the queue of a cluster was looked at.")
log = get_logger("hpc")


@dataclass
class Tracked:
    """A job on the cluster, as long as it is followed."""

    uid: str
    folder: str
    submission: str
    job_id: str
    expected: list[int]
    outputs: tuple[str, ...] = ()  # paths below `folder` that may be followed
    accounting: dict[int, TaskReport] = field(default_factory=dict)
    codes: dict[int, int] = field(default_factory=dict)
    seen: dict[int, TaskReport] = field(default_factory=dict)  # last in the queue
    missing_since: float = 0.0
    observation: Observation | None = None
    lost: bool = False

    def as_before(self, queue: dict[int, TaskReport]) -> bool:
        """Whether the queue says what it said before, and all that there is to say. So it is for nearly all jobs."""
        alive = self.observation is not None and self.observation.phase in (QUEUED, RUNNING)
        return alive and not self.missing_since and len(queue) == len(self.expected) and queue == self.seen


class Site:
    """`run` never ends but by cancellation. `told(uid)` is called when a job's observation changes, `state_changed()`
    when the connection does."""

    def __init__(
        self,
        name: str,
        results: Results,
        login: Callable[[], Awaitable[tuple[HpcClusterSpec, Login, str]]],
        *,
        told: Callable[[str], None],
        state_changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.jobs: dict[str, Tracked] = {}
        self.home = ""
        self.version = ""
        self.host_key = ""
        self.trouble: Unreachable | None = Unreachable("Connecting", "the first connection is being made")
        self.slurm_trouble = ""
        self.unreachable_since = time.monotonic()
        self._results = results
        self._login = login
        self._told = told
        self._state_changed = state_changed
        self._connection: Connection | None = None
        self._spec = HpcClusterSpec()
        self._wake = asyncio.Event()

    @property
    def connection(self) -> Connection:
        """Raises Unreachable while there is none, or it is still being asked where the home folder is."""
        if self._connection is None or self._connection.closed or self.trouble is not None:
            raise self.trouble or Unreachable("ConnectionLost", "the connection was cut")
        return self._connection

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def track(self, job: Tracked) -> None:
        held = self.jobs.get(job.uid)
        if held is None or held.submission != job.submission:
            self.jobs[job.uid] = job
            self.wake()

    def forget(self, uid: str) -> None:
        self.jobs.pop(uid, None)

    # -- for ever

    async def run(self) -> None:
        delays = backoff(1.0, 30.0)
        while True:
            refused = False
            try:
                await self._connect()
                delays = backoff(1.0, 30.0)
                await self._poll_for_ever()
            except Unreachable as error:
                self._failed(error)
                refused = error.reason == "LoginRefused"
            finally:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(next(delays), REFUSED_AGAIN if refused else 0.0)):
                    await self._wake.wait()

    async def _connect(self) -> None:
        self._spec, login, pinned = await self._login()
        made = await connect(self._spec, login, pinned=pinned)
        self._connection = made
        made.prepare(remote_text.exported(self._spec.env).encode())
        answer = await made.run(remote_text.prelude(()))
        if answer.code != 0:
            reason = "SlurmMissing" if answer.code == remote_text.NO_SLURM else "ShellFailed"
            raise Unreachable(reason, answer.text.strip()[-300:] or f"the login node's shell ended with {answer.code}")
        lines = answer.text.strip().splitlines()
        self.version, self.home = lines[-2].removeprefix("slurm-wlm ").removeprefix("slurm "), lines[-1]
        self.host_key = made.host_key
        self.trouble = None
        log.info("cluster connected", cluster=self.name, slurm=self.version)
        self._state_changed()

    def _failed(self, error: Unreachable) -> None:
        if self.trouble is None:
            self.unreachable_since = time.monotonic()
        if self.trouble is None or self.trouble.reason != error.reason:
            log.warning("cluster out of reach", cluster=self.name, reason=error.reason, error=str(error))
            self.trouble = error
            self._state_changed()

    async def _poll_for_ever(self) -> None:
        poll = self._spec.pollInterval
        interval = float(poll.minSeconds)
        while True:
            self._wake.clear()
            changed = await self.poll() if self.jobs else False
            followed = await self._follow()
            interval = poll.minSeconds if changed or followed else min(interval * GROWTH, poll.maxSeconds)
            await self._rest(interval if self.jobs else poll.maxSeconds)

    async def _rest(self, seconds: float) -> None:
        """Until it is time, something is to be looked at, or the connection has gone."""
        closed = asyncio.ensure_future(self.connection.wait_closed())
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait(
                (closed, woken), timeout=seconds * (1 + random.random() / 10), return_when="FIRST_COMPLETED"
            )
            if closed.done():
                raise Unreachable("ConnectionLost", "the connection to the login node was cut")
        finally:
            closed.cancel()
            woken.cancel()
        await asyncio.sleep(0.2)  # what comes together is looked at together

    async def poll(self) -> bool:
        """Look once. Whether anything changed."""
        POLLS.inc()
        answer = await self.connection.run(remote_text.queue())
        if (answer.code != 0) != bool(self.slurm_trouble):
            self.slurm_trouble = answer.text.strip()[-300:] or "squeue fails" if answer.code else ""
            self._state_changed()
        if answer.code != 0:
            return False
        queue = parse_queue(answer.text)
        jobs = [job for job in self.jobs.values() if not job.lost]
        jobs = [job for job in jobs if not job.as_before(queue.get(job.job_id, {}))]
        for job in jobs:
            job.seen |= queue.get(job.job_id, {})
        unclear = [job for job in jobs if self._unclear(job, queue.get(job.job_id, {}))][:LOOKED_AT]
        asked = await self._look(unclear) if unclear else ""
        looked = {job.uid for job in unclear}
        changed = [self._conclude(job, queue.get(job.job_id, {}), asked, job.uid in looked) for job in jobs]
        return any(changed)  # of all of them: each is to be looked at, whatever the one before it says

    @staticmethod
    def _unclear(job: Tracked, queue: dict[int, TaskReport]) -> bool:
        """Whether the queue alone does not tell: tasks that it has forgotten, or exit codes that are still to come."""
        seen = observe(job.expected, queue, job.accounting, job.codes)
        if not seen.found or any(task not in queue and task not in job.codes for task in job.expected):
            return True
        return seen.phase == "Failed" and seen.exit_code is None

    async def _look(self, jobs: list[Tracked]) -> str:
        answer = await self.connection.run(remote_text.look([(j.folder, j.submission, j.job_id) for j in jobs]))
        extra = parse_look(answer.text)
        for job in jobs:
            job.codes |= extra.codes.get(job.job_id, {}) | extra.marks.get(job.submission, {})
            job.accounting |= extra.accounting.get(job.job_id, {})
        return extra.asked

    def _conclude(self, job: Tracked, queue: dict[int, TaskReport], asked: str, looked: bool) -> bool:
        codes = {
            task: code for task, code in job.codes.items() if task not in queue or meaning(queue[task].state).final
        }
        # A task that the queue has forgotten, and nobody else knows yet, is as it was last seen.
        seen = {task: report for task, report in job.seen.items() if task in queue or len(job.expected) > 1}
        observation = observe(job.expected, seen, job.accounting, codes)
        now = time.monotonic()
        if observation.found:
            job.missing_since = 0.0
        elif looked:
            job.missing_since = job.missing_since or now
            grace = GRACE if asked in ("", "absent") else GRACE_WITHOUT_ACCOUNTING
            job.lost = now - job.missing_since > grace
        if observation == job.observation and not job.lost:
            return False
        if observation.found or job.lost:
            job.observation = observation
            self._told(job.uid)
        return True

    async def _follow(self) -> bool:
        """Fetch what running jobs have written, where somebody reads it. One command for all of them."""
        wanted = []
        for job in self.jobs.values():
            if job.observation is not None and job.observation.phase == RUNNING and self._results.has_reader(job.uid):
                for path in job.outputs:
                    local = self._results.place(job.uid, path)
                    wanted.append((f"{job.folder}/work/{path}", local))
        if not wanted:
            return False
        sizes = [local.stat().st_size if local.exists() else 0 for _, local in wanted]
        asked = [(remote, size, TAILED) for (remote, _), size in zip(wanted, sizes, strict=True)]
        answer = await self.connection.run(remote_text.tail(asked))
        lines = answer.text.splitlines()
        for (_, local), size, head, data in zip(wanted, sizes, lines[::2], lines[1::2], strict=False):
            fresh = base64.b64decode(data)
            if head.startswith("@ ") and int(head[2:]) < size:
                local.write_bytes(b"")  # it was begun anew
            elif fresh:
                with local.open("ab") as file:
                    file.write(fresh)
        return True

    # -- steps of a job

    async def put_sources(self, folder: str, packed: Path, sha256: str) -> None:
        """Sources in place below `folder`/work, whole. Raises Unreachable, RemoteFileError."""
        connection = self.connection
        small = packed.stat().st_size <= INLINE  # noqa: ASYNC240 - a file of this machine, just written
        if small:
            text = sources.inline(packed.read_bytes())  # noqa: ASYNC240
            answer = await connection.run(remote_text.put(folder, text))
        else:
            begin = f"[ -d {remote_text.quote(folder + '/work')} ] && exit {THERE}\n"
            answer = await connection.run(begin + f"mkdir -p {remote_text.quote(f'{folder}/{remote_text.CONTROL}')}")
            if answer.code == THERE:
                return
            if answer.code == 0:
                await connection.upload(str(packed), f"{folder}/{PACKED}")
                answer = await connection.run(remote_text.unpack(folder, PACKED, sha256), timeout=600)
        if answer.code != 0:
            raise RemoteFileError(answer.text.strip()[-300:] or f"unpacking ended with {answer.code}")
