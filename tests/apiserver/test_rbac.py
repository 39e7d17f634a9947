"""Who may do what: rules, bindings, masters, nodes, impersonation; and that nobody gives away more than they have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_harness import ADMIN, Api, pod
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.aio import background
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.rbac import ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import Attributes, User
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.apiserver.rbac import RBACAuthorizer, binds, rule_allows
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.clock import ManualClock
from minik8s.store.watch_cache import WatchCache

GROUP = "rbac.authorization.k8s.io"
ROLES, BINDINGS = f"/apis/{GROUP}/v1/namespaces/default/roles", f"/apis/{GROUP}/v1/namespaces/default/rolebindings"
CLUSTER_ROLES, CLUSTER_BINDINGS = f"/apis/{GROUP}/v1/clusterroles", f"/apis/{GROUP}/v1/clusterrolebindings"
PODS = "/api/v1/namespaces/default/pods"
ANN = User("ann", ("team", "system:authenticated"))
NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))


class Late:
    """Authorizing needs copies that only the handler can give."""

    target: LoopbackTransport

    async def request(self, *args: Any, **more: Any) -> bytes:
        return await self.target.request(*args, **more)

    def stream(self, *args: Any, **more: Any) -> Any:
        return self.target.stream(*args, **more)


class Guarded(Api):
    """An API server with RBAC; `settle` until the authorizer knows what was written last."""

    informers: Informers
    authorizer: RBACAuthorizer

    async def settle(self) -> None:
        for informer in list(self.informers._informers.values()):
            versions = [int(obj.metadata.resourceVersion) for obj in (await self.client.list(informer._view)).items]
            await informer.caught_up(str(max(versions, default=0)))

    async def make(self, kind: type, name: str, namespace: str | None = None, **body: Any) -> None:
        await self.client.create(kind, {"metadata": {"name": name}, **body}, namespace)
        await self.settle()

    async def grant(self, user: User, *rules: dict[str, Any], namespace: str | None = None) -> None:
        """Rules for a user, everywhere or in a namespace."""
        name = f"r{self.cache.revision}"
        await self.make(ClusterRole, name, rules=list(rules))
        ref = {"apiGroup": GROUP, "kind": "ClusterRole", "name": name}
        subjects = [{"apiGroup": GROUP, "kind": "User", "name": user.name}]
        kind = RoleBinding if namespace else ClusterRoleBinding
        await self.make(kind, name, namespace, roleRef=ref, subjects=subjects)

    def may(self, user: User, verb: str, resource: str = "", **more: str) -> bool:
        return self.authorizer.authorize(Attributes(user, verb, resource=resource, **more)).allowed


@pytest.fixture
async def api(cache: WatchCache) -> AsyncIterator[Guarded]:
    late, clock = Late(), ManualClock()
    informers = Informers(Client(late))
    authorizer = RBACAuthorizer(informers)
    handler = build_handler(cache, authenticator=None, authorizer=authorizer, rules=authorizer, clock=clock)
    late.target = LoopbackTransport(handler, ADMIN)
    api = Guarded(handler, clock, cache)
    api.informers, api.authorizer = informers, authorizer
    for name in ("default", "other", "kube-node-lease"):
        await api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    async with background(informers.run()):
        await informers.synced()
        yield api


Words = tuple[str, ...]


def rule(*verbs: str, groups: Words = ("",), resources: Words = ("pods",), **more: Any) -> PolicyRule:
    return PolicyRule(verbs, groups, resources, **more)


def on(verbs: str, resources: str = "pods", group: str = "", **more: Any) -> dict[str, Any]:
    return {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split(), **more}


@pytest.mark.parametrize(
    ("held", "asked", "allowed"),
    [
        (rule("get"), {"verb": "get", "resource": "pods"}, True),
        (rule("get"), {"verb": "list", "resource": "pods"}, False),
        (rule("*"), {"verb": "anything", "resource": "pods"}, True),
        (rule("get"), {"verb": "get", "resource": "pods", "group": "apps"}, False),
        (rule("get", groups=("*",)), {"verb": "get", "resource": "pods", "group": "apps"}, True),
        (rule("get"), {"verb": "get", "resource": "pods", "subresource": "log"}, False),
        (rule("get", resources=("pods/log",)), {"verb": "get", "resource": "pods", "subresource": "log"}, True),
        (rule("get", resources=("pods/log",)), {"verb": "get", "resource": "pods"}, False),
        (rule("get", resources=("*/log",)), {"verb": "get", "resource": "pods", "subresource": "log"}, True),
        (rule("get", resources=("*",)), {"verb": "get", "resource": "pods", "subresource": "log"}, True),
        (rule("get", resourceNames=("a",)), {"verb": "get", "resource": "pods", "name": "a"}, True),
        (rule("get", resourceNames=("a",)), {"verb": "get", "resource": "pods", "name": "b"}, False),
        (rule("create", resourceNames=("a",)), {"verb": "create", "resource": "pods"}, False),
        (PolicyRule(("get",), nonResourceURLs=("/metrics",)), {"verb": "get", "path": "/metrics"}, True),
        (PolicyRule(("get",), nonResourceURLs=("/healthz/*",)), {"verb": "get", "path": "/healthz/etcd"}, True),
        (PolicyRule(("get",), nonResourceURLs=("/healthz/*",)), {"verb": "get", "path": "/metrics"}, False),
        (PolicyRule(("get",), nonResourceURLs=("*",)), {"verb": "get", "path": "/metrics"}, True),
        (PolicyRule(("get",), nonResourceURLs=("*",)), {"verb": "get", "resource": "pods"}, False),
        (rule("*", groups=("*",), resources=("*",)), {"verb": "get", "path": "/metrics"}, False),
    ],
)
def test_one_rule_and_one_request(held: PolicyRule, asked: dict[str, str], allowed: bool) -> None:
    assert bool(rule_allows(held, Attributes(ANN, **asked))) is allowed


ROBOT = User("system:serviceaccount:default:robot", ("system:serviceaccounts",))


@pytest.mark.parametrize(
    ("subject", "user", "namespace", "bound"),
    [
        (Subject("User", name="ann"), ANN, "", True),
        (Subject("User", name="*"), ANN, "", False),
        (Subject("User", name="team"), ANN, "", False),
        (Subject("Group", name="team"), ANN, "", True),
        (Subject("Group", name="ann"), ANN, "", False),
        (Subject("ServiceAccount", name="robot", namespace="default"), ROBOT, "", True),
        (Subject("ServiceAccount", name="robot"), ROBOT, "default", True),
        (Subject("ServiceAccount", name="robot"), ROBOT, "other", False),
        (Subject("ServiceAccount", name=""), User("system:serviceaccount:default:"), "default", False),
    ],
)
def test_one_subject_and_one_user(subject: Subject, user: User, namespace: str, bound: bool) -> None:
    assert binds([subject], user, namespace) is bound


async def test_bindings_reach_as_far_as_they_say(api: Guarded) -> None:
    assert not api.may(ANN, "get", "pods", namespace="default")
    await api.grant(ANN, on("get"), namespace="default")
    assert api.may(ANN, "get", "pods", namespace="default")
    assert not api.may(ANN, "get", "pods", namespace="other")
    assert not api.may(ANN, "get", "pods")
    await api.grant(ANN, on("get"), {"verbs": ["get"], "nonResourceURLs": ["/metrics"]})
    assert api.may(ANN, "get", "pods", namespace="other")
    assert api.may(ANN, "get", path="/metrics")


async def test_a_role_of_a_namespace_says_nothing_of_urls(api: Guarded) -> None:
    await api.grant(ANN, {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}, namespace="default")
    assert not api.may(ANN, "get", path="/metrics")


async def test_rights_end_with_their_role_or_binding(api: Guarded) -> None:
    await api.make(Role, "r", "default", rules=[on("get")])
    ref, subjects = {"kind": "Role", "name": "r"}, [{"kind": "Group", "name": "team"}]
    await api.make(RoleBinding, "b", "default", roleRef=ref, subjects=subjects)
    assert api.may(ANN, "get", "pods", namespace="default")
    await api.client.patch(Role, "r", "default", {"rules": [on("list")]})
    await api.settle()
    assert not api.may(ANN, "get", "pods", namespace="default")
    assert api.may(ANN, "list", "pods", namespace="default")
    await api.client.delete(Role, "r", "default")
    while api.may(ANN, "list", "pods", namespace="default"):
        await api.make(Role, f"x{api.cache.revision}", "default")


async def test_masters_may_do_all_and_strangers_nothing(api: Guarded) -> None:
    assert api.may(ADMIN, "anything", "whatever")
    assert not api.may(User("system:anonymous", ("system:unauthenticated",)), "get", "pods", namespace="default")
    refused = await api.get(PODS, user=ANN)
    assert (refused.code, refused.reason) == (403, "Forbidden")
    assert refused.message == (
        'pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "default"'
    )


async def test_a_binding_in_a_namespace_shows_that_namespace(api: Guarded) -> None:
    await api.grant(ANN, on("get", "namespaces"), namespace="default")
    assert (await api.get("/api/v1/namespaces/default", user=ANN)).code == 200
    assert (await api.get("/api/v1/namespaces/other", user=ANN)).code == 403
    assert (await api.get("/api/v1/namespaces", user=ANN)).code == 403


async def test_a_list_of_one_name_is_about_that_name(api: Guarded) -> None:
    await api.grant(ANN, on("list watch", resourceNames=["a"]), namespace="default")
    assert (await api.get(f"{PODS}?fieldSelector=metadata.name=a", user=ANN)).code == 200
    assert (await api.get(f"{PODS}?fieldSelector=metadata.name=b", user=ANN)).code == 403
    assert (await api.get(PODS, user=ANN)).code == 403


def uses(name: str, node: str, **spec: Any) -> dict[str, Any]:
    made = pod(name, nodeName=node)
    return made | {"spec": {**made["spec"], "nodeName": node, **spec}}


async def test_what_a_node_may(api: Guarded) -> None:
    volumes = [{"name": "v", "secret": {"secretName": "mine"}}, {"name": "c", "configMap": {"name": "mine"}}]
    await api.client.create(ServiceAccount, {"metadata": {"name": "robot", "namespace": "default"}})
    await api.client.create(Pod, uses("a", "n1", volumes=volumes, serviceAccountName="robot"), "default")
    other = [{"name": "v", "secret": {"secretName": "theirs"}}]
    await api.client.create(Pod, uses("b", "n2", volumes=other), "default")
    await api.settle()
    here = {"namespace": "default"}
    for verb in ("get", "list", "watch"):
        for resource in ("secrets", "configmaps"):
            assert api.may(NODE, verb, resource, name="mine", **here)
            assert not api.may(NODE, verb, resource, name="theirs", **here)
            assert not api.may(NODE, verb, resource, **here)
            assert not api.may(NODE, verb, resource, name="mine", namespace="other")
    assert not api.may(NODE, "update", "secrets", name="mine", **here)
    assert api.may(NODE, "create", "serviceaccounts", subresource="token", name="robot", **here)
    assert not api.may(NODE, "create", "serviceaccounts", subresource="token", name="default", namespace="other")
    assert not api.may(NODE, "create", "serviceaccounts", **here)


@pytest.mark.parametrize(
    ("verb", "group", "resource", "subresource", "allowed"),
    [
        ("list", "", "pods", "", True),
        ("patch", "", "pods", "status", True),
        ("delete", "", "pods", "", True),
        ("create", "", "pods", "binding", False),
        ("create", "", "pods", "exec", False),
        ("get", "", "pods", "exec", False),
        ("get", "", "pods", "log", False),
        ("create", "", "pods", "portforward", False),
        ("patch", "", "nodes", "status", True),
        ("get", "", "nodes", "proxy", False),
        ("delete", "", "nodes", "", True),  # admission keeps it to itself
        ("list", "", "services", "", True),
        ("update", "", "services", "", False),
        ("create", "", "events", "", True),
        ("delete", "", "events", "", False),
        ("update", "coordination.k8s.io", "leases", "", True),
        ("create", "certificates.k8s.io", "certificatesigningrequests", "", True),
        ("update", "certificates.k8s.io", "certificatesigningrequests", "approval", False),
        ("get", GROUP, "clusterroles", "", False),
        ("list", "apps", "deployments", "", False),
    ],
)
async def test_what_a_node_is_for(
    api: Guarded, verb: str, group: str, resource: str, subresource: str, allowed: bool
) -> None:
    asked = {"group": group, "subresource": subresource, "namespace": "default", "name": "x"}
    assert api.may(NODE, verb, resource, **asked) is allowed
    assert not api.may(User("system:node:n1", ("system:authenticated",)), verb, resource, **asked), "it is the group"


# -- giving rights away


def role(name: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "rules": list(rules), **more}


def binding(name: str, kind: str, to: str, user: str = "ann") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": to},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
    }


WRITE_ROLES = on("create update patch get", "roles rolebindings clusterroles clusterrolebindings", GROUP)


async def test_a_role_may_allow_no_more_than_its_writer_has(api: Guarded) -> None:
    await api.grant(ANN, WRITE_ROLES, on("get list"))
    assert (await api.post(ROLES, role("fine", on("get")), user=ANN)).code == 201
    refused = await api.post(ROLES, role("more", on("get delete")), user=ANN)
    assert (refused.code, refused.reason) == (403, "Forbidden")
    assert refused.message.splitlines() == [
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "ann" (groups=["team", "system:authenticated"]) is '
        "attempting to grant RBAC permissions not currently held:",
        '{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}',
    ]
    assert (await api.patch(f"{ROLES}/fine", {"rules": [on("*")]}, user=ANN)).code == 403
    assert (await api.put(f"{ROLES}/fine", role("fine", on("list")), user=ANN)).code == 200
    assert (await api.post(ROLES, role("more", on("get delete")), user=ADMIN)).code == 201


async def test_rights_in_a_namespace_are_no_rights_everywhere(api: Guarded) -> None:
    await api.grant(ANN, WRITE_ROLES)
    await api.grant(ANN, on("get"), namespace="default")
    assert (await api.post(ROLES, role("r", on("get")), user=ANN)).code == 201
    assert (await api.post(ROLES.replace("default", "other"), role("r", on("get")), user=ANN)).code == 403
    assert (await api.post(CLUSTER_ROLES, role("r", on("get")), user=ANN)).code == 403


async def test_the_verb_escalate_allows_it(api: Guarded) -> None:
    await api.grant(ANN, WRITE_ROLES, on("escalate", "roles", GROUP, resourceNames=["r"]))
    assert (await api.post(ROLES, role("r", on("*")), user=ANN)).code == 201
    assert (await api.post(ROLES, role("other", on("*")), user=ANN)).code == 403


async def test_a_binding_may_give_no_more_than_its_writer_has(api: Guarded) -> None:
    await api.grant(ANN, WRITE_ROLES, on("get"))
    await api.make(Role, "small", "default", rules=[on("get")])
    await api.make(Role, "big", "default", rules=[on("get", "secrets")])
    await api.make(ClusterRole, "root", rules=[on("*", "*", "*")])
    assert (await api.post(BINDINGS, binding("a", "Role", "small"), user=ANN)).code == 201
    assert (await api.post(BINDINGS, binding("b", "Role", "big"), user=ANN)).code == 403
    assert (await api.post(BINDINGS, binding("c", "ClusterRole", "root"), user=ANN)).code == 403
    assert (await api.post(CLUSTER_BINDINGS, binding("d", "ClusterRole", "root"), user=ANN)).code == 403
    assert (await api.post(BINDINGS, binding("e", "Role", "absent"), user=ANN)).code == 404
    wider = {"subjects": [{"kind": "Group", "name": "system:authenticated"}]}
    assert (await api.patch(f"{BINDINGS}/a", wider, user=ANN)).code == 200
    assert (await api.post(BINDINGS, binding("f", "Role", "big"), user=ADMIN)).code == 201
    assert (await api.patch(f"{BINDINGS}/f", wider, user=ANN)).code == 403


async def test_the_verb_bind_allows_it(api: Guarded) -> None:
    await api.grant(ANN, WRITE_ROLES, on("bind", "clusterroles", GROUP, resourceNames=["root"]))
    await api.make(ClusterRole, "root", rules=[on("*", "*", "*")])
    await api.make(ClusterRole, "odd", rules=[on("*", "*", "*")])
    assert (await api.post(CLUSTER_BINDINGS, binding("a", "ClusterRole", "root"), user=ANN)).code == 201
    assert (await api.post(CLUSTER_BINDINGS, binding("b", "ClusterRole", "odd"), user=ANN)).code == 403


async def test_owners_and_finalizers_go_without_rights(api: Guarded) -> None:
    await api.grant(ANN, WRITE_ROLES)
    made = role("r", on("*"))
    made["metadata"]["finalizers"] = ["example.com/x"]
    await api.post(ROLES, made)
    assert (await api.patch(f"{ROLES}/r", {"metadata": {"finalizers": None}}, user=ANN)).code == 200
    assert (await api.patch(f"{ROLES}/r", {"metadata": {"labels": {"a": "b"}}}, user=ANN)).code == 403


async def test_an_aggregated_role_is_for_those_who_have_all(api: Guarded) -> None:
    await api.grant(ANN, WRITE_ROLES)
    selectors = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    assert (await api.post(CLUSTER_ROLES, role("r", aggregationRule=selectors), user=ANN)).code == 403
    await api.grant(ANN, on("*", "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]})
    assert (await api.post(CLUSTER_ROLES, role("r", aggregationRule=selectors), user=ANN)).code == 201


WORDS = st.sampled_from(["*", "a", "b", "a/x", "*/x"])
RULES = st.builds(
    lambda verbs, groups, resources, names: PolicyRule(tuple(verbs), tuple(groups), tuple(resources), tuple(names)),
    st.lists(st.sampled_from(["*", "get", "list"]), min_size=1, max_size=2),
    st.lists(st.sampled_from(["*", "", "apps"]), min_size=1, max_size=2),
    st.lists(WORDS, min_size=1, max_size=2),
    st.lists(st.sampled_from(["n", "m"]), max_size=2),
)


class Holder(RBACAuthorizer):
    """An authorizer of one user with given rules."""

    def __init__(self, rules: list[PolicyRule]) -> None:
        self._held = [("", rule) for rule in rules]

    def rules(self, user: User) -> list[tuple[str, PolicyRule]]:
        return self._held


@given(held=st.lists(RULES, max_size=3), wanted=RULES)
@settings(max_examples=300, deadline=None)
def test_what_is_covered_allows_nothing_new(held: list[PolicyRule], wanted: PolicyRule) -> None:
    """Whoever is said to hold a rule may do already whatever that rule allows."""
    if Holder(held).lacking(ANN, "", [wanted]):
        return
    for verb in ("get", "list", "delete"):
        for group in ("", "apps", "other"):
            for resource, subresource in (("a", ""), ("b", ""), ("c", ""), ("a", "x"), ("b", "x"), ("c", "y")):
                for name in ("", "n", "m", "o"):
                    asked = Attributes(ANN, verb, group, "v1", resource, subresource, "", name)
                    assert not rule_allows(wanted, asked) or any(rule_allows(own, asked) for own in held)


@given(held=st.lists(RULES, max_size=3))
@settings(max_examples=50, deadline=None)
def test_everybody_holds_what_they_hold(held: list[PolicyRule]) -> None:
    assert Holder(held).lacking(ANN, "", held) == []


# -- acting as somebody else


async def whoami(api: Guarded, who: User, /, **headers: str) -> Any:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    return await api.post(path, body, user=who, headers={f"impersonate-{k}": v for k, v in headers.items()})


async def test_acting_as_another_needs_the_right_to_each_part(api: Guarded) -> None:
    anyone = on("create", "selfsubjectreviews", "authentication.k8s.io")
    await api.grant(User("bob"), anyone)
    assert (await whoami(api, ANN, user="bob")).code == 403
    await api.grant(ANN, on("impersonate", "users", resourceNames=["bob"]))
    answer = await whoami(api, ANN, user="bob")
    assert answer["status"]["userInfo"] == {"username": "bob", "groups": ["system:authenticated"]}
    assert (await whoami(api, ANN, user="bob", group="system:masters")).code == 403
    assert (await whoami(api, ANN, user="eve")).code == 403
    await api.grant(ANN, on("impersonate", "groups", resourceNames=["crew"]))
    answer = await whoami(api, ANN, user="bob", group="crew")
    assert answer["status"]["userInfo"]["groups"] == ["crew", "system:authenticated"]
    assert (await whoami(api, ANN, user="bob", group="crew\nsystem:masters")).code == 403


async def test_acting_as_a_service_account(api: Guarded) -> None:
    anyone = on("create", "selfsubjectreviews", "authentication.k8s.io")
    await api.grant(ROBOT, anyone)
    await api.grant(ANN, on("impersonate", "serviceaccounts"), namespace="default")
    answer = await whoami(api, ANN, user=ROBOT.name)
    assert answer["status"]["userInfo"]["groups"] == [
        "system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated",
    ]  # fmt: skip
    assert (await whoami(api, ANN, user="system:serviceaccount:other:robot")).code == 403


async def test_groups_without_a_user_are_a_mistake(api: Guarded) -> None:
    for header in ("group", "uid"):
        answer = await whoami(api, ADMIN, **{header: "x"})
        assert answer.code == 400
        assert "Impersonate-User" in answer.message
