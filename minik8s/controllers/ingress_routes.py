"""From Ingresses to one table: which host and path leads where, who was first, and what is wrong with whom. Pure.

The oldest Ingress holds a host and path; a younger one that wants the same is told. What cannot be served (no such
service, a backend that is no service) answers 503 in words and is told as well: a mistake in one path costs no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.ingress import (
    CLASS_ANNOTATION,
    HTTPIngressPath,
    Ingress,
    IngressBackend,
    IngressSpec,
    validate_host,
)
from minik8s.api.kinds.ingressclass import IS_DEFAULT, IngressClass
from minik8s.api.kinds.service import Service, ServicePort

CLASS, CONTROLLER = "minik8s", "net.minik8s.io/ingress-nginx"
STRIP_PREFIX = "net.minik8s.io/strip-prefix"  # annotation: services see what follows the path of a Prefix rule
DEFAULT_CERTIFICATE = "default"
EXACT, PREFIX = "Exact", "Prefix"
LONGEST_NAME = 240


class Problem(NamedTuple):
    """What an Ingress asks for and does not get: an event's reason and message."""

    reason: str
    message: str


PATH_CONFLICT, HOST_CONFLICT, INVALID_PATH, INVALID_HOST = "PathConflict", "HostConflict", "InvalidPath", "InvalidHost"
SERVICE_NOT_FOUND, UNSUPPORTED_BACKEND, BAD_CERTIFICATE = "ServiceNotFound", "UnsupportedBackend", "BadCertificate"


class Backend(NamedTuple):
    """Where requests go: an address and port, or a name and port that nginx asks the cluster's DNS for (`named`).

    With neither, `fault` says why in a sentence; `service` is `namespace/name`, for the words of errors.
    """

    service: str
    address: str = ""
    port: int = 0
    named: bool = False
    fault: str = ""


class Route(NamedTuple):
    owner: str  # key of the Ingress
    type: str  # EXACT | PREFIX
    path: str  # percent-decoded, as nginx compares it; a prefix has no slash at its end: "" is everything
    backend: Backend
    strip: bool = False


class Host(NamedTuple):
    """A virtual server. `name` "" is that of all other hosts, `*.example` every name one label longer."""

    name: str
    routes: tuple[Route, ...]
    certificate: str = DEFAULT_CERTIFICATE  # which of Table.certificates
    certificate_owner: str = ""


class Pair(NamedTuple):
    """A certificate with its chain, and its key; PEM."""

    certificate: bytes
    key: bytes


class Table(NamedTuple):
    hosts: tuple[Host, ...]  # sorted by name
    certificates: Mapping[str, Pair]  # without the default one
    problems: Mapping[str, tuple[Problem, ...]]  # by Ingress key; only of those that have some
    services: frozenset[str]  # keys of all services that are referred to, there or not
    secrets: frozenset[str]


class Cluster(NamedTuple):
    """What routes depend on besides Ingresses, as look-ups."""

    service: Callable[[str, str], Service | None]  # (namespace, name)
    slices: Callable[[str, str], Iterable[EndpointSlice]]  # of a service
    certificate: Callable[[str, str], Pair | str]  # of a secret; a str says what is wrong with it
    domain: str = "cluster.local"


def is_ours(ingress: Ingress, classes: Mapping[str, IngressClass]) -> bool:
    """Whether an Ingress is of a class that minik8s serves; those without a class are of the default one."""
    name = ingress.spec.get("ingressClassName") or ingress.metadata.annotations.get(CLASS_ANNOTATION, "")
    if name:
        chosen = classes.get(name)
        return chosen.spec.controller == CONTROLLER if chosen is not None else name == CLASS
    return any(
        each.metadata.annotations.get(IS_DEFAULT) == "true" and each.spec.controller == CONTROLLER
        for each in classes.values()
    )


def by_age(ingress: Ingress) -> tuple[str, str]:
    """The order in which Ingresses get what they ask for."""
    return ingress.metadata.creationTimestamp, ingress.key


