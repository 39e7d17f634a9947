"""May they? Role-based access control over local copies of roles and bindings, and what a node may see.

Bindings are resolved once per user and kept until a role or a binding changes, so that a request costs a walk over the
few rules of its user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.function import RUNTIME_SECRET
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.rbac import ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject
from minik8s.api.kinds.secret import Secret
from minik8s.api.references import of_pod
from minik8s.apiserver.auth import MASTERS, NODE_PREFIX, NODES, SERVICE_ACCOUNT_PREFIX, Attributes, Decision, User
from minik8s.client.informer import Informers

ALLOWED = Decision(allowed=True)
CACHE_SIZE = 1024  # users


class RBACAuthorizer:
    """Kubernetes' RBAC, plus: `system:masters` may do all, and nodes may do what `_node_may` says."""

    def __init__(self, informers: Informers) -> None:
        self._roles = informers.of(Role)
        self._cluster_roles = informers.of(ClusterRole)
        self._bindings = informers.of(RoleBinding)
        self._cluster_bindings = informers.of(ClusterRoleBinding)
        self._pods = informers.of(Pod)
        self._pods.add_index("node", lambda pod: [pod.spec.nodeName])
        self._rules: dict[tuple[str, tuple[str, ...]], list[tuple[str, PolicyRule]]] = {}
        for informer in (self._roles, self._cluster_roles, self._bindings, self._cluster_bindings):
            informer.on_change(lambda old, new: self._rules.clear())

    def authorize(self, attributes: Attributes) -> Decision:
        user = attributes.user
        if MASTERS in user.groups:
            return ALLOWED
        if NODES in user.groups and user.name.startswith(NODE_PREFIX) and self._node_may(attributes):
            return ALLOWED
        for namespace, rule in self.rules(user):
            if namespace in ("", attributes.namespace) and rule_allows(rule, attributes):
                return ALLOWED
        return Decision(allowed=False)

    def lacking(self, user: User, namespace: str, wanted: Iterable[PolicyRule]) -> list[PolicyRule]:
        """Which of the `wanted` rules, taken apart, the user does not hold in a namespace ("" = everywhere)."""
        held = [rule for where, rule in self.rules(user) if where in ("", namespace)]
        return [part for rule in wanted for part in _parts(rule) if not any(_contains(own, part) for own in held)]

    def rules(self, user: User) -> Sequence[tuple[str, PolicyRule]]:
        """All (namespace, rule) that apply to a user; namespace "" = everywhere."""
        key = (user.name, user.groups)
        found = self._rules.get(key)
        if found is None:
            if len(self._rules) >= CACHE_SIZE:
                self._rules.clear()
            found = self._rules[key] = list(self._resolve(user))
        return found

    def _resolve(self, user: User) -> Iterator[tuple[str, PolicyRule]]:
        for everywhere in self._cluster_bindings.list():
            if binds(everywhere.subjects, user, ""):
                role = self._cluster_roles.get(None, everywhere.roleRef.name)
                for rule in role.rules if role else ():
                    yield "", rule
        for binding in self._bindings.list():
            namespace = binding.metadata.namespace
            if binds(binding.subjects, user, namespace):
                for rule in self._rules_of(binding, namespace):
                    yield namespace, rule

    def _rules_of(self, binding: RoleBinding, namespace: str) -> Iterable[PolicyRule]:
        role: Role | ClusterRole | None
        if binding.roleRef.kind == "ClusterRole":
            role = self._cluster_roles.get(None, binding.roleRef.name)
        else:
            role = self._roles.get(namespace, binding.roleRef.name)
        return role.rules if role else ()

    def _node_may(self, a: Attributes) -> bool:
        """The node authorizer: a kubelet reads what its own pods need and nothing else of what is secret.

        That it *writes* only its own Node, Lease and pods is the admission step NodeRestriction.
        """
        node = a.user.name.removeprefix(NODE_PREFIX)
        if a.group == "" and a.resource in ("secrets", "configmaps") and not a.subresource:
            if a.verb not in _READ:
                return False
            if (a.resource, f"{a.namespace}/{a.name}") == ("secrets", RUNTIME_SECRET):
                return a.verb == "get"
            wanted = (Secret if a.resource == "secrets" else ConfigMap, a.name)
            return any(wanted in of_pod(pod) for pod in self._pods_of(node, a.namespace))
        if a.group == "" and a.resource == "serviceaccounts":
            uses = any(pod.spec.serviceAccountName == a.name for pod in self._pods_of(node, a.namespace))
            return uses and (a.verb, a.subresource) in (("get", ""), ("create", "token"))
        resource = f"{a.resource}/{a.subresource}" if a.subresource else a.resource
        return a.verb in _NODE_VERBS.get((a.group, resource), ())

    def _pods_of(self, node: str, namespace: str) -> list[Pod]:
        return [pod for pod in self._pods.by_index("node", node) if pod.metadata.namespace == namespace]


