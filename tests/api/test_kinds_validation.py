"""Each rule of each kind once: the field that is blamed, and why."""

# ruff: noqa: E501 - a rule is a row
from __future__ import annotations

import base64
import copy
from collections.abc import Iterable
from typing import Any

import pytest

from minik8s.api.errors import Cause
from minik8s.api.resource import Json
from minik8s.api.scheme import SCHEME

REQUIRED, INVALID, UNKNOWN = "FieldValueRequired", "FieldValueInvalid", "FieldValueNotSupported"
FORBIDDEN, DOUBLE, ABSENT, LONG = (
    "FieldValueForbidden",
    "FieldValueDuplicate",
    "FieldValueNotFound",
    "FieldValueTooLong",
)
C = "spec.containers[0]"
V = "spec.volumes[0]"
NODE_AFFINITY = "spec.affinity.nodeAffinity"
MUST, WISH = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
GROUP = "rbac.authorization.k8s.io"


def faults(version: str, body: Json, old: Json | None = None) -> list[Cause]:
    """What is wrong with an object, after defaulting, as the API server asks."""
    resource = SCHEME.by_kind(version, body["kind"])
    assert resource is not None
    obj, before = (copy.deepcopy(o) if o is not None else None for o in (body, old))
    for each in (obj, before):
        if each is not None:
            each["metadata"] = {"name": "x", "uid": "u", **each.get("metadata", {})}
            resource.default(each)
    assert obj is not None
    resource.prepare(obj, before)
    return resource.validate(obj, before)


def told(causes: Iterable[Cause]) -> set[tuple[str, str]]:
    return {(cause.field, cause.reason) for cause in causes}


def pod(container: Json | None = None, **spec: Any) -> Json:
    return {"kind": "Pod", "spec": {"containers": [{"name": "c", "image": "i:1", **(container or {})}], **spec}}


def volume(**source: Any) -> Json:
    return pod(volumes=[{"name": "v", **source}])


def affinity(**node: Any) -> Json:
    return pod(affinity={"nodeAffinity": node})


def demand(**expression: Any) -> Json:
    return affinity(**{MUST: {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}})


def env(**variable: Any) -> Json:
    return pod({"env": [{"name": "A", **variable}]})


