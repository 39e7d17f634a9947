"""Deployments, ReplicaSets, DaemonSets and Jobs on real containers."""

from __future__ import annotations

import time

from tests.agent import until
from tests.e2e.requests import Requests
from tests.e2e.space import Space, container, deployment, pod, service, web
from tests.images import PYTHON


def test_rollout_status_history_undo_restart_pause_scale(both: Space) -> None:
    k = both.k
    both.apply(deployment("d", 2, minReadySeconds=0, revisionHistoryLimit=5))
    assert 'deployment "d" successfully rolled out' in k("rollout", "status", "deploy/d", "--timeout=30s").out
    k("annotate", "deploy", "d", "kubernetes.io/change-cause=first")
    k("set", "env", "deploy/d", "V=2")
    k("annotate", "deploy", "d", "kubernetes.io/change-cause=second", "--overwrite")
    k("rollout", "status", "deploy/d", "--timeout=30s")
    until(lambda: "second" in k("rollout", "history", "deploy/d").out)
    history = k("rollout", "history", "deploy/d").out
    assert [line.split() for line in history.splitlines()[2:4]] == [["1", "first"], ["2", "second"]]
    assert "V:\t2" in k("rollout", "history", "deploy/d", "--revision=2").out
    k("rollout", "undo", "deploy/d")
    k("rollout", "status", "deploy/d", "--timeout=30s")
    d = both.get("deploy", "d")
    assert "env" not in d["spec"]["template"]["spec"]["containers"][0]
    assert d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    k("rollout", "pause", "deploy/d")
    k("set", "env", "deploy/d", "V=3")
    assert k("rollout", "status", "deploy/d", "--watch=false").out.startswith("Waiting for deployment")
    assert both.get("deploy", "d")["status"].get("updatedReplicas", 0) == 0
    k("rollout", "resume", "deploy/d")
    k("rollout", "status", "deploy/d", "--timeout=30s")
    before = both.out("get", "pods", "-l", "app=d", "-o", "name", "--field-selector=status.phase=Running")
    k("rollout", "restart", "deploy/d")
    k("rollout", "status", "deploy/d", "--timeout=30s")
    both.until("pods -l app=d", lambda p: len(p["items"]) == 2)
    assert not set(before.split()) & set(both.out("get", "pods", "-l", "app=d", "-o", "name").split())
    k("scale", "deploy/d", "--replicas=4", "--current-replicas=2")
    both.wait("jsonpath={.status.readyReplicas}=4", "deploy/d")
    assert (
        "Expected replicas to be 9, was 4"
        in k("scale", "deploy/d", "--replicas=1", "--current-replicas=9", check=False).err
    )
    k("scale", "deploy/d", "--replicas=0")
    both.until("pods -l app=d", lambda p: not p["items"])


