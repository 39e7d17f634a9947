"""Subresources of stored kinds: each is a view of its object, or an act on it, and goes through the same registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from minik8s.api import labels
from minik8s.api.errors import BadRequest, Conflict, Invalid, NotFound, TooManyRequests, invalid, required
from minik8s.api.meta import LabelSelector
from minik8s.api.resource import Json, Resource, Scale
from minik8s.api.schema import compile_schema
from minik8s.apiserver import body, strategy
from minik8s.apiserver.deletion import DeleteOptions
from minik8s.apiserver.handler import Answer
from minik8s.apiserver.registry import Registry, Writer
from minik8s.apiserver.request import ApiResponse, json_response
from minik8s.apiserver.strategy import Part
from minik8s.apiserver.verbs import Call, Verbs, patcher
from minik8s.clock import rfc3339

SCALE = "io.k8s.api.autoscaling.v1.Scale"
BINDING = "io.k8s.api.core.v1.Binding"
EVICTION = "io.k8s.api.policy.v1.Eviction"
Budget = Callable[[Json], str]  # pod -> "" if it may be disrupted, else what forbids it


def answers(verbs: Verbs, *, budget: Budget | None = None) -> Mapping[tuple[str, str], Answer]:
    """What the handler dispatches to by (subresource, verb)."""
    parts: dict[str, Part] = {
        "status": strategy.status_part,
        "approval": approval_part(verbs.registry.clock),
        "ephemeralcontainers": ephemeral_part,
        "resize": resize_part,
    }
    table: dict[tuple[str, str], Answer] = {}
    for name, part in parts.items():
        table[name, "get"] = verbs.get
        table[name, "update"] = partial(verbs.update, part=part)
        table[name, "patch"] = partial(verbs.patch, part=part)
    table["finalize", "update"] = partial(verbs.update, part=finalize_part)
    scales, acts = Scales(verbs.registry), Acts(verbs.registry, budget)
    table["scale", "get"] = scales.get
    table["scale", "update"] = scales.update
    table["scale", "patch"] = scales.patch
    table["binding", "create"] = acts.bind
    table["eviction", "create"] = acts.evict
    return table


# -- views of a part of the object


def approval_part(clock: Callable[[], float]) -> Part:
    """Approving or denying a certificate changes the conditions and nothing else."""

    def part(resource: Resource, new: Json, old: Json) -> Json:
        conditions = (new.get("status") or {}).get("conditions") or []
        for condition in conditions:
            condition.setdefault("lastUpdateTime", rfc3339(clock()))
            condition.setdefault("lastTransitionTime", rfc3339(clock()))
        return _with(old, status={**(old.get("status") or {}), "conditions": conditions})

    return part


def ephemeral_part(resource: Resource, new: Json, old: Json) -> Json:
    """Ephemeral containers may be added to a running pod, and stay."""
    added = (new.get("spec") or {}).get("ephemeralContainers") or []
    names = {container.get("name") for container in added}
    for container in old["spec"].get("ephemeralContainers") or []:
        if container["name"] not in names or container not in added:
            detail = "existing ephemeral containers may not be removed or changed"
            raise Invalid(
                "Pod", old["metadata"]["name"], [invalid("spec.ephemeralContainers", container["name"], detail)]
            )
    return _with(old, spec={**old["spec"], "ephemeralContainers": added})


def resize_part(resource: Resource, new: Json, old: Json) -> Json:
    """The resources of a pod's containers."""
    wanted = {c.get("name"): c.get("resources") for c in (new.get("spec") or {}).get("containers") or []}
    containers = [{**c, "resources": wanted.get(c["name"]) or {}} for c in old["spec"]["containers"]]
    return _with(old, spec={**old["spec"], "containers": containers})


def finalize_part(resource: Resource, new: Json, old: Json) -> Json:
    """The namespace controller says that a namespace is empty by taking its finalizer out of the spec."""
    finalizers = (new.get("spec") or {}).get("finalizers") or []
    return _with(old, spec={**(old.get("spec") or {}), "finalizers": finalizers})


def _with(old: Json, **parts: Any) -> Json:
    return {**old, "metadata": strategy.without_version(old["metadata"]), **parts}


# -- scale


