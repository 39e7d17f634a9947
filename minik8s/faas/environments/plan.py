"""What an environment is called, where it lies on nodes, and which Job builds it. Pure.

An environment is known by the hash of what it is made of, so two Functions with the same requirements share one, and a
change of code never builds anything. On a node it is a folder, `<root>/<hash>/site-packages`, that appears whole or not
at all; `root` is alike on all nodes. Pods mount it read-only; one that comes to a node too early waits for the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from minik8s.api.kinds.environment import PLAIN, Environment, EnvironmentSpec, environment_hash
from minik8s.api.resource import Json

MOUNT_PATH: Final = "/environment"
VOLUME: Final = "environment"
TARGET, WHEELS = "/target", "/wheels"  # inside the pod that builds
HASH_LABEL: Final = "faas.minik8s.io/environment"  # of Jobs that build one, and their pods
NODE_ANNOTATION: Final = "faas.minik8s.io/node"  # of such a Job: for which node; "": the first, for any
TRIES = 1  # of a build: pip itself tries again what a network may have lost
TIME_LIMIT = 1800  # seconds of a build
INDEX: Final = "PIP_INDEX_URL"
SCRIPT: Final = Path(__file__).with_name("build_script.py")


def implicit_name(requirements: Sequence[str]) -> str:
    """Of the Environment that a Function's own requirements make; "" if it has none."""
    if not requirements:
        return ""
    return f"requirements-{environment_hash(EnvironmentSpec(requirements=tuple(requirements)))}"


def folder(root: Path | str, hashed: str) -> str:
    """What was pip's `--target`, on a node."""
    return f"{root}/{hashed}/site-packages"


def volumes(root: Path | str, hashed: str) -> tuple[list[Json], list[Json]]:
    """(volumes, volumeMounts) of a pod that uses an environment; none for one that adds nothing."""
    if hashed in ("", PLAIN):
        return [], []
    volume = {"name": VOLUME, "hostPath": {"path": folder(root, hashed), "type": "Directory"}}
    return [volume], [{"name": VOLUME, "mountPath": MOUNT_PATH, "readOnly": True}]


def used_by(volumes: Sequence[Any]) -> str:
    """The hash of the environment that a pod with these volumes (structs) mounts; "" if none."""
    for each in volumes:
        parts = each.hostPath.path.split("/") if each.name == VOLUME and each.hostPath else []
        if len(parts) > 2 and parts[-1] == "site-packages":
            return str(parts[-2])
    return ""


def job_name(environment: str, hashed: str, node: str) -> str:
    """The same for the same build; at most 63 characters, for pods bear it as a label."""
    made_of = hashlib.sha256(f"{hashed}/{node}".encode()).hexdigest()[:8]
    return f"build-{environment[:48].rstrip('-.')}-{made_of}"


def job(environment: Environment, root: Path | str, image: str, *, node: str = "") -> Json:
    """Installs an environment on `node` ("": on whichever the scheduler takes), in `image` unless it has its own.

    What the first build has taken is taken on all nodes, whatever has been published meanwhile.
    """
    meta, hashed = environment.metadata, environment_hash(environment.spec)
    pins = environment.status.installed if environment.status.hash == hashed else ()
    owner = {"apiVersion": "faas.minik8s.io/v1", "kind": "Environment", "name": meta.name, "uid": meta.uid,
             "controller": True, "blockOwnerDeletion": True}  # fmt: skip
    labels = {HASH_LABEL: hashed}
    return {
        "metadata": {"name": job_name(meta.name, hashed, node), "namespace": meta.namespace, "labels": labels,
                     "annotations": {NODE_ANNOTATION: node}, "ownerReferences": [owner]},
        "spec": {
            "backoffLimit": TRIES - 1,
            "activeDeadlineSeconds": TIME_LIMIT,
            "template": {"metadata": {"labels": labels},
                         "spec": _pod(environment.spec, f"{root}/{hashed}", image, node, pins)},
        },
    }  # fmt: skip


def _pod(spec: EnvironmentSpec, folder: str, image: str, node: str, pins: Sequence[str]) -> Json:
    target = {"name": "target", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}
    container: Json = {
        "name": "build",
        "image": spec.image or image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", SCRIPT.read_text()],
        "args": [TARGET, WHEELS if spec.findLinks else "", "\n".join(pins or spec.requirements),
                 "pinned" if pins else ""],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "env": _index(spec.indexUrl),
        "volumeMounts": [{"name": "target", "mountPath": TARGET}],
    }  # fmt: skip
    pod: Json = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container],
                 "volumes": [target]}  # fmt: skip
    if spec.findLinks:
        pod["volumes"].append({"name": "wheels", "hostPath": {"path": spec.findLinks, "type": "Directory"}})
        container["volumeMounts"].append({"name": "wheels", "mountPath": WHEELS, "readOnly": True})
    if node:  # not nodeName: the scheduler still looks whether there is room
        pod["nodeSelector"] = {"kubernetes.io/hostname": node}
        pod["tolerations"] = [{"operator": "Exists"}]
    return pod


def _index(url: str) -> list[Json]:
    """Variables that pip takes its index from. Who asks for plain HTTP has decided to trust that host."""
    if not url:
        return []
    parts = urlsplit(url)
    trusted = [{"name": "PIP_TRUSTED_HOST", "value": parts.netloc}] if parts.scheme == "http" else []
    return [{"name": INDEX, "value": url}, *trusted]
