"""Names in pods and on a host, asked by the resolvers that people have: glibc, musl, busybox, dig, curl.

On a host of its own, whose /etc and whose resolver outside are the test's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.agent import Agent, until
from tests.e2e.space import FOREVER
from tests.images import BUSYBOX, PYTHON
from tests.lab.host import LabHost

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.kubectl,
    pytest.mark.timeout(180, func_only=True),
]
OUTSIDE, NEW_LEASE = "192.0.2.53", "192.0.2.54"  # resolvers outside; the second knows `leased` as well
ORIGINAL = f"# by the test\nsearch example.test\nnameserver {OUTSIDE}\noptions timeout:1 attempts:2\n"
ZONE = "www.example.test. 60 A 198.51.100.7\nfar.example.test. 60 A 198.51.100.7\n"
MUSL = """
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int count, char **words) {
  struct addrinfo want = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
  char text[64];
  for (int at = 1; at < count; at++) {
    if (getaddrinfo(words[at], 0, &want, &found)) found = 0;
    printf("%s", words[at]);
    for (; found; found = found->ai_next)
      printf(" %s", inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof text));
    puts("");
  }
}
"""
GLIBC = """
import socket, sys
for name in sys.argv[1:]:
    try:
        found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror:
        found = []
    print(name, *(each[4][0] for each in found))
"""


class NamedHost:
    """A lab host with an agent under `--host-dns`, resolvers outside, and a few named things in its cluster."""

    def __init__(self, lab: LabHost, agent: Agent) -> None:
        self.lab, self.agent = lab, agent
        self.file = lab.folder / "copy" / "resolv.conf"
        self.probes = lab.folder / "probes"

    def prepare(self) -> None:
        shutil.copytree("/etc", self.lab.folder / "copy", symlinks=True)
        self.file.unlink(missing_ok=True)
        self.file.write_text(ORIGINAL)
        self.lab.run("mount", "--bind", str(self.lab.folder / "copy"), "/etc")
        self._resolver(OUTSIDE, ZONE)
        self._resolver(NEW_LEASE, ZONE + "leased.example.test. 60 A 198.51.100.8\n")
        self.probes.mkdir()
        (self.probes / "glibc.py").write_text(GLIBC)
        if shutil.which("musl-gcc"):
            command = ["musl-gcc", "-static", "-o", str(self.probes / "musl"), "-x", "c", "-"]
            subprocess.run(command, input=MUSL, text=True, check=True)

    def _resolver(self, address: str, zone: str) -> None:
        (self.lab.folder / address).write_text(zone)
        self.lab.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        command = ["-m", "dnslib.zoneresolver", "--zone", f"{self.lab.folder}/{address}", "--address", address]
        subprocess.Popen(
            [*self.lab.prefix, sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def pod(self, name: str, image: str = BUSYBOX, command: tuple[str, ...] = FOREVER, **spec: Any) -> dict[str, Any]:
        labels = spec.pop("labels", {})
        container = {
            "name": "c", "image": image, "command": list(command),
            "volumeMounts": [{"name": "probes", "mountPath": "/probes"}],
        }  # fmt: skip
        volume = {"name": "probes", "hostPath": {"path": str(self.probes)}}
        whole = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [volume], **spec}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": whole}

    def service(self, name: str, **spec: Any) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}

    def apply(self, *objects: dict[str, Any]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.agent.kubectl("apply", "-f", "-", stdin=text)

    def path(self, what: str, expression: str) -> str:
        return self.agent.kubectl("get", what, "-o", f"jsonpath={{{expression}}}").out

    def sh(self, pod: str, script: str) -> str:
        return self.agent.kubectl("exec", pod, "--", "sh", "-c", script).out

    def dig(self, *question: str) -> str:
        """The last line of the cluster's answer."""
        return (self.lab.run("dig", "+short", "@10.96.0.10", *question).out.splitlines() or [""])[-1]

    def getent(self, name: str) -> str:
        """The address that the host's programs get; "" for none."""
        return (self.lab.run("getent", "ahostsv4", name, check=False).out.split() or [""])[0]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NamedHost]:
    if lacking := LabHost.lacking():
        pytest.skip(lacking)
    with LabHost(tmp_path_factory.mktemp("names")) as lab:
        lab.start_engine()
        lab.make_images("busybox", "python")
        # Ingresses' addresses are the test's own here.
        host = NamedHost(lab, lab.agent("--host-dns", "--ingress", "off"))
        host.prepare()
        host.agent.start()
        try:
            until(lambda: host.agent.kubectl("get", "serviceaccount", "default", check=False).code == 0)
            host.apply(
                host.pod("busy", command=("httpd", "-f", "-p", "80", "-h", "/etc"), labels={"app": "web"}),
                host.pod("one", PYTHON, labels={"app": "db"}, hostname="one", subdomain="db"),
                host.service("web", selector={"app": "web"}, ports=[{"port": 80, "name": "http"}]),
                host.service("db", clusterIP="None", selector={"app": "db"}, ports=[{"port": 5432, "name": "pg"}]),
                host.service("alias", type="ExternalName", externalName="far.example.test"),
            )
            host.agent.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s", seconds=40)
            yield host
        finally:
            host.agent.reset()


