"""Docker Engine's JSON, both ways: create bodies from specs, and what we know of a container from its answers. Pure.

Identity is in a container's *name*, `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>` as dockershim had it, so that
the engine itself never lets two of the same be. The label LABEL_MANAGED only says whose containers these are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from minik8s.runtime.base import (
    LABEL_ATTEMPT,
    LABEL_CONTAINER,
    LABEL_HASH,
    LABEL_IMAGE,
    LABEL_MANAGED,
    LABEL_POD_NAME,
    LABEL_POD_NAMESPACE,
    LABEL_POD_UID,
    ContainerInfo,
    ContainerSpec,
    Mount,
    SandboxSpec,
)

Json = dict[str, Any]

SANDBOX = "POD"  # the sandbox's container name
SANDBOX_OOM_SCORE_ADJ = -998  # kubelet's: the sandbox goes last
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}


class Limits(NamedTuple):
    """What this host lets us give to containers; the defaults are a host without limits."""

    oom_score_adj: int = -1000  # the lowest that the kernel lets us set
    capabilities: tuple[str, ...] | None = None  # None = all; otherwise the names (no CAP_) that we have ourselves


class Identity(NamedTuple):
    container: str  # POD for a sandbox
    pod: str
    namespace: str
    uid: str
    attempt: int

    def __str__(self) -> str:
        return f"k8s_{self.container}_{self.pod}_{self.namespace}_{self.uid}_{self.attempt}"


def parse_name(name: str) -> Identity | None:
    """The identity in a container's name; None if it is not one of ours."""
    parts = name.removeprefix("/").split("_")
    if len(parts) != 6 or parts[0] != "k8s" or not parts[5].isdecimal():
        return None
    return Identity(parts[1], parts[2], parts[3], parts[4], int(parts[5]))


def identity(spec: ContainerSpec | SandboxSpec) -> Identity:
    container = SANDBOX if isinstance(spec, SandboxSpec) else spec.name
    return Identity(container, spec.pod_name, spec.pod_namespace, spec.pod_uid, spec.attempt)


def docker_create(spec: ContainerSpec | SandboxSpec, node_uid: str, limits: Limits, *, seccomp: str = "") -> Json:
    """Body of `POST /containers/create` (API 1.41 and later).

    `seccomp` is the text of the profile at the path `spec.seccomp`.
    """
    if isinstance(spec, SandboxSpec):
        return _sandbox(spec, node_uid, limits)
    return _container(spec, node_uid, limits, seccomp)


def _sandbox(spec: SandboxSpec, node_uid: str, limits: Limits) -> Json:
    host: Json = {
        "NetworkMode": "host" if spec.host_network else "none",
        "IpcMode": "host" if spec.host_ipc else "shareable",
        "PidMode": "host" if spec.host_pid else "",
        "LogConfig": {"Type": "none"},
        "OomScoreAdj": max(SANDBOX_OOM_SCORE_ADJ, limits.oom_score_adj),
        "CpuShares": 2,
        "ShmSize": 64 << 20,
        "Sysctls": dict(spec.sysctls),
        "CgroupParent": spec.cgroup_parent,
        # The profile guards nothing here (218 bytes of our own code) and costs 25 ms to load.
        "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
    }
    body: Json = {
        "Hostname": "" if spec.host_network else spec.hostname,
        "Labels": identity_labels(spec, node_uid),
        "HostConfig": host,
    }
    if not spec.host_network:
        # The pod network wires this namespace; without the flag dockerd spends 100 ms on a network sandbox of its own.
        body["NetworkDisabled"] = True
    return body


def _container(spec: ContainerSpec, node_uid: str, limits: Limits, seccomp: str) -> Json:
    sandbox = f"container:{spec.sandbox_id}"
    host: Json = {
        "NetworkMode": "host" if spec.sandbox.host_network else sandbox,
        "IpcMode": "host" if spec.sandbox.host_ipc else sandbox,
        "PidMode": _pid_mode(spec),
        "UTSMode": "host" if spec.sandbox.host_network else "",
        "LogConfig": {"Type": "json-file", "Config": dict(LOG_OPTIONS)},
        "Mounts": [_mount(mount) for mount in spec.mounts],
        "Devices": [
            {"PathOnHost": d.host_path, "PathInContainer": d.container_path, "CgroupPermissions": d.permissions}
            for d in spec.devices
        ],
        "CpuShares": spec.cpu_shares,
        "CpuPeriod": spec.cpu_period,
        "CpuQuota": spec.cpu_quota,
        "Memory": spec.memory,
        "MemorySwap": spec.memory,  # the same as Memory: no swap on top
        "OomScoreAdj": max(spec.oom_score_adj, limits.oom_score_adj),
        "CgroupParent": spec.cgroup_parent,
        "ReadonlyRootfs": spec.read_only_root,
        "GroupAdd": list(spec.groups),
    }
    host |= _privileges(spec, limits, seccomp)
    if spec.gpus:  # as `docker run --gpus device=…`: NVIDIA's runtime then brings device nodes, programs and libraries
        wanted = {"Driver": "nvidia", "DeviceIDs": list(spec.gpus), "Capabilities": [["gpu"]]}
        host["DeviceRequests"] = [wanted]
    return {
        "Image": spec.image,
        "Entrypoint": list(spec.command) or None,
        # Kubernetes: a command without args drops the image's CMD as well.
        "Cmd": list(spec.args) if spec.args or spec.command else None,
        "Env": [f"{name}={value}" for name, value in spec.env],
        "WorkingDir": spec.working_dir,
        "User": spec.user,
        "Tty": spec.tty,
        "OpenStdin": spec.stdin,
        "StdinOnce": spec.stdin_once,
        "Healthcheck": {"Test": ["NONE"]},  # probes are the kubelet's
        "Labels": identity_labels(spec, node_uid) | {LABEL_HASH: spec.hash},
        "HostConfig": host,
    }


