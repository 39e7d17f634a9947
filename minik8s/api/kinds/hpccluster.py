"""HpcCluster: a Slurm cluster behind SSH on which GpuJobs run. Where it is, who logs in, and what proves its identity.
Or, with type Local, this very cluster: the same jobs run as pods.

apiVersion: hpc.minik8s.io/v1
    kind: HpcCluster
    metadata: {name: supercomputer}
    spec:
      host: login.example
      user: ada
      secretRef: {name: supercomputer-login}     # ssh-privatekey (and passphrase), or password
      knownHosts: |
        login.example ssh-ed25519 AAAA…
    ---
    spec: {type: Local, local: {image: "nvidia/cuda:12.4.1-devel-ubuntu22.04"}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from minik8s.api.errors import Cause, forbidden, invalid, required
from minik8s.api.kinds.columns import AGE, NAME, condition, dig
from minik8s.api.kinds.validation import QUALIFIED, choice, port_number
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Condition, LocalObjectReference, Object, Struct
from minik8s.api.resource import Column, Json, Resource

SLURM, LOCAL = "Slurm", "Local"
DEVICE = "nvidia.com/gpu"
OF_SSH = ("host", "port", "user", "secretRef", "knownHosts", "hostKeyPolicy", "proxyJump", "workRoot", "env",
          "pollInterval", "driver")  # fmt: skip
MASTER, SIDECAR = "Master", "Sidecar"
DRIVERS = (MASTER, SIDECAR)  # what drives a job: the master, or a pod of its own
STRICT, TRUST_ON_FIRST_USE = "Strict", "TrustOnFirstUse"
WORK_ROOT = "minik8s"  # below the home folder
POLL_MIN, POLL_MAX = 2, 30  # seconds between two looks at a cluster's queue: while something changes, and at rest
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HOST = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._:]{0,252})")
USER = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.@\\]{0,255}")
FOLDER = re.compile(r"/?[A-Za-z0-9_][-A-Za-z0-9_./+]*")


class EnvVar(Struct):
    name: str = ""
    value: str = ""


class ProxyJump(Struct):
    host: str = ""
    port: int = 22
    user: str = ""  # "": that of the cluster


class PollInterval(Struct):
    minSeconds: int = POLL_MIN
    maxSeconds: int = POLL_MAX


class LocalCluster(Struct):
    image: str = ""
    resourceName: str = DEVICE
    nodeSelector: dict[str, str] = {}


class HpcClusterSpec(Struct):
    type: str = SLURM
    local: LocalCluster | None = None
    driver: str = MASTER  # of jobs that do not say
    host: str = ""
    port: int = 22
    user: str = ""
    secretRef: LocalObjectReference = LocalObjectReference()
    knownHosts: str = ""
    hostKeyPolicy: str = STRICT
    proxyJump: ProxyJump | None = None
    workRoot: str = WORK_ROOT
    env: tuple[EnvVar, ...] = ()
    pollInterval: PollInterval = PollInterval()


class HpcClusterStatus(Struct):
    hostKey: str = ""  # the line of known_hosts that was pinned on first use
    version: str = ""  # of Slurm
    jobs: int = 0  # that are neither finished nor waiting for something of ours
    conditions: tuple[Condition, ...] = ()
    observedGeneration: int = 0


class HpcCluster(Object):
    spec: HpcClusterSpec = HpcClusterSpec()
    status: HpcClusterStatus = HpcClusterStatus()


def _default(obj: Json) -> None:
    spec = obj.get("spec")
    if isinstance(spec, dict):
        fill(spec, "type", SLURM)
        if spec["type"] == LOCAL:
            if isinstance(spec.get("local"), dict):
                fill(spec["local"], "resourceName", DEVICE)
            return
        fill(spec, "driver", MASTER)
        fill(spec, "port", 22)
        fill(spec, "hostKeyPolicy", STRICT)
        fill(spec, "workRoot", WORK_ROOT)
        poll = spec.setdefault("pollInterval", {})
        if isinstance(poll, dict):
            fill(poll, "minSeconds", POLL_MIN)
            fill(poll, "maxSeconds", max(POLL_MAX, poll.get("minSeconds") or 0))
        if isinstance(spec.get("proxyJump"), dict):
            fill(spec["proxyJump"], "port", 22)


def _prepare(obj: Json, old: Json | None) -> None:
    if old is None:
        obj.pop("status", None)


def _validate(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    if spec.get("type") == LOCAL:
        return [*_local(spec)]
    causes = [
        *choice(spec, "spec", "type", (SLURM, LOCAL)),
        *_endpoint(spec, "spec"),
        *choice(spec, "spec", "hostKeyPolicy", (STRICT, TRUST_ON_FIRST_USE)),
        *choice(spec, "spec", "driver", DRIVERS),
    ]
    if spec.get("local"):
        causes.append(forbidden("spec.local", "is for clusters of type Local"))
    if not (spec.get("secretRef") or {}).get("name"):
        causes.append(required("spec.secretRef.name", "a Secret of this namespace with ssh-privatekey or password"))
    if spec.get("proxyJump") is not None:
        causes += _endpoint(spec["proxyJump"], "spec.proxyJump")
    root = spec.get("workRoot", WORK_ROOT)
    if not FOLDER.fullmatch(root) or ".." in root.split("/"):
        causes.append(invalid("spec.workRoot", root, "a folder on the cluster, below the home folder or absolute: "
                              "letters, digits and -_./+, without '..'"))  # fmt: skip
    causes += validate_env(spec.get("env") or (), "spec.env")
    poll = spec.get("pollInterval") or {}
    if not 1 <= poll.get("minSeconds", POLL_MIN) <= poll.get("maxSeconds", POLL_MAX) <= 3600:
        causes.append(invalid("spec.pollInterval", poll, "1 <= minSeconds <= maxSeconds <= 3600"))
    return causes


def _local(spec: Json) -> Iterator[Cause]:
    local = spec.get("local") or {}
    if not local.get("image"):
        yield required("spec.local.image", "the image that jobs run in, with a shell and what they are built with")
    name = local.get("resourceName") or DEVICE
    if not QUALIFIED.fullmatch(name) or "/" not in name:
        yield invalid("spec.local.resourceName", name, "must be the name of a device plugin's resource, nvidia.com/gpu")
    for field in OF_SSH:
        if spec.get(field):
            yield forbidden(f"spec.{field}", "is for clusters of type Slurm: jobs of this one run as pods")


def _endpoint(spec: Json, path: str) -> Iterator[Cause]:
    if not spec.get("host"):
        yield required(f"{path}.host", "the login node's name or address")
    elif not HOST.fullmatch(spec["host"]):
        yield invalid(f"{path}.host", spec["host"], "must be a host name or an address")
    if spec.get("user") and not USER.fullmatch(spec["user"]):
        yield invalid(f"{path}.user", spec["user"], "must be a user name")
    yield from port_number(spec.get("port", 22), f"{path}.port")


def validate_env(env: object, path: str) -> Iterator[Cause]:
    """Variables for a shell: their names must be such, their values may be anything but NUL."""
    for index, each in enumerate(env if isinstance(env, list | tuple) else ()):
        if not ENV_NAME.fullmatch(each.get("name") or ""):
            yield invalid(f"{path}[{index}].name", each.get("name"), "must be letters, digits and '_', no digit first")
        if "\0" in (each.get("value") or ""):
            yield invalid(f"{path}[{index}].value", "", "must not contain NUL")


def _reachable(obj: Json, now: float) -> str:
    known = condition(obj, "Reachable")
    return str(known.get("status")) if known else "Unknown"


RESOURCE = Resource(
    kind="HpcCluster",
    plural="hpcclusters",
    singular="hpccluster",
    shortNames=("hpc",),
    group="hpc.minik8s.io",
    type=HpcCluster,
    definition="io.minik8s.api.hpc.v1.HpcCluster",
    subresources=frozenset(("status",)),
    columns=(
        NAME,
        Column(
            "Host",
            lambda obj, now: dig(obj, "spec.host", ""),
            description="The login node.",
        ),
        Column("User", lambda obj, now: dig(obj, "spec.user", ""), description="Who logs in."),
        Column("Reachable", _reachable, description="Whether it answers."),
        Column("Jobs", lambda obj, now: dig(obj, "status.jobs", 0), type="integer", description="Jobs there."),
        Column("Slurm", lambda obj, now: dig(obj, "status.version", ""), description="Its version.", priority=1),
        AGE,
    ),
    default=_default,
    validate=_validate,
    prepare=_prepare,
)
