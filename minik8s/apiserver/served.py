"""What is served besides stored kinds: subresources, and kinds that are made up when they are asked for.

Discovery shows these tables, the handler dispatches by them.
"""

from __future__ import annotations

from typing import NamedTuple

READ_WRITE = ("get", "patch", "update")
ALL_METHODS = ("create", "delete", "get", "patch", "update")


class Subresource(NamedTuple):
    """`kind` "" is the parent's own; `streamed` ones are bytes to and from a node rather than objects."""

    verbs: tuple[str, ...]
    kind: str = ""
    group: str = ""
    version: str = ""
    streamed: bool = False


SUBRESOURCES: dict[str, Subresource] = {
    "status": Subresource(READ_WRITE),
    "scale": Subresource(READ_WRITE, "Scale", "autoscaling", "v1"),
    "approval": Subresource(READ_WRITE),
    "ephemeralcontainers": Subresource(READ_WRITE),
    "resize": Subresource(READ_WRITE),
    "finalize": Subresource(("update",)),
    "binding": Subresource(("create",), "Binding"),
    "eviction": Subresource(("create",), "Eviction", "policy", "v1"),
    "source": Subresource(("get", "update")),
    "results": Subresource(("get",)),
    "token": Subresource(("create",), "TokenRequest", "authentication.k8s.io", "v1"),
    "history": Subresource(("get",), "WorkflowRunHistory", "faas.minik8s.io", "v1"),
    "graph": Subresource(("get",), "WorkflowRunGraph", "faas.minik8s.io", "v1"),
    "stop": Subresource(("create",), "WorkflowRunStop", "faas.minik8s.io", "v1"),
    "redrive": Subresource(("create",), "WorkflowRunRedrive", "faas.minik8s.io", "v1"),
    "code": Subresource(("get", "update")),
    "settings": Subresource(("get",), "FunctionSettings", "faas.minik8s.io", "v1"),
    "calls": Subresource(("create", "get"), "FunctionCalls", "faas.minik8s.io", "v1"),
    "deadletters": Subresource(("create", "delete", "get"), "FunctionDeadLetters", "faas.minik8s.io", "v1"),
    "log": Subresource(("get",), streamed=True),
    "exec": Subresource(("create", "get"), "PodExecOptions", streamed=True),
    "attach": Subresource(("create", "get"), "PodAttachOptions", streamed=True),
    "portforward": Subresource(("create", "get"), "PodPortForwardOptions", streamed=True),
    "proxy": Subresource(ALL_METHODS, "PodProxyOptions", streamed=True),
}


class Virtual(NamedTuple):
    """A kind without storage: created, answered, forgotten; or made when it is read."""

    kind: str
    plural: str
    group: str
    version: str = "v1"
    namespaced: bool = False
    verbs: tuple[str, ...] = ("create",)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


AUTHORIZATION, AUTHENTICATION = "authorization.k8s.io", "authentication.k8s.io"
SELF_SUBJECT_ACCESS = Virtual("SelfSubjectAccessReview", "selfsubjectaccessreviews", AUTHORIZATION)
SUBJECT_ACCESS = Virtual("SubjectAccessReview", "subjectaccessreviews", AUTHORIZATION)
LOCAL_SUBJECT_ACCESS = Virtual("LocalSubjectAccessReview", "localsubjectaccessreviews", AUTHORIZATION, namespaced=True)
SELF_SUBJECT_RULES = Virtual("SelfSubjectRulesReview", "selfsubjectrulesreviews", AUTHORIZATION)
SELF_SUBJECT = Virtual("SelfSubjectReview", "selfsubjectreviews", AUTHENTICATION)
SELF_SUBJECT_BETA = SELF_SUBJECT._replace(version="v1beta1")  # what kubectl 1.27 asks for
TOKEN = Virtual("TokenReview", "tokenreviews", AUTHENTICATION)
BINDING = Virtual("Binding", "bindings", "", namespaced=True)

METRICS = "metrics.k8s.io"
NODE_METRICS = Virtual("NodeMetrics", "nodes", METRICS, "v1beta1", verbs=("get", "list"))
POD_METRICS = Virtual("PodMetrics", "pods", METRICS, "v1beta1", namespaced=True, verbs=("get", "list"))

WORKFLOW_TASK = Virtual(
    "WorkflowTask", "workflowtasks", "faas.minik8s.io", namespaced=True, verbs=("create", "list", "update")
)

FUNCTION_DEMAND = Virtual("FunctionDemand", "functiondemands", "faas.minik8s.io")

VIRTUALS = (
    SELF_SUBJECT_ACCESS, SUBJECT_ACCESS, LOCAL_SUBJECT_ACCESS, SELF_SUBJECT_RULES, SELF_SUBJECT, SELF_SUBJECT_BETA,
    TOKEN, BINDING, NODE_METRICS, POD_METRICS, WORKFLOW_TASK, FUNCTION_DEMAND,
)  # fmt: skip
