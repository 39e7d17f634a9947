"""A real API server and a real kubelet server on TLS sockets, with a runtime below and kubectl before them.

Pods are made by hand, without a kubelet's loops: what is tested is the way of the bytes.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minik8s import pki
from minik8s.aio import background
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.apiserver.app import ApiServer
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import User
from minik8s.apiserver.handler import AllowAll
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.apiserver.streaming import NodeStreams
from minik8s.client.base import Client
from minik8s.client.informer import Informer
from minik8s.kubelet.lookup import RuntimeLookup
from minik8s.kubelet.server import KubeletServer
from minik8s.runtime.base import ContainerSpec, Runtime, SandboxSpec
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache
from tests.images import BUSYBOX
from tests.kubectls import BOTH

ADMIN = User("admin", ("system:masters", "system:authenticated"))
BINARIES = Path("/usr/lib/google-cloud-sdk/bin")
_VERSIONS = [BINARIES / f"kubectl.1.{minor}" for minor in (27, 30, 33)]
KUBECTLS = [path for path in _VERSIONS if path.exists()] or BOTH


@dataclass
class Ended:
    code: int
    out: bytes
    err: str


@dataclass
class Cluster:
    client: Client
    runtime: Runtime
    pods: Informer[Pod]
    folder: Path
    api: tuple[str, int]
    kubelet: tuple[str, int]
    trust: ssl.SSLContext
    master: ssl.SSLContext
    stranger: ssl.SSLContext
    uids: dict[str, str] = field(default_factory=dict)

    async def pod(self, name: str, *command: str, containers: Sequence[str] = ("app",), **spec: Any) -> str:
        """A pod whose containers run `command`; the id of the first."""
        made = [{"name": c, "image": BUSYBOX, "command": list(command), **spec} for c in containers]
        body = {"metadata": {"name": name}, "spec": {"nodeName": "n1", "containers": made}}
        pod = await self.client.create(Pod, body, "default")
        uid = self.uids[name] = pod.metadata.uid
        sandbox_spec = SandboxSpec(uid, name, "default", hostname=name)
        sandbox = await self.runtime.create_sandbox(sandbox_spec)
        await self.runtime.start_sandbox(sandbox)
        ids = []
        for c in containers:
            ids.append(
                await self.runtime.create_container(
                    ContainerSpec(
                        uid, name, "default", c, 0, "h", BUSYBOX, sandbox_spec, sandbox, command=command,
                        tty=spec.get("tty", False), stdin=spec.get("stdin", False),
                    )
                )
            )  # fmt: skip
            await self.runtime.start(ids[-1])
        statuses = [
            {"name": c, "image": BUSYBOX, "imageID": "", "ready": True, "restartCount": 0,
             "containerID": f"docker://{i}", "state": {"running": {"startedAt": "2024-01-01T00:00:00Z"}}}
            for c, i in zip(containers, ids, strict=True)
        ]  # fmt: skip
        status = {
            "phase": "Running",
            "containerStatuses": statuses,
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        patched = await self.client.patch(Pod, name, "default", {"status": status}, subresource="status")
        await self.pods.caught_up(patched.metadata.resourceVersion)
        return ids[0]

    async def until_exited(self, container_id: str) -> None:
        """Return when a container has ended by itself."""
        async with asyncio.timeout(20):
            while any(i.id == container_id and i.state != "exited" for i in await self.runtime.containers()):
                await asyncio.sleep(0.02)

    async def restart(self, name: str, *command: str) -> None:
        """A further attempt of the pod's container, as a kubelet would make it."""
        uid, sandbox = self.uids[name], next(i for i in await self.runtime.containers(self.uids[name]) if i.is_sandbox)
        sandbox_spec = SandboxSpec(uid, name, "default", hostname=name)
        spec = ContainerSpec(uid, name, "default", "app", 1, "h", BUSYBOX, sandbox_spec, sandbox.id, command=command)
        await self.runtime.start(await self.runtime.create_container(spec))

    def command(self, kubectl: Path, *args: str) -> list[str]:
        server = f"--server=https://{self.api[0]}:{self.api[1]}"
        return [
            str(kubectl),
            server,
            f"--certificate-authority={self.folder}/ca.crt",
            f"--cache-dir={self.folder}",
            "--token=t",
            *args,
        ]

    async def start(self, kubectl: Path, *args: str, **more: Any) -> asyncio.subprocess.Process:
        env = {"HOME": str(self.folder), "PATH": "/usr/bin:/bin", "KUBECONFIG": "/dev/null", "TERM": "xterm"}
        pipes = {
            "stdin": asyncio.subprocess.DEVNULL,
            "stdout": asyncio.subprocess.PIPE,
            "stderr": asyncio.subprocess.PIPE,
        }
        return await asyncio.create_subprocess_exec(*self.command(kubectl, *args), env=env, **(pipes | more))

    async def kubectl(self, kubectl: Path, *args: str, stdin: bytes | None = None) -> Ended:
        more = {} if stdin is None else {"stdin": asyncio.subprocess.PIPE}
        process = await self.start(kubectl, *args, **more)
        out, err = await process.communicate(stdin)
        return Ended(process.returncode or 0, out, err.decode())

    def connections(self) -> int:
        """Tasks that serve something; what is left over after a client has gone is a leak."""
        return len(asyncio.all_tasks())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds: of what happens in other processes nobody tells us."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.02)


