"""A HorizontalPodAutoscaler sizes what has a scale subresource by what its pods use; `autoscale` decides how far.

What was recommended and done lately is remembered by this process alone: after its restart the first look recommends
what there is, as Kubernetes' own controller does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from minik8s.api.autoscaling import sync_period
from minik8s.api.errors import AlreadyExists, StatusError
from minik8s.api.kinds.horizontalpodautoscaler import HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.labels import matches, parse
from minik8s.api.meta import Condition, Json, ObjectMeta, Struct
from minik8s.api.quantity import format_quantity, parse_quantity
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, parse_time, rfc3339
from minik8s.controllers import autoscale, lone_pod
from minik8s.controllers.autoscale import MILLI, Behavior, Memory, Proposal, Sample, Target, Unmeasured, Verdict
from minik8s.controllers.pod_facts import is_active
from minik8s.controllers.status import difference, only_status_changed, with_condition

METRICS = "/apis/metrics.k8s.io/v1beta1"
WINDOW = 30.0  # seconds, where a measurement does not tell


class _Scaled(Struct):
    """What of an autoscaling/v1 Scale is read."""

    class Spec(Struct):
        replicas: int = 0

    class Status(Struct):
        replicas: int = 0
        selector: str = ""

    metadata: ObjectMeta = ObjectMeta()
    spec: Spec = Spec()
    status: Status = Status()


class _PodMetrics(Struct):
    class Container(Struct):
        name: str = ""
        usage: dict[str, str] = {}

    metadata: ObjectMeta = ObjectMeta()
    timestamp: str = ""
    window: str = ""
    containers: tuple[Container, ...] = ()


class _PodMetricsList(Struct):
    items: tuple[_PodMetrics, ...] = ()


class _Failed(Exception):
    """The look ends here: a condition tells `reason` and the words."""

    def __init__(self, type: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.condition = Condition(type=type, status="False", reason=reason, message=message)


class _Wish(NamedTuple):
    """The greatest proposal, which metric made it, and what `status.currentMetrics` says of all."""

    replicas: int
    metric: str
    shown: tuple[Json, ...]


class HorizontalPodAutoscalerController(Controller):
    name = "horizontal-pod-autoscaler"

    def __init__(self, client: Client, informers: Informers, recorder: Recorder, clock: Clock) -> None:
        super().__init__(client, informers)
        self._recorder = recorder
        self._clock = clock
        self._pods = informers.of(Pod)
        self._scalers = informers.of(HorizontalPodAutoscaler)
        self._memories: dict[str, Memory] = {}  # by uid
        self._scalers.on_change(self._changed)

    def _changed(self, old: HorizontalPodAutoscaler | None, new: HorizontalPodAutoscaler | None) -> None:
        if old is not None and (new is None or old.metadata.uid != new.metadata.uid):
            self._memories.pop(old.metadata.uid, None)
        if new is not None and not only_status_changed(old, new):
            self.queue.add(new.key)

    async def reconcile(self, key: str) -> float | None:
        scaler = self._scalers.by_key(key)
        if scaler is None or scaler.deleting:
            return None
        await self._look(scaler)
        return sync_period(scaler.metadata.annotations)

    async def _look(self, scaler: HorizontalPodAutoscaler) -> None:
        now = self._clock()
        told = _Told(scaler, now)
        try:
            if scaler.spec.scaleTargetRef.kind == "Pod":
                scaler = await self._multiplied(scaler)
            path = self._scale_path(scaler)
            scale = await self._scale(path)
            told.current = told.desired = scale.spec.replicas
            verdict = await self._decide(scaler, scale, told, now)
            if verdict is not None and verdict.replicas != scale.spec.replicas:
                await self._resize(scaler, path, scale, verdict, told, now)
        except _Failed as failure:
            told.say(failure.condition)
            self._recorder.event(scaler, "Warning", failure.condition.reason, failure.condition.message)
        await self._write_status(scaler, told.status())

    # -- deciding

    async def _decide(self, scaler: HorizontalPodAutoscaler, scale: _Scaled, told: _Told, now: float) -> Verdict | None:
        """How many, and why; None where nothing is to be scaled."""
        spec, current = scaler.spec, scale.spec.replicas
        told.able("SucceededGetScale", "the number of replicas could be read")
        if current == 0:
            told.active("False", "ScalingDisabled", "nothing is scaled: the number of replicas was set to 0 by hand")
            return None
        if not spec.minReplicas <= current <= spec.maxReplicas:
            bound = max(spec.minReplicas, min(current, spec.maxReplicas))
            where = "above maxReplicas" if current > bound else "below minReplicas"
            return Verdict(bound, "OutOfBounds", f"the number of replicas was {where}")
        behavior = autoscale.behavior(spec.behavior)
        memory = self._memories.get(scaler.metadata.uid) or Memory(recommended=((now, current),))
        wish = await self._wish(scaler, scale, behavior, told, now)
        stable = autoscale.stabilize(memory, wish.replicas, current, behavior, now)
        self._memories[scaler.metadata.uid] = memory.recommend(wish.replicas, now, behavior)
        told.able(stable.reason, stable.message)
        verdict, limited = autoscale.pace(
            memory, stable.replicas, current, spec.minReplicas, spec.maxReplicas, behavior, now
        )
        told.limited(verdict, is_so=limited)
        reason = f"{wish.metric} above target" if verdict.replicas > current else "all metrics below target"
        return Verdict(verdict.replicas, verdict.reason, reason)

    async def _wish(
        self, scaler: HorizontalPodAutoscaler, scale: _Scaled, behavior: Behavior, told: _Told, now: float
    ) -> _Wish:
        """Raises _Failed when no metric says anything, or when one is silent and the others want less."""
        current, selector = scale.spec.replicas, scale.status.selector
        if not selector:
            raise _Failed("ScalingActive", "InvalidSelector", "the target's scale names no selector of its pods")
        namespace = scaler.metadata.namespace
        wanted = parse(selector)
        pods = [pod for pod in self._pods.list(namespace) if matches(wanted, pod.metadata.labels)]
        measured: list[_PodMetrics] | None = None
        best, by, shown = 0, "", []
        failures: list[_Failed] = []
        for metric in scaler.spec.metrics:
            try:
                target = _target(metric)
                if measured is None:
                    measured = await self._measured(namespace, selector)
                proposal = autoscale.propose(target, pods, _samples(measured, target), current, behavior.tolerance, now)
            except Unmeasured as error:
                failures.append(_Failed("ScalingActive", "FailedGetResourceMetric", str(error)))
                continue
            except _Failed as failure:
                failures.append(failure)
                continue
            shown.append(_shown(metric, target, proposal))
            if proposal.replicas > best:
                best, by = proposal.replicas, _words(target)
        told.metrics = tuple(shown)
        if failures and (not shown or best < current):
            raise failures[0]
        told.active("True", "ValidMetricFound", f"the number of replicas follows from {by}")
        return _Wish(best, by, told.metrics)

    # -- reading and writing

    async def _multiplied(self, scaler: HorizontalPodAutoscaler) -> HorizontalPodAutoscaler:
        """The autoscaler of a pod by itself, pointed at a ReplicaSet that adopts the pod and others with its labels."""
        meta, name = scaler.metadata, scaler.spec.scaleTargetRef.name
        try:
            pod = await self.client.raw(Pod, name, meta.namespace)
            labels = lone_pod.selecting_labels(pod)
            if pod["metadata"].get("labels") != labels:
                await self.client.patch(Pod, name, meta.namespace, {"metadata": {"labels": labels}})
            alike = [each for each in self._pods.list(meta.namespace) if _is_alone(each, labels)]
            with suppress(AlreadyExists):  # we have been here before, or somebody else has made what is needed
                await self.client.create(ReplicaSet, lone_pod.replica_set_for(pod, max(len(alike), 1)))
            target = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name}
            patch = {"metadata": {"uid": meta.uid}, "spec": {"scaleTargetRef": target}}
            written = await self.client.patch(HorizontalPodAutoscaler, meta.name, meta.namespace, patch)
        except StatusError as error:
            raise _Failed("AbleToScale", "FailedGetScale", str(error)) from None
        self._recorder.event(scaler, "Normal", "PodAdopted", f"Pod {name} is scaled by a ReplicaSet of its name")
        await self._scalers.caught_up(written.metadata.resourceVersion)
        return written

    def _scale_path(self, scaler: HorizontalPodAutoscaler) -> str:
        reference = scaler.spec.scaleTargetRef
        resource = self.client.scheme.by_kind(reference.apiVersion, reference.kind)
        if resource is None or resource.scale is None:
            what = f"{reference.apiVersion} {reference.kind}".strip()
            raise _Failed("AbleToScale", "FailedGetScale", f"{what} is no kind that can be scaled: see scaleTargetRef")
        return f"{resource.base_path(scaler.metadata.namespace)}/{quote(reference.name)}/scale"

    async def _scale(self, path: str) -> _Scaled:
        try:
            return msgspec.json.decode(await self.client.transport.request("GET", path), type=_Scaled)
        except StatusError as error:
            raise _Failed("AbleToScale", "FailedGetScale", str(error)) from None

    async def _measured(self, namespace: str, selector: str) -> list[_PodMetrics]:
        path, query = f"{METRICS}/namespaces/{namespace}/pods", {"labelSelector": selector}
        try:
            answer = await self.client.transport.request("GET", path, query=query)
        except StatusError as error:
            raise _Failed("ScalingActive", "FailedGetResourceMetric", f"no measurements: {error}") from None
        return list(msgspec.json.decode(answer, type=_PodMetricsList).items)

    async def _resize(
        self,
        scaler: HorizontalPodAutoscaler,
        path: str,
        scale: _Scaled,
        verdict: Verdict,
        told: _Told,
        now: float,
    ) -> None:
        """The resourceVersion in the patch makes sure that nobody has scaled since we looked."""
        version = {"resourceVersion": scale.metadata.resourceVersion, "uid": scale.metadata.uid}
        body = msgspec.json.encode({"metadata": version, "spec": {"replicas": verdict.replicas}})
        try:
            await self.client.transport.request(
                "PATCH", path, body=body, content_type="application/merge-patch+json"
            )  # fmt: skip
        except StatusError as error:
            raise _Failed("AbleToScale", "FailedUpdateScale", str(error)) from None
        behavior = autoscale.behavior(scaler.spec.behavior)
        memory = self._memories.get(scaler.metadata.uid, Memory())
        self._memories[scaler.metadata.uid] = memory.change(verdict.replicas - scale.spec.replicas, now, behavior)
        told.rescaled(verdict.replicas)
        text = f"New size: {verdict.replicas} (was {scale.spec.replicas}); reason: {verdict.message}"
        self._recorder.event(scaler, "Normal", "SuccessfulRescale", text)

    async def _write_status(self, scaler: HorizontalPodAutoscaler, status: HorizontalPodAutoscalerStatus) -> None:
        patch = difference(scaler.status, status, always=("currentReplicas", "desiredReplicas"))
        if patch is not None:
            meta = scaler.metadata
            body = {"metadata": {"uid": meta.uid}, "status": patch}
            kind = HorizontalPodAutoscaler
            written = await self.client.patch(kind, meta.name, meta.namespace, body, subresource="status")
            await self._scalers.caught_up(written.metadata.resourceVersion)


class _Told:
    """The status that this look will leave behind."""

    def __init__(self, scaler: HorizontalPodAutoscaler, now: float) -> None:
        self._now = now
        self._generation = scaler.metadata.generation
        self._conditions = scaler.status.conditions
        self._scaled_at = scaler.status.lastScaleTime
        self.current = scaler.status.currentReplicas
        self.desired = scaler.status.desiredReplicas
        self.metrics: tuple[Json, ...] = ()

    def say(self, condition: Condition) -> None:
        self._conditions = with_condition(self._conditions, condition, self._now)

    def able(self, reason: str, message: str) -> None:
        self.say(Condition(type="AbleToScale", status="True", reason=reason, message=message))

    def active(self, status: str, reason: str, message: str) -> None:
        self.say(Condition(type="ScalingActive", status=status, reason=reason, message=message))

    def limited(self, verdict: Verdict, *, is_so: bool) -> None:
        self.say(
            Condition(type="ScalingLimited", status=str(is_so), reason=verdict.reason, message=verdict.message)
        )  # fmt: skip
        self.desired = verdict.replicas

    def rescaled(self, replicas: int) -> None:
        self.desired = replicas
        self._scaled_at = rfc3339(self._now)
        self.able("SucceededRescale", f"the number of replicas was set to {replicas}")

    def status(self) -> HorizontalPodAutoscalerStatus:
        return HorizontalPodAutoscalerStatus(
            observedGeneration=self._generation,
            lastScaleTime=self._scaled_at,
            currentReplicas=self.current,
            desiredReplicas=self.desired,
            currentMetrics=self.metrics,
            conditions=self._conditions,
        )


def _is_alone(pod: Pod, labels: Mapping[str, str]) -> bool:
    return pod.controller is None and is_active(pod) and labels.items() <= pod.metadata.labels.items()


# -- between the API's words and the arithmetic's


def _target(metric: Mapping[str, Any]) -> Target:
    """Raises _Failed for metrics of which nothing is known here."""
    source = metric.get("resource") or metric.get("containerResource")
    if source is None:
        text = f"metrics of type {metric.get('type')} are not supported: use Resource or ContainerResource"
        raise _Failed("ScalingActive", "InvalidMetricSourceType", text)
    aim = source["target"]
    average = aim.get("averageValue")
    return Target(
        source["name"],
        source.get("container", ""),
        aim.get("averageUtilization"),
        int(parse_quantity(average) * MILLI) if average is not None else None,
    )


def _samples(measured: Sequence[_PodMetrics], target: Target) -> dict[str, Sample]:
    """Pods of which all containers that count have been measured."""
    found: dict[str, Sample] = {}
    for pod in measured:
        counted = [each for each in pod.containers if not target.container or each.name == target.container]
        if counted and all(target.resource in each.usage for each in counted):
            usage = sum(int(parse_quantity(each.usage[target.resource]) * MILLI) for each in counted)
            found[pod.metadata.name] = Sample(usage, parse_time(pod.timestamp), _window(pod.window))
    return found


def _window(text: str) -> float:
    """metrics.k8s.io writes Go durations of seconds, `15.2s`."""
    try:
        return float(text.removesuffix("s"))
    except ValueError:
        return WINDOW


def _shown(metric: Mapping[str, Any], target: Target, proposal: Proposal) -> Json:
    average = Fraction(proposal.average, MILLI)
    text = format_quantity(average) if target.resource == "cpu" else format_quantity(int(average), "binary")
    current: Json = {"averageValue": text}
    if proposal.utilization is not None:
        current["averageUtilization"] = proposal.utilization
    source: Json = {"name": target.resource, "current": current}
    if target.container:
        return {"type": "ContainerResource", "containerResource": {"container": target.container, **source}}
    return {"type": "Resource", "resource": source}


def _words(target: Target) -> str:
    what = f"{target.resource} of container {target.container}" if target.container else target.resource
    return f"{what} utilization" if target.utilization is not None else what
