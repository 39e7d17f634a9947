"""A node's devices with real plugins on real sockets: what happens to capacity, and to who holds what."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import structlog
from grpclib import GRPCError
from grpclib.client import Channel
from structlog.testing import LogCapture

from minik8s.api.kinds.pod import Container, Pod, PodSpec, PodStatus, ResourceRequirements
from minik8s.api.meta import ObjectMeta
from minik8s.deviceplugin import Answer, Device, Plugin, PluginDevice, Refused, _Service, serve
from minik8s.kubelet.devices.errors import DevicesRefused, WaitingForPlugin
from minik8s.kubelet.devices.manager import DeviceManager
from minik8s.kubelet.devices.proto import deviceplugin_pb2 as pb
from minik8s.kubelet.devices.proto import podresources_pb2 as resources
from minik8s.kubelet.devices.proto.deviceplugin_grpc import RegistrationStub
from minik8s.kubelet.devices.proto.podresources_grpc import PodResourcesListerStub
from minik8s.kubelet.kit import Allocation, Amount

FOO = "vendor.example/foo"


class Made(Plugin):
    """What a test wants of a plugin; it tells what it was asked."""

    resource = FOO

    def __init__(self, *devices: Device) -> None:
        self.news: asyncio.Queue[Sequence[Device] | None] = asyncio.Queue()
        self.news.put_nowait(devices)
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.refusal = ""

    async def devices(self) -> AsyncIterator[Sequence[Device]]:
        while (listed := await self.news.get()) is not None:
            yield listed

    async def allocate(self, ids: Sequence[str]) -> Answer:
        self.asked.append(("allocate", tuple(ids)))
        if self.refusal:
            raise Refused(self.refusal)
        return Answer(envs={"FOO": ",".join(ids)}, devices=(PluginDevice("/dev/zero", "/dev/foo", "r"),))


class Choosy(Made):
    async def preferred(self, free: Sequence[str], must: Sequence[str], count: int) -> Sequence[str]:
        self.asked.append(("preferred", tuple(free)))
        return [*must, *(name for name in reversed(free) if name not in must)][:count]

    async def pre_start(self, ids: Sequence[str]) -> None:
        self.asked.append(("pre_start", tuple(ids)))


class Host:
    """A manager that runs, and what a test waits for."""

    def __init__(self, folder: Path, patience: float = 300.0) -> None:
        self.plugins = folder / "device-plugins"
        self.pods: list[Pod] = []
        self.woken: list[str] = []
        self.manager = DeviceManager(
            self.plugins, folder / "data", lambda: self.pods, patience=patience, cdi_folders=(folder / "cdi",)
        )
        self._event = asyncio.Event()
        self.manager.on_change(self._event.set, self._wake)

    def _wake(self, uid: str) -> None:
        self.woken.append(uid)
        self._event.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._event.clear()
                await self._event.wait()

    async def amount(self, capacity: int, allocatable: int) -> None:
        await self.until(lambda: self.manager.amounts().get(FOO) == Amount(capacity, allocatable))

    async def start(self, pod: Pod) -> list[Allocation]:
        await self.manager.admit(pod)
        return [await self.manager.allocate(pod, c) for c in (*pod.spec.initContainers, *pod.spec.containers)]


@asynccontextmanager
async def host(folder: Path, patience: float = 300.0) -> AsyncIterator[Host]:
    made = Host(folder, patience)
    running = asyncio.create_task(made.manager.run())
    try:
        async with asyncio.timeout(10):
            while not (made.plugins / "kubelet.sock").exists():  # the socket is made in another thread
                await asyncio.sleep(0.005)
        yield made
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled(), running.exception()


@asynccontextmanager
async def plugged(plugin: Plugin, host: Host, name: str = "") -> AsyncIterator[None]:
    task = asyncio.create_task(serve(plugin, host.plugins, socket_name=name))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def pod(uid: str, *counts: int, init: int = 0, resource: str = FOO) -> Pod:
    def container(name: str, count: int) -> Container:
        return Container(name=name, resources=ResourceRequirements(limits={resource: str(count)}))

    spec = PodSpec(
        initContainers=(container("init", init),) if init else (),
        containers=tuple(container(f"c{at}", count) for at, count in enumerate(counts)),
    )
    return Pod(metadata=ObjectMeta(name=uid, namespace="default", uid=uid), spec=spec)


def ids(given: Allocation) -> list[str]:
    return dict(given.env)["FOO"].split(",")


async def test_from_registration_to_the_end_of_the_plugin(tmp_path: Path) -> None:
    async with host(tmp_path, patience=0.2) as node:
        plugin = Made(Device("a"), Device("b", healthy=False))
        async with plugged(plugin, node):
            await node.amount(2, 1)
            plugin.news.put_nowait([Device("a"), Device("b"), Device("c")])
            await node.amount(3, 3)
        await node.amount(3, 0)
        await node.until(lambda: node.manager.amounts() == {FOO: None})
        async with plugged(Made(Device("a")), node):
            await node.amount(1, 1)


async def test_a_pod_gets_devices_and_gives_them_back(tmp_path: Path) -> None:
    async with host(tmp_path) as node:
        plugin = Choosy(*(Device(f"d{at}") for at in range(4)))
        async with plugged(plugin, node):
            await node.amount(4, 4)
            first = pod("p1", 2, init=1)
            init, app = await node.start(first)
            assert ids(init) == ["d3"]
            assert set(ids(app)) == {"d3", "d2"}, "what the init container had passes on; the rest is preferred"
            assert app.devices == (("/dev/zero", "/dev/foo", "r"),)
            assert ("pre_start", tuple(ids(app))) in plugin.asked
            asked = len([call for call, _ in plugin.asked if call == "allocate"])
            await node.start(first)
            assert len([call for call, _ in plugin.asked if call == "allocate"]) == asked, "a restart asks no more"
            with pytest.raises(DevicesRefused, match=r"unavailable for vendor.example/foo. Requested: 3, Available: 2"):
                await node.start(pod("p2", 3))
            node.manager.free("p1")
            assert len(ids((await node.start(pod("p3", 4)))[0])) == 4


async def test_devices_of_a_pod_that_has_ended_are_free_before_it_is_taken_down(tmp_path: Path) -> None:
    async with host(tmp_path) as node, plugged(Choosy(Device("a")), node):
        await node.amount(1, 1)
        ended = pod("p1", 1)
        await node.start(ended)
        node.pods.append(msgspec.structs.replace(ended, status=PodStatus(phase="Succeeded")))
        assert ids((await node.start(pod("p2", 1)))[0]) == ["a"]


async def test_many_at_once(tmp_path: Path) -> None:
    async with host(tmp_path) as node, plugged(Choosy(*(Device(f"d{at}") for at in range(8))), node):
        await node.amount(8, 8)
        started = await asyncio.gather(*(node.start(pod(f"p{at}", 2)) for at in range(40)), return_exceptions=True)
        given = [name for one in started if isinstance(one, list) for name in ids(one[0])]
        assert sorted(given) == sorted(f"d{at}" for at in range(8))
        assert sum(isinstance(one, DevicesRefused) for one in started) == 36


async def test_a_restarted_agent_knows_who_has_what_and_waits_for_plugins(tmp_path: Path) -> None:
    async with host(tmp_path) as node, plugged(Made(Device("a"), Device("b")), node):
        await node.amount(2, 2)
        before = await node.start(pod("p1", 1))
    (tmp_path / "device-plugins" / "old.sock").unlink(missing_ok=True)
    async with host(tmp_path) as node:
        await node.until(lambda: node.manager.amounts() == {FOO: Amount(0, 0)})
        assert await node.start(pod("p1", 1)) == before, "a crashed container starts again without the plugin"
        with pytest.raises(WaitingForPlugin, match=r"waiting for the device plugin of vendor\.example/foo"):
            await node.start(pod("p2", 1))
        async with plugged(Made(Device("a"), Device("b")), node):
            await node.until(lambda: "p2" in node.woken)
            assert ids((await node.start(pod("p2", 1)))[0]) == ["b"]
            node.manager.retain(["p2"])
            assert ids((await node.start(pod("p3", 1)))[0]) == ["a"]


async def test_waiting_has_an_end(tmp_path: Path) -> None:
    async with host(tmp_path) as node, plugged(Made(Device("a")), node):
        await node.amount(1, 1)
    async with host(tmp_path, patience=0.05) as node:
        await node.until(lambda: node.manager.amounts() == {FOO: None})
        with pytest.raises(WaitingForPlugin):
            await node.start(pod("p", 1))
        await asyncio.sleep(0.06)  # what is waited for is time
        with pytest.raises(DevicesRefused, match="has not registered for"):
            await node.start(pod("p", 1))


async def test_a_plugin_says_no(tmp_path: Path) -> None:
    async with host(tmp_path) as node:
        plugin = Made(Device("a"))
        plugin.refusal = "the fan is stuck"
        async with plugged(plugin, node):
            await node.amount(1, 1)
            with pytest.raises(DevicesRefused, match="Allocate failed due to Allocate: the fan is stuck"):
                await node.start(pod("p", 1))
            plugin.refusal = ""
            assert ids((await node.start(pod("p", 1)))[0]) == ["a"], "it was given back"


async def test_the_newest_registration_wins(tmp_path: Path) -> None:
    async with host(tmp_path) as node, plugged(Made(Device("old")), node, "one.sock"):
        await node.amount(1, 1)
        async with plugged(Made(Device("new"), Device("newer")), node, "two.sock"):
            await node.amount(2, 2)
            assert node.manager.healthy() == {FOO: ("new", "newer")}


@pytest.mark.parametrize(
    ("version", "resource", "endpoint", "words"),
    [
        ("v1alpha1", FOO, "x.sock", 'Supported version is "v1beta1"'),
        ("v1beta1", "foo", "x.sock", "must have a domain"),
        ("v1beta1", "node.kubernetes.io/foo", "x.sock", "must not be kubernetes.io"),
        ("v1beta1", FOO, "../x.sock", "name of a socket"),
        ("v1beta1", FOO, "kubelet.sock", "name of a socket"),
    ],
)
async def test_registrations_that_are_refused(
    tmp_path: Path, version: str, resource: str, endpoint: str, words: str
) -> None:
    async with host(tmp_path) as node:
        channel = Channel(path=str(node.plugins / "kubelet.sock"))
        request = pb.RegisterRequest(version=version, resource_name=resource, endpoint=endpoint)
        with pytest.raises(GRPCError) as caught:
            await RegistrationStub(channel).Register(request)
        channel.close()
        assert words in (caught.value.message or "")
        assert not node.manager.amounts()


async def test_an_endpoint_that_speaks_something_else(tmp_path: Path) -> None:
    async with host(tmp_path) as node:

        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9)
            writer.close()

        server = await asyncio.start_unix_server(babble, str(node.plugins / "bad.sock"))
        async with server:
            await node.manager.register(FOO, "bad.sock")
            async with plugged(Made(Device("a")), node):
                await node.amount(1, 1)


async def test_pod_resources(tmp_path: Path) -> None:
    async with host(tmp_path) as node, plugged(Made(Device("a", numa=(1,)), Device("b")), node):
        await node.amount(2, 2)
        node.pods = [pod("p1", 1), pod("p2")]
        await node.start(node.pods[0])
        channel = Channel(path=str(tmp_path / "pod-resources" / "kubelet.sock"))
        stub = PodResourcesListerStub(channel)
        listed = (await stub.List(resources.ListPodResourcesRequest())).pod_resources
        assert [one.name for one in listed] == ["p1", "p2"]
        (held,) = listed[0].containers[0].devices
        assert (held.resource_name, list(held.device_ids), [n.ID for n in held.topology.nodes]) == (FOO, ["a"], [1])
        everything = await stub.GetAllocatableResources(resources.AllocatableResourcesRequest())
        assert sorted(i for d in everything.devices for i in d.device_ids) == ["a", "b"]
        one = await stub.Get(resources.GetPodResourcesRequest(pod_name="p1", pod_namespace="default"))
        assert one.pod_resources == listed[0]
        with pytest.raises(GRPCError, match="not found"):
            await stub.Get(resources.GetPodResourcesRequest(pod_name="none", pod_namespace="default"))
        channel.close()


async def test_another_kubelet_keeps_its_sockets(tmp_path: Path) -> None:
    async with host(tmp_path) as first:
        second = Host(tmp_path)
        running = asyncio.create_task(second.manager.run())
        async with plugged(Made(Device("a")), first):
            await first.amount(1, 1)
            assert not second.manager.amounts()
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize("name", ["file/device-plugins", "x" * 120])
async def test_a_folder_that_cannot_be_had(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No directory, or longer than a socket's path may be: a warning, and a node without devices."""
    (tmp_path / "file").touch()
    said = LogCapture()
    monkeypatch.setattr("minik8s.kubelet.devices.manager.log", structlog.wrap_logger(None, processors=[said]))
    manager = DeviceManager(tmp_path / name, tmp_path / "data", list)
    running = asyncio.create_task(manager.run())
    await manager.admit(pod("p", 1))
    async with asyncio.timeout(10):
        while "no device plugins on this node" not in [entry["event"] for entry in said.entries]:
            await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_a_plugin_whose_node_has_gone_stops_listing_quietly() -> None:
    listed = asyncio.Event()

    class Gone:
        async def recv_message(self) -> None:
            pass

        async def send_message(self, message: pb.ListAndWatchResponse) -> None:
            listed.set()

        async def cancel(self) -> None:
            raise RuntimeError("unable to perform operation: the handler is closed")

    listing = asyncio.create_task(_Service(Made(Device("a"))).ListAndWatch(Gone()))  # type: ignore[arg-type]
    await listed.wait()
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listing


async def test_a_checkpoint_that_is_broken_is_kept_aside(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "devices.json").write_text("{")
    async with host(tmp_path) as node, plugged(Made(Device("a")), node):
        await node.amount(1, 1)
        await node.start(pod("p", 1))
    assert (tmp_path / "data" / "devices.broken").read_text() == "{"


def test_grpc_is_not_loaded_before_a_plugin_comes() -> None:
    check = "import sys, minik8s.roles.node; sys.exit('grpclib' in sys.modules or 'google.protobuf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
