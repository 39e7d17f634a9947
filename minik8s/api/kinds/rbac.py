"""Role, ClusterRole and their bindings: who may do what."""

from __future__ import annotations

from minik8s.api.errors import Cause, invalid, not_supported, required
from minik8s.api.kinds.columns import AGE, NAME, dig
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import LabelSelector, Object, Struct
from minik8s.api.resource import Column, Json, Resource

GROUP = "rbac.authorization.k8s.io"
SUBJECT_KINDS = ("Group", "ServiceAccount", "User")


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


def _created(obj: Json, now: float) -> str:
    return str(obj["metadata"].get("creationTimestamp", ""))


def _role_ref(obj: Json, now: float) -> str:
    return f"{dig(obj, 'roleRef.kind', '')}/{dig(obj, 'roleRef.name', '')}"


def _subjects(kind: str) -> Column:
    def names(obj: Json, now: float) -> str:
        found = [s for s in obj.get("subjects") or () if s.get("kind") == kind]
        return ", ".join(f"{s['namespace']}/{s['name']}" if s.get("namespace") else s.get("name", "") for s in found)

    return Column(f"{kind}s", names, priority=1, description=f"Subjects of kind {kind}.")


def _default_binding(obj: Json) -> None:
    fill(obj.setdefault("roleRef", {}), "apiGroup", GROUP)
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            fill(subject, "apiGroup", GROUP)


def _validate_role(obj: Json, old: Json | None) -> list[Cause]:
    causes = []
    for index, rule in enumerate(obj.get("rules") or ()):
        here = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(required(f"{here}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if obj["kind"] == "Role":
                detail = "namespaced rules cannot apply to non-resource URLs"
                causes.append(invalid(f"{here}.nonResourceURLs", rule["nonResourceURLs"], detail))
            elif any(rule.get(name) for name in ("apiGroups", "resources", "resourceNames")):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                causes.append(invalid(f"{here}.nonResourceURLs", rule["nonResourceURLs"], detail))
            continue
        if not rule.get("resources"):
            causes.append(required(f"{here}.resources", "resource rules must supply at least one resource"))
        if not rule.get("apiGroups"):
            causes.append(required(f"{here}.apiGroups", "resource rules must supply at least one api group"))
    return causes


def _validate_binding(obj: Json, old: Json | None) -> list[Cause]:
    causes = []
    kinds = ("ClusterRole", "Role") if dig(obj, "metadata.namespace") else ("ClusterRole",)
    if dig(obj, "roleRef.apiGroup") != GROUP:
        causes.append(not_supported("roleRef.apiGroup", dig(obj, "roleRef.apiGroup"), (GROUP,)))
    if dig(obj, "roleRef.kind") not in kinds:
        causes.append(not_supported("roleRef.kind", dig(obj, "roleRef.kind"), kinds))
    if not dig(obj, "roleRef.name"):
        causes.append(required("roleRef.name"))
    if old is not None and old.get("roleRef") != obj.get("roleRef"):
        causes.append(
            invalid("roleRef", dig(obj, "roleRef.name"), "cannot change roleRef: delete and create the binding")
        )
    for index, subject in enumerate(obj.get("subjects") or ()):
        if not subject.get("name"):
            causes.append(required(f"subjects[{index}].name"))
        group = "" if subject.get("kind") == "ServiceAccount" else GROUP
        if subject.get("kind") in SUBJECT_KINDS and subject.get("apiGroup", "") != group:
            causes.append(not_supported(f"subjects[{index}].apiGroup", subject.get("apiGroup", ""), (group,)))
        if subject.get("kind") not in SUBJECT_KINDS:
            causes.append(not_supported(f"subjects[{index}].kind", subject.get("kind"), SUBJECT_KINDS))
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            causes.append(required(f"subjects[{index}].namespace"))
    return causes


_CREATED = Column("Created At", _created, description="When it was made.")
_BINDING_COLUMNS = (
    NAME,
    Column("Role", _role_ref, description="The role that is granted."),
    AGE,
    _subjects("User"),
    _subjects("Group"),
    _subjects("ServiceAccount"),
)
_DEFINITION = "io.k8s.api.rbac.v1."

ROLE = Resource(
    kind="Role",
    plural="roles",
    group=GROUP,
    type=Role,
    definition=_DEFINITION + "Role",
    spec_generation=False,
    columns=(NAME, _CREATED),
    validate=_validate_role,
)
CLUSTER_ROLE = Resource(
    kind="ClusterRole",
    plural="clusterroles",
    group=GROUP,
    type=ClusterRole,
    definition=_DEFINITION + "ClusterRole",
    namespaced=False,
    spec_generation=False,
    columns=(NAME, _CREATED),
    validate=_validate_role,
)
ROLE_BINDING = Resource(
    kind="RoleBinding",
    plural="rolebindings",
    group=GROUP,
    type=RoleBinding,
    definition=_DEFINITION + "RoleBinding",
    spec_generation=False,
    columns=_BINDING_COLUMNS,
    default=_default_binding,
    validate=_validate_binding,
)
CLUSTER_ROLE_BINDING = Resource(
    kind="ClusterRoleBinding",
    plural="clusterrolebindings",
    group=GROUP,
    type=ClusterRoleBinding,
    definition=_DEFINITION + "ClusterRoleBinding",
    namespaced=False,
    spec_generation=False,
    columns=_BINDING_COLUMNS,
    default=_default_binding,
    validate=_validate_binding,
)
