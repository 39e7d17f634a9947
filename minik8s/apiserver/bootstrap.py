"""What every cluster begins with: its namespaces, default roles, priority classes, and the API server as a Service.

Applied at each start. What is missing is created; roles that came with an earlier version get the rules they lack;
what people have changed or added is left alone (`rbac.authorization.kubernetes.io/autoupdate` as in Kubernetes).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from minik8s.api.errors import AlreadyExists, NotFound
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.endpoints import Endpoints
from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.priorityclass import PriorityClass
from minik8s.api.kinds.rbac import GROUP, ClusterRole, ClusterRoleBinding, Role, RoleBinding
from minik8s.api.kinds.service import Service
from minik8s.api.meta import Object
from minik8s.api.resource import Json
from minik8s.client.base import Client

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")

# What people work with in a namespace: (API group, resources). `view` reads them, `edit` writes them too.
_WORKLOADS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("", ("configmaps", "endpoints", "events", "persistentvolumeclaims", "pods", "replicationcontrollers",
          "replicationcontrollers/scale", "serviceaccounts", "services")),
    ("apps", ("controllerrevisions", "daemonsets", "deployments", "deployments/scale", "replicasets",
              "replicasets/scale", "statefulsets", "statefulsets/scale")),
    ("autoscaling", ("horizontalpodautoscalers",)),
    ("batch", ("cronjobs", "jobs")),
    ("discovery.k8s.io", ("endpointslices",)),
    ("hpc.minik8s.io", ("gpujobs", "gpujobs/results", "gpujobs/source", "hpcclusters")),
    ("faas.minik8s.io", ("workflows", "workflows/graph", "workflowruns", "workflowruns/graph", "workflowruns/history")),
    ("faas.minik8s.io", ("environments", "functionrevisions", "functionrevisions/code", "functions",
                         "functions/calls", "functions/code", "triggers")),
    ("net.minik8s.io", ("dnses",)),
    ("networking.k8s.io", ("ingresses", "networkpolicies")),
    ("policy", ("poddisruptionbudgets",)),
)  # fmt: skip
_STATUS_AND_LOGS = ("pods/log", "pods/status", "namespaces", "namespaces/status", "services/status", "resourcequotas",
                    "limitranges", "bindings")  # fmt: skip


def _rule(verbs: Iterable[str], group: str, *resources: str, names: Iterable[str] = ()) -> Json:
    rule: Json = {"verbs": list(verbs), "apiGroups": [group], "resources": list(resources)}
    return rule | ({"resourceNames": list(names)} if names else {})


def _urls(*urls: str) -> Json:
    return {"verbs": ["get"], "nonResourceURLs": list(urls)}


def _view() -> list[Json]:
    rules = [_rule(READ, group, *resources) for group, resources in _WORKLOADS]
    metrics = _rule(READ, "metrics.k8s.io", "pods", "nodes")
    return [*rules, _rule(READ, "", *_STATUS_AND_LOGS), metrics]


def _edit_alone() -> list[Json]:
    rules = [_rule(WRITE, group, *resources) for group, resources in _WORKLOADS]
    streams = _rule(("get", *WRITE), "", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy")
    secrets = _rule((*READ, *WRITE), "", "secrets")
    more = (_rule(("create",), "", "pods/eviction"), _rule(("create",), "", "serviceaccounts/token"))
    impersonate = _rule(("impersonate",), "", "serviceaccounts")
    # Who lists tasks sees their tokens, and may answer for whoever was to do them: this is not for viewers.
    runs = _rule(("create", "list", "update"), "faas.minik8s.io", "workflowruns/stop", "workflowruns/redrive",
                 "workflowtasks")  # fmt: skip
    letters = _rule(("create", "delete", "get"), "faas.minik8s.io", "functions/deadletters")
    return [*rules, streams, secrets, *more, impersonate, runs, letters]


def _admin_alone() -> list[Json]:
    roles = _rule((*READ, *WRITE), GROUP, "roles", "rolebindings")
    reviews = _rule(("create",), "authorization.k8s.io", "localsubjectaccessreviews")
    return [roles, reviews]


CLUSTER_ROLES: dict[str, list[Json]] = {
    "cluster-admin": [_rule("*", "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]}],
    # What these three begin with; from then on they are put together by their labels (AGGREGATED).
    "admin": [*_edit_alone(), *_view(), *_admin_alone()],
    "edit": [*_edit_alone(), *_view()],
    "view": _view(),
    "system:aggregate-to-admin": _admin_alone(),
    "system:aggregate-to-edit": _edit_alone(),
    "system:aggregate-to-view": _view(),
    "system:discovery": [_urls("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*",
                               "/readyz", "/version", "/version/")],
    "system:public-info-viewer": [_urls("/healthz", "/livez", "/readyz", "/version", "/version/")],
    "system:basic-user": [
        _rule(("create",), "authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectrulesreviews"),
        _rule(("create",), "authentication.k8s.io", "selfsubjectreviews"),
    ],
    "system:auth-delegator": [
        _rule(("create",), "authentication.k8s.io", "tokenreviews"),
        _rule(("create",), "authorization.k8s.io", "subjectaccessreviews"),
    ],
    "system:monitoring": [_urls("/metrics", "/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*")],
    "system:node-bootstrapper": [
        _rule(("create", *READ), "certificates.k8s.io", "certificatesigningrequests"),
    ],
}  # fmt: skip

AGGREGATED = ("admin", "edit", "view")  # ClusterRoles that allow what all with the label allow
AGGREGATE_TO = "rbac.authorization.k8s.io/aggregate-to-"
PART_OF = {"edit": "admin", "view": "edit"} | {f"system:aggregate-to-{name}": name for name in AGGREGATED}

# ClusterRoleBinding name -> (role, groups)
CLUSTER_ROLE_BINDINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cluster-admin": ("cluster-admin", ("system:masters",)),
    "system:discovery": ("system:discovery", ("system:authenticated",)),
    "system:public-info-viewer": ("system:public-info-viewer", ("system:authenticated", "system:unauthenticated")),
    "system:basic-user": ("system:basic-user", ("system:authenticated",)),
    "system:monitoring": ("system:monitoring", ("system:monitoring",)),
    "system:node-bootstrapper": ("system:node-bootstrapper", ("system:bootstrappers",)),
}

PRIORITY_CLASSES = {
    "system-node-critical": (
        2000001000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    "system-cluster-critical": (2000000000, "Used for system critical pods that must run in the cluster."),
}


def _objects(ca: str) -> Iterator[tuple[type[Object], Json]]:
    """Everything by kind. `ca` is the cluster CA, PEM."""
    for name in NAMESPACES:
        yield Namespace, {"metadata": {"name": name}}
    for name, (value, description) in PRIORITY_CLASSES.items():
        yield PriorityClass, {"metadata": {"name": name}, "value": value, "description": description}
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    for name, rules in CLUSTER_ROLES.items():
        part = {AGGREGATE_TO + PART_OF[name]: "true"} if name in PART_OF else {}
        metadata = {"name": name, "labels": labels | part, "annotations": {AUTOUPDATE: "true"}}
        document: Json = {"metadata": metadata, "rules": [_listed(rule) for rule in rules]}
        if name in AGGREGATED:
            selector = {"matchLabels": {AGGREGATE_TO + name: "true"}}
            document["aggregationRule"] = {"clusterRoleSelectors": [selector]}
        yield ClusterRole, document
    for name, (role, groups) in CLUSTER_ROLE_BINDINGS.items():
        yield (
            ClusterRoleBinding,
            {
                "metadata": {"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}},
                "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group} for group in groups],
            },
        )
    # The CA is public: a joining node reads it before it is anybody, and checks it against the hash in its token.
    yield ConfigMap, {"metadata": {"name": "cluster-info", "namespace": "kube-public"}, "data": {"ca.crt": ca}}
    name = "minik8s:bootstrap-signer-clusterinfo"
    yield (
        Role,
        {
            "metadata": {"name": name, "namespace": "kube-public"},
            "rules": [_rule(("get",), "", "configmaps", names=("cluster-info",))],
        },
    )
    yield (
        RoleBinding,
        {
            "metadata": {"name": name, "namespace": "kube-public"},
            "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": "system:anonymous"}],
        },
    )


def _listed(rule: Json) -> Json:
    return {key: list(value) for key, value in rule.items()}


async def bootstrap(client: Client, *, ca: str, service_ip: str, address: str, port: int) -> None:
    """Create what a cluster begins with. `address:port` is where this master's API server is reached.

    Idempotent: two masters may do it at once.
    """
    objects = list(_objects(ca))
    await _ensure_all(client, [each for each in objects if each[0] is Namespace])
    await _ensure_all(client, [each for each in objects if each[0] is not Namespace])
    await kubernetes_service(client, service_ip, address, port)


async def _ensure_all(client: Client, objects: Iterable[tuple[type[Object], Json]]) -> None:
    """At once, so that they are one commit; the first error stands for all."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for kind, document in objects:
                tasks.create_task(_ensure(client, kind, document))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _ensure(client: Client, kind: type[Object], document: Json) -> None:
    try:
        await client.create(kind, document)
    except AlreadyExists:
        if kind is ClusterRole:
            await _complete(client, document)


