"""The pod that drives one GpuJob (`spec.driver: Sidecar`), with the rights that this very job needs. Pure."""

from __future__ import annotations

from minik8s.api.kinds.gpujob import TERMINAL, GpuJob
from minik8s.api.kinds.hpccluster import SIDECAR, SLURM, HpcCluster
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.rbac import GROUP as RBAC
from minik8s.api.meta import Json
from minik8s.apiserver.auth import SERVICE_ACCOUNT_PREFIX
from minik8s.hpc.progress import keeps_folder

UID_LABEL = "hpc.minik8s.io/driver-of"
APP_LABEL, APP = "app.kubernetes.io/name", "gpujob-driver"
CONTAINER = "driver"
FILES = "/var/lib/driver"  # an emptyDir: sources on their way up, results on their way down
NOBODY = 65534
_HPC = "hpc.minik8s.io"


def wanted(job: GpuJob, cluster: HpcCluster) -> bool:
    """Whether a pod is to drive the job. On a cluster of type Local jobs are pods already: the master drives those."""
    return cluster.spec.type == SLURM and (job.spec.driver or cluster.spec.driver) == SIDECAR


def name_of(job: GpuJob) -> str:
    """Of the pod, and of its ServiceAccount, Role and RoleBinding."""
    return f"{job.metadata.name[:40].rstrip('-.')}-driver-{job.metadata.uid[:8]}"


def user_of(job: GpuJob) -> str:
    """As whom it speaks to the API server."""
    return f"{SERVICE_ACCOUNT_PREFIX}{job.metadata.namespace}:{name_of(job)}"


def metadata(job: GpuJob) -> Json:
    meta = job.metadata
    owner = {"apiVersion": "hpc.minik8s.io/v1", "kind": "GpuJob", "name": meta.name, "uid": meta.uid,
             "controller": True, "blockOwnerDeletion": True}  # fmt: skip
    labels = {APP_LABEL: APP, UID_LABEL: meta.uid}
    return {"name": name_of(job), "namespace": meta.namespace, "labels": labels, "ownerReferences": [owner]}


def rules(job: GpuJob, cluster: HpcCluster) -> list[Json]:
    """No object but those that are named: the job, its cluster, its login, its sources; and events."""
    own, secret = job.metadata.name, job.spec.secretRef or cluster.spec.secretRef
    found = [
        _rule(_HPC, "gpujobs", own, "get", "list", "watch"),
        _rule(_HPC, "gpujobs/status", own, "patch"),
        _rule(_HPC, "gpujobs/results", own, "get", "update"),
        _rule(_HPC, "hpcclusters", cluster.metadata.name, "get", "list", "watch"),
        _rule("", "secrets", secret.name, "get"),
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "get", "patch"]},
    ]
    if job.spec.source.archive is not None:
        found.append(_rule(_HPC, "gpujobs/source", own, "get"))
    if job.spec.source.configMap is not None:
        found.append(_rule("", "configmaps", job.spec.source.configMap.name, "get"))
    return found


def _rule(group: str, resource: str, name: str, *verbs: str) -> Json:
    return {"apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": list(verbs)}


def binding(job: GpuJob) -> Json:
    subject = {"kind": "ServiceAccount", "name": name_of(job), "namespace": job.metadata.namespace}
    role = {"apiGroup": RBAC, "kind": "Role", "name": name_of(job)}
    return {"metadata": metadata(job), "roleRef": role, "subjects": [subject]}


def pod(job: GpuJob, image: str) -> Json:
    """Small, without any right on its node, and as far from other drivers as there are nodes."""
    meta = job.metadata
    limits = {"requests": {"cpu": "10m", "memory": "96Mi"}, "limits": {"memory": "384Mi"}}
    locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": CONTAINER, "image": image, "args": [meta.namespace, meta.name, meta.uid], "resources": limits,
        "securityContext": locked, "volumeMounts": [{"name": "files", "mountPath": FILES}],
        "env": [{"name": "HOME", "value": FILES}, {"name": "TMPDIR", "value": FILES}],
    }  # fmt: skip
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
              "labelSelector": {"matchLabels": {APP_LABEL: APP}}}  # fmt: skip
    return {
        "metadata": metadata(job),
        "spec": {
            "serviceAccountName": name_of(job), "restartPolicy": "OnFailure", "enableServiceLinks": False,
            "securityContext": {"runAsUser": NOBODY, "runAsGroup": NOBODY, "fsGroup": NOBODY, "runAsNonRoot": True},
            "topologySpreadConstraints": [spread], "containers": [container],
            "volumes": [{"name": "files", "emptyDir": {}}],
        },
    }  # fmt: skip


def trouble(pod: Pod) -> tuple[str, str]:
    """Why it does not run, as a word and a sentence: the scheduler's, or the kubelet's. "" twice if it does."""
    for condition in pod.status.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.reason, condition.message
    for each in pod.status.containerStatuses:
        waiting = each.state.waiting
        if waiting is not None and waiting.reason not in ("", "ContainerCreating", "PodInitializing"):
            return waiting.reason, waiting.message
    return "", ""


def leaves_nothing(job: GpuJob) -> bool:
    """Whether a job that is deleted has nothing to end or to remove on its cluster."""
    status = job.status
    if not status.remotePath:
        return True
    cleaned = job.spec.cleanup == "Never" or (bool(status.outcome) and not keeps_folder(job, status.outcome))
    return status.phase in TERMINAL and cleaned
