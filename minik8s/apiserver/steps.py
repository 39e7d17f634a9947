"""The admission steps of every cluster, besides the allocation for Services.

They are Kubernetes' NamespaceLifecycle, ServiceAccount, DefaultTolerationSeconds, Priority, NodeRestriction and the
recording of who asks for a certificate.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import msgspec

from minik8s.api.errors import Forbidden, not_found
from minik8s.api.kinds.ingress import CLASS_ANNOTATION
from minik8s.api.kinds.ingressclass import IS_DEFAULT
from minik8s.api.kinds.node import SIMULATED_BY
from minik8s.api.resource import Json
from minik8s.apiserver import naming
from minik8s.apiserver.admission import EVERYTHING, Operation, Step
from minik8s.apiserver.auth import NODE_PREFIX, NODES, User
from minik8s.store.base import Record
from minik8s.store.watch_cache import WatchCache

KEPT = 256  # decoded objects; one is five times its JSON, and a thousand nodes come by with every heartbeat
IMMORTAL = ("default", "kube-system", "kube-public", "kube-node-lease")
LEASES = "kube-node-lease"
MIRROR = "kubernetes.io/config.mirror"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a folder
TOKEN_SECONDS = 3607  # an hour, and the odd seconds by which a kubelet knows that it may renew earlier
TOLERATED_SECONDS = 300
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


def standard_steps(
    cache: WatchCache, *, rng: random.Random | None = None, tolerated_seconds: int = TOLERATED_SECONDS
) -> Sequence[Step]:
    head = Head(cache)
    rng = rng or random.Random()
    return (
        NamespaceLifecycle(head), NodeRestriction(head), ServiceAccounts(head, rng),
        DefaultTolerations(tolerated_seconds), Priorities(head), CertificateRequestors(), DefaultIngressClass(head),
    )  # fmt: skip


class Head:
    """Decoded objects of the head, each decoded once per version while it is among the last `KEPT` that were new."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._known: dict[str, tuple[int, Json]] = {}
        self._lists: dict[str, tuple[list[Record], list[Json]]] = {}

    def get(self, key: str) -> Json | None:
        record = self._cache.get(key)
        if record is None:
            self._known.pop(key, None)
            return None
        known = self._known.get(key)
        if known is None or known[0] != record.rev:
            self._known.pop(key, None)
            known = self._known[key] = (record.rev, msgspec.json.decode(record.value))
            if len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        return known[1]

    def list(self, prefix: str) -> Iterable[Json]:
        """All below a folder, of which there should be few."""
        records = self._cache.list(prefix)[0]
        known = self._lists.get(prefix)
        if known is None or known[0] != records:
            found = [obj for record in records if (obj := self.get(record.key)) is not None]
            known = self._lists[prefix] = (records, found)
        return known[1]


def _refuse(op: Operation, why: str, **details: object) -> Forbidden:
    text = f'{op.resource.name} "{op.name}" is forbidden: {why}'
    return Forbidden(text, details={"name": op.name, "kind": op.resource.plural, **details})


class NamespaceLifecycle:
    """Nothing is created where there is no namespace, or one that goes; some namespaces stay."""

    resources = EVERYTHING

    def __init__(self, head: Head) -> None:
        self._head = head

    def admit(self, op: Operation) -> None:
        if op.verb == "create" and op.resource.namespaced:
            namespace = self._head.get(f"/namespaces/{op.namespace}")
            if namespace is None:
                raise not_found("namespaces", op.namespace)
            if namespace["metadata"].get("deletionTimestamp"):
                why = f"unable to create new content in namespace {op.namespace} because it is being terminated"
                cause = {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {op.namespace} is being terminated",
                    "field": "metadata.namespace",
                }
                raise _refuse(op, why, causes=[cause])
        elif op.verb == "delete" and op.resource.name == "namespaces" and op.name in IMMORTAL:
            raise _refuse(op, "this namespace may not be deleted")


class ServiceAccounts:
    """A pod acts as a ServiceAccount and finds its token, the cluster's CA and its namespace in a volume."""

    resources = frozenset(("pods",))

    def __init__(self, head: Head, rng: random.Random) -> None:
        self._head = head
        self._rng = rng

    def admit(self, op: Operation) -> None:
        if op.verb != "create" or MIRROR in (op.obj["metadata"].get("annotations") or {}):
            return
        spec = op.obj["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = self._head.get(f"/serviceaccounts/{op.namespace}/{name}")
        if account is None and name != "default":  # the default one is made by a controller and may be on its way
            raise _refuse(
                op, f'error looking up service account {op.namespace}/{name}: serviceaccount "{name}" not found'
            )
        account = account or {}
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]
        wanted = spec.get("automountServiceAccountToken")
        if (account.get("automountServiceAccountToken", True) if wanted is None else wanted) is not False:
            mount_token(spec, self._rng)


def mount_token(spec: Json, rng: random.Random) -> None:
    """Give each container that has nothing there the token's folder, in place."""
    containers = [c for kind in ("initContainers", "containers") for c in spec.get(kind) or ()]
    bare = [c for c in containers if all(m.get("mountPath") != TOKEN_PATH for m in c.get("volumeMounts") or ())]
    if not bare:
        return
    name = naming.generated("kube-api-access-", rng)
    for container in bare:
        mount = {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}
        container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
    volume = {"name": name, "projected": {"sources": sources, "defaultMode": 0o644}}
    spec["volumes"] = [*(spec.get("volumes") or ()), volume]


class DefaultTolerations:
    """A pod stays so long (five minutes) on a node that is not ready, or out of reach, unless it says otherwise."""

    resources = frozenset(("pods",))
    taints = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    def admit(self, op: Operation) -> None:
        if op.verb != "create":
            return
        tolerations = op.obj["spec"].get("tolerations") or []
        missing = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": self._seconds}
            for key in self.taints
            if not any(t.get("key", key) == key and t.get("effect") in (None, "", "NoExecute") for t in tolerations)
        ]
        if missing:
            op.obj["spec"]["tolerations"] = [*tolerations, *missing]


