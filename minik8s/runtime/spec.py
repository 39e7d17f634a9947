"""From a pod's container to what an engine must be told: names expanded, numbers in the kernel's units. Pure.

The rules and numbers are kubelet's own, so that a pod behaves here as it does there: cm.MilliCPUToShares and
MilliCPUToQuota, qos.GetContainerOOMScoreAdjust, kuberuntime's verifyRunAsNonRoot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from minik8s.api.kinds.pod import Capabilities, Container, Pod, SecurityContext
from minik8s.api.quantity import cpu_millis, to_bytes
from minik8s.api.resources import qos_class
from minik8s.runtime.base import (
    LABEL_IMAGE,
    ContainerConfigInvalid,
    ContainerSpec,
    Device,
    ImageInfo,
    Mount,
    SandboxSpec,
)
from minik8s.runtime.environment import expand

T = TypeVar("T")

CPU_PERIOD = 100_000  # microseconds
MIN_QUOTA = 1_000  # microseconds, the kernel's least
MIN_SHARES, MAX_SHARES = 2, 262_144
MIN_MEMORY = 6 << 20  # bytes; Docker makes no container with less
NODE_CRITICAL_PRIORITY = 2_000_001_000  # system-node-critical
GUARANTEED_OOM, BEST_EFFORT_OOM = -997, 1000


class NodeLimits(NamedTuple):
    """What the rules need to know of the node."""

    memory: int  # bytes, the node's whole capacity
    seccomp_root: str = "/var/lib/kubelet/seccomp"  # where Localhost profiles are
    seccomp_default: bool = False  # pods that say nothing get the engine's profile (kubelet's --seccomp-default)


def container_hash(container: Container) -> str:
    """What, when changed, restarts a container: its name and image, the only fields of it that a pod can change.

    Not all fields: an agent that learns a new one would then restart every healthy container after its upgrade.
    """
    return hashlib.sha256(f"{container.name}\0{container.image}".encode()).hexdigest()[:16]


def container_spec(
    pod: Pod,
    container: Container,
    *,
    sandbox: SandboxSpec,
    sandbox_id: str,
    image: ImageInfo,
    env: Mapping[str, str],
    node: NodeLimits,
    attempt: int = 0,
    mounts: Sequence[Mount] = (),
    devices: Sequence[Device] = (),
    gpus: Sequence[str] = (),
    groups: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    pid_target: str = "",
) -> ContainerSpec:
    """`env` is resolved already, in its order. ContainerConfigInvalid if root is forbidden and the image wants it."""
    security = container.securityContext or SecurityContext()
    require_non_root(pod, container, image)
    capabilities = security.capabilities or Capabilities()
    period, quota = cpu_quota(_millis(container, "limits"))
    memory = to_bytes(container.resources.limits.get("memory", 0))
    return ContainerSpec(
        pod_uid=pod.metadata.uid,
        pod_name=pod.metadata.name,
        pod_namespace=pod.metadata.namespace,
        name=container.name,
        attempt=attempt,
        hash=container_hash(container),
        image=image.id,
        sandbox=sandbox,
        sandbox_id=sandbox_id,
        command=tuple(expand(word, env) for word in container.command),
        args=tuple(expand(word, env) for word in container.args),
        env=tuple(env.items()),
        working_dir=container.workingDir,
        user=_user(pod, security, image),
        groups=tuple(dict.fromkeys((*_groups(pod), *groups))),
        mounts=tuple(mounts),
        devices=tuple(devices),
        gpus=tuple(gpus),
        tty=container.tty,
        stdin=container.stdin,
        stdin_once=container.stdinOnce,
        privileged=bool(security.privileged),
        read_only_root=bool(security.readOnlyRootFilesystem),
        no_new_privileges=security.allowPrivilegeEscalation is False,
        cap_add=tuple(_capability(name) for name in capabilities.add),
        cap_drop=tuple(_capability(name) for name in capabilities.drop),
        seccomp=_seccomp(pod, security, node),
        cpu_shares=cpu_shares(_millis(container, "requests") or _millis(container, "limits")),
        cpu_period=period,
        cpu_quota=quota,
        memory=max(memory, MIN_MEMORY) if memory else 0,
        oom_score_adj=oom_score_adj(pod, container, node.memory),
        cgroup_parent=sandbox.cgroup_parent,
        labels={**(labels or {}), LABEL_IMAGE: container.image},
        pid_target=pid_target,
    )


# -- resources


def _millis(container: Container, kind: str) -> int:
    quantities = container.resources.requests if kind == "requests" else container.resources.limits
    return cpu_millis(quantities.get("cpu", 0))


def cpu_shares(millis: int) -> int:
    """Relative weight: 1024 a core, at least 2."""
    return min(max(millis * 1024 // 1000, MIN_SHARES), MAX_SHARES)


def cpu_quota(millis: int) -> tuple[int, int]:
    """(period, quota) in microseconds; (0, 0) without a limit."""
    return (CPU_PERIOD, max(millis * CPU_PERIOD // 1000, MIN_QUOTA)) if millis else (0, 0)


def oom_score_adj(pod: Pod, container: Container, capacity: int) -> int:
    """Who dies first when the node's memory is out: those that asked for little of it and promised nothing."""
    if pod.spec.priority >= NODE_CRITICAL_PRIORITY:
        return GUARANTEED_OOM
    quality = pod.status.qosClass or qos_class(pod.spec)
    if quality == "Guaranteed":
        return GUARANTEED_OOM
    if quality == "BestEffort":
        return BEST_EFFORT_OOM
    asked = to_bytes(container.resources.requests.get("memory", 0))
    score = 1000 - 1000 * asked // capacity
    # Never as safe as a guaranteed one, never as exposed as one that promised nothing.
    return min(max(score, 1000 + GUARANTEED_OOM), BEST_EFFORT_OOM - 1)


