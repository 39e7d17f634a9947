"""One request from beginning to end: who asks, may they, what do they want; errors become a Status.

This is the whole API server without HTTP. `app.py` puts it behind sockets, `loopback.py` behind a function call.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from minik8s.api import fields
from minik8s.api.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    MethodNotAllowed,
    NotFound,
    StatusError,
    Unauthorized,
)
from minik8s.api.resource import Json
from minik8s.api.scheme import Scheme
from minik8s.apiserver import discovery, routes
from minik8s.apiserver.auth import (
    ANONYMOUS,
    AUTHENTICATED,
    SERVICE_ACCOUNT_PREFIX,
    SERVICE_ACCOUNTS,
    UNAUTHENTICATED,
    Attributes,
    Authenticator,
    Authorizer,
    Decision,
    User,
)
from minik8s.apiserver.body import Served
from minik8s.apiserver.health import ENDPOINTS, Health
from minik8s.apiserver.metrics import RequestMetrics
from minik8s.apiserver.request import JSON, ApiRequest, ApiResponse, error_response, json_response
from minik8s.apiserver.routes import RequestInfo
from minik8s.apiserver.served import SUBRESOURCES, VIRTUALS
from minik8s.apiserver.verbs import Call, Verbs
from minik8s.log import REPORT, get_logger

SLOW = 1.0  # seconds; requests that take longer are logged, all others only counted
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")

_VIRTUAL_VERBS = {(kind.group, kind.version, kind.plural): kind.verbs for kind in VIRTUALS}
PROTOBUF_ASKED = "com.github.proto-openapi.spec.v2"  # in Accept
PROTOBUF_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"  # Go refuses the @ of what is asked for

log = get_logger("apiserver")
Answer = Callable[[Call], Awaitable[ApiResponse]]


class OpenApi(Protocol):
    """The documents of `/openapi`, gzip-compressed but for the index. Making one for the first time takes a while."""

    def v3_index(self) -> Json: ...

    def v3(self, group_version: str) -> bytes: ...

    def v2_json(self) -> bytes: ...

    def v2_protobuf(self) -> bytes: ...


class AllowAll:
    """For tests, and for a master's own components: everybody may do everything."""

    def authorize(self, attributes: Attributes) -> Decision:
        return Decision(allowed=True)


