"""`top`: what nodes and pods use, out of metrics.k8s.io."""

from __future__ import annotations

from typing import Any

import click

from minik8s.api.errors import NotFound
from minik8s.api.quantity import cpu_millis, to_bytes
from minik8s.cli.connection import Cluster
from minik8s.cli.printing import Layout, echo

Json = dict[str, Any]
METRICS = "/apis/metrics.k8s.io/v1beta1"
MEASURES = ("cpu", "memory")


def print_usage(cluster: Cluster, what: str, name: str, options: dict[str, Any]) -> None:
    everywhere = options["all_namespaces"]
    path = METRICS
    if what == "pods" and not everywhere:
        path += f"/namespaces/{cluster.namespace}"
    query = {"labelSelector": options["selector"]} if options["selector"] else {}
    try:
        found = cluster.wire.get(f"{path}/{what}/{name}" if name else f"{path}/{what}", query)
    except NotFound as error:
        if name and error.details.get("name") == name:
            raise
        raise click.ClickException(
            "the server has no measurements yet (metrics.k8s.io is not served): try again when a node has run "
            "for a minute"
        ) from None
    items = [found] if name else found["items"]
    if options["sort_by"]:
        items = sorted(items, key=lambda item: -_total(item, options["sort_by"]))
    headings, rows = _nodes(cluster, items) if what == "nodes" else _pods(items, options)
    if not rows:
        where = "" if what == "nodes" or everywhere else f" in {cluster.namespace} namespace."
        click.echo(f"No resources found{where}", err=True)
        return
    shown = rows if options["no_headers"] else [headings, *rows]
    echo(Layout().lines(shown, heading=not options["no_headers"]))


def _nodes(cluster: Cluster, items: list[Json]) -> tuple[list[str], list[list[str]]]:
    nodes = {node["metadata"]["name"]: node for node in cluster.wire.get(cluster.kinds.find("nodes").path())["items"]}
    rows = []
    for item in items:
        name = item["metadata"]["name"]
        room = (nodes.get(name, {}).get("status") or {}).get("allocatable") or {}
        cells = [name]
        for what in MEASURES:
            used = _total(item, what)
            cells += [_text(used, what), _share(used, _measure(room[what], what) if what in room else 0)]
        rows.append(cells)
    return ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], rows


def _pods(items: list[Json], options: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    everywhere, each = options["all_namespaces"], options["containers"]
    headings = ["NAMESPACE"] * everywhere + ["POD"] * each + ["NAME", "CPU(cores)", "MEMORY(bytes)"]
    rows = []
    for item in items:
        meta = item["metadata"]
        place = [meta.get("namespace", "")] * everywhere
        for part in item["containers"] if each else [item]:
            name = [meta["name"], part["name"]] if each else [meta["name"]]
            rows.append([*place, *name, *(_text(_total(part, what), what) for what in MEASURES)])
    return headings, rows


def _total(item: Json, what: str) -> int:
    """Millicores or bytes that a node, a container or all containers of a pod use."""
    usages = [item["usage"]] if "usage" in item else [container["usage"] for container in item["containers"]]
    return sum(_measure(usage.get(what, "0"), what) for usage in usages)


def _measure(quantity: str, what: str) -> int:
    return cpu_millis(quantity) if what == "cpu" else to_bytes(quantity)


def _text(amount: int, what: str) -> str:
    return f"{amount}m" if what == "cpu" else f"{amount // 2**20}Mi"


def _share(used: int, total: int) -> str:
    return f"{used * 100 // total}%" if total else "<unknown>"
