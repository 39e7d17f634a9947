"""Ingresses and DNS objects against the real API server: tried, published, told; nginx is played by the test."""

from __future__ import annotations

import asyncio
import base64
import gzip
from typing import Any

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.daemonset import DaemonSet
from minik8s.api.kinds.dns import DNS
from minik8s.api.kinds.ingress import Ingress
from minik8s.api.kinds.ingressclass import IngressClass
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.kinds.service import Service
from minik8s.controllers.ingress_certificates import self_signed
from minik8s.controllers.ingress_objects import DEFAULT_SECRET, NAMESPACE, NGINX, TRIAL_LABEL

from .cluster import Cluster

Json = dict[str, Any]
EMERG = 'nginx: [emerg] unknown directive "gizp" in /tmp/ingress/1/nginx.conf:7'


class Nginx:
    """What trials say: `fault` is nginx's word; None = it takes the configuration; `silent` says nothing at all."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.fault = ""
        self.silent = False
        self.ready = True
        cluster.kubelet.behave = self._behave

    def _behave(self, pod: Pod) -> Json | None:
        if pod.status.phase not in ("", "Pending"):
            return None
        if TRIAL_LABEL not in pod.metadata.labels:
            return self.cluster.kubelet.running(pod, ready=self.ready)
        if self.silent:
            return None
        ended = self.cluster.kubelet.ended(pod, code=1 if self.fault else 0)
        ended["containerStatuses"][0]["state"]["terminated"]["message"] = self.fault
        return ended


async def start(cluster: Cluster) -> Nginx:
    for kind in (Ingress, DNS, DaemonSet, Pod, Service, IngressClass):
        cluster.all(kind)
    return Nginx(cluster)


async def service(cluster: Cluster, name: str = "web") -> Service:
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"name": "http", "port": 80}]}}
    return await cluster.client.create(Service, body)


async def ingress(cluster: Cluster, name: str, host: str, path: str = "/", **spec: Any) -> Ingress:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    rule = {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"rules": [rule], **spec}}
    return await cluster.client.create(Ingress, body)


async def dns(cluster: Cluster, name: str, host: str, *services: Json) -> DNS:
    paths = [{"path": f"/{number}", "service": each} for number, each in enumerate(services)]
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"host": host, "paths": paths}}
    return await cluster.client.create(DNS, body)


def addresses(cluster: Cluster, name: str) -> list[str]:
    found = cluster.get(Ingress, name)
    status = (found.status.get("loadBalancer") or {}) if found is not None else {}
    return [each["ip"] for each in status.get("ingress") or ()]


def conditions(cluster: Cluster, name: str) -> dict[str, str]:
    return {c.type: c.reason for c in cluster.get(DNS, name).status.conditions}


async def conf(cluster: Cluster) -> str:
    live = await cluster.client.get(Secret, NGINX, NAMESPACE)
    return gzip.decompress(base64.b64decode(live.data["nginx.conf.gz"])).decode()


async def test_an_ingress_brings_nginx_and_its_addresses(cluster: Cluster) -> None:
    nginx = await start(cluster)
    made = await cluster.until(lambda: cluster.all(IngressClass))
    assert made[0].metadata.annotations == {"ingressclass.kubernetes.io/is-default-class": "true"}
    assert not cluster.all(DaemonSet)  # nothing runs for nothing
    await service(cluster)
    await ingress(cluster, "shop", "shop.test")
    await cluster.until(lambda: addresses(cluster, "shop") == ["192.0.2.1"])
    assert cluster.get(Ingress, "shop").spec["ingressClassName"] == "minik8s"  # the default one was filled in
    assert 'server_name "shop.test"' in await conf(cluster)
    pods = cluster.all(Pod, NAMESPACE)
    assert [pod.spec.hostNetwork for pod in pods if TRIAL_LABEL not in pod.metadata.labels] == [True]
    # Nobody wants it any more: all of it goes.
    await cluster.client.delete(Ingress, "shop", "default")
    await cluster.until(lambda: not cluster.all(DaemonSet) and not cluster.all(Pod, NAMESPACE))
    assert nginx.fault == ""


async def test_what_nginx_refuses_is_told_and_changes_nothing(cluster: Cluster) -> None:
    nginx = await start(cluster)
    await service(cluster)
    await dns(cluster, "good", "good.test", {"name": "web", "port": 80})
    await cluster.until(lambda: addresses(cluster, "dns-good"))
    await cluster.until(lambda: conditions(cluster, "good").get("Programmed") == "Programmed")
    before = await conf(cluster)
    nginx.fault = EMERG
    body = {"metadata": {"name": NGINX, "namespace": NAMESPACE}, "data": {"http": "gizp on;"}}
    await cluster.client.create(ConfigMap, body)
    await dns(cluster, "bad", "bad.test", {"name": "web", "port": 80})
    await cluster.until(
        lambda: cluster.get(DNS, "bad") and conditions(cluster, "bad").get("Programmed") == "ConfigurationRefused"
    )
    refused = next(c for c in cluster.get(DNS, "bad").status.conditions if c.type == "Programmed")
    assert '[emerg] unknown directive "gizp"' in refused.message
    assert conditions(cluster, "good")["Programmed"] == "Programmed"  # what is live is live
    assert await conf(cluster) == before
    events = await cluster.events("ConfigurationRefused")
    assert {e.involvedObject.kind for e in events} == {"Ingress", "DNS", "DaemonSet"}
    assert all('unknown directive "gizp"' in e.message for e in events)
    told = next(c for c in cluster.get(DaemonSet, NGINX, NAMESPACE).status.conditions)
    assert (told.type, told.status) == ("ConfigurationAccepted", "False")
    # Mended: the verdict on the next one counts.
    nginx.fault = ""
    await cluster.client.patch(ConfigMap, NGINX, NAMESPACE, {"data": {"http": "gzip on;"}})
    await cluster.until(lambda: conditions(cluster, "bad")["Programmed"] == "Programmed")
    assert "gzip on;" in await conf(cluster)
    await cluster.settle()
    assert [p for p in cluster.all(Pod, NAMESPACE) if TRIAL_LABEL in p.metadata.labels and not p.deleting] == []


async def test_a_dns_object_is_an_ingress_that_it_owns(cluster: Cluster) -> None:
    await start(cluster)
    web = await service(cluster)
    await dns(cluster, "d", "d.test", {"name": "web", "port": "http"}, {"uid": web.metadata.uid, "port": 80},
              {"uid": "nobody", "port": 80}, {"name": "absent", "port": 80})  # fmt: skip
    found = await cluster.until(lambda: cluster.get(Ingress, "dns-d"))
    names = [p["backend"]["service"]["name"] for p in found.spec["rules"][0]["http"]["paths"]]
    assert names == ["web", "web", "absent"]
    await cluster.until(lambda: conditions(cluster, "d").get("Programmed") == "Programmed")
    told = next(c for c in cluster.get(DNS, "d").status.conditions if c.type == "ResolvedRefs")
    assert "has the uid nobody" in told.message
    assert "there is no service default/absent" in told.message
    assert cluster.get(DNS, "d").status.addresses == ("192.0.2.1",)
    # Whoever changes or deletes the Ingress changes nothing for long.
    await cluster.client.patch(Ingress, "dns-d", "default", {"spec": {"rules": [{"host": "other.test"}]}})
    await cluster.until(lambda: cluster.get(Ingress, "dns-d").spec["rules"][0]["host"] == "d.test")
    uid = cluster.get(Ingress, "dns-d").metadata.uid
    await cluster.client.delete(Ingress, "dns-d", "default")
    await cluster.until(lambda: (again := cluster.get(Ingress, "dns-d")) and again.metadata.uid != uid)
    await cluster.client.patch(DNS, "d", "default", {"spec": {"host": "e.test", "stripPrefix": False}})
    await cluster.until(lambda: cluster.get(Ingress, "dns-d").spec["rules"][0]["host"] == "e.test")
    assert cluster.get(Ingress, "dns-d").metadata.annotations == {}
    await cluster.client.delete(DNS, "d", "default")
    await cluster.until(lambda: cluster.get(Ingress, "dns-d") is None)


async def test_a_strangers_ingress_of_that_name_is_left_alone(cluster: Cluster) -> None:
    await start(cluster)
    await service(cluster)
    await ingress(cluster, "dns-d", "mine.test")
    await dns(cluster, "d", "d.test", {"name": "web", "port": 80})
    await cluster.until(lambda: cluster.get(DNS, "d") and conditions(cluster, "d").get("Accepted") == "IngressExists")
    assert cluster.get(Ingress, "dns-d").spec["rules"][0]["host"] == "mine.test"


async def test_conflicts_are_told_to_the_younger(cluster: Cluster) -> None:
    await start(cluster)
    await service(cluster)
    await ingress(cluster, "a", "x.test")
    await dns(cluster, "b", "x.test", {"name": "web", "port": 80})
    await cluster.until(lambda: cluster.get(Ingress, "dns-b"))
    await ingress(cluster, "c", "x.test")  # same second or later than a, and behind it by name
    await cluster.until(lambda: cluster.get(Ingress, "c") and addresses(cluster, "a"))
    (event,) = [e for e in await until_events(cluster, "PathConflict") if e.involvedObject.name == "c"]
    assert "x.test/ (Prefix) belongs to the older Ingress default/a" in event.message
    await cluster.until(lambda: conditions(cluster, "b").get("Accepted") == "Accepted")  # another path of that host


async def until_events(cluster: Cluster, reason: str) -> list[Any]:
    while not (found := await cluster.events(reason)):
        await cluster.settle()
    return found


async def test_others_classes_are_others_business(cluster: Cluster) -> None:
    await start(cluster)
    await service(cluster)
    body = {"metadata": {"name": "other"}, "spec": {"controller": "example.com/other"}}
    await cluster.client.create(IngressClass, body)
    await ingress(cluster, "theirs", "x.test", ingressClassName="other")
    await ingress(cluster, "ours", "y.test")
    await cluster.until(lambda: addresses(cluster, "ours"))
    assert "x.test" not in await conf(cluster)
    assert addresses(cluster, "theirs") == []


async def test_certificates_come_from_secrets(cluster: Cluster) -> None:
    await start(cluster)
    await service(cluster)
    tls = [{"hosts": ["x.test"], "secretName": "x"}]
    await ingress(cluster, "i", "x.test", tls=tls)
    await cluster.until(lambda: addresses(cluster, "i"))
    (event,) = await cluster.events("BadCertificate")
    assert "x.test is served with the default certificate: there is no Secret default/x" in event.message
    assert await cluster.client.get(Secret, DEFAULT_SECRET, NAMESPACE)
    pair = self_signed()
    data = {"tls.crt": base64.b64encode(pair.certificate).decode(), "tls.key": base64.b64encode(pair.key).decode()}
    secret = {"metadata": {"name": "x", "namespace": "default"}, "type": "kubernetes.io/tls", "data": data}
    await cluster.client.create(Secret, secret)
    entry = lambda: cluster.get(Ingress, "i").status["loadBalancer"]["ingress"][0]  # noqa: E731
    await cluster.until(lambda: "ports" not in entry())
    secrets = cluster.informers.of(Secret, namespace=NAMESPACE)
    while "default.x.crt" not in secrets.get(NAMESPACE, NGINX).data:
        await asyncio.sleep(0)
    assert secrets.get(NAMESPACE, NGINX).data["default.x.crt"] == data["tls.crt"]


async def test_while_nginx_is_not_ready_nobody_is_sent_there(cluster: Cluster) -> None:
    nginx = await start(cluster)
    nginx.ready = False
    await service(cluster)
    await dns(cluster, "d", "d.test", {"name": "web", "port": 80})
    await cluster.until(lambda: cluster.get(DNS, "d") and conditions(cluster, "d").get("Programmed") == "NginxNotReady")
    assert addresses(cluster, "dns-d") == []
    pod = next(p for p in cluster.all(Pod, NAMESPACE) if TRIAL_LABEL not in p.metadata.labels)
    taken = "[emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)"
    status = {
        "phase": "Running",
        "containerStatuses": [{
            "name": NGINX, "image": "x", "imageID": "", "ready": False, "restartCount": 1,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "message": f"nginx: {taken}\nnginx: {taken}\n"}},
        }],
    }  # fmt: skip
    await cluster.kubelet.set_status(pod, status)
    await cluster.until(lambda: cluster.get(DNS, "d").status.conditions[2].message == f"node n1: {taken}")
    assert {e.involvedObject.kind for e in await until_events(cluster, "NginxNotReady")} >= {"DNS", "Ingress"}


async def test_an_image_that_is_nowhere_is_told(cluster: Cluster) -> None:
    nginx = await start(cluster)
    nginx.silent = True
    await service(cluster)
    await dns(cluster, "d", "d.test", {"name": "web", "port": 80})
    pod = await cluster.until(lambda: cluster.all(Pod, NAMESPACE) and cluster.all(Pod, NAMESPACE)[0])
    why = {"reason": "ErrImagePull", "message": "pull access denied for minik8s/nginx"}
    waiting = {"name": NGINX, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": why}}
    await cluster.until(lambda: cluster.all(Pod, NAMESPACE)[0].spec.nodeName)
    await cluster.kubelet.set_status(pod, {"phase": "Pending", "containerStatuses": [waiting]})
    await cluster.until(lambda: conditions(cluster, "d").get("Programmed") == "ConfigurationPending")
    await cluster.until(lambda: "pull access denied" in cluster.get(DNS, "d").status.conditions[2].message)
