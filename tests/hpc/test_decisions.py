"""The pure parts: Slurm's words, scripts, reports, archives and names."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import msgspec
import pytest

from minik8s.api.dialects import convert
from minik8s.api.errors import BadRequest, Conflict
from minik8s.api.kinds.gpujob import Archive, GpuJob, GpuJobSpec, GpuJobStatus, task_ids
from minik8s.api.kinds.hpccluster import RESOURCE as HPC_CLUSTER
from minik8s.api.kinds.hpccluster import LocalCluster
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import ObjectMeta
from minik8s.apiserver.uploads import Blobs
from minik8s.hpc import pods, sources
from minik8s.hpc.batch_script import batch_script, options, slurm_time
from minik8s.hpc.place import Refused
from minik8s.hpc.remote_text import REFUSED, submitted
from minik8s.hpc.reports import WHOLE, observe, parse_look, parse_queue, parse_sacct
from minik8s.hpc.results import RemoteFile, Results, choose, parse_listing
from minik8s.hpc.states import meaning

SAMPLES = Path(__file__).parents[2] / "configs/examples/gpu"


def spec(**fields: object) -> GpuJobSpec:
    return msgspec.convert(fields, GpuJobSpec)


@pytest.mark.parametrize(
    ("state", "phase", "reason"),
    [
        ("PENDING", "Queued", ""), ("REQUEUE_HOLD", "Queued", ""), ("RUNNING", "Running", ""),
        ("SUSPENDED", "Running", ""),
        ("COMPLETED", "Succeeded", ""), ("FAILED", "Failed", "NonZeroExit"), ("TIMEOUT", "Failed", "TimeLimit"),
        ("DEADLINE", "Failed", "DeadlineExceeded"), ("OUT_OF_MEMORY", "Failed", "OOMKilled"),
        ("CANCELLED by 0", "Cancelled", "CancelledBySlurm"), ("CANCELLED+", "Cancelled", "CancelledBySlurm"),
        ("NODE_FAIL", "Failed", "NodeFail"), ("PREEMPTED", "Failed", "Preempted"),
        ("NEW_WORD", "Running", "UnknownState"), ("", "Running", "UnknownState"),
    ],
)  # fmt: skip
def test_slurms_words(state: str, phase: str, reason: str) -> None:
    assert meaning(state)[:2] == (phase, reason)


def test_what_sbatch_is_asked_for() -> None:
    asked = {"partition": "gpu", "gpus": 2, "cpusPerTask": 6, "memory": "4Gi", "time": "1h30m", "ntasks": 1}
    assert options(spec(resources=asked, array="0-3%2")) == [
        "--partition=gpu", "--ntasks=1", "--cpus-per-task=6", "--gres=gpu:2", "--mem=4096M", "--time=0-01:30:00",
        "--array=0-3%2", "--output=job.out", "--error=job.err",
    ]  # fmt: skip
    assert [slurm_time(t) for t in ("90", "2-12", "45s", "2d")] == ["90", "2-12", "0-00:00:45", "2-00:00:00"]


def test_a_script_runs_its_commands_in_one_shell_and_leaves_its_exit_code(tmp_path: Path) -> None:
    env = [{"name": "WORD", "value": "'; touch hacked; '$(touch hacked)\n"}]
    text = batch_script(spec(env=env, build=["cd /"], run=['pwd; printf %s "$WORD"', "exit 5", "echo no"]),
                        str(tmp_path), "s-0").replace("bash -l", "bash")  # fmt: skip
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (5, "/\n" + env[0]["value"])
    assert (tmp_path / "s-0.rc").read_text() == "5\n"
    assert not (tmp_path / "hacked").exists()


def test_three_sources_make_one_observation() -> None:
    queue = parse_queue("note of the site\n7|N/A|RUNNING|mk8s-a-0|100|110|gpu|n1|None\n")
    assert observe([WHOLE], queue["7"], {}, {}).phase == "Running"
    late = parse_sacct(["7|7|COMPLETED|0:0|100|110|120|gpu|n1", "7.batch|7.batch|COMPLETED|0:0|1|1|1||n1"])
    assert observe([WHOLE], queue["7"], late["7"], {}).phase == "Running"  # accounting of an earlier run
    assert observe([WHOLE], {}, late["7"], {}).phase == "Succeeded"
    alone = observe([WHOLE], {}, {}, {WHOLE: 139})
    assert (alone.phase, alone.reason, alone.exit_code) == ("Failed", "NonZeroExit", 139)
    assert not observe([WHOLE], {}, {}, {}).found
    limit = parse_sacct(["8|8|TIMEOUT|0:0|100|110|120|gpu|n1"])
    assert observe([WHOLE], {}, limit["8"], {}).reason == "TimeLimit"
    part = observe(range(3), {}, {}, {0: 0, 1: 1})
    assert (part.phase, part.tasks and part.tasks.failed) == ("Running", 1)  # a task is still to come


def test_a_look_tells_whether_accounting_has_answered() -> None:
    queue = "@codes\n9       9       \n3_12  1792  \n3_1  0\nsqueue: error: Invalid job id specified\n"
    marks = "@rc\na-0.rc|3\na-0.12.rc|0\n"
    extra = parse_look(f"{marks}{queue}@sacct\n9|9|FAILED|3:0|1|2|3|gpu|n\n@end 0\n")
    assert extra.marks == {"a-0": {WHOLE: 3, 12: 0}}
    assert extra.codes == {"9": {WHOLE: 137}, "3": {12: 7}}  # killed by signal 9; ended with 7
    assert extra.accounting["9"][WHOLE].exit_code == 3
    assert (extra.asked, parse_look("@rc\n@sacct\n@end absent").asked, parse_look("").asked) == (
        "",
        "absent",
        "no answer",
    )


def test_only_a_clear_no_is_a_no() -> None:
    assert submitted(0, "42\n").job_id == "42"
    assert submitted(REFUSED, "sbatch: error: Invalid partition name specified").refused
    assert not submitted(REFUSED, "sbatch: error: Unable to contact slurm controller").refused
    assert not submitted(255, "anything").refused


def test_tasks_of_arrays() -> None:
    assert task_ids("0-3,8,10-14:2%2") == [0, 1, 2, 3, 8, 10, 12, 14]
    assert task_ids("0-99999999") == []


def _tar(*members: tarfile.TarInfo) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return made.getvalue()


def _member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    "member",
    [
        _member("../up", size=1), _member("/etc/passwd", size=1), _member("a/../../b", size=1),
        _member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), _member("pipe", type=tarfile.FIFOTYPE),
        _member("hard", type=tarfile.LNKTYPE, linkname="ok"), _member(".mk8s/x", size=1),
    ],
    ids=lambda member: member.name,
)  # fmt: skip
def test_archives_that_reach_out_are_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(_tar(_member("ok", size=1), member))
    with pytest.raises(sources.BadSource):
        sources.pack_archive(archive, tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


def test_bombs_are_refused_and_good_archives_packed(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(3):
            packed.writestr(f"zeros{number}", bytes(30 * 2**20))
    with pytest.raises(sources.BadSource, match="unpacks to more"):
        sources.pack_archive(bomb, tmp_path / "out.tar")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(sources.BadSource, match="cannot be read"):
        sources.pack_archive(tmp_path / "text", tmp_path / "out.tar")
    good = tmp_path / "good.tgz"
    good.write_bytes(_tar(_member("./run.sh", size=3, mode=0o755), _member("d/x", size=2)))
    digest = sources.pack_archive(good, tmp_path / "out.tar")
    assert hashlib.sha256((tmp_path / "out.tar").read_bytes()).hexdigest() == digest
    with tarfile.open(tmp_path / "out.tar") as read:
        assert [(m.name, m.mode, m.size) for m in read] == [("run.sh", 0o755, 3), ("d/x", 0o644, 2)]


def test_uploads_go_on_where_they_were_cut_off_and_are_checked(tmp_path: Path) -> None:
    blobs, data = Blobs(tmp_path), b"0123456789"
    archive = Archive("a", hashlib.sha256(data).hexdigest(), 10)
    assert blobs.append("ns", archive, 0, data[:4]) == 4
    with pytest.raises(Conflict, match="only 4 bytes"):
        blobs.append("ns", archive, 6, data[6:])
    assert blobs.received("ns", archive) == 4
    assert blobs.append("ns", archive, 2, data[2:]) == 10
    assert blobs.path("ns", archive).read_bytes() == data
    wrong = Archive("a", "0" * 64, 10)
    with pytest.raises(BadRequest, match="SHA-256"):
        blobs.append("ns", wrong, 0, data)
    assert blobs.received("ns", wrong) == 0
    blobs.keep_only(set())
    assert blobs.received("ns", archive) == 0


def test_results_stay_in_their_folder(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    results.place("uid", "a/b.txt").write_text("x")
    (tmp_path / "secret").write_text("s")
    assert [f.path for f in results.index("uid")] == ["a/b.txt"]
    for name in ("../../secret", "/etc/passwd", "a/../../../secret", "", "a", "a\0b"):
        assert results.file("uid", name) is None, name
    listed = parse_listing("\0".join(("3 1.5 job.out", "4 1.5 sub/x.dat", "5 1 bad\nname", "")))
    assert listed == [RemoteFile("job.out", 3, 1.5), RemoteFile("sub/x.dat", 4, 1.5)]
    assert [f.path for f in choose(spec(output={"stdout": "job.out", "artifacts": ["*.dat"]}), listed)] == ["job.out"]


def test_passwords_of_older_manifests_become_secrets_and_are_not_shown() -> None:
    old = {"apiVersion": "v1", "kind": "Job", "metadata": {"name": "m"},
           "spec": {"partition": "p", "runCommands": ["./a"], "username": "u", "password": "hunter2"}}  # fmt: skip
    made = convert(old)
    assert [each["kind"] for each in made.objects] == ["Secret", "GpuJob"]
    assert "hunter2" not in json.dumps(made.objects[1]) + "".join(made.warnings)
    assert convert({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {}}}).warnings == []


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc here")
@pytest.mark.parametrize(("name", "sizes"), [("matrix-add", ["1", "1"]), ("matrix-mul", ["33", "17", "65"])])
def test_cuda_samples_compile_and_are_right_on_the_host(tmp_path: Path, name: str, sizes: list[str]) -> None:
    program = tmp_path / name
    subprocess.run(["nvcc", "-O2", "-o", program, SAMPLES / f"{name}.cu"], check=True, timeout=100)
    done = subprocess.run([program, "--cpu", *sizes], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["correct"] is True
    if not Path("/dev/nvidiactl").exists():
        alone = subprocess.run([program], capture_output=True, text=True)
        assert (alone.returncode, "no CUDA device" in alone.stderr) == (77, True)


def job_of(**fields: object) -> GpuJob:
    meta = ObjectMeta(name="j", namespace="n", uid="0000abcd-1")
    return GpuJob(metadata=meta, spec=spec(run=["true"], **fields), status=GpuJobStatus(submissionId="0000abcd-0"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 0), ("90", 5400), ("2s", 2), ("1h30m", 5400), ("01:30:00", 5400), ("10:30", 630), ("2-12", 216000),
     ("1-2:3:4", 93784), ("2d", 172800)],
)  # fmt: skip
def test_time_limits_in_seconds(text: str, seconds: int) -> None:
    assert pods.seconds(text) == seconds


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("spec.script", {"script": "own"}), ("spec.resources.nodes", {"resources": {"nodes": 2}}),
        ("spec.resources.ntasks", {"resources": {"ntasks": 8}}), ("spec.array", {"array": "0-999"}),
        ("spec.resources.gres", {"resources": {"gres": "license:1"}}), ("spec.output", {"output": {"stdout": "%N"}}),
    ],
)  # fmt: skip
def test_what_pods_cannot_do_is_refused(field: str, fields: dict[str, object]) -> None:
    with pytest.raises(Refused, match=field):
        pods.check(spec(**fields))


def test_a_task_as_a_pod() -> None:
    asked = {"gres": "gpu:a100:2", "memory": "1Gi", "cpusPerTask": 3, "time": "1h"}
    made = pods.pod(job_of(resources=asked, array="1-9%2", output={"stdout": "%x-%A-%a.out"}), 7, LocalCluster("i"))
    runs, holds = made["spec"]["containers"]
    assert made["metadata"]["name"] == "j-0000abcd-0-7"
    assert runs["command"][4:] == [".", "j-j-0000abcd-0-7.out", "job.err", "3600"]
    assert runs["resources"]["limits"] == {"cpu": "3", "memory": "1Gi", "nvidia.com/gpu": "2"}
    assert "resources" not in holds
    assert {"name": "SLURM_ARRAY_TASK_ID", "value": "7"} in runs["env"]
    assert pods.missing(job_of(array="1-9%2"), {}) == [1, 2]


def _pod(phase: str, job: dict[str, object], **status: object) -> Pod:
    containers = [{"name": "job", "state": job}]
    return msgspec.convert({"status": {"phase": phase, "containerStatuses": containers, **status}}, Pod)


def _over(code: int, reason: str = "Error", message: str = "") -> Pod:
    return _pod("Failed", {"terminated": {"exitCode": code, "reason": reason, "message": message}})


def test_a_pod_in_slurms_words() -> None:
    words = [
        _over(0, "Completed"), _over(3), _over(143, message="TimeLimit\nCancelled"), _over(143, message="Cancelled"),
        _over(137, "OOMKilled"), _pod("Failed", {}, reason="UnexpectedAdmissionError"),
        _pod("Failed", {}, reason="Evicted"), None, _pod("Running", {"running": {}}),
    ]  # fmt: skip
    assert [pods.report(pod, begun=True).state for pod in words] == [
        "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "OUT_OF_MEMORY", "LAUNCH_FAILED", "PREEMPTED", "NODE_FAIL",
        "RUNNING",
    ]  # fmt: skip
    still = _pod("Running", {"terminated": {"exitCode": 0}})
    assert pods.report(still).state == "COMPLETING"  # its results are still there
    assert pods.report(still, emptied=True).state == "COMPLETED"
    assert pods.report(_pod("Running", {"running": {}})).state == "PENDING"  # its sources are not


def test_a_cluster_is_behind_ssh_or_this_one() -> None:
    def faults(**fields: object) -> list[str]:
        document: dict[str, object] = {"metadata": {"name": "c"}, "spec": dict(fields)}
        HPC_CLUSTER.default(document)
        return sorted(cause.field for cause in HPC_CLUSTER.validate(document, None))

    assert faults(type="Local", local={"image": "i"}) == []
    assert faults(type="Local") == ["spec.local.image"]
    assert faults(type="Local", host="h", local={"image": "i", "resourceName": "x"}) == [
        "spec.host", "spec.local.resourceName"]  # fmt: skip
    assert faults(type="Cloud", host="h", secretRef={"name": "s"}) == ["spec.type"]
    assert faults(host="h", secretRef={"name": "s"}, local={"image": "i"}) == ["spec.local"]