def test_a_rolling_update_loses_no_request(space: Space) -> None:
    server = (
        "import http.server, signal, sys, threading\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(sys.argv[1].encode())\n"
        "    def log_message(self, *a): pass\n"
        "s = http.server.ThreadingHTTPServer(('', 80), H)\n"
        "signal.signal(signal.SIGTERM, lambda *a: threading.Thread(target=s.shutdown).start())\n"
        "s.serve_forever()\n"
    )

    def version(number: int) -> dict[str, object]:
        c = container(
            "c", "python3", "-c", server, f"v{number}", image=PYTHON, lifecycle={"preStop": {"sleep": {"seconds": 1}}}
        )
        c["readinessProbe"] = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}
        d = deployment("d", 2, c, strategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
        d["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 10
        return d

    space.apply(version(1), service("d"))
    space.k("rollout", "status", "deploy/d", "--timeout=30s")
    with Requests(space.path("svc/d", ".spec.clusterIP")) as loop:
        until(lambda: loop.last("v1"))
        space.apply(version(2))
        space.k("rollout", "status", "deploy/d", "--timeout=60s", seconds=70)
        until(lambda: space.get("pods", "-l", "app=d") and len(space.get("pods", "-l", "app=d")) == 2)
        done = time.time()
        until(lambda: loop.last("v2") > done + 0.5)
    assert not loop.failures, loop.failures[:5]
    assert loop.last("v1") < done


def test_a_broken_update_stops_and_is_rolled_back(space: Space) -> None:
    space.apply(web("w", 2, progressDeadlineSeconds=3))
    space.k("rollout", "status", "deploy/w", "--timeout=30s")
    space.k("set", "image", "deploy/w", "web=minik8s.test/absent:1")
    failed = space.k("rollout", "status", "deploy/w", "--timeout=30s", check=False)
    assert "exceeded its progress deadline" in failed.both
    bad = next(p for p in space.get("pods", "-l", "app=w") if "absent" in p["spec"]["containers"][0]["image"])
    reason = bad["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
    assert reason in ("ErrImagePull", "ImagePullBackOff")
    assert space.get("deploy", "w")["status"]["availableReplicas"] == 2
    space.k("rollout", "undo", "deploy/w")
    space.k("rollout", "status", "deploy/w", "--timeout=30s")


def test_replica_set_replaces_adopts_and_releases(space: Space) -> None:
    space.pod("orphan", labels={"app": "r"})
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "r"}}}
    spec["template"] = {"metadata": {"labels": {"app": "r"}}, "spec": pod("x")["spec"]}
    space.apply({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec})
    space.wait("jsonpath={.status.readyReplicas}=2", "rs/r")
    assert space.path("pod/orphan", ".metadata.ownerReferences[0].name") == "r"
    space.k("label", "pod", "orphan", "app=free", "--overwrite")
    space.until("rs r", lambda r: r["status"].get("readyReplicas") == 2 and len(space.get("pods", "-l", "app=r")) == 2)
    assert space.path("pod/orphan", ".metadata.ownerReferences") == ""
    victim = space.out("get", "pods", "-l", "app=r", "-o", "jsonpath={.items[0].metadata.name}")
    space.k("delete", "pod", victim)
    space.until("pods -l app=r", lambda p: len(p["items"]) == 2 and victim not in str(p))


def test_daemon_set_runs_on_the_node_and_rolls(space: Space) -> None:
    template = {"metadata": {"labels": {"app": "d"}}, "spec": pod("x")["spec"]}
    d = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"},
         "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template}}  # fmt: skip
    space.apply(d)
    assert "successfully rolled out" in space.k("rollout", "status", "ds/d", "--timeout=30s").out
    assert space.out("get", "ds", "d", "--no-headers").split()[1:6] == ["1"] * 5
    space.k("set", "env", "ds/d", "A=1")
    space.k("rollout", "status", "ds/d", "--timeout=30s")
    items = space.until(
        "pods -l app=d", lambda p: len(p["items"]) == 1 and "env" in p["items"][0]["spec"]["containers"][0]
    )
    assert items["items"][0]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]


def job(name: str, script: str, **spec: object) -> dict[str, object]:
    template = {"spec": pod("x", "sh", "-c", script)["spec"] | {"restartPolicy": "Never"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def test_jobs(space: Space) -> None:
    space.apply(
        job("fine", "echo done"),
        job("wrong", "exit 4", backoffLimit=0),
        job("indexed", "echo $((JOB_COMPLETION_INDEX * 2))", completions=3, parallelism=2, completionMode="Indexed"),
        job("brief", "true", ttlSecondsAfterFinished=1),
        job("endless", "sleep 1000000", activeDeadlineSeconds=1),
    )
    space.wait("condition=Complete", "job/fine", "job/indexed")
    assert space.out("logs", "job/fine") == "done"
    assert space.out("get", "job", "indexed", "--no-headers").split()[1:3] == ["Complete", "3/3"] or "3/3" in space.out(
        "get", "job", "indexed"
    )
    assert space.path("job/indexed", ".status.completedIndexes") == "0-2"
    pods = space.get("pods", "-l", "job-name=indexed")
    logs = {space.out("logs", p["metadata"]["name"]) for p in pods}
    assert logs == {"0", "2", "4"}
    space.wait("condition=Failed", "job/wrong", "job/endless")
    reasons = {
        c["reason"]
        for name in ("wrong", "endless")
        for c in space.get("job", name)["status"]["conditions"]
        if c["type"] == "Failed"
    }
    assert reasons == {"BackoffLimitExceeded", "DeadlineExceeded"}
    until(lambda: space.k("get", "job", "brief", check=False).code == 1)
    space.until("pods -l job-name=brief", lambda p: not p["items"])
    space.until("pods -l job-name=endless", lambda p: not p["items"])
