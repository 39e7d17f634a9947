"""Service addresses and cluster names on this host: from pods, from the node, and while things die."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from tests.agent import run, until
from tests.e2e.requests import Requests
from tests.e2e.space import FOREVER, Space, pod, service
from tests.patience import patience

WHO = ("sh", "-c", "mkdir /w; hostname > /w/index.html; exec httpd -f -p 8000 -h /w")
PORT = {"name": "http", "port": 80, "targetPort": 8000}


def servers(space: Space, count: int = 2, **more: Any) -> list[str]:
    """`count` pods that answer with their names on port 8000, ready; their names."""
    probe = {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1} if not more else {}
    c = {"ports": [{"name": "web", "containerPort": 8000}], "readinessProbe": probe, **more}
    names = [f"s{number}" for number in range(count)]
    space.apply(*(pod(name, *WHO, labels={"app": "s"}, more=c) for name in names))
    space.wait("condition=Ready", *(f"pod/{name}" for name in names))
    return names


def fetch(address: str, *flags: str) -> str:
    return run(["curl", "-sS", "--max-time", "3", *flags, f"http://{address}/"], check=False).both.strip()


def refused(address: str, port: int) -> bool:
    """Whether this host is told at once that nobody listens."""
    try:
        socket.create_connection((address, port), timeout=3).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def test_cluster_ip_from_pod_and_node_hairpin_names_and_spread(space: Space) -> None:
    names = servers(space)
    space.apply(service("s", PORT, {"name": "named", "port": 81, "targetPort": "web"}, selector={"app": "s"}))
    ip = space.path("svc/s", ".spec.clusterIP")
    until(lambda: fetch(ip) in names)
    assert {fetch(ip) for _ in range(30)} == set(names)  # both, unless a fair coin falls alike 30 times
    assert fetch(f"{ip}:81") in names
    inside = lambda url: space.exec("s0", "timeout", "5", "wget", "-qO-", url)  # noqa: E731
    for url in (f"http://{ip}", "http://s", f"http://s.{space.name}", f"http://s.{space.name}.svc.cluster.local:81"):
        assert inside(url) in names
    assert {space.sh("s0", "for i in $(seq 30); do wget -qO- http://s; done")} != {""}
    assert "s0" in space.sh("s0", "for i in $(seq 30); do wget -qO- http://s; done").split()  # to itself as well
    slices = space.get("endpointslices", "-l", "kubernetes.io/service-name=s")
    assert sorted(e["targetRef"]["name"] for s in slices for e in s["endpoints"]) == names
    assert len(space.get("endpoints", "s")["subsets"][0]["addresses"]) == 2
    # The pod is reached from the node, the node from the pod, each by its own address.
    pod_ip, host_ip = space.path("pod/s0", ".status.podIP"), space.path("pod/s0", ".status.hostIP")
    assert fetch(f"{pod_ip}:8000") == "s0"
    assert "1 packets received" in space.exec("s0", "ping", "-c1", "-W2", host_ip)
    # The other order: the service first, then its pods.
    space.apply(service("late", PORT))
    space.pod("late", *WHO)
    until(lambda: fetch(space.path("svc/late", ".spec.clusterIP")) == "late")


def test_node_port(space: Space) -> None:
    names = servers(space)
    space.apply(service("s", PORT, selector={"app": "s"}, type="NodePort"))
    port = space.path("svc/s", ".spec.ports[0].nodePort")
    host_ip = space.path("pod/s0", ".status.hostIP")
    until(lambda: fetch(f"{host_ip}:{port}") in names)
    assert fetch(f"127.0.0.1:{port}") in names
    assert space.exec("s1", "timeout", "5", "wget", "-qO-", f"http://{host_ip}:{port}") in names
    space.k("delete", "svc", "s")
    until(lambda: refused(host_ip, int(port)))


def test_client_ip_affinity(space: Space) -> None:
    servers(space, 3)
    space.apply(service("s", PORT, selector={"app": "s"}, sessionAffinity="ClientIP"))
    ip = space.path("svc/s", ".spec.clusterIP")
    until(lambda: fetch(ip).startswith("s"))
    mine = {fetch(ip) for _ in range(12)}
    assert len(mine) == 1
    space.k("delete", "pod", mine.pop())
    until(lambda: fetch(ip).startswith("s"), seconds=patience(2))  # another one is chosen


def test_without_endpoints_a_service_refuses_at_once(space: Space) -> None:
    space.apply(service("nobody"))
    space.pod("p")
    ip = space.path("svc/nobody", ".spec.clusterIP")

    until(lambda: refused(ip, 80))
    began = time.monotonic()
    assert "refused" in space.sh("p", f"timeout 5 wget -O- http://{ip}", check=False)
    assert time.monotonic() - began < patience(2)


def test_dns(space: Space) -> None:
    servers(space)
    space.apply(
        service("s", PORT, selector={"app": "s"}),
        service("headless", PORT, selector={"app": "s"}, clusterIP="None"),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside"},
         "spec": {"type": "ExternalName", "externalName": "somewhere.example.test"}},
        service("db", PORT, clusterIP="None"),
        pod("db0", *FOREVER, labels={"app": "db"}, hostname="db0", subdomain="db"),
    )  # fmt: skip
    space.wait("condition=Ready", "pod/db0")
    domain = f"{space.name}.svc.cluster.local"
    ips = sorted(space.path(f"pod/{name}", ".status.podIP") for name in ("s0", "s1"))

    def dig(name: str, kind: str = "A") -> list[str]:
        return sorted(run(["dig", "+short", "+time=3", "+tries=1", "@10.96.0.10", name, kind]).out.split("\n")[:-1])

    assert until(lambda: dig(f"s.{domain}")) == [space.path("svc/s", ".spec.clusterIP")]
    until(lambda: dig(f"headless.{domain}") == ips)
    assert dig(f"_http._tcp.s.{domain}", "SRV") == [f"0 100 80 s.{domain}."]
    assert {line.split()[2] for line in dig(f"_http._tcp.headless.{domain}", "SRV")} == {"8000"}
    assert dig(f"outside.{domain}", "CNAME") == ["somewhere.example.test."]
    until(lambda: dig(f"db0.db.{domain}") == [space.path("pod/db0", ".status.podIP")])
    dashed = ips[0].replace(".", "-")
    assert dig(f"{dashed}.{space.name}.pod.cluster.local") == [ips[0]]
    reverse = space.path("svc/s", ".spec.clusterIP")
    assert run(["dig", "+short", "@10.96.0.10", "-x", reverse]).out.strip() == f"s.{domain}."
    absent = run(["dig", "@10.96.0.10", f"absent.{domain}"]).out
    assert "status: NXDOMAIN" in absent
    assert "AUTHORITY: 1" in absent
    began = time.monotonic()
    outside = run(["dig", "+time=5", "+tries=1", "@10.96.0.10", "no-such-name.invalid"], check=False).both
    assert re.search("status: (NXDOMAIN|SERVFAIL|REFUSED)", outside), outside
    assert time.monotonic() - began < 5
    assert "kubernetes.default.svc.cluster.local" in space.sh(
        "s0", "nslookup kubernetes.default.svc.cluster.local", check=False
    )
    assert dig("kubernetes.default.svc.cluster.local") == ["10.96.0.1"]


def test_a_dead_or_unready_endpoint_is_out_of_rotation_within_a_second(space: Space) -> None:
    probe = {"exec": {"command": ["test", "!", "-e", "/sick"]}, "periodSeconds": 1, "failureThreshold": 1}
    servers(space, 3, readinessProbe=probe)
    space.apply(service("s", PORT, selector={"app": "s"}))
    ip = space.path("svc/s", ".spec.clusterIP")
    until(lambda: {fetch(ip) for _ in range(20)} == {"s0", "s1", "s2"})
    victim = space.path("pod/s0", ".status.containerStatuses[0].containerID").removeprefix("docker://")
    with Requests(ip) as loop:
        until(lambda: loop.count > 20)
        killed = time.time()
        run(["docker", "kill", victim])
        space.until("pod s0", lambda p: p["status"]["containerStatuses"][0]["restartCount"] == 1)
        time.sleep(0.5)
    late = [failure for failure in loop.failures if failure.at > killed + 1]
    assert not late, late
    # Not ready: it still answers, but nobody asks it.
    space.wait("condition=Ready", "pod/s0")
    until(lambda: {fetch(ip) for _ in range(20)} == {"s0", "s1", "s2"})
    with Requests(ip) as loop:
        space.exec("s1", "touch", "/sick")
        space.wait("condition=Ready=false", "pod/s1")
        told = time.time()
        until(lambda: min(loop.last("s0"), loop.last("s2")) > told + 1.5)
    assert not loop.failures
    assert loop.last("s1") < told + 1


def test_flushed_rules_come_back(space: Space) -> None:
    names = servers(space)
    space.apply(service("s", PORT, selector={"app": "s"}))
    ip = space.path("svc/s", ".spec.clusterIP")
    until(lambda: fetch(ip) in names)
    run(["nft", "flush", "table", "inet", "minik8s"])
    until(lambda: fetch(ip) in names, seconds=10)
    run(["nft", "delete", "table", "inet", "minik8s"])
    until(lambda: fetch(ip) in names, seconds=10)
