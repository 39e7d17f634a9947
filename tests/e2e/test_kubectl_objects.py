"""kubectl's verbs on objects: what people see when they get, describe, apply, create, edit, patch and delete."""

from __future__ import annotations

import json
import os

import pytest

from tests.agent import until
from tests.e2e.space import Space, config_map, container, deployment, pod, service, web
from tests.images import BUSYBOX, NGINX


def test_get_in_every_form(both: Space) -> None:
    both.apply(pod("a"), pod("b"), service("a", {"name": "http", "port": 80, "targetPort": 8080}))
    both.wait("condition=Ready", "pod/a", "pod/b")
    head, *rows = both.out("get", "pods", "-o", "wide").splitlines()
    assert head.split() == [
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "AGE",
        "IP",
        "NODE",
        "NOMINATED",
        "NODE",
        "READINESS",
        "GATES",
    ]
    ip = both.path("pod/a", ".status.podIP")
    assert rows[0].split()[:4] == ["a", "1/1", "Running", "0"]
    assert ip in rows[0]
    assert both.out("get", "pods", "-o", "name").splitlines() == ["pod/a", "pod/b"]
    assert [p["metadata"]["name"] for p in both.get("pods")] == ["a", "b"]
    assert "kind: Pod" in both.out("get", "pod", "a", "-o", "yaml")
    assert both.out("get", "pods", "-o", "jsonpath={.items[*].metadata.name}") == "a b"
    assert both.out("get", "pods", "-l", "app=b", "--no-headers").split()[0] == "b"
    assert both.out("get", "pods", "--field-selector", "metadata.name=a", "-o", "name") == "pod/a"
    columns = both.out("get", "pods", "-o", "custom-columns=N:.metadata.name,I:.spec.containers[0].image")
    assert columns.splitlines()[1].split() == ["a", BUSYBOX]
    assert (
        both.out("get", "pods", "--sort-by=.metadata.creationTimestamp", "--show-labels")
        .splitlines()[1]
        .endswith("app=a")
    )
    assert both.out("get", "pod,svc", "-o", "name").splitlines() == ["pod/a", "pod/b", "service/a"]
    missing = both.k("get", "pod", "nobody", check=False)
    assert (missing.code, missing.err.strip()) == (1, 'Error from server (NotFound): pods "nobody" not found')


def test_describe(both: Space) -> None:
    both.apply(web("w", 1), service("w", {"name": "http", "port": 80, "targetPort": "http"}))
    both.k("rollout", "status", "deploy/w", "--timeout=30s")
    described = both.out("describe", "pods", "-l", "app=w")
    for wanted in (
        "Status:           Running",
        "IP:  ",
        NGINX,
        "Readiness:",
        "QoS Class:",
        "Scheduled",
        "Pulled",
        "Created",
        "Started",
    ):
        assert wanted in described, described
    ip = both.out("get", "pods", "-l", "app=w", "-o", "jsonpath={.items[0].status.podIP}")
    assert f"{ip}:80" in both.out("describe", "service", "w")
    told = both.out("describe", "deployment", "w")
    assert "1 desired | 1 updated | 1 total | 1 available | 0 unavailable" in told
    assert "RollingUpdateStrategy:  25% max unavailable, 25% max surge" in told
    assert "ScalingReplicaSet" in told
    node = both.out("describe", "nodes")
    for wanted in (
        "Allocatable:",
        "Non-terminated Pods:",
        "Ready ",
        "KubeletReady",
        "Allocated resources:",
        "InternalIP:",
    ):
        assert wanted in node, node
    for kind in ("configmap/kube-root-ca.crt", "serviceaccount/default", f"namespace/{both.name}", "endpointslices"):
        assert "Name:" in both.out(
            "describe", *([kind] if "/" in kind else [kind, "-l", "kubernetes.io/service-name=w"])
        )


