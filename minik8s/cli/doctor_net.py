"""`minik8s doctor net`: let each node try its way to every other, and say in words what is in the way.

The nodes try, not this machine: their kubelets are asked through the API's node proxy, all at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import click

from minik8s.api.errors import StatusError
from minik8s.cli.agent import read_config
from minik8s.cli.connection import Cluster, NoCluster
from minik8s.cli.diagnosis import BAD, GOOD, Finding
from minik8s.cli.doctor import show
from minik8s.cli.verb import verb
from minik8s.cli.wire import Unreachable
from minik8s.config import Config
from minik8s.net.reach import from_json, words

Json = dict[str, Any]
PAGE = "pod-network"  # of a node's kubelet
AT_ONCE = 16
TIMEOUT, LONELY, PAUSE = 10.0, 1.5, 0.3  # seconds


@verb("net")
@click.argument("names", metavar="NODE", nargs=-1)
@click.option("-o", "output", type=click.Choice(["json"]), help="Machine-readable form.")
def net(cluster: Cluster, names: tuple[str, ...], output: str | None) -> None:
    """Try the pod network between each pair of nodes (all, or from those named): VXLAN, largest packets, pod to pod.

    On a worker without a kubeconfig: from there alone. Exit code 1 if pods somewhere do not reach pods elsewhere.
    """
    found = _of_all(cluster, names)
    if output:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        for finding in found:
            show(finding)
    if any(finding.state == BAD for finding in found):
        sys.exit(1)


def _of_all(cluster: Cluster, names: Sequence[str]) -> list[Finding]:
    try:
        nodes = cluster.wire.get("/api/v1/nodes")["items"]
    except NoCluster:
        config = read_config(None, {})
        if names or config.role != "worker":
            raise
        return from_here(config, patience=0)
    known = [node["metadata"]["name"] for node in nodes]
    if unknown := [name for name in names if name not in known]:
        raise click.ClickException(f'no node "{unknown[0]}"; there are {", ".join(known)}')
    asked = [node for node in nodes if node["metadata"]["name"] in (names or known)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = [finding for part in threads.map(lambda node: _of(cluster, node), asked) for finding in part]
    return found if len(nodes) > 1 else [Finding("pod network", GOOD, "one node alone: there is nobody to reach")]


def _of(cluster: Cluster, node: Json) -> list[Finding]:
    name = node["metadata"]["name"]
    try:
        answer = cluster.wire.get(f"/api/v1/nodes/{name}/proxy/{PAGE}")
        return list(findings(node, answer["reached"]))
    except (StatusError, Unreachable, KeyError, TypeError, ValueError) as error:
        remedy = f"see on {name} whether its agent runs: minik8s status"
        return [Finding("pod network", BAD, f"{name}: cannot be asked: {error}", remedy)]


def from_here(config: Config, patience: float) -> list[Finding]:
    """What this machine's own node finds out about its ways to the others; [] while there is no other.

    As long as something is in the way it is asked again, for `patience` seconds: they may just have heard of it.
    """
    node = {
        "metadata": {"name": config.name},
        "status": {"addresses": [{"type": "InternalIP", "address": config.ip}]},
    }
    began = time.monotonic()
    while True:
        found = list(findings(node, _reached_from_here(config)))
        well = all(finding.state == GOOD for finding in found)
        if (found and well) or time.monotonic() - began >= (patience if found else min(patience, LONELY)):
            return found
        time.sleep(PAUSE)


def _reached_from_here(config: Config) -> Sequence[Json]:
    from http.client import HTTPException, HTTPSConnection

    from minik8s.roles.identity import client_context, read_node_identity

    identity = read_node_identity(config)
    try:
        context = client_context(identity.ca_file, identity.client)
        kubelet = HTTPSConnection(config.ip, config.kubelet_port, timeout=TIMEOUT, context=context)
        with closing(kubelet):
            kubelet.request("GET", f"/{PAGE}")
            answer = kubelet.getresponse()
            reached: Sequence[Json] = json.loads(answer.read())["reached"] if answer.status == 200 else ()
    except (OSError, HTTPException, ValueError, KeyError):  # it is about to end, or of another release
        return ()
    return reached


def findings(node: Json, reached: Sequence[Json]) -> Iterator[Finding]:
    """What a node has found out, one finding for each peer; first what it says about itself. Pure."""
    name, status = node["metadata"]["name"], node.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "NetworkUnavailable" and condition["status"] == "True":
            yield Finding("pod network", BAD, f"{name}: {condition['message']}")
    address = next((a["address"] for a in status.get("addresses") or () if a["type"] == "InternalIP"), "")
    for each in reached:
        said = words(name, address, from_json(each))
        yield Finding("pod network", GOOD if said.well else BAD, said.detail, said.remedy)
