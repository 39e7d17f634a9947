"""Real kubectl, the oldest and the newest at hand, against our OpenAPI documents and our strategic merge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from kubectl_stub import KUBECTL, Kubectl, Stub

from minik8s.api.kinds import RESOURCES

pytestmark = [
    pytest.mark.kubectl,
    pytest.mark.skipif(not KUBECTL, reason="there is no kubectl on this machine"),
]
BINARIES = [KUBECTL[0], KUBECTL[-1]] if KUBECTL else []
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/web"
Json = dict[str, Any]


@pytest.fixture(params=BINARIES, ids=lambda path: path.name)
def binary(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def stub() -> Stub:
    return Stub(list(RESOURCES))


@pytest.fixture
async def kubectl(stub: Stub, binary: Path, tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with TestServer(stub.app()) as server:
        yield Kubectl(binary, f"http://127.0.0.1:{server.port}", tmp_path)


def deployment() -> Json:
    def container(name: str, image: str) -> Json:
        return {"name": name, "image": image, "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]}

    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "containers": [container("a", "nginx:1"), container("b", "redis:1")],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": {"old": "1"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }


async def test_explain_reads_version_3(kubectl: Kubectl) -> None:
    code, out = await kubectl("explain", "pod.spec.containers")
    assert code == 0, out
    assert "KIND:       Pod" in out
    assert "FIELD: containers <[]Container>" in out
    assert "livenessProbe\t<Probe>" in out
    assert "imagePullPolicy\t<string>" in out
    code, out = await kubectl("explain", "ingress.spec.rules.http.paths.backend", "--recursive")
    assert code == 0, out
    assert "service\t<IngressServiceBackend>" in out
    assert "name\t<string> -required-" in out


async def test_explain_reads_version_2_as_protobuf(kubectl: Kubectl, stub: Stub) -> None:
    code, out = await kubectl("explain", "deployment.spec.strategy.rollingUpdate", "--output=plaintext-openapiv2")
    assert code == 0, out
    assert "VERSION:  apps/v1" in out
    assert "maxSurge" in out
    assert any(path == "/openapi/v2" and "protobuf" in accept for path, accept in stub.asked)


async def test_validation_is_left_to_a_server_that_offers_it(kubectl: Kubectl, stub: Stub) -> None:
    typo = deployment()
    typo["spec"]["replicaz"] = 2
    code, out = await kubectl("create", "-f", "-", "--dry-run=client", "--validate=true", stdin=typo)
    assert (code, out) == (0, "deployment.apps/web created (dry run)\n")
    assert any(path == "/openapi/v3/apis/apps/v1" for path, _ in stub.asked)


async def test_kubectl_validates_by_our_document_itself(kubectl: Kubectl, stub: Stub) -> None:
    stub.validates = False
    arguments = ("create", "-f", "-", "--dry-run=client", "--validate=true")
    assert (await kubectl(*arguments, stdin=deployment()))[0] == 0
    typo = deployment()
    typo["spec"]["template"]["spec"]["containers"][0]["imagee"] = "y"
    code, out = await kubectl(*arguments, stdin=typo)
    assert code == 1
    assert 'unknown field "imagee" in io.k8s.api.core.v1.Container' in out
    wrong = deployment()
    wrong["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": "http"}]
    code, out = await kubectl(*arguments, stdin=wrong)
    assert code == 1
    assert 'ContainerPort.containerPort: got "string", expected "integer"' in out


async def test_apply_merges_by_the_documents_merge_keys(kubectl: Kubectl, stub: Stub) -> None:
    assert (await kubectl("apply", "-f", "-", stdin=deployment()))[0] == 0
    assert await kubectl("apply", "-f", "-", stdin=deployment()) == (0, "deployment.apps/web unchanged\n")
    live = stub.objects[DEPLOYMENT]
    live["spec"]["template"]["spec"]["containers"].insert(1, {"name": "injected", "image": "side:1"})
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Always"
    changed = deployment()
    inside = changed["spec"]["template"]["spec"]
    inside["containers"] = [
        inside["containers"][1],
        inside["containers"][0] | {"image": "nginx:2", "env": [{"name": "B", "value": "2"}]},
    ]
    inside["volumes"] = [{"name": "v", "configMap": {"name": "c"}}]
    inside["tolerations"] = [{"key": "x", "operator": "Exists"}]
    changed["metadata"]["labels"] = {"new": "2"}
    code, out = await kubectl("apply", "-f", "-", stdin=changed)
    assert (code, out) == (0, "deployment.apps/web configured\n")
    assert stub.patches[-1][0] == "application/strategic-merge-patch+json"
    now = stub.objects[DEPLOYMENT]
    assert now["metadata"]["labels"] == {"new": "2"}
    inside = now["spec"]["template"]["spec"]
    # what others set stays; b comes before a now; the injected one keeps its place before b
    assert [c["name"] for c in inside["containers"]] == ["injected", "b", "a"]
    first = inside["containers"][2]
    assert first["imagePullPolicy"] == "Always"
    assert first["image"] == "nginx:2"
    assert first["env"] == [{"name": "B", "value": "2"}]
    assert inside["volumes"] == [{"name": "v", "configMap": {"name": "c"}}]
    assert inside["tolerations"] == [{"key": "x", "operator": "Exists"}]
    # kubectl cannot know that the order is right while there is a container that is not its own: it sends it again
    assert (await kubectl("apply", "-f", "-", stdin=changed))[0] == 0
    assert stub.objects[DEPLOYMENT] == now


async def test_apply_removes_ports_finalizers_and_containers(kubectl: Kubectl, stub: Stub) -> None:
    first = deployment()
    first["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    first["spec"]["template"]["spec"]["containers"][0]["ports"] = [
        {"containerPort": 80, "name": "http"}, {"containerPort": 443, "name": "https"},
    ]  # fmt: skip
    assert (await kubectl("apply", "-f", "-", stdin=first))[0] == 0
    stub.objects[DEPLOYMENT]["metadata"]["finalizers"].append("example.com/others")
    second = deployment()
    second["metadata"]["finalizers"] = ["example.com/b"]
    second["spec"]["template"]["spec"]["containers"] = [
        second["spec"]["template"]["spec"]["containers"][0] | {"ports": [{"containerPort": 443, "name": "tls"}]}
    ]
    code, out = await kubectl("apply", "-f", "-", stdin=second)
    assert code == 0, out
    assert "$deleteFromPrimitiveList/finalizers" in stub.patches[-1][1]["metadata"]
    now = stub.objects[DEPLOYMENT]
    assert sorted(now["metadata"]["finalizers"]) == ["example.com/b", "example.com/others"]
    assert [c["name"] for c in now["spec"]["template"]["spec"]["containers"]] == ["a"]
    assert now["spec"]["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 443, "name": "tls"}]


async def test_set_label_edit_and_patch(kubectl: Kubectl, stub: Stub) -> None:
    stub.objects[DEPLOYMENT] = deployment()

    async def run(*args: str, env: dict[str, str] | None = None) -> Json:
        code, out = await kubectl(*args, env=env)
        assert code == 0, out
        return stub.objects[DEPLOYMENT]

    def containers(now: Json) -> list[Json]:
        return now["spec"]["template"]["spec"]["containers"]

    now = await run("set", "image", "deployment/web", "b=redis:2")
    assert [c["image"] for c in containers(now)] == ["nginx:1", "redis:2"]
    now = await run("set", "env", "deployment/web", "-c", "a", "A-", "C=3")
    assert containers(now)[0]["env"] == [{"name": "C", "value": "3"}]
    assert containers(now)[1]["env"] == [{"name": "A", "value": "1"}]
    now = await run("set", "resources", "deployment/web", "-c", "a", "--limits=cpu=1")
    assert containers(now)[0]["resources"]["limits"] == {"cpu": "1"}
    now = await run("label", "deployment/web", "old-", "tier=front")
    assert now["metadata"]["labels"] == {"tier": "front"}
    now = await run("annotate", "deployment/web", "note=hi")
    assert now["metadata"]["annotations"] == {"note": "hi"}
    editor = kubectl.home / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/nginx:1/nginx:9/; s/replicas: 1/replicas: 4/" "$1"\n')
    editor.chmod(0o755)
    now = await run("edit", "deployment/web", env={"KUBE_EDITOR": str(editor)})
    assert now["spec"]["replicas"] == 4
    assert [c["image"] for c in containers(now)] == ["nginx:9", "redis:2"]
    patch = '[{"op": "test", "path": "/spec/replicas", "value": 4}, {"op": "remove", "path": "/spec/replicas"}]'
    now = await run("patch", "deployment/web", "--type=json", "-p", patch)
    assert "replicas" not in now["spec"]
    now = await run("patch", "deployment/web", "--type=merge", "-p", '{"spec": {"paused": true, "selector": null}}')
    assert now["spec"]["paused"] is True
    assert "selector" not in now["spec"]
    code, out = await kubectl("patch", "deployment/web", "--type=json", "-p", '[{"op": "remove", "path": "/spec/x"}]')
    assert code == 1
    assert "there is no /spec/x" in out


async def test_rollout_restart_and_pause(kubectl: Kubectl, stub: Stub) -> None:
    stub.objects[DEPLOYMENT] = deployment()
    for verb in ("restart", "pause", "resume"):
        code, out = await kubectl("rollout", verb, "deployment/web")
        assert code == 0, out
    now = stub.objects[DEPLOYMENT]
    assert "kubectl.kubernetes.io/restartedAt" in now["spec"]["template"]["metadata"]["annotations"]
    assert not now["spec"].get("paused")
    assert now["spec"]["template"]["spec"] == deployment()["spec"]["template"]["spec"]


async def test_taint_and_cordon(kubectl: Kubectl, stub: Stub) -> None:
    stub.objects["/api/v1/nodes/n1"] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1"},
        "spec": {"taints": [{"key": "k", "effect": "NoExecute"}]},
    }
    code, out = await kubectl("taint", "node", "n1", "dedicated=x:NoSchedule")
    assert code == 0, out
    code, out = await kubectl("cordon", "n1")
    assert code == 0, out
    spec = stub.objects["/api/v1/nodes/n1"]["spec"]
    assert spec["unschedulable"] is True
    assert sorted(taint["key"] for taint in spec["taints"]) == ["dedicated", "k"]
    code, out = await kubectl("taint", "node", "n1", "dedicated-")
    assert code == 0, out
    assert [taint["key"] for taint in stub.objects["/api/v1/nodes/n1"]["spec"]["taints"]] == ["k"]
