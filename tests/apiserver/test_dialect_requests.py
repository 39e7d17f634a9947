"""Older manifests posted to the API: stored in their native form, with a warning that shows it."""

from __future__ import annotations

from api_harness import Api

AUTOSCALERS = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
HPA = {
    "apiVersion": "autoscaling/v1",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "hpa"},
    "spec": {
        "minReplicas": 1,
        "maxReplicas": 4,
        "scaleTargetRef": {
            "apiVersion": "v1",
            "kind": "ReplicaSet",
            "metadata": {"name": "rs", "namespace": "default"},
        },
        "scaleInterval": 10,
        "metrics": {"CPUUtilizationPercentage": 25},
    },
}


async def test_a_classic_autoscaler_is_stored_natively(api: Api) -> None:
    made = await api.post(AUTOSCALERS + "?fieldValidation=Strict", HPA)
    assert made.code == 201, made.body
    assert made["apiVersion"] == "autoscaling/v1"
    assert made["spec"]["targetCPUUtilizationPercentage"] == 25
    assert "older dialect" in made.raw.headers["warning"]
    stored = await api.get(AUTOSCALERS.replace("/v1/", "/v2/") + "/hpa")
    assert stored["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs"}
    assert stored["spec"]["behavior"]["scaleUp"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 10}]


async def test_an_unknown_field_of_a_dialect_is_named(api: Api) -> None:
    wrong = {**HPA, "spec": {**HPA["spec"], "scaleIntervall": 3}}
    answer = await api.post(AUTOSCALERS, wrong)
    assert answer.code == 422
    assert "spec.scaleIntervall" in answer.message


async def test_a_pod_with_old_cases(api: Api) -> None:
    container = {
        "name": "a",
        "image": "b",
        "ImagePullPolicy": "Never",
        "ports": [{"containerPort": 80, "protocol": "tcp"}],
    }
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    made = await api.post("/api/v1/namespaces/default/pods?fieldValidation=Strict", body)
    assert made.code == 201, made.body
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "Never"
    assert made["spec"]["containers"][0]["ports"][0]["protocol"] == "TCP"


async def test_a_node_with_its_address_at_the_top(api: Api) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "namespace": "default"}, "ip": "10.0.0.9"}
    made = await api.post("/api/v1/nodes", body)
    assert made.code == 201, made.body
    assert made["status"]["addresses"] == [{"type": "InternalIP", "address": "10.0.0.9"}]