class Handler:
    """`handle` never raises but for cancellation.

    `subresources` answer by (subresource, verb), `virtuals` by (group, version, plural); both after authorization.
    """

    def __init__(
        self,
        scheme: Scheme,
        verbs: Verbs,
        *,
        authenticator: Authenticator | None,
        authorizer: Authorizer,
        subresources: Mapping[tuple[str, str], Answer] | None = None,
        virtuals: Mapping[tuple[str, str, str], Answer] | None = None,
        openapi: OpenApi | None = None,
        health: Health | None = None,
    ) -> None:
        self.scheme = scheme
        self.health = health or Health()
        self.metrics = RequestMetrics()
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._openapi = openapi
        self._virtuals = dict(virtuals or {})
        self._discovery = discovery.Discovery(scheme, self._virtuals)
        self._subresources = dict(subresources or {})
        self._verbs: dict[str, Answer] = {verb: getattr(verbs, verb) for verb in VERBS}

    def extend(
        self, subresources: Mapping[tuple[str, str], Answer], virtuals: Mapping[tuple[str, str, str], Answer]
    ) -> None:
        """Serve what an add-on answers, too."""
        self._subresources |= subresources
        self._virtuals |= virtuals
        self._discovery = discovery.Discovery(self.scheme, self._virtuals)

    async def handle(self, request: ApiRequest) -> ApiResponse:
        """Answer one request. A response with a stream is to be consumed, or closed, by the caller."""
        started = time.perf_counter()
        info = _NOTHING
        try:
            info = routes.parse(request.method, request.path, request.query)
            user = await self.admit(request, info)
            response = await self._dispatch(request, info, user)
        except StatusError as error:
            response = error_response(error)
        except Exception as error:
            log.exception("request failed", method=request.method, path=request.path, remedy=REPORT)
            response = error_response(InternalError(f"an internal error occurred: {type(error).__name__}"))
        self.observe(request, info, response.code, time.perf_counter() - started - response.waited)
        return response

    async def admit(self, request: ApiRequest, info: RequestInfo) -> User:
        """Who asks; raises Unauthorized for wrong credentials, Forbidden where the user may not."""
        user = request.user or await self._authenticate(request)
        headers = request.headers
        if "impersonate-user" in headers or "impersonate-group" in headers or "impersonate-uid" in headers:
            user = self._impersonated(user, headers)
        if info.resource:
            name = info.name or _selected_name(info, request.query.get("fieldSelector", ""))
            attributes = Attributes(
                user, info.verb, info.group, info.version, info.resource, info.subresource, info.namespace, name
            )
        else:
            attributes = Attributes(user, info.verb, path=info.path)
        decision = self._authorizer.authorize(attributes)
        if not decision.allowed:
            if UNAUTHENTICATED in user.groups and not info.resource:
                raise Unauthorized("Unauthorized")
            raise forbidden(attributes, decision.reason)
        return user

    def observe(self, request: ApiRequest, info: RequestInfo, code: int, seconds: float) -> None:
        """Count a request, and log it if it was slow or the server's fault."""
        known = (code < 400 and info.resource) or self._is_known(info)  # what was served is known
        self.metrics.observe(info if known else _NOTHING, code, seconds)
        if code >= 500 or seconds > SLOW:
            log.warning(
                "slow or failed request",
                method=request.method,
                path=request.path,
                code=code,
                seconds=seconds,
                remedy="look for what else the machine is busy with, and at the lines beside this one",
            )

    def _is_known(self, info: RequestInfo) -> bool:
        """What strangers invent must not become labels of metrics."""
        if not info.resource:
            return False
        virtual = (info.group, info.version, info.resource) in self._virtuals
        served = virtual or self.scheme.by_plural(info.group, info.version, info.resource) is not None
        return served and info.verb in VERBS and (not info.subresource or info.subresource in SUBRESOURCES)

    async def _authenticate(self, request: ApiRequest) -> User:
        user = None
        if self._authenticator is not None and (request.token or request.common_name):
            user = await self._authenticator.authenticate(
                common_name=request.common_name, organizations=request.organizations, token=request.token
            )
        return user or User(ANONYMOUS, (UNAUTHENTICATED,))

    def _impersonated(self, user: User, headers: Mapping[str, str]) -> User:
        """The user that headers ask to act as; each name in it must be allowed by itself."""
        name = headers.get("impersonate-user", "")
        if not name:
            raise BadRequest("groups or a uid cannot be impersonated without a user: set Impersonate-User")
        groups = tuple(filter(None, headers.get("impersonate-group", "").split("\n")))
        resource, namespace, asked = "users", "", name
        if name.startswith(SERVICE_ACCOUNT_PREFIX):
            resource = "serviceaccounts"
            namespace, _, asked = name.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")
        wanted = [Attributes(user, "impersonate", resource=resource, namespace=namespace, name=asked)]
        wanted += [Attributes(user, "impersonate", resource="groups", name=group) for group in groups]
        for attributes in wanted:
            decision = self._authorizer.authorize(attributes)
            if not decision.allowed:
                raise forbidden(attributes, decision.reason)
        if name == ANONYMOUS:
            return User(name, groups or (UNAUTHENTICATED,))
        if namespace and not groups:
            groups = (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}")
        return User(name, (*groups, AUTHENTICATED) if AUTHENTICATED not in groups else groups)

    async def _dispatch(self, request: ApiRequest, info: RequestInfo, user: User) -> ApiResponse:
        if not info.resource:
            return await self._not_a_resource(request, info)
        virtual = self._virtuals.get((info.group, info.version, info.resource))
        if virtual is not None:
            if info.verb not in _VIRTUAL_VERBS.get((info.group, info.version, info.resource), ()):
                raise MethodNotAllowed("the server does not allow this method on the requested resource")
            return await virtual(Call(self._row_behind(info), info, request, user))
        call = Call(self.served(info), info, request, user)
        if info.subresource:
            return await self._subresource(call)
        if info.verb not in call.served.resource.verbs or (info.verb == "create" and info.name):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        if info.verb in ("update", "patch") and not info.name:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        if info.verb == "create" and call.served.resource.namespaced and not info.namespace:
            raise MethodNotAllowed("a namespace is needed to create this: use the path of the namespace's collection")
        return await self._verbs[info.verb](call)

    def _row_behind(self, info: RequestInfo) -> Served:
        """Virtual kinds have no row; the old `bindings` act on pods."""
        resource = self.scheme.by_plural("", "v1", "pods")
        assert resource is not None
        return Served(resource)

    def served(self, info: RequestInfo) -> Served:
        """The row, and version, that a request means. NotFound if there is none."""
        resource = self.scheme.by_plural(info.group, info.version, info.resource)
        if resource is None or (info.namespace and not resource.namespaced and info.resource != "namespaces"):
            raise NotFound("the server could not find the requested resource")
        if info.name and resource.namespaced and not info.namespace:
            raise NotFound("the server could not find the requested resource: its path lacks the namespace")
        if (info.group, info.version) == (resource.group, resource.version):
            return Served(resource)
        alias = next(a for a in resource.aliases if (a.group, a.version) == (info.group, info.version))
        return Served(resource, alias)

    async def _subresource(self, call: Call) -> ApiResponse:
        info = call.info
        if info.subresource not in call.served.resource.subresources or info.subresource not in SUBRESOURCES:
            raise NotFound("the server could not find the requested resource")
        answer = self._subresources.get((info.subresource, info.verb))
        if answer is None:
            if SUBRESOURCES[info.subresource].streamed:
                raise NotFound(f"{info.subresource} is a stream and is served over HTTP only")
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        return await answer(call)

    async def _not_a_resource(self, request: ApiRequest, info: RequestInfo) -> ApiResponse:
        if info.verb not in ("get", "head"):
            raise MethodNotAllowed("the server does not allow this method on the requested path")
        path = info.path
        first = path.split("/", 2)[1]
        if first in ("api", "apis"):
            headers = request.headers
            return self._discovery.answer(path, headers.get("accept", ""), headers.get("if-none-match", ""))
        if first in ENDPOINTS:
            return self.health.answer(path, request.query)
        if path == "/version":
            return json_response(discovery.server_version())
        if path == "/metrics":
            return ApiResponse(200, self.metrics.text().encode(), "text/plain; version=0.0.4; charset=utf-8")
        if path == "/":
            return json_response({"paths": ["/api", "/apis", *(f"/{e}" for e in ENDPOINTS), "/metrics", "/version"]})
        if first == "openapi" and self._openapi is not None:
            return await self._document(self._openapi, path, request.headers)
        raise NotFound("the server could not find the requested resource")

    async def _document(self, openapi: OpenApi, path: str, headers: Mapping[str, str]) -> ApiResponse:
        if path == "/openapi/v3":
            return json_response(openapi.v3_index())
        media, make = JSON, openapi.v2_json
        if path.startswith("/openapi/v3/"):
            place = path.removeprefix("/openapi/v3/")
            make = functools.partial(openapi.v3, place.removeprefix("apis/").removeprefix("api/"))
        elif path != "/openapi/v2":
            raise NotFound("the server could not find the requested resource")
        elif PROTOBUF_ASKED in headers.get("accept", ""):
            media, make = PROTOBUF_TYPE, openapi.v2_protobuf
        document = await asyncio.to_thread(make)  # rendering for the first time takes up to half a second
        sent = {"content-encoding": "gzip", "vary": "Accept, Accept-Encoding"}
        if "gzip" not in headers.get("accept-encoding", ""):
            document, sent = await asyncio.to_thread(gzip.decompress, document), {"vary": "Accept, Accept-Encoding"}
        return ApiResponse(200, document, media, sent)


