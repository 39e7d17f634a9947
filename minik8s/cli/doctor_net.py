"""`minik8s doctor net`: let each node try its way to every other, and say in words what is in the way.

The nodes try, not this machine: their kubelets are asked through the API's node proxy, all at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from minik8s.api.errors import StatusError
from minik8s.cli.connection import Cluster
from minik8s.cli.diagnosis import BAD, GOOD, Finding
from minik8s.cli.doctor import show
from minik8s.cli.verb import verb
from minik8s.cli.wire import Unreachable
from minik8s.net.reach import from_json, words

Json = dict[str, Any]
PAGE = "pod-network"  # of a node's kubelet
AT_ONCE = 16


@verb("net")
@click.argument("names", metavar="NODE", nargs=-1)
@click.option("-o", "output", type=click.Choice(["json"]), help="Machine-readable form.")
def net(cluster: Cluster, names: tuple[str, ...], output: str | None) -> None:
    """Try the pod network between each pair of nodes (all, or from those named): VXLAN, largest packets, pod to pod.

    Exit code 1 if pods somewhere do not reach pods elsewhere.
    """
    nodes = cluster.wire.get("/api/v1/nodes")["items"]
    known = [node["metadata"]["name"] for node in nodes]
    if unknown := [name for name in names if name not in known]:
        raise click.ClickException(f'no node "{unknown[0]}"; there are {", ".join(known)}')
    asked = [node for node in nodes if node["metadata"]["name"] in (names or known)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = [finding for part in threads.map(lambda node: _of(cluster, node), asked) for finding in part]
    if len(nodes) < 2:
        found = [Finding("pod network", GOOD, "one node alone: there is nobody to reach")]
    if output:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        for finding in found:
            show(finding)
    if any(finding.state == BAD for finding in found):
        sys.exit(1)


def _of(cluster: Cluster, node: Json) -> list[Finding]:
    name = node["metadata"]["name"]
    try:
        answer = cluster.wire.get(f"/api/v1/nodes/{name}/proxy/{PAGE}")
        return list(findings(node, answer["reached"]))
    except (StatusError, Unreachable, KeyError, TypeError, ValueError) as error:
        remedy = f"see on {name} whether its agent runs: minik8s status"
        return [Finding("pod network", BAD, f"{name}: cannot be asked: {error}", remedy)]


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
