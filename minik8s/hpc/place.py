"""Where GpuJobs run: what a controller asks of a Slurm cluster (`slurm.py`), and of this very cluster (`local.py`).

Every step may be done again: a controller that is killed in the middle of one begins it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from minik8s.api.kinds.gpujob import GpuJob
from minik8s.hpc.remote_text import Submitted
from minik8s.hpc.reports import Observation


class Refused(Exception):
    """This place will never run such a job; the text names the field and the remedy."""


class Seen(NamedTuple):
    """What is known of a job. `again`: seconds until it should be asked once more; None: it will be told."""

    observation: Observation | None = None
    lost: bool = False
    again: float | None = None


class Place(Protocol):
    """Steps raise Unreachable (nobody knows what was done), RemoteFileError, Refused."""

    def folder(self, job: GpuJob) -> str:
        """That of a job which is about to begin."""
        ...

    async def put_sources(self, job: GpuJob, packed: Path, sha256: str) -> None:
        """`packed` is a tar; it may be taken away."""
        ...

    async def submit(self, job: GpuJob) -> Submitted: ...

    async def look(self, job: GpuJob) -> Seen: ...

    async def cancel(self, job: GpuJob) -> None: ...

    def forget(self, job: GpuJob) -> None:
        """Nobody asks about it any more."""
        ...

    def gone(self, job: GpuJob) -> bool:
        """Whether a cancelled job has ended, as far as is known."""
        ...

    async def bring(self, job: GpuJob) -> list[str]:
        """Results of a job that has ended; what could not be brought, and why."""
        ...

    async def clean(self, job: GpuJob) -> None:
        """Remove what the job has left there."""
        ...
