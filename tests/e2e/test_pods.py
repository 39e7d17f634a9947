"""Pods on the real Docker Engine: what containers share, get and suffer, seen from inside them."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from tests.agent import free_port, run, until
from tests.e2e.space import FOREVER, Space, config_map, container, pod, service
from tests.images import BUSYBOX, PYTHON
from tests.patience import patience

GIVE = {"name": "v", "mountPath": "/v"}


def test_containers_share_localhost_ipc_and_volumes_after_init_and_sidecar(space: Space) -> None:
    def note(name: str, then: str = "", **more: object) -> dict[str, Any]:
        return container(name, "sh", "-c", f"echo {name} >> /v/order; {then}", volumeMounts=[GIVE], **more)

    space.pod(
        "p",
        initContainers=[
            note("first"),
            note("side", "exec sleep 1000000", restartPolicy="Always",
                 startupProbe={"exec": {"command": ["true"]}, "periodSeconds": 1}),
            note("second"),
        ],
        containers=[
            note("server", "echo page > /tmp/index.html; exec httpd -f -p 8000 -h /tmp"),
            note("client", "exec sleep 1000000"),
        ],
        volumes=[{"name": "v", "emptyDir": {}}],
    )  # fmt: skip
    assert space.sh("p", "cat /v/order", container="client").split()[:3] == ["first", "side", "second"]
    assert space.exec("p", "wget", "-qO-", "http://localhost:8000/", container="client") == "page"
    spaces = {
        c: space.sh("p", "readlink /proc/self/ns/ipc; readlink /proc/self/ns/net", container=c)
        for c in ("server", "client", "side")
    }
    assert len(set(spaces.values())) == 1
    assert space.sh("p", "readlink /proc/1/ns/pid", container="server") != space.sh(
        "p", "readlink /proc/1/ns/pid", container="client"
    )
    status = space.get("pod", "p")["status"]
    assert [s["name"] for s in status["initContainerStatuses"]] == ["first", "side", "second"]
    assert status["initContainerStatuses"][1]["state"].get("running")
    assert {c["type"]: c["status"] for c in status["conditions"]}["Initialized"] == "True"
    space.pod("shared", shareProcessNamespace=True, containers=[container("a", *FOREVER), container("b", *FOREVER)])
    assert space.sh("shared", "ps | grep -c 'sleep 1000000'", container="a") >= "2"


def test_volumes_of_every_kind_and_their_live_update(space: Space, tmp_path: object) -> None:
    space.apply(
        config_map("c", colour="blue", other="x"),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "open sesame"}},
    )
    host = space.agent.data.parent / "host"
    mounts = {
        "empty": "/empty", "memory": "/memory", "config": "/config", "secret": "/secret", "down": "/down",
        "all": "/all", "host": "/host", "file": "/file",
    }  # fmt: skip
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
             {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}},
    ]  # fmt: skip
    space.pod(
        "p",
        labels={"app": "p", "colour": "red"},
        more={
            "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}},
            "volumeMounts": [
                *({"name": name, "mountPath": path} for name, path in mounts.items()),
                {"name": "config", "mountPath": "/one/colour", "subPath": "colour"},
                {"name": "empty", "mountPath": "/read-only", "readOnly": True},
                {"name": "empty", "mountPath": "/expanded", "subPathExpr": "$(NAME)"},
            ],
            "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        },
        volumes=[
            {"name": "empty", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
            {"name": "config", "configMap": {"name": "c", "defaultMode": 0o440}},
            {"name": "secret", "secret": {"secretName": "s", "items": [
                {"key": "password", "path": "deep/pass", "mode": 0o400}]}},
            {"name": "down", "downwardAPI": {"items": items}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "c"}}, {"secret": {"name": "s"}}, {"downwardAPI": {"items": items[:1]}},
                {"serviceAccountToken": {"path": "token", "audience": "someone", "expirationSeconds": 600}}]}},
            {"name": "host", "hostPath": {"path": str(host), "type": "DirectoryOrCreate"}},
            {"name": "file", "hostPath": {"path": "/etc/hostname", "type": "File"}},
        ],
    )  # fmt: skip
    sh = lambda script: space.sh("p", script, check=False)  # noqa: E731
    assert sh("df -k /memory | tail -1").split()[:2] == ["tmpfs", "8192"]
    assert sh("cat /config/colour /secret/deep/pass /down/cpu") == "blueopen sesame250"
    assert sh("stat -Lc %a /config/colour /secret/deep/pass").split() == ["440", "400"]
    assert 'colour="red"' in sh("cat /down/labels")
    assert set(sh("ls /all").split()) == {"colour", "other", "password", "labels", "token"}
    assert sh("cat /one/colour") == "blue"
    assert "Read-only file system" in sh("touch /read-only/x")
    sh("echo mark > /expanded/mark")
    assert sh("cat /empty/p/mark") == "mark"
    sh("echo from the pod > /host/file")
    assert (host / "file").read_text() == "from the pod\n"
    assert sh("cat /file") == run(["cat", "/etc/hostname"]).out.strip()
    # Changed in place, without a restart; a subPath is a copy of its time.
    space.apply(config_map("c", colour="green", other="x"))
    space.k("label", "pod", "p", "colour=pink", "--overwrite")
    files = "cat /config/colour /all/colour /down/labels /all/labels"
    wanted = "greengreen" + 'app="p"\ncolour="pink"' * 2
    until(lambda: sh(files) == wanted, what=lambda: f"{sh(files)!r} is not {wanted!r}")
    assert sh("cat /one/colour") == "blue"
    assert space.path("pod/p", ".status.containerStatuses[0].restartCount") == "0"
    # What is missing holds the pod back, and it starts as soon as it is there.
    space.pod("late", wait="", volumes=[{"name": "v", "configMap": {"name": "later"}}], more={"volumeMounts": [GIVE]})
    until(lambda: space.events("FailedMount", name="late"))
    assert 'configmap "later" not found' in space.events("FailedMount", name="late")[0]["message"]
    space.apply(config_map("later", a="1"))
    space.wait("condition=Ready", "pod/late", seconds=30)


def test_a_pod_speaks_with_the_api_as_its_service_account(space: Space) -> None:
    space.k("create", "role", "reader", "--verb=get,list", "--resource=pods")
    space.k("create", "rolebinding", "readers", "--role=reader", f"--serviceaccount={space.name}:default")
    script = """