def _pid_mode(spec: ContainerSpec) -> str:
    if spec.pid_target:
        return f"container:{spec.pid_target}"
    if spec.sandbox.host_pid:
        return "host"
    return f"container:{spec.sandbox_id}" if spec.sandbox.share_pid else ""


def _mount(mount: Mount) -> Json:
    body: Json = {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}
    # Unless told otherwise Docker takes rprivate, and rslave where its own folder is below the source, as it must be.
    return body | ({"BindOptions": {"Propagation": mount.propagation}} if mount.propagation else {})


def _privileges(spec: ContainerSpec, limits: Limits, seccomp: str) -> Json:
    security: list[str] = ["no-new-privileges"] if spec.no_new_privileges else []
    add = [name.upper().removeprefix("CAP_") for name in spec.cap_add]
    drop = [name.upper().removeprefix("CAP_") for name in spec.cap_drop]
    if limits.capabilities is not None and "ALL" in add:  # runc refuses to give more than we have ourselves
        add = [*limits.capabilities, *(name for name in add if name != "ALL" and name not in limits.capabilities)]
    if spec.privileged and limits.capabilities is None:
        return {"Privileged": True, "SecurityOpt": security}
    if spec.privileged:  # as much of it as this host has, by name
        return {
            "Privileged": False,
            "CapAdd": list(limits.capabilities or ()),
            "SecurityOpt": [*security, "seccomp=unconfined", "apparmor=unconfined", "label=disable"],
            "MaskedPaths": [],
            "ReadonlyPaths": [],
            "DeviceCgroupRules": ["a *:* rwm"],
        }
    if spec.seccomp:
        security.append("seccomp=unconfined" if spec.seccomp == "unconfined" else f"seccomp={seccomp}")
    return {"Privileged": False, "CapAdd": add, "CapDrop": drop, "SecurityOpt": security}


def reductions(spec: ContainerSpec, limits: Limits) -> tuple[str, ...]:
    """What this host cannot give to a container although its pod asks for it, as sentences for an event."""
    said: list[str] = []
    if spec.privileged and limits.capabilities is not None:
        said.append("privileged is reduced to the capabilities that the agent itself has")
    if spec.oom_score_adj < limits.oom_score_adj:
        said.append(f"oom_score_adj {spec.oom_score_adj} is raised to the agent's own, {limits.oom_score_adj}")
    return tuple(said)


def identity_labels(spec: ContainerSpec | SandboxSpec, node_uid: str) -> dict[str, str]:
    return {
        **spec.labels,
        LABEL_MANAGED: node_uid,
        LABEL_POD_UID: spec.pod_uid,
        LABEL_POD_NAME: spec.pod_name,
        LABEL_POD_NAMESPACE: spec.pod_namespace,
        LABEL_CONTAINER: identity(spec).container,
        LABEL_ATTEMPT: str(spec.attempt),
    }


# -- answers

_STATES: Mapping[str, str] = {"created": "created", "exited": "exited", "dead": "exited", "removing": "exited"}


def seconds(text: str) -> float:
    """Unix seconds of Docker's RFC 3339 with nanoseconds; its zero time (year 1) is 0."""
    if not text or text.startswith("0001-"):
        return 0.0
    whole, _, rest = text.partition(".")
    digits = rest.rstrip("Z").split("+")[0].split("-")[0] if rest else ""
    zone = rest[len(digits) :] if rest else ""
    moment = datetime.fromisoformat((whole + (zone or ("" if whole.endswith("Z") else "Z"))).replace("Z", "+00:00"))
    return moment.timestamp() + (float(f"0.{digits}") if digits else 0.0)


def container_info(answer: Json) -> ContainerInfo | None:
    """From `GET /containers/<id>/json`; None for what has no name of ours."""
    who = parse_name(answer["Name"])
    if who is None:
        return None
    state, config = answer["State"], answer["Config"]
    labels: dict[str, str] = config.get("Labels") or {}
    created, word = seconds(answer["Created"]), _STATES.get(state["Status"], "running")
    started, finished = seconds(state["StartedAt"]), seconds(state["FinishedAt"])
    if word == "created" and (state["ExitCode"] or state["Error"]):
        # Its program could not be started: Docker leaves it 'created' with 126, 127 or 128 and its reason.
        word, started, finished = "exited", created, created
    return ContainerInfo(
        id=answer["Id"],
        pod_uid=who.uid,
        pod_name=who.pod,
        pod_namespace=who.namespace,
        name=who.container,
        attempt=who.attempt,
        state=word,  # type: ignore[arg-type]  # one of the three by construction
        hash=labels.get(LABEL_HASH, ""),
        pid=state["Pid"],
        created_at=created,
        started_at=started,
        finished_at=finished if word == "exited" else 0.0,
        exit_code=state["ExitCode"] if word == "exited" else 0,
        oom_killed=bool(state["OOMKilled"]),
        error=state["Error"],
        image=labels.get(LABEL_IMAGE, config["Image"]),
        image_id=answer["Image"],
        host_network=answer["HostConfig"]["NetworkMode"] == "host",
        labels=labels,
    )


def event_identity(event: Json) -> Identity | None:
    """Whose container an event of `GET /events` is about."""
    return parse_name(event.get("Actor", {}).get("Attributes", {}).get("name", ""))


def image_references(names: Iterable[str] | None) -> tuple[str, ...]:
    """Tags or digests without Docker's placeholders for 'none'."""
    return tuple(name for name in names or () if not name.startswith("<none>") and not name.endswith(":<none>"))
