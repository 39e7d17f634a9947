"""What `describe` tells of an autoscaler, before and after it has measured."""

from __future__ import annotations

from typing import Any

from minik8s.cli.describe_autoscaler import autoscaler
from minik8s.cli.describe_text import Lines, align

SPEC: dict[str, Any] = {
    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
    "minReplicas": 1,
    "maxReplicas": 4,
    "metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
        {
            "type": "ContainerResource",
            "containerResource": {
                "name": "memory",
                "container": "app",
                "target": {"type": "AverageValue", "averageValue": "64Mi"},
            },
        },
        {"type": "Pods", "pods": {"metric": {"name": "queue"}}},
    ],
    "behavior": {
        "scaleUp": {"selectPolicy": "Min", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 60},
    },
}


def described(status: dict[str, Any]) -> str:
    lines = Lines()
    obj = {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": SPEC, "status": status}
    autoscaler(lines, obj, None, 0.0)
    return align(lines.texts)


def test_before_it_has_measured() -> None:
    text = described({})
    for line in (
        "resource cpu on pods  (as a percentage of request):  <unknown> / 50%",
        "resource memory on container app of pods:            <unknown> / 64Mi",
        "metric of type Pods:                                 <unknown>",
        "0 current / 0 desired",
        "- Type: Pods  Value: 1  Period: 15 seconds",
    ):
        assert line in text
    assert "Conditions" not in text


def test_after_it_has_measured() -> None:
    measured = [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 30, "averageValue": "3m"}}},
        {
            "type": "ContainerResource",
            "containerResource": {"name": "memory", "container": "app", "current": {"averageValue": "9Mi"}},
        },
    ]
    condition = {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "nothing against it"}
    text = described(
        {"currentMetrics": measured, "currentReplicas": 1, "desiredReplicas": 2, "conditions": [condition]}
    )
    assert "30% (3m) / 50%" in text
    assert "9Mi / 64Mi" in text
    assert "1 current / 2 desired" in text
    assert text.splitlines()[-1].split() == ["AbleToScale", "True", "ReadyForNewScale", "nothing", "against", "it"]