_NOTHING = RequestInfo("", "")


def _selected_name(info: RequestInfo, field_selector: str) -> str:
    """The one name that a list or watch is about: who may read one object may follow it as well."""
    if info.verb not in ("list", "watch", "deletecollection") or "metadata.name" not in field_selector:
        return ""
    names = [term.value for term in fields.parse(field_selector) if term.equal and term.field == "metadata.name"]
    return names[0] if names else ""


def forbidden(a: Attributes, reason: str = "") -> Forbidden:
    """What a user may not do, in the words of Kubernetes."""
    why = f": {reason}" if reason else ""
    if a.path:
        return Forbidden(f'forbidden: User "{a.user.name}" cannot {a.verb} path "{a.path}"{why}')
    plural = f"{a.resource}.{a.group}" if a.group else a.resource
    what = f'{plural} "{a.name}"' if a.name else plural
    resource = f"{a.resource}/{a.subresource}" if a.subresource else a.resource
    where = f'in the namespace "{a.namespace}"' if a.namespace else "at the cluster scope"
    text = (
        f'{what} is forbidden: User "{a.user.name}" cannot {a.verb} resource "{resource}" in API group "{a.group}" '
        f"{where}{why}"
    )
    details = {"name": a.name, "group": a.group, "kind": a.resource}
    return Forbidden(text, details={key: value for key, value in details.items() if value})
