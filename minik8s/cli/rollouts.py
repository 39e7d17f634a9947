"""Rollouts: how far one is (pure), and the revisions that the cluster keeps of a workload."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

from minik8s.cli.connection import Cluster
from minik8s.cli.targets import Target

Json = dict[str, Any]
REVISION = "deployment.kubernetes.io/revision"
CAUSE = "kubernetes.io/change-cause"
HASHES = ("pod-template-hash", "controller-revision-hash")


class Progress(NamedTuple):
    text: str
    done: bool = False
    failed: str = ""


class Revision(NamedTuple):
    number: int
    cause: str
    template: Json


def progress(obj: Json, revision: int = 0) -> Progress:
    """How far the rollout of a workload is, in kubectl's words."""
    meta, status = obj["metadata"], obj.get("status") or {}
    name = meta["name"]
    if revision and str(revision) != (meta.get("annotations") or {}).get(REVISION, str(revision)):
        return Progress("", failed=f"the newest revision of {name} is not {revision} any more")
    if status.get("observedGeneration", 0) < meta.get("generation", 0):
        what = {"Deployment": "deployment", "DaemonSet": "daemon set"}.get(obj["kind"], "statefulset")
        return Progress(f"Waiting for {what} spec update to be observed...")
    return {"Deployment": _deployment, "DaemonSet": _daemon_set, "StatefulSet": _stateful_set}[obj["kind"]](obj, status)


def _deployment(obj: Json, status: Json) -> Progress:
    name, wanted = obj["metadata"]["name"], obj["spec"].get("replicas", 1)
    updated, all_, available = (status.get(key, 0) for key in ("updatedReplicas", "replicas", "availableReplicas"))
    waiting = f'Waiting for deployment "{name}" rollout to finish:'
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    if conditions.get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded":
        return Progress(f"{waiting} it is stuck", failed=f'deployment "{name}" exceeded its progress deadline')
    if updated < wanted:
        return Progress(f"{waiting} {updated} out of {wanted} new replicas have been updated...")
    if all_ > updated:
        return Progress(f"{waiting} {all_ - updated} old replicas are pending termination...")
    if available < updated:
        return Progress(f"{waiting} {available} of {updated} updated replicas are available...")
    return Progress(f'deployment "{name}" successfully rolled out', done=True)


def _daemon_set(obj: Json, status: Json) -> Progress:
    name = obj["metadata"]["name"]
    if (obj["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") != "RollingUpdate":
        return Progress("", failed=f'daemon set "{name}" has no rollout: its update strategy is OnDelete')
    wanted, updated, available = (
        status.get(key, 0) for key in ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")
    )
    waiting = f'Waiting for daemon set "{name}" rollout to finish:'
    if updated < wanted:
        return Progress(f"{waiting} {updated} out of {wanted} new pods have been updated...")
    if available < wanted:
        return Progress(f"{waiting} {available} of {wanted} updated pods are available...")
    return Progress(f'daemon set "{name}" successfully rolled out', done=True)


def _stateful_set(obj: Json, status: Json) -> Progress:
    name, spec = obj["metadata"]["name"], obj["spec"]
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return Progress("", failed=f'statefulset "{name}" has no rollout: its update strategy is OnDelete')
    wanted, ready, updated = spec.get("replicas", 1), status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
    if ready < wanted:
        return Progress(f"Waiting for {wanted - ready} pods to be ready...")
    partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
    if updated < wanted - partition:
        return Progress(
            f"Waiting for partitioned roll out to finish: {updated} out of {wanted - partition} new pods have been "
            "updated..."
        )
    if not partition and status.get("updateRevision") != status.get("currentRevision"):
        return Progress(
            f"waiting for statefulset rolling update to complete {updated} pods at revision "
            f"{status.get('updateRevision')}..."
        )
    return Progress(
        f"statefulset rolling update complete {wanted} pods at revision {status.get('currentRevision')}...", done=True
    )


def revisions(cluster: Cluster, target: Target) -> list[Revision]:
    """The kept revisions of a workload, the oldest first."""
    obj = cluster.wire.get(target.path)
    plural = "replicasets" if target.kind.plural == "deployments" else "controllerrevisions"
    listed = cluster.wire.get(cluster.kinds.find(f"{plural}.apps").path(target.namespace))["items"]
    found = []
    for item in listed:
        owners = item["metadata"].get("ownerReferences") or ()
        if not any(owner.get("controller") and owner["uid"] == obj["metadata"]["uid"] for owner in owners):
            continue
        annotations = item["metadata"].get("annotations") or {}
        if plural == "replicasets":
            number, template = int(annotations.get(REVISION, 0)), item["spec"]["template"]
        else:
            number, template = item["revision"], ((item.get("data") or {}).get("spec") or {}).get("template") or {}
        if number:
            found.append(Revision(number, annotations.get(CAUSE, ""), bare_template(template)))
    return sorted(found)


def revision_of(found: list[Revision], number: int, target: Target) -> Revision:
    """The revision of that number; 0: the last but one."""
    if not number:
        if len(found) < 2:
            raise click.ClickException(f"no rollout history found for {target.text}: there is nothing to go back to")
        return found[-2]
    match = next((revision for revision in found if revision.number == number), None)
    if match is None:
        known = ", ".join(str(revision.number) for revision in found) or "none"
        raise click.ClickException(f"unable to find revision {number} of {target.text}; there are: {known}")
    return match


def bare_template(template: Json) -> Json:
    """Without the labels by which controllers tell its versions apart, and without patch directives."""
    meta = dict(template.get("metadata") or {})
    labels = {key: value for key, value in (meta.pop("labels", None) or {}).items() if key not in HASHES}
    meta = {key: value for key, value in meta.items() if value is not None} | ({"labels": labels} if labels else {})
    rest = {key: value for key, value in template.items() if key not in ("metadata", "$patch")}
    return {**({"metadata": meta} if meta else {}), **rest}


def same_template(a: Json, b: Json) -> bool:
    return bare_template(a) == bare_template(b)
