"""A node: runtime, pod network, kubelet, service proxy and DNS, all clients of the API; or many simulated ones.

In the master's process the API is reached by loopback, elsewhere by HTTPS; in both cases as `system:node:NAME`, with
that user's rights and no others.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from minik8s.aio import backoff, supervise
from minik8s.api.errors import AlreadyExists, NotFound, StatusError
from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.ingress import Ingress
from minik8s.api.kinds.node import RANGE_ANNOTATION, SIMULATED_BY, Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.api.meta import is_true
from minik8s.apiserver.auth import AUTHENTICATED, NODE_PREFIX, NODES, User
from minik8s.client.base import STRATEGIC_MERGE_PATCH, Client
from minik8s.client.http import HttpTransport
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.config import Config, fake_devices
from minik8s.faas.environments.sweep import keep_swept
from minik8s.kubelet import accelerators
from minik8s.kubelet.devices.manager import DeviceManager, as_page
from minik8s.kubelet.figures_node import read_node, simulated
from minik8s.kubelet.figures_sampler import Pages, Sampler, steady
from minik8s.kubelet.kit import Settings
from minik8s.kubelet.kubelet import Kubelet
from minik8s.kubelet.lookup import RuntimeLookup
from minik8s.kubelet.node_facts import RoutesState, read_facts
from minik8s.kubelet.node_status import NameTaken
from minik8s.kubelet.pod_source import SharedPods, own_pods
from minik8s.kubelet.server import KubeletServer, Page
from minik8s.log import get_logger
from minik8s.net.base import PodNetwork
from minik8s.net.dns import ClusterDns
from minik8s.net.dns_forward import Forwarder
from minik8s.net.dns_zone import reverse_zones
from minik8s.net.fake import FakePodNetwork
from minik8s.net.host_resolver import HostResolver
from minik8s.net.netlink import Netlink
from minik8s.net.nftables import Nftables
from minik8s.net.peers import PeerRoutes
from minik8s.net.prober import Prober
from minik8s.net.proxy import ServiceProxy
from minik8s.net.routed import RoutedPodNetwork
from minik8s.net.routes import OVERHEAD, Peer
from minik8s.roles.address import follow_address
from minik8s.roles.agent_image import agent_image
from minik8s.roles.gateway import gateway_activities, open_gateway
from minik8s.roles.identity import IdentityError, NodeIdentity, local_node_identity
from minik8s.roles.join import join, renew
from minik8s.roles.listening import listening_at
from minik8s.roles.renewal import Credentials
from minik8s.runtime.base import EngineUnavailable, Runtime
from minik8s.runtime.fake import FakeRuntime

if TYPE_CHECKING:
    from minik8s.roles.master import Master

Activity = tuple[str, Coroutine[Any, Any, Any]]

DNS_LINK = "mk8s-dns"
KNOWN_PATIENCE = 1.0  # seconds for the master to say which range is ours, if we know which it was
SERVED = 100  # simulated nodes that answer logs and exec; a socket each
SIMULATED_EVENTS = 2  # of all simulated nodes together that are written at once
log = get_logger("node")


async def run_node(config: Config, identity: NodeIdentity | None, master: Master | None) -> None:
    """Be a node (or `config.replicas` simulated ones) for ever. `master` is the one in this process, if any."""
    async with AsyncExitStack() as stack:
        if master is None or identity is None:
            identity = await join(config)
            credentials = Credentials(identity.certificates, lambda: renew(config))
            credentials.nudge()  # what an earlier agent has left may be old
            context = credentials.client(identity.client, identity.ca_file)
            transport = await stack.enter_async_context(HttpTransport(config.server, context))
            client, readdressed = Client(transport), transport.reconnect
        else:
            ca = master.identity.ca
            credentials = Credentials(identity.certificates, lambda: asyncio.to_thread(local_node_identity, config, ca))
            client, readdressed = (
                master.client(User(NODE_PREFIX + config.name, (NODES, AUTHENTICATED))),
                master.readdress,
            )
        informers = Informers(client)
        if config.runtime == "fake":
            tls = credentials.server(identity.serving, identity.ca_file)
            activities = simulated_nodes(config, client, informers, tls, identity=identity)
        else:
            activities = await _real(config, identity, credentials, client, informers, readdressed, stack)
        common = [("node informers", informers.run()), ("node certificates", credentials.run())]
        try:
            await supervise([*common, *activities, ("ready", _tell_ready(config, informers))])
        except* NameTaken as group:
            raise IdentityError(str(group.exceptions[0])) from None


def _made_images(config: Config) -> dict[str, list[str]]:
    """Images that this node makes of its own programs instead of pulling them."""
    found: dict[str, list[str]] = {}
    if config.functions:
        from minik8s.faas.runtime_image import image_name

        found[image_name()] = [sys.executable, "-m", "minik8s.faas.runtime_image"]
    if config.gpu_jobs:
        found[agent_image()] = [sys.executable, "-m", "minik8s.roles.agent_image"]
    return found


async def _real(
    config: Config,
    identity: NodeIdentity,
    credentials: Credentials,
    client: Client,
    informers: Informers,
    readdressed: Callable[[], Awaitable[None]],
    stack: AsyncExitStack,
) -> list[Activity]:
    """The parts of a node on a Docker Engine and this kernel's network."""
    from minik8s.runtime.docker import DockerRuntime

    engine = DockerRuntime(identity.uid, docker_host=config.docker_host, made_images=_made_images(config))
    runtime = await _entered(engine, stack)
    netlink = await stack.enter_async_context(Netlink())
    nftables = await stack.enter_async_context(Nftables())
    pod_cidr = await _pod_cidr(config, client)
    ranges = {"cluster_cidr": config.pod_cidr, "service_cidr": config.service_cidr}
    overhead = 0 if config.pod_network == "routes" else OVERHEAD
    network = RoutedPodNetwork(
        pod_cidr, config.path("net"), netlink, nftables, node_ip=config.ip, overhead=overhead, **ranges
    )
    await stack.enter_async_context(network)
    await netlink.hold_address(DNS_LINK, config.dns_ip)
    services, slices = informers.of(Service), informers.of(EndpointSlice)
    proxy = ServiceProxy(
        services, slices, config.name, nftables, own_addresses=[config.dns_ip], **ranges
    )  # fmt: skip
    resolver = host_resolver(config)
    dns = ClusterDns(
        services,
        slices,
        config.cluster_domain,
        (config.dns_ip, 53),
        ingresses=informers.of(Ingress),
        ranges=[config.pod_cidr, config.service_cidr],
        forwarder=Forwarder(own=[config.dns_ip], source=resolver.text),
        memory=config.path("net", "names.json"),
    )
    recorder = Recorder(client, "kubelet", host=config.name)
    pods = own_pods(informers, config.name)
    settings, facts = _settings(config, identity), read_facts(config.data_dir)
    devices = DeviceManager(config.device_plugins, config.path("kubelet"), pods.list)
    kubelet = Kubelet(
        client, informers, runtime, network, recorder, settings, pods=pods, devices=devices, facts=facts,
        withdrawn=proxy.withdrawn,
    )  # fmt: skip
    devices.nvidia = lambda: kubelet.node.engine is not None and "nvidia" in kubelet.node.engine.runtimes
    own = Peer(config.name, config.ip, pod_cidr)
    peers = PeerRoutes(
        informers.of(Node), own, netlink, config.path("net"), config.pod_network, kubelet.node.nudge
    )  # fmt: skip
    kubelet.node.routes = lambda: RoutesState(*peers.condition)

    def tell(words: str) -> None:
        if kubelet.node.node is not None:
            recorder.event(kubelet.node.node, "Warning", "PodNetworkUnreachable", words)

    prober = await stack.enter_async_context(Prober(peers, netlink, network.mtu, tell))

    async def reached() -> tuple[str, bytes]:
        return "application/json", msgspec.json.encode({"reached": [each._asdict() for each in await prober.all()]})

    sampler = Sampler(pods, runtime, lambda _: read_node(config.data_dir))
    has_accelerators = accelerators.present()
    figures = Pages(config.name, sampler, facts.cpus, has_accelerators=has_accelerators).pages()

    async def told_devices() -> tuple[str, bytes]:
        return "application/json", as_page(devices)

    pages = {**figures, "/pod-network": reached, "/devices": told_devices}
    gateway = open_gateway(config, client, informers)
    queried = {} if gateway is None else {"/functions/calls": gateway.page}
    server = KubeletServer(
        runtime, RuntimeLookup(pods, runtime), pods, pages=pages, queried=queried,
        readers=[(NODE_PREFIX + config.name, "/pod-network")],  # 'minik8s join', on this machine
    )  # fmt: skip
    context = credentials.server(identity.serving, identity.ca_file)

    async def readdress(address: str) -> None:
        await readdressed()  # connections from the old address are dead, though nobody says so
        kubelet.node.readdress(address)
        credentials.nudge()

    if not config.host_dns:
        await asyncio.to_thread(resolver.give_back)
    return [
        ("network", network.run()),
        ("peers", peers.run()),
        ("reach", prober.run()),
        ("proxy", proxy.run()),
        ("dns", dns.run()),
        *([("host resolver", resolver.run())] if config.host_dns else []),
        ("kubelet events", recorder.run()),
        ("devices", devices.run()),
        *([("fake devices", _fake_devices(config))] if config.fake_device else []),
        ("kubelet", kubelet.run()),
        ("kubelet server", _serve(server, config.kubelet_port, context)),
        ("figures", sampler.run()),
        *gateway_activities(config, gateway, client, identity, credentials),
        ("environments", keep_swept(config.path("environments"), client, pods.list)),
        ("address", follow_address(config, kubelet.settings.node_ip, readdress)),
    ]