# -- security


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


def _user(pod: Pod, security: SecurityContext, image: ImageInfo) -> str:
    """`uid[:gid]`, "" = as the image says. A group alone goes with the image's user."""
    uid = _first(security.runAsUser, pod.spec.securityContext.runAsUser)
    gid = _first(security.runAsGroup, pod.spec.securityContext.runAsGroup)
    if gid is None:
        return "" if uid is None else str(uid)
    user = str(uid) if uid is not None else image.user.partition(":")[0] or "0"
    return f"{user}:{gid}"


def _groups(pod: Pod) -> tuple[str, ...]:
    context = pod.spec.securityContext
    wanted = (*context.supplementalGroups, *(() if context.fsGroup is None else (context.fsGroup,)))
    return tuple(str(group) for group in dict.fromkeys(wanted))


def require_non_root(pod: Pod, container: Container, image: ImageInfo) -> None:
    """ContainerConfigInvalid if `runAsNonRoot` is asked for and the container would, or might, run as root."""
    security = container.securityContext or SecurityContext()
    if not _first(security.runAsNonRoot, pod.spec.securityContext.runAsNonRoot):
        return
    where = f'(pod: "{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})", container: {container.name})'
    uid = _first(security.runAsUser, pod.spec.securityContext.runAsUser)
    if uid is not None:
        if uid == 0:
            raise ContainerConfigInvalid(f"container's runAsUser breaks non-root policy {where}")
        return
    user = image.user.partition(":")[0]
    if user and not user.isdecimal():
        raise ContainerConfigInvalid(
            f"container has runAsNonRoot and image has non-numeric user ({user}), "
            f"cannot verify user is non-root {where}"
        )
    if int(user or 0) == 0:
        raise ContainerConfigInvalid(f"container has runAsNonRoot and image will run as root {where}")


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _seccomp(pod: Pod, security: SecurityContext, node: NodeLimits) -> str:
    """Kubernetes' default is no profile at all unless the node says otherwise."""
    profile = security.seccompProfile or pod.spec.securityContext.seccompProfile
    if security.privileged:
        return "unconfined"
    if profile is None:
        return "" if node.seccomp_default else "unconfined"
    if profile.type == "Localhost":
        return f"{node.seccomp_root}/{profile.localhostProfile}"
    return "" if profile.type == "RuntimeDefault" else "unconfined"
