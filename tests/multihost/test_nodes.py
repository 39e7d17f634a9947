"""Nodes that are lost and come back: stopped, cut off, without power, deleted, taken away, at another address."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.agent import until
from tests.e2e.space import Space, deployment, service
from tests.multihost.cluster import LOST_AFTER, Cluster, on

PATIENCE = 3.0  # seconds more than promised, for a machine that does much besides
READY = 15.0  # seconds from an agent's start after a power cut to a Ready node


def ready(cluster: Cluster, name: str) -> str:
    """`True`, `False` or `Unknown`; "" for a node that is not there."""
    path = "{.status.conditions[?(@.type=='Ready')].status}"
    return cluster.kubectl("get", "node", name, "--ignore-not-found", "-o", f"jsonpath={path}").out


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    print(f"{took:.1f} s of {seconds:.0f}")
    assert took <= seconds + PATIENCE, f"it took {took:.1f} s"


def running(cluster: Cluster, host: str, space: Space) -> dict[str, list[str]]:
    """Pod name -> of each of its containers (sandboxes apart) that run on a host, the pod's uid."""
    form = " ".join(f'{{{{.Label "io.kubernetes.{what}"}}}}' for what in ("container.name", "pod.name", "pod.uid"))
    mine = f"label=io.kubernetes.pod.namespace={space.name}"
    found: dict[str, list[str]] = {}
    for line in cluster.hosts[host].docker("ps", "--filter", mine, "--format", form).out.splitlines():
        container, name, uid = line.split()
        if container != "POD":
            found.setdefault(name, []).append(uid)
    return found


def settle(cluster: Cluster, space: Space) -> None:
    """Wait until it is so."""

    def faults() -> str:
        return json.dumps({h: running(cluster, h, space) for h in cluster.hosts}) + space.k("get", "pods", "-owide").out

    until(lambda: settled(cluster, space), seconds=30, what=faults)


def settled(cluster: Cluster, space: Space) -> bool:
    """Each container belongs to a pod that is bound to its host, and each pod runs exactly once."""
    pods = space.get("pods")
    wanted = sorted((p["spec"].get("nodeName", ""), p["metadata"]["name"], p["metadata"]["uid"]) for p in pods)
    have = sorted(
        (h, name, uid) for h in cluster.hosts for name, uids in running(cluster, h, space).items() for uid in uids
    )
    return have == wanted and not any("deletionTimestamp" in p["metadata"] for p in pods)


def nodes_of(space: Space, app: str) -> list[str]:
    """Where the pods of an app run that are not on their way out."""
    pods: list[Any] = space.get("pods", "-l", f"app={app}")
    return [p["spec"].get("nodeName", "") for p in pods if "deletionTimestamp" not in p["metadata"]]


def test_a_stopped_agent_is_missed_and_welcomed_back(cluster: Cluster, space: Space) -> None:
    forever = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]
    space.apply(on("h3", "stays", tolerations=forever), on("h3", "goes", terminationGracePeriodSeconds=1))
    space.wait("condition=Ready", "pod/stays", "pod/goes")
    before = running(cluster, "h3", space)
    agent = cluster.agents["h3"]
    agent.stop()
    assert running(cluster, "h3", space) == before, "pods outlive their agent"
    with within(LOST_AFTER):
        until(lambda: ready(cluster, "h3") == "Unknown", seconds=30)
    assert " NotReady " in cluster.kubectl("get", "node", "h3").out
    taints = {(t["key"], t["effect"]) for t in cluster.node("h3")["spec"]["taints"]}
    key = "node.kubernetes.io/unreachable"
    assert taints == {(key, "NoSchedule"), (key, "NoExecute")}
    until(lambda: space.path("pod/goes", ".metadata.deletionTimestamp"))
    assert not space.path("pod/stays", ".metadata.deletionTimestamp")
    agent.start()
    until(lambda: ready(cluster, "h3") == "True")
    settle(cluster, space)
    assert running(cluster, "h3", space) == {"stays": before["stays"]}
    assert "taints" not in cluster.node("h3")["spec"]
    assert space.path("pod/stays", ".status.containerStatuses[0].restartCount") == "0"


def test_pods_of_a_node_that_is_cut_off_run_elsewhere_and_nothing_runs_twice(cluster: Cluster, space: Space) -> None:
    only_two = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["h2", "h3"]}]}
        ]}}
    }  # fmt: skip
    app = deployment("app", 2)
    app["spec"]["template"]["spec"] |= {
        "terminationGracePeriodSeconds": 1, "affinity": only_two,
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "app"}},
        }],
    }  # fmt: skip
    space.apply(app, service("app"))
    space.wait("condition=Available", "deployment/app")
    assert sorted(nodes_of(space, "app")) == ["h2", "h3"]
    lost = next(p for p in space.get("pods") if p["spec"]["nodeName"] == "h2")["status"]["podIP"]
    cluster.lab.isolate(cluster.hosts["h2"])
    with within(LOST_AFTER):
        until(lambda: lost not in endpoints(space), seconds=30)
        until(lambda: nodes_of(space, "app") == ["h3", "h3"], seconds=30)
    space.wait("condition=Available", "deployment/app")
    assert len(running(cluster, "h2", space)) == 1, "who is cut off goes on with what it has"
    assert len(space.get("pods")) == 3, "and what it has stays in the API until it says that it has ended"
    cluster.lab.heal()
    with within(READY):
        until(lambda: ready(cluster, "h2") == "True", seconds=60)
        settle(cluster, space)
    assert running(cluster, "h2", space) == {}


