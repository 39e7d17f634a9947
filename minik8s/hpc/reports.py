"""Reading what Slurm reports, and what follows for one job: lines in, an `Observation` out. Pure.

Three sources, each of which may be silent: the queue forgets after a while, accounting is late or absent, and the
exit code that a job leaves in its folder is missing when it was killed. Of a task the newest submission counts:
requeued jobs keep their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from minik8s.api.kinds.gpujob import CANCELLED, FAILED, QUEUED, RUNNING, SUCCEEDED, Tasks
from minik8s.hpc.states import NEVER, OOM_SIGNAL, Meaning, meaning

WHOLE = -1  # the one task of a job that is no array


class TaskReport(NamedTuple):
    """One task as a source has it. Times are Unix seconds, 0 for none."""

    state: str
    submitted: float = 0
    started: float = 0
    ended: float = 0
    partition: str = ""
    nodes: str = ""
    reason: str = ""
    exit_code: int | None = None


Reports = dict[str, dict[int, TaskReport]]  # job id -> task -> report


class Extra(NamedTuple):
    """The answer to `remote_text.look`."""

    marks: dict[str, dict[int, int]]  # submission -> task -> exit code that the job has left
    codes: dict[str, dict[int, int]]  # job id -> task -> exit code, not 0, that Slurm knows while the queue does
    accounting: Reports
    asked: str  # "": accounting answered; else why not: absent, or its exit code


class Observation(NamedTuple):
    """One job as it is on its cluster. `found`: at least one source knows it."""

    found: bool
    phase: str = ""
    reason: str = ""
    message: str = ""
    state: str = ""
    started: float = 0
    ended: float = 0
    partition: str = ""
    nodes: str = ""
    exit_code: int | None = None
    tasks: Tasks | None = None


def parse_queue(text: str) -> Reports:
    """Lines of `remote_text.QUEUE_FORMAT`; others (notes of the site) are skipped."""
    found: Reports = {}
    for line in text.splitlines():
        fields = line.split("|", 8)
        if len(fields) != 9 or not fields[0].isdigit():
            continue
        job, task, state, _, submitted, started, partition, nodes, reason = fields
        report = TaskReport(state, _time(submitted), _time(started), 0, partition, nodes, reason)
        _newest(found.setdefault(job, {}), _task(task), report)
    return found


def parse_sacct(lines: Iterable[str]) -> Reports:
    """Lines of `remote_text.SACCT_FIELDS`. `7_3` is task 3 of job 7; `7_[4-9]` waits and is the queue's to tell."""
    found: Reports = {}
    for line in lines:
        fields = line.split("|")
        if len(fields) != 9:
            continue
        raw, shown, state, code, submitted, started, ended, partition, nodes = fields
        job, _, task = shown.partition("_")
        if not (raw.isdigit() and job.isdigit()) or (task and not task.isdigit()):
            continue
        exit_code, _, signal = code.partition(":")
        number = (
            128 + int(signal) if signal.isdigit() and int(signal) else int(exit_code) if exit_code.isdigit() else None
        )
        report = TaskReport(state, _time(submitted), _time(started), _time(ended), partition, nodes, "", number)
        _newest(found.setdefault(job, {}), _task(task), report)
    return found


def parse_look(text: str) -> Extra:
    marks: dict[str, dict[int, int]] = {}
    codes: dict[str, dict[int, int]] = {}
    accounting: list[str] = []
    part, asked = "", "no answer"
    for line in text.splitlines():
        if line in ("@rc", "@codes", "@sacct"):
            part = line
        elif line.startswith("@end"):
            asked = line.removeprefix("@end").strip()
            asked = "" if asked == "0" else asked
        elif part == "@rc":
            name, _, left = line.partition("|")
            submission, _, task = name.removesuffix(".rc").partition(".")
            if left.isdigit():
                marks.setdefault(submission, {})[_task(task)] = int(left)
        elif part == "@codes":
            shown, _, status = line.partition(" ")
            job, _, task = shown.partition("_")
            if status.strip().isdigit() and int(status):
                code = 128 + (int(status) & 127) if int(status) & 127 else int(status) >> 8
                codes.setdefault(job, {})[_task(task)] = code
        elif part == "@sacct":
            accounting.append(line)
    return Extra(marks, codes, parse_sacct(accounting), asked)


def _newest(tasks: dict[int, TaskReport], task: int, report: TaskReport) -> None:
    held = tasks.get(task)
    if held is None or report.submitted >= held.submitted:
        tasks[task] = report


def _task(text: str) -> int:
    """A number within an array, or whatever a source writes for a job that is none."""
    return int(text) if text.isdigit() else WHOLE