def _certificates(folder: Path) -> None:
    ca = pki.new_ca("test")
    (folder / "ca.crt").write_bytes(ca.certificate)
    pairs = {
        "api": pki.issue(ca, "kube-apiserver", names=["127.0.0.1"], server=True, client=False),
        "kubelet": pki.issue(ca, "system:node:n1", names=["127.0.0.1"], server=True, client=False),
        "master": pki.issue(ca, "kube-apiserver-kubelet-client", organizations=("system:masters",)),
        "stranger": pki.issue(ca, "system:node:n2", organizations=("system:nodes",)),
    }
    for name, pair in pairs.items():
        (folder / f"{name}.crt").write_bytes(pair.certificate)
        (folder / f"{name}.key").write_bytes(pair.key)


def _serving(folder: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _trusting(folder: Path, name: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    if name:
        context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    return context


@asynccontextmanager
async def cluster(runtime: Runtime) -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _certificates(folder)
        async with MemoryStore() as store, WatchCache(store) as cache:
            handler = build_handler(cache, authenticator=None, authorizer=AllowAll())
            client = Client(LoopbackTransport(handler, ADMIN))
            await client.create(Namespace, {"metadata": {"name": "default"}})
            await client.create(Node, {"metadata": {"name": "n1"}})
            pods = Informer(client, client.resource(Pod), Pod, fields="spec.nodeName=n1")
            master = _trusting(folder, "master")
            api = ApiServer(handler, streams=NodeStreams(client, master))
            server = KubeletServer(
                runtime, RuntimeLookup(pods, runtime), pods, pages={"/metrics": _metrics, "/pod-network": _empty},
                readers=[("system:node:n2", "/pod-network")],
            )  # fmt: skip
            async with (
                background(pods.run()),
                server.listening("127.0.0.1", 0, _serving(folder, "kubelet")) as kubelet,
                api.listening("127.0.0.1", 0, _serving(folder, "api")) as address,
            ):
                status = {
                    "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                    "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet[1]}},
                }
                await client.patch(Node, "n1", None, {"status": status}, subresource="status")
                yield Cluster(
                    client,
                    runtime,
                    pods,
                    folder,
                    address,
                    kubelet,
                    _trusting(folder),
                    master,
                    _trusting(folder, "stranger"),
                )


async def _empty() -> tuple[str, bytes]:
    return "application/json", b"{}"


async def _metrics() -> tuple[str, bytes]:
    return "text/plain; version=0.0.4", b"up 1\n"
