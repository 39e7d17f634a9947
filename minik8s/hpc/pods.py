"""A GpuJob as pods: what is refused, the pod of each task, and its state in Slurm's words. Pure.

A pod has two containers over one folder. `job` waits until its files are there, runs its commands, and ends; `files`
has the sources put in and the results taken out through it, and ends when it is told to, with which the pod is at its
end and gives its device back. So results outlive a job that is killed for its memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from shlex import quote

from minik8s.api.kinds.gpujob import GpuJob, GpuJobSpec, task_ids
from minik8s.api.kinds.hpccluster import LocalCluster
from minik8s.api.kinds.pod import ContainerState, Pod
from minik8s.api.meta import Json
from minik8s.clock import parse_time
from minik8s.hpc.batch_script import slurm_time
from minik8s.hpc.place import Refused
from minik8s.hpc.progress import expected_tasks
from minik8s.hpc.remote_text import CONTROL
from minik8s.hpc.reports import WHOLE, TaskReport
from minik8s.hpc.results import RemoteFile, parse_listing

FOLDER = "/job"
JOB, FILES = "job", "files"  # containers
UID_LABEL, ATTEMPT_LABEL, TASK_LABEL = "hpc.minik8s.io/job-uid", "hpc.minik8s.io/attempt", "hpc.minik8s.io/task"
_ONLY = "only"  # the value of TASK_LABEL for a job that is no array
MAX_TASKS = 200  # pods of one array
GRES = re.compile(r"gpu(:[A-Za-z][-A-Za-z0-9_]*)?(:(\d+))?")
KILL_WAIT = 10  # seconds between SIGTERM and SIGKILL, at a time limit and when cancelled
CANCELLED, TIME_LIMIT = "Cancelled", "TimeLimit"  # what the job's container says at its end

# Process 1 of the container `job`. A signal to it, or the time limit, ends all that the job has started: a shell that
# waits for a child would not hear of it. It says why to the kubelet.
RUN = f"""cd {FOLDER} || exit 1
ended() {{ echo "$1" > /dev/termination-log; kill -TERM -1 2>/dev/null; ( sleep {KILL_WAIT}; kill -KILL -1 ) & }}
trap 'ended {CANCELLED}' TERM INT
trap 'ended {TIME_LIMIT}' ALRM
while [ ! -e {CONTROL}/go ]; do sleep 0.1 2>/dev/null || sleep 1; done
mkdir -p "work/$1" && cd "work/$1" || exit 1
shell='sh'; ! command -v bash >/dev/null || shell='bash -l'
$shell {FOLDER}/{CONTROL}/script > "$2" 2> "$3" &
job=$!
[ "$4" = 0 ] || ( sleep "$4"; kill -ALRM 1 ) &
wait $job; rc=$?
while kill -0 $job 2>/dev/null; do wait $job; rc=$?; done
exit $rc"""
HOLD = f"trap 'exit 0' TERM; while [ ! -e {FOLDER}/{CONTROL}/done ]; do sleep 0.3 2>/dev/null || sleep 1; done"

# What is run in the container `files`.
UNPACK = f"""set -e; cd {FOLDER}; [ ! -e {CONTROL}/go ] || exit 0
mkdir -p {CONTROL} new.$$; tar -x -f - -C new.$$; [ -d work ] || mv new.$$ work"""
BEGIN = f"set -e; cd {FOLDER}; [ ! -e {CONTROL}/go ] || exit 0; cat > {CONTROL}/script; : > {CONTROL}/go"
LIST = f"cd {FOLDER}/work && find . -type f -exec stat -c '%s %Y %n' {{}} +"
DONE = f": > {FOLDER}/{CONTROL}/done"


WAITING = TaskReport("PENDING")  # a task of an array whose turn has not come


def tail(path: str, start: int, limit: int) -> str:
    """New bytes of a file that is being written."""
    name = quote(f"{FOLDER}/work/{path}")
    return f"[ ! -f {name} ] || tail -c +{start + 1} {name} | head -c {limit}"


def send_back(paths: Iterable[str]) -> str:
    """A tar of these files on standard output."""
    return f"cd {FOLDER}/work && tar -c -f - {' '.join(quote('./' + path) for path in paths)}"


def check(spec: GpuJobSpec) -> None:
    """Raise Refused for what cannot be done by pods. What only chooses among machines (partition, constraint, qos,
    account) means nothing here and is passed over, so that one manifest serves both."""
    r = spec.resources
    if spec.script:
        raise Refused("spec.script: a Slurm script of one's own needs Slurm; write its commands into build and run")
    for name, value in (("nodes", r.nodes), ("ntasks", r.ntasks), ("ntasksPerNode", r.ntasksPerNode)):
        if value > 1:
            raise Refused(f"spec.resources.{name}: a cluster of type Local runs one process on one node, not {value}")
    if r.gres and not GRES.fullmatch(r.gres):
        raise Refused(f"spec.resources.gres: {r.gres!r} is more than gpu[:TYPE][:N]; set gpus")
    if spec.array and len(task_ids(spec.array)) > MAX_TASKS:
        raise Refused(f"spec.array: a cluster of type Local runs at most {MAX_TASKS} tasks")
    for name in (spec.output.stdout, spec.output.stderr):
        if re.search(r"%[^aAjx%]", name):
            raise Refused(f"spec.output: of the patterns in {name!r} a cluster of type Local knows %a %A %j %x")


def base_name(job: GpuJob) -> str:
    """Of the pods of one attempt; the same again after a restart, so that none is made twice."""
    return f"{job.metadata.name[:40].rstrip('-.')}-{job.status.submissionId}"


def pod_name(job: GpuJob, task: int) -> str:
    return base_name(job) if task == WHOLE else f"{base_name(job)}-{task}"


def at_once(spec: GpuJobSpec) -> int:
    """Tasks that may run at the same time: `0-99%4` -> 4."""
    limit = spec.array.partition("%")[2]
    return int(limit) if limit else MAX_TASKS


def missing(job: GpuJob, pods: Mapping[int, Pod]) -> list[int]:
    """Tasks whose pods are to be made now."""
    alive = sum(pod.status.phase not in ("Succeeded", "Failed") for pod in pods.values())
    todo = [task for task in expected_tasks(job.spec) if task not in pods]
    return todo[: max(0, at_once(job.spec) - alive)]


def file_name(pattern: str, job: GpuJob, task: int) -> str:
    """sbatch's patterns of file names, those that mean something here."""
    words = {"%a": str(task), "%A": base_name(job), "%j": pod_name(job, task), "%x": job.metadata.name, "%%": "%"}
    return re.sub(r"%[aAjx%]", lambda found: words[found[0]], pattern)