_READ = ("get", "list", "watch")
_NODE_VERBS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "nodes"): (*_READ, "create", "update", "patch", "delete"),
    ("", "nodes/status"): ("get", "update", "patch"),
    ("", "pods"): (*_READ, "create", "update", "patch", "delete"),
    ("", "pods/status"): ("get", "update", "patch"),
    ("", "pods/eviction"): ("create",),
    ("", "services"): _READ,
    ("", "endpoints"): _READ,
    ("", "namespaces"): _READ,
    ("", "persistentvolumeclaims"): _READ,
    ("", "persistentvolumes"): _READ,
    ("", "events"): ("create", "update", "patch", "get"),
    ("discovery.k8s.io", "endpointslices"): _READ,
    ("networking.k8s.io", "ingresses"): _READ,  # for the names of their hosts: its DNS answers them
    ("coordination.k8s.io", "leases"): ("get", "create", "update", "patch", "delete"),
    ("certificates.k8s.io", "certificatesigningrequests"): ("create", "get", "list", "watch"),
    ("authentication.k8s.io", "tokenreviews"): ("create",),
    ("authorization.k8s.io", "subjectaccessreviews"): ("create",),
    ("node.k8s.io", "runtimeclasses"): _READ,
    # Its gateway: what it routes by, what it loads into pods, and what it tells of both.
    ("faas.minik8s.io", "functions"): _READ,
    ("faas.minik8s.io", "functionrevisions"): _READ,
    ("faas.minik8s.io", "functionrevisions/code"): ("get",),
    ("faas.minik8s.io", "functionrevisions/settings"): ("get",),
    ("faas.minik8s.io", "functionrevisions/status"): ("get", "update", "patch"),
    ("faas.minik8s.io", "functions/calls"): ("create",),
    ("faas.minik8s.io", "functiondemands"): ("create",),
    ("faas.minik8s.io", "environments"): _READ,
    ("faas.minik8s.io", "triggers"): _READ,
}  # (group, resource or resource/subresource): verbs. system:node, as far as the kinds exist here


def binds(subjects: Iterable[Subject], user: User, namespace: str) -> bool:
    """Is the user one of the subjects? `namespace` is the binding's, the default for service accounts."""
    for subject in subjects:
        if subject.kind == "User" and subject.name == user.name:
            return True
        if subject.kind == "Group" and subject.name in user.groups:
            return True
        account = f"{SERVICE_ACCOUNT_PREFIX}{subject.namespace or namespace}:{subject.name}"
        if subject.kind == "ServiceAccount" and subject.name and user.name == account:
            return True
    return False


def rule_allows(rule: PolicyRule, a: Attributes) -> bool:
    """Does one rule allow the request? `*` stands for all; `*/scale` for one subresource of all resources."""
    if a.verb not in rule.verbs and "*" not in rule.verbs:  # most rules end here, for most requests
        return False
    if a.path and not a.resource:
        return any(url == a.path or (url.endswith("*") and a.path.startswith(url[:-1])) for url in rule.nonResourceURLs)
    if not _has(rule.apiGroups, a.group):
        return False
    wanted = f"{a.resource}/{a.subresource}" if a.subresource else a.resource
    if not (_has(rule.resources, wanted) or (a.subresource and f"*/{a.subresource}" in rule.resources)):
        return False
    return not rule.resourceNames or a.name in rule.resourceNames


def _parts(rule: PolicyRule) -> Iterator[PolicyRule]:
    """A rule as rules of one verb and one resource (and name) or URL each."""
    for verb in rule.verbs:
        for url in rule.nonResourceURLs:
            yield PolicyRule((verb,), nonResourceURLs=(url,))
        for group in rule.apiGroups:
            for resource in rule.resources:
                for name in rule.resourceNames or (None,):
                    yield PolicyRule((verb,), (group,), (resource,), (name,) if name is not None else ())


def _contains(own: PolicyRule, part: PolicyRule) -> bool:
    """Does a rule allow all that another one, of one verb and resource, allows?"""
    if not _has(own.verbs, part.verbs[0]):
        return False
    if part.nonResourceURLs:
        url = part.nonResourceURLs[0]
        return any(mine == url or (mine.endswith("*") and url.startswith(mine[:-1])) for mine in own.nonResourceURLs)
    resource, names = part.resources[0], part.resourceNames
    subresource = resource.partition("/")[2]
    return (
        _has(own.apiGroups, part.apiGroups[0])
        and (_has(own.resources, resource) or (bool(subresource) and f"*/{subresource}" in own.resources))
        and (not own.resourceNames or (bool(names) and names[0] in own.resourceNames))
    )


def _has(values: Sequence[str], value: str) -> bool:
    return value in values or "*" in values
