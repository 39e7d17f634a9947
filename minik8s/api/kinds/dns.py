"""DNS: one host name, each path of which leads to a service. An Ingress in the fewest words; a controller makes one.

apiVersion: net.minik8s.io/v1
    kind: DNS
    metadata: {name: shop}
    spec:
      host: shop.example
      paths:
        - {path: /, service: {name: web, port: 80}}
        - {path: /cart, service: {name: cart, port: http}}
"""

from __future__ import annotations

from collections.abc import Iterator

from minik8s.api.errors import Cause, duplicate, forbidden, invalid, required
from minik8s.api.kinds.columns import AGE, NAME, condition, dig
from minik8s.api.kinds.ingress import validate_host, validate_path
from minik8s.api.kinds.validation import DNS_LABEL, DNS_LABEL_HINT, PORT_NAME, port_number
from minik8s.api.meta import Condition, IntOrString, Object, Struct
from minik8s.api.resource import Alias, Column, Json, Resource


class DNSService(Struct):
    name: str = ""
    uid: str = ""
    port: IntOrString = 0


class DNSPath(Struct):
    path: str = ""
    service: DNSService = DNSService()


class DNSSpec(Struct):
    host: str = ""
    paths: tuple[DNSPath, ...] = ()
    stripPrefix: bool = True  # the services of old manifests know nothing of the path under which they are shown


class DNSStatus(Struct):
    addresses: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    observedGeneration: int = 0


class DNS(Object):
    spec: DNSSpec = DNSSpec()
    status: DNSStatus = DNSStatus()


LONGEST_NAME = 249  # the Ingress that is made of it has four characters more


def _default(dns: Json) -> None:
    spec = dns.get("spec")
    if isinstance(spec, dict):
        spec.setdefault("stripPrefix", True)


def _prepare(dns: Json, old: Json | None) -> None:
    if old is None:
        dns.pop("status", None)


def _validate(dns: Json, old: Json | None) -> list[Cause]:
    spec = dns.get("spec") or {}
    causes: list[Cause] = []
    name = dns["metadata"].get("name", "")
    if len(name) > LONGEST_NAME:
        causes.append(invalid("metadata.name", name, f"must be no more than {LONGEST_NAME} characters"))
    if not spec.get("host"):
        causes.append(required("spec.host"))
    else:
        causes += validate_host(spec["host"], "spec.host")
    if not spec.get("paths"):
        causes.append(required("spec.paths", "name at least one path and the service behind it"))
    seen: set[str] = set()
    for index, each in enumerate(spec.get("paths") or ()):
        here = f"spec.paths[{index}]"
        path = each.get("path", "")
        causes += validate_path(path, f"{here}.path")
        if path.rstrip("/") in seen:
            causes.append(duplicate(f"{here}.path", path))
        seen.add(path.rstrip("/"))
        causes += _validate_service(each.get("service") or {}, f"{here}.service")
    return causes


def _validate_service(service: Json, here: str) -> Iterator[Cause]:
    name, uid, port = service.get("name") or "", service.get("uid") or "", service.get("port")
    if not name and not uid:
        yield required(f"{here}.name", "the service's name, or its uid")
    elif name and uid:
        yield forbidden(f"{here}.uid", "may not be set together with `name`")
    elif name and not DNS_LABEL.fullmatch(name):
        yield invalid(f"{here}.name", name, DNS_LABEL_HINT)
    if isinstance(port, int):
        yield from port_number(port, f"{here}.port")
    elif not port:
        yield required(f"{here}.port")
    elif not PORT_NAME.fullmatch(port):
        yield invalid(f"{here}.port", port, "must be the number or the name of one of the service's ports")


def _programmed(dns: Json, now: float) -> str:
    known = condition(dns, "Programmed")
    return str(known.get("status")) if known else "Unknown"


RESOURCE = Resource(
    kind="DNS",
    plural="dnses",
    singular="dns",
    group="net.minik8s.io",
    type=DNS,
    definition="io.minik8s.api.net.v1.DNS",
    subresources=frozenset(("status",)),
    columns=(
        NAME,
        Column("Host", lambda dns, now: dig(dns, "spec.host", ""), description="The name."),
        Column(
            "Paths",
            lambda dns, now: ",".join(each.get("path", "") for each in dig(dns, "spec.paths", ())),
            description="Its paths.",
        ),
        Column("Address", lambda dns, now: ",".join(dig(dns, "status.addresses", ())), description="Where it answers."),
        Column("Programmed", _programmed, description="Whether nginx serves it."),
        AGE,
    ),
    default=_default,
    validate=_validate,
    prepare=_prepare,
    # Old manifests say `apiVersion: v1`; kubectl looks for the kind there.
    aliases=(Alias("", "v1", "io.minik8s.api.net.v1.DNS", dict, dict),),
)
