"""`serviceaccounts/NAME/token`: a token for an account, perhaps bound to the life of a pod, a node or a secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from minik8s.api.errors import BadRequest, Conflict, Forbidden, Invalid, invalid, not_found
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.api.resource import Json
from minik8s.apiserver import body
from minik8s.apiserver.registry import Registry
from minik8s.apiserver.request import ApiResponse, json_response
from minik8s.apiserver.steps import node_of
from minik8s.apiserver.verbs import Call
from minik8s.clock import rfc3339

DEFINITION = "io.k8s.api.authentication.v1.TokenRequest"
DEFAULT_SECONDS, SHORTEST = 3600, 600
_BOUND = {"Pod": "/pods/{namespace}/{name}", "Secret": "/secrets/{namespace}/{name}", "Node": "/nodes/{name}"}


class TokenIssuer(Protocol):
    def issue(
        self, account: ServiceAccount, *, audiences: Sequence[str], seconds: int, bound: tuple[str, str, str]
    ) -> tuple[str, float]:
        """(token, Unix time of its end); `bound` is (kind, name, uid) of what it dies with, or three times ""."""


class TokenRequests:
    def __init__(self, registry: Registry, issuer: TokenIssuer) -> None:
        self._registry = registry
        self._issuer = issuer

    async def create(self, call: Call) -> ApiResponse:
        info = call.info
        request = body.from_request(call.request)
        request.setdefault("spec", {})  # whoever wants nothing special says nothing
        body.check_types(request, DEFINITION, "TokenRequest")
        spec = request.get("spec") or {}
        record = self._registry.get(call.served.resource, info.namespace, info.name)
        account = msgspec.json.decode(record.value, type=ServiceAccount)
        seconds = spec.get("expirationSeconds") or DEFAULT_SECONDS
        if seconds < SHORTEST:
            cause = invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
            raise Invalid("TokenRequest", "", [cause], group="authentication.k8s.io")
        bound, holder = self._bound(info.namespace, spec.get("boundObjectRef") or {})
        if node := node_of(call.user):
            _check_node(node, info.name, bound[0], holder)
        audiences = spec.get("audiences") or []
        token, ends = self._issuer.issue(account, audiences=audiences, seconds=seconds, bound=bound)
        answer = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": info.name, "namespace": info.namespace, "creationTimestamp": None},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": rfc3339(ends)},
        }
        return json_response(answer, 201)

    def _bound(self, namespace: str, reference: Json) -> tuple[tuple[str, str, str], Json]:
        kind, name = reference.get("kind") or "", reference.get("name") or ""
        if not kind:
            return ("", "", ""), {}
        if kind not in _BOUND:
            raise BadRequest(f"cannot bind token to object of kind {kind[:60]}: it must be Pod, Node or Secret")
        record = self._registry.cache.get(_BOUND[kind].format(namespace=namespace, name=name))
        if record is None:
            raise not_found(kind.lower() + "s", name)
        holder: Json = msgspec.json.decode(record.value)
        uid = holder["metadata"]["uid"]
        if reference.get("uid") not in (None, "", uid):
            raise Conflict(f"the UID in the bound object reference ({reference['uid'][:80]}) does not match {uid}")
        return (kind, name, uid), holder


def _check_node(node: str, account: str, kind: str, pod: Json) -> None:
    """A node gets tokens for the pods that are bound to it, and no others."""
    if kind != "Pod" or pod["spec"].get("nodeName") != node:
        raise Forbidden(f'node "{node}" can only request tokens that are bound to a pod on it')
    if pod["spec"].get("serviceAccountName") != account:
        raise Forbidden(f'node "{node}" requested a token for "{account}", which its pod does not act as')