def seconds(text: str) -> int:
    """A time limit; Slurm's minutes, H:M:S and D-H too. 0: none."""
    if not text:
        return 0
    days, dash, rest = slurm_time(text).rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    if dash:
        hours, minutes, last = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, last = numbers
    else:
        hours, minutes, last = 0, numbers[0], (numbers[1] if len(numbers) == 2 else 0)
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + last


def gpus(spec: GpuJobSpec) -> int:
    found = GRES.fullmatch(spec.resources.gres) if spec.resources.gres else None
    return int(found[3] or 1) if found else spec.resources.gpus


def pod(job: GpuJob, task: int, cluster: LocalCluster) -> Json:
    meta, spec = job.metadata, job.spec
    output = (file_name(name, job, task) for name in (spec.output.stdout, spec.output.stderr))
    arguments = [spec.workDir or ".", *output, str(seconds(spec.resources.time))]
    mounts = [{"name": "job", "mountPath": FOLDER}]
    common = {"image": cluster.image, "volumeMounts": mounts}
    runs = {**common, "name": JOB, "command": ["sh", "-c", RUN, "job", *arguments], "env": environment(job, task),
            "resources": resources(spec, cluster.resourceName)}  # fmt: skip
    holds = {**common, "name": FILES, "command": ["sh", "-c", HOLD]}
    labels = {
        UID_LABEL: meta.uid,
        ATTEMPT_LABEL: str(job.status.attempt),
        TASK_LABEL: _ONLY if task == WHOLE else str(task),
    }
    owner = {"apiVersion": "hpc.minik8s.io/v1", "kind": "GpuJob", "name": meta.name, "uid": meta.uid,
             "controller": True, "blockOwnerDeletion": True}  # fmt: skip
    return {
        "metadata": {"name": pod_name(job, task), "namespace": meta.namespace, "labels": labels,
                     "ownerReferences": [owner]},
        "spec": {
            "restartPolicy": "Never", "containers": [runs, holds], "volumes": [{"name": "job", "emptyDir": {}}],
            "automountServiceAccountToken": False, "enableServiceLinks": False,
            "terminationGracePeriodSeconds": KILL_WAIT + 5,
            **({"nodeSelector": dict(cluster.nodeSelector)} if cluster.nodeSelector else {}),
        },
    }  # fmt: skip


