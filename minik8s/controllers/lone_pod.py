"""A pod by itself becomes one of many: the ReplicaSet that would have made it. Pure.

Older manifests let an autoscaler scale a Pod. Kubernetes scales only what has a number of replicas, so the pod is given
a ReplicaSet of its own name, which adopts it by its labels and makes more like it.
"""

from __future__ import annotations

from minik8s.api.resource import Json

NAME_LABEL = "minik8s.io/replicas-of"  # given to a pod without labels, so that something can select it
# What admission, scheduling and the API have added to the pod, and will add to each copy by themselves.
_ADDED = ("nodeName", "priority", "preemptionPolicy", "serviceAccount")
_TOKEN_VOLUME = "kube-api-access-"  # noqa: S105


def selecting_labels(pod: Json) -> dict[str, str]:
    """The labels that a ReplicaSet for the pod selects by; the pod may lack them yet."""
    return pod["metadata"].get("labels") or {NAME_LABEL: pod["metadata"]["name"]}


def replica_set_for(pod: Json, replicas: int) -> Json:
    """The ReplicaSet that has `replicas` pods like `pod`, a stored object."""
    meta, labels = pod["metadata"], selecting_labels(pod)
    spec = {key: value for key, value in pod["spec"].items() if key not in _ADDED}
    spec["volumes"] = [each for each in spec.get("volumes") or () if not each["name"].startswith(_TOKEN_VOLUME)]
    for kind in ("containers", "initContainers"):
        if kind in spec:
            spec[kind] = [_without_token(container) for container in spec[kind]]
    template: Json = {"metadata": {"labels": labels}, "spec": spec}
    if meta.get("annotations"):
        template["metadata"]["annotations"] = meta["annotations"]
    return {
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def _without_token(container: Json) -> Json:
    mounts = [each for each in container.get("volumeMounts") or () if not each["name"].startswith(_TOKEN_VOLUME)]
    return {**container, "volumeMounts": mounts}
