"""What a minimal object is stored as: golden files, compared with what Kubernetes 1.33 shows for the same input.

Rewritten by `--update-goldens`. Left out are what admission adds (tokens, tolerations, addresses) and the metadata
that every kind gets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minik8s.api.scheme import SCHEME

GOLDENS = Path(__file__).parent / "goldens"
CONTAINER = {"name": "c", "image": "nginx"}
TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [CONTAINER]}}
SELECTOR = {"matchLabels": {"app": "web"}}
METADATA = {"name": "web", "uid": "u-1"}
SPARSE_POD = {
    "restartPolicy": "",
    "hostNetwork": True,
    "initContainers": [{"name": "side", "image": "a/b:1", "restartPolicy": "Always"}],
    "containers": [
        {
            "name": "c",
            "image": "localhost:5000/x@sha256:0",
            "imagePullPolicy": "",
            "ports": [{"containerPort": 80, "protocol": ""}],
            "env": [
                {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "livenessProbe": {"httpGet": {"port": 80}},
            "readinessProbe": {"grpc": {"port": 80}, "periodSeconds": 0},
            "startupProbe": {"tcpSocket": {"port": 80}},
            "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
        }
    ],
    "volumes": [
        {"name": "e"},
        {"name": "c", "configMap": {"name": "c"}},
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "h", "hostPath": {"path": "/x"}},
        {"name": "d", "downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ],
}
MINIMAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pod": ("v1", "Pod", {"spec": {"containers": [CONTAINER]}}),
    "pod-sparse": ("v1", "Pod", {"spec": SPARSE_POD}),
    "deployment": ("apps/v1", "Deployment", {"spec": {"selector": SELECTOR, "template": TEMPLATE}}),
    "deployment-recreate": (
        "apps/v1", "Deployment",
        {"spec": {"strategy": {"type": "Recreate"}, "selector": SELECTOR, "template": TEMPLATE}},
    ),
    "replicaset": ("apps/v1", "ReplicaSet", {"spec": {"selector": SELECTOR, "template": TEMPLATE}}),
    "daemonset": ("apps/v1", "DaemonSet", {"spec": {"selector": SELECTOR, "template": TEMPLATE}}),
    "job": ("batch/v1", "Job", {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}}}),
    "service": ("v1", "Service", {"spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
    "service-nodeport": ("v1", "Service", {"spec": {"type": "NodePort", "ports": [{"port": 80, "targetPort": "h"}]}}),
    "service-externalname": ("v1", "Service", {"spec": {"type": "ExternalName", "externalName": "example.com"}}),
    "service-affinity": ("v1", "Service", {"spec": {"sessionAffinity": "ClientIP", "ports": [{"port": 80}]}}),
    "secret": ("v1", "Secret", {"stringData": {"user": "Ünï"}, "data": {"b": "eA=="}}),
    "configmap": ("v1", "ConfigMap", {"data": {"a": "b"}}),
    "namespace": ("v1", "Namespace", {}),
    "node": ("v1", "Node", {}),
    "endpoints": ("v1", "Endpoints", {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
    "horizontalpodautoscaler": (
        "autoscaling/v2", "HorizontalPodAutoscaler",
        {"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}},
    ),
    "horizontalpodautoscaler-behavior": (
        "autoscaling/v2", "HorizontalPodAutoscaler",
        {"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "behavior": {}}},
    ),
    "networkpolicy": ("networking.k8s.io/v1", "NetworkPolicy", {"spec": {"podSelector": {}}}),
    "networkpolicy-egress": (
        "networking.k8s.io/v1", "NetworkPolicy", {"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}},
    ),
    "ingress": (
        "networking.k8s.io/v1", "Ingress",
        {"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}},
    ),
    "dns": (
        "net.minik8s.io/v1", "DNS",
        {"spec": {"host": "shop.example", "paths": [{"path": "/", "service": {"name": "web", "port": 80}}]}},
    ),
    "rolebinding": (
        "rbac.authorization.k8s.io/v1", "RoleBinding",
        {
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [
                {"kind": "User", "name": "u", "apiGroup": ""}, {"kind": "Group", "name": "g"},
                {"kind": "ServiceAccount", "name": "s", "namespace": "n"},
            ],
        },
    ),
    "priorityclass": ("scheduling.k8s.io/v1", "PriorityClass", {"value": 5}),
}  # fmt: skip


@pytest.mark.parametrize("name", MINIMAL)
def test_a_minimal_object_is_stored_as_kubernetes_stores_it(name: str, pytestconfig: pytest.Config) -> None:
    version, kind, body = MINIMAL[name]
    resource = SCHEME.by_kind(version, kind)
    assert resource is not None
    metadata = METADATA | ({"namespace": "n"} if kind == "RoleBinding" else {})
    obj = json.loads(json.dumps({"apiVersion": version, "kind": kind, "metadata": metadata, **body}))
    resource.default(obj)
    resource.prepare(obj, None)
    assert resource.validate(obj, None) == []
    text = json.dumps(obj, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    golden = GOLDENS / f"{name}.json"
    if pytestconfig.getoption("--update-goldens"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0", "IfNotPresent"),
    ],
)
def test_images_are_pulled_by_their_tag(image: str, policy: str) -> None:
    pod: dict[str, Any] = {"spec": {"containers": [{"name": "c", "image": image}]}}
    resource = SCHEME.by_kind("v1", "Pod")
    assert resource is not None
    resource.default(pod)
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy
