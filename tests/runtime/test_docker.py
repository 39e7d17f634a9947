"""What only a real engine shows: namespaces, cgroups, terminals, a stream that breaks, a registry that refuses."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from minik8s.runtime.base import (
    CreateFailed,
    EngineConflict,
    EngineUnavailable,
    ImagePullFailed,
    Mount,
    NoSuchContainer,
    RegistryAuth,
    SandboxSpec,
    StartFailed,
)
from minik8s.runtime.docker import DockerRuntime
from minik8s.runtime.pause import image_name, layer
from tests.images import BUSYBOX
from tests.runtime.conftest import Pod

pytestmark = pytest.mark.docker


def _netns(process: int | str) -> str:
    return os.readlink(f"/proc/{process}/ns/net")


SERVER = ("sh", "-c", "while true; do echo hello | nc -l -p 8080; done")


async def test_containers_of_a_pod_share_name_network_and_ipc(docker: DockerRuntime, docker_pod: Pod) -> None:
    pod = await docker_pod.up()
    server = await pod.run(*SERVER, name="server")
    client = await pod.run("sleep", "600", name="client")
    asked = "hostname; until nc 127.0.0.1 8080; do sleep 0.05; done; readlink /proc/1/ns/ipc"
    names = [(await docker.exec_sync(each, ["sh", "-c", asked], 10)).output.split() for each in (server, client)]
    assert names[0] == names[1]
    assert names[0][:2] == [b"web-0", b"hello"]


async def test_the_sandbox_has_an_empty_network_of_its_own(docker: DockerRuntime, docker_pod: Pod) -> None:
    pod = await docker_pod.up()
    app = await pod.run("sleep", "600")
    links = (await docker.exec_sync(app, ["ls", "/sys/class/net"], 10)).output.split()
    assert b"lo" in links
    assert b"eth0" not in links
    assert _netns(await docker.start_sandbox(pod.sandbox)) != _netns("self")


async def test_the_sandbox_reaps_orphans_of_a_shared_pid_namespace(docker: DockerRuntime, docker_pod: Pod) -> None:
    pod = docker_pod
    pod.spec = SandboxSpec(pod.uid, "web-0", "default", hostname="web-0", share_pid=True)
    await pod.up()
    app = await pod.run("sh", "-c", "(sleep 0.05 &) ; exec sleep 600")
    # The orphan becomes a child of process 1, which is the sandbox's.
    script = "sleep 0.3; ps -o pid,stat,args"
    listing = (await docker.exec_sync(app, ["sh", "-c", script], 10)).output.decode()
    assert "/pause" in listing
    assert " Z" not in listing
    await docker.stop(pod.sandbox, 5)
    sandbox = next(info for info in await docker.containers(pod.uid) if info.is_sandbox)
    assert (sandbox.state, sandbox.exit_code) == ("exited", 0)


async def test_dial_reaches_the_pods_own_localhost(docker: DockerRuntime, docker_pod: Pod) -> None:
    pod = await docker_pod.up()
    app = await pod.run(*SERVER)
    await docker.exec_sync(app, ["sh", "-c", "until netstat -ltn | grep -q :8080; do sleep 0.02; done"], 10)
    home = _netns("self")
    async with docker.dial(pod.sandbox, 8080) as port:
        await port.close_write()
        assert await port.read() == b"hello\n"
        assert await port.read() == b""
    # The worker thread that went there has come back.
    assert await asyncio.to_thread(_netns, "thread-self") == home


async def test_a_terminal(docker: DockerRuntime, docker_pod: Pod) -> None:
    pod = await docker_pod.up()
    app = await pod.run("sleep", "600")
    async with docker.exec(app, ["sh"], stdin=True, tty=True) as streams:
        await streams.resize(91, 37)
        await streams.write(b"stty size; exit 4\n")
        output = b""
        while (piece := await streams.read()) is not None:
            output += piece[1]
        assert b"37 91" in output
        assert await streams.exit_code() == 4


async def test_exec_of_a_missing_program(docker: DockerRuntime, docker_pod: Pod) -> None:
    app = await (await docker_pod.up()).run("sleep", "600")
    result = await docker.exec_sync(app, ["nope"], 10)
    assert result.exit_code in (126, 127)
    assert b"executable file not found" in result.output


async def test_exec_that_times_out_is_killed(docker: DockerRuntime, docker_pod: Pod) -> None:
    app = await (await docker_pod.up()).run("sleep", "600")
    with pytest.raises(TimeoutError):
        await docker.exec_sync(app, ["sleep", "4321"], 0.3)
    assert b"4321" not in (await docker.exec_sync(app, ["ps", "-o", "args"], 10)).output


async def test_output_of_exec_is_bounded(docker: DockerRuntime, docker_pod: Pod) -> None:
    app = await (await docker_pod.up()).run("sleep", "600")
    result = await docker.exec_sync(app, ["sh", "-c", "yes | head -c 1000000; exit 5"], 10)
    assert (result.exit_code, len(result.output)) == (5, 16 << 10)


async def test_start_failures(docker: DockerRuntime, docker_pod: Pod) -> None:
    pod = await docker_pod.up()
    for command, words, code in (("nope", "executable file not found", 127), ("/etc/passwd", "permission denied", 126)):
        with pytest.raises(StartFailed, match=words):
            await pod.run(command)
        info = next(info for info in await docker.containers(pod.uid) if info.name == "app")
        assert (info.state, info.exit_code) == ("exited", code)
        assert words in info.error


async def test_memory_limit_kills(docker: DockerRuntime, docker_pod: Pod) -> None:
    pod = await docker_pod.up()
    app = await pod.run("sh", "-c", "tail -c 200m /dev/zero", memory=16 << 20)
    async with docker.logs(app, follow=True) as lines:
        async for _ in lines:
            pass
    info = next(info for info in await docker.containers(pod.uid) if info.name == "app")
    assert (info.exit_code, info.oom_killed) == (137, True)


async def test_security(docker: DockerRuntime, docker_pod: Pod) -> None:
    pod = await docker_pod.up()
    app = await pod.run(
        "sleep",
        "600",
        user="1000:2000",
        groups=("3000",),
        cap_drop=("ALL",),
        no_new_privileges=True,
        read_only_root=True,
    )
    script = "exec 2>&1; id -u; id -g; id -G; grep -E 'CapBnd|NoNewPrivs' /proc/1/status; touch /x"
    output = (await docker.exec_sync(app, ["sh", "-c", script], 10)).output.decode()
    assert output.startswith("1000\n2000\n2000 3000\n")
    assert "CapBnd:\t0000000000000000" in output
    assert "NoNewPrivs:\t1" in output
    assert "Read-only file system" in output


async def test_the_whole_disk_of_the_host_can_be_mounted(docker: DockerRuntime, docker_pod: Pod) -> None:
    """As `kubectl debug node/NAME` does; Docker's own folder is below it, whose mounts it shares with nobody."""
    app = await (await docker_pod.up()).run("sleep", "600", mounts=(Mount("/", "/host", read_only=True),))
    assert (await docker.exec_sync(app, ["test", "-e", "/host/etc/os-release"], 10)).exit_code == 0


async def test_privileged_as_far_as_this_host_lets(docker: DockerRuntime, docker_pod: Pod) -> None:
    app = await (await docker_pod.up()).run("sleep", "600", privileged=True, oom_score_adj=-999)
    output = (await docker.exec_sync(app, ["sh", "-c", "mount -t tmpfs none /tmp && echo mounted"], 10)).output
    assert output == b"mounted\n"


async def _until(events: AsyncIterator[object], action: str) -> AsyncIterator[object]:
    async for event in events:
        yield event
        if event.action == action:  # type: ignore[attr-defined]
            return


async def test_two_agents_on_one_engine_do_not_mix(docker: DockerRuntime, docker_pod: Pod) -> None:
    await docker_pod.up()
    async with DockerRuntime(f"test-{uuid.uuid4()}") as other:
        assert await other.containers() == []
        assert await other.containers(docker_pod.uid) == []


async def test_a_pruned_pause_image_is_made_again(docker: DockerRuntime, docker_pod: Pod) -> None:
    name = image_name("amd64")
    # By force only the name goes, and other agents' sandboxes live on.
    await asyncio.to_thread(subprocess.run, ["docker", "image", "rm", "-f", name], check=True, capture_output=True)
    assert await docker.image(name) is None
    await docker_pod.up()
    assert await docker.image(name) is not None


