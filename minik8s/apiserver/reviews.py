"""Questions about users and rights: asked by creating an object that is answered and forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from minik8s.api.errors import BadRequest, Invalid, Unauthorized, required
from minik8s.api.kinds.rbac import PolicyRule
from minik8s.api.resource import Json
from minik8s.apiserver import body, served
from minik8s.apiserver.auth import API_AUDIENCE, Attributes, Authenticator, Authorizer, User
from minik8s.apiserver.request import ApiResponse, json_response
from minik8s.apiserver.served import Virtual
from minik8s.apiserver.verbs import Call

_V1 = {
    served.AUTHORIZATION: "io.k8s.api.authorization.v1.",
    served.AUTHENTICATION: "io.k8s.api.authentication.v1.",
}


class RuleSource(Protocol):
    """An authorizer that can list what it allows; namespace "" = everywhere."""

    def rules(self, user: User) -> Sequence[tuple[str, PolicyRule]]: ...


def answers(
    authenticator: Authenticator | None, authorizer: Authorizer, *, rules: RuleSource | None = None
) -> Mapping[tuple[str, str, str], Callable[[Call], Awaitable[ApiResponse]]]:
    """What the handler dispatches to by (group, version, plural)."""
    reviews = Reviews(authenticator, authorizer, rules)
    table = {
        served.SELF_SUBJECT_ACCESS: reviews.self_access,
        served.SUBJECT_ACCESS: reviews.access,
        served.LOCAL_SUBJECT_ACCESS: reviews.access,
        served.SELF_SUBJECT_RULES: reviews.self_rules,
        served.SELF_SUBJECT: reviews.self_subject,
        served.SELF_SUBJECT_BETA: reviews.self_subject,
        served.TOKEN: reviews.token,
    }
    return {(virtual.group, virtual.version, virtual.plural): answer for virtual, answer in table.items()}


class Reviews:
    def __init__(self, authenticator: Authenticator | None, authorizer: Authorizer, rules: RuleSource | None) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._rules = rules

    async def self_access(self, call: Call) -> ApiResponse:
        review = _read(call, served.SELF_SUBJECT_ACCESS)
        return self._decided(review, served.SELF_SUBJECT_ACCESS, call.user)

    async def access(self, call: Call) -> ApiResponse:
        local = call.info.resource == served.LOCAL_SUBJECT_ACCESS.plural
        kind = served.LOCAL_SUBJECT_ACCESS if local else served.SUBJECT_ACCESS
        review = _read(call, kind)
        spec = review["spec"]
        if local and (spec.get("resourceAttributes") or {}).get("namespace") != call.info.namespace:
            raise BadRequest(f"spec.resourceAttributes.namespace must be {call.info.namespace}")
        if not spec.get("user") and not spec.get("groups"):
            raise Invalid(kind.kind, "", [required("spec.user", "at least one of user or group must be specified")])
        user = User(spec.get("user") or "", tuple(spec.get("groups") or ()), spec.get("uid") or "")
        return self._decided(review, kind, user)

    def _decided(self, review: Json, kind: Virtual, user: User) -> ApiResponse:
        decision = self._authorizer.authorize(_attributes(user, review["spec"], kind))
        status: Json = {"allowed": decision.allowed}
        if decision.reason:
            status["reason"] = decision.reason
        return _answer(kind, review, status)

    async def self_rules(self, call: Call) -> ApiResponse:
        kind = served.SELF_SUBJECT_RULES
        review = _read(call, kind)
        namespace = review["spec"].get("namespace") or ""
        if not namespace:
            raise BadRequest("no namespace on request")
        resources: list[Json] = []
        urls: list[Json] = []
        for where, rule in self._rules.rules(call.user) if self._rules else _everything(call.user):
            if where not in ("", namespace):
                continue
            if rule.nonResourceURLs:
                urls.append({"verbs": rule.verbs, "nonResourceURLs": rule.nonResourceURLs})
            if rule.resources:
                fields = {"apiGroups": rule.apiGroups, "resources": rule.resources, "resourceNames": rule.resourceNames}
                resources.append({"verbs": rule.verbs} | {key: value for key, value in fields.items() if value})
        return _answer(kind, review, {"resourceRules": resources, "nonResourceRules": urls, "incomplete": False})

    async def self_subject(self, call: Call) -> ApiResponse:
        kind = served.SELF_SUBJECT._replace(version=call.info.version)
        return _answer(kind, _read(call, kind), {"userInfo": _info(call.user)})

    async def token(self, call: Call) -> ApiResponse:
        kind = served.TOKEN
        review = _read(call, kind)
        token = review["spec"].get("token") or ""
        if not token:
            raise Invalid(kind.kind, "", [required("spec.token")])
        user, good, fault = None, [], ""
        for audience in review["spec"].get("audiences") or [API_AUDIENCE]:
            try:
                found = await self._user(token, audience)
            except Unauthorized as error:
                fault = error.message
            else:
                if found is not None:
                    user = found
                    good.append(audience)
        if user is None:
            return _answer(kind, review, {"authenticated": False} | ({"error": fault} if fault else {}))
        return _answer(kind, review, {"authenticated": True, "user": _info(user), "audiences": good})

    async def _user(self, token: str, audience: str) -> User | None:
        if self._authenticator is None:
            return None
        return await self._authenticator.authenticate(common_name="", organizations=(), token=token, audience=audience)


def _read(call: Call, kind: Virtual) -> Json:
    review = body.from_request(call.request)
    body.check_types(review, _V1[kind.group] + kind.kind, kind.kind)
    for field, wanted in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if review.get(field) not in (None, "", wanted):
            raise BadRequest(f"the {field} in the data ({review[field][:80]}) does not match the expected {wanted}")
    review.setdefault("spec", {})
    return review


def _attributes(user: User, spec: Json, kind: Virtual) -> Attributes:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (path is None):
        cause = required("spec", "exactly one of nonResourceAttributes or resourceAttributes must be specified")
        raise Invalid(kind.kind, "", [cause])
    if path is not None:
        return Attributes(user, path.get("verb", ""), path=path.get("path", ""))
    assert resource is not None
    fields = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    return Attributes(user, **{field: resource.get(field) or "" for field in fields})


def _everything(user: User) -> Sequence[tuple[str, PolicyRule]]:
    """What an authorizer that cannot list is said to allow: nothing that is known."""
    return ()


def _info(user: User) -> Json:
    info: dict[str, Any] = {"username": user.name, "uid": user.uid, "groups": list(user.groups)}
    info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return {key: value for key, value in info.items() if value}


def _answer(kind: Virtual, review: Json, status: Json) -> ApiResponse:
    meta = {"creationTimestamp": None, **(review.get("metadata") or {})}
    answer = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta, "spec": review["spec"]}
    return json_response({**answer, "status": status}, 201)
