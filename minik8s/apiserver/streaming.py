"""Streams between a client and a node: the API server decides who may and where to, then only carries bytes.

Logs, exec, attach and port-forward are handed to the pod's kubelet as they are: whatever protocol the client speaks,
the kubelet answers. Nothing here knows of SPDY or WebSockets. `proxy` goes to a pod, a Service or a node the same way.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from minik8s.api.errors import BadRequest, MethodNotAllowed, NotFound, ServiceUnavailable
from minik8s.api.kinds.endpointslice import SERVICE_NAME_LABEL, EndpointSlice
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.apiserver.auth import User
from minik8s.apiserver.backend import Backend, hand_over
from minik8s.apiserver.http_request import Request
from minik8s.apiserver.routes import RequestInfo, is_true
from minik8s.client.base import Client

KUBELET_PORT = 10250  # where a node does not say
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
LOG_OPTIONS = ("follow", "previous", "timestamps", "tailLines", "limitBytes", "sinceSeconds", "sinceTime")

_UPGRADES = {"exec": "exec", "attach": "attach", "portforward": "portForward"}


class NodeStreams:
    """`app.StreamProxy`. `kubelets` is TLS as their client: our certificate, and the CA that theirs are of."""

    def __init__(self, client: Client, kubelets: ssl.SSLContext | None) -> None:
        self._client = client
        self._kubelets = kubelets

    async def serve(self, info: RequestInfo, user: User, request: Request) -> None:
        """Let those answer whom it concerns. Raises StatusError while nothing has been sent."""
        if info.group or info.resource not in ("pods", "services", "nodes"):
            raise NotFound("the server could not find the requested resource")
        if info.subresource == "proxy":
            backend = await self._proxied(info)
            await hand_over(request, backend, "/" + _behind_proxy(request, info), request.body)
            return
        if info.resource != "pods":
            raise NotFound("the server could not find the requested resource")
        if info.verb not in (("get",) if info.subresource == "log" else ("get", "create")):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        pod = await self._client.get(Pod, info.name, info.namespace)
        query = parse_qsl(request.query, keep_blank_values=True)
        if info.subresource == "log":
            target = log_target(pod, dict(query))
        else:
            target = upgrade_target(info.subresource, pod, query)
        await hand_over(request, await self._kubelet_of(pod), target)

    async def _kubelet_of(self, pod: Pod) -> Backend:
        name = pod.spec.nodeName
        if not name:
            raise BadRequest(f"pod {pod.metadata.name} does not have a host assigned")
        try:
            return self._kubelet(await self._client.get(Node, name))
        except NotFound:
            raise ServiceUnavailable(f'the node "{name}" of pod {pod.metadata.name} is not registered') from None

    def _kubelet(self, node: Node) -> Backend:
        return Backend(*kubelet_address(node), self._kubelets, _said(node))

    # -- proxy

    async def _proxied(self, info: RequestInfo) -> Backend:
        wanted = parse_proxied(info.name)
        if info.resource == "nodes":
            return self._kubelet(await self._client.get(Node, wanted.name))
        if info.resource == "pods":
            address, port = pod_address(await self._client.get(Pod, wanted.name, info.namespace), wanted.port)
        else:
            service = await self._client.get(Service, wanted.name, info.namespace)
            found = await self._client.list(EndpointSlice, info.namespace, labels=f"{SERVICE_NAME_LABEL}={wanted.name}")
            address, port = service_address(service, found.items, wanted.port)
        check_address(address)
        context = _unverified() if wanted.scheme == "https" else None
        return Backend(address, port, context, f"{info.resource} {wanted.name}")


def _unverified() -> ssl.SSLContext:
    """TLS to a pod, whose certificate nobody vouches for."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# -- where to: pure


def kubelet_address(node: Node) -> tuple[str, int]:
    """Address and port. ServiceUnavailable if the node has not told one."""
    known = {address.type: address.address for address in reversed(node.status.addresses)}
    for kind in ("InternalIP", "ExternalIP", "Hostname"):
        if known.get(kind):
            return known[kind], node.status.daemonEndpoints.kubeletEndpoint.Port or KUBELET_PORT
    raise ServiceUnavailable(f"{_said(node)} cannot be reached: the node has no address")


def _said(node: Node) -> str:
    return f'the kubelet of node "{node.metadata.name}"'