def test_apply_creates_changes_and_leaves_alone(both: Space) -> None:
    first = config_map("c", a="1", b="2")
    assert both.apply(first).out == "configmap/c created\n"
    assert both.apply(first).out == "configmap/c unchanged\n"
    assert both.apply(config_map("c", a="1", c="3")).out == "configmap/c configured\n"
    assert both.get("configmap", "c")["data"] == {"a": "1", "c": "3"}
    # Lists are merged by their keys: what others added stays, what was applied and is gone goes.
    d = deployment("d", 0, container("x", "sleep", "1", env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]))
    both.apply(d)
    both.k("set", "env", "deploy/d", "OTHER=kept")
    both.k("patch", "deploy/d", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"i"}]}}}}')
    d["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]
    assert both.apply(d).out == "deployment.apps/d configured\n"
    containers = {c["name"]: c for c in both.get("deploy", "d")["spec"]["template"]["spec"]["containers"]}
    assert set(containers) == {"x", "side"}
    assert {e["name"]: e["value"] for e in containers["x"]["env"]} == {"OTHER": "kept", "B": "3", "C": "4"}
    diff = both.k("diff", "-f", "-", stdin=json.dumps(config_map("c", a="9", c="3")), check=False)
    assert diff.code == 1
    assert '-  a: "1"' in diff.out
    assert '+  a: "9"' in diff.out
    assert both.k("diff", "-f", "-", stdin=json.dumps(config_map("c", a="1", c="3")), check=False).code == 0
    assert "dry run" in both.k("apply", "-f", "-", "--dry-run=server", stdin=json.dumps(config_map("n"))).out
    assert both.k("get", "configmap", "n", check=False).code == 1
    wrong = both.k("apply", "-f", "-", check=False, stdin=json.dumps(pod("p", restartPolicyy="Never")))
    assert wrong.code == 1
    assert 'unknown field "spec.restartPolicyy"' in wrong.err


def test_create_every_kind_by_its_own_verb(both: Space) -> None:
    k = both.k
    assert k("create", "deployment", "d", f"--image={BUSYBOX}", "--replicas=0", "--port=80", "--", "sleep", "9").out
    k("create", "configmap", "c", "--from-literal=a=1", f"--from-file=hosts={os.path.realpath('/etc/hostname')}")
    k("create", "secret", "generic", "s", "--from-literal=password=x")
    k(
        "create",
        "secret",
        "docker-registry",
        "r",
        "--docker-username=u",
        "--docker-password=p",
        "--docker-server=example.test",
    )
    k("create", "job", "j", f"--image={BUSYBOX}", "--", "true")
    k("create", "service", "clusterip", "clusterip", "--tcp=80:8080")
    k("create", "service", "nodeport", "nodeport", "--tcp=80")
    k("create", "service", "externalname", "external", "--external-name=example.test")
    k("create", "ingress", "i", "--rule=example.test/a*=svc:80")
    k("create", "serviceaccount", "robot")
    k("create", "role", "reader", "--verb=get,list", "--resource=pods,deployments.apps")
    k("create", "rolebinding", "readers", "--role=reader", f"--serviceaccount={both.name}:robot")
    k("create", "clusterrole", f"{both.name}-cluster", "--verb=get", "--resource=nodes")
    k("create", "clusterrolebinding", f"{both.name}-cluster", f"--clusterrole={both.name}-cluster", "--user=jane")
    token = both.out("create", "token", "robot", "--duration=10m")
    assert token.count(".") == 2
    server = f"https://127.0.0.1:{both.agent.port}"
    as_robot = ("--kubeconfig=/dev/null", f"--server={server}", "--insecure-skip-tls-verify", f"--token={token}")
    assert k(*as_robot, "auth", "can-i", "list", "pods", check=False).out == "yes\n"
    assert k(*as_robot, "auth", "can-i", "delete", "pods", check=False).out == "no\n"
    assert k(*as_robot, "get", "deploy", "-o", "name").out == "deployment.apps/d\n"
    refused = k(*as_robot, "get", "secrets", check=False)
    assert f'User "system:serviceaccount:{both.name}:robot" cannot list resource "secrets"' in refused.err
    again = k("create", "configmap", "c", check=False)
    assert (again.code, again.err) == (1, 'error: failed to create configmap: configmaps "c" already exists\n')
    for what in (f"clusterrole/{both.name}-cluster", f"clusterrolebinding/{both.name}-cluster"):
        k("delete", what)


def test_run_expose_edit_patch_label_set(both: Space) -> None:
    k = both.k
    k("run", "r", f"--image={BUSYBOX}", "--labels=app=r", "--port=8000", "--", "httpd", "-f", "-p", "8000")
    both.wait("condition=Ready", "pod/r")
    k("expose", "pod", "r", "--port=80", "--target-port=8000")
    assert both.path("svc/r", ".spec.ports[0].targetPort") == "8000"
    k("edit", "service", "r", env={"KUBE_EDITOR": "sed -i 's/port: 80$/port: 81/'"})
    assert both.path("svc/r", ".spec.ports[0].port") == "81"
    both.apply(deployment("d", 0))
    k("patch", "deploy", "d", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"c","workingDir":"/tmp"}]}}}}')
    k("patch", "deploy", "d", "--type=merge", "-p", '{"metadata":{"annotations":{"note":"x"}}}')
    k(
        "patch",
        "deploy",
        "d",
        "--type=json",
        "-p",
        '[{"op":"replace","path":"/spec/minReadySeconds","value":3}]',
        check=False,
    )
    k("patch", "deploy", "d", "--type=json", "-p", '[{"op":"add","path":"/spec/minReadySeconds","value":3}]')
    d = both.get("deploy", "d")
    c = d["spec"]["template"]["spec"]["containers"][0]
    assert (c["workingDir"], d["metadata"]["annotations"]["note"], d["spec"]["minReadySeconds"]) == ("/tmp", "x", 3)
    k("label", "deploy", "d", "tier=front")
    assert "not labeled" in k("label", "deploy", "d", "tier=front").out
    assert "--overwrite is false" in k("label", "deploy", "d", "tier=back", check=False).err
    k("label", "deploy", "d", "tier=back", "--overwrite")
    k("label", "deploy", "d", "app-")
    k("annotate", "deploy", "d", "note-", "why=because")
    meta = both.get("deploy", "d")["metadata"]
    assert meta["labels"] == {"tier": "back"}
    assert meta["annotations"]["why"] == "because"
    assert "note" not in meta["annotations"]
    k("set", "image", "deploy/d", f"c={NGINX}")
    k("set", "env", "deploy/d", "A=1")
    k("set", "resources", "deploy/d", "--limits=memory=64Mi")
    k("set", "serviceaccount", "deploy/d", "default")
    c = both.get("deploy", "d")["spec"]["template"]["spec"]["containers"][0]
    assert (c["image"], c["env"], c["resources"]["limits"]) == (
        NGINX,
        [{"name": "A", "value": "1"}],
        {"memory": "64Mi"},
    )
    immutable = k("patch", "pod", "r", "-p", '{"spec":{"nodeName":"elsewhere"}}', check=False)
    assert immutable.code == 1
    assert "Forbidden: pod updates may not change fields other than" in immutable.err
    k("replace", "-f", "-", stdin=json.dumps(config_map("c")), check=False)
    k("replace", "--force", "-f", "-", stdin=json.dumps(config_map("c", a="1")))
    assert both.get("configmap", "c")["data"] == {"a": "1"}