def test_all_resolvers_agree_in_pods(host: NamedHost) -> None:
    web, one = host.path("service/web", ".spec.clusterIP"), host.path("pod/one", ".status.podIP")
    outside, domain = "198.51.100.7", "default.svc.cluster.local"
    whole = {
        f"web.{domain}": web,
        f"WEB.{domain}.": web,
        f"db.{domain}": one,
        f"one.db.{domain}": one,
        f"{one.replace('.', '-')}.default.pod.cluster.local": one,
        "far.example.test": outside,
        f"nothing.{domain}": "",
        "nothing.example.test": "",
    }
    # Short ones are found by search lists, in which the host's list follows the cluster's.
    names = whole | {
        "web": web,
        "web.default": web,
        "db": one,
        "one.db": one,
        "alias": outside,
        "www": outside,
        "no": "",
    }
    said = {"glibc": host.sh("one", f"python3 /probes/glibc.py {' '.join(names)}")}
    if (host.probes / "musl").exists():
        said["musl"] = host.sh("busy", f"/probes/musl {' '.join(names)}")
    expected = {name: [address] if address else [] for name, address in names.items()}
    for who, text in said.items():
        assert {line.split()[0]: line.split()[1:] for line in text.splitlines()} == expected, who
    looks = "; ".join(f"echo @{name}; nslookup -type=a {name}" for name in whole)
    for text in host.sh("busy", f"({looks}); true").split("@")[1:]:
        answer = text.partition("Name:")[2]
        assert re.findall(r"Address: *(\S+)", answer) == expected[text.split()[0]], text
    for name, address in whole.items():
        assert host.dig(name) == address, name
    assert host.dig(f"_pg._tcp.db.{domain}", "SRV") == f"0 100 5432 one.db.{domain}."
    assert host.dig("-x", one) == f"one.db.{domain}."
    assert host.sh("one", "python3 -c 'import socket; print(socket.getfqdn())'").strip() == f"one.db.{domain}"


