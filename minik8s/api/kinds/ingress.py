"""Ingress: HTTP hosts and paths to services."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minik8s.api.errors import Cause, forbidden, invalid, not_supported, required
from minik8s.api.kinds.columns import AGE, NAME, NONE, dig
from minik8s.api.kinds.validation import (
    DNS_LABEL,
    DNS_LABEL_HINT,
    DNS_SUBDOMAIN,
    DNS_SUBDOMAIN_HINT,
    PORT_NAME,
    is_ip,
    port_number,
)
from minik8s.api.meta import Object, Struct
from minik8s.api.resource import Column, Json, Resource


class ServiceBackendPort(Struct):
    name: str = ""
    number: int = 0


class IngressServiceBackend(Struct):
    name: str = ""
    port: ServiceBackendPort = ServiceBackendPort()


class IngressBackend(Struct):
    service: IngressServiceBackend | None = None
    resource: dict[str, Any] | None = None


class HTTPIngressPath(Struct):
    path: str = ""
    pathType: str = ""
    backend: IngressBackend = IngressBackend()


class HTTPIngressRuleValue(Struct):
    paths: tuple[HTTPIngressPath, ...] = ()


class IngressRule(Struct):
    host: str = ""
    http: HTTPIngressRuleValue | None = None


class IngressTLS(Struct):
    hosts: tuple[str, ...] = ()
    secretName: str = ""


class IngressSpec(Struct):
    """`Ingress.spec` decoded, for those who read all of it: `msgspec.convert(ingress.spec, IngressSpec)`."""

    ingressClassName: str = ""
    defaultBackend: IngressBackend | None = None
    rules: tuple[IngressRule, ...] = ()
    tls: tuple[IngressTLS, ...] = ()


class Ingress(Object):
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


CLASS_ANNOTATION = "kubernetes.io/ingress.class"  # what said the class before there was a field
PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
# What a path may not contain, as it would mean another path (Kubernetes' ValidateIngress).
INVALID_SEQUENCES, INVALID_ENDS = ("//", "/./", "/../", "%2f", "%2F"), ("/..", "/.")


def validate_host(host: str, path: str) -> Iterator[Cause]:
    """A host name, or `*.` and one."""
    if is_ip(host):
        yield invalid(path, host, "must be a DNS name, not an IP address")
    elif not DNS_SUBDOMAIN.fullmatch(host.removeprefix("*.")):
        hint = f"{DNS_SUBDOMAIN_HINT}; one '*.' may stand before it"
        better = host.lower().replace("_", "-")
        if better != host and DNS_SUBDOMAIN.fullmatch(better.removeprefix("*.")):
            hint += f" (how about {better!r}?)"
        yield invalid(path, host, hint)


def validate_path(text: str, path: str) -> Iterator[Cause]:
    """The path of a rule that is compared as it stands."""
    if not text.startswith("/"):
        yield invalid(path, text, "must be an absolute path")
        return
    for sequence in INVALID_SEQUENCES:
        if sequence in text:
            yield invalid(path, text, f"must not contain '{sequence}'")
    for end in INVALID_ENDS:
        if text.endswith(end):
            yield invalid(path, text, f"cannot end with '{end}'")


def _hosts(ingress: Json, now: float) -> str:
    hosts = [rule.get("host") for rule in dig(ingress, "spec.rules", ()) if rule.get("host")]
    return ",".join(hosts) or "*"


def _address(ingress: Json, now: float) -> str:
    return ",".join(i.get("ip") or i.get("hostname", "") for i in dig(ingress, "status.loadBalancer.ingress", ()))


def _class(ingress: Json, now: float) -> str:
    old = (ingress["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
    return str(dig(ingress, "spec.ingressClassName", old) or NONE)


def _default(ingress: Json) -> None:
    ingress.setdefault("status", {}).setdefault("loadBalancer", {})


def _validate(ingress: Json, old: Json | None) -> list[Cause]:
    spec = ingress.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        causes.append(required("spec", "either `defaultBackend` or `rules` must be specified"))
    if spec.get("defaultBackend"):
        causes += _validate_backend(spec["defaultBackend"], "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or ()):
        causes += _validate_rule(rule, f"spec.rules[{index}]")
    for index, tls in enumerate(spec.get("tls") or ()):
        for place, host in enumerate(tls.get("hosts") or ()):
            causes += validate_host(host, f"spec.tls[{index}].hosts[{place}]")
        name = tls.get("secretName") or ""
        if name and not DNS_SUBDOMAIN.fullmatch(name):
            causes.append(invalid(f"spec.tls[{index}].secretName", name, DNS_SUBDOMAIN_HINT))
    name = spec.get("ingressClassName")
    if name is not None and not DNS_SUBDOMAIN.fullmatch(name):
        causes.append(invalid("spec.ingressClassName", name, DNS_SUBDOMAIN_HINT))
    annotation = (ingress["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
    if old is None and name is not None and annotation is not None and name != annotation:
        field = f"metadata.annotations[{CLASS_ANNOTATION}]"
        causes.append(invalid(field, annotation, "must match `ingressClassName` when both are specified"))
    return causes


def _validate_rule(rule: Json, here: str) -> Iterator[Cause]:
    if rule.get("host"):
        yield from validate_host(rule["host"], f"{here}.host")
    if rule.get("http") is None:
        return
    paths = rule["http"].get("paths") or []
    if not paths:
        yield required(f"{here}.http.paths")
    for index, each in enumerate(paths):
        place, text, type = f"{here}.http.paths[{index}]", each.get("path") or "", each.get("pathType") or ""
        if not type:
            yield required(f"{place}.pathType", "pathType must be specified")
        elif type not in PATH_TYPES:
            yield not_supported(f"{place}.pathType", type, PATH_TYPES)
        elif type != "ImplementationSpecific":
            yield from validate_path(text, f"{place}.path")
        elif text and not text.startswith("/"):
            yield invalid(f"{place}.path", text, "must be an absolute path")
        yield from _validate_backend(each.get("backend") or {}, f"{place}.backend")


def _validate_backend(backend: Json, here: str) -> Iterator[Cause]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        yield invalid(here, "", "cannot set both resource and service backends")
    elif service is None:
        if resource is None:
            yield required(here, "resource or service backend is required")
        return
    else:
        name, port = service.get("name") or "", service.get("port") or {}
        if not name:
            yield required(f"{here}.service.name")
        elif not DNS_LABEL.fullmatch(name):
            yield invalid(f"{here}.service.name", name, DNS_LABEL_HINT)
        if port.get("name") and port.get("number"):
            yield forbidden(f"{here}.service.port", "cannot set both port name & port number")
        elif port.get("name"):
            if not PORT_NAME.fullmatch(port["name"]) and not DNS_LABEL.fullmatch(port["name"]):
                yield invalid(f"{here}.service.port.name", port["name"], "must be the name of a port of the service")
        elif not port.get("number"):
            yield required(f"{here}.service.port", "port name or number is required")
        else:
            yield from port_number(port["number"], f"{here}.service.port.number")


RESOURCE = Resource(
    kind="Ingress",
    plural="ingresses",
    group="networking.k8s.io",
    type=Ingress,
    definition="io.k8s.api.networking.v1.Ingress",
    shortNames=("ing",),
    subresources=frozenset(("status",)),
    columns=(
        NAME,
        Column("Class", _class, description="Who serves it."),
        Column("Hosts", _hosts, description="Host names."),
        Column("Address", _address, description="Where it answers."),
        Column("Ports", lambda ing, now: "80, 443" if dig(ing, "spec.tls") else "80", description="Ports."),
        AGE,
    ),
    default=_default,
    validate=_validate,
)