def test_delete_by_name_label_file_and_with_each_cascade(both: Space) -> None:
    both.apply(deployment("o", 1), deployment("b", 1), deployment("f", 1), config_map("x"), config_map("y"))
    for name in "obf":
        both.k("rollout", "status", f"deploy/{name}", "--timeout=30s")
    both.k("delete", "deploy", "o", "--cascade=orphan")
    orphan = both.until("rs -l app=o", lambda r: "ownerReferences" not in r["items"][0]["metadata"])["items"][0]
    assert orphan["status"]["readyReplicas"] == 1
    both.k("delete", "rs", orphan["metadata"]["name"], "--cascade=orphan")
    both.until("pods -l app=o", lambda p: "ownerReferences" not in p["items"][0]["metadata"])
    both.apply(deployment("o", 1))  # adopted, not made again
    uid = both.out("get", "pods", "-l", "app=o", "-o", "jsonpath={.items[0].metadata.uid}")
    both.k("delete", "deploy", "b", "--cascade=background")
    both.until("pods,rs -l app=b", lambda p: not p["items"])
    both.k("delete", "deploy", "f", "--cascade=foreground", "--timeout=60s")
    assert both.get("pods,rs", "-l", "app=f") == []  # the owner goes last
    assert both.out("get", "pods", "-l", "app=o", "-o", "jsonpath={.items[*].metadata.uid}") == uid
    assert both.k("delete", "configmap", "-l", "nothing=here").out == "No resources found\n"
    both.k("delete", "-f", "-", stdin=json.dumps(config_map("x")))
    assert both.k("delete", "configmap", "x", "--ignore-not-found").code == 0
    both.k("delete", "deploy,configmap", "--all", "--wait=false")
    both.until("deploy", lambda d: not d["items"])


