"""The section of `describe` for Functions: revisions and which are called, pods and why so many, what went wrong."""

from __future__ import annotations

from typing import Any

from minik8s.api.errors import StatusError
from minik8s.api.kinds.columns import condition
from minik8s.cli.describe_text import NONE, Lines, age, head, when

Json = dict[str, Any]
LABEL = "faas.minik8s.io/function"
RECENT = "200"  # calls among which the last failed one is looked for


def function(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    spec, status = obj["spec"], obj.get("status") or {}
    head(lines, obj)
    lines.add("CreationTimestamp", when(obj["metadata"].get("creationTimestamp")))
    lines.add("URL", status.get("url") or NONE)
    lines.add("Code", _code(spec.get("code") or {}))
    lines.add("Handler", spec.get("handler") or "by the code's signature")
    lines.add("Environment", spec.get("environment") or ", ".join(spec.get("requirements") or ()) or NONE)
    if spec.get("invokes"):
        lines.add("Invokes", ", ".join(spec["invokes"]))
    lines.add("Isolation", spec.get("isolation", "Pod"))
    lines.add("Concurrency", f"{spec.get('concurrency')} per replica, in {spec.get('workers')} or more processes")
    lines.add("Timeout", f"{spec.get('timeoutSeconds')}s")
    scale = spec.get("scale") or {}
    bounds = f"{scale.get('minReplicas')} to {scale.get('maxReplicas')} replicas"
    target = f"{scale.get('targetUtilization')}% of concurrency each"
    lines.add("Scale", f"{bounds}, {target}, idle after {scale.get('idleSeconds')}s")
    lines.add("Replicas", f"{status.get('replicas', 0)} ready / {status.get('desiredReplicas', 0)} desired")
    lines.add("Reason", status.get("reason") or NONE, 1)
    found = condition(obj, "Ready") or {}
    lines.add("Ready", " ".join(filter(None, (found.get("status", "Unknown"), found.get("reason")))))
    if found.get("status") != "True":
        lines.add("Message", found.get("message", ""), 1)
    _revisions(lines, obj, cluster, now)
    _pods(lines, obj, cluster, now)
    _last_error(lines, obj, cluster)


def _code(code: Json) -> str:
    if code.get("inline"):
        return f"inline, {len(code['inline'])} characters"
    if code.get("configMap"):
        return f"ConfigMap {code['configMap'].get('name')}"
    return f"archive {code['sha256'][:12]}, {code.get('size')} bytes" if code.get("sha256") else NONE


def _listed(obj: Json, cluster: Any, kind: str, name: str) -> list[Json]:
    path = cluster.kinds.find(kind).path(obj["metadata"]["namespace"])
    try:
        found: list[Json] = cluster.wire.get(path, {"labelSelector": f"{LABEL}={name}"})["items"]
    except StatusError:
        return []  # one may see the function but not these
    return found


def _revisions(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    shares = {each["revision"]: each["percent"] for each in (obj.get("status") or {}).get("traffic") or ()}
    rows = []
    for each in _listed(obj, cluster, "functionrevisions.faas.minik8s.io", obj["metadata"]["name"]):
        name, found = each["metadata"]["name"], condition(each, "Ready") or {}
        contract = (each.get("status") or {}).get("contract", "")
        traffic = f"{shares.get(name, 0)}%"
        since = age(each["metadata"].get("creationTimestamp"), now)
        rows.append((name, traffic, found.get("status", "Unknown"), found.get("reason", ""), contract, since))
    lines.text("Revisions:" if rows else f"Revisions:\t{NONE}")
    if rows:
        lines.table(1, ("Name", "Traffic", "Ready", "Reason", "Contract", "Age"), sorted(rows, reverse=True))


def _pods(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    name = "Shared" if obj["spec"].get("isolation") == "Process" else obj["metadata"]["name"]
    rows = [
        (each["metadata"]["name"], (each["spec"].get("nodeName") or NONE), (each.get("status") or {}).get("phase", ""),
         age(each["metadata"].get("creationTimestamp"), now))
        for each in _listed(obj, cluster, "pods", name) if not each["metadata"].get("deletionTimestamp")
    ]  # fmt: skip
    if rows:
        lines.text("Pods:")
        lines.table(1, ("Name", "Node", "Phase", "Age"), rows)


def _last_error(lines: Lines, obj: Json, cluster: Any) -> None:
    """Of the calls that gateways remember."""
    meta = obj["metadata"]
    path = cluster.kinds.find("functions.faas.minik8s.io").path(meta["namespace"])
    try:
        calls = cluster.wire.get(f"{path}/{meta['name']}/calls", {"limit": RECENT}).get("items") or ()
    except StatusError:
        return
    failed = next((each for each in calls if each.get("error")), None)
    if failed is None:
        lines.add("Last Error", NONE)
        return
    lines.add("Last Error", f"{failed.get('status')} {failed['error']}")
    lines.add("Call", f"{failed.get('id')} of {failed.get('revision') or NONE} at {failed.get('time')}", 1)
