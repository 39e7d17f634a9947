"""What a DNS object means: an Ingress, and what to say of it afterwards. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from minik8s.api.kinds.dns import DNS, DNSPath, DNSStatus
from minik8s.api.meta import Condition, Json
from minik8s.controllers.ingress_routes import CLASS, SERVICE_NOT_FOUND, STRIP_PREFIX, UNSUPPORTED_BACKEND, Problem
from minik8s.controllers.status import with_condition

UNRESOLVED = (SERVICE_NOT_FOUND, UNSUPPORTED_BACKEND)  # problems of what is referred to, not of the object itself
INGRESS_EXISTS = "IngressExists"


class Derived(NamedTuple):
    name: str
    spec: Json
    annotations: dict[str, str]
    problems: tuple[Problem, ...]


def derive(dns: DNS, name_of: Callable[[str, str], str]) -> Derived:
    """The Ingress of a DNS object; `name_of(namespace, uid)` is a service's name, or "" if there is none."""
    paths, problems = [], []
    for path in dns.spec.paths:
        service = path.service
        name = service.name or name_of(dns.metadata.namespace, service.uid)
        if name:
            paths.append(_path(path, name))
        else:
            words = f"{path.path}: no service of namespace {dns.metadata.namespace} has the uid {service.uid}"
            problems.append(Problem(SERVICE_NOT_FOUND, words))
    rule: Json = {"host": dns.spec.host} | ({"http": {"paths": paths}} if paths else {})
    annotations = {STRIP_PREFIX: "true"} if dns.spec.stripPrefix else {}
    return Derived(ingress_name(dns), {"ingressClassName": CLASS, "rules": [rule]}, annotations, tuple(problems))


def ingress_name(dns: DNS) -> str:
    return f"dns-{dns.metadata.name}"


def _path(path: DNSPath, service: str) -> Json:
    port = path.service.port
    number_or_name = {"number": port} if isinstance(port, int) else {"name": port}
    return {
        "path": path.path,
        "pathType": "Prefix",
        "backend": {"service": {"name": service, "port": number_or_name}},
    }


def status_of(
    dns: DNS, problems: Iterable[Problem], pending: Problem | None, found: list[str], now: float
) -> DNSStatus:
    """`pending`: why what it asks for is not live; `found`: the addresses that answer."""
    problems = tuple(problems)
    refused = [p for p in problems if p.reason not in UNRESOLVED]
    dangling = [p for p in problems if p.reason in UNRESOLVED]
    told = (
        ("Accepted", refused, "Accepted", "every path of it is its own"),
        ("ResolvedRefs", dangling, "ResolvedRefs", "every service that it names is there"),
        ("Programmed", [pending] if pending else [], "Programmed", "nginx serves it"),
    )
    conditions = dns.status.conditions
    for type, faults, reason, words in told:
        new = Condition(
            type=type,
            status="False" if faults else "True",
            reason=faults[0].reason if faults else reason,
            message="; ".join(fault.message for fault in faults) if faults else words,
        )
        conditions = with_condition(conditions, new, now)
    return DNSStatus(tuple(found), conditions, dns.metadata.generation)