def test_watch_wait_events_explain(both: Space) -> None:
    watch = both.popen("get", "pods", "-w", "--output-watch-events", stdout=-1, text=True)
    try:
        both.pod("p")
        both.k("delete", "pod", "p", "--wait=false")
        seen = []
        while not seen or "DELETED" not in seen[-1]:
            seen.append(watch.stdout.readline())
            assert seen[-1], seen
    finally:
        watch.kill()
        watch.communicate()
    assert "ADDED" in "".join(seen)
    assert "MODIFIED" in "".join(seen)
    both.k("run", "q", f"--image={BUSYBOX}", "--restart=Never", "--", "true")
    both.wait("jsonpath={.status.phase}=Succeeded", "pod/q")
    gone = both.popen("wait", "--for=delete", "pod/q", "--timeout=60s", stdout=-1, text=True)
    both.k("delete", "pod", "q")
    out, _ = gone.communicate(timeout=25)
    assert gone.returncode == 0, out
    late = both.k("wait", "--for=condition=Ready", "pod", "--all", "--timeout=1s", check=False)
    assert late.code == 1
    assert "Scheduled" in both.out("events", "--for=pod/q")
    assert "Started" in both.out("get", "events", "--field-selector=involvedObject.name=q")
    explained = both.out("explain", "deployment.spec.strategy.rollingUpdate")
    assert "maxSurge" in explained
    assert "maxUnavailable" in explained
    assert "containers" in both.out("explain", "pods", "--recursive")


def test_what_the_cluster_offers(both: Space) -> None:
    k = both.k
    resources = k("api-resources").out
    for row in ("pods ", "deploy ", "endpointslices ", "leases ", "networkpolicies ", "horizontalpodautoscalers "):
        assert row in resources
    assert {"apps/v1", "batch/v1", "v1", "events.k8s.io/v1"} <= set(k("api-versions").out.split())
    assert "Server Version: v1." in k("version").out
    assert "is running at" in k("cluster-info").out
    assert k("auth", "can-i", "create", "deployments").out == "yes\n"
    assert k("auth", "can-i", "create", "deployments", "--as=jane", check=False).out == "no\n"
    assert "kubernetes-admin" in k("auth", "whoami").out
    assert "selfsubjectaccessreviews.authorization.k8s.io" in k("auth", "can-i", "--list").out
    assert "No resources found" in k("top", "pods").err
    both.apply(deployment("d", 1))
    k("autoscale", "deployment", "d", "--min=1", "--max=3", "--cpu-percent=50")
    assert both.path("hpa/d", ".spec.maxReplicas") == "3"
    assert k("get", "--raw", "/readyz").out == "ok"


@pytest.mark.parametrize("verb", ["cordon", "taint"])
def test_cordon_and_taint_hold_pods_back(space: Space, verb: str) -> None:
    node = space.out("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    undo = ["uncordon", node] if verb == "cordon" else ["taint", "node", node, "key-"]
    space.k(*(["cordon", node] if verb == "cordon" else ["taint", "node", node, "key=value:NoSchedule"]))
    try:
        if verb == "cordon":
            assert "SchedulingDisabled" in space.out("get", "nodes")
        space.pod("p", wait="")
        space.until(
            "pod p", lambda p: any(c.get("reason") == "Unschedulable" for c in p["status"].get("conditions", ()))
        )
        told = space.out("describe", "pod", "p")
        assert ("were unschedulable" if verb == "cordon" else "had untolerated taint {key: value}") in told
    finally:
        space.k(*undo)
    space.wait("condition=Ready", "pod/p")


def test_drain_evicts_what_a_controller_owns(both: Space) -> None:
    node = both.out("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    both.apply(deployment("d", 2))
    both.k("rollout", "status", "deploy/d", "--timeout=30s")
    both.pod("naked")
    try:
        refused = both.k("drain", node, "--pod-selector=app", "--timeout=60s", check=False)
        assert "cannot delete" in refused.err
        assert "naked" in refused.err
        drained = both.k("drain", node, "--pod-selector=app=d", "--timeout=60s")
        assert drained.out.count("evicted") == 2
        both.until("deploy d", lambda d: d["status"].get("unavailableReplicas") == 2)
    finally:
        both.k("uncordon", node)
    both.k("rollout", "status", "deploy/d", "--timeout=30s")


def test_namespace_goes_with_all_that_is_in_it_and_waits_for_finalizers(space: Space) -> None:
    space.apply(
        deployment("d", 1), config_map("held") | {"metadata": {"name": "held", "finalizers": ["example.test/hold"]}}
    )
    space.k("rollout", "status", "deploy/d", "--timeout=30s")
    space.k("delete", "namespace", space.name, "--wait=false")
    space.until("pods", lambda p: not p["items"])
    assert space.path(f"namespace/{space.name}", ".status.phase") == "Terminating"
    late = space.k("create", "configmap", "late", check=False)
    assert "because it is being terminated" in late.err
    space.k("patch", "configmap", "held", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]')
    until(lambda: space.k("get", "namespace", space.name, check=False).code == 1)
