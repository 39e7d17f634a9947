"""Role, ClusterRole and their bindings: who may do what."""

from __future__ import annotations

from minik8s.api.meta import LabelSelector, Object, Struct
from minik8s.api.resource import Resource

GROUP = "rbac.authorization.k8s.io"


class PolicyRule(Struct):
    verbs: tuple[str, ...] = ()
    apiGroups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resourceNames: tuple[str, ...] = ()
    nonResourceURLs: tuple[str, ...] = ()


class AggregationRule(Struct):
    clusterRoleSelectors: tuple[LabelSelector, ...] = ()


class Role(Object):
    rules: tuple[PolicyRule, ...] = ()


class ClusterRole(Object):
    rules: tuple[PolicyRule, ...] = ()
    aggregationRule: AggregationRule | None = None


class RoleRef(Struct):
    apiGroup: str = ""
    kind: str = ""
    name: str = ""


class Subject(Struct):
    kind: str = ""  # User | Group | ServiceAccount
    apiGroup: str = ""
    name: str = ""
    namespace: str = ""


class RoleBinding(Object):
    subjects: tuple[Subject, ...] = ()
    roleRef: RoleRef = RoleRef()


class ClusterRoleBinding(Object):
    subjects: tuple[Subject, ...] = ()
    roleRef: RoleRef = RoleRef()


_DEFINITION = "io.k8s.api.rbac.v1."

ROLE = Resource(
    kind="Role", plural="roles", group=GROUP, type=Role, definition=_DEFINITION + "Role", spec_generation=False
)
CLUSTER_ROLE = Resource(
    kind="ClusterRole",
    plural="clusterroles",
    group=GROUP,
    type=ClusterRole,
    definition=_DEFINITION + "ClusterRole",
    namespaced=False,
    spec_generation=False,
)
ROLE_BINDING = Resource(
    kind="RoleBinding",
    plural="rolebindings",
    group=GROUP,
    type=RoleBinding,
    definition=_DEFINITION + "RoleBinding",
    spec_generation=False,
)
CLUSTER_ROLE_BINDING = Resource(
    kind="ClusterRoleBinding",
    plural="clusterrolebindings",
    group=GROUP,
    type=ClusterRoleBinding,
    definition=_DEFINITION + "ClusterRoleBinding",
    namespaced=False,
    spec_generation=False,
)
