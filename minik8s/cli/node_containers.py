"""Nodes as containers on one Docker Engine: a cluster is what bears its label; nothing about it is kept elsewhere.

Each subnet is a network of the engine. Several are joined by a container that routes between them, since engines keep
their networks from each other.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPSConnection
from typing import Any, NamedTuple, TypeVar

from minik8s.cli.docker_command import DockerError, docker, inspect, output

CLUSTER, ROLE = "minik8s.cluster", "minik8s.role"  # labels
CONTROL_PLANE, WORKER, ROUTER = "control-plane", "worker", "router"
API_PORT = 6443
PATIENCE = 120.0  # seconds for a cluster to become ready; no deadline that a slow machine could not meet
POLL = 0.05
# All but CAP_SYS_RESOURCE, which nested sandboxes lack: `--privileged` cannot be had there. minik8s does without it.
CAPABILITIES = (
    "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER",
    "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD",
    "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN",
    "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_TIME", "SYS_TTY_CONFIG",
    "SYSLOG", "WAKE_ALARM",
)  # fmt: skip
T = TypeVar("T")


class Subnet(NamedTuple):
    network: str
    cidr: str
    router: str  # its address in this subnet; "" for a subnet that is alone


class NodeContainer(NamedTuple):
    name: str
    role: str
    running: bool
    addresses: dict[str, str]  # by network


def create(name: str, image: str, *, workers: int, subnets: int, api_port: int) -> dict[str, Any]:
    """Make a cluster and wait until all its nodes are Ready; its kubeconfig. Raises DockerError.

    What was made so far stays when something fails; the caller removes it.
    """
    places = make_subnets(name, image, subnets)
    master = f"{name}-{CONTROL_PLANE}"
    publish = ("--publish", f"127.0.0.1:{api_port or ''}:{API_PORT}")
    run_node(name, master, CONTROL_PLANE, image, places, 0, {"MINIK8S_ROLE": "all"}, *publish)
    (found,) = inspect("container", master)
    address = found["NetworkSettings"]["Networks"][places[0].network]["IPAddress"]
    published = found["NetworkSettings"]["Ports"].get(f"{API_PORT}/tcp")
    if not published:
        raise DockerError(f"{master} has ended:\n{last_words(master)}")
    port = int(published[0]["HostPort"])
    until(lambda: answers(port), lambda: f"{master} does not answer:\n{last_words(master)}")
    names = [f"{name}-{WORKER}{'' if number == 1 else number}" for number in range(1, workers + 1)]
    if names:
        token = output("exec", master, "minik8s", "token", "create", "--description", "made by 'minik8s cluster'")
        joining = {"MINIK8S_ROLE": "worker", "MINIK8S_JOIN": f"{address}:{API_PORT}", "MINIK8S_TOKEN": token}
        each(
            lambda item: run_node(name, item[1], WORKER, image, places, item[0], joining),
            enumerate(names, start=1),
        )
    wait_ready(master, [master, *names])
    config: dict[str, Any] = json.loads(output("exec", master, "cat", "/var/lib/minik8s/admin.kubeconfig"))
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    return config


def make_subnets(name: str, image: str, count: int) -> list[Subnet]:
    networks = [f"minik8s-{name}" + (f"-{number}" if count > 1 else "") for number in range(1, count + 1)]
    for network in networks:
        docker("network", "create", "--label", f"{CLUSTER}={name}", network)
    cidrs = [found["IPAM"]["Config"][0]["Subnet"] for found in inspect("network", *networks)]
    if count == 1:
        return [Subnet(networks[0], cidrs[0], "")]
    router = f"{name}-{ROUTER}"
    first, *others = networks
    docker(
        "run", "--detach", "--init", "--name", router, "--hostname", router, *labels(name, ROUTER), "--network", first,
        *freedoms(), "--env", "MINIK8S_ROLE=router", "--restart", "unless-stopped", image,
    )  # fmt: skip
    for network in others:
        docker("network", "connect", network, router)
    (found,) = inspect("container", router)
    inside = found["NetworkSettings"]["Networks"]
    return [Subnet(each, cidr, inside[each]["IPAddress"]) for each, cidr in zip(networks, cidrs, strict=True)]


def run_node(
    cluster: str, name: str, role: str, image: str, places: Sequence[Subnet], number: int, settings: dict[str, str],
    *more: str,
) -> None:  # fmt: skip
    """Start one node, in the subnet that its number says."""
    own = places[number % len(places)]
    routes = [f"{other.cidr} via {own.router}" for other in places if other is not own]
    environment = {"MINIK8S_NODE_NAME": name, "MINIK8S_ROUTES": "\n".join(routes), **settings}
    docker(
        "run", "--detach", "--init", "--name", name, "--hostname", name, *labels(cluster, role),
        "--network", own.network, *freedoms(), "--tmpfs", "/run", "--volume", "/var/lib/docker",
        "--restart", "unless-stopped", *(word for item in environment.items() for word in ("--env", "=".join(item))),
        *more, image,
    )  # fmt: skip


def labels(cluster: str, role: str) -> list[str]:
    return ["--label", f"{CLUSTER}={cluster}", "--label", f"{ROLE}={role}"]


def freedoms() -> list[str]:
    """What a container needs to be a host for others, where `--privileged` may not be had."""
    words = [word for name in CAPABILITIES for word in ("--cap-add", name)]
    for option in ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"):
        words += ["--security-opt", option]
    return [*words, "--device-cgroup-rule", "a *:* rwm", "--cgroupns", "private"]


def wait_ready(master: str, nodes: Sequence[str]) -> None:
    """Return when each node is Ready. Raises DockerError."""
    seen: list[str] = []

    def ready() -> bool:
        words = ("get", "nodes", "-o", "json")
        done = docker("exec", master, "minik8s", *words, check=False)
        items = json.loads(done.stdout)["items"] if done.returncode == 0 else []
        seen[:] = [item["metadata"]["name"] for item in items if _is_ready(item)]
        return set(seen) == set(nodes)

    def trouble() -> str:
        late = [node for node in nodes if node not in seen]
        return f"not Ready: {', '.join(late)}:\n{last_words((late or [master])[0])}"

    until(ready, trouble)


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def clusters() -> dict[str, list[NodeContainer]]:
    """All clusters of this engine with their containers, those of routers included."""
    ids = output("ps", "--all", "--quiet", "--filter", f"label={CLUSTER}").split()
    found: dict[str, list[NodeContainer]] = {}
    for each_ in inspect("container", *ids):
        addresses = {net: facts["IPAddress"] for net, facts in each_["NetworkSettings"]["Networks"].items()}
        marks = each_["Config"]["Labels"]
        node = NodeContainer(each_["Name"].lstrip("/"), marks.get(ROLE, ""), each_["State"]["Running"], addresses)
        found.setdefault(marks[CLUSTER], []).append(node)
    for line in output("network", "ls", "--filter", f"label={CLUSTER}", "--format", "{{.ID}}").split():
        (network,) = inspect("network", line)
        found.setdefault(network["Labels"][CLUSTER], [])
    return {name: sorted(nodes) for name, nodes in sorted(found.items())}


def delete(name: str) -> bool:
    """Remove containers, their volumes and networks; whether there were any. Idempotent."""
    mark = f"label={CLUSTER}={name}"
    containers = output("ps", "--all", "--quiet", "--filter", mark).split()
    if containers:
        docker("rm", "--force", "--volumes", *containers)
    networks = output("network", "ls", "--quiet", "--filter", mark).split()
    if networks:
        docker("network", "rm", *networks)
    return bool(containers or networks)


def load_images(nodes: Iterable[str], archive: str) -> None:
    """Give each node's engine the images of a `docker save` archive. Raises DockerError."""

    def load(node: str) -> None:
        with open(archive, "rb") as file:
            docker("exec", "--interactive", node, "docker", "load", "--quiet", stdin=file)

    each(load, nodes)


def last_words(name: str) -> str:
    done = docker("logs", "--tail", "15", name, check=False)
    return (done.stdout + done.stderr).decode(errors="replace").strip()


def answers(port: int) -> bool:
    """Is the API server at this port of the machine ready? Nothing is sent and nothing believed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def until(probe: Callable[[], bool], trouble: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not probe():
        if time.monotonic() > deadline:
            raise DockerError(trouble())
        time.sleep(POLL)


def each(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Do something for each at the same time; the first error is raised."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, items))
