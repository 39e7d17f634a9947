"""What a pod refers to, wherever it may say so."""

from __future__ import annotations

import msgspec

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.references import of_environment, of_pod

CONTAINER = {
    "name": "a",
    "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
    "env": [
        {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}},
        {"name": "Z", "value": "1"},
    ],
}
VOLUMES = [
    {"name": "1", "configMap": {"name": "e"}},
    {"name": "2", "secret": {"secretName": "f"}},
    {"name": "3", "projected": {"sources": [{"configMap": {"name": "g"}}, {"secret": {"name": "h"}}]}},
    {"name": "4", "emptyDir": {}},
]


def test_environment_volumes_and_pull_secrets() -> None:
    spec = {"containers": [CONTAINER], "volumes": VOLUMES, "imagePullSecrets": [{"name": "i"}, {"name": ""}]}
    pod = msgspec.convert({"spec": spec}, Pod)
    environment = {(ConfigMap, "a"), (ConfigMap, "c"), (Secret, "b"), (Secret, "d")}
    assert set(of_environment(pod.spec.containers)) == environment
    volumes = {(ConfigMap, "e"), (ConfigMap, "g"), (Secret, "f"), (Secret, "h")}
    assert of_pod(pod) == environment | volumes | {(Secret, "i")}
