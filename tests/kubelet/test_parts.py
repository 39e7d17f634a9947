"""The smaller parts: texts of /etc, image credentials and collection, host ports, the cache, events into looks."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from minik8s.api.kinds.secret import Secret
from minik8s.kubelet import cache
from minik8s.kubelet.gc import Disk, plan_images
from minik8s.kubelet.host_ports import NoFreePort, choose_ports, missing_ports, pod_host_ports
from minik8s.kubelet.images import pull_auth
from minik8s.kubelet.pleg import changed
from minik8s.kubelet.pod_files import DNS, hosts_file, parse_resolv_conf, resolv_conf
from minik8s.runtime.base import ImageInfo, RegistryAuth

from .sim import make_pod

HOST_DNS = DNS("10.96.0.10", "cluster.local", ("1.1.1.1",), ("lan",), ("timeout:1",))


def test_cluster_dns_first():
    assert resolv_conf(make_pod(), HOST_DNS) == (
        "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local lan\noptions ndots:5\n"
    )


@pytest.mark.parametrize(
    ("spec", "server"),
    [
        ({"dnsPolicy": "Default"}, "1.1.1.1"),
        ({"hostNetwork": True}, "1.1.1.1"),
        ({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}, "10.96.0.10"),
    ],
)
def test_dns_policies(spec: dict[str, object], server: str):
    assert resolv_conf(make_pod(**spec), HOST_DNS).startswith(f"nameserver {server}\n")


def test_dns_config_adds_and_overrides():
    config = {"nameservers": ["8.8.8.8"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}]}
    assert resolv_conf(make_pod(dnsPolicy="None", dnsConfig=config), HOST_DNS) == (
        "nameserver 8.8.8.8\nsearch x\noptions ndots:2\n"
    )
    assert "options ndots:2\n" in resolv_conf(make_pod(dnsConfig=config), HOST_DNS)


def test_resolv_conf_is_read():
    text = "# c\nnameserver 1.1.1.1\nnameserver 2.2.2.2 # x\nsearch a b\noptions ndots:1\n"
    assert parse_resolv_conf(text) == (("1.1.1.1", "2.2.2.2"), ("a", "b"), ("ndots:1",))


def test_hosts():
    aliases = [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]
    text = hosts_file(make_pod(subdomain="sub", hostAliases=aliases), "10.244.0.5", "cluster.local", "")
    assert "10.244.0.5\tweb-0.sub.default.svc.cluster.local\tweb-0\n" in text
    assert text.endswith("1.2.3.4\ta\tb\n")


def test_pull_secrets_of_both_kinds_and_broken_ones():
    def secret(key: str, document: object) -> Secret:
        return Secret(data={key: base64.b64encode(json.dumps(document).encode()).decode()})

    packed = base64.b64encode(b"me:pass:word").decode()
    found = pull_auth(
        [
            secret(".dockerconfigjson", {"auths": {"r1": {"username": "u", "password": "p"}}}),
            secret(".dockercfg", {"r2": {"auth": packed}}),
            secret(".dockerconfigjson", ["nonsense"]),
            Secret(data={".dockerconfigjson": "%%%"}),
        ]
    )
    assert found == [RegistryAuth("u", "p", "r1"), RegistryAuth("me", "pass:word", "r2")]


def test_images_are_collected_oldest_first_and_only_ours():
    images = [ImageInfo(name, (name,), 10) for name in ("foreign", "used", "old", "older", "fresh")]
    pulled = {"used": 0.0, "old": 2.0, "older": 1.0, "fresh": 990.0}

    def plan(used: int) -> list[str]:
        chosen, _ = plan_images(images, {"used"}, pulled, Disk(100, used), 1000.0, high=85, low=80)
        return [image.id for image in chosen]

    assert plan(84) == []
    assert plan(86) == ["older"]
    assert plan(99) == ["older", "old"]


def test_host_ports_are_free_distinct_and_stable():
    first = choose_ports("u", ["80/TCP", "81/TCP"], lambda protocol, port: True)
    assert first == choose_ports("u", ["80/TCP", "81/TCP"], lambda protocol, port: True)
    assert len(set(first.values())) == 2
    taken = set(first.values())
    second = choose_ports("u", ["80/TCP"], lambda protocol, port: port not in taken)
    assert not taken & set(second.values())
    with pytest.raises(NoFreePort):
        choose_ports("u", ["80/TCP"], lambda protocol, port: False)


def test_host_network_needs_no_ports():
    ports = [{"containerPort": 80, "hostPort": 80}]
    annotations = {"annotations": {"minik8s.io/random-host-port": "true", "minik8s.io/host-ports": "[nonsense"}}
    assert pod_host_ports(make_pod({"name": "a", "ports": ports}, hostNetwork=True), "1.1.1.1") == ()
    assert missing_ports(make_pod({"name": "a", "ports": [{"containerPort": 1}]}, meta=annotations)) == ["1/TCP"]


def test_the_cache_survives_and_a_broken_one_counts_as_none(tmp_path: Path):
    path = tmp_path / "kubelet" / "cache"
    assert cache.read(path) == cache.Known()
    content = cache.known([make_pod()], [Secret(data={"a": "Yg=="})])
    cache.write(path, content)
    assert cache.read(path) == content
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes()[:-5])
    assert cache.read(path) == cache.Known()


def test_news_between_two_lists():
    before = {"a": frozenset({("1", "running")}), "b": frozenset({("2", "running")}), "c": frozenset({("3", "exited")})}
    after = {"a": frozenset({("1", "running")}), "b": frozenset({("2", "exited")}), "d": frozenset({("4", "created")})}
    assert changed(before, after) == {"b", "c", "d"}