class Priorities:
    """The name of a priority class becomes a number."""

    resources = frozenset(("pods",))
    folder = "/priorityclasses.scheduling.k8s.io/"

    def __init__(self, head: Head) -> None:
        self._head = head

    def admit(self, op: Operation) -> None:
        if op.verb != "create":
            return
        spec = op.obj["spec"]
        name = spec.get("priorityClassName") or ""
        found = self._find(op, name)
        value = int(found.get("value", 0))
        if spec.get("priority") not in (None, value):
            why = (
                f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
                f"the class says {value}"
            )
            raise _refuse(op, why)
        if not name and found.get("metadata"):
            spec["priorityClassName"] = found["metadata"]["name"]
        spec["priority"] = value
        policy = found.get("preemptionPolicy", "PreemptLowerPriority")
        if spec.setdefault("preemptionPolicy", policy) != policy:
            raise _refuse(op, f"the preemptionPolicy must be that of its class, {policy}")

    def _find(self, op: Operation, name: str) -> Json:
        if not name:
            defaults = [c for c in self._head.list(self.folder) if c.get("globalDefault")]
            return min(defaults, key=lambda c: int(c.get("value", 0)), default={})
        found = self._head.get(self.folder + name)
        if found is not None:
            return found
        if name in SYSTEM_PRIORITIES:
            return {"value": SYSTEM_PRIORITIES[name]}
        raise _refuse(op, f"no PriorityClass with name {name} was found")


class CertificateRequestors:
    """Who asks for a certificate is written into the request by the server, not by who asks."""

    resources = frozenset(("certificatesigningrequests.certificates.k8s.io",))
    fields = ("username", "uid", "groups", "extra")

    def admit(self, op: Operation) -> None:
        if op.verb == "delete":
            return
        spec = op.obj["spec"]
        for field in self.fields:
            # Looked up first: an update of the status alone shares its spec with the old object.
            known = op.old["spec"].get(field) if op.old is not None else None
            spec.pop(field, None)
            if known is not None:
                spec[field] = known
        if op.old is None:
            user = op.user
            extra = {key: list(values) for key, values in user.extra.items()}
            asking = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": extra}
            spec |= {key: value for key, value in asking.items() if value}


class DefaultIngressClass:
    """An Ingress that names no class is of the default one; of several, of the youngest."""

    resources = frozenset(("ingresses.networking.k8s.io",))
    folder = "/ingressclasses.networking.k8s.io/"

    def __init__(self, head: Head) -> None:
        self._head = head

    def admit(self, op: Operation) -> None:
        spec = op.obj.get("spec")
        annotated = CLASS_ANNOTATION in (op.obj["metadata"].get("annotations") or {})
        if op.verb != "create" or annotated or not isinstance(spec, dict) or spec.get("ingressClassName") is not None:
            return
        metas = [each["metadata"] for each in self._head.list(self.folder)]
        defaults = [meta for meta in metas if (meta.get("annotations") or {}).get(IS_DEFAULT) == "true"]
        if defaults:
            youngest = max(defaults, key=lambda meta: (meta.get("creationTimestamp", ""), meta["name"]))
            spec["ingressClassName"] = youngest["name"]


def node_of(user: User) -> str:
    """The node that a user is, or ""."""
    return user.name.removeprefix(NODE_PREFIX) if user.name.startswith(NODE_PREFIX) and NODES in user.groups else ""


class NodeRestriction:
    """A node writes its own Node, its own Lease, and the pods that are bound to it.

    An agent that simulates nodes also writes those that bear its name in the label `SIMULATED_BY`, from their birth on.
    """

    resources = frozenset(("nodes", "pods", "leases.coordination.k8s.io"))
    protected = "node-restriction.kubernetes.io/"

    def __init__(self, head: Head) -> None:
        self._head = head

    def _is_own(self, node: str, name: str, new: Json | None = None) -> bool:
        if name == node:
            return True
        found = self._head.get(f"/nodes/{name}") or new or {}
        return (found.get("metadata", {}).get("labels") or {}).get(SIMULATED_BY) == node

    def admit(self, op: Operation) -> None:
        node = node_of(op.user)
        if not node:
            return
        match op.resource.name:
            case "nodes":
                if not self._is_own(node, op.name, op.obj if op.verb == "create" else None):
                    raise _refuse(op, f'node "{node}" is not allowed to modify node "{op.name}"')
                if op.verb != "delete":
                    self._check_labels(op, node)
            case "leases.coordination.k8s.io":
                if op.namespace != LEASES or not self._is_own(node, op.name):
                    raise _refuse(op, f'node "{node}" can only write its own lease, {LEASES}/{node}')
            case "pods":
                self._check_pod(op, node)

    def _check_labels(self, op: Operation, node: str) -> None:
        new = op.obj["metadata"].get("labels") or {}
        old = (op.old["metadata"].get("labels") or {}) if op.old else {}
        for key in new.keys() | old.keys():
            if self.protected in key and new.get(key) != old.get(key):
                raise _refuse(op, f'node "{node}" is not allowed to set label {key}')

    def _check_pod(self, op: Operation, node: str) -> None:
        pod = op.obj if op.old is None else op.old
        if op.verb == "create" and MIRROR not in (pod["metadata"].get("annotations") or {}):
            raise _refuse(op, f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods')
        bound = pod["spec"].get("nodeName", "")
        if not self._is_own(node, bound):
            raise _refuse(op, f'node "{node}" can only {op.verb} pods with spec.nodeName set to itself')
