"""What is said to the shell of a cluster's login node: framed commands, and each unit of work as one script. Pure.

A unit does all of one step at once, so that a step costs one round trip and a cut connection leaves it done or not
done. Everything that comes from a job is quoted. Exit codes of our own tell apart what a person must mend and what
time mends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from shlex import quote as quote
from typing import NamedTuple

from minik8s.api.kinds.hpccluster import EnvVar

CONTROL = ".mk8s"  # folder of our own marks in that of a job
JOB_PREFIX = "mk8s-"
REFUSED, UNKNOWN = 92, 93  # sbatch has said no; nobody knows whether it has said yes
NO_SLURM = 94

# What sbatch says when it could not ask, or may say yes a little later: anything else is a refusal.
TRANSIENT = re.compile(
    r"contact|timed? ?out|refused|reset by peer|Zero Bytes|temporar|communication|not responding|unavailable|"
    r"MaxJobCount|submission limit|MaxSubmit|Authentication|authentication|credential|munge|No space left|Quota",
    re.IGNORECASE,
)


def frame(nonce: str, script: str) -> bytes:
    """A script for the shell behind the channel: in a shell of its own, its output between two lines nobody can
    guess."""
    run = f"( eval {quote(script)} ) </dev/null 2>&1"
    return f"printf '\\n%s\\n' {nonce}-B; {run}; printf '\\n%s %d\\n' {nonce}-E $?\n".encode()


def prelude(env: Iterable[EnvVar]) -> str:
    """What the shell is told first. Times as Unix seconds; a locale in which messages are those that we know."""
    words = [f"export {each.name}={quote(each.value)}" for each in env]
    return "\n".join(
        [
            'export LC_ALL=C SLURM_TIME_FORMAT=%s PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/opt/slurm/bin"',
            "unset SQUEUE_FORMAT SACCT_FORMAT SQUEUE_STATES SBATCH_PARTITION",
            *words,
            "command -v sbatch >/dev/null && command -v squeue >/dev/null || "
            f"{{ echo 'there is no sbatch or squeue on the PATH of the login node'; exit {NO_SLURM}; }}",
            "sbatch --version; pwd",
        ]
    )


def exported(env: Iterable[EnvVar]) -> str:
    """The same for the channel's shell itself, which lasts."""
    words = (f"export {each.name}={quote(each.value)}; " for each in env)
    return (
        'export LC_ALL=C SLURM_TIME_FORMAT=%s PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/opt/slurm/bin"; '
        "unset SQUEUE_FORMAT SACCT_FORMAT SQUEUE_STATES; " + "".join(words) + "\n"
    )


def unpack(folder: str, packed: str, sha256: str) -> str:
    """Check what was uploaded and put it into place, once: `work` appears whole or not at all."""
    return f"""cd {quote(folder)} || exit 1
[ -d work ] && exit 0
echo "{sha256}  {packed}" | sha256sum -c --status || {{ rm -f {quote(packed)}; echo checksum; exit 3; }}
rm -rf work.new && mkdir work.new && tar -x -f {quote(packed)} -C work.new && mv -T work.new work || exit 5
rm -f {quote(packed)}"""


def put(folder: str, tar: str) -> str:
    """The same for sources that fit into the script itself, `tar` in base64, or "" for a job that has none.

    Each process costs a login node milliseconds, and there may be a thousand jobs: no more than four, or one.
    """
    control, work = quote(f"{folder}/{CONTROL}"), quote(f"{folder}/work")
    if not tar:
        return f"[ -d {work} ] || mkdir -p {control} {work}"
    return f"""[ -d {work} ] && exit 0
new={work}.$$; set -o pipefail
mkdir -p {control} "$new" && base64 -d <<'END' | tar -x -C "$new" || exit 5
{tar}
END
mv -T "$new" {work} || [ -d {work} ]"""


class Submitted(NamedTuple):
    """`job_id`, or why there is none: `refused` for good, or not yet."""

    job_id: str = ""
    refused: bool = False
    message: str = ""


def submitted(code: int, text: str) -> Submitted:
    """What a `submit` unit has answered. Where it is not sure, it is to be run again: it adopts what it finds."""
    said = "\n".join(line for line in text.strip().splitlines() if line)[-500:]
    last = said.rpartition("\n")[2]
    if code == 0 and last.isdigit():
        return Submitted(last)
    if code == REFUSED and not TRANSIENT.search(said):
        return Submitted("", True, said)
    return Submitted("", False, said or f"submitting ended with {code}")