def environment(job: GpuJob, task: int) -> list[Json]:
    """What scripts written for Slurm look at."""
    found = {"SLURM_JOB_ID": str(int(job.metadata.uid[:8], 16)), "SLURM_JOB_NAME": job.metadata.name,
             "SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": str(job.spec.resources.cpusPerTask or 1)}  # fmt: skip
    if task != WHOLE:
        found |= {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_JOB_ID": found["SLURM_JOB_ID"]}
    return [{"name": name, "value": value} for name, value in found.items()]


def resources(spec: GpuJobSpec, device: str) -> Json:
    """Requests that are limits: a job gets what it has asked for, as it would in Slurm."""
    r = spec.resources
    found = {"cpu": str(r.cpusPerTask) if r.cpusPerTask else "", "memory": r.memory,
             device: str(gpus(spec)) if gpus(spec) else ""}  # fmt: skip
    given = {name: value for name, value in found.items() if value}
    return {"limits": given, "requests": given} if given else {}


MODULES = 'command -v module >/dev/null 2>&1 || module() { echo "no modules here: left out: module $*" >&2; }\n'


def script(text: str) -> str:
    """A job's script as it is run here, where modules are part of the image or not there."""
    head, _, rest = text.partition("\n")
    return f"{head}\n{MODULES}{rest}"


# -- what has become of it


def by_task(pods: Iterable[Pod], attempt: int) -> dict[int, Pod]:
    found = {}
    for each in pods:
        labels, task = each.metadata.labels, each.metadata.labels.get(TASK_LABEL, "")
        if labels.get(ATTEMPT_LABEL) == str(attempt) and (task == _ONLY or task.isdigit()):
            found[WHOLE if task == _ONLY else int(task)] = each
    return found


def state(pod: Pod, container: str) -> ContainerState:
    for each in pod.status.containerStatuses:
        if each.name == container:
            return each.state
    return ContainerState()


def report(pod: Pod | None, *, begun: bool = False, emptied: bool = False, cancelled: bool = False) -> TaskReport:
    """A pod as a task, in Slurm's words. `begun`: its sources are there. `emptied`: its results are here. None: the
    pod was there, and is no more."""
    if pod is None or (pod.deleting and not emptied):
        return TaskReport("CANCELLED" if cancelled else "NODE_FAIL", nodes=pod.spec.nodeName if pod else "")
    made = parse_time(pod.metadata.creationTimestamp)
    job = state(pod, JOB)
    node = pod.spec.nodeName
    if job.terminated is not None:
        end = job.terminated
        whole = emptied or pod.status.phase in ("Succeeded", "Failed")
        word = _end(end.exitCode, end.reason, end.message.strip()) if whole else "COMPLETING"
        return TaskReport(
            word, made, parse_time(end.startedAt), parse_time(end.finishedAt), nodes=node, exit_code=end.exitCode
        )
    if pod.status.phase == "Failed":
        word = "PREEMPTED" if pod.status.reason in ("Evicted", "Preempting") else "LAUNCH_FAILED"
        return TaskReport(word, made, nodes=node, reason=pod.status.reason)
    if job.running is not None and begun:
        return TaskReport("RUNNING", made, parse_time(job.running.startedAt), nodes=node)
    return TaskReport("PENDING", made, nodes=node, reason=_waits(pod)[0])


def _end(code: int, reason: str, message: str) -> str:
    if reason == "OOMKilled":
        return "OUT_OF_MEMORY"
    if message.startswith(TIME_LIMIT):  # the first that was said
        return "TIMEOUT"
    if message.startswith(CANCELLED):
        return "CANCELLED"
    return "COMPLETED" if code == 0 else "FAILED"


def _waits(pod: Pod) -> tuple[str, str]:
    """Why it does not run, as a word and a sentence: the scheduler's, or the kubelet's."""
    for condition in pod.status.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.reason, condition.message
    for waiting in (state(pod, JOB).waiting, state(pod, FILES).waiting):
        if waiting is not None and waiting.reason:
            return waiting.reason, waiting.message
    return "", ""


def waits_for(pods: Iterable[Pod]) -> str:
    """The sentence of the first that waits for something."""
    return next((text for _, text in map(_waits, pods) if text), "")


def parse_list(text: str) -> list[RemoteFile]:
    """What LIST prints: size, time, path."""
    return parse_listing(text.replace(" ./", " ").replace("\n", "\0"))
