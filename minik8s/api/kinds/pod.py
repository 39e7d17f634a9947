"""Pod: containers that share a network, a node and a fate."""

from __future__ import annotations

from contextlib import suppress

from minik8s.api.errors import Cause, invalid
from minik8s.api.kinds.pod_columns import COLUMNS
from minik8s.api.kinds.pod_defaults import default_pod
from minik8s.api.kinds.pod_validation import validate_pod_update, validate_spec
from minik8s.api.meta import (
    Condition,
    IntOrString,
    LabelSelector,
    LabelSelectorRequirement,
    LocalObjectReference,
    Object,
    ObjectMeta,
    Struct,
)
from minik8s.api.resource import Json, Resource


class KeySelector(Struct):
    """configMapKeyRef and secretKeyRef."""

    name: str = ""
    key: str = ""
    optional: bool = False


class ObjectFieldSelector(Struct):
    apiVersion: str = "v1"
    fieldPath: str = ""


class ResourceFieldSelector(Struct):
    containerName: str = ""
    resource: str = ""
    divisor: IntOrString | float = "0"


class EnvVarSource(Struct):
    fieldRef: ObjectFieldSelector | None = None
    resourceFieldRef: ResourceFieldSelector | None = None
    configMapKeyRef: KeySelector | None = None
    secretKeyRef: KeySelector | None = None


class EnvVar(Struct):
    name: str = ""
    value: str = ""
    valueFrom: EnvVarSource | None = None


class OptionalName(Struct):
    name: str = ""
    optional: bool = False


class EnvFromSource(Struct):
    prefix: str = ""
    configMapRef: OptionalName | None = None
    secretRef: OptionalName | None = None


class ContainerPort(Struct):
    name: str = ""
    containerPort: int = 0
    hostPort: int = 0
    hostIP: str = ""
    protocol: str = "TCP"


class VolumeMount(Struct):
    name: str = ""
    mountPath: str = ""
    readOnly: bool = False
    subPath: str = ""
    subPathExpr: str = ""
    mountPropagation: str = ""


class ResourceRequirements(Struct):
    """Quantities by resource name, as written (`500m`, `64Mi`); `quantity.py` parses them."""

    requests: dict[str, IntOrString | float] = {}
    limits: dict[str, IntOrString | float] = {}


class HTTPHeader(Struct):
    name: str = ""
    value: str = ""


class HTTPGetAction(Struct):
    path: str = "/"
    port: IntOrString = 0
    host: str = ""
    scheme: str = "HTTP"
    httpHeaders: tuple[HTTPHeader, ...] = ()


class ExecAction(Struct):
    command: tuple[str, ...] = ()


class TCPSocketAction(Struct):
    port: IntOrString = 0
    host: str = ""


class GRPCAction(Struct):
    port: int = 0
    service: str = ""


class SleepAction(Struct):
    seconds: int = 0


class Probe(Struct):
    exec: ExecAction | None = None
    httpGet: HTTPGetAction | None = None
    tcpSocket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initialDelaySeconds: int = 0
    timeoutSeconds: int = 1
    periodSeconds: int = 10
    successThreshold: int = 1
    failureThreshold: int = 3
    terminationGracePeriodSeconds: int | None = None


class LifecycleHandler(Struct):
    exec: ExecAction | None = None
    httpGet: HTTPGetAction | None = None
    tcpSocket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Struct):
    postStart: LifecycleHandler | None = None
    preStop: LifecycleHandler | None = None


class Capabilities(Struct):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SeccompProfile(Struct):
    type: str = ""
    localhostProfile: str = ""


class SecurityContext(Struct):
    """A container's; None means 'as the pod says'."""

    privileged: bool | None = None
    runAsUser: int | None = None
    runAsGroup: int | None = None
    runAsNonRoot: bool | None = None
    readOnlyRootFilesystem: bool | None = None
    allowPrivilegeEscalation: bool | None = None
    capabilities: Capabilities | None = None
    seccompProfile: SeccompProfile | None = None


