"""Ingress and DNS: what is wrong with them, and the older forms of both."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from minik8s.api.dialects import convert
from minik8s.api.errors import BadRequest, Invalid
from minik8s.api.resource import Json
from minik8s.api.schema import compile_schema
from minik8s.api.scheme import SCHEME

WEB = {"service": {"name": "web", "port": {"number": 80}}}


def ingress(path: Json | None = None, **spec: Any) -> Json:
    one = {"path": "/", "pathType": "Prefix", "backend": WEB, **(path or {})}
    return {
        "kind": "Ingress",
        "metadata": {"name": "x"},
        "spec": {"rules": [{"host": "a.test", "http": {"paths": [one]}}], **spec},
    }


def dns(path: Json | None = None, **spec: Any) -> Json:
    one = {"path": "/", "service": {"name": "web", "port": 80}, **(path or {})}
    return {"kind": "DNS", "metadata": {"name": "x"}, "spec": {"host": "a.test", "paths": [one], **spec}}


def faults(body: Json) -> list[tuple[str, str]]:
    version = {"Ingress": "networking.k8s.io/v1", "DNS": "net.minik8s.io/v1"}[body["kind"]]
    resource = SCHEME.by_kind(version, body["kind"])
    assert resource is not None
    obj = copy.deepcopy(body)
    resource.default(obj)
    resource.prepare(obj, None)
    return [(cause.field, cause.message) for cause in resource.validate(obj, None)]


P = "spec.rules[0].http.paths[0]"
RULES: list[tuple[Json, str, str]] = [
    ({"kind": "Ingress", "metadata": {"name": "x"}, "spec": {}}, "spec", "either `defaultBackend` or `rules`"),
    (ingress(rules=[{"host": "A.test"}]), "spec.rules[0].host", "lowercase RFC 1123"),
    (ingress(rules=[{"host": "1.2.3.4"}]), "spec.rules[0].host", "not an IP address"),
    (ingress(rules=[{"host": "*.*.test"}]), "spec.rules[0].host", "one '*.' may stand before it"),
    (ingress(rules=[{"host": 'a";evil'}]), "spec.rules[0].host", "lowercase RFC 1123"),
    (ingress(rules=[{"http": {"paths": []}}]), "spec.rules[0].http.paths", "Required"),
    (ingress({"pathType": ""}), f"{P}.pathType", "must be specified"),
    (ingress({"pathType": "Regex"}), f"{P}.pathType", "supported values"),
    (ingress({"path": "a"}), f"{P}.path", "absolute"),
    (ingress({"path": "a", "pathType": "ImplementationSpecific"}), f"{P}.path", "absolute"),
    (ingress({"path": "/a//b"}), f"{P}.path", "must not contain '//'"),
    (ingress({"path": "/a/.."}), f"{P}.path", "cannot end with '/..'"),
    (ingress({"backend": {}}), f"{P}.backend", "resource or service"),
    (ingress({"backend": {**WEB, "resource": {"kind": "a", "name": "b"}}}), f"{P}.backend", "both"),
    (ingress({"backend": {"service": {"name": "web"}}}), f"{P}.backend.service.port", "Required"),
    (
        ingress({"backend": {"service": {"name": "web", "port": {"number": 70000}}}}),
        f"{P}.backend.service.port.number",
        "65535",
    ),
    (ingress({"backend": {"service": {"name": "W", "port": {"number": 1}}}}), f"{P}.backend.service.name", "lowercase"),
    (ingress(tls=[{"hosts": ["a_b"]}]), "spec.tls[0].hosts[0]", "lowercase"),
    (ingress(tls=[{"secretName": "A"}]), "spec.tls[0].secretName", "lowercase"),
    (ingress(ingressClassName="A"), "spec.ingressClassName", "lowercase"),
    (dns(host=""), "spec.host", "Required"),
    (dns(host="My_Host.test"), "spec.host", "how about 'my-host.test'?"),
    (dns(paths=[]), "spec.paths", "at least one path"),
    (dns({"path": "nginx"}), "spec.paths[0].path", "absolute"),
    (dns({"service": {"port": 80}}), "spec.paths[0].service.name", "the service's name, or its uid"),
    (dns({"service": {"name": "a", "uid": "b", "port": 80}}), "spec.paths[0].service.uid", "together"),
    (dns({"service": {"name": "a", "port": 0}}), "spec.paths[0].service.port", "65535"),
    (dns({"service": {"name": "a", "port": "Ä"}}), "spec.paths[0].service.port", "number or the name"),
    (
        dns(paths=[{"path": p, "service": {"name": "a", "port": 1}} for p in ("/a", "/a/")]),
        "spec.paths[1].path",
        "Duplicate",
    ),
]


@pytest.mark.parametrize(("body", "field", "words"), RULES)
def test_each_rule_names_its_field(body: Json, field: str, words: str) -> None:
    found = faults(body)
    assert [f for f, _ in found] == [field], found
    assert words in found[0][1]


def test_what_kubernetes_takes_is_taken() -> None:
    assert faults(ingress()) == []
    assert faults(ingress({"path": "/a(/|$)(.*)", "pathType": "ImplementationSpecific"})) == []
    assert faults(ingress(rules=[{"host": "*.a.test"}])) == []
    assert faults(dns()) == []
    assert faults(dns({"service": {"uid": "c0ffee", "port": "http"}})) == []


# -- older forms

SERVICE = {"name": "nginx-service", "port": 8080}
CLASSIC = [
    {"kind": "DNS", "spec": {"host": "test.nginx", "paths": [{"path": "/nginx/", "service": SERVICE}]}},
    {
        "kind": "Dns",
        "apiVersion": "v1",
        "spec": {
            "host": "test.nginx",
            "paths": [{"subPath": "/nginx/", "svcName": "nginx-service", "svcPort": "8080"}],
        },
    },
    {
        "kind": "DNS",
        "apiVersion": "v1",
        "spec": {"host": "test.nginx", "paths": {"/nginx/": {"serviceName": "nginx-service", "servicePort": 8080}}},
    },
]


@pytest.mark.parametrize("document", CLASSIC)
def test_classic_dns(document: Json) -> None:
    document = {**document, "metadata": {"name": "d", "namespace": "default"}}
    conversion = convert(document)
    (native,) = conversion.objects
    assert native == {
        "apiVersion": "net.minik8s.io/v1",
        "kind": "DNS",
        "metadata": {"name": "d", "namespace": "default"},
        "spec": {"host": "test.nginx", "paths": [{"path": "/nginx/", "service": SERVICE}]},
    }
    assert "older dialect" in conversion.warnings[0]
    assert faults(native) == []
    assert compile_schema("io.minik8s.api.net.v1.DNS").admit(native) == ([], [])
    assert not convert(native).changed


def test_a_service_may_be_known_by_its_uid() -> None:
    document = {"kind": "DNS", "spec": {"host": "a.b", "paths": {"/x": {"serviceUID": "c0ffee", "servicePort": 1}}}}
    (native,) = convert(document).objects
    assert native["spec"]["paths"] == [{"path": "/x", "service": {"uid": "c0ffee", "port": 1}}]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"host": "a", "paths": [], "hots": 1}, "spec.hots"),
        ({"host": "a", "paths": [{"pat": "/"}]}, "spec.paths[0].pat"),
        ({"host": "a", "paths": [{"path": "/", "service": {"nam": "x"}}]}, "spec.paths[0].service.nam"),
        ({"host": "a", "paths": {"/a": {"service": "x"}}}, "spec.paths[/a].service"),
        ({"host": "a", "paths": [{"service": SERVICE, "svcName": "x"}]}, "spec.paths[0].svcName"),
        ({"host": "a"}, "spec.paths"),
        ({"host": "a", "paths": "x"}, "spec.paths"),
    ],
)
def test_unknown_fields_of_classic_dns_are_named(spec: Json, field: str) -> None:
    with pytest.raises(Invalid) as raised:
        convert({"kind": "DNS", "apiVersion": "v1", "metadata": {"name": "d"}, "spec": spec})
    assert [cause.field for cause in raised.value.causes] == [field]


@pytest.mark.parametrize("spec", [[], {"host": "a", "paths": [7]}, {"host": "a", "paths": {"/": 7}}])
def test_what_is_no_map_is_told(spec: Any) -> None:
    with pytest.raises(BadRequest, match="expected a map"):
        convert({"kind": "DNS", "apiVersion": "v1", "metadata": {"name": "d"}, "spec": spec})


def test_an_ingress_of_kubernetes_is_no_trigger_of_a_function() -> None:
    assert not convert({**ingress(), "apiVersion": "networking.k8s.io/v1"}).changed