def log_target(pod: Pod, query: Mapping[str, str]) -> str:
    """The kubelet's path for a log. BadRequest when the container is not clear."""
    path = _kubelet_path("containerLogs", pod, choose_container(pod, query.get("container", "")))
    options = {name: query[name] for name in LOG_OPTIONS if query.get(name)}
    return f"{path}?{urlencode(options)}" if options else path


def upgrade_target(subresource: str, pod: Pod, query: Iterable[tuple[str, str]]) -> str:
    """The kubelet's path for exec, attach or port-forward, with its own names for what is asked."""
    pairs = list(query)
    asked = dict(pairs)
    what = _UPGRADES[subresource]
    if subresource == "portforward":
        return f"{_kubelet_path(what, pod)}?{urlencode([('port', v) for k, v in pairs if k in ('port', 'ports')])}"
    renamed = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    options = [(kubelets, "1") for ours, kubelets in renamed.items() if is_true(asked.get(ours))]
    options += [("command", value) for key, value in pairs if key == "command"]
    return f"{_kubelet_path(what, pod, choose_container(pod, asked.get('container', '')))}?{urlencode(options)}"


def _kubelet_path(what: str, pod: Pod, *more: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in (what, pod.metadata.namespace, pod.metadata.name, *more))


def choose_container(pod: Pod, asked: str) -> str:
    """The container that is meant: the one named, the one that the pod's annotation names, or the only one."""
    spec = pod.spec
    names = [container.name for container in spec.containers]
    init, ephemeral = ([c.name for c in group] for group in (spec.initContainers, spec.ephemeralContainers))
    every = (*names, *init, *ephemeral)
    if asked:
        if asked not in every:
            raise BadRequest(f"container {asked} is not valid for pod {pod.metadata.name}")
        return asked
    default = pod.metadata.annotations.get(DEFAULT_CONTAINER, "")
    if default in every:
        return default
    if len(names) == 1:
        return names[0]
    more = f" or one of the init containers: [{' '.join(init)}]" if init else ""
    raise BadRequest(
        f"a container name must be specified for pod {pod.metadata.name}, choose one of: [{' '.join(names)}]{more}"
    )


def check_address(address: str) -> None:
    """Who may write a pod's status or endpoints must not thereby reach what listens on this machine alone."""
    try:
        allowed = not (ip_address(address).is_loopback or ip_address(address).is_link_local)
    except ValueError:
        allowed = False
    if not allowed:
        raise BadRequest(f'the address "{address}" may not be proxied to')


class Proxied(NamedTuple):
    scheme: str
    name: str
    port: str  # number or name; "" = the first


def parse_proxied(name: str) -> Proxied:
    """`NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`."""
    parts = name.split(":")
    if len(parts) == 3 and parts[0] in ("", "http", "https"):
        return Proxied(*parts)
    if len(parts) > 2:
        raise BadRequest(f'invalid proxy target "{name}": write NAME, NAME:PORT or SCHEME:NAME:PORT')
    return Proxied("", parts[0], parts[1] if len(parts) == 2 else "")


def pod_address(pod: Pod, port: str) -> tuple[str, int]:
    if not pod.status.podIP:
        raise ServiceUnavailable(f"pod {pod.metadata.name} has no address yet")
    ports = [p for container in pod.spec.containers for p in container.ports]
    if port.isdecimal():
        return pod.status.podIP, int(port)
    for known in ports:
        if port in ("", known.name):
            return pod.status.podIP, known.containerPort
    if port:
        raise BadRequest(f'pod {pod.metadata.name} has no port named "{port}"')
    return pod.status.podIP, 80


def service_address(service: Service, slices: Iterable[EndpointSlice], port: str) -> tuple[str, int]:
    """A ready endpoint behind one of the Service's ports."""
    name = service.metadata.name
    chosen = [p for p in service.spec.ports if port in ("", p.name, str(p.port))]
    if not chosen or (not port and len(service.spec.ports) > 1):
        raise BadRequest(f'service "{name}": name one of its ports: {[p.name or p.port for p in service.spec.ports]}')
    for slice in slices:
        numbers = [p.port for p in slice.ports if p.name == chosen[0].name]
        for endpoint in slice.endpoints if numbers else ():
            if endpoint.conditions.ready is not False and endpoint.addresses:
                return endpoint.addresses[0], numbers[0]
    raise ServiceUnavailable(f'no endpoints available for service "{name}"')


def _behind_proxy(request: Request, info: RequestInfo) -> str:
    """Path and query behind `…/proxy/`, as the client wrote them."""
    path = "/".join(request.path.split("/")[8 if info.namespace else 6 :])
    return f"{path}?{request.query}" if request.query else path