async def _complete(client: Client, document: Json) -> None:
    """Give a default role what this version has and the stored one lacks, unless people opted out."""
    held = await client.raw(client.resource(ClusterRole), document["metadata"]["name"])
    if held["metadata"].get("annotations", {}).get(AUTOUPDATE) != "true":
        return
    rules = held.get("rules") or []
    missing = [rule for rule in document["rules"] if rule not in rules]
    patch: Json = {"rules": [*rules, *missing]} if missing else {}
    if "aggregationRule" in document and not held.get("aggregationRule"):
        patch["aggregationRule"] = document["aggregationRule"]
    labels = document["metadata"]["labels"]
    if not labels.items() <= held["metadata"].get("labels", {}).items():
        patch["metadata"] = {"labels": labels}
    if patch:
        await client.patch(ClusterRole, document["metadata"]["name"], None, patch)


async def kubernetes_service(client: Client, service_ip: str, address: str, port: int) -> None:
    """The Service `kubernetes` and its endpoints, made or told where this API server is now."""
    labels = {"component": "apiserver", "provider": "kubernetes"}
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    service = {
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "clusterIP": service_ip,
            "ports": [{"name": "https", "port": 443, "targetPort": port, "protocol": "TCP"}],
        },
    }
    endpoints = {
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
    }  # fmt: skip
    slice = {
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": ports,
    }  # fmt: skip
    documents: list[tuple[type[Object], dict[str, Any]]] = [
        (Service, service), (Endpoints, endpoints), (EndpointSlice, slice)
    ]  # fmt: skip
    for kind, document in documents:
        try:
            await client.create(kind, document)
        except AlreadyExists:
            await _refresh(client, kind, document)


async def _refresh(client: Client, kind: type[Object], document: Json) -> None:
    """The master may have moved to another address or port since."""
    wanted = {key: value for key, value in document.items() if key != "metadata"}
    if kind is Service:
        wanted = {"spec": {"ports": document["spec"]["ports"]}}
    try:
        held = await client.raw(client.resource(kind), "kubernetes", "default")
    except NotFound:
        return
    if any(_differs(held.get(key), value) for key, value in wanted.items()):
        await client.patch(kind, "kubernetes", "default", wanted)


def _differs(held: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return not isinstance(held, dict) or any(_differs(held.get(key), value) for key, value in wanted.items())
    return bool(msgspec.json.encode(held, order="sorted") != msgspec.json.encode(wanted, order="sorted"))