def submit(folder: str, submission: str, arguments: Sequence[str], work_dir: str, script: str, text: str = "") -> str:
    """The one step that must not be done twice. Prints the job's number.

    Under a lock: a number that was noted is it. If a submission was ever tried here, a job of that name is adopted
    (from the queue, from the mark that it leaves when it begins, from accounting); only when none of these knows it,
    and the queue could be asked, sbatch is called. `script` is the file for sbatch, seen from the folder in which it is
    called; `text` its content, unless it is one of the sources.
    """
    mark = f"{CONTROL}/{submission}"
    job = f"{JOB_PREFIX}{submission}"
    work = quote("work/" + work_dir if work_dir else "work")
    write = f"printf %s {quote(text)} > {mark}.sh || exit {UNKNOWN}\n" if text else ""
    call = " ".join(["sbatch", "--parsable", f"--job-name={job}", *map(quote, arguments), quote(script)])
    return f"""cd {quote(folder)} || exit 1
exec 9>{CONTROL}/lock; flock -w 20 9 || {{ echo 'the lock of the job is held'; exit {UNKNOWN}; }}
id=
if [ -s {mark}.jobid ] && read -r id < {mark}.jobid; then echo "$id"; exit 0; fi
if [ -e {mark}.tried ]; then
  queue=$(squeue -h -a -t all -o '%F %j' -u "$(id -un)") || {{ echo "$queue"; exit {UNKNOWN}; }}
  id=$(printf '%s\\n' "$queue" | awk '$2 == "{job}" {{ print $1; exit }}')
  [ -n "$id" ] || {{ [ ! -s {mark}.started ] || read -r id < {mark}.started; }}
  [ -n "$id" ] || id=$(sacct -n -X -P -S now-7days --name={job} -o JobIDRaw 2>/dev/null | head -n 1)
fi
if [ -z "$id" ]; then
  {write}  : > {mark}.tried || {{ echo 'cannot write to the folder of the job'; exit {UNKNOWN}; }}
  [ -d {work} ] || mkdir -p {work} || exit {UNKNOWN}
  said=$(cd {work} && exec {call} 9>&- 2>&1)
  rc=$?
  while read -r line; do case ${{line%%;*}} in ''|*[!0-9]*) ;; *) id=${{line%%;*}};; esac; done <<< "$said"
  [ $rc = 0 ] && [ -n "$id" ] || {{ printf '%s\\n' "$said"; exit {REFUSED}; }}
fi
echo "$id" > {mark}.jobid
echo "$id\""""


QUEUE_FORMAT = "%F|%K|%T|%j|%V|%S|%P|%N|%r"


def queue() -> str:
    """All of the user's jobs, finished ones too as long as Slurm remembers them; one line for each task."""
    return f"squeue -h -a -r -t all -o '{QUEUE_FORMAT}' -u \"$(id -un)\""


SACCT_FIELDS = "JobIDRaw,JobID,State,ExitCode,Submit,Start,End,Partition,NodeList"
CODES_FORMAT = "JobArrayID:40,exit_code:20"  # the latter as wait() has it; not to be had by -o
ASK_TOO = ("@rc", "@codes", "@sacct", "@end")


def look(jobs: Sequence[tuple[str, str, str]]) -> str:
    """What the queue's lines do not say: exit codes from the marks of the jobs, and from Slurm itself where a job was
    killed before it could leave one, and accounting. `(folder, submission, id)`."""
    marks = " ".join(quote(f"{folder}/{CONTROL}/{submission}") for folder, submission, _ in jobs)
    ids = ",".join(id for _, _, id in jobs)
    return f"""echo {ASK_TOO[0]}
for mark in {marks}; do for file in "$mark".rc "$mark".[0-9]*.rc; do
  [ -s "$file" ] && read -r rc < "$file" && printf '%s|%s\\n' "${{file##*/}}" "$rc"
done; done
echo {ASK_TOO[1]}; squeue -h -a -r -t all -j {ids} -O '{CODES_FORMAT}' 2>/dev/null
echo {ASK_TOO[2]}
if command -v sacct >/dev/null; then timeout 10 sacct -n -X -P -j {ids} -o {SACCT_FIELDS} 2>/dev/null; rc=$?
else rc=absent; fi
echo "{ASK_TOO[3]} $rc\""""


def cancel(folder: str, submission: str, job_id: str) -> str:
    """End a job, by number if it is known, and by name in any case; after a submission that may be under way."""
    by_id = f"scancel {quote(job_id)}; " if job_id else ""
    lock = f"{quote(folder)}/{CONTROL}/lock"
    return f"""[ ! -e {lock} ] || {{ exec 9>{lock}; flock -w 20 9 || exit {UNKNOWN}; }}
{by_id}scancel -u "$(id -un)" --name={JOB_PREFIX}{submission}"""


def listing(folder: str, limit: int) -> str:
    """Files of the job: size, time, path, each ended by NUL."""
    return f"cd {quote(folder + '/work')} && find . -type f -printf '%s %T@ %P\\0' | head -z -n {limit}"


def tail(wanted: Sequence[tuple[str, int, int]]) -> str:
    """New bytes of files that are being written, `(path, from byte, at most)`: for each its size, and them in
    base64."""
    lines = [
        f'p={quote(path)}; if [ -f "$p" ]; then echo "@ $(stat -c %s "$p")"; '
        f'tail -c +{start + 1} "$p" | head -c {limit} | base64 -w 0; echo; else echo "@ -1"; echo; fi'
        for path, start, limit in wanted
    ]
    return "\n".join(lines)


def clean(folder: str) -> str:
    return f"rm -rf {quote(folder)}"