class Scales:
    """autoscaling/v1 Scale: the same three numbers of every kind that has replicas."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def get(self, call: Call) -> ApiResponse:
        info = call.info
        record = self._registry.get(call.served.resource, info.namespace, info.name)
        return json_response(to_scale(_paths(call), msgspec.json.decode(record.value)))

    async def update(self, call: Call) -> ApiResponse:
        wanted = body.from_request(call.request)
        return await self._change(call, lambda current: wanted)

    async def patch(self, call: Call) -> ApiResponse:
        return await self._change(call, patcher(call, compile_schema(SCALE)))

    async def _change(self, call: Call, change: Callable[[Json], Json]) -> ApiResponse:
        paths = _paths(call)

        def rescale(obj: Json) -> Json:
            wanted = change(to_scale(paths, obj))
            schema = compile_schema(SCALE)
            schema.prune(wanted)
            causes = schema.check(wanted)
            replicas = (wanted.get("spec") or {}).get("replicas", 0) if not causes else 0
            if replicas < 0:
                causes.append(invalid("spec.replicas", replicas, "must be greater than or equal to 0"))
            if causes:
                raise Invalid("Scale", call.info.name, causes, group="autoscaling")
            meta = wanted.get("metadata") or {}
            obj["metadata"] |= {key: meta[key] for key in ("uid", "resourceVersion") if meta.get(key)}
            _put(obj, paths.specReplicasPath, replicas)
            return obj

        info = call.info
        outcome = await self._registry.update(
            call.served.resource, info.namespace, info.name, rescale, call.writer, subresource="scale"
        )
        return json_response(to_scale(paths, msgspec.json.decode(outcome.value)))


def _paths(call: Call) -> Scale:
    paths = call.served.resource.scale
    if paths is None:
        raise NotFound("the server could not find the requested resource")
    return paths


def to_scale(paths: Scale, obj: Json) -> Json:
    """The Scale of an object."""
    meta = obj["metadata"]
    fields = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Json = {"replicas": _read(obj, paths.statusReplicasPath) or 0}
    if selector := selector_text(_read(obj, paths.labelSelectorPath)):
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: meta[field] for field in fields if field in meta},
        "spec": {"replicas": _read(obj, paths.specReplicasPath) or 0},
        "status": status,
    }


def selector_text(selector: Any) -> str:
    """A LabelSelector, a map of labels, or a text that already is one, as text."""
    if not isinstance(selector, dict):
        return selector if isinstance(selector, str) else ""
    if selector.keys() & {"matchLabels", "matchExpressions"}:
        return labels.to_text(msgspec.convert(selector, LabelSelector))
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))


def _read(obj: Json, path: str) -> Any:
    at: Any = obj
    for step in path.strip(".").split("."):
        at = at.get(step) if isinstance(at, dict) else None
    return at


def _put(obj: Json, path: str, value: Any) -> None:
    *steps, last = path.strip(".").split(".")
    for step in steps:
        obj = obj.setdefault(step, {})
    obj[last] = value


# -- acts


class Acts:
    """Binding and eviction."""

    def __init__(self, registry: Registry, budget: Budget | None) -> None:
        self._registry = registry
        self._budget = budget

    async def bind(self, call: Call) -> ApiResponse:
        """Give a pod its node, once. Also `POST …/bindings` with the pod's name in the body."""
        binding = body.from_request(call.request)
        body.check_types(binding, BINDING, "Binding")
        name = call.info.name if call.info.subresource else (binding.get("metadata") or {}).get("name") or ""
        node = binding["target"].get("name")
        if not name or not node:
            raise Invalid("Binding", name, [required("target.name" if name else "metadata.name")])
        if binding["target"].get("kind") not in (None, "", "Node"):
            raise BadRequest("target.kind must be Node")
        now = rfc3339(self._registry.clock())
        extra = binding.get("metadata") or {}

        def assign(pod: Json) -> Json:
            return bound(pod, node, now, extra)

        await self._registry.update(
            call.served.resource, call.info.namespace, name, assign, call.writer,
            part=strategy.whole, subresource="binding", trusted=True,
        )  # fmt: skip
        return _success(201)

    async def evict(self, call: Call) -> ApiResponse:
        """Delete a pod unless that would break a promise about how many of its kind stay."""
        eviction = body.from_request(call.request)
        body.check_types(eviction, EVICTION, "Eviction")
        info, resource = call.info, call.served.resource
        try:
            options = msgspec.convert(eviction.get("deleteOptions") or {}, DeleteOptions)
        except msgspec.ValidationError as error:
            raise BadRequest(f"deleteOptions: {error}") from None
        pod = msgspec.json.decode(self._registry.get(resource, info.namespace, info.name).value)
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed", "Pending")
        if self._budget is not None and not ended and (refusal := self._budget(pod)):
            cause = {"reason": "DisruptionBudget", "message": refusal}
            text = "Cannot evict pod as it would violate the pod's disruption budget."
            raise TooManyRequests(text, details={"causes": [cause]}, retry_after=10)
        writer = Writer(call.user, call.writer.dry_run or "All" in (options.dryRun or ()))
        await self._registry.delete(resource, info.namespace, info.name, options, writer)
        return _success(201)


def bound(pod: Json, node: str, now: str, extra: Json) -> Json:
    """A pod with its node, in place. Conflict if it has one, or is going."""
    meta, spec = pod["metadata"], pod["spec"]
    details = {"name": meta["name"], "kind": "pods"}
    if spec.get("nodeName"):
        text = (
            f'Operation cannot be fulfilled on pods/binding "{meta["name"]}": pod {meta["name"]} is already assigned to'
        )
        raise Conflict(f'{text} node "{spec["nodeName"]}"', details=details)
    if meta.get("deletionTimestamp"):
        text = f'Operation cannot be fulfilled on pods/binding "{meta["name"]}": pod {meta["name"]} is being deleted'
        raise Conflict(f"{text}, cannot be assigned to a host", details=details)
    if extra.get("uid") and extra["uid"] != meta["uid"]:
        raise Conflict(f"the UID in the binding ({extra['uid'][:80]}) is not that of the pod", details=details)
    spec["nodeName"] = node
    for field in ("annotations", "labels"):
        if extra.get(field):
            meta[field] = {**(meta.get(field) or {}), **extra[field]}
    status = pod.setdefault("status", {})
    conditions = [c for c in status.get("conditions") or [] if c.get("type") != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}
    status["conditions"] = [*conditions, scheduled]
    return pod


def _success(code: int) -> ApiResponse:
    return json_response(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}, code
    )