def test_policies_and_settings_in_pods(host: NamedHost) -> None:
    cluster = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.test"]
    config = {
        "nameservers": ["192.0.2.99", "10.96.0.10"],
        "searches": ["more.test", "example.test"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    own, more = ["timeout:1", "attempts:2"], ["ndots:2", "edns0"]
    none, both = {"dnsPolicy": "None"}, {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    expected: dict[str, tuple[dict[str, Any], list[str], list[str], list[str]]] = {
        "first": ({}, ["10.96.0.10"], cluster, ["ndots:5"]),
        "hostnet": ({"hostNetwork": True}, [OUTSIDE], ["example.test"], own),
        "both": (both, ["10.96.0.10"], cluster, ["ndots:5"]),
        "default": ({"dnsPolicy": "Default"}, [OUTSIDE], ["example.test"], own),
        "none": (none | {"dnsConfig": config}, config["nameservers"], config["searches"], more),  # type: ignore[dict-item]
        "merged": ({"dnsConfig": config}, ["10.96.0.10", "192.0.2.99"], [*cluster, "more.test"], more),
        "more": (
            {"dnsPolicy": "Default", "dnsConfig": config},
            [OUTSIDE, "192.0.2.99", "10.96.0.10"],
            ["example.test", "more.test"],
            own + more,
        ),
    }
    command = ("sh", "-c", "cat /etc/resolv.conf; exec sleep 1000000")
    host.apply(*(host.pod(name, command=command, **spec) for name, (spec, *_) in expected.items()))
    for name, (_, servers, searches, options) in expected.items():
        lines = [f"nameserver {server}" for server in servers]
        lines += [f"search {' '.join(searches)}", f"options {' '.join(options)}"]
        text = until(lambda name=name: host.agent.kubectl("logs", name, check=False).out)
        assert text.splitlines() == lines, name
    host.agent.kubectl("delete", "pod", *expected, "--wait=false")


def test_the_host_resolves_services_and_hosts_of_ingresses(host: NamedHost) -> None:
    web = host.path("service/web", ".spec.clusterIP")
    assert host.getent("web.default.svc.cluster.local") == web
    assert host.getent("www.example.test") == host.getent("www") == "198.51.100.7"
    page = "http://web.default.svc.cluster.local/hostname"
    assert host.lab.run("curl", "-sf", "--max-time", "5", page).code == 0
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    rule = {"host": "shop.example.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    meta = {"name": "shop"}
    ingress = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": {"rules": [rule]}}
    host.apply(ingress)
    status = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": web}]}}})
    host.agent.kubectl("patch", "ingress", "shop", "--subresource=status", "--type=merge", "-p", status)
    until(lambda: host.getent("shop.example.test") == web)
    assert host.lab.run("curl", "-sf", "--max-time", "5", "http://shop.example.test/hostname").code == 0
    assert host.sh("one", "python3 /probes/glibc.py shop.example.test").split() == ["shop.example.test", web]


def test_the_hosts_resolver_outlives_the_agent_and_is_put_back(host: NamedHost) -> None:
    web = host.path("service/web", ".spec.clusterIP")
    assert host.file.read_text().splitlines()[1] == "nameserver 10.96.0.10"
    host.agent.kill9()
    assert host.getent("www.example.test") == "198.51.100.7"  # by the resolver behind ours
    lease = host.file.with_suffix(".lease")
    lease.write_text(f"nameserver {NEW_LEASE}\n")
    os.replace(lease, host.file)  # as DHCP clients do, now while no agent looks …
    host.agent.start()
    until(lambda: host.getent("web.default.svc.cluster.local") == web)
    assert host.getent("leased.example.test") == "198.51.100.8"
    lease.write_text(ORIGINAL)
    os.replace(lease, host.file)  # … and now while one does
    until(lambda: "10.96.0.10" in host.file.read_text())
    assert f"nameserver {OUTSIDE}" in host.file.read_text()
    assert host.getent("web.default.svc.cluster.local") == web
    host.agent.kill9()
    options = host.agent.options
    host.agent.options = (*options, "--no-host-dns")
    host.agent.start()
    assert host.file.read_text() == ORIGINAL
    host.file.chmod(0o604)
    host.agent.kill9()
    host.agent.options = options
    host.agent.start()
    until(lambda: "10.96.0.10" in host.file.read_text())
    host.agent.kill9()
    ended = host.lab.minik8s("reset", "--yes", "--data-dir", str(host.agent.data))
    assert "host DNS in /etc/resolv.conf" in ended.out
    assert (host.file.read_text(), host.file.stat().st_mode & 0o777) == (ORIGINAL, 0o604)
    assert not (host.file.parent / ".resolv.conf.minik8s").exists()
