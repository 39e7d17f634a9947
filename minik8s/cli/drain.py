"""Draining one node: which pods go, which forbid it (pure), and evicting them until the last is gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from minik8s.api.errors import NotFound, TooManyRequests
from minik8s.cli.connection import Cluster
from minik8s.cli.delete import await_gone
from minik8s.cli.printing import echo
from minik8s.cli.targets import Target

RETRY = 5.0  # seconds between attempts that a disruption budget refuses; as kubectl
MIRROR = "kubernetes.io/config.mirror"
Json = dict[str, Any]


class Plan(NamedTuple):
    go: list[Json]
    warnings: list[str]
    obstacles: list[str]


def plan(pods: Sequence[Json], *, ignore_daemonsets: bool, delete_emptydir: bool, force: bool) -> Plan:
    """Who goes, what is passed over with a warning, and what forbids the whole."""
    go: list[Json] = []
    told: dict[str, list[str]] = {}
    forbidding: dict[str, list[str]] = {}
    for pod in pods:
        meta = pod["metadata"]
        name = f"{meta['namespace']}/{meta['name']}"
        if MIRROR in (meta.get("annotations") or {}):
            continue
        owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            go.append(pod)
            continue
        if owner is not None and owner["kind"] == "DaemonSet":
            where, what = (told, "ignoring DaemonSet-managed Pods") if ignore_daemonsets else (
                forbidding, "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)")  # fmt: skip
            where.setdefault(what, []).append(name)
            continue
        if owner is None:
            where, what = (told, "deleting Pods that declare no controller") if force else (
                forbidding, "cannot delete Pods that declare no controller (use --force to override)")  # fmt: skip
            where.setdefault(what, []).append(name)
        if not delete_emptydir and any("emptyDir" in v for v in pod["spec"].get("volumes") or ()):
            what = "cannot delete Pods with local storage (use --delete-emptydir-data to override)"
            forbidding.setdefault(what, []).append(name)
        go.append(pod)
    return Plan(
        go,
        [f"{what}: {', '.join(names)}" for what, names in told.items()],
        [f"{what}: {', '.join(names)}" for what, names in forbidding.items()],
    )


class Draining:
    def __init__(
        self, cluster: Cluster, node: Target, options: dict[str, Any], *, timeout: float, dry_run: str
    ) -> None:
        self.cluster, self.node, self.options, self.dry_run = cluster, node, options, dry_run
        self.deadline = time.monotonic() + (timeout or float("inf"))
        self.pods = cluster.kinds.find("pods.v1.")

    def run(self) -> None:
        """A ClickException where pods forbid it, or when the time is over."""
        options = self.options
        query = {"fieldSelector": f"spec.nodeName={self.node.name}"}
        if options["pod_selector"]:
            query["labelSelector"] = options["pod_selector"]
        found = plan(
            self.cluster.wire.get(self.pods.path(), query)["items"], ignore_daemonsets=options["ignore_daemonsets"],
            delete_emptydir=options["delete_emptydir_data"], force=options["force"],
        )  # fmt: skip
        if found.obstacles:
            raise click.ClickException(f'unable to drain node "{self.node.name}": {"; ".join(found.obstacles)}')
        for warning in found.warnings:
            click.echo(f"{click.style('Warning:', fg='yellow')} {warning}", err=True)
        self._empty(found.go)
        echo(f"{self.node.text} drained" + (f" ({self.dry_run} dry run)" if self.dry_run != "none" else "") + "\n")

    def _empty(self, pods: Sequence[Json]) -> None:
        """Evict all, again and again those that a budget holds back, and see the last one gone."""
        waiting = [
            (Target(self.pods, p["metadata"]["name"], p["metadata"]["namespace"]), p["metadata"]["uid"]) for p in pods
        ]
        going: list[tuple[Target, str]] = []
        while waiting:
            refused = [pair for pair in waiting if not self._evict(*pair)]
            going += [pair for pair in waiting if pair not in refused]
            waiting = refused
            if waiting:
                if time.monotonic() + RETRY > self.deadline:
                    self._too_late(waiting)
                time.sleep(RETRY)
        if self.dry_run != "none":
            return
        for target, uid in going:
            await_gone(self.cluster, target, uid, self.deadline)
            echo(f"pod/{target.name} evicted\n")

    def _evict(self, target: Target, uid: str) -> bool:
        """False if a disruption budget does not allow it now."""
        echo(f"evicting pod {target.namespace}/{target.name}\n")
        if self.dry_run == "client":
            return True
        grace = self.options["grace_period"]
        body: Json = {"preconditions": {"uid": uid}} | ({"gracePeriodSeconds": grace} if grace >= 0 else {})
        query = {"dryRun": "All"} if self.dry_run == "server" else {}
        try:
            if self.options["disable_eviction"]:
                self.cluster.wire.send("DELETE", target.path, body, query)
            else:
                metadata = {"name": target.name, "namespace": target.namespace}
                eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": body}
                self.cluster.wire.send("POST", f"{target.path}/eviction", eviction, query)
        except NotFound:
            return True
        except TooManyRequests as error:
            click.echo(
                f'error when evicting pods/"{target.name}" -n "{target.namespace}" (will retry after {RETRY:g}s): '
                f"{error.message}", err=True,
            )  # fmt: skip
            return False
        return True

    def _too_late(self, waiting: Sequence[tuple[Target, str]]) -> None:
        names = ", ".join(f"{target.namespace}/{target.name}" for target, _ in waiting)
        raise click.ClickException(f'node "{self.node.name}" is not drained in time: still held back: {names}')