class Container(Struct):
    name: str = ""
    image: str = ""
    imagePullPolicy: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    workingDir: str = ""
    env: tuple[EnvVar, ...] = ()
    envFrom: tuple[EnvFromSource, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    volumeMounts: tuple[VolumeMount, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    restartPolicy: str = ""  # init containers: Always = sidecar
    livenessProbe: Probe | None = None
    readinessProbe: Probe | None = None
    startupProbe: Probe | None = None
    lifecycle: Lifecycle | None = None
    securityContext: SecurityContext | None = None
    terminationMessagePath: str = "/dev/termination-log"
    terminationMessagePolicy: str = "File"
    stdin: bool = False
    stdinOnce: bool = False
    tty: bool = False
    targetContainerName: str = ""  # ephemeral containers only


class KeyToPath(Struct):
    key: str = ""
    path: str = ""
    mode: int | None = None


class ConfigMapVolume(Struct):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    defaultMode: int | None = None
    optional: bool = False


class SecretVolume(Struct):
    secretName: str = ""
    items: tuple[KeyToPath, ...] = ()
    defaultMode: int | None = None
    optional: bool = False


class SecretProjection(Struct):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class DownwardAPIFile(Struct):
    path: str = ""
    fieldRef: ObjectFieldSelector | None = None
    resourceFieldRef: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPIVolume(Struct):
    items: tuple[DownwardAPIFile, ...] = ()
    defaultMode: int | None = None


class ServiceAccountTokenProjection(Struct):
    path: str = ""
    audience: str = ""
    expirationSeconds: int = 3600


class VolumeProjection(Struct):
    configMap: ConfigMapVolume | None = None
    secret: SecretProjection | None = None
    downwardAPI: DownwardAPIVolume | None = None
    serviceAccountToken: ServiceAccountTokenProjection | None = None


class ProjectedVolume(Struct):
    sources: tuple[VolumeProjection, ...] = ()
    defaultMode: int | None = None


class HostPathVolume(Struct):
    path: str = ""
    type: str = ""


class EmptyDirVolume(Struct):
    medium: str = ""
    sizeLimit: IntOrString | float = ""


class PersistentVolumeClaimVolume(Struct):
    claimName: str = ""
    readOnly: bool = False


class Volume(Struct):
    name: str = ""
    hostPath: HostPathVolume | None = None
    emptyDir: EmptyDirVolume | None = None
    configMap: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    downwardAPI: DownwardAPIVolume | None = None
    projected: ProjectedVolume | None = None
    persistentVolumeClaim: PersistentVolumeClaimVolume | None = None


class Toleration(Struct):
    key: str = ""
    operator: str = "Equal"  # Equal | Exists
    value: str = ""
    effect: str = ""  # "" = all effects
    tolerationSeconds: int | None = None


class NodeSelectorTerm(Struct):
    matchExpressions: tuple[LabelSelectorRequirement, ...] = ()
    matchFields: tuple[LabelSelectorRequirement, ...] = ()


class NodeSelector(Struct):
    nodeSelectorTerms: tuple[NodeSelectorTerm, ...] = ()


class PreferredSchedulingTerm(Struct):
    weight: int = 0
    preference: NodeSelectorTerm = NodeSelectorTerm()


class NodeAffinity(Struct):
    requiredDuringSchedulingIgnoredDuringExecution: NodeSelector | None = None
    preferredDuringSchedulingIgnoredDuringExecution: tuple[PreferredSchedulingTerm, ...] = ()


class PodAffinityTerm(Struct):
    topologyKey: str = ""
    labelSelector: LabelSelector | None = None
    namespaces: tuple[str, ...] = ()
    namespaceSelector: LabelSelector | None = None


class WeightedPodAffinityTerm(Struct):
    weight: int = 0
    podAffinityTerm: PodAffinityTerm = PodAffinityTerm()


class PodAffinity(Struct):
    """Also podAntiAffinity, which has the same shape."""

    requiredDuringSchedulingIgnoredDuringExecution: tuple[PodAffinityTerm, ...] = ()
    preferredDuringSchedulingIgnoredDuringExecution: tuple[WeightedPodAffinityTerm, ...] = ()


class Affinity(Struct):
    nodeAffinity: NodeAffinity | None = None
    podAffinity: PodAffinity | None = None
    podAntiAffinity: PodAffinity | None = None


class TopologySpreadConstraint(Struct):
    maxSkew: int = 1
    topologyKey: str = ""
    whenUnsatisfiable: str = "DoNotSchedule"
    labelSelector: LabelSelector | None = None
    minDomains: int | None = None
    nodeAffinityPolicy: str = "Honor"
    nodeTaintsPolicy: str = "Ignore"
    matchLabelKeys: tuple[str, ...] = ()


class Sysctl(Struct):
    name: str = ""
    value: str = ""


class PodSecurityContext(Struct):
    runAsUser: int | None = None
    runAsGroup: int | None = None
    runAsNonRoot: bool | None = None
    fsGroup: int | None = None
    supplementalGroups: tuple[int, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    seccompProfile: SeccompProfile | None = None


class HostAlias(Struct):
    ip: str = ""
    hostnames: tuple[str, ...] = ()


class PodDNSConfigOption(Struct):
    name: str = ""
    value: str | None = None


class PodDNSConfig(Struct):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class PodReadinessGate(Struct):
    conditionType: str = ""


class SchedulingGate(Struct):
    name: str = ""


class PodSpec(Struct):
    nodeName: str = ""
    containers: tuple[Container, ...] = ()
    initContainers: tuple[Container, ...] = ()
    ephemeralContainers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restartPolicy: str = "Always"
    terminationGracePeriodSeconds: int = 30
    activeDeadlineSeconds: int | None = None
    nodeSelector: dict[str, str] = {}
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] = ()
    topologySpreadConstraints: tuple[TopologySpreadConstraint, ...] = ()
    schedulerName: str = "default-scheduler"
    schedulingGates: tuple[SchedulingGate, ...] = ()
    priority: int = 0
    priorityClassName: str = ""
    preemptionPolicy: str = "PreemptLowerPriority"
    serviceAccountName: str = ""
    automountServiceAccountToken: bool | None = None
    hostNetwork: bool = False
    hostPID: bool = False
    hostIPC: bool = False
    shareProcessNamespace: bool = False
    hostname: str = ""
    subdomain: str = ""
    setHostnameAsFQDN: bool = False
    dnsPolicy: str = "ClusterFirst"
    dnsConfig: PodDNSConfig | None = None
    enableServiceLinks: bool = True
    hostAliases: tuple[HostAlias, ...] = ()
    imagePullSecrets: tuple[LocalObjectReference, ...] = ()
    securityContext: PodSecurityContext = PodSecurityContext()
    readinessGates: tuple[PodReadinessGate, ...] = ()
    overhead: dict[str, IntOrString | float] = {}


class ContainerStateWaiting(Struct):
    reason: str = ""
    message: str = ""


class ContainerStateRunning(Struct):
    startedAt: str = ""


class ContainerStateTerminated(Struct):
    exitCode: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    startedAt: str = ""
    finishedAt: str = ""
    containerID: str = ""


class ContainerState(Struct):
    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(Struct):
    name: str = ""
    state: ContainerState = ContainerState()
    lastState: ContainerState = ContainerState()
    ready: bool = False
    started: bool | None = None
    restartCount: int = 0
    image: str = ""
    imageID: str = ""
    containerID: str = ""


class PodIP(Struct):
    ip: str = ""


class PodStatus(Struct):
    phase: str = ""
    conditions: tuple[Condition, ...] = ()
    reason: str = ""
    message: str = ""
    hostIP: str = ""
    podIP: str = ""
    podIPs: tuple[PodIP, ...] = ()
    startTime: str = ""
    qosClass: str = ""
    nominatedNodeName: str = ""
    containerStatuses: tuple[ContainerStatus, ...] = ()
    initContainerStatuses: tuple[ContainerStatus, ...] = ()
    ephemeralContainerStatuses: tuple[ContainerStatus, ...] = ()


class Pod(Object):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PodTemplateSpec(Struct):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


def _prepare(pod: Json, old: Json | None) -> None:
    """A new pod begins Pending; its quality of service follows from its requests and never changes."""
    if old is None:
        import msgspec

        from minik8s.api.resources import qos_class

        pod["status"] = {"phase": "Pending"}
        # A quantity that is none is for validation to tell, which comes next.
        with suppress(ValueError):
            pod["status"]["qosClass"] = qos_class(msgspec.convert(pod.get("spec") or {}, PodSpec))


def _validate(pod: Json, old: Json | None) -> list[Cause]:
    causes = list(validate_spec(pod["spec"], "spec"))
    if old is None and pod["spec"].get("ephemeralContainers"):
        causes.append(invalid("spec.ephemeralContainers", "", "add them with the ephemeralcontainers subresource"))
    return causes if old is None else [*causes, *validate_pod_update(pod, old)]


RESOURCE = Resource(
    kind="Pod",
    plural="pods",
    type=Pod,
    definition="io.k8s.api.core.v1.Pod",
    shortNames=("po",),
    categories=("all",),
    subresources=frozenset(
        (
            "status",
            "log",
            "exec",
            "attach",
            "portforward",
            "proxy",
            "binding",
            "eviction",
            "ephemeralcontainers",
            "resize",
        )
    ),
    columns=COLUMNS,
    default=default_pod,
    validate=_validate,
    prepare=_prepare,
    selectable={
        "spec.nodeName": lambda pod: str(pod["spec"].get("nodeName", "")),
        "spec.restartPolicy": lambda pod: str(pod["spec"].get("restartPolicy", "")),
        "spec.schedulerName": lambda pod: str(pod["spec"].get("schedulerName", "")),
        "spec.serviceAccountName": lambda pod: str(pod["spec"].get("serviceAccountName", "")),
        "spec.hostNetwork": lambda pod: "true" if pod["spec"].get("hostNetwork") else "false",
        "status.phase": lambda pod: str((pod.get("status") or {}).get("phase", "")),
        "status.podIP": lambda pod: str((pod.get("status") or {}).get("podIP", "")),
        "status.nominatedNodeName": lambda pod: str((pod.get("status") or {}).get("nominatedNodeName", "")),
    },
)
