"""The cluster as a gateway needs it: functions, their revisions and shares, triggers, and the pods that may be called.

Kept by informers, read without waiting. A pod may be called from when it runs until it is to be deleted: whether the
kubelet has found it ready does not count, as a refused connection says the same sooner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple

from minik8s.api.kinds.function import LABEL, Function
from minik8s.api.kinds.functionrevision import SHAPE_LABEL, FunctionRevision, FunctionRevisionSpec
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.trigger import Trigger
from minik8s.api.meta import Condition, condition
from minik8s.client.informer import Informers
from minik8s.faas.gateway.fleet import Fleet, Load, Place, Replica
from minik8s.faas.gateway.routing import Routes, Rule

PORT = 8080  # of every runtime
KEPT = 5.0  # seconds in which a promised pod has become one of the function's: of its end nobody would tell


class Revision(NamedTuple):
    """`marks` is the header that leads to it. `verdict`: True loaded, False has a fault, None nobody has tried.

    A function that is deleted and made anew begins with the names of its old revisions: they differ by `uid`.
    """

    uid: str
    key: str  # namespace/name
    name: str
    namespace: str
    function: str  # namespace/name
    fleet: tuple[str, str]  # whose pods can hold it
    load: tuple[str, str]  # as what the autoscaler knows its calls
    spec: FunctionRevisionSpec
    marks: bytes
    verdict: bool | None


class Target:
    """A function as it is called. `busy` counts the calls of this gateway, waiting ones included."""

    def __init__(self, function: Function) -> None:
        self.namespace = function.metadata.namespace
        self.name = function.metadata.name
        self.gone = False
        self.busy = 0
        self._changed: asyncio.Future[None] | None = None
        self.set(function)

    def set(self, function: Function) -> None:
        status = function.status
        self.shares = tuple((share.revision, share.percent) for share in status.traffic if share.percent > 0)
        self.replicas = function.spec.scale.maxReplicas
        self.concurrency = function.spec.concurrency
        ready = condition(status.conditions, "Ready") or Condition()
        self.reason, self.message = ready.reason, ready.message
        self.failed = ready.status == "False"  # Unknown is what may still become something

    @property
    def hopeless(self) -> bool:
        """There is no revision to call, and there will be none unless somebody changes something."""
        return not self.shares and self.failed

    def tell(self) -> None:
        """Something about it has changed."""
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)

    async def changed(self) -> None:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)


class View:
    """`woken` as for Load; `moved` is called when pods or revisions have come or changed."""

    def __init__(
        self,
        informers: Informers,
        node: str,
        *,
        woken: Callable[[], None],
        moved: Callable[[], None],
    ) -> None:
        self.targets: dict[str, Target] = {}  # by namespace/name
        self.revisions: dict[str, Revision] = {}  # by namespace/name
        self.fleets: dict[tuple[str, str], Fleet] = {}  # by whose pods, and of which shape
        self.loads: dict[tuple[str, str], Load] = {}  # by namespace/name, and shape
        self._node = node
        self._woken, self._moved = woken, moved
        self._places: dict[str, tuple[tuple[str, str], Place]] = {}  # by pod: its fleet, and who it is
        self._expected: dict[str, asyncio.TimerHandle] = {}  # pods of which only the scaler has told, and until when
        self._compiled: Routes | None = None
        self._functions = informers.of(Function)
        self._revisions = informers.of(FunctionRevision)
        self._triggers = informers.of(Trigger)
        self._pods = informers.of(Pod, labels=LABEL)
        self._nodes = informers.of(Node)
        self._pods.add_index("node", lambda pod: (pod.spec.nodeName,))

    def follow(self) -> None:
        self._nodes.on_change(self._node_changed)
        self._functions.on_change(self._function_changed)
        self._revisions.on_change(self._revision_changed)
        self._triggers.on_change(self._trigger_changed)
        self._pods.on_change(self._pod_changed)

    async def synced(self) -> None:
        for informer in (self._nodes, self._functions, self._revisions, self._triggers, self._pods):
            await informer.synced()

    # -- reading

    @property
    def routes(self) -> Routes:
        if self._compiled is None:
            self._compiled = Routes(_rule(trigger) for trigger in self._triggers.list() if _routed(trigger))
        return self._compiled

    def names(self, namespace: str) -> Iterator[str]:
        return (function.metadata.name for function in self._functions.list(namespace))

    def namespaces(self) -> set[str]:
        return {function.metadata.namespace for function in self._functions.list()}

    def fleet(self, revision: Revision) -> Fleet:
        return self.fleets.get(revision.fleet) or self._fleet(revision.fleet)

    def load(self, revision: Revision) -> Load:
        found = self.loads.get(revision.load)
        if found is None:
            found = self.loads[revision.load] = Load(asyncio.get_running_loop().time, self._woken)
        return found

    def _fleet(self, key: tuple[str, str]) -> Fleet:
        found = self.fleets.get(key)
        if found is None:
            found = self.fleets[key] = Fleet(asyncio.get_running_loop().time)
        return found

    def live(self, revision: Revision) -> bool:
        """Whether it has a share of the traffic."""
        target = self.targets.get(revision.function)
        return target is not None and any(name == revision.name for name, _ in target.shares)

    # -- following

    def _function_changed(self, old: Function | None, new: Function | None) -> None:
        sample = new or old
        assert sample is not None
        key, target = sample.key, self.targets.get(sample.key)
        if new is None:
            self.targets.pop(key, None)
            if target is not None:
                target.gone = True
        elif target is None:
            target = self.targets[key] = Target(new)
        else:
            shares = target.shares
            target.set(new)
            if target.shares != shares:
                self._reroute(key)
        if target is not None:
            target.tell()
        if new is None:
            self._reroute(key)
        self._moved()

    def _reroute(self, function: str) -> None:
        for revision in self.revisions.values():
            if revision.function == function and (fleet := self.fleets.get(revision.fleet)) is not None:
                fleet.reroute()

    def _revision_changed(self, old: FunctionRevision | None, new: FunctionRevision | None) -> None:
        sample = new or old
        assert sample is not None
        if new is None:
            self.revisions.pop(sample.key, None)
        else:
            self.revisions[new.key] = _revision(new)
        target = self.targets.get(f"{sample.metadata.namespace}/{sample.spec.function}")
        if target is not None:
            target.tell()
        self._moved()

    def _trigger_changed(self, old: Trigger | None, new: Trigger | None) -> None:
        self._compiled = None

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        sample = new or old
        assert sample is not None
        if old is None or new is None or _ready(old) != _ready(new):
            for pod in self._pods.by_index("node", sample.metadata.name):
                self._pod_changed(pod, pod)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        sample = new or old
        assert sample is not None
        known = self._places.get(sample.key)
        now = self._place(new) if new is not None else None
        if (expected := self._expected.pop(sample.key, None)) is not None:
            expected.cancel()
        if now == known:
            return
        if known is not None:
            del self._places[sample.key]
            fleet = self.fleets[known[0]]
            replica = fleet.drop(sample.key)
            if replica is not None and (new is None or _ended(new)):
                replica.lose("the pod has ended")
        if now is not None:
            self._places[sample.key] = now
            fresh = self._pods.has_synced
            self._fleet(now[0]).put(Replica(now[1], own=now[1].node == self._node, fresh=fresh))
        self._moved()

    def expect(self, fleet: tuple[str, str], place: Place) -> None:
        """A pod is about to be one of the fleet's: it may be called already, for KEPT seconds until it is."""
        if place.key not in self._places:
            self._places[place.key] = fleet, place
            self._expected[place.key] = asyncio.get_running_loop().call_later(KEPT, self._disappoint, place.key)
            self._fleet(fleet).put(Replica(place, own=place.node == self._node, fresh=True))

    def _disappoint(self, pod: str) -> None:
        del self._expected[pod]
        self.fleets[self._places.pop(pod)[0]].drop(pod)

    def tidy(self, before: float) -> None:
        """Close connections that have been idle since; shapes come and go, and a fleet without anything is none."""
        for key, fleet in list(self.fleets.items()):
            if not fleet.replicas and not fleet.waiting:
                del self.fleets[key]
            for replica in fleet.replicas.values():
                replica.tidy(before)
        for key, load in list(self.loads.items()):
            if load.idle and key[0] not in self.targets:
                del self.loads[key]

    def _place(self, pod: Pod) -> tuple[tuple[str, str], Place] | None:
        """Where a pod is called, and as part of what; None if it is not to be called."""
        status, meta = pod.status, pod.metadata
        if meta.deletionTimestamp or status.phase != "Running" or not status.podIP:
            return None
        node = self._nodes.get(None, pod.spec.nodeName)
        if node is not None and not _ready(node):
            return None
        fleet = f"{meta.namespace}/{meta.labels.get(LABEL, '')}", meta.labels.get(SHAPE_LABEL, "")
        return fleet, Place(pod.key, status.podIP, PORT, pod.spec.nodeName)


def _ready(node: Node) -> bool:
    found = condition(node.status.conditions, "Ready")
    return found is None or found.status == "True"


def _ended(pod: Pod) -> bool:
    return pod.status.phase in ("Succeeded", "Failed")


def _routed(trigger: Trigger) -> bool:
    accepted = condition(trigger.status.conditions, "Accepted")
    return trigger.spec.http is not None and (accepted is None or accepted.status != "False")


def _rule(trigger: Trigger) -> Rule:
    meta, http = trigger.metadata, trigger.spec.http
    assert http is not None
    return Rule(meta.namespace, meta.name, trigger.spec.function, http.method, http.path, meta.creationTimestamp)


def _revision(revision: FunctionRevision) -> Revision:
    ready = condition(revision.status.conditions, "Ready")
    verdict = None if ready is None or ready.status == "Unknown" else ready.status == "True"
    meta, spec = revision.metadata, revision.spec
    function = f"{meta.namespace}/{spec.function}"
    fleet, load = (f"{meta.namespace}/{spec.crowd}", spec.shape), (function, spec.shape)
    marks = f"Minik8s-Revision: {meta.name}\r\n".encode()
    return Revision(meta.uid, revision.key, meta.name, meta.namespace, function, fleet, load, spec, marks, verdict)
