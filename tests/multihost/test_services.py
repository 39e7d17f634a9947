"""Service addresses on three hosts: from everywhere to everywhere, and under load while things change and die."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.agent import run, until
from tests.e2e.space import Space, deployment, service
from tests.images import NGINX
from tests.multihost.cluster import LOST_AFTER, Cluster, on, one_on_each

WHO = ("sh", "-c", "mkdir /w; hostname > /w/index.html; exec httpd -f -p 8000 -h /w")
PORT = {"port": 80, "targetPort": 8000}
RATE = 200
LOAD = Path(__file__).parent.parent / "lab" / "load.py"
Json = dict[str, Any]


class Load:
    """What `load.py` on a host has seen, once its body has ended."""

    failures: list[list[Any]]
    slow: list[list[float]]
    answers: dict[str, list[float]]  # text -> first, last, count
    count: int


@contextmanager
def load(cluster: Cluster, host: str, address: str, port: int = 80) -> Iterator[Load]:
    """200 requests a second from a host, each on a new connection."""
    command = [*cluster.hosts[host].prefix, sys.executable, str(LOAD), address, str(port), str(RATE)]
    seen = Load()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "under way\n"
            yield seen
            time.sleep(0.5)
        finally:
            out, _ = process.communicate("", timeout=30)
        vars(seen).update(json.loads(out))
    print(f"{seen.count} requests from {host}, {len(seen.failures)} lost, {len(seen.slow)} slow {seen.slow[:5]}")


def fetch(cluster: Cluster, host: str, address: str, *flags: str) -> str:
    return cluster.run(host, "curl", "-sS", "--max-time", "3", *flags, f"http://{address}/", check=False).both.strip()


def ask_udp(cluster: Cluster, host: str, address: str) -> str:
    script = f"import socket; s = socket.socket(type=2); s.settimeout(1); s.connect(('{address}', 53)); s.send(b'?'); "
    return cluster.run(host, "python3", "-c", script + "print(s.recv(99).decode())", check=False).out.strip()


def address(space: Space, name: str = "s") -> str:
    return space.path(f"svc/{name}", ".spec.clusterIP")


def web(replicas: int = 4, **more: Any) -> Json:
    """nginx, which ends at once on SIGTERM, without any preStop hook: nothing is there to hide a fault of ours."""
    probe = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}
    made = deployment("s", replicas, {"name": "c", "image": NGINX, "readinessProbe": probe, **more})
    made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 10
    return made


def on_every_node(cluster: Cluster, address: str, wanted: Callable[[str], bool]) -> None:
    for host in cluster.hosts:
        until(lambda host=host: wanted(fetch(cluster, host, address)))  # type: ignore[misc]


def test_from_everywhere_to_everywhere(cluster: Cluster, space: Space) -> None:
    one_on_each(space, cluster, *WHO, labels={"app": "s"})
    names = {f"p-{host}" for host in cluster.hosts}
    space.apply(
        service("s", PORT, selector={"app": "s"}, type="LoadBalancer"),
        *(service(f"to-{h}", PORT, selector={"statefulset.kubernetes.io/pod-name": f"p-{h}"}) for h in cluster.hosts),
    )
    for host in cluster.hosts:
        space.k("label", "pod", f"p-{host}", f"statefulset.kubernetes.io/pod-name=p-{host}")
    port = space.path("svc/s", ".spec.ports[0].nodePort")
    ips = [host.address for host in cluster.hosts.values()]
    ingress = space.until("svc s", lambda s: len(s["status"]["loadBalancer"].get("ingress", ())) == len(ips))
    assert {entry["ip"] for entry in ingress["status"]["loadBalancer"]["ingress"]} == set(ips)
    for target in cluster.hosts:  # also node -> service address -> pod on another node, and each pod to itself
        vip = address(space, f"to-{target}")
        on_every_node(cluster, vip, lambda answer, target=target: answer == f"p-{target}")  # type: ignore[misc]
        for host in cluster.hosts:
            assert space.exec(f"p-{host}", "timeout", "5", "wget", "-qO-", f"http://{vip}") == f"p-{target}"
    for host in cluster.hosts:
        for ip in ips:
            for door in (f"{ip}:{port}", f"{ip}:80"):
                until(lambda host=host, door=door: fetch(cluster, host, door) in names)  # type: ignore[misc]
    # From outside of all hosts, too, and evenly.
    seen = Counter(run(["curl", "-sS", f"http://{ips[0]}:{port}/"]).out.strip() for _ in range(60))
    assert set(seen) == names
    assert min(seen.values()) >= 6, seen  # 20 each; less than 6 has a chance of one in a hundred thousand


def test_a_rolling_update_loses_no_request(cluster: Cluster, space: Space) -> None:
    space.apply(web(), service("s"))
    space.k("rollout", "status", "deployment/s", "--timeout=60s", seconds=70)
    on_every_node(cluster, address(space), lambda answer: "It works" in answer)
    with load(cluster, "h2", address(space)) as far, load(cluster, "h1", address(space)) as near:
        space.k("set", "env", "deployment/s", "RELEASE=2")
        space.k("rollout", "status", "deployment/s", "--timeout=60s", seconds=70)
    for seen in (far, near):
        assert seen.failures == []
        assert seen.count > RATE


def test_restarts_of_agents_and_of_the_master_lose_no_request(cluster: Cluster, space: Space) -> None:
    space.apply(web(3), service("s"))
    space.k("rollout", "status", "deployment/s", "--timeout=60s", seconds=70)
    on_every_node(cluster, address(space), lambda answer: "It works" in answer)
    with load(cluster, "h2", address(space)) as far, load(cluster, "h1", address(space)) as near:
        cluster.agents["h2"].restart()
        cluster.agents["h1"].kill9()
        time.sleep(1)
        cluster.agents["h1"].start()
        cluster.wait_ready()
    for seen in (far, near):
        assert seen.failures == []


def test_flushed_rules_heal_under_load(cluster: Cluster, space: Space) -> None:
    one_on_each(space, cluster, *WHO, labels={"app": "s"})
    space.apply(service("s", PORT, selector={"app": "s"}))
    on_every_node(cluster, address(space), lambda answer: answer.startswith("p-"))
    with load(cluster, "h2", address(space)) as seen:
        cluster.run("h2", "nft", "flush", "ruleset")
        time.sleep(2)
    hurt = len(seen.failures) + len(seen.slow)  # lost on the way out; most ask again by themselves a second later
    print(f"healed within {hurt / RATE:.3f} s")
    assert hurt <= RATE * 0.25, (seen.failures, seen.slow)


def test_what_dies_is_out_of_rotation_at_once(cluster: Cluster, space: Space) -> None:
    probe = {"exec": {"command": ["test", "!", "-e", "/sick"]}, "periodSeconds": 1, "failureThreshold": 1}
    one_on_each(space, cluster, *WHO, labels={"app": "s"}, more={"readinessProbe": probe})
    space.apply(service("s", PORT, selector={"app": "s"}))
    vip = address(space)
    on_every_node(cluster, vip, lambda answer: answer.startswith("p-"))
    victim = space.path("pod/p-h3", ".status.containerStatuses[0].containerID").removeprefix("docker://")
    with load(cluster, "h2", vip) as seen:
        killed = time.time()
        cluster.run("h3", "docker", "kill", victim)
        time.sleep(1.5)
    late = [failure for failure in seen.failures if failure[0] > killed + 1]
    assert not late, late
    print(f"killed: {max((f[0] for f in seen.failures), default=killed) - killed:.3f} s until the last failure")
    space.wait("condition=Ready", "pod/p-h3")
    with load(cluster, "h2", vip) as seen:
        space.exec("p-h1", "touch", "/sick")
        space.wait("condition=Ready=false", "pod/p-h1")
        told = time.time()
        time.sleep(1)
    assert not seen.failures
    assert seen.answers["p-h1"][1] < told + 1
    assert seen.answers["p-h2"][1] > told + 1


def test_a_node_that_is_cut_off_is_out_of_rotation_in_time(cluster: Cluster, space: Space) -> None:
    one_on_each(space, cluster, *WHO, labels={"app": "s"})
    space.apply(service("s", PORT, selector={"app": "s"}))
    on_every_node(cluster, address(space), lambda answer: answer.startswith("p-"))
    with load(cluster, "h2", address(space)) as seen:
        cut = time.time()
        cluster.lab.cut(cluster.hosts["h3"])
        time.sleep(LOST_AFTER + 2)
    last = max((failure[0] for failure in seen.failures), default=cut) - cut
    print(f"cut off: {last:.3f} s until the last failure")
    late = [(began - cut, *rest) for began, *rest in seen.failures if began > cut + LOST_AFTER]
    assert not late, late
    assert seen.answers["p-h1"][1] > cut + LOST_AFTER


def test_endpoints_by_hand_local_policies_udp_and_the_host_network(cluster: Cluster, space: Space) -> None:
    one_on_each(space, cluster, *WHO, labels={"app": "s"})
    space.apply(
        on("h3", "net", "sh", "-c", "mkdir /w; echo net > /w/index.html; exec httpd -f -p 8099 -h /w",
           labels={"app": "net"}, hostNetwork=True),
        service("net", {"port": 80, "targetPort": 8099, "nodePort": 30899}, selector={"app": "net"}, type="NodePort"),
        service("udp", selector=None) | {"spec": {"ports": [{"port": 53, "protocol": "UDP", "targetPort": 9000}]}},
        service("local", {**PORT, "nodePort": 30898}, selector={"app": "s"}, type="NodePort",
                externalTrafficPolicy="Local", internalTrafficPolicy="Local"),
        service("byhand", {"port": 80}, selector=None) | {"spec": {"ports": [{"port": 80, "targetPort": 8000}]}},
        service("sliced", {"port": 80}, selector=None) | {"spec": {"ports": [{"port": 80, "targetPort": 8000}]}},
    )  # fmt: skip
    space.wait("condition=Ready", "pod/net")
    far = space.path("pod/p-h3", ".status.podIP")
    space.apply(
        {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "byhand"},
         "subsets": [{"addresses": [{"ip": far}], "ports": [{"port": 8000}]}]},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {"name": "sliced-1", "labels": {"kubernetes.io/service-name": "sliced"}},
         "endpoints": [{"addresses": [far]}], "ports": [{"port": 8000}]},
        {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "udp"},
         "subsets": [{"addresses": [{"ip": cluster.hosts["h3"].address}],
                      "ports": [{"port": 9000, "protocol": "UDP"}]}]},
    )  # fmt: skip
    for name, wanted in (("byhand", "p-h3"), ("sliced", "p-h3"), ("net", "net")):
        on_every_node(cluster, address(space, name), lambda answer, wanted=wanted: answer == wanted)  # type: ignore[misc]
        for host in cluster.hosts:
            assert space.exec(f"p-{host}", "timeout", "5", "wget", "-qO-", f"http://{address(space, name)}") == wanted
    for host, lab in cluster.hosts.items():
        assert space.exec(f"p-{host}", "wget", "-qO-", f"http://{address(space, 'local')}") == f"p-{host}"
        # From outside: this host's own pod, which sees who asks; and by any host to the host network of one.
        outside = f"http://{lab.address}"
        until(lambda own=f"p-{host}", url=outside: run(["curl", "-sS", f"{url}:30898/"]).out.strip() == own)  # type: ignore[misc]
        until(lambda url=outside: run(["curl", "-sS", f"{url}:30899/"]).out.strip() == "net")  # type: ignore[misc]
    echo = (
        "import socket; s = socket.socket(type=2); s.bind(('', 9000))\nwhile True: s.sendto(b'udp', s.recvfrom(99)[1])"
    )
    with subprocess.Popen([*cluster.hosts["h3"].prefix, "python3", "-c", echo]) as server:
        try:
            for host in cluster.hosts:
                until(lambda host=host: ask_udp(cluster, host, address(space, "udp")) == "udp")  # type: ignore[misc]
        finally:
            server.terminate()