POD_RULES: list[tuple[Json, str, str]] = [
    ({"kind": "Pod", "spec": {}}, "spec.containers", REQUIRED),
    (pod({"name": ""}), f"{C}.name", REQUIRED),
    (pod({"name": "Web_1"}), f"{C}.name", INVALID),
    (pod(initContainers=[{"name": "c", "image": "i"}]), f"{C}.name", DOUBLE),
    (pod({"image": ""}), f"{C}.image", REQUIRED),
    (pod({"image": " i"}), f"{C}.image", INVALID),
    (pod({"imagePullPolicy": "Sometimes"}), f"{C}.imagePullPolicy", UNKNOWN),
    (pod({"terminationMessagePolicy": "x"}), f"{C}.terminationMessagePolicy", UNKNOWN),
    (pod({"restartPolicy": "Always"}), f"{C}.restartPolicy", FORBIDDEN),
    (pod(initContainers=[{"name": "i", "image": "i", "restartPolicy": "Never"}]), "spec.initContainers[0].restartPolicy", UNKNOWN),
    (pod({"ports": [{"containerPort": 0}]}), f"{C}.ports[0].containerPort", REQUIRED),
    (pod({"ports": [{"containerPort": 70000}]}), f"{C}.ports[0].containerPort", INVALID),
    (pod({"ports": [{"containerPort": 1, "hostPort": -1}]}), f"{C}.ports[0].hostPort", INVALID),
    (pod({"ports": [{"containerPort": 1, "hostIP": "x"}]}), f"{C}.ports[0].hostIP", INVALID),
    (pod({"ports": [{"containerPort": 1, "protocol": "tcp"}]}), f"{C}.ports[0].protocol", UNKNOWN),
    (pod({"ports": [{"containerPort": 1, "name": "123"}]}), f"{C}.ports[0].name", INVALID),
    (pod({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}), f"{C}.ports[1].name", DOUBLE),
    (pod({"ports": [{"containerPort": 1, "hostPort": 8}, {"containerPort": 2, "hostPort": 8}]}), f"{C}.ports[1].hostPort", DOUBLE),
    (pod({"ports": [{"containerPort": 1, "hostPort": 2}]}, hostNetwork=True), f"{C}.ports[0].containerPort", INVALID),
    (pod({"env": [{"name": ""}]}), f"{C}.env[0].name", REQUIRED),
    (env(name="a=b"), f"{C}.env[0].name", INVALID),
    (env(value="x", valueFrom={"fieldRef": {"fieldPath": "metadata.name"}}), f"{C}.env[0].valueFrom", INVALID),
    (env(valueFrom={}), f"{C}.env[0].valueFrom", INVALID),
    (env(valueFrom={"configMapKeyRef": {"name": "c", "key": ""}}), f"{C}.env[0].valueFrom.configMapKeyRef.key", REQUIRED),
    (env(valueFrom={"secretKeyRef": {"key": "k"}}), f"{C}.env[0].valueFrom.secretKeyRef.name", REQUIRED),
    (env(valueFrom={"fieldRef": {"fieldPath": ""}}), f"{C}.env[0].valueFrom.fieldRef.fieldPath", REQUIRED),
    (env(valueFrom={"fieldRef": {"fieldPath": "spec.foo"}}), f"{C}.env[0].valueFrom.fieldRef.fieldPath", UNKNOWN),
    (env(valueFrom={"resourceFieldRef": {"resource": ""}}), f"{C}.env[0].valueFrom.resourceFieldRef.resource", REQUIRED),
    (env(valueFrom={"resourceFieldRef": {"resource": "cpu"}}), f"{C}.env[0].valueFrom.resourceFieldRef.resource", UNKNOWN),
    (pod({"envFrom": [{}]}), f"{C}.envFrom[0]", INVALID),
    (pod({"volumeMounts": [{"name": "v", "mountPath": "/x"}]}), f"{C}.volumeMounts[0].name", ABSENT),
    (pod({"volumeMounts": [{"name": "", "mountPath": "/x"}]}), f"{C}.volumeMounts[0].name", REQUIRED),
    (pod({"volumeMounts": [{"name": "v", "mountPath": ""}]}, volumes=[{"name": "v"}]), f"{C}.volumeMounts[0].mountPath", REQUIRED),
    (pod({"volumeMounts": [{"name": "v", "mountPath": "/a:b"}]}, volumes=[{"name": "v"}]), f"{C}.volumeMounts[0].mountPath", INVALID),
    (pod({"volumeMounts": [{"name": "v", "mountPath": "/x"}] * 2}, volumes=[{"name": "v"}]), f"{C}.volumeMounts[1].mountPath", INVALID),
    (pod({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "/a"}]}, volumes=[{"name": "v"}]), f"{C}.volumeMounts[0].subPath", INVALID),
    (pod({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "a/../b"}]}, volumes=[{"name": "v"}]), f"{C}.volumeMounts[0].subPath", INVALID),
    (pod({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "a", "subPathExpr": "b"}]}, volumes=[{"name": "v"}]), f"{C}.volumeMounts[0].subPathExpr", INVALID),
    (pod({"resources": {"limits": {"cpu": "lots"}}}), f"{C}.resources.limits[cpu]", INVALID),
    (pod({"resources": {"limits": {"cpu": "-1"}}}), f"{C}.resources.limits[cpu]", INVALID),
    (pod({"resources": {"limits": {"gpu": "1"}}}), f"{C}.resources.limits[gpu]", INVALID),
    (pod({"resources": {"limits": {"a/b/c": "1"}}}), f"{C}.resources.limits[a/b/c]", INVALID),
    (pod({"resources": {"limits": {"x.io/gpu": "500m"}}}), f"{C}.resources.limits[x.io/gpu]", INVALID),
    (pod({"resources": {"requests": {"x.io/gpu": "1"}}}), f"{C}.resources.limits", REQUIRED),
    (pod({"resources": {"requests": {"x.io/gpu": "1"}, "limits": {"x.io/gpu": "2"}}}), f"{C}.resources.requests", INVALID),
    (pod({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}), f"{C}.resources.requests", INVALID),
    (pod({"securityContext": {"runAsUser": -1}}), f"{C}.securityContext.runAsUser", INVALID),
    (pod({"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}}), f"{C}.securityContext", INVALID),
    (pod(securityContext={"fsGroup": -1}), "spec.securityContext.fsGroup", INVALID),
    (pod(securityContext={"supplementalGroups": [-1]}), "spec.securityContext.supplementalGroups[0]", INVALID),
    (pod(securityContext={"seccompProfile": {"type": "Never"}}), "spec.securityContext.seccompProfile.type", UNKNOWN),
    (pod(securityContext={"seccompProfile": {"localhostProfile": ""}}), "spec.securityContext.seccompProfile.type", REQUIRED),
    (pod({"securityContext": {"seccompProfile": {"type": "Localhost"}}}), f"{C}.securityContext.seccompProfile.localhostProfile", REQUIRED),
    (pod({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a/../../b"}}}), f"{C}.securityContext.seccompProfile.localhostProfile", INVALID),
    (pod({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "/a"}}}), f"{C}.securityContext.seccompProfile.localhostProfile", INVALID),
    (pod({"securityContext": {"seccompProfile": {"type": "Unconfined", "localhostProfile": "a"}}}), f"{C}.securityContext.seccompProfile.localhostProfile", INVALID),
    (pod(securityContext={"sysctls": [{"value": "1"}]}), "spec.securityContext.sysctls[0].name", REQUIRED),
    (pod(securityContext={"sysctls": [{"name": "a b", "value": "1"}]}), "spec.securityContext.sysctls[0].name", INVALID),
    (pod(securityContext={"sysctls": [{"name": "net.a", "value": "1"}, {"name": "net/a", "value": "2"}]}), "spec.securityContext.sysctls[1].name", DOUBLE),
    (pod(hostNetwork=True, securityContext={"sysctls": [{"name": "net/core.x", "value": "1"}]}), "spec.securityContext.sysctls[0].name", INVALID),
    (pod(hostIPC=True, securityContext={"sysctls": [{"name": "kernel.shmmax", "value": "1"}]}), "spec.securityContext.sysctls[0].name", INVALID),
    (pod({"livenessProbe": {}}), f"{C}.livenessProbe", REQUIRED),
    (pod({"livenessProbe": {"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}}), f"{C}.livenessProbe.tcpSocket", FORBIDDEN),
    (pod({"livenessProbe": {"exec": {}}}), f"{C}.livenessProbe.exec.command", REQUIRED),
    (pod({"livenessProbe": {"httpGet": {"port": 0}}}), f"{C}.livenessProbe.httpGet.port", REQUIRED),
    (pod({"livenessProbe": {"httpGet": {"port": 99999}}}), f"{C}.livenessProbe.httpGet.port", INVALID),
    (pod({"livenessProbe": {"httpGet": {"port": 1, "scheme": "ftp"}}}), f"{C}.livenessProbe.httpGet.scheme", UNKNOWN),
    (pod({"livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": -1}}), f"{C}.livenessProbe.periodSeconds", INVALID),
    (pod({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}}), f"{C}.livenessProbe.successThreshold", INVALID),
    (pod(initContainers=[{"name": "i", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}]), "spec.initContainers[0].livenessProbe", FORBIDDEN),
    (pod(initContainers=[{"name": "i", "image": "i", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]), "spec.initContainers[0].lifecycle", FORBIDDEN),
    (pod({"lifecycle": {"postStart": {}}}), f"{C}.lifecycle.postStart", REQUIRED),
    (pod(restartPolicy="Maybe"), "spec.restartPolicy", UNKNOWN),
    (pod(dnsPolicy="x"), "spec.dnsPolicy", UNKNOWN),
    (pod(dnsPolicy="None"), "spec.dnsConfig.nameservers", REQUIRED),
    (pod(dnsConfig={"nameservers": ["x"]}), "spec.dnsConfig.nameservers[0]", INVALID),
    (pod(terminationGracePeriodSeconds=-1), "spec.terminationGracePeriodSeconds", INVALID),
    (pod(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds", INVALID),
    (pod(hostname="A.b"), "spec.hostname", INVALID),
    (pod(subdomain="a.b"), "spec.subdomain", INVALID),
    (pod(serviceAccountName="A"), "spec.serviceAccountName", INVALID),
    (pod(nodeName="A"), "spec.nodeName", INVALID),
    (pod(nodeName="n", schedulingGates=[{"name": "g"}]), "spec.nodeName", FORBIDDEN),
    (pod(nodeSelector={"a b": "c"}), "spec.nodeSelector", INVALID),
    (pod(nodeSelector={"a": "b c"}), "spec.nodeSelector[a]", INVALID),
    (pod(hostAliases=[{"ip": "x"}]), "spec.hostAliases[0].ip", INVALID),
    (pod(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a_b"]}]), "spec.hostAliases[0].hostnames[0]", INVALID),
    (pod(hostPID=True, shareProcessNamespace=True), "spec.shareProcessNamespace", INVALID),
    (pod(ephemeralContainers=[{"name": "e", "image": "i"}]), "spec.ephemeralContainers", INVALID),
    (pod(tolerations=[{"operator": "In", "key": "a"}]), "spec.tolerations[0].operator", UNKNOWN),
    (pod(tolerations=[{"key": "a", "effect": "x"}]), "spec.tolerations[0].effect", UNKNOWN),
    (pod(tolerations=[{"operator": "Equal"}]), "spec.tolerations[0].operator", INVALID),
    (pod(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]), "spec.tolerations[0].operator", INVALID),
    (pod(tolerations=[{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}]), "spec.tolerations[0].effect", INVALID),
    (affinity(**{MUST: {"nodeSelectorTerms": []}}), f"{NODE_AFFINITY}.{MUST}.nodeSelectorTerms", REQUIRED),
    (demand(key="", operator="Exists"), f"{NODE_AFFINITY}.{MUST}.nodeSelectorTerms[0].matchExpressions[0].key", REQUIRED),
    (demand(key="a", operator="Like"), f"{NODE_AFFINITY}.{MUST}.nodeSelectorTerms[0].matchExpressions[0].operator", UNKNOWN),
    (demand(key="a", operator="In"), f"{NODE_AFFINITY}.{MUST}.nodeSelectorTerms[0].matchExpressions[0].values", REQUIRED),
    (demand(key="a", operator="Exists", values=["b"]), f"{NODE_AFFINITY}.{MUST}.nodeSelectorTerms[0].matchExpressions[0].values", FORBIDDEN),
    (demand(key="a", operator="Gt", values=["1", "2"]), f"{NODE_AFFINITY}.{MUST}.nodeSelectorTerms[0].matchExpressions[0].values", REQUIRED),
    (affinity(**{WISH: [{"weight": 0, "preference": {}}]}), f"{NODE_AFFINITY}.{WISH}[0].weight", INVALID),
    (pod(affinity={"podAffinity": {MUST: [{"topologyKey": ""}]}}), f"spec.affinity.podAffinity.{MUST}[0].topologyKey", REQUIRED),
    (pod(affinity={"podAntiAffinity": {WISH: [{"weight": 101, "podAffinityTerm": {"topologyKey": "k"}}]}}), f"spec.affinity.podAntiAffinity.{WISH}[0].weight", INVALID),
    (pod(topologySpreadConstraints=[{"maxSkew": 0, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"}]), "spec.topologySpreadConstraints[0].maxSkew", INVALID),
    (pod(topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "", "whenUnsatisfiable": "DoNotSchedule"}]), "spec.topologySpreadConstraints[0].topologyKey", REQUIRED),
    (pod(topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "x"}]), "spec.topologySpreadConstraints[0].whenUnsatisfiable", UNKNOWN),
    (pod(volumes=[{"name": ""}]), f"{V}.name", REQUIRED),
    (pod(volumes=[{"name": "a_b"}]), f"{V}.name", INVALID),
    (pod(volumes=[{"name": "a"}, {"name": "a"}]), "spec.volumes[1].name", DOUBLE),
    (volume(emptyDir={}, hostPath={"path": "/x"}), f"{V}.hostPath", FORBIDDEN),
    (volume(emptyDir={"sizeLimit": "x"}), f"{V}.emptyDir.sizeLimit", INVALID),
    (volume(hostPath={"path": ""}), f"{V}.hostPath.path", REQUIRED),
    (volume(hostPath={"path": "/a/.."}), f"{V}.hostPath.path", INVALID),
    (volume(hostPath={"path": "/a", "type": "Pipe"}), f"{V}.hostPath.type", UNKNOWN),
    (volume(configMap={}), f"{V}.configMap.name", REQUIRED),
    (volume(secret={}), f"{V}.secret.secretName", REQUIRED),
    (volume(secret={"secretName": "s", "defaultMode": 0o1000}), f"{V}.secret.defaultMode", INVALID),
    (volume(secret={"secretName": "s", "items": [{"key": "k", "path": "../x"}]}), f"{V}.secret.items[0].path", INVALID),
    (volume(configMap={"name": "s", "items": [{"key": "", "path": "x"}]}), f"{V}.configMap.items[0].key", REQUIRED),
    (volume(configMap={"name": "s", "items": [{"key": "k", "path": ""}]}), f"{V}.configMap.items[0].path", REQUIRED),
    (volume(downwardAPI={"items": [{"path": "x"}]}), f"{V}.downwardAPI.items[0]", REQUIRED),
    (volume(downwardAPI={"items": [{"path": "x", "fieldRef": {"fieldPath": "status.podIP"}}]}), f"{V}.downwardAPI.items[0].fieldRef.fieldPath", UNKNOWN),
    (volume(downwardAPI={"items": [{"path": "x", "resourceFieldRef": {"resource": "limits.cpu"}}]}), f"{V}.downwardAPI.items[0].resourceFieldRef.containerName", REQUIRED),
    (volume(projected={"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]}), f"{V}.projected.sources[0].serviceAccountToken.expirationSeconds", INVALID),
    (volume(projected={"sources": [{"serviceAccountToken": {"path": "/t"}}]}), f"{V}.projected.sources[0].serviceAccountToken.path", INVALID),
]  # fmt: skip


@pytest.mark.parametrize(("body", "field", "reason"), POD_RULES, ids=[f"{f}-{r[10:]}" for _, f, r in POD_RULES])
def test_one_fault_of_a_pod(body: Json, field: str, reason: str) -> None:
    # Limits stand in for requests that are not given, and their faults with them.
    copied = (field.replace(".limits[", ".requests["), reason)
    found = told(faults("v1", body))
    assert (field, reason) in found
    assert found <= {(field, reason), copied}


TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def deployment(kind: str = "Deployment", **spec: Any) -> Json:
    return {"kind": kind, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE, **spec}}


def rolling(**update: Any) -> Json:
    return deployment(strategy={"rollingUpdate": update})


def selector(**expression: Any) -> Json:
    return deployment(selector={"matchExpressions": [expression]})


def template(**more: Any) -> Json:
    return deployment(template={**TEMPLATE, "spec": {**TEMPLATE["spec"], **more}})


INDEXED = {"completionMode": "Indexed", "completions": 3, "parallelism": 2}


def job(**spec: Any) -> Json:
    return {"kind": "Job", "spec": {"template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}, **spec}}


def service(*ports: Json, **spec: Any) -> Json:
    return {"kind": "Service", "spec": {"ports": [{"port": 80, **port} for port in ports], **spec}}


def binding(kind: str = "ClusterRoleBinding", subject: Json | None = None, **ref: Any) -> Json:
    role = {"kind": "ClusterRole", "name": "r", **ref}
    return {"kind": kind, "roleRef": role, "subjects": [{"kind": "User", "name": "u", **(subject or {})}]}


def role(kind: str = "ClusterRole", **rule: Any) -> Json:
    return {"kind": kind, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], **rule}]}


def hpa(**spec: Any) -> Json:
    whole = {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "x"}, **spec}
    return {"kind": "HorizontalPodAutoscaler", "spec": whole}


def cpu(**target: Any) -> Json:
    return {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", **target}}}


def policy(**change: Any) -> Json:
    return {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15, **change}]}}


def request(**spec: Any) -> Json:
    pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K"  # the first line of one
    whole = {"request": pem, "signerName": "example.com/x", "usages": ["client auth"], **spec}
    return {"kind": "CertificateSigningRequest", "spec": whole}


APPS, BATCH, RBAC, SCHED, DISCO = "apps/v1", "batch/v1", f"{GROUP}/v1", "scheduling.k8s.io/v1", "discovery.k8s.io/v1"
CERT, HPA = "certificates.k8s.io/v1", "autoscaling/v2"
EXPRESSION = "spec.selector.matchExpressions[0]"
ROLLING = "spec.strategy.rollingUpdate"
BIG = "x" * (1 << 20)
RULES: list[tuple[str, Json, str, str]] = [
    (APPS, deployment(replicas=-1), "spec.replicas", INVALID),
    (APPS, deployment(minReadySeconds=-1), "spec.minReadySeconds", INVALID),
    (APPS, deployment(revisionHistoryLimit=-1), "spec.revisionHistoryLimit", INVALID),
    (APPS, deployment(minReadySeconds=600), "spec.progressDeadlineSeconds", INVALID),
    (APPS, deployment(selector={}), "spec.selector", INVALID),
    (APPS, deployment(selector={"matchLabels": {"a": "c"}}), "spec.template.metadata.labels", INVALID),
    (APPS, selector(key="", operator="Exists"), f"{EXPRESSION}.key", REQUIRED),
    (APPS, selector(key="a", operator="Like"), f"{EXPRESSION}.operator", UNKNOWN),
    (APPS, selector(key="a", operator="In"), f"{EXPRESSION}.values", REQUIRED),
    (APPS, selector(key="a", operator="Exists", values=["b"]), f"{EXPRESSION}.values", FORBIDDEN),
    (APPS, template(restartPolicy="Never"), "spec.template.spec.restartPolicy", UNKNOWN),
    (APPS, template(activeDeadlineSeconds=5), "spec.template.spec.activeDeadlineSeconds", FORBIDDEN),
    (APPS, deployment(template={**TEMPLATE, "metadata": {"labels": {"a": "b", "c": "d e"}}}), "spec.template.metadata.labels[c]", INVALID),
    (APPS, deployment(strategy={"type": "Blue"}), "spec.strategy.type", UNKNOWN),
    (APPS, deployment(strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}), ROLLING, FORBIDDEN),
    (APPS, rolling(maxSurge=-1), f"{ROLLING}.maxSurge", INVALID),
    (APPS, rolling(maxSurge="1.5"), f"{ROLLING}.maxSurge", INVALID),
    (APPS, rolling(maxUnavailable="101%"), f"{ROLLING}.maxUnavailable", INVALID),
    (APPS, rolling(maxUnavailable="0%", maxSurge=0), f"{ROLLING}.maxUnavailable", INVALID),
    (APPS, deployment("DaemonSet", updateStrategy={"type": "x"}), "spec.updateStrategy.type", UNKNOWN),
    (APPS, deployment("DaemonSet", updateStrategy={"rollingUpdate": {"maxSurge": 1}}), "spec.updateStrategy.rollingUpdate.maxUnavailable", INVALID),
    (BATCH, job(parallelism=-1), "spec.parallelism", INVALID),
    (BATCH, job(backoffLimit=-1), "spec.backoffLimit", INVALID),
    (BATCH, job(completionMode="x"), "spec.completionMode", UNKNOWN),
    (BATCH, job(completionMode="Indexed", parallelism=2), "spec.completions", REQUIRED),
    (BATCH, job(podReplacementPolicy="x"), "spec.podReplacementPolicy", UNKNOWN),
    (BATCH, job(manualSelector=True), "spec.selector", INVALID),
    (BATCH, job(template={"spec": TEMPLATE["spec"]}), "spec.template.spec.restartPolicy", UNKNOWN),
    (BATCH, job(backoffLimitPerIndex=1), "spec.backoffLimitPerIndex", INVALID),
    (BATCH, job(**INDEXED, backoffLimitPerIndex=-1), "spec.backoffLimitPerIndex", INVALID),
    (BATCH, job(**INDEXED, backoffLimitPerIndex=1, template={"spec": {**TEMPLATE["spec"], "restartPolicy": "OnFailure"}}), "spec.template.spec.restartPolicy", INVALID),
    (BATCH, job(**INDEXED, maxFailedIndexes=1), "spec.backoffLimitPerIndex", REQUIRED),
    (BATCH, job(**INDEXED, backoffLimitPerIndex=1, maxFailedIndexes=4), "spec.maxFailedIndexes", INVALID),
    (BATCH, job(**INDEXED, podFailurePolicy={"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}]}), "spec.podFailurePolicy.rules[0].action", INVALID),
    (BATCH, job(completions=3, successPolicy={"rules": [{"succeededCount": 1}]}), "spec.successPolicy", INVALID),
    (BATCH, job(**INDEXED, successPolicy={"rules": []}), "spec.successPolicy.rules", REQUIRED),
    (BATCH, job(**INDEXED, successPolicy={"rules": [{"succeededCount": 1}] * 21}), "spec.successPolicy.rules", INVALID),
    (BATCH, job(**INDEXED, successPolicy={"rules": [{}]}), "spec.successPolicy.rules[0]", REQUIRED),
    (BATCH, job(**INDEXED, successPolicy={"rules": [{"succeededCount": 4}]}), "spec.successPolicy.rules[0].succeededCount", INVALID),
    *((BATCH, job(**INDEXED, successPolicy={"rules": [{"succeededIndexes": text}]}), "spec.successPolicy.rules[0].succeededIndexes", INVALID) for text in ("", "0-3", "1,0", "2-1", "0,0", "a", "0-9999999999", "٣")),
    (BATCH, job(podFailurePolicy={"rules": []}, template={"spec": {**TEMPLATE["spec"], "restartPolicy": "OnFailure"}}), "spec.template.spec.restartPolicy", INVALID),
    ("v1", service(), "spec.ports", REQUIRED),
    ("v1", service({}, type="x"), "spec.type", UNKNOWN),
    ("v1", service({}, sessionAffinity="x"), "spec.sessionAffinity", UNKNOWN),
    ("v1", service({}, sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 0}}), "spec.sessionAffinityConfig.clientIP.timeoutSeconds", INVALID),
    ("v1", service({}, internalTrafficPolicy="x"), "spec.internalTrafficPolicy", UNKNOWN),
    ("v1", service({}, externalIPs=["x"]), "spec.externalIPs[0]", INVALID),
    ("v1", service({}, selector={"a": "b c"}), "spec.selector[a]", INVALID),
    ("v1", service(type="ExternalName"), "spec.externalName", REQUIRED),
    ("v1", service(type="ExternalName", externalName="A_b"), "spec.externalName", INVALID),
    ("v1", service(type="ExternalName", externalName="a.b", clusterIP="1.2.3.4"), "spec.clusterIP", FORBIDDEN),
    ("v1", service({}, type="NodePort", clusterIP="None"), "spec.clusterIP", INVALID),
    ("v1", service({"name": "a"}, {"port": 81}), "spec.ports[1].name", REQUIRED),
    ("v1", service({"name": "A"}), "spec.ports[0].name", INVALID),
    ("v1", service({"name": "a"}, {"name": "a", "port": 81}), "spec.ports[1].name", DOUBLE),
    ("v1", service({"port": 0, "targetPort": 1}), "spec.ports[0].port", INVALID),
    ("v1", service({"targetPort": 70000}), "spec.ports[0].targetPort", INVALID),
    ("v1", service({"targetPort": "Web!"}), "spec.ports[0].targetPort", INVALID),
    ("v1", service({"protocol": "tcp"}), "spec.ports[0].protocol", UNKNOWN),
    ("v1", service({"protocol": "SCTP"}), "spec.ports[0].protocol", INVALID),
    ("v1", service({"name": "a"}, {"name": "b"}), "spec.ports[1]", DOUBLE),
    ("v1", service({"nodePort": 30000}), "spec.ports[0].nodePort", FORBIDDEN),
    ("v1", {"kind": "ConfigMap", "data": {"a b": ""}}, "data[a b]", INVALID),
    ("v1", {"kind": "ConfigMap", "data": {"..a": ""}}, "data[..a]", INVALID),
    ("v1", {"kind": "ConfigMap", "data": {"a": ""}, "binaryData": {"a": ""}}, "data", INVALID),
    ("v1", {"kind": "ConfigMap", "data": {"a": BIG, "b": "x"}}, "data", LONG),
    ("v1", {"kind": "ConfigMap", "data": {"a": "ü" * (1 << 19), "b": "x"}}, "data", LONG),
    ("v1", {"kind": "Secret", "type": "kubernetes.io/tls", "data": {"tls.crt": ""}}, "data[tls.key]", REQUIRED),
    ("v1", {"kind": "Secret", "type": "kubernetes.io/basic-auth"}, "data[username]", REQUIRED),
    ("v1", {"kind": "Node", "spec": {"taints": [{"key": "", "effect": "NoSchedule"}]}}, "spec.taints[0].key", REQUIRED),
    ("v1", {"kind": "Node", "spec": {"taints": [{"key": "a", "effect": "x"}]}}, "spec.taints[0].effect", UNKNOWN),
    ("v1", {"kind": "Node", "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}] * 2}}, "spec.taints[1]", DOUBLE),
    ("v1", {"kind": "Node", "status": {"capacity": {"cpu": "x"}}}, "status.capacity[cpu]", INVALID),
    (SCHED, {"kind": "PriorityClass", "value": 2 * 10**9}, "value", FORBIDDEN),
    (DISCO, {"kind": "EndpointSlice", "addressType": "MAC"}, "addressType", UNKNOWN),
    (DISCO, {"kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4"]}] * 1001}, "endpoints", INVALID),
    (HPA, hpa(minReplicas=0), "spec.minReplicas", INVALID),
    (HPA, hpa(maxReplicas=0), "spec.maxReplicas", INVALID),
    (HPA, hpa(minReplicas=4), "spec.maxReplicas", INVALID),
    (HPA, hpa(metrics=[{"type": "Cpu"}]), "spec.metrics[0].type", UNKNOWN),
    (HPA, hpa(metrics=[{"type": "Pods"}]), "spec.metrics[0].pods", REQUIRED),
    (HPA, hpa(metrics=[{**cpu(averageUtilization=5), "pods": {}}]), "spec.metrics[0].pods", FORBIDDEN),
    (HPA, hpa(metrics=[cpu()]), "spec.metrics[0].resource.target.averageUtilization", REQUIRED),
    (HPA, hpa(metrics=[cpu(averageUtilization=0)]), "spec.metrics[0].resource.target.averageUtilization", INVALID),
    (HPA, hpa(metrics=[cpu(averageValue="0")]), "spec.metrics[0].resource.target.averageValue", INVALID),
    (HPA, hpa(metrics=[cpu(averageValue="1", averageUtilization=5)]), "spec.metrics[0].resource.target.averageValue", FORBIDDEN),
    (HPA, hpa(behavior={"scaleUp": {"selectPolicy": "Maybe"}}), "spec.behavior.scaleUp.selectPolicy", UNKNOWN),
    (HPA, hpa(behavior={"scaleUp": {"tolerance": "-1"}}), "spec.behavior.scaleUp.tolerance", INVALID),
    (HPA, hpa(behavior={"scaleDown": {"stabilizationWindowSeconds": 3601}}), "spec.behavior.scaleDown.stabilizationWindowSeconds", INVALID),
    (HPA, hpa(behavior={"scaleDown": {"policies": []}}), "spec.behavior.scaleDown.policies", REQUIRED),
    (HPA, hpa(behavior=policy(type="Some")), "spec.behavior.scaleDown.policies[0].type", UNKNOWN),
    (HPA, hpa(behavior=policy(value=0)), "spec.behavior.scaleDown.policies[0].value", INVALID),
    (HPA, hpa(behavior=policy(periodSeconds=1801)), "spec.behavior.scaleDown.policies[0].periodSeconds", INVALID),
    (HPA, hpa(scaleTargetRef={"kind": "Deployment", "name": ""}), "spec.scaleTargetRef.name", REQUIRED),
    (RBAC, role(verbs=[]), "rules[0].verbs", REQUIRED),
    (RBAC, role(resources=[]), "rules[0].resources", REQUIRED),
    (RBAC, role(apiGroups=[]), "rules[0].apiGroups", REQUIRED),
    (RBAC, role(nonResourceURLs=["/x"]), "rules[0].nonResourceURLs", INVALID),
    (RBAC, role("Role", nonResourceURLs=["/x"], resources=[], apiGroups=[]), "rules[0].nonResourceURLs", INVALID),
    (RBAC, binding(kind="ClusterRoleBinding", name=""), "roleRef.name", REQUIRED),
    (RBAC, {**binding(), "roleRef": {"kind": "Role", "name": "r"}}, "roleRef.kind", UNKNOWN),
    (RBAC, binding(apiGroup="x"), "roleRef.apiGroup", UNKNOWN),
    (RBAC, binding(subject={"kind": "Robot"}), "subjects[0].kind", UNKNOWN),
    (RBAC, binding(subject={"name": ""}), "subjects[0].name", REQUIRED),
    (RBAC, binding(subject={"apiGroup": "x"}), "subjects[0].apiGroup", UNKNOWN),
    (RBAC, binding(subject={"kind": "ServiceAccount"}), "subjects[0].namespace", REQUIRED),
    (CERT, request(request="eA=="), "spec.request", INVALID),
    (CERT, request(signerName="x"), "spec.signerName", INVALID),
    (CERT, request(usages=[]), "spec.usages", REQUIRED),
    (CERT, request(expirationSeconds=5), "spec.expirationSeconds", INVALID),
]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "body", "field", "reason"), RULES, ids=[f"{b['kind']}-{f}" for _, b, f, _ in RULES]
)
def test_one_fault_of_another_kind(version: str, body: Json, field: str, reason: str) -> None:
    assert told(faults(version, body)) == {(field, reason)}


TOLERATION = {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
CHANGES: list[tuple[Json, Json, set[str]]] = [
    (pod(), pod({"image": "i:2"}), set()),
    (pod(), pod({"command": ["x"]}), {"spec"}),
    (pod(), pod(volumes=[{"name": "v"}]), {"spec"}),
    (pod(), pod(activeDeadlineSeconds=9), set()),
    (pod(activeDeadlineSeconds=9), pod(activeDeadlineSeconds=8), set()),
    (pod(activeDeadlineSeconds=9), pod(activeDeadlineSeconds=10), {"spec.activeDeadlineSeconds"}),
    (pod(activeDeadlineSeconds=9), pod(), {"spec.activeDeadlineSeconds"}),
    (pod(), pod(tolerations=[TOLERATION]), set()),
    (pod(tolerations=[TOLERATION]), pod(tolerations=[TOLERATION | {"tolerationSeconds": 9}]), set()),
    (pod(tolerations=[TOLERATION]), pod(), {"spec.tolerations"}),
    (pod(schedulingGates=[{"name": "a"}]), pod(), set()),
    (pod(), pod(schedulingGates=[{"name": "a"}]), {"spec.schedulingGates"}),
    (pod(), pod(nodeName="n"), {"spec.nodeName"}),
    (pod(nodeName="n"), pod(nodeName="m"), {"spec"}),
    (pod(nodeName="n"), pod(nodeName="n"), set()),
]


@pytest.mark.parametrize(("old", "new", "fields"), CHANGES)
def test_what_of_a_pod_may_change(old: Json, new: Json, fields: set[str]) -> None:
    assert {cause.field for cause in faults("v1", new, old)} == fields


IMMUTABLE: list[tuple[str, Json, Json, set[str]]] = [
    (APPS, deployment(), deployment(selector={"matchLabels": {"a": "b", "c": "d"}}, template={**TEMPLATE, "metadata": {"labels": {"a": "b", "c": "d"}}}), {"spec.selector"}),
    (APPS, deployment(), deployment(replicas=7), set()),
    (BATCH, job(), job(completions=2, parallelism=1), {"spec.completions"}),
    (BATCH, job(**INDEXED, backoffLimitPerIndex=1), job(**INDEXED, backoffLimitPerIndex=2), {"spec.backoffLimitPerIndex"}),
    (BATCH, job(**INDEXED), job(**INDEXED, successPolicy={"rules": [{"succeededIndexes": "0,2"}]}), {"spec.successPolicy"}),
    (BATCH, job(), job(parallelism=3, completions=1), set()),
    (BATCH, job(), job(template={"spec": {**TEMPLATE["spec"], "restartPolicy": "OnFailure"}}), {"spec.template"}),
    (BATCH, job(suspend=True), job(suspend=True, template={"spec": {**TEMPLATE["spec"], "restartPolicy": "OnFailure"}}), set()),
    ("v1", service({}, clusterIP="10.0.0.1"), service({}, clusterIP="10.0.0.2"), {"spec.clusterIP"}),
    ("v1", service({}, clusterIP="10.0.0.1"), service(type="ExternalName", externalName="a.b"), set()),
    ("v1", {"kind": "Secret", "type": "a"}, {"kind": "Secret", "type": "b"}, {"type"}),
    ("v1", {"kind": "ConfigMap", "immutable": True, "data": {"a": "b"}}, {"kind": "ConfigMap", "data": {"a": "c"}}, {"data", "immutable"}),
    ("v1", {"kind": "Node", "spec": {"podCIDR": "10.0.0.0/24"}}, {"kind": "Node"}, {"spec.podCIDR"}),
    ("v1", {"kind": "Node"}, {"kind": "Node", "spec": {"podCIDR": "10.0.0.0/24"}}, set()),
    (SCHED, {"kind": "PriorityClass", "value": 1}, {"kind": "PriorityClass", "value": 2}, {"value"}),
    (DISCO, {"kind": "EndpointSlice", "addressType": "IPv4"}, {"kind": "EndpointSlice", "addressType": "IPv6"}, {"addressType"}),
    (RBAC, binding(), binding(name="other"), {"roleRef"}),
    (CERT, request(), request(signerName="example.com/y"), {"spec"}),
]  # fmt: skip


@pytest.mark.parametrize(("version", "old", "new", "fields"), IMMUTABLE)
def test_what_of_other_kinds_stays(version: str, old: Json, new: Json, fields: set[str]) -> None:
    assert {cause.field for cause in faults(version, new, old)} == fields


def test_a_secret_may_hold_its_limit_in_bytes_however_they_are_encoded() -> None:
    data = {"a": base64.b64encode(bytes(1 << 20)).decode()}
    assert faults("v1", {"kind": "Secret", "data": data}) == []
    more = {**data, "b": "eA=="}
    assert told(faults("v1", {"kind": "Secret", "data": more})) == {("data", LONG)}
