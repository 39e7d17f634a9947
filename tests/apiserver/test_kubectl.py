"""What people do with real kubectl, oldest and newest at hand, over HTTPS with a bearer token."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
from tls_harness import Authority

from minik8s.api.scheme import SCHEME
from minik8s.apiserver.app import ApiServer
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import User
from minik8s.apiserver.handler import AllowAll
from minik8s.apiserver.openapi import OpenAPI
from minik8s.store.watch_cache import WatchCache
from tests.kubectls import KUBECTLS

pytestmark = pytest.mark.kubectl


def kubectls() -> list[str]:
    found = [shutil.which(f"kubectl.1.{minor}") or "" for minor in range(27, 40)]
    found += [str(p) for p in sorted(Path("/usr/lib/google-cloud-sdk/bin").glob("kubectl.1.*"))]
    found = [path for path in found if path] or [str(path) for path in KUBECTLS]
    return [found[0], found[-1]] if len(found) > 1 else found


class Known:
    async def authenticate(self, *, common_name: str, organizations: Sequence[str], token: str) -> User | None:
        return User("admin", ("system:masters", "system:authenticated")) if token == "secret" else None


class Kubectl:
    def __init__(self, binary: str, config: Path, folder: Path) -> None:
        self._binary, self._config, self.folder = binary, config, folder

    async def start(self, *args: str) -> asyncio.subprocess.Process:
        env = {"KUBECONFIG": str(self._config), "HOME": str(self.folder), "PATH": "/usr/bin:/bin"}
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(self._binary, *args, env=env, stdout=pipe, stderr=pipe)

    async def __call__(self, *args: str, fails: bool = False) -> str:
        process = await self.start(*args)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        text = (out + err).decode()
        assert (process.returncode != 0) == fails, f"kubectl {' '.join(args)}: {text}"
        return text

    def file(self, name: str, *docs: dict) -> str:
        path = self.folder / name
        path.write_text("\n---\n".join(json.dumps(doc) for doc in docs))
        return str(path)


@pytest.fixture(params=kubectls() or [pytest.param("", marks=pytest.mark.skip(reason="no kubectl on this machine"))])
async def kubectl(request: pytest.FixtureRequest, cache: WatchCache, tmp_path: Path) -> AsyncIterator[Kubectl]:
    authority = Authority(tmp_path)
    handler = build_handler(cache, authenticator=Known(), authorizer=AllowAll(), openapi=OpenAPI(SCHEME.resources))
    async with ApiServer(handler).listening("127.0.0.1", 0, authority.server_context()) as (_, port):
        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority.ca)}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }  # fmt: skip
        (tmp_path / "config").write_bytes(msgspec.json.encode(config))
        kubectl = Kubectl(request.param, tmp_path / "config", tmp_path)
        await kubectl("create", "namespace", "default")
        yield kubectl


def deployment(image: str, replicas: int = 1) -> dict:
    labels = {"app": "web"}
    container = {"name": "web", "image": image, "ports": [{"containerPort": 80}]}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": labels},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }  # fmt: skip


async def test_discovery(kubectl: Kubectl) -> None:
    text = await kubectl("api-resources")
    for word in ("pods", "deployments", "po ", "apps/v1", "events.k8s.io/v1", "selfsubjectaccessreviews", "true"):
        assert word in text
    versions = (await kubectl("api-versions")).split()
    assert {"v1", "apps/v1", "rbac.authorization.k8s.io/v1", "authorization.k8s.io/v1"} <= set(versions)
    assert "Server Version" in await kubectl("version")
    assert "readyz check passed" in await kubectl("get", "--raw", "/readyz?verbose")


async def test_apply_change_and_look(kubectl: Kubectl) -> None:
    first = kubectl.file("web.json", deployment("lab/nginx:1"))
    assert "deployment.apps/web created" in await kubectl("apply", "-f", first)
    assert "unchanged" in await kubectl("apply", "-f", first)
    second = kubectl.file("web2.json", deployment("lab/nginx:2", 3))
    assert "web" in await kubectl("diff", "-f", second, fails=True)
    assert "configured" in await kubectl("apply", "-f", second)
    header, row = (await kubectl("get", "deployments")).splitlines()
    assert header.split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row.split()[:2] == ["web", "0/3"]
    assert "lab/nginx:2" in await kubectl("get", "deploy", "-o", "wide")
    assert "image: lab/nginx:2" in await kubectl("get", "deploy/web", "-o", "yaml")
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas} {.metadata.generation}") == "3 2"
    assert "deployment.apps/web" in await kubectl("get", "all", "-o", "name")
    assert "Name:" in await kubectl("describe", "deploy", "web")


async def test_patches_labels_and_scale(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", kubectl.file("web.json", deployment("lab/nginx:1")))
    await kubectl(
        "patch", "deploy", "web", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"web","tty":true}]}}}}'
    )
    await kubectl("patch", "deploy", "web", "--type", "merge", "-p", '{"spec":{"paused":true}}')
    await kubectl("patch", "deploy", "web", "--type", "json", "-p", '[{"op":"remove","path":"/spec/paused"}]')
    await kubectl("label", "deploy", "web", "tier=front")
    await kubectl("annotate", "deploy", "web", "note=x")
    await kubectl("set", "image", "deploy/web", "web=lab/nginx:3")
    assert "scaled" in await kubectl("scale", "deploy", "web", "--replicas", "5")
    obj = json.loads(await kubectl("get", "deploy", "-l", "tier=front", "-o", "json"))["items"][0]
    container = obj["spec"]["template"]["spec"]["containers"][0]
    assert (container["tty"], container["image"], obj["spec"]["replicas"]) == (True, "lab/nginx:3", 5)
    assert "paused" not in obj["spec"]
    assert obj["metadata"]["annotations"]["note"] == "x"


async def test_create_and_mistakes(kubectl: Kubectl) -> None:
    await kubectl("create", "configmap", "c", "--from-literal", "a=b")
    assert "already exists" in await kubectl("create", "configmap", "c", fails=True)
    assert "not found" in await kubectl("get", "configmap", "nope", fails=True)
    assert "doesn't have a resource type" in await kubectl("get", "unicorns", fails=True)
    bad = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "dada": {}}
    assert 'unknown field "dada"' in await kubectl("create", "-f", kubectl.file("bad.json", bad), fails=True)
    warned = await kubectl("create", "--validate=warn", "-f", kubectl.file("bad.json", bad))
    assert 'Warning: unknown field "dada"' in warned
    assert 'namespaces "zzz" not found' in await kubectl("create", "configmap", "e", "-n", "zzz", fails=True)
    await kubectl("create", "secret", "generic", "s", "--from-literal", "a=b")
    await kubectl("create", "serviceaccount", "sa")
    await kubectl("create", "role", "r", "--verb=get", "--resource=pods")
    await kubectl("create", "rolebinding", "rb", "--role=r", "--serviceaccount=default:sa")
    assert "TYPE" in await kubectl("get", "secrets")
    assert "KIND" in await kubectl("explain", "pod.spec.containers")


async def test_pods_and_services(kubectl: Kubectl) -> None:
    await kubectl("run", "one", "--image", "lab/busybox:1")
    header, row = (await kubectl("get", "pods")).splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["one", "0/1", "Pending", "0"]
    await kubectl("expose", "pod", "one", "--port", "80", "--type", "NodePort")
    service = json.loads(await kubectl("get", "service", "one", "-o", "json"))["spec"]
    assert service["clusterIP"].startswith("10.")
    assert 30000 <= service["ports"][0]["nodePort"] <= 32767
    assert "NodePort" in await kubectl("get", "svc")
    assert "yes" in await kubectl("auth", "can-i", "create", "pods")
    assert "admin" in await kubectl("auth", "whoami")
    assert "No events found" in await kubectl("events")
    assert "No resources found" in await kubectl("get", "events")
    await kubectl("delete", "pod", "one", "--wait=true")
    assert "No resources found" in await kubectl("get", "pods")


async def test_watch_and_wait(kubectl: Kubectl) -> None:
    await kubectl("create", "configmap", "c")
    process = await kubectl.start("get", "configmaps", "-w", "--no-headers")
    assert process.stdout is not None
    assert (await asyncio.wait_for(process.stdout.readline(), 20)).split()[0] == b"c"
    await kubectl("patch", "configmap", "c", "-p", '{"data":{"a":"b"}}')
    assert (await asyncio.wait_for(process.stdout.readline(), 20)).split()[:2] == [b"c", b"1"]
    process.terminate()
    await process.communicate()
    waiting = await kubectl.start("wait", "--for=delete", "configmap/c", "--timeout=60s")
    await asyncio.sleep(0.2)
    await kubectl("delete", "configmap", "c")
    out, err = await waiting.communicate()
    assert waiting.returncode == 0, err
    await kubectl("apply", "-f", kubectl.file("web.json", deployment("lab/nginx:1")))
    condition = '{"status":{"conditions":[{"type":"Available","status":"True"}]}}'
    until = await kubectl.start("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
    await kubectl("patch", "deploy", "web", "--subresource=status", "--type=merge", "-p", condition)
    out, err = await until.communicate()
    assert b"condition met" in out, err


async def test_delete_with_cascade(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", kubectl.file("web.json", deployment("lab/nginx:1")))
    await kubectl("delete", "deploy", "web", "--cascade=foreground", "--wait=false")
    meta = json.loads(await kubectl("get", "deploy", "web", "-o", "json"))["metadata"]
    assert meta["finalizers"] == ["foregroundDeletion"]
    assert meta["deletionTimestamp"]
    await kubectl("patch", "deploy", "web", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert "not found" in await kubectl("get", "deploy", "web", fails=True)
    for name in "abc":
        await kubectl("create", "configmap", name)
    await kubectl("delete", "configmap", "--all")
    assert "No resources found" in await kubectl("get", "configmaps")
