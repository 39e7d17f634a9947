"""The objects behind Ingresses: nginx on every node, the Secret it reads, and pods that try a Secret before. Pure.

Secret nginx               what is live; the pods of the DaemonSet `nginx` mount it
Secret, Pod try-VERSION    a configuration on trial: `nginx -t` ends with 0, or with nginx's own words
Secret default-certificate of hosts that have none; may be replaced
ConfigMap nginx            key `http`: lines for nginx's `http` block, written by those who run the cluster
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from minik8s.api.kinds.configmap import SIZE_LIMIT
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import ContainerStatus, Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.meta import Json, condition, is_true
from minik8s.controllers.ingress_nginx import FRAGMENTS, HEALTH_HOST, HEALTH_PATH, Files, Rendered, script

NAMESPACE, NGINX, DEFAULT_SECRET = "minik8s-ingress", "nginx", "default-certificate"
TRIAL_LABEL = "net.minik8s.io/trial"  # value: the version on trial
TEMPLATE_HASH = "net.minik8s.io/template-hash"  # annotation of the DaemonSet: of the template as we wrote it
SCRIPT_HASH = "net.minik8s.io/script-hash"  # annotation of its pods
SECRET_TYPE = "net.minik8s.io/nginx"  # noqa: S105 - the type of Secrets that hold configurations
LABELS = {"app.kubernetes.io/name": NGINX, "app.kubernetes.io/part-of": "minik8s-ingress"}
_EMERGENCY = re.compile(r"\[emerg\] (?:\d+#\d+: )?(.*)")  # nginx's log has its process's and thread's ids before
STARTING = ("ContainerCreating", "PodInitializing", "")  # reasons of waiting that pass by themselves
WORDS = 700  # characters of nginx's words in a message


class Ports(NamedTuple):
    http: int = 80
    https: int = 443


class Verdict(NamedTuple):
    """What a trial said. `taken` None: not yet, `words` tell why if something is in the way."""

    taken: bool | None
    words: str = ""


def trial_name(version: str) -> str:
    return f"try-{version}"


def secret(name: str, files: Files, *, labels: Mapping[str, str] | None = None) -> Json:
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {**LABELS, **(labels or {})}},
        "type": SECRET_TYPE,
        "data": {key: base64.b64encode(value).decode() for key, value in files.items()},
    }


def too_large(files: Files) -> str:
    """Why these files fit in no Secret, or ""."""
    size = sum(map(len, files.values()))
    return f"nginx's configuration has {size} bytes, a Secret holds {SIZE_LIMIT}" if size > SIZE_LIMIT else ""


def trial(rendered: Rendered, image: str) -> Json:
    container = _container(image, ["sh", "/etc/ingress/run.sh", "check"])
    name = trial_name(rendered.version)
    labels = {TRIAL_LABEL: rendered.version}
    spec = _spec(name, container) | {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
    # Where nginx runs its image is there, which cannot be said of every node.
    term = {"labelSelector": {"matchLabels": LABELS}, "topologyKey": "kubernetes.io/hostname"}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    spec["affinity"] = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    return {"metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}, "spec": spec}


def daemon_set(image: str, ports: Ports) -> Json:
    """On the hosts' own network: a port that somebody else has is nginx's error to tell, and is never taken away."""
    probe = {"path": HEALTH_PATH, "port": "http", "httpHeaders": [{"name": "Host", "value": HEALTH_HOST}]}
    container = _container(image, ["sh", "/etc/ingress/run.sh"]) | {
        "ports": [{"name": name, "containerPort": port} for name, port in zip(("http", "https"), ports, strict=True)],
        "readinessProbe": {"httpGet": probe, "periodSeconds": 1, "failureThreshold": 2},
    }
    spec = _spec(NGINX, container) | {"hostNetwork": True, "priorityClassName": "system-cluster-critical"}
    # The script that runs may not know what another version of it is given: it is exchanged with its pod.
    metadata: Json = {"labels": LABELS, "annotations": {SCRIPT_HASH: _hash(script())}}
    template = {"metadata": metadata, "spec": spec}
    digest = _hash(msgspec.json.encode(template))
    metadata = {"name": NGINX, "namespace": NAMESPACE, "labels": LABELS, "annotations": {TEMPLATE_HASH: digest}}
    return {"metadata": metadata, "spec": {"selector": {"matchLabels": LABELS}, "template": template}}


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _container(image: str, command: list[str]) -> Json:
    return {
        "name": NGINX,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/ingress"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - in the container
    }


def _spec(secret_name: str, container: Json) -> Json:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [container],
        "volumes": [
            {"name": "config", "secret": {"secretName": secret_name}},
            {"name": "tmp", "emptyDir": {"medium": "Memory"}},
        ],
    }


# -- reading what became of them


def fragments_of(live: Secret | None) -> Mapping[str, str]:
    """Which Ingress's wishes are live, as `Rendered.fragments`."""
    return msgspec.json.decode(_file(live, FRAGMENTS) or b"{}", type=dict[str, str])


def _file(held: Secret | None, name: str) -> bytes:
    return base64.b64decode(held.data.get(name, "")) if held is not None else b""


def verdict(pod: Pod) -> Verdict:
    """What a trial's pod says so far."""
    ended = next((s.state.terminated for s in pod.status.containerStatuses if s.state.terminated), None)
    if ended is not None:
        words = emergencies(ended.message) or ended.reason or f"exit code {ended.exitCode}"
        return Verdict(True) if ended.exitCode == 0 else Verdict(False, words)
    return Verdict(None, hindrance(pod))


def hindrance(pod: Pod) -> str:
    """Why a pod of ours does not run, in a sentence; "" if nothing is known to be in its way."""
    scheduled = condition(pod.status.conditions, "PodScheduled")
    if not pod.spec.nodeName and scheduled is not None and scheduled.status == "False":
        return scheduled.message
    for status in pod.status.containerStatuses:
        if words := _in_the_way(status):
            return f"node {pod.spec.nodeName}: {words}"
    return ""


def _in_the_way(status: ContainerStatus) -> str:
    if status.ready:
        return ""
    waiting = status.state.waiting
    ended = status.state.terminated or status.lastState.terminated
    if waiting is not None and waiting.reason not in STARTING and waiting.reason != "CrashLoopBackOff":
        return f"{waiting.reason}: {waiting.message}" if waiting.message else waiting.reason
    if ended is not None and ended.exitCode:
        return emergencies(ended.message) or f"nginx ended with code {ended.exitCode}"
    return ""


def emergencies(message: str) -> str:
    """nginx's reasons, each once: the lines that say [emerg]; all it said if none does."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    worst = [f"[emerg] {match[1]}" for line in lines if (match := _EMERGENCY.search(line))]
    return "; ".join(dict.fromkeys(worst or lines))[:WORDS]


def addresses(pods: Iterable[Pod], nodes: Mapping[str, Node]) -> list[str]:
    """InternalIPs of the nodes whose nginx is ready, sorted."""
    serving = {pod.spec.nodeName for pod in pods if not pod.deleting and is_true(pod.status.conditions, "Ready")}
    return sorted(
        address.address
        for name in serving
        if name in nodes
        for address in nodes[name].status.addresses
        if address.type == "InternalIP"
    )