import json, ssl, sys, urllib.request, urllib.error
at = "/var/run/secrets/kubernetes.io/serviceaccount/"
token, space = open(at + "token").read(), open(at + "namespace").read()
context = ssl.create_default_context(cafile=at + "ca.crt")
def ask(path):
    url, headers = "https://kubernetes.default.svc" + path, {"Authorization": "Bearer " + token}
    try:
        request = urllib.request.Request(url, headers=headers)
        return json.load(urllib.request.urlopen(request, context=context, timeout=10))
    except urllib.error.HTTPError as error:
        return error.code
pods = ask(f"/api/v1/namespaces/{space}/pods")["items"]
print(json.dumps([space, pods[0]["metadata"]["name"], ask("/api/v1/secrets")]))
"""
    space.pod("p", *FOREVER, image=PYTHON)
    assert json.loads(space.exec("p", "python3", "-c", script)) == [space.name, "p", 403]
    space.pod("none", automountServiceAccountToken=False)
    assert "No such file" in space.sh("none", "ls /var/run/secrets/kubernetes.io", check=False)


def test_host_ports_given_and_drawn(space: Space) -> None:
    port = free_port()
    serve = ("sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 8000 -h /tmp")
    space.pod("given", *serve, more={"ports": [{"containerPort": 8000, "hostPort": port}]})
    ip = space.path("pod/given", ".status.hostIP")
    fetch = lambda port: run(["curl", "-sS", "--max-time", "5", f"http://{ip}:{port}/"], check=False).both.strip()  # noqa: E731
    assert until(lambda: fetch(port) == "hello")
    assert run(["curl", "-sS", "--max-time", "5", f"http://127.0.0.1:{port}/"], check=False).both.strip() == "hello"
    space.pod("second", *serve, wait="", more={"ports": [{"containerPort": 8000, "hostPort": port}]})
    space.until("pod second", lambda p: "free ports" in str(p["status"].get("conditions")))
    space.k("delete", "pod", "given")
    space.wait("condition=Ready", "pod/second")
    assert until(lambda: fetch(port) == "hello")
    space.pod(
        "drawn", *serve, annotations={"minik8s.io/random-host-port": "true"}, more={"ports": [{"containerPort": 8000}]}
    )
    drawn = space.until("pod drawn", lambda p: "hello" in fetch(_drawn(p)) if _drawn(p) else False)
    assert 1024 < _drawn(drawn) < 65536


def _drawn(p: dict[str, Any]) -> int:
    """The host port that was drawn, as the pod tells it; 0 if it does not yet."""
    return int(json.loads(p["metadata"]["annotations"].get("minik8s.io/host-ports", "{}")).get("8000/TCP", 0))


def test_environment_user_capabilities_and_read_only_root(space: Space) -> None:
    space.apply(config_map("c", a="1", b="2"), service("before"))
    env = [
        {"name": "PLAIN", "value": "plain"},
        {"name": "MIXED", "value": "$(PLAIN)-$$(PLAIN)-$(ABSENT)"},
        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "a"}}},
        {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "a", "optional": True}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    space.pod(
        "p",
        securityContext={"runAsUser": 33, "runAsGroup": 34, "fsGroup": 35, "supplementalGroups": [36],
                         "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
        volumes=[{"name": "v", "emptyDir": {}}],
        hostAliases=[{"ip": "10.1.2.3", "hostnames": ["alias", "alias.test"]}],
        hostname="named", subdomain="before",
        more={
            "env": env, "envFrom": [{"prefix": "C_", "configMapRef": {"name": "c"}}], "workingDir": "/tmp",
            "resources": {"limits": {"memory": "32Mi"}}, "volumeMounts": [GIVE],
            "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]}},
        },
    )  # fmt: skip
    seen = dict(line.split("=", 1) for line in space.exec("p", "env").splitlines() if "=" in line)
    assert seen["MIXED"] == "plain-$(PLAIN)-$(ABSENT)"
    assert (seen["KEY"], seen["C_a"], seen["C_b"], seen["LIMIT"]) == ("1", "1", "2", "32")
    assert seen["IP"] == space.path("pod/p", ".status.podIP")
    assert "MAYBE" not in seen
    assert seen["BEFORE_SERVICE_HOST"] == space.path("svc/before", ".spec.clusterIP")
    assert seen["KUBERNETES_SERVICE_PORT"] == "443"
    ids = space.exec("p", "id")
    assert "uid=33" in ids
    assert "gid=34" in ids
    assert "35" in ids
    assert "36" in ids
    assert space.exec("p", "pwd") == "/tmp"
    assert "Read-only file system" in space.sh("p", "touch /bin/x", check=False)
    assert space.sh("p", "touch /v/x && stat -c %g /v/x") in ("35", "34")
    status = dict(line.split(":", 1) for line in space.exec("p", "cat", "/proc/1/status").splitlines())
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert space.exec("p", "hostname") == "named"
    assert space.exec("p", "hostname", "-f") == f"named.before.{space.name}.svc.cluster.local"
    assert "10.1.2.3\talias\talias.test" in space.exec("p", "cat", "/etc/hosts")
    wrong = container("c", *FOREVER, securityContext={"runAsNonRoot": True})
    space.pod("root", wait="", containers=[wrong])
    space.until("pod root", lambda p: _waiting(p) == "CreateContainerConfigError")


def _waiting(p: dict[str, Any]) -> str:
    statuses = p["status"].get("containerStatuses") or [{}]
    return str(statuses[0].get("state", {}).get("waiting", {}).get("reason", ""))


def test_host_network_and_dns_settings(space: Space) -> None:
    space.pod("host", hostNetwork=True, hostPID=True)
    assert space.path("pod/host", ".status.podIP") == space.path("pod/host", ".status.hostIP")
    assert space.sh("host", "readlink /proc/self/ns/net") == os.readlink("/proc/self/ns/net")
    assert space.sh("host", "readlink /proc/self/ns/pid") == os.readlink("/proc/self/ns/pid")
    config = {"nameservers": ["192.0.2.53"], "searches": ["example.test"], "options": [{"name": "ndots", "value": "3"}]}
    space.pod("own", dnsPolicy="None", dnsConfig=config)
    assert space.exec("own", "cat", "/etc/resolv.conf").split("\n") == [
        "nameserver 192.0.2.53",
        "search example.test",
        "options ndots:3",
    ]
    space.pod("usual")
    usual = space.exec("usual", "cat", "/etc/resolv.conf").splitlines()
    assert usual[0] == "nameserver 10.96.0.10"
    assert usual[1].startswith(f"search {space.name}.svc.cluster.local svc.cluster.local cluster.local")
    assert "ndots:5" in usual[2]
    space.pod("node", dnsPolicy="Default")
    assert "10.96.0.10" not in space.exec("node", "cat", "/etc/resolv.conf")


def test_limits_are_the_kernels_and_a_glutton_is_killed(space: Space) -> None:
    limits = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}
    full = {"limits": {"cpu": "100m", "memory": "32Mi"}}
    space.apply(
        pod("burst", more={"resources": limits}), pod("sure", more={"resources": full}), pod("any"),
        pod("glutton", "python3", "-c", "x = bytearray(200_000_000); print(len(x))", image=PYTHON,
            more={"resources": {"limits": {"memory": "48Mi"}}}),
    )  # fmt: skip
    space.wait("condition=Ready", "pod/burst", "pod/sure", "pod/any")
    assert [space.path(f"pod/{n}", ".status.qosClass") for n in ("burst", "sure", "any")] == [
        "Burstable",
        "Guaranteed",
        "BestEffort",
    ]
    memory = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert space.sh("burst", memory) == str(64 << 20)
    old = "/sys/fs/cgroup/cpu/cpu.cfs"
    quota = f"cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat {old}_quota_us {old}_period_us"
    assert space.sh("burst", quota).split() == ["50000", "100000"]
    weight = "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || echo 102"
    assert space.sh("burst", weight) == "102"
    killed = space.until("pod glutton", lambda p: _ended(p).get("reason") == "OOMKilled")
    assert _ended(killed)["exitCode"] == 137
    space.until("pod glutton", lambda p: p["status"]["containerStatuses"][0]["restartCount"] >= 1)
    assert "OOMKilled" in space.out("describe", "pod", "glutton")


def _ended(p: dict[str, Any]) -> dict[str, Any]:
    statuses = p["status"].get("containerStatuses") or [{}]
    return statuses[0].get("state", {}).get("terminated") or statuses[0].get("lastState", {}).get("terminated") or {}


def test_restart_policies_back_off_and_termination_messages(space: Space) -> None:
    say = "echo last words > /dev/termination-log; exit 3"
    space.apply(
        pod("never", "sh", "-c", say, restartPolicy="Never"),
        pod("failing", "sh", "-c", "exit 1", restartPolicy="OnFailure"),
        pod("fine", "true", restartPolicy="OnFailure"),
        pod("always", "true"),
        pod("logs", "sh", "-c", "echo from the log; exit 2", restartPolicy="Never",
            more={"terminationMessagePolicy": "FallbackToLogsOnError"}),
    )  # fmt: skip
    space.wait("jsonpath={.status.phase}=Failed", "pod/never", "pod/logs")
    ended = _ended(space.get("pod", "never"))
    assert (ended["exitCode"], ended["message"], ended["reason"]) == (3, "last words\n", "Error")
    assert _ended(space.get("pod", "logs"))["message"] == "from the log\n"
    space.wait("jsonpath={.status.phase}=Succeeded", "pod/fine")
    for name in ("failing", "always"):
        space.until(f"pod {name}", lambda p: _waiting(p) == "CrashLoopBackOff")
        assert space.path(f"pod/{name}", ".status.phase") == "Running"
    assert until(lambda: space.events("BackOff", name="failing"))
    # A container that is killed from outside is started again within a second.
    space.pod("killed")
    victim = space.path("pod/killed", ".status.containerStatuses[0].containerID").removeprefix("docker://")
    began = time.monotonic()
    run(["docker", "kill", victim])
    space.until("pod killed", lambda p: p["status"]["containerStatuses"][0].get("state", {}).get("running")
                and p["status"]["containerStatuses"][0]["restartCount"] == 1)  # fmt: skip
    assert time.monotonic() - began < patience(3)


def test_probes_decide_readiness_and_restarts(space: Space) -> None:
    each = {"periodSeconds": 1, "timeoutSeconds": 30}  # a busy machine's answer is late, and still an answer
    space.apply(
        pod("exec", more={"readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, **each}}),
        pod("http", "sh", "-c", "touch /tmp/healthz; exec httpd -f -p 8000 -h /tmp", more={
            "ports": [{"name": "web", "containerPort": 8000}],
            "startupProbe": {"tcpSocket": {"port": "web"}, **each, "failureThreshold": 60},
            "livenessProbe": {
                "httpGet": {"path": "/healthz", "port": "web"}, **each, "failureThreshold": 1}}),
        pod("tcp", "sh", "-c", "exec httpd -f -p 8000 -h /tmp", more={
            "readinessProbe": {"tcpSocket": {"port": 8000}, **each}}),
        pod("slow", "sh", "-c", "sleep 2; touch /tmp/up; exec sleep 1000000", more={
            "startupProbe": {"exec": {"command": ["cat", "/tmp/up"]}, **each, "failureThreshold": 60},
            "livenessProbe": {"exec": {"command": ["cat", "/tmp/up"]}, **each, "failureThreshold": 1}}),
    )  # fmt: skip
    space.wait("condition=Ready", "pod/tcp", "pod/http", "pod/slow")
    assert space.path("pod/slow", ".status.containerStatuses[0].restartCount") == "0"
    assert space.path("pod/exec", ".status.containerStatuses[0].ready") == "false"
    assert until(lambda: space.events("Unhealthy", name="exec"))[0]["message"].startswith("Readiness probe failed")
    space.exec("exec", "touch", "/tmp/ready")
    space.wait("condition=Ready", "pod/exec")
    space.exec("exec", "rm", "/tmp/ready")
    space.wait("condition=Ready=false", "pod/exec")
    space.exec("http", "rm", "/tmp/healthz")
    space.until("pod http", lambda p: p["status"]["containerStatuses"][0]["restartCount"] == 1)
    told = [event["message"] for event in space.events("Unhealthy", name="http")]
    assert any("HTTP probe failed with statuscode: 404" in message for message in told), told
    assert space.events("Killing", name="http")


def test_hooks_and_graceful_termination(space: Space) -> None:
    host = space.agent.data.parent / "hooks"
    catch = "trap 'echo term >> /h/log; exit 0' TERM; echo start >> /h/log; while :; do sleep 0.1; done"
    volume = {"volumes": [{"name": "h", "hostPath": {"path": str(host), "type": "DirectoryOrCreate"}}]}
    lifecycle = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo poststart >> /h/log"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo prestop >> /h/log"]}},
    }
    mount = {"volumeMounts": [{"name": "h", "mountPath": "/h"}]}
    space.pod("p", "sh", "-c", catch, terminationGracePeriodSeconds=60, more=mount | {"lifecycle": lifecycle}, **volume)
    began = time.monotonic()
    space.k("delete", "pod", "p")
    assert time.monotonic() - began < 60  # it has ended by itself
    assert sorted((host / "log").read_text().split()[:2]) == ["poststart", "start"]
    assert (host / "log").read_text().split()[2:] == ["prestop", "term"]
    space.pod("deaf", "sh", "-c", "trap '' TERM; while :; do sleep 1; done", terminationGracePeriodSeconds=2)
    began = time.monotonic()
    space.k("delete", "pod", "deaf")
    assert 2 <= time.monotonic() - began < 30  # which it would have without a grace period of its own
    space.pod("bad", wait="", more={"lifecycle": {"postStart": {"exec": {"command": ["false"]}}}})
    assert until(lambda: space.events("FailedPostStartHook", name="bad"))


def test_images_that_are_not_there(space: Space) -> None:
    space.apply(
        pod("absent", image="minik8s.test/absent:1"),
        pod("never", image="minik8s.test/absent:1", more={"imagePullPolicy": "Never"}),
        pod("wrong", image="No Such Image!"),
        pod("wronger", image="No:Such:Image"),
    )
    space.until("pod absent", lambda p: _waiting(p) == "ImagePullBackOff", seconds=40)
    space.until("pod never", lambda p: _waiting(p) == "ErrImageNeverPull")
    space.until("pod wrong", lambda p: _waiting(p) == "InvalidImageName")
    space.until("pod wronger", lambda p: _waiting(p) == "InvalidImageName")
    assert space.events("Failed", name="absent")


def test_what_happens_behind_the_agents_back_is_put_right(space: Space) -> None:
    space.pod("p", containers=[container("a", *FOREVER), container("b", *FOREVER)])
    ids = {
        s["name"]: s["containerID"].removeprefix("docker://")
        for s in space.get("pod", "p")["status"]["containerStatuses"]
    }
    run(["docker", "rm", "-f", ids["a"]])
    again = space.until("pod p", lambda p: _running(p, "a") not in ("", ids["a"]))
    assert _running(again, "b") == ids["b"]
    # A container with our labels for a pod that nobody wants.
    labels = json.loads(run(["docker", "inspect", "-f", "{{json .Config.Labels}}", ids["b"]]).out)
    labels["io.kubernetes.pod.uid"] = "00000000-0000-0000-0000-000000000000"
    labels["io.kubernetes.pod.name"] = "stray"
    flags = [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
    name = f"k8s_b_stray_{space.name}_00000000-0000-0000-0000-000000000000_0"
    stray = run(["docker", "create", "--name", name, *flags, BUSYBOX, "sleep", "1000000"]).out.strip()
    until(lambda: run(["docker", "inspect", stray], check=False).code != 0, seconds=30)


def _running(p: dict[str, Any], name: str) -> str:
    """Id of a running container."""
    for status in p["status"]["containerStatuses"]:
        if status["name"] == name and status.get("state", {}).get("running"):
            return str(status["containerID"].removeprefix("docker://"))
    return ""
