"""Pods of different hosts reach each other, in one subnet and across subnets, whatever happens to the network."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator

import pytest

from tests.agent import until
from tests.e2e.space import Space, service
from tests.multihost.cluster import Cluster, on, one_on_each

VTEP = "mk8s-vxlan"
OURS = "ip route show proto 109"


class Net:
    """A pod `p-HOST` on each host, with an HTTP server; they live through all tests of this file."""

    def __init__(self, cluster: Cluster, space: Space) -> None:
        self.cluster, self.space = cluster, space
        script = "mkdir /www; cd /www; hostname >index.html; head -c 3000000 /dev/urandom >big; exec httpd -fv -p 80"
        # They stay where they are while a test has their host cut off.
        # Without a token, which a node that boots cannot get while the master is away.
        more = {"tolerations": [{"operator": "Exists"}], "automountServiceAccountToken": False}
        self.pods = one_on_each(space, cluster, "sh", "-c", script, **more)
        self.hosts = {name: host.address for name, host in cluster.hosts.items()}

    def unreached(self, source: str, *targets: str, size: int = 56) -> list[str]:
        """Addresses that do not answer the pod on `source`."""
        script = f"for t in {' '.join(targets)}; do ping -c1 -W1 -s {size} $t >/dev/null 2>&1 || echo $t; done"
        return self.space.sh(f"p-{source}", script).split()

    def pairs_unreached(self, *sources: str, size: int = 56) -> list[str]:
        """`a-b` for each pair of hosts whose pods do not reach each other."""
        names = {ip: name for name, ip in self.pods.items()}
        found = {a: self.unreached(a, *self.pods.values(), size=size) for a in sources or self.pods}
        return [f"{a}-{names[ip]}" for a, ips in found.items() for ip in ips]

    def whole(self, seconds: float = 15) -> None:
        """Wait until everybody reaches everybody."""
        until(lambda: not self.pairs_unreached(), seconds=seconds, what=lambda: f"unreached: {self.pairs_unreached()}")

    def routes(self, host: str) -> str:
        return self.cluster.sh(host, OURS)


@pytest.fixture(scope="module")
def pods(_cluster: Cluster) -> Iterator[Net]:
    space = Space.make(_cluster.master, "pod-network")
    try:
        yield Net(_cluster, space)
    finally:
        space.remove()


@pytest.fixture
def net(pods: Net, cluster: Cluster) -> Net:
    return pods


def test_pods_and_hosts_reach_each_other(net: Net, cluster: Cluster) -> None:
    assert "dev eth0" in net.routes("h1")  # both ways are in use
    assert f"dev {VTEP}" in net.routes("h1")
    assert net.pairs_unreached() == []
    for source in net.pods:  # pod -> host, its own included
        assert net.unreached(source, *net.hosts.values()) == []
    for host in net.hosts:  # host -> pod
        script = "; ".join(f"ping -c1 -W1 {ip} >/dev/null || echo {ip}" for ip in net.pods.values())
        assert cluster.sh(host, script) == ""
    # Bodies, over TCP, with the pod's own address as the source.
    fetch = "; ".join(f"timeout 3 busybox wget -qO- http://{ip}/" for ip in net.pods.values())
    for source in net.pods:
        assert net.space.sh(f"p-{source}", fetch).split() == [f"p-{name}" for name in net.pods]
        assert cluster.sh(source, fetch).split() == [f"p-{name}" for name in net.pods]
    log = net.space.out("logs", "p-h2")
    assert all(f":{ip}]" in log for ip in net.pods.values())


def test_packets_of_every_size(net: Net, cluster: Cluster) -> None:
    assert net.space.sh("p-h1", "cat /sys/class/net/eth0/mtu") == "1450"
    assert net.pairs_unreached(size=1450 - 28) == []  # the largest that needs no fragments: 28 bytes of IP and ICMP
    assert net.pairs_unreached(size=6000) == []
    for target in ("h2", "h3"):  # from a host, whose own links let more through than pods' do
        assert "1 received" in cluster.sh("h1", f"ping -c1 -W1 -M do -s 1422 {net.pods[target]}")
    for source, target in (("h1", "h2"), ("h3", "h1"), ("h2", "h3")):
        got = net.space.sh(f"p-{source}", f"timeout 20 wget -qO- http://{net.pods[target]}/big | md5sum")
        assert got.split()[0] == net.space.sh(f"p-{target}", "md5sum /www/big").split()[0]


@pytest.fixture
def all_links(cluster: Cluster) -> Iterator[Callable[[int], None]]:
    """Sets rp_filter of all links of all hosts, also of those that are still to come."""

    def rp_filter(value: int) -> None:
        for name in cluster.hosts:
            cluster.sh(name, f"for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo {value} >$f; done")

    before = int(cluster.sh("h1", "cat /proc/sys/net/ipv4/conf/all/rp_filter"))
    yield rp_filter
    rp_filter(before)


def test_services_under_each_check_of_sources(net: Net, cluster: Cluster, all_links: Callable[[int], None]) -> None:
    """Node -> service -> pod elsewhere: the source was chosen before the target was, and must not stay."""
    net.space.apply(*(service(f"p-{host}") for host in net.pods))
    listed = {s["metadata"]["name"]: s["spec"]["clusterIP"] for s in net.space.get("services")}
    asked = "; ".join(f"timeout 3 busybox wget -qO- http://{ip}/" for ip in listed.values())
    until(lambda: all(cluster.sh(host, asked, check=False).split() == list(listed) for host in net.hosts))
    for value in (0, 1, 2):
        all_links(value)
        for host in net.hosts:
            assert cluster.sh(host, asked).split() == list(listed), value
            assert net.space.sh(f"p-{host}", asked).split() == list(listed), value
        assert net.pairs_unreached() == [], value


@pytest.mark.parametrize(
    "harm",
    [
        "ip route flush proto 109",
        f"ip link delete {VTEP}",
        f"ip link set {VTEP} down",
        f"ip link set {VTEP} mtu 1300",
        f"ip neigh flush dev {VTEP} nud permanent; bridge fdb show dev {VTEP} | while read mac _; do "
        f"bridge fdb del $mac dev {VTEP}; done",
        f"ip address flush dev {VTEP}",
        "ip route add 10.244.77.0/24 dev lo proto 109",
    ],
)
def test_what_others_break_is_healed(net: Net, cluster: Cluster, harm: str) -> None:
    look = f"{OURS}; ip -4 -o address show dev {VTEP} | cut -d' ' -f2-; ip -o link show {VTEP} | cut -d' ' -f2-; "
    look += f"ip neigh show dev {VTEP}; bridge fdb show dev {VTEP}"

    def state() -> list[str]:
        return sorted(
            re.sub(r" valid_lft.*| \\\\.*", "", line) for line in cluster.sh("h1", look, check=False).splitlines()
        )

    before, drift = state(), _drift(cluster)
    cluster.sh("h1", harm)
    until(lambda: state() == before, seconds=5, what=lambda: f"{before}\n{state()}")
    assert net.unreached("h1", *net.pods.values()) == []
    assert _drift(cluster) == drift + 1


def _drift(cluster: Cluster) -> int:
    page = cluster.kubectl("get", "--raw", "/api/v1/nodes/h1/proxy/metrics").out
    return sum(int(float(count)) for count in re.findall(r"^minik8s_peer_drift_total (\S+)", page, re.MULTILINE))


@pytest.mark.parametrize("fault", ["cut", "isolate", "interface"])
def test_after_a_fault_of_the_network(net: Net, cluster: Cluster, fault: str) -> None:
    h2 = cluster.hosts["h2"]
    if fault == "interface":  # the kernel drops its routes without a word
        cluster.sh("h2", "ip link set eth0 down")
        cluster.sh("h2", f"ip link set eth0 up; ip route add default via {net.hosts['h2'].rpartition('.')[0]}.254")
    else:
        getattr(cluster.lab, fault)(h2)
        assert net.unreached("h1", *net.pods.values()) == [net.pods["h2"]]
        cluster.lab.heal()
    net.whole()


def test_an_agent_restarts(net: Net, cluster: Cluster) -> None:
    """Its death changes nothing, and what is broken meanwhile is healed when it is back."""
    agent = cluster.agents["h3"]
    agent.kill9()
    assert net.pairs_unreached("h1", "h2") == []
    before = net.routes("h3")
    agent.start()
    cluster.wait_ready()
    assert net.routes("h3") == before
    agent.stop()
    cluster.sh("h3", f"ip route flush proto 109; ip link delete {VTEP}")
    agent.start()
    until(lambda: net.routes("h3") == before, seconds=10)
    net.whole()


def test_a_power_cut_while_the_master_is_away(net: Net, cluster: Cluster) -> None:
    """The host that comes back knows its pods and its peers from its own disk."""
    cluster.lab.isolate(cluster.hosts["h1"])
    cluster.power_cut("h3")
    cluster.power_on("h3")

    def runs() -> bool:
        found = cluster.hosts["h3"].docker("ps", "--format", "{{.Names}}", check=False).out
        return f"_p-h3_{net.space.name}" in found

    until(runs, seconds=40)
    until(lambda: cluster.run("h2", "ping", "-c1", "-W1", net.pods["h3"], check=False).code == 0, seconds=10)
    cluster.lab.heal()
    cluster.wait_ready()
    net.whole(30)


def _unavailable(cluster: Cluster, name: str) -> tuple[str, str, str, bool]:
    """Status, reason and message of NetworkUnavailable, and whether the node is tainted for it."""
    node = cluster.node(name)
    (found,) = [c for c in node["status"]["conditions"] if c["type"] == "NetworkUnavailable"]
    taints = [t["key"] for t in node["spec"].get("taints", [])]
    return found["status"], found["reason"], found["message"], "node.kubernetes.io/network-unavailable" in taints


def test_a_node_without_a_way_says_why(cluster: Cluster) -> None:
    assert _unavailable(cluster, "h2")[:2] == ("False", "RouteCreated")
    cluster.sh("h2", f"ip link delete {VTEP}; ip link add stranger type vxlan id 7170872 dstport 8472 local 10.9.9.9; "
               "ip link set stranger up")  # fmt: skip
    try:
        until(lambda: _unavailable(cluster, "h2")[3], what=lambda: json.dumps(_unavailable(cluster, "h2")))
        status, reason, message, _ = _unavailable(cluster, "h2")
        assert (status, reason) == ("True", "NoRouteCreated")
        assert message == f"cannot create VXLAN link {VTEP} (UDP port 8472): File exists"
    finally:
        cluster.sh("h2", "ip link delete stranger")
    until(lambda: _unavailable(cluster, "h2")[0] == "False" and not _unavailable(cluster, "h2")[3])


def test_doctor_net_says_what_is_in_the_way(net: Net, cluster: Cluster) -> None:
    def doctor(*names: str) -> tuple[int, list[str], list[str]]:
        """Exit code, the details of what is well and of what is not."""
        ended = cluster.master.minik8s("doctor", "net", *names, "-o", "json", check=False)
        well = [f["detail"] for f in ended.json if f["state"] == "ok"]
        return ended.code, well, [f"{f['detail']} | {f['remedy']}" for f in ended.json if f["state"] != "ok"]

    until(lambda: doctor()[0] == 0, what=lambda: f"{doctor()}")
    code, well, ill = doctor()
    assert (code, ill) == (0, [])
    assert len(well) == 6
    assert re.fullmatch(r"h1 -> h2: VXLAN, [0-9.]+ ms, packets up to 1450 bytes", well[0])
    assert re.fullmatch(r"h1 -> h3: route, [0-9.]+ ms, packets up to 1450 bytes", well[1])

    h2 = cluster.hosts["h2"]
    cluster.lab.block(h2, "ip protocol udp udp dport 8472")
    code, well, ill = doctor("h1", "h2")
    assert (code, well) == (1, [w for w in well if w.startswith("h1 -> h3")])
    assert "h1 -> h2: h2 itself answers, packets in VXLAN do not come back: UDP port 8472 is blocked between" in ill[0]
    assert "iptables -I INPUT -p udp --dport 8472 -j ACCEPT" in ill[0]
    # The worker itself tells it, too, as it does when it joins; it has no kubeconfig.
    here = {**os.environ, "MINIK8S_DATA_DIR": str(cluster.agents["h2"].data), "KUBECONFIG": "", "HOME": "/nowhere"}
    ended = h2.minik8s("doctor", "net", "-o", "json", check=False, env=here)
    assert ended.code == 1
    assert "h2 -> h1: h1 itself answers, packets in VXLAN do not come back" in ended.json[0]["detail"]
    cluster.lab.heal()

    cluster.lab.block(h2, "ip protocol udp udp dport 8472 ip length > 1400")
    code, _, ill = doctor("h1")
    assert code == 1
    assert "h1 -> h2: packets over 1350 bytes get lost, pods send up to 1450" in ill[0]
    assert "by 100 bytes" in ill[0]
    cluster.lab.heal()

    wall = "chain inet wall forward { type filter hook forward priority 0; iifname eth0 oifname mk8s* drop; }"
    cluster.sh("h3", f"nft 'add table inet wall; add {wall}'")
    try:
        code, _, ill = doctor("h1")
        assert code == 1
        assert "h1 -> h3: packets reach the other host, but not pods there: a firewall" in ill[0]
    finally:
        cluster.sh("h3", "nft delete table inet wall")

    cluster.agents["h3"].stop()
    code, _, ill = doctor("h3")
    assert code == 1
    assert "h3: cannot be asked" in ill[0]
    cluster.agents["h3"].start()


@pytest.mark.long
def test_who_joins_where_vxlan_is_blocked_is_told(net: Net, cluster: Cluster) -> None:
    cluster.lab.block(cluster.hosts["h2"], "ip protocol udp udp dport 8472")
    cluster.agents["h2"].restart()

    def told() -> list[str]:
        events = cluster.kubectl("get", "events", "-o", "json").json["items"]
        return [
            e["message"]
            for e in events
            if e["reason"] == "PodNetworkUnreachable" and e["involvedObject"]["name"] == "h2"
        ]

    until(told, seconds=60)
    assert any("h2 -> h1: h1 itself answers, packets in VXLAN do not come back: UDP port 8472 is" in t for t in told())


def _pod_network(cluster: Cluster, **modes: str) -> None:
    """Restart agents with other settings."""
    for name, mode in modes.items():
        cluster.agents[name].stop()
        cluster.agents[name].options += ("--pod-network", mode)
    for name in modes:
        cluster.agents[name].start(ready=False)
    cluster.heal()


def test_one_way_for_all(net: Net, cluster: Cluster) -> None:
    _pod_network(cluster, h1="vxlan", h3="vxlan", h2="routes")
    try:
        until(lambda: f"dev {VTEP}" in net.routes("h1") and "dev eth0" not in net.routes("h1"))
        until(lambda: net.pairs_unreached("h1", "h3") == ["h1-h2", "h3-h2"])
        until(lambda: _unavailable(cluster, "h2")[3])
        status, reason, message, _ = _unavailable(cluster, "h2")
        assert (status, reason) == ("True", "NoRouteCreated")
        assert message.startswith("--pod-network routes does not reach nodes of other subnets: h1 (10.")
        assert cluster.sh("h2", f"{OURS}; ip link show {VTEP}", check=False) == ""
    finally:
        _pod_network(cluster, h1="auto", h3="auto", h2="auto")
    net.whole()


def test_a_node_is_deleted_and_comes_again(net: Net, cluster: Cluster) -> None:
    """With the range that it had, so that a pod which nobody has missed yet is where its address leads to."""
    before = cluster.node("h3")["spec"]["podCIDR"]
    cluster.kubectl("delete", "node", "h3")
    for other in ("h1", "h2"):
        until(lambda other=other: before not in net.routes(other))  # type: ignore[misc]
    cluster.agents["h3"].restart()
    cluster.wait_ready()
    assert cluster.node("h3")["spec"]["podCIDR"] == before
    for other in ("h1", "h2"):
        until(lambda other=other: before in net.routes(other))  # type: ignore[misc]
    net.space.apply(on("h3", "again"))
    net.space.wait("condition=Ready", "pod/again")
    ip = net.space.path("pod/again", ".status.podIP")
    assert net.unreached("h1", ip) == []
    assert net.unreached("h2", ip) == []


def test_reset_takes_routes_and_links_away(cluster: Cluster) -> None:
    agent, host = cluster.agents["h3"], cluster.hosts["h3"]
    agent.stop()
    listed = host.minik8s("reset", "--dry-run", "--data-dir", str(agent.data)).out
    assert f"link {VTEP}" in listed
    assert len(re.findall(r"^would remove route 10\.244\.\d+\.0/24", listed, re.MULTILINE)) == 2
    host.minik8s("reset", "--yes", "--data-dir", str(agent.data))
    assert cluster.sh("h3", f"{OURS}; ip -br link | grep mk8s; nft list tables | grep minik8s", check=False) == ""
    cluster.kubectl("delete", "node", "h3")
    agent.options += cluster.join_options()  # what it knew of the cluster is gone
    agent.start()
    cluster.wait_ready()