def host_resolver(config: Config) -> HostResolver:
    """Of this host; the domains are those that the cluster's DNS is the authority of."""
    ranges = (config.pod_cidr, config.service_cidr)
    domains = [config.cluster_domain, *(zone for cidr in ranges for zone in reverse_zones(cidr))]
    return HostResolver(config.path("net"), config.dns_ip, domains)


async def _fake_devices(config: Config) -> None:
    from minik8s.kubelet.devices.fake import serve_fakes

    await serve_fakes(fake_devices(config.fake_device), config.device_plugins)


async def _serve(server: KubeletServer, port: int, context: ssl.SSLContext) -> None:
    async with AsyncExitStack() as stack:
        with listening_at("0.0.0.0", port, "kubelet", "--kubelet-port"):
            await stack.enter_async_context(server.listening("0.0.0.0", port, context))
        await asyncio.Event().wait()


def simulated_nodes(
    config: Config,
    client: Client,
    informers: Informers,
    tls: ssl.SSLContext | None = None,
    *,
    identity: NodeIdentity | None = None,
    here: dict[str, Page] | None = None,
) -> list[Activity]:
    """`config.replicas` nodes whose containers only pretend; they share one copy of the pods.

    With `tls` the first `SERVED` of them answer logs and exec, each on a port of its own from `config.kubelet_port` up.
    `here` takes what makes their figures, for an API server in this process.
    """
    pods = SharedPods(informers.of(Pod))
    recorder = Recorder(client, "kubelet", host=config.name)
    facts, started = read_facts(None), time.time()
    # All nodes' events go by few connections, of which there are few in all: statuses and heartbeats go before.
    activities: list[Activity] = [("kubelet events", recorder.run(writers=SIMULATED_EVENTS))]
    for number in range(config.replicas):
        name = config.name if config.replicas == 1 else f"{config.name}-{number}"
        settings = Settings(
            node_name=name,
            node_ip=config.ip,
            data_dir=None,
            node_uid=identity.uid if identity is not None else name,
            node_key=identity.key_id if identity is not None else "",
            cluster_dns=config.dns_ip,
            cluster_domain=config.cluster_domain,
            kubelet_port=config.kubelet_port + number,
            lease_seconds=config.node_lease_interval,
            workers=1,
            labels={SIMULATED_BY: config.name} if name != config.name else {},
        )
        runtime: Runtime = FakeRuntime()
        network: PodNetwork = FakePodNetwork(f"10.{128 + number // 256 % 64}.{number % 256}.0/24")
        kubelet = Kubelet(
            client, informers, runtime, network, recorder, settings, pods=pods.of(name), facts=facts, engine="fake"
        )
        activities.append((f"kubelet {name}", kubelet.run()))
        own = pods.of(name)
        sampler = steady(own, runtime, lambda found: simulated(found, facts.memory, started))
        pages = Pages(name, sampler, facts.cpus).pages()
        if here is not None:
            here[name] = pages["/stats/summary"]
        if tls is not None and number < SERVED:
            server = KubeletServer(runtime, RuntimeLookup(own, runtime), own, pages=pages)
            activities.append((f"kubelet server {name}", _serve(server, settings.kubelet_port, tls)))
    return activities


