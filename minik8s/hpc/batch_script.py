"""A job as text for sbatch: its options, and the script that builds and runs it. Pure; golden tests hold the text.

Options have been validated (`api/kinds/gpujob.py`): they contain nothing that a shell or sbatch's reader of `#SBATCH`
lines understands. All else is quoted. Commands run in one shell, so that `cd`, `export` and `module load` last; the
first that fails ends the job, with its exit code.
"""

from __future__ import annotations

import re
from shlex import quote

from minik8s.api.kinds.gpujob import GpuJobSpec
from minik8s.api.quantity import parse_quantity

MIB = 2**20
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def options(spec: GpuJobSpec) -> list[str]:
    """`--partition=gpu`, …: what sbatch is asked for, but for the job's name and folder."""
    r, output = spec.resources, spec.output
    numbers = (
        ("nodes", r.nodes), ("ntasks", r.ntasks), ("ntasks-per-node", r.ntasksPerNode),
        ("cpus-per-task", r.cpusPerTask),
    )  # fmt: skip
    words = (("partition", r.partition), ("gres", r.gres or (f"gpu:{r.gpus}" if r.gpus else "")))
    more = (("constraint", r.constraint), ("qos", r.qos), ("account", r.account), ("array", spec.array))
    found = [f"--{name}={value}" for name, value in (*words[:1], *numbers, *words[1:]) if value]
    if r.memory:
        found.append(f"--mem={max(1, -(-int(parse_quantity(r.memory)) // MIB))}M")
    if r.time:
        found.append(f"--time={slurm_time(r.time)}")
    found += [f"--{name}={value}" for name, value in more if value]
    return [*found, f"--output={output.stdout}", f"--error={output.stderr}"]


def slurm_time(text: str) -> str:
    """`90m` -> `0-01:30:00`; what is Slurm's own (`01:30:00`, `2-12`, minutes) stays."""
    parts = re.findall(r"(\d+)([dhms])", text)
    if not parts:
        return text
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    days, rest = divmod(seconds, 86400)
    return f"{days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def batch_script(spec: GpuJobSpec, control: str, submission: str) -> str:
    """The script of a job whose commands are given. `control`: absolute folder of our own marks on the cluster.

    It marks its beginning with the job's number, and its end with the exit code: what is known when Slurm has forgotten
    the job, or has no accounting.
    """
    mark = f"{control}/{submission}"
    lines = [
        "#!/bin/bash -l",
        f"mark={quote(mark)}${{SLURM_ARRAY_TASK_ID:+.$SLURM_ARRAY_TASK_ID}}",
        'rm -f "$mark.rc"',
        f'echo "${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}" > {quote(mark + ".started")}',
        'for s in HUP:129 INT:130 QUIT:131 ABRT:134 SEGV:139 TERM:143; do trap "exit ${s#*:}" "${s%:*}"; done',
        """trap 'rc=$?; echo "$rc" > "$mark.rc.tmp" && mv "$mark.rc.tmp" "$mark.rc"' EXIT""",
        "set -e",
        *(f"export {each.name}={quote(each.value)}" for each in spec.env),
        *(f"module load {quote(module)}" for module in spec.modules),
        *spec.build,
        *spec.run,
    ]
    return "\n".join(lines) + "\n"
