"""Environments: made for Functions that bring requirements, built by Jobs, taken away when nobody refers to them.

Keys are those of Environments, also of such that are not there yet but should be. A Function's requirements make the
Environment `requirements-HASH`; it belongs to that Function and to all revisions that were made with it, so that a
rollback finds what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from minik8s.api.errors import AlreadyExists, NotFound
from minik8s.api.kinds.environment import Environment, environment_hash
from minik8s.api.kinds.function import Function
from minik8s.api.kinds.functionrevision import FunctionRevision
from minik8s.api.kinds.job import Job
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Condition, Json, condition
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, parse_time, system_clock
from minik8s.controllers.status import difference, with_condition
from minik8s.faas.environments import plan
from minik8s.faas.environments.decide import Build, Verdict, decide, last_lines

IMPLICIT = "faas.minik8s.io/implicit"  # label of Environments that Functions' requirements have made
STUCK = 20.0  # seconds that a pod waits on a node where its environment should be, until it is built there anew
Owner = Function | FunctionRevision


class EnvironmentController(Controller):
    name = "environment"

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, root: Path, image: Callable[[], str],
        *, clock: Clock = system_clock,
    ) -> None:  # fmt: skip
        """`root`: the folder of environments on every node; `image`: what functions run in."""
        super().__init__(client, informers)
        self._recorder, self._root, self._image, self._clock = recorder, root, image, clock
        self._environments = informers.of(Environment)
        self._functions, self._revisions = informers.of(Function), informers.of(FunctionRevision)
        self._jobs, self._pods, self._nodes = informers.of(Job), informers.of(Pod), informers.of(Node)
        self._functions.add_index("environment", lambda one: [_key(one, _wanted_by(one))])
        self._revisions.add_index("environment", lambda one: [_key(one, one.spec.environment)])
        self._pods.add_index("environment", lambda one: [_key(one, plan.used_by(one.spec.volumes))])
        self._pods.add_index("job", lambda one: [_key(one, one.metadata.labels.get("job-name", ""))])
        self._jobs.add_index("environment", lambda one: [_key(one, _owner_of(one))])
        self._environments.on_change(lambda old, new: self._add(new or old, lambda one: one.metadata.name))
        self._functions.on_change(lambda old, new: self._both(old, new, _wanted_by))
        self._revisions.on_change(lambda old, new: self._both(old, new, lambda one: one.spec.environment))
        self._jobs.on_change(lambda old, new: self._add(new or old, _owner_of))
        self._pods.on_change(self._pod_changed)

    # -- what makes work

    def _add(self, one: Any, name: Any) -> None:
        if one is not None and name(one):
            self.queue.add(_key(one, name(one)))

    def _both(self, old: Any, new: Any, name: Any) -> None:
        self._add(old, name)
        self._add(new, name)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        hashed = plan.used_by(pod.spec.volumes)
        for environment in self._environments.list(pod.metadata.namespace) if hashed else ():
            if environment_hash(environment.spec) == hashed:
                self.queue.add(environment.key)

    # -- one environment

    async def reconcile(self, key: str) -> float | None:
        environment = self._environments.by_key(key)
        owners = list(self._owners(key))
        if environment is None:
            await self._make(key, owners)
            return None
        if environment.deleting or not await self._owned(environment, owners):
            return None
        builds = [self._seen(job) for job in self._jobs.by_index("environment", key)]
        if any(build is None for build in builds):
            return 0.2  # a Job has ended, and its pod has not been told of yet
        verdict = self._decide(environment, [build for build in builds if build is not None])
        await self._write(environment, verdict)
        for node in verdict.build:
            await self._build(environment, node)
        for name in verdict.remove:
            await self._remove(environment, name)
        return verdict.again if verdict.again is not None else self._look_again(environment)

    def _owners(self, key: str) -> Iterator[Owner]:
        """Who refers to an environment of requirements, and would have it made."""
        yield from (one for one in self._functions.by_index("environment", key) if not one.deleting)
        yield from self._revisions.by_index("environment", key)

    async def _make(self, key: str, owners: list[Owner]) -> None:
        function = next((one for one in owners if isinstance(one, Function) and one.spec.requirements), None)
        if function is None:
            return
        namespace, name = key.split("/")
        meta = {"name": name, "namespace": namespace, "labels": {IMPLICIT: "true"},
                "ownerReferences": [_reference(one) for one in owners]}  # fmt: skip
        spec = {"requirements": list(function.spec.requirements)}
        try:
            await self.client.create(Environment, {"metadata": meta, "spec": spec}, namespace)
        except AlreadyExists:
            return  # seen in a moment

    async def _owned(self, environment: Environment, owners: list[Owner]) -> bool:
        """Keep who owns an implicit environment right; False if nobody does and it was taken away."""
        meta = environment.metadata
        if meta.labels.get(IMPLICIT) != "true":
            return True
        if not owners:
            await self.client.delete(Environment, meta.name, meta.namespace, uid=meta.uid)
            return False
        if {one.metadata.uid for one in owners} != {reference.uid for reference in meta.ownerReferences}:
            change = {"metadata": {"ownerReferences": [_reference(one) for one in owners], "uid": meta.uid}}
            await self.client.patch(Environment, meta.name, meta.namespace, change)
        return True

    def _seen(self, job: Job) -> Build | None:
        """None: it has ended, but its pod is not known here yet."""
        made = (job.metadata.name, job.metadata.labels.get(plan.HASH_LABEL, ""),
                job.metadata.annotations.get(plan.NODE_ANNOTATION, ""))  # fmt: skip
        ended = next((each for each in job.status.conditions
                      if each.type in ("Complete", "Failed") and each.status == "True"), None)  # fmt: skip
        if ended is None:
            return Build(*made, state="Running")
        phase = "Succeeded" if ended.type == "Complete" else "Failed"
        pods = [pod for pod in self._pods.by_index("job", job.key) if pod.status.phase == phase]
        if ended.type == "Complete" and not pods and not made[2]:
            return None
        last = max(pods, key=lambda pod: pod.metadata.creationTimestamp, default=None)
        said = _last_word(last) if last is not None else ""
        if not said and ended.type == "Failed":
            said = f"{ended.reason}: {ended.message}"
        return Build(*made, state=ended.type, ran_on=last.spec.nodeName if last is not None else "", said=said,
                     ended=parse_time(ended.lastTransitionTime))  # fmt: skip

    def _decide(self, environment: Environment, builds: list[Build]) -> Verdict:
        hashed = environment_hash(environment.spec)
        using = self._using(environment)
        lost = {pod.spec.nodeName for pod in using if self._waits(pod) >= STUCK}
        exist = {node.metadata.name for node in self._nodes.list()}
        return decide(hashed, environment.status, builds, {pod.spec.nodeName for pod in using}, lost, exist,
                      self._clock())  # fmt: skip

    def _using(self, environment: Environment) -> list[Pod]:
        key = _key(environment, environment_hash(environment.spec))
        found = (pod for pod in self._pods.by_index("environment", key) if pod.spec.nodeName and not pod.deleting)
        return [pod for pod in found if pod.status.phase in ("", "Pending", "Running")]

    def _waits(self, pod: Pod) -> float:
        """For how long a pod has not come off the ground."""
        if pod.status.phase == "Running" or not pod.status.startTime:
            return 0.0
        return self._clock() - parse_time(pod.status.startTime)

    def _look_again(self, environment: Environment) -> float | None:
        return STUCK if any(pod.status.phase != "Running" for pod in self._using(environment)) else None

    async def _write(self, environment: Environment, verdict: Verdict) -> None:
        before, hashed = environment.status, environment_hash(environment.spec)
        told = Condition(type="Ready", status=verdict.status, reason=verdict.reason, message=verdict.message)
        after = msgspec.structs.replace(
            before, hash=hashed, nodes=verdict.nodes, installed=verdict.installed,
            conditions=with_condition(before.conditions, told, self._clock()),
            observedGeneration=environment.metadata.generation,
        )  # fmt: skip
        change: Json | None = difference(before, after)
        if change is None:
            return
        meta = environment.metadata
        await self.client.patch(Environment, meta.name, meta.namespace, {"status": change}, subresource="status")
        was = condition(before.conditions, "Ready")
        if was is None or was.reason != verdict.reason:
            kind = "Warning" if verdict.reason == "BuildFailed" else "Normal"
            self._recorder.event(environment, kind, verdict.reason, verdict.message)
        for build in verdict.failures:
            if verdict.status == "True" and build.node:
                text = f"on node {build.node}: {last_lines(build.said)}"
                self._recorder.event(environment, "Warning", "BuildFailed", text)

    async def _build(self, environment: Environment, node: str) -> None:
        job = plan.job(environment, self._root, self._image(), node=node)
        try:
            await self.client.create(Job, job, environment.metadata.namespace)
        except AlreadyExists:
            return

    async def _remove(self, environment: Environment, name: str) -> None:
        try:
            await self.client.delete(Job, name, environment.metadata.namespace, propagation="Background")
        except NotFound:
            return


def _wanted_by(function: Function) -> str:
    """The implicit environment of a function; "" if it has none."""
    return "" if function.spec.environment else plan.implicit_name(function.spec.requirements)


def _owner_of(job: Job) -> str:
    owner = job.controller
    return owner.name if owner is not None and owner.kind == "Environment" else ""


def _key(one: Any, name: str) -> str:
    return f"{one.metadata.namespace}/{name}"


def _reference(one: Owner) -> Json:
    kind = "Function" if isinstance(one, Function) else "FunctionRevision"
    meta = one.metadata
    return {"apiVersion": "faas.minik8s.io/v1", "kind": kind, "name": meta.name, "uid": meta.uid}


def _last_word(pod: Pod) -> str:
    ended = [each.state.terminated.message for each in pod.status.containerStatuses if each.state.terminated]
    return ended[0] if ended else ""