def _settings(config: Config, identity: NodeIdentity) -> Settings:
    return Settings(
        node_name=config.name,
        node_ip=config.ip,
        data_dir=config.data_dir,
        node_uid=identity.uid,
        node_key=identity.key_id,
        cluster_dns=config.dns_ip,
        cluster_domain=config.cluster_domain,
        host_resolv_conf=host_resolver(config).text,
        kubelet_port=config.kubelet_port,
        lease_seconds=config.node_lease_interval,
        labels={"node-role.kubernetes.io/control-plane": ""} if config.hosts_master else {},
    )


async def _entered(engine: Runtime, stack: AsyncExitStack) -> Runtime:
    """The engine, once it answers: it may be starting, or restarting, as we are."""
    told = False
    for delay in backoff(0.2, 5.0):
        try:
            return await stack.enter_async_context(engine)
        except EngineUnavailable as error:
            if not told:
                log.warning(
                    "waiting for the container engine",
                    error=str(error),
                    remedy="start it ('systemctl start docker'), or name its socket with --docker-host",
                )
                told = True
        await asyncio.sleep(delay)
    raise AssertionError("unreachable")


async def _pod_cidr(config: Config, client: Client) -> str:
    """This node's range of pod addresses: from the API, or as it was last told while the API is away.

    The Node is registered with its name alone if nobody has done it; the kubelet fills in the rest.
    """
    memory = config.path("node", "pod-cidr")
    known = memory.read_text().strip() if memory.exists() else ""
    told = False
    for delay in backoff(0.05, 5.0):
        try:
            async with asyncio.timeout(KNOWN_PATIENCE if known else None):
                node = await _registered(client, config.name, known)
                if node.spec.podCIDR:
                    if node.spec.podCIDR != known:
                        memory.write_text(node.spec.podCIDR + "\n")
                    return node.spec.podCIDR
                if delay > 1.0 and not told:
                    await _tell_no_range(client, config)
                    told = True
        except (StatusError, TimeoutError) as error:
            if known:
                return known
            log.debug("waiting for this node's range of pod addresses", error=str(error))
        await asyncio.sleep(delay)
    raise AssertionError("unreachable")


