"""Engine specs for this node's pods: fetches what their environment refers to; `runtime.spec` decides."""

from __future__ import annotations

import asyncio

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import Container, DownwardAPIFile, Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.kinds.service import Service
from minik8s.api.references import of_environment
from minik8s.api.resources import qos_class
from minik8s.client.informer import Informer
from minik8s.kubelet.kit import Place, Settings
from minik8s.kubelet.node_facts import Facts, resources
from minik8s.kubelet.objects import Objects
from minik8s.kubelet.pod_files import pod_fqdn, pod_hostname
from minik8s.kubelet.view import LABEL_CRASHES, LABEL_SANDBOX
from minik8s.runtime.base import ContainerSpec, ImageInfo, SandboxSpec
from minik8s.runtime.environment import Surroundings, field_value, resolve_env, resource_value
from minik8s.runtime.spec import NodeLimits, container_hash, container_spec

SERVICES_WAIT = 2.0  # seconds that a container waits for the list of services; without the API it goes without


class PodSpecs:
    def __init__(self, settings: Settings, objects: Objects, services: Informer[Service], facts: Facts) -> None:
        self._settings = settings
        self._objects = objects
        self._services = services
        self._allocatable = resources(settings, facts, {})[1]
        self._limits = NodeLimits(facts.memory)

    def hashes(self, pod: Pod) -> dict[str, str]:
        spec = pod.spec
        return {c.name: container_hash(c) for c in (*spec.initContainers, *spec.containers, *spec.ephemeralContainers)}

    def qos(self, pod: Pod) -> str:
        return pod.status.qosClass or qos_class(pod.spec)

    def field(self, pod: Pod, item: DownwardAPIFile) -> str:
        if item.resourceFieldRef is not None:
            return resource_value(pod, item.resourceFieldRef, self._allocatable)
        path = item.fieldRef.fieldPath if item.fieldRef is not None else ""
        return field_value(pod, path, Surroundings())

    def sandbox(self, pod: Pod, attempt: int) -> SandboxSpec:
        meta, spec = pod.metadata, pod.spec
        full = pod_fqdn(pod, self._settings.cluster_domain) if spec.setHostnameAsFQDN else ""
        return SandboxSpec(
            pod_uid=meta.uid,
            pod_name=meta.name,
            pod_namespace=meta.namespace,
            hostname=full or pod_hostname(pod),
            attempt=attempt,
            host_network=spec.hostNetwork,
            host_pid=spec.hostPID,
            host_ipc=spec.hostIPC,
            share_pid=spec.shareProcessNamespace,
            sysctls={sysctl.name: sysctl.value for sysctl in spec.securityContext.sysctls},
        )

    async def environment(self, pod: Pod, container: Container, ip: str) -> tuple[tuple[str, str], ...]:
        space = pod.metadata.namespace
        found = {ref: await self._objects.get(ref[0], space, ref[1]) for ref in of_environment([container])}
        around = Surroundings(
            configmaps={name: obj for (_, name), obj in found.items() if isinstance(obj, ConfigMap)},
            secrets={name: obj for (_, name), obj in found.items() if isinstance(obj, Secret)},
            services=await self._known_services(space),
            pod_ips=(ip,) if ip else (),
            host_ips=(self._settings.node_ip,),
            allocatable=self._allocatable,
        )
        return tuple(resolve_env(container, pod, around).items())

    async def _known_services(self, namespace: str) -> list[Service]:
        try:
            async with asyncio.timeout(SERVICES_WAIT):
                await self._services.synced()
        except TimeoutError:
            return []
        master = self._services.get("default", "kubernetes") if namespace != "default" else None
        return [*self._services.list(namespace), *([master] if master is not None else [])]

    def container(
        self, pod: Pod, container: Container, image: ImageInfo, attempt: int, crashes: int, place: Place
    ) -> ContainerSpec:
        return container_spec(
            pod,
            container,
            sandbox=place.sandbox,
            sandbox_id=place.sandbox_id,
            image=image,
            env=dict(place.env),
            node=self._limits,
            attempt=attempt,
            mounts=place.mounts,
            devices=place.given.devices,
            gpus=place.given.gpus,
            groups=place.given.groups,
            labels={**place.given.labels, LABEL_SANDBOX: place.sandbox_id, LABEL_CRASHES: str(crashes)},
            pid_target=place.pid_target,
        )