def _time(text: str) -> float:
    return float(text) if text.isdigit() else 0.0


def observe(
    expected: Iterable[int],
    queue: Mapping[int, TaskReport],
    accounting: Mapping[int, TaskReport],
    codes: Mapping[int, int],
) -> Observation:
    """One job from its three sources. `expected`: its tasks (of an array), or [WHOLE]."""
    wanted = list(expected)
    known: dict[int, tuple[Meaning, TaskReport]] = {}
    for task in wanted:
        report = _best(queue.get(task), accounting.get(task), codes.get(task))
        if report is not None:
            known[task] = (_meaning(report), report)
    if not known:
        return Observation(found=False)
    reports = [report for _, report in known.values()]
    shown = _telling(known, len(wanted))
    word, told = known[shown]
    whole = len(known) == len(wanted)
    phase = word.phase if whole or not word.final else RUNNING
    final = whole and word.final
    return Observation(
        found=True,
        phase=phase,
        reason=_reason(word, told),
        message=_message(word, told),
        state=told.state.split()[0] if told.state else "",
        started=min((r.started for r in reports if r.started and _began(r)), default=0),
        ended=max((r.ended for r in reports), default=0) if final else 0,
        partition=told.partition,
        nodes=",".join(sorted({r.nodes for r in reports if r.nodes})[:16]),
        exit_code=(0 if word.phase == SUCCEEDED else told.exit_code) if final else None,
        tasks=None if wanted == [WHOLE] else _count(known, len(wanted)),
    )


def _began(report: TaskReport) -> bool:
    """A job that waits may have an estimated start."""
    return meaning(report.state).phase != QUEUED


def _best(queue: TaskReport | None, accounting: TaskReport | None, code: int | None) -> TaskReport | None:
    """The queue is ahead of accounting while a job lives; a mark alone says no more than its code."""
    chosen = queue
    if accounting is not None and (queue is None or (meaning(accounting.state).final and meaning(queue.state).final)):
        chosen = accounting._replace(reason=queue.reason if queue else "")
    if chosen is None:
        return None if code is None else TaskReport("COMPLETED" if code == 0 else "FAILED", exit_code=code)
    if code is None or (code == 0 and meaning(chosen.state).phase != SUCCEEDED):
        return chosen  # a shell that is killed may leave a zero
    return chosen._replace(exit_code=code)


def _meaning(report: TaskReport) -> Meaning:
    word = meaning(report.state)
    if word.reason == "NonZeroExit" and report.reason == "OutOfMemory":
        return Meaning(FAILED, "OOMKilled")
    return word


def _telling(known: Mapping[int, tuple[Meaning, TaskReport]], total: int) -> int:
    """The task that speaks for the job: one that runs, else one that waits, else the worst end."""
    order = {RUNNING: 0, QUEUED: 1, FAILED: 2, CANCELLED: 3, SUCCEEDED: 4}
    return min(known, key=lambda task: (order[known[task][0].phase], task))


def _count(known: Mapping[int, tuple[Meaning, TaskReport]], total: int) -> Tasks:
    phases = [word.phase for word, _ in known.values()]
    failed = phases.count(FAILED) + phases.count(CANCELLED)
    return Tasks(total, phases.count(QUEUED), phases.count(RUNNING), phases.count(SUCCEEDED), failed)


def _reason(word: Meaning, report: TaskReport) -> str:
    if word.phase == QUEUED and report.reason not in ("", "None"):
        return report.reason.split(",")[0].strip("()")[:64]
    return word.reason


def _message(word: Meaning, report: TaskReport) -> str:
    if not word.known:
        return f"Slurm calls the job's state {report.state}, which minik8s does not know: it is taken to run"
    if word.phase == QUEUED:
        return f"waits on the cluster: {report.reason}" if report.reason not in ("", "None") else ""
    texts = {
        "TimeLimit": "the job ran longer than its time limit",
        "DeadlineExceeded": "the job could not end before its deadline",
        "OOMKilled": "the job used more memory than it had asked for",
        "NodeFail": "a node of the job failed",
        "Preempted": "the job had to make room for another",
        "CancelledBySlurm": "the job was cancelled on the cluster: " + (report.state.lower() or "cancelled"),
    }
    if word.reason == "NonZeroExit" and report.exit_code:
        code = report.exit_code
        signal = f" (signal {code - 128})" if 128 < code <= 128 + 64 else ""
        hint = "; 137 is often the end of a job without memory" if code == OOM_SIGNAL else ""
        return f"a command ended with exit code {code}{signal}{hint}"
    return texts.get(word.reason, "")


def hopeless(observation: Observation) -> bool:
    """Whether the job waits for what will not come."""
    return observation.phase == QUEUED and observation.reason in NEVER
