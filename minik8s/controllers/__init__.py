"""The controllers: each makes one part of what is like what should be. Their list, and how they are put together."""

from __future__ import annotations

from collections.abc import Callable

from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, system_clock
from minik8s.controllers.clusterrole_aggregation import ClusterRoleAggregationController
from minik8s.controllers.daemonset import DaemonSetController
from minik8s.controllers.deployment import DeploymentController
from minik8s.controllers.dns import DNSController
from minik8s.controllers.endpoints import EndpointsController
from minik8s.controllers.endpointslice import EndpointSliceController
from minik8s.controllers.endpointslice_mirroring import EndpointSliceMirroringController
from minik8s.controllers.event_ttl import EventTTLController
from minik8s.controllers.garbage_collector import GarbageCollector
from minik8s.controllers.horizontalpodautoscaler import HorizontalPodAutoscalerController
from minik8s.controllers.ingress import IngressController
from minik8s.controllers.job import JobController
from minik8s.controllers.namespace import NamespaceController
from minik8s.controllers.node_ipam import NodeIpamController
from minik8s.controllers.node_lifecycle import NodeLifecycleController
from minik8s.controllers.pod_gc import PodGCController
from minik8s.controllers.replicaset import ReplicaSetController
from minik8s.controllers.service_lb import ServiceLBController
from minik8s.controllers.serviceaccount import RootCAController, ServiceAccountController
from minik8s.controllers.settings import DEFAULTS, Settings
from minik8s.controllers.taint_eviction import TaintEvictionController
from minik8s.controllers.token_cleaner import TokenCleaner

CONTROLLERS: tuple[type[Controller], ...] = (
    ReplicaSetController,
    DeploymentController,
    DaemonSetController,
    JobController,
    HorizontalPodAutoscalerController,
    EndpointSliceController,
    EndpointSliceMirroringController,
    EndpointsController,
    ServiceAccountController,
    RootCAController,
    ClusterRoleAggregationController,
    ServiceLBController,
    DNSController,
    IngressController,
    NodeLifecycleController,
    TaintEvictionController,
    NodeIpamController,
    PodGCController,
    EventTTLController,
    TokenCleaner,
    NamespaceController,
    GarbageCollector,
)


def build(
    client: Client,
    informers: Informers,
    recorder_factory: Callable[[str], Recorder],
    clock: Clock = system_clock,
    settings: Settings = DEFAULTS,
) -> list[Controller]:
    """All controllers, to be run side by side with `informers.run()` and the recorders' `run()`.

    `recorder_factory` makes (or finds) the recorder of a component by its name. The last two look at every kind and
    share the copies that the others have asked for, so they are made last.
    """
    replicas = ReplicaSetController(client, informers, recorder_factory("replicaset-controller"), clock)
    deployments = DeploymentController(client, informers, recorder_factory("deployment-controller"), clock)
    daemons = DaemonSetController(client, informers, recorder_factory("daemonset-controller"), clock)
    jobs = JobController(client, informers, recorder_factory("job-controller"), clock)
    nodes = recorder_factory("node-controller")
    scaling = recorder_factory("horizontal-pod-autoscaler")
    return [
        replicas,
        deployments,
        daemons,
        jobs,
        HorizontalPodAutoscalerController(client, informers, scaling, clock),
        EndpointSliceController(client, informers),
        EndpointSliceMirroringController(client, informers),
        EndpointsController(client, informers),
        ServiceAccountController(client, informers),
        *([RootCAController(client, informers, settings.ca)] if settings.ca else []),
        ClusterRoleAggregationController(client, informers),
        ServiceLBController(client, informers, recorder_factory("service-controller")),
        *_routing(client, informers, recorder_factory, clock, settings),
        NodeLifecycleController(client, informers, nodes, clock, settings.node_monitor_grace),
        TaintEvictionController(client, informers, recorder_factory("taint-eviction-controller"), clock),
        NodeIpamController(client, informers, nodes, settings.pod_cidr, settings.node_cidr_mask),
        PodGCController(client, informers, clock, settings.terminated_pod_threshold),
        EventTTLController(client, informers, clock, settings.event_ttl),
        TokenCleaner(client, informers, clock),
        NamespaceController(client, informers, clock),
        GarbageCollector(client, informers),
    ]


def _routing(
    client: Client,
    informers: Informers,
    recorder_factory: Callable[[str], Recorder],
    clock: Clock,
    settings: Settings,
) -> list[Controller]:
    """Of hosts and paths, unless it is switched off."""
    if not settings.ingress:
        return []
    recorder = recorder_factory("ingress-controller")
    return [DNSController(client, informers), IngressController(client, informers, recorder, clock, settings)]