def endpoints(space: Space) -> list[str]:
    """Ready addresses of the space's services."""
    slices: list[Any] = space.get("endpointslices")
    return [
        address
        for each in slices
        for endpoint in each.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
        for address in endpoint["addresses"]
    ]


def test_a_host_without_power_comes_back(cluster: Cluster, space: Space) -> None:
    forever = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]
    app = deployment("app", 2)
    space.apply(app, on("h2", "stays", tolerations=forever), on("h2", "bare"))
    space.wait("condition=Available", "deployment/app")
    space.wait("condition=Ready", "pod/stays", "pod/bare")
    cluster.power_cut("h2")
    until(lambda: ready(cluster, "h2") == "Unknown", seconds=30)
    until(lambda: "h2" not in nodes_of(space, "app"), seconds=30)
    cluster.power_on("h2", start=False)
    cluster.hosts["h2"].start_engine()
    cluster.agents["h2"].start(ready=False)
    with within(READY):
        until(lambda: ready(cluster, "h2") == "True", seconds=60)
    settle(cluster, space)
    space.wait("condition=Ready", "pod/stays")
    assert space.path("pod/stays", ".spec.nodeName") == "h2"
    assert {p["metadata"]["name"] for p in space.get("pods")} & {"bare"} == set(), "nobody makes a bare pod again"


def test_a_deleted_node_stays_away_until_its_agent_is_started_again(cluster: Cluster, space: Space) -> None:
    space.apply(on("h3", "p"))
    space.wait("condition=Ready", "pod/p")
    uid = cluster.node("h3")["metadata"]["uid"]
    cluster.kubectl("label", "node", "h3", "mine=1")
    cluster.kubectl("delete", "node", "h3")
    until(lambda: "this node was deleted" in cluster.agents["h3"].log, seconds=30)
    until(lambda: running(cluster, "h3", space) == {}, seconds=30)
    assert ready(cluster, "h3") == "", "who deletes a node means it"
    # A machine of that name may be announced beforehand; who has the name adopts what is said there.
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "h3", "labels": {"disk": "fast"}}}
    taint = {"key": "special", "value": "yes", "effect": "NoSchedule"}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(node | {"spec": {"taints": [taint]}}))
    until(lambda: ready(cluster, "h3") == "True", seconds=30)
    there = cluster.node("h3")
    assert there["metadata"]["labels"]["disk"] == "fast"
    assert "mine" not in there["metadata"]["labels"]
    assert taint in there["spec"]["taints"]
    cluster.kubectl("delete", "node", "h3")
    cluster.agents["h3"].restart()
    until(lambda: ready(cluster, "h3") == "True", seconds=30)
    assert cluster.node("h3")["metadata"]["uid"] != uid
    space.apply(on("h3", "p2"))
    space.wait("condition=Ready", "pod/p2")


def test_a_worker_leaves_and_joins_again_as_another_machine(cluster: Cluster, space: Space) -> None:
    host, agent = cluster.hosts["h3"], cluster.agents["h3"]
    space.apply(deployment("app", 1), on("h3", "bare"))
    space.wait("condition=Ready", "pod/bare")
    said = host.minik8s("leave", "--drain", "--yes", "--data-dir", str(agent.data), seconds=90).out
    assert "node h3 deleted" in said
    assert ready(cluster, "h3") == ""
    assert not agent.data.exists()
    assert host.docker("ps", "-aq").out == ""
    assert "mk8s" not in host.run("ip", "link").out
    assert space.get("pods", "-l", "app!=app") == []
    agent.options = agent.options[: agent.options.index("--role")] + cluster.join_options()
    agent.start()
    cluster.wait_ready()
    settle(cluster, space)
    # Its key is another one now: who holds the old name with the old key is refused, and so is a stranger.
    stranger = host.folder / "stranger"
    token = agent.options[agent.options.index("--token") + 1]
    refused = host.minik8s(
        "join", f"{cluster.master.address}:{cluster.master.port}", "--token", token, "--node-name", "h3",
        "--data-dir", str(stranger), check=False,
    )  # fmt: skip
    assert refused.code == 1
    assert 'a living node is already called "h3": choose another --node-name' in refused.err


def test_another_address_is_announced_and_spoken_for(cluster: Cluster, space: Space) -> None:
    host = cluster.hosts["h2"]
    space.apply(on("h2", "p", "sh", "-c", "echo hello; sleep 1000000"))
    space.wait("condition=Ready", "pod/p")
    gateway = cluster.sh("h2", "ip route show default").split()[2]
    other = host.address.rpartition(".")[0] + ".77"

    def readdress(old: str, new: str) -> None:
        cluster.sh("h2", f"ip addr del {old}/24 dev eth0; ip addr add {new}/24 dev eth0;"
                   f"ip route replace default via {gateway} dev eth0 src {new}")  # fmt: skip

    def internal() -> str:
        return next(a["address"] for a in cluster.node("h2")["status"]["addresses"] if a["type"] == "InternalIP")

    readdress(host.address, other)
    try:
        until(lambda: internal() == other, seconds=30)
        until(lambda: ready(cluster, "h2") == "True", seconds=30)
        # The API server trusts what the kubelet shows for its new address.
        until(
            lambda: space.k("logs", "p", check=False).out.strip() == "hello",
            what=lambda: space.k("logs", "p", check=False).err + cluster.agents["h2"].log[-2000:],
        )
        assert space.path("pod/p", ".status.containerStatuses[0].restartCount") == "0"
    finally:
        readdress(other, host.address)
    until(lambda: internal() == host.address, seconds=30)
    cluster.wait_ready()