async def test_a_sandbox_that_is_gone(docker: DockerRuntime, docker_pod: Pod) -> None:
    pod = await docker_pod.up()
    await docker.remove(pod.sandbox)
    with pytest.raises(CreateFailed):
        await pod.run("true")
    with pytest.raises(NoSuchContainer):
        async with docker.dial(pod.sandbox, 80):
            pass


# -- an engine that goes away


class Wire:
    """A socket of our own in front of the engine's, that can be cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def up(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def up_on_tcp(self) -> tuple[str, int]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        return self._server.sockets[0].getsockname()  # type: ignore[no-any-return]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def hang(self) -> None:
        """What is connected stays so, and carries nothing any more."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_unix_connection("/var/run/docker.sock")
        self._writers += [writer, engine_writer]
        for source, sink in ((reader, engine_writer), (engine_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    @staticmethod
    async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
            sink.write_eof()


async def test_a_cut_event_stream_goes_on_with_a_relist(docker: DockerRuntime, tmp_path: Path) -> None:
    wire = Wire(tmp_path / "docker.sock")
    await wire.up()
    async with DockerRuntime(docker._node_uid, docker_host=f"unix://{wire.path}") as runtime, asyncio.timeout(20):
        async with runtime.events() as events:
            first = await Pod(docker).up()
            assert [(await anext(events)).pod_uid for _ in ("create", "start")] == [first.uid, first.uid]
            await wire.cut()
            with pytest.raises(EngineUnavailable):
                await runtime.containers()
            missed = await Pod(docker).up()
            await wire.up()
            seen = [event async for event in _until(events, "relist")]
            assert seen[-1].pod_uid == ""  # type: ignore[attr-defined]
            # What happened meanwhile is told too, once.
            later = [await anext(events), await anext(events)]
            assert [(e.pod_uid, e.action) for e in later] == [(missed.uid, "create"), (missed.uid, "start")]
    await wire.cut()


async def test_an_event_stream_that_hangs_is_asked_for_anew(docker: DockerRuntime, tmp_path: Path) -> None:
    wire = Wire(tmp_path / "docker.sock")
    await wire.up()
    host = f"unix://{wire.path}"
    async with DockerRuntime(docker._node_uid, docker_host=host, silence=0.3) as runtime, asyncio.timeout(20):
        async with runtime.events() as events:
            first = await Pod(docker).up()
            assert [(await anext(events)).pod_uid for _ in ("create", "start")] == [first.uid, first.uid]
            await wire.hang()
            missed = await Pod(docker).up()
            later = [await anext(events), await anext(events)]
            assert [(e.pod_uid, e.action) for e in later] == [(missed.uid, "create"), (missed.uid, "start")]
            await docker.remove(missed.sandbox)  # after some silence, in which nothing has been told twice
            assert [(await anext(events)).action for _ in ("die", "destroy")] == ["die", "destroy"]
    await wire.cut()


async def test_an_engine_at_the_end_of_a_tcp_connection(docker: DockerRuntime, docker_pod: Pod, tmp_path: Path) -> None:
    app = await (await docker_pod.up()).run("sleep", "600")
    wire = Wire(tmp_path / "unused")
    host, port = await wire.up_on_tcp()
    async with DockerRuntime(docker._node_uid, docker_host=f"tcp://{host}:{port}") as runtime:
        assert {info.name for info in await runtime.containers(docker_pod.uid)} == {"POD", "app"}
        async with runtime.exec(app, ["cat"], stdin=True, tty=False) as streams:
            await streams.write(b"far")
            await streams.close_stdin()
            assert await streams.read() == (1, b"far")
            assert await streams.exit_code() == 0
    await wire.cut()


async def test_no_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"docker\.sock"):
        async with DockerRuntime("x", docker_host=f"unix://{tmp_path}/docker.sock"):
            pass
    with pytest.raises(ValueError, match="--docker-host"):
        DockerRuntime("x", docker_host="http//nope")


# -- a registry


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
async def registry() -> AsyncIterator[str]:
    """A registry with one image `mine/pause:1`, open to user `me` with password `secret`; its host:port."""
    content = layer("amd64")
    rootfs = {"type": "layers", "diff_ids": [_digest(content)]}
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"], "User": "7"}, "rootfs": rootfs}
    ).encode()
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": len(config),
            "digest": _digest(config),
        },
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
            "size": len(content),
            "digest": _digest(content),
        }],
    }).encode()  # fmt: skip
    blobs = {_digest(config): config, _digest(content): content}
    allowed = "Basic " + base64.b64encode(b"me:secret").decode()

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != allowed:
            return web.json_response(
                {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]},
                status=401,
                headers={"WWW-Authenticate": 'Basic realm="test"'},
            )
        what = request.path.rpartition("/")[2]
        if "/blobs/" in request.path:
            return web.Response(body=blobs[what], content_type="application/octet-stream")
        if "/manifests/" in request.path and what in ("1", _digest(manifest)):
            return web.Response(
                body=manifest, headers={"Content-Type": kind, "Docker-Content-Digest": _digest(manifest)}
            )
        if request.path == "/v2/":
            return web.json_response({})
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}, status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_pull(docker: DockerRuntime, registry: str) -> None:
    right, wrong = RegistryAuth("me", "secret", registry), RegistryAuth("me", "wrong", registry)
    reference = f"{registry}/mine/pause:1"
    with pytest.raises(ImagePullFailed, match="no basic auth credentials"):
        await docker.pull(reference)
    with pytest.raises(ImagePullFailed):
        await docker.pull(reference, [wrong])
    with pytest.raises(ImagePullFailed, match="manifest unknown"):
        await docker.pull(f"{registry}/mine/pause:2", [right])
    image = await docker.pull(reference, [wrong, right])
    assert reference in image.names
    assert (image.user, image.entrypoint) == ("7", ("/pause",))
    assert await docker.image(reference) == image
    assert await docker.remove_image(image.id) == image.size
    assert await docker.image(reference) is None


