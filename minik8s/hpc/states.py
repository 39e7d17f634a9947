"""What Slurm says of a job, in its own words, as the phase and reason that a GpuJob has. Pure.

Source of the words: squeue(1) and sacct(1), "JOB STATE CODES" of Slurm 22.05 to 24.11. Success comes from the state
alone (a job that ran out of time may have exit code 0), and a word that nobody knows is no reason to give a job up.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from minik8s.api.kinds.gpujob import CANCELLED, FAILED, QUEUED, RUNNING, SUCCEEDED

OOM_SIGNAL = 128 + 9


class Meaning(NamedTuple):
    phase: str  # Queued, Running, or how it ends
    reason: str = ""
    known: bool = True

    @property
    def final(self) -> bool:
        return self.phase in (SUCCEEDED, FAILED, CANCELLED)


_QUEUED = ["PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"]
_RUNNING = ["RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING", "SUSPENDED", "STOPPED"]
MEANINGS: Final[dict[str, Meaning]] = {
    **{word: Meaning(QUEUED) for word in _QUEUED},
    **{word: Meaning(RUNNING) for word in _RUNNING},
    "COMPLETED": Meaning(SUCCEEDED),
    "FAILED": Meaning(FAILED, "NonZeroExit"),
    "TIMEOUT": Meaning(FAILED, "TimeLimit"),
    "DEADLINE": Meaning(FAILED, "DeadlineExceeded"),
    "OUT_OF_MEMORY": Meaning(FAILED, "OOMKilled"),
    "CANCELLED": Meaning(CANCELLED, "CancelledBySlurm"),
    "NODE_FAIL": Meaning(FAILED, "NodeFail"),
    "BOOT_FAIL": Meaning(FAILED, "BootFail"),
    "PREEMPTED": Meaning(FAILED, "Preempted"),
    "REVOKED": Meaning(FAILED, "Revoked"),
    "LAUNCH_FAILED": Meaning(FAILED, "LaunchFailed"),
    "RECONFIG_FAIL": Meaning(FAILED, "ReconfigFail"),
}
NEVER: Final = ("DependencyNeverSatisfied",)  # reasons for which a job waits that no waiting will end


def meaning(state: str) -> Meaning:
    """`COMPLETED` -> Succeeded; `CANCELLED by 0` and `CANCELLED+` -> Cancelled; an unknown word stays Running."""
    word = state.split()[0].rstrip("+") if state.split() else ""
    return MEANINGS.get(word) or Meaning(RUNNING, "UnknownState", known=False)