async def _tell_no_range(client: Client, config: Config) -> None:
    """There is no kubelet yet that would say why this node is not Ready."""
    message = f"no part of the pod range {config.pod_cidr} is free for this node: delete nodes that are gone"
    condition = {"type": "NetworkUnavailable", "status": "True", "reason": "NoPodCIDR", "message": message}
    patch = {"status": {"conditions": [condition]}}
    await client.patch(
        Node, config.name, None, patch, subresource="status", content_type=STRATEGIC_MERGE_PATCH
    )  # fmt: skip
    log.warning(
        "waiting for a range of pod addresses",
        reason=message,
        remedy="delete nodes that are gone, or give the cluster a larger --pod-cidr",
    )


async def _registered(client: Client, name: str, known: str) -> Node:
    """`known`: the range that it had when it was last registered, and whose addresses its pods have."""
    try:
        return await client.get(Node, name)
    except NotFound:
        annotations = {RANGE_ANNOTATION: known} if known else {}
        try:
            return await client.create(Node, {"metadata": {"name": name, "annotations": annotations}})
        except AlreadyExists:
            return await client.get(Node, name)


async def _tell_ready(config: Config, informers: Informers) -> None:
    """One line when the node is ready, and then silence."""
    nodes = informers.of(Node, fields=f"metadata.name={config.name}")
    ready = asyncio.Event()
    nodes.on_change(lambda old, new: ready.set() if new and is_true(new.status.conditions, "Ready") else None)
    await ready.wait()
    log.info("node ready", node=config.name, address=config.ip)
    await asyncio.Event().wait()