async def test_volumes_and_networks_of_the_engine_are_told_and_discarded(docker: DockerRuntime) -> None:
    name = f"minik8s-test-{uuid.uuid4().hex[:8]}"
    await docker.json("POST", "volumes/create", body={"Name": name, "Labels": {"mine": "yes"}})
    network = (await docker.json("POST", "networks/create", body={"Name": name, "Internal": True}))["Id"]
    body = {"Image": BUSYBOX, "Cmd": ["sleep", "600"], "HostConfig": {"Binds": [f"{name}:/data"], "NetworkMode": name}}
    user = (await docker.json("POST", "containers/create", {"name": name}, body=body))["Id"]
    try:
        await docker.json("POST", f"containers/{user}/start")
        found = await docker.inventory(sizes=True)
        (volume,) = [each for each in found.volumes if each.id == name]
        assert (volume.driver, volume.labels, volume.size, volume.used_by) == ("local", {"mine": "yes"}, 0, (name,))
        (net,) = [each for each in found.networks if each.id == network]
        assert (net.name, net.internal, len(net.subnets), net.used_by) == (name, True, 1, (name,))
        (container,) = [each for each in found.containers if each.id == user]
        assert (container.volumes, list(container.networks)) == ((name,), [name])
        assert container.networks[name].count(".") == 3
        for kind, id in (("volumes", name), ("networks", network)):
            with pytest.raises(EngineConflict):
                await docker.discard(kind, id)
    finally:
        await docker.remove(user)
    await docker.discard("volumes", name)
    await docker.discard("networks", network)
    left = await docker.inventory()
    assert not {name, network} & {each.id for each in (*left.volumes, *left.networks)}
