"""What a container gets from its pod."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.kinds.pod import Pod
from minik8s.runtime.base import LABEL_IMAGE, ContainerConfigInvalid, ContainerSpec, ImageInfo, SandboxSpec
from minik8s.runtime.spec import NodeLimits, container_hash, container_spec, cpu_quota, cpu_shares

GI = 1 << 30
IMAGE = ImageInfo("sha256:1", ("web:1",), 100)
SANDBOX = SandboxSpec("u", "web-0", "default", "web-0", cgroup_parent="/kubepods/u")


def spec(
    container: dict[str, Any], image: ImageInfo = IMAGE, env: dict[str, str] | None = None, **pod: Any
) -> ContainerSpec:
    body = {
        "metadata": {"name": "web-0", "namespace": "default", "uid": "u"},
        "spec": {"containers": [{"name": "app", "image": "web:1"} | container]} | pod,
    }
    made = msgspec.convert(body, Pod)
    return container_spec(
        made,
        made.spec.containers[0],
        sandbox=SANDBOX,
        sandbox_id="s",
        image=image,
        env=env or {},
        node=NodeLimits(memory=16 * GI),
    )


def test_a_plain_container() -> None:
    made = spec({})
    assert (made.image, made.labels[LABEL_IMAGE], made.cgroup_parent) == ("sha256:1", "web:1", "/kubepods/u")
    assert (made.cpu_shares, made.cpu_quota, made.memory, made.user) == (2, 0, 0, "")
    assert made.seccomp == "unconfined"
    assert made.oom_score_adj == 1000


def test_words_are_expanded() -> None:
    made = spec({"command": ["run", "$(A)", "$$(A)", "$(NONE)"], "args": ["$(A)$(B)"]}, env={"A": "1", "B": "2"})
    assert made.command == ("run", "1", "$(A)", "$(NONE)")
    assert made.args == ("12",)
    assert made.env == (("A", "1"), ("B", "2"))


@pytest.mark.parametrize(("millis", "shares"), [(0, 2), (1, 2), (100, 102), (1000, 1024), (10**9, 262_144)])
def test_cpu_shares(millis: int, shares: int) -> None:
    assert cpu_shares(millis) == shares


@pytest.mark.parametrize(
    ("millis", "quota"), [(0, (0, 0)), (1, (100_000, 1000)), (500, (100_000, 50_000)), (2000, (100_000, 200_000))]
)
def test_cpu_quota(millis: int, quota: tuple[int, int]) -> None:
    assert cpu_quota(millis) == quota


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_more_cpu_never_weighs_less(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert cpu_shares(low) <= cpu_shares(high)
    assert not low or cpu_quota(low)[1] <= cpu_quota(high)[1]


def test_resources() -> None:
    made = spec({"resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "1.5", "memory": "64Mi"}}})
    assert (made.cpu_shares, made.cpu_period, made.cpu_quota, made.memory) == (256, 100_000, 150_000, 64 << 20)
    only_limit = spec({"resources": {"limits": {"cpu": "2"}}})
    assert only_limit.cpu_shares == 2048
    assert spec({"resources": {"limits": {"memory": "1Mi"}}}).memory == 6 << 20  # Docker makes nothing smaller


@pytest.mark.parametrize(
    ("resources", "priority", "score"),
    [
        ({}, 0, 1000),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}, 0, -997),
        ({"requests": {"memory": "4Gi"}}, 0, 750),
        ({"requests": {"memory": "1Ki"}}, 0, 999),
        ({"requests": {"memory": "16Gi"}}, 0, 3),
        ({}, 2_000_001_000, -997),
    ],
)
def test_who_dies_first(resources: dict[str, Any], priority: int, score: int) -> None:
    assert spec({"resources": resources}, priority=priority).oom_score_adj == score


def test_a_containers_security_goes_before_its_pods() -> None:
    pod = {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 5, "supplementalGroups": [7, 5]}
    assert spec({}, securityContext=pod).user == "1000:2000"
    assert spec({}, securityContext=pod).groups == ("7", "5")
    assert spec({"securityContext": {"runAsUser": 0}}, securityContext=pod).user == "0:2000"
    assert spec({"securityContext": {"runAsGroup": 9}}, IMAGE._replace(user="www:www")).user == "www:9"
    assert spec({"securityContext": {"runAsGroup": 9}}).user == "0:9"


def test_privileges() -> None:
    made = spec(
        {
            "securityContext": {
                "privileged": True,
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"add": ["CAP_NET_ADMIN", "sys_time"], "drop": ["ALL"]},
            }
        }
    )
    assert (made.privileged, made.read_only_root, made.no_new_privileges) == (True, True, True)
    assert (made.cap_add, made.cap_drop) == (("NET_ADMIN", "SYS_TIME"), ("ALL",))


@pytest.mark.parametrize(
    ("profile", "seccomp"),
    [
        ({"type": "RuntimeDefault"}, ""),
        ({"type": "Unconfined"}, "unconfined"),
        ({"type": "Localhost", "localhostProfile": "p.json"}, "/var/lib/kubelet/seccomp/p.json"),
    ],
)
def test_seccomp(profile: dict[str, str], seccomp: str) -> None:
    assert spec({}, securityContext={"seccompProfile": profile}).seccomp == seccomp
    assert spec({"securityContext": {"seccompProfile": profile}}).seccomp == seccomp


@pytest.mark.parametrize(
    ("context", "user", "complaint"),
    [
        ({"runAsUser": 0}, "1000", "runAsUser breaks non-root policy"),
        ({}, "", "image will run as root"),
        ({}, "0:5", "image will run as root"),
        ({}, "www-data", r"image has non-numeric user \(www-data\)"),
        ({}, "1000", None),
        ({"runAsUser": 5}, "", None),
    ],
)
def test_root_is_refused_where_it_is_forbidden(context: dict[str, Any], user: str, complaint: str | None) -> None:
    container = {"securityContext": context | {"runAsNonRoot": True}}
    if complaint is None:
        spec(container, IMAGE._replace(user=user))
        return
    with pytest.raises(ContainerConfigInvalid, match=complaint) as caught:
        spec(container, IMAGE._replace(user=user))
    assert caught.value.reason == "CreateContainerConfigError"
    assert '(pod: "web-0_default(u)", container: app)' in str(caught.value)


def test_only_a_new_image_restarts() -> None:
    pod = msgspec.convert(
        {"spec": {"containers": [
            {"name": "a", "image": "x"}, {"name": "a", "image": "x", "tty": True}, {"name": "a", "image": "y"}
        ]}},
        Pod,
    )  # fmt: skip
    first, same, other = (container_hash(container) for container in pod.spec.containers)
    assert first == same != other
