"""Workloads, nodes, settings and waiting."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from cluster_harness import Cli
from manifests_text import POD, WEB

from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.cli.drain import plan
from minik8s.cli.rollouts import progress

Json = dict[str, Any]


def status_of(cli: Cli, kind: Any, name: str, status: Json, namespace: str | None = "") -> None:
    place = cli.namespace if namespace == "" else namespace
    cli.server.ask(lambda client: client.patch(kind, name, place, {"status": status}, subresource="status"))


def test_scale(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB)
    assert cli.ok("scale", "deploy", "web", "--replicas=5") == "deployment.apps/web scaled\n"
    assert "has 5 replicas, not the 4" in cli.fails("scale", "deploy/web", "--replicas=1", "--current-replicas=4")
    assert "cannot be scaled" in cli.fails("scale", "svc/web", "--replicas=1")
    assert cli.ok("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "5"


def test_autoscale(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB)
    missing = cli.fails("autoscale", "h", "--target=deploy/nope", "--max", "3")
    assert missing == 'Error from server (NotFound): deployments.apps "nope" not found'
    assert "is greater than" in cli.fails("autoscale", "h", "--target=deploy/web", "--min", "4", "--max", "3")
    done = cli.ok(
        "autoscale", "h", "--target=deploy/web", "--min", "2", "--max", "3", "-c", "50", "-m", "60", "-i", "10"
    )
    assert done == "horizontalpodautoscaler.autoscaling/h autoscaled\n"
    spec = json.loads(cli.ok("get", "hpa", "h", "-o", "json"))["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 3)
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    goals = {m["resource"]["name"]: m["resource"]["target"]["averageUtilization"] for m in spec["metrics"]}
    assert goals == {"cpu": 50, "memory": 60}
    assert spec["behavior"]["scaleUp"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 10}]
    cli.ok("autoscale", "deploy", "web", "--max", "3")
    assert cli.ok("get", "hpa", "web", "-o", "jsonpath={.spec.metrics[0].resource.target.averageUtilization}") == "80"


def deployment(**status: int) -> Json:
    return {"kind": "Deployment", "metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3},
            "status": {"observedGeneration": 2, **status}}  # fmt: skip


@pytest.mark.parametrize(
    ("obj", "text", "done"),
    [
        ({**deployment(), "status": {"observedGeneration": 1}}, "spec update to be observed", False),
        (deployment(updatedReplicas=1), "1 out of 3 new replicas have been updated", False),
        (deployment(updatedReplicas=3, replicas=4), "1 old replicas are pending termination", False),
        (
            deployment(updatedReplicas=3, replicas=3, availableReplicas=2),
            "2 of 3 updated replicas are available",
            False,
        ),
        (deployment(updatedReplicas=3, replicas=3, availableReplicas=3), "successfully rolled out", True),
    ],
)
def test_progress_of_a_rollout(obj: Json, text: str, done: bool) -> None:
    found = progress(obj)
    assert text in found.text
    assert found.done == done


def test_rollout_status_follows_until_the_end(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB)
    assert "timed out" in cli("rollout", "status", "deploy/web", "--timeout=200ms").err
    said: list[Any] = []
    watching = threading.Thread(target=lambda: said.append(cli.run("rollout", "status", "deploy/web")))
    watching.start()
    full = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "readyReplicas": 3}
    status_of(cli, Deployment, "web", {**full, "availableReplicas": 1})
    status_of(cli, Deployment, "web", full)
    watching.join(20)
    assert said[0].code == 0, said
    assert said[0].out.splitlines()[-1] == 'deployment "web" successfully rolled out'


def revision(cli: Cli, number: int, image: str) -> None:
    owner = json.loads(cli.ok("get", "deploy", "web", "-o", "json"))["metadata"]
    labels = {"app": "web", "pod-template-hash": f"h{number}"}
    body = {
        "metadata": {
            "name": f"web-h{number}", "labels": labels,
            "annotations": {"deployment.kubernetes.io/revision": str(number), "kubernetes.io/change-cause": f"cause {number}"},  # noqa: E501
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": owner["uid"], "controller": True}],  # noqa: E501
        },
        "spec": {"replicas": 0, "selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "nginx", "image": image}]}}},  # noqa: E501
    }  # fmt: skip
    cli.server.ask(
        lambda client: client.create(ReplicaSet, {**body, "metadata": {**body["metadata"], "namespace": cli.namespace}})
    )


def test_history_and_undo(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB)
    assert "nothing to go back to" in cli.fails("rollout", "undo", "deploy/web")
    for number, image in ((1, "one"), (2, "two"), (3, "three")):
        revision(cli, number, image)
    assert [line.split()[:1] for line in cli.ok("rollout", "history", "deploy/web").splitlines()[2:5]] == [
        ["1"],
        ["2"],
        ["3"],
    ]
    assert "image: one" in cli.ok("rollout", "history", "deploy/web", "--revision=1")
    assert cli.ok("rollout", "undo", "deploy/web") == "deployment.apps/web rolled back\n"
    image = ("get", "deploy", "web", "-o", "jsonpath={..image} {.spec.template.metadata.labels}")
    assert cli.ok(*image) == 'two {"app":"web"}'
    cli.ok("rollout", "undo", "deploy/web", "--to-revision=1")
    assert cli.ok(*image).startswith("one ")
    assert "skipped rollback" in cli.ok("rollout", "undo", "deploy/web", "--to-revision=1")
    assert "unable to find revision 9 of deployment.apps/web; there are: 1, 2, 3" in cli.fails(
        "rollout", "undo", "deploy/web", "--to-revision=9"
    )


def test_pause_resume_restart(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB)
    assert cli.ok("rollout", "pause", "deploy/web") == "deployment.apps/web paused\n"
    assert "already paused" in cli.fails("rollout", "pause", "deploy/web")
    assert "resume it first" in cli.fails("rollout", "restart", "deploy/web")
    assert cli.ok("rollout", "resume", "deploy/web") == "deployment.apps/web resumed\n"
    assert cli.ok("rollout", "restart", "deploy/web") == "deployment.apps/web restarted\n"
    assert "restartedAt" in cli.ok("get", "deploy", "web", "-o", "jsonpath={.spec.template.metadata.annotations}")
    assert "have no rollout" in cli.fails("rollout", "status", "svc/web")


# -- nodes


def node(cli: Cli) -> str:
    name = f"node-{cli.namespace}"
    cli.server.ask(lambda client: client.create(Node, {"metadata": {"name": name}}))
    return name


def pod_on(cli: Cli, node: str, name: str, **more: Any) -> None:
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "x"}], **more.pop("spec", {})}
    metadata = {"name": name, "namespace": cli.namespace, **more}
    cli.server.ask(lambda client: client.create(Pod, {"metadata": metadata, "spec": spec}))


def test_cordon_and_taints(cli: Cli) -> None:
    name = node(cli)
    assert cli.ok("cordon", name) == f"node/{name} cordoned\n"
    assert cli.ok("cordon", name) == f"node/{name} already cordoned\n"
    assert cli.ok("uncordon", name) == f"node/{name} uncordoned\n"
    assert cli.ok("taint", "nodes", name, "gpu=yes:NoSchedule", "x:NoExecute") == f"node/{name} tainted\n"
    assert "--overwrite changes it" in cli.fails("taint", "node", name, "gpu=no:NoSchedule")
    assert cli.ok("taint", "node", name, "gpu=no:NoSchedule", "--overwrite") == f"node/{name} modified\n"
    assert cli.ok("taint", "node", name, "gpu-", "x:NoExecute-") == f"node/{name} untainted\n"
    assert "has no taint" in cli.fails("taint", "node", name, "gpu-")
    assert 'unknown effect "NoSchedul", did you mean "NoSchedule"?' in cli.fails("taint", "node", name, "a=b:NoSchedul")
    assert "Error from server (NotFound)" in cli.fails("cordon", "no-such-node")


def test_drain_plan() -> None:
    def pod(name: str, owner: str = "", **more: Any) -> Json:
        owners = [{"kind": owner, "controller": True}] if owner else []
        return {"metadata": {"namespace": "n", "name": name, "ownerReferences": owners, **more.pop("metadata", {})},
                "spec": {"volumes": more.pop("volumes", [])}, "status": {"phase": more.pop("phase", "Running")}}  # fmt: skip  # noqa: E501

    pods = [
        pod("rs", "ReplicaSet"), pod("ds", "DaemonSet"), pod("bare"), pod("ended", phase="Succeeded"),
        pod("data", "ReplicaSet", volumes=[{"name": "v", "emptyDir": {}}]),
        pod("static", metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}),
    ]  # fmt: skip
    strict = plan(pods, ignore_daemonsets=False, delete_emptydir=False, force=False)
    assert len(strict.obstacles) == 3
    assert [o.rpartition(": ")[2] for o in strict.obstacles] == ["n/ds", "n/bare", "n/data"]
    loose = plan(pods, ignore_daemonsets=True, delete_emptydir=True, force=True)
    assert loose.obstacles == []
    assert [p["metadata"]["name"] for p in loose.go] == ["rs", "bare", "ended", "data"]
    assert len(loose.warnings) == 2


def test_drain(cli: Cli) -> None:
    name = node(cli)
    pod_on(cli, name, "bare")
    cli_error = cli("drain", name)
    assert cli_error.code == 1
    assert "use --force to override" in cli_error.err
    # Nobody runs the pod, so nobody confirms its end: a node does that, here the test.
    said: list[Any] = []
    draining = threading.Thread(target=lambda: said.append(cli.run("drain", name, "--force", "--timeout=60s")))
    draining.start()
    cli.ok("wait", "pod/bare", "--for=jsonpath={.metadata.deletionTimestamp}", "--timeout=10s")
    cli.ok("delete", "pod", "bare", "--force", "--wait=false")
    draining.join(20)
    assert said[0].code == 0, said
    assert f"evicting pod {cli.namespace}/bare" in said[0].out
    assert said[0].out.endswith(f"pod/bare evicted\nnode/{name} drained\n")
    assert cli.ok("get", "node", name, "-o", "jsonpath={.spec.unschedulable}") == "true"


def test_settings(cli: Cli) -> None:
    assert 'unknown value of sched "rnd-robin", did you mean "round-robin"?' in cli.fails("cfg", "sched=rnd-robin")
    assert 'unknown setting "shed", did you mean "sched"?' in cli.fails("cfg", "shed=random")
    assert cli.ok("cfg", "sched=round-robin") == "sched=round-robin\n"
    assert cli.ok("cfg", "sched") == "round-robin\n"
    held = cli.ok("get", "cm", "minik8s-config", "--namespace=kube-system", "-o", "jsonpath={.data.sched}")
    assert held == "round-robin"
    assert cli.ok("cfg").splitlines()[1].split()[:3] == ["sched", "round-robin", "least-allocated"]
    cli.ok("cfg", "sched-")
    assert cli.ok("cfg", "sched") == "least-allocated\n"


# -- wait


def test_wait_for_conditions_fields_and_ends(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=POD)
    timed_out = cli("wait", "--for=condition=Ready", "pod/p1", "--timeout=200ms")
    assert (timed_out.code, timed_out.err) == (1, "error: timed out waiting for the condition on pods/p1\n")
    said: list[Any] = []
    waiting = threading.Thread(
        target=lambda: said.append(cli.run("wait", "--for=condition=ready", "pod", "-l", "app=p"))
    )
    waiting.start()
    status_of(cli, Pod, "p1", {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
    waiting.join(20)
    assert said[0] == (0, "pod/p1 condition met\n", "")
    assert cli.ok("wait", "--for=jsonpath={.status.phase}=Running", "pod/p1") == "pod/p1 condition met\n"
    assert "not found" in cli.fails("wait", "--for=condition=Ready", "pod/nope", "--timeout=1s")
    assert "cannot be waited for" in cli.fails("wait", "--for=ready", "pod/p1")
    cli.ok("delete", "pod", "p1", "--force")
    assert cli.ok("wait", "--for=delete", "pod/p1") == "pod/p1 deleted\n"
