from __future__ import annotations

from typing import Any

import msgspec
import pytest

from minik8s.api.kinds.pod import PodSpec
from minik8s.api.resources import (
    amounts,
    pod_requests,
    qos_class,
    usual_requests,
)


def spec(**fields: Any) -> PodSpec:
    return msgspec.convert(fields, PodSpec)


def container(requests: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, **more: Any) -> Any:
    return {"name": "c", "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def test_amounts_are_whole_units() -> None:
    assert amounts({"cpu": "0.5", "memory": "1Ki", "example.com/gpu": 2}) == {
        "cpu": 500,
        "memory": 1024,
        "example.com/gpu": 2,
    }


def test_the_largest_init_container_counts_not_their_sum() -> None:
    pod = spec(
        containers=[container({"cpu": "100m", "memory": "1Mi"}), container({"cpu": "200m"})],
        initContainers=[container({"cpu": "250m", "memory": "3Mi"}), container({"cpu": "400m"})],
        overhead={"cpu": "10m"},
    )
    assert pod_requests(pod) == {"cpu": 410, "memory": 3 * 2**20}


def test_a_sidecar_counts_with_the_containers_and_with_later_init_containers() -> None:
    side = container({"cpu": "100m"}, restartPolicy="Always")
    early, late = container({"cpu": "450m"}), container({"cpu": "500m"})
    assert pod_requests(spec(containers=[container({"cpu": "100m"})], initContainers=[side, late])) == {"cpu": 600}
    assert pod_requests(spec(containers=[container({"cpu": "100m"})], initContainers=[early, side])) == {"cpu": 450}
    assert pod_requests(spec(containers=[container({"cpu": "500m"})], initContainers=[early, side])) == {"cpu": 600}


def test_scores_assume_something_of_those_who_ask_for_nothing() -> None:
    assert usual_requests(spec(containers=[container()])) == (100, 200 * 2**20)
    assert usual_requests(spec(containers=[container({"cpu": "0"})])) == (0, 200 * 2**20)


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([container()], "BestEffort"),
        ([container({"cpu": "0"})], "BestEffort"),
        ([container({"cpu": "1"})], "Burstable"),
        ([container({"example.com/gpu": 1})], "BestEffort"),
        ([container(limits={"cpu": "1", "memory": "1Gi"})], "Guaranteed"),
        ([container({"cpu": "1000m", "memory": "1Gi"}, {"cpu": "1", "memory": "1024Mi"})], "Guaranteed"),
        ([container({"cpu": "1", "memory": "1Mi"}, {"cpu": "1", "memory": "1Gi"})], "Burstable"),
        ([container(limits={"cpu": "1", "memory": "1Gi"}), container()], "Burstable"),
        ([container(limits={"memory": "1Gi"})], "Burstable"),
    ],
)
def test_qos_class(containers: list[Any], expected: str) -> None:
    assert qos_class(spec(containers=containers)) == expected
