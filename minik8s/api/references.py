"""Which ConfigMaps and Secrets a pod needs: what a kubelet fetches, and all that its node may read of such objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import Container, Pod, Volume
from minik8s.api.kinds.secret import Secret

Reference = tuple[type[ConfigMap] | type[Secret], str]  # the kind and its name, in the pod's own namespace


def of_pod(pod: Pod) -> set[Reference]:
    """Everything that its environment, its volumes and its pull secrets name."""
    spec = pod.spec
    found = set(of_environment((*spec.initContainers, *spec.containers, *spec.ephemeralContainers)))
    found |= {(Secret, secret.name) for secret in spec.imagePullSecrets}
    for volume in spec.volumes:
        found |= set(of_volume(volume))
    return {reference for reference in found if reference[1]}


def of_environment(containers: Iterable[Container]) -> Iterator[Reference]:
    for container in containers:
        for source in container.envFrom:
            if source.configMapRef is not None:
                yield ConfigMap, source.configMapRef.name
            if source.secretRef is not None:
                yield Secret, source.secretRef.name
        for variable in container.env:
            if variable.valueFrom is not None and variable.valueFrom.configMapKeyRef is not None:
                yield ConfigMap, variable.valueFrom.configMapKeyRef.name
            if variable.valueFrom is not None and variable.valueFrom.secretKeyRef is not None:
                yield Secret, variable.valueFrom.secretKeyRef.name


def of_volume(volume: Volume) -> Iterator[Reference]:
    if volume.configMap is not None:
        yield ConfigMap, volume.configMap.name
    if volume.secret is not None:
        yield Secret, volume.secret.secretName
    for source in volume.projected.sources if volume.projected is not None else ():
        if source.configMap is not None:
            yield ConfigMap, source.configMap.name
        if source.secret is not None:
            yield Secret, source.secret.name