def compile_routes(ingresses: Iterable[Ingress], cluster: Cluster) -> Table:
    """The table of all these Ingresses, which are ours and are not being deleted."""
    compiler = _Compiler(cluster)
    ordered = sorted(ingresses, key=by_age)
    specs = [(ingress, msgspec.convert(ingress.spec, IngressSpec)) for ingress in ordered]
    for ingress, spec in specs:
        compiler.rules(ingress, spec)
    for ingress, spec in specs:  # after all rules: a default gives way to any path that somebody names
        compiler.default(ingress, spec)
    for ingress, spec in specs:
        compiler.tls(ingress, spec)
    return compiler.table()


class _Compiler:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._routes: dict[str, dict[tuple[str, str], Route]] = {}
        self._certified: dict[str, tuple[str, str]] = {}  # host -> (certificate, owner)
        self._certificates: dict[str, Pair] = {}
        self._problems: dict[str, list[Problem]] = {}
        self._services: set[str] = set()
        self._secrets: set[str] = set()

    def table(self) -> Table:
        hosts = tuple(
            Host(name, tuple(sorted(routes.values(), key=_in_order)), *self._certified.get(name, ()))
            for name, routes in sorted(self._routes.items())
        )
        problems = {key: tuple(dict.fromkeys(found)) for key, found in self._problems.items()}
        return Table(hosts, self._certificates, problems, frozenset(self._services), frozenset(self._secrets))

    def _tell(self, ingress: Ingress, reason: str, message: str) -> None:
        self._problems.setdefault(ingress.key, []).append(Problem(reason, message))

    # -- paths

    def rules(self, ingress: Ingress, spec: IngressSpec) -> None:
        for rule in spec.rules:
            if rule.host and any(validate_host(rule.host, "")):
                # The API server lets none through; whoever wrote around it gets no say in nginx's configuration.
                self._tell(ingress, INVALID_HOST, f"{rule.host!r} is not a host name")
                continue
            self._routes.setdefault(rule.host, {})
            for path in rule.http.paths if rule.http is not None else ():
                self._path(ingress, rule.host, path)

    def _path(self, ingress: Ingress, host: str, path: HTTPIngressPath) -> None:
        text = path.path or "/"
        decoded = _decoded(text)
        if decoded is None:
            self._tell(ingress, INVALID_PATH, f"{text[:200]!r} is not a path that nginx can compare: it must begin "
                       "with '/' and be UTF-8 without control characters")  # fmt: skip
            return
        # ImplementationSpecific is a prefix here, as with most controllers.
        exact = path.pathType == EXACT
        strip = not exact and ingress.metadata.annotations.get(STRIP_PREFIX) == "true"
        backend = self._backend(ingress, path.backend)
        type, key = (EXACT, decoded) if exact else (PREFIX, decoded.rstrip("/"))
        self._claim(ingress, host, Route(ingress.key, type, key, backend, strip))

    def _claim(self, ingress: Ingress, host: str, route: Route) -> None:
        held = self._routes[host].setdefault((route.type, route.path), route)
        if held.owner != route.owner:
            where = f"{host or '*'}{route.path or '/'}"
            self._tell(ingress, PATH_CONFLICT, f"{where} ({route.type}) belongs to the older Ingress {held.owner}")
        elif held is not route and held != route:
            where = f"{host or '*'}{route.path or '/'}"
            self._tell(ingress, PATH_CONFLICT, f"{where} ({route.type}) is named twice; the first one counts")

    def default(self, ingress: Ingress, spec: IngressSpec) -> None:
        """What no path of the Ingress's hosts matches goes to its default backend; without rules, all other hosts."""
        if spec.defaultBackend is None:
            return
        route = Route(ingress.key, PREFIX, "", self._backend(ingress, spec.defaultBackend))
        hosts = {rule.host for rule in spec.rules} & self._routes.keys()
        for host in sorted(hosts) if spec.rules else ("",):
            held = self._routes.setdefault(host, {}).setdefault((PREFIX, ""), route)
            if held.owner != ingress.key:
                self._tell(ingress, PATH_CONFLICT, f"the default of {host or '*'} belongs to the older Ingress "
                           f"{held.owner}")  # fmt: skip

    # -- backends

    def _backend(self, ingress: Ingress, backend: IngressBackend) -> Backend:
        space, wanted = ingress.metadata.namespace, backend.service
        if wanted is None:
            fault = "its backend is no service, and minik8s serves services alone"
            self._tell(ingress, UNSUPPORTED_BACKEND, f"a path has a resource for a backend: {fault}")
            return Backend("", fault=fault)
        key = f"{space}/{wanted.name}"
        self._services.add(key)
        service = self._cluster.service(space, wanted.name)
        if service is None:
            fault = f"there is no service {key}"
            self._tell(ingress, SERVICE_NOT_FOUND, fault)
            return Backend(key, fault=fault)
        found = self._reach(service, wanted.port.name, wanted.port.number)
        if found.fault:
            self._tell(ingress, SERVICE_NOT_FOUND, found.fault)
        return found

    def _reach(self, service: Service, name: str, number: int) -> Backend:
        key, spec = service.key, service.spec
        port = next((p for p in spec.ports if p.protocol == "TCP" and (p.name == name if name else p.port == number)),
                    None)  # fmt: skip
        if spec.type == "ExternalName":
            to = port.port if port is not None else number
            host = spec.externalName.rstrip(".").lower()
            return (
                Backend(key, host, to, named=True) if to else Backend(key, fault=f"service {key} has no port {name!r}")
            )
        if port is None:
            return Backend(key, fault=f"service {key} has no TCP port {name or number!r}")
        if spec.clusterIP == "None":
            host = f"{service.metadata.name}.{service.metadata.namespace}.svc.{self._cluster.domain}"
            to = self._target(service, port)
            return Backend(key, host, to, named=True) if to else Backend(key, fault=f"service {key} has no endpoints")
        if not spec.clusterIP:
            return Backend(key, fault=f"service {key} has no address")
        return Backend(key, spec.clusterIP, port.port)

    def _target(self, service: Service, port: ServicePort) -> int:
        """Where pods of a headless service listen; 0 if only they could say and there are none."""
        if isinstance(port.targetPort, int):
            return port.targetPort or port.port
        slices = self._cluster.slices(service.metadata.namespace, service.metadata.name)
        return next((p.port for each in slices for p in each.ports if p.name == port.name and p.port), 0)

    # -- certificates

    def tls(self, ingress: Ingress, spec: IngressSpec) -> None:
        own = {rule.host for rule in spec.rules if rule.host}
        for tls in spec.tls:
            for host in sorted(set(tls.hosts) or own):
                if host in self._routes:
                    self._certify(ingress, host, tls.secretName)

    def _certify(self, ingress: Ingress, host: str, secret: str) -> None:
        if not secret:
            return  # the default certificate is asked for
        space = ingress.metadata.namespace
        self._secrets.add(f"{space}/{secret}")
        pair = self._cluster.certificate(space, secret)
        if isinstance(pair, str):
            self._tell(ingress, BAD_CERTIFICATE, f"{host} is served with the default certificate: {pair}")
            return
        name = f"{space}.{secret}"  # the name of a file, and of a Secret's key: these have 253 characters at most
        if len(name) > LONGEST_NAME:
            name = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        held, owner = self._certified.setdefault(host, (name, ingress.key))
        if held != name:
            self._tell(ingress, HOST_CONFLICT, f"the certificate of {host} is that of the older Ingress {owner}")
        else:
            self._certificates[name] = pair


def _decoded(path: str) -> str | None:
    """A path as nginx compares it: percent-decoded. None for what it cannot be given."""
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return None
    printable = all(c >= " " and c != "\x7f" for c in text)
    return text if text.startswith("/") and printable and path.isprintable() else None


def _in_order(route: Route) -> tuple[str, str]:
    return route.path, route.type
