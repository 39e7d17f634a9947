"""A container's variables, and who may refer to what."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.kinds.service import Service
from minik8s.runtime.base import ContainerConfigInvalid
from minik8s.runtime.environment import Surroundings, expand, field_value, resolve_env


def service(name: str, ip: str, *ports: dict[str, Any], namespace: str = "default") -> Service:
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": list(ports)}}
    return msgspec.convert(body, Service)


AROUND = Surroundings(
    configmaps={"settings": ConfigMap(data={"color": "blue", "size": "5", "a=b": "skipped"})},
    secrets={"login": Secret(data={"password": base64.b64encode(b"pw").decode()})},
    services=(
        service("kubernetes", "10.96.0.1", {"name": "https", "port": 443}),
        service("my-web", "10.96.0.7", {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}),
        service("headless", "None", {"port": 1}),
    ),
    pod_ips=("10.244.0.9",),
    host_ips=("192.168.0.1",),
    allocatable={"cpu": "4", "memory": "8Gi"},
)


def pod(container: dict[str, Any], **spec: Any) -> Pod:
    body = {
        "metadata": {
            "name": "web-0", "namespace": "default", "uid": "u",
            "labels": {"app": "web", "b": 'say "hi"\nback\\slash'}, "annotations": {"x/y": "z"},
        },
        "spec": {"containers": [{"name": "app"} | container], "nodeName": "n1", "serviceAccountName": "sa"} | spec,
    }  # fmt: skip
    return msgspec.convert(body, Pod)


def env(container: dict[str, Any], around: Surroundings = AROUND, **spec: Any) -> dict[str, str]:
    made = pod(container, **spec)
    return resolve_env(made.spec.containers[0], made, around)


def own(container: dict[str, Any]) -> dict[str, str]:
    return env(container, Surroundings(AROUND.configmaps, AROUND.secrets, (), AROUND.pod_ips, AROUND.host_ips,
                                       AROUND.allocatable))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "result"),
    [("$(A)", "1"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"), ("$(B)", "$(B)"), ("$A", "$A"), ("$(", "$("), ("a$", "a$"),
     ("$()", "$()"), ("$(A)$(A)", "11")],
)  # fmt: skip
def test_expand(text: str, result: str) -> None:
    assert expand(text, {"A": "1"}) == result


def test_later_ones_override_and_refer_to_earlier_ones() -> None:
    got = own(
        {
            "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "S_", "secretRef": {"name": "login"}}],
            "env": [
                {"name": "color", "value": "red"},
                {"name": "both", "value": "$(color) $(S_password) $(late)"},
                {"name": "late", "value": "x"},
            ],
        }
    )
    assert got == {"color": "red", "size": "5", "S_password": "pw", "both": "red pw $(late)", "late": "x"}


def test_fields_and_resources() -> None:
    def field(path: str) -> dict[str, Any]:
        return {"name": path, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    def resource(name: str, divisor: str = "0") -> dict[str, Any]:
        return {"name": f"{name}/{divisor}", "valueFrom": {"resourceFieldRef": {"resource": name, "divisor": divisor}}}

    fields = {
        "metadata.name": "web-0",
        "metadata.namespace": "default",
        "metadata.uid": "u",
        "metadata.labels['app']": "web",
        "metadata.annotations['x/y']": "z",
        "metadata.labels['none']": "",
        "spec.nodeName": "n1",
        "spec.serviceAccountName": "sa",
        "status.podIP": "10.244.0.9",
        "status.hostIP": "192.168.0.1",
        "status.podIPs": "10.244.0.9",
    }
    limits = {"limits": {"cpu": "1500m"}, "requests": {"memory": "100Mi"}}
    resources = {
        "limits.cpu/0": "2",
        "limits.cpu/1m": "1500",
        "limits.memory/1Gi": "8",
        "requests.memory/1Mi": "100",
        "requests.cpu/0": "0",
    }
    wanted = [field(path) for path in fields] + [resource(*name.split("/")) for name in resources]
    assert own({"resources": limits, "env": wanted}) == fields | resources


def test_whole_labels_for_volumes() -> None:
    assert field_value(pod({}), "metadata.labels", AROUND) == 'app="web"\nb="say \\"hi\\"\\nback\\\\slash"'


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"configMapKeyRef": {"name": "settings", "key": "k"}}, "couldn't find key k in ConfigMap default/settings"),
        ({"secretKeyRef": {"name": "none", "key": "k"}}, 'secret "none" not found'),
        ({"secretKeyRef": {"name": "login", "key": "k"}}, "couldn't find key k in Secret default/login"),
        ({"fieldRef": {"fieldPath": "status.nope"}}, "unsupported fieldPath: status.nope"),
        ({"resourceFieldRef": {"resource": "nope"}}, "unsupported container resource: nope"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ContainerConfigInvalid) as caught:
        own({"env": [{"name": "X", "valueFrom": source}]})
    assert str(caught.value) == complaint
    (kind,) = source
    if kind.endswith("KeyRef"):
        source[kind]["optional"] = True
        assert own({"env": [{"name": "X", "valueFrom": source}]}) == {}


@pytest.mark.parametrize(("kind", "word"), [("configMapRef", "configmap"), ("secretRef", "secret")])
def test_missing_env_from(kind: str, word: str) -> None:
    with pytest.raises(ContainerConfigInvalid, match=f'{word} "none" not found'):
        own({"envFrom": [{kind: {"name": "none"}}]})
    assert own({"envFrom": [{kind: {"name": "none", "optional": True}}]}) == {}


def test_service_links() -> None:
    master = {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
        "KUBERNETES_PORT_443_TCP_PORT": "443",
        "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
    }
    got = env(
        {"env": [{"name": "URL", "value": "http://$(MY_WEB_SERVICE_HOST)"}, {"name": "MY_WEB_PORT", "value": "x"}]}
    )
    assert master.items() <= got.items()
    assert got["URL"] == "http://10.96.0.7"
    assert got["MY_WEB_PORT"] == "x"
    assert got["MY_WEB_SERVICE_PORT_DNS"] == "53"
    assert got["MY_WEB_PORT_53_UDP"] == "udp://10.96.0.7:53"
    assert not [name for name in got if name.startswith("HEADLESS")]
    assert env({}, enableServiceLinks=False) == master
