"""Older manifests become native ones; what is wrong in them is told in their own terms."""

from __future__ import annotations

import copy

import pytest

from minik8s.api.dialects import convert
from minik8s.api.errors import BadRequest, Invalid


def one(document):
    before = copy.deepcopy(document)
    conversion = convert(document)
    assert document == before, "the input was changed"
    assert len(conversion.objects) == 1
    assert len(conversion.warnings) == 1
    return conversion.objects[0]


NATIVE = [
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"unschedulable": True}},
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a", "image": "b"}]},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "r"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {}}},
    },
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"protocol": "TCP"}]}},
    {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "metrics": []},
    },
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}},
    {"kind": 7},
]


@pytest.mark.parametrize("document", NATIVE, ids=lambda d: str(d["kind"]))
def test_native_documents_pass_untouched(document):
    conversion = convert(document)
    assert conversion.objects[0] is document
    assert not conversion.changed


def test_node_with_an_address_at_the_top():
    node = one({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "namespace": "x"}, "ip": "10.0.0.7"})
    assert node == {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.7"}]},
    }


def test_node_with_capacity_and_info_in_its_spec():
    node = one(
        {
            "kind": "Node",
            "metadata": {"name": "n"},
            "spec": {
                "type": "worker",
                "capacity": {"cpu": 2000000000, "memory": 1},
                "info": {"version": "1", "os": "x"},
            },
            "status": {"addresses": {"internalIP": "10.0.0.7", "hostname": "h"}},
        }
    )
    assert node["metadata"]["labels"] == {"minik8s.io/node-type": "worker"}
    assert node["status"] == {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.7"}, {"type": "Hostname", "address": "h"}],
        "capacity": {"cpu": "2", "memory": 1},
        "nodeInfo": {"kubeletVersion": "1", "osImage": "x"},
    }


def test_pod_with_old_cases_and_nanocores():
    container = {
        "name": "a",
        "image": "b",
        "ImagePullPolicy": "Never",
        "ports": [{"containerPort": 80, "protocol": "udp"}],
        "resources": {"limits": {"cpu": 1500000000, "memory": 100000000}},
    }
    pod = one({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}})
    assert pod["spec"]["containers"][0] == {
        "name": "a",
        "image": "b",
        "imagePullPolicy": "Never",
        "ports": [{"containerPort": 80, "protocol": "UDP"}],
        "resources": {"limits": {"cpu": "1500m", "memory": 100000000}},
    }


def test_replica_set_of_the_wrong_case_and_version():
    found = one({"apiVersion": "v1", "kind": "Replicaset", "metadata": {"name": "r"}, "spec": {"replicas": 2}})
    assert (found["apiVersion"], found["kind"]) == ("apps/v1", "ReplicaSet")


def test_replica_set_without_a_selector_selects_by_its_template():
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}
    found = one(
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": {"template": template}}
    )
    assert found["spec"]["selector"] == {"matchLabels": {"a": "b"}}
    bare = one({"kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": {"template": {"spec": {}}}})
    labels = bare["spec"]["template"]["metadata"]["labels"]
    assert labels == bare["spec"]["selector"]["matchLabels"] == {"minik8s.io/replicaset": "r"}


def test_classic_autoscaler():
    target = {"apiVersion": "v1", "kind": "ReplicaSet", "metadata": {"name": "rs", "namespace": "default"}}
    found = one(
        {
            "apiVersion": "autoscaling/v1",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "hpa"},
            "spec": {
                "minReplicas": 1,
                "maxReplicas": 4,
                "scaleTargetRef": target,
                "scaleInterval": 10,
                "metrics": {"CPUUtilizationPercentage": 25},
            },
        }
    )
    spec = found["spec"]
    assert found["apiVersion"] == "autoscaling/v2"
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs"}
    assert spec["metrics"][0]["resource"] == {
        "name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 25},
    }
    assert spec["behavior"]["scaleUp"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 10}]
    assert found["metadata"]["annotations"] == {"autoscaling.minik8s.io/sync-period": "10s"}


def test_hpa_with_shares():
    found = one(
        {
            "kind": "Hpa",
            "metadata": {"name": "h"},
            "spec": {
                "minReplicas": 1,
                "maxReplicas": 3,
                "workload": {"kind": "Pod", "metadata": {"name": "p"}},
                "adjustInterval": "15s",
                "metrics": {"cpuPercent": 0.35, "memPercent": 0.5},
            },
        }
    )
    assert [m["resource"]["target"]["averageUtilization"] for m in found["spec"]["metrics"]] == [35, 50]
    assert found["spec"]["behavior"]["scaleDown"]["policies"][0]["periodSeconds"] == 15


def test_band_becomes_a_workload_and_an_autoscaler():
    conversion = convert(
        {
            "kind": "AutoScaler",
            "metadata": {"name": "band"},
            "spec": {
                "workload": "ReplicaSet",
                "targetUtilization": {"cpu": {"minPercentage": 20, "maxPercentage": 60}},
                "minReplicas": 2,
                "maxReplicas": 5,
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}},
            },
        }
    )
    workload, scaler = conversion.objects
    assert (workload["kind"], workload["spec"]["replicas"]) == ("ReplicaSet", 2)
    assert scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 40
    assert scaler["spec"]["behavior"]["scaleUp"]["tolerance"] == "0.500"
    assert scaler["spec"]["behavior"]["scaleDown"]["policies"][0]["periodSeconds"] == 20


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"minReplicas": 5, "maxReplicas": 2, "workload": {}, "metrics": {"cpuPercent": 1}}, "spec.minReplicas"),
        ({"maxReplicas": 2, "workload": {}, "metrics": {"cpuPercent": "much"}}, "spec.metrics.cpuPercent"),
        ({"maxReplicas": 2, "workload": {}, "metrics": {"gpu": 1}}, "spec.metrics.gpu: Forbidden: unknown field"),
        ({"maxReplicas": 2, "workload": {}, "metrics": {"cpuPercent": 1}, "pace": 1}, "spec.pace"),
        ({"maxReplicas": 2, "workload": {}}, "spec.metrics: Required value"),
        ({"workload": {}, "metrics": {"cpuPercent": 1}}, "spec.maxReplicas: Required value"),
        ({"maxReplicas": 2, "workload": [], "metrics": {"cpuPercent": 1}}, "spec.workload: expected a map"),
        ({"maxReplicas": 2, "workload": {}, "metrics": {"cpuPercent": 1}, "adjustInterval": "soon"}, "adjustInterval"),
    ],
)
def test_faults_name_the_field(spec, words):
    with pytest.raises((Invalid, BadRequest)) as error:
        convert({"kind": "Hpa", "metadata": {"name": "h"}, "spec": spec})
    assert words in error.value.message
