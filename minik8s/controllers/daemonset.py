"""A DaemonSet keeps one pod on every node that fits, and replaces them a few at a time when its template changes."""

from __future__ import annotations

from minik8s.api.errors import Conflict
from minik8s.api.kinds.daemonset import DaemonSet
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.labels import selects
from minik8s.api.meta import Json
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock
from minik8s.controllers.daemon_plan import (
    HASH_LABEL,
    Fit,
    Plan,
    by_node,
    fit,
    limits,
    manage,
    node_of,
    pinned,
    status_of,
    tolerations,
    update,
)
from minik8s.controllers.ownership import claim, index_by_controller, owned, owner_reference
from minik8s.controllers.pod_control import BURST, PodControl, namespace_is_ending
from minik8s.controllers.replicas import next_available
from minik8s.controllers.revision_history import RevisionHistory
from minik8s.controllers.status import difference, only_status_changed
from minik8s.controllers.templates import Templates, pod_from

REQUIRED = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
FIRST_BACKOFF = 1.0  # seconds between removals of failed pods on one node; doubled each time
LAST_BACKOFF = 900.0


class DaemonSetController(Controller):
    name = "daemonset-controller"

    def __init__(self, client: Client, informers: Informers, recorder: Recorder, clock: Clock) -> None:
        super().__init__(client, informers)
        self._clock = clock
        self._recorder = recorder
        self._resource = client.resource(DaemonSet)
        self._sets = informers.of(DaemonSet)
        self._nodes = informers.of(Node)
        self._pods = informers.of(Pod)
        index_by_controller(self._pods)
        self._control = PodControl(client, self._pods, recorder)
        self._templates = Templates(client)
        self._history = RevisionHistory(client, informers)
        self._failures: dict[tuple[str, str], tuple[float, float]] = {}  # (uid, node) -> (not before, delay)
        self._sets.on_change(self._set_changed)
        self._nodes.on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)

    def _set_changed(self, old: DaemonSet | None, new: DaemonSet | None) -> None:
        if old is not None and (new is None or old.metadata.uid != new.metadata.uid):
            self._templates.forget(old.metadata.uid)
            for key in [key for key in self._failures if key[0] == old.metadata.uid]:
                del self._failures[key]
        if not only_status_changed(old, new):
            self.queue.add((new or old or DaemonSet()).key)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Only what `fit` looks at matters: heartbeats come all the time."""
        if old is not None and new is not None and (old.spec, old.metadata.labels) == (new.spec, new.metadata.labels):
            return
        for daemons in self._sets.list():
            spec = daemons.spec.template.spec
            if (old and fit(spec, old)) != (new and fit(spec, new)):
                self.queue.add(daemons.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            reference = pod.controller if pod is not None else None
            if pod is not None and reference is not None and reference.kind == "DaemonSet":
                self.queue.add(f"{pod.metadata.namespace}/{reference.name}")
        if new is not None and new.controller is None and not new.deleting:
            for daemons in self._sets.list(new.metadata.namespace):
                if selects(daemons.spec.selector, new.metadata.labels):
                    self.queue.add(daemons.key)

    async def reconcile(self, key: str) -> float | None:
        daemons = self._sets.by_key(key)
        if daemons is None:
            return None
        selector = daemons.spec.selector
        if not (selector.matchLabels or selector.matchExpressions):
            text = "This daemon set is selecting all pods. A non-empty selector is required."
            self._recorder.event(daemons, "Warning", "SelectingAll", text)
            return None
        mine = await claim(self.client, daemons, lambda pod: selects(selector, pod.metadata.labels), self._pods)
        if daemons.deleting:
            return None
        template = await self._templates.of(daemons)
        current, old = await self._history.current(daemons, template)
        if current is None:
            await self._write_status(daemons, {"collisionCount": (daemons.status.collisionCount or 0) + 1})
            raise Conflict(f"a controller revision of {key} has the same name: trying another")
        revision = current.metadata.labels.get(HASH_LABEL, "")
        fits = {node.metadata.name: fit(daemons.spec.template.spec, node) for node in self._nodes.list()}
        wait = await self._act(daemons, fits, mine, revision, template)
        pods = owned(self._pods, daemons)
        used = {pod.metadata.labels.get(HASH_LABEL, "") for pod in pods}
        await self._history.trim(old, daemons.spec.revisionHistoryLimit, used)
        now = self._clock()
        patch = difference(daemons.status, status_of(daemons, fits, by_node(pods), revision, now), always=REQUIRED)
        if patch is not None:
            await self._write_status(daemons, patch)
        times = (wait, next_available(pods, daemons.spec.minReadySeconds, now))
        return min((each for each in times if each), default=None)

    async def _act(
        self, daemons: DaemonSet, fits: dict[str, Fit], mine: list[Pod], revision: str, template: Json
    ) -> float | None:
        """Make and remove pods. Returns the seconds until a failed pod may be replaced, if one has to wait."""
        now, rolling = self._clock(), daemons.spec.updateStrategy.type == "RollingUpdate"
        surge, _ = limits(daemons, sum(each.run for each in fits.values()))
        placed = by_node(mine)
        plan = manage(fits, placed, revision, surging=rolling and surge > 0)
        wait = self._allow_failed(daemons, plan, now)
        if rolling and not plan.create and not plan.delete:
            step = update(daemons, fits, placed, revision, now)
            plan.create, plan.delete = step.create, [*plan.delete, *step.delete]
        failed = [pod for pod in plan.finished if not self._control.is_going(pod)]
        for pod in failed:
            self._tell_finished(daemons, pod)
        outcome = await self._control.delete(daemons, [*plan.delete[:BURST], *failed])
        error = outcome.error
        if plan.create:
            documents = self._documents(daemons, template, revision, plan.create[:BURST])
            outcome = await self._control.create(daemons, documents)
            error = error or outcome.error
        if error is not None and not namespace_is_ending(error):
            raise error
        if max(len(plan.create), len(plan.delete)) > BURST:
            self.queue.add(daemons.key)
        return wait

    def _allow_failed(self, daemons: DaemonSet, plan: Plan, now: float) -> float | None:
        """Leave those failed pods in the plan whose node's back-off is over; returns the shortest other wait."""
        allowed, waits = [], []
        for pod in plan.finished:
            key = (daemons.metadata.uid, node_of(pod))
            after, delay = self._failures.get(key, (0.0, FIRST_BACKOFF))
            if self._control.is_going(pod):
                continue
            if now < after:
                waits.append(after - now)
                continue
            if now > after + 2 * LAST_BACKOFF:
                delay = FIRST_BACKOFF  # it has behaved for long
            self._failures[key] = (now + delay, min(delay * 2, LAST_BACKOFF))
            allowed.append(pod)
        plan.finished = allowed
        return min(waits, default=None)

    def _tell_finished(self, daemons: DaemonSet, pod: Pod) -> None:
        where = f"{pod.key} on node {node_of(pod)}"
        if pod.status.phase == "Failed":
            text = f"Found failed daemon pod {where}, will try to kill it"
            self._recorder.event(daemons, "Warning", "FailedDaemonPod", text)
        else:
            text = f"Found succeeded daemon pod {where}, will try to delete it"
            self._recorder.event(daemons, "Normal", "SucceededDaemonPod", text)

    def _documents(self, daemons: DaemonSet, template: Json, revision: str, nodes: list[str]) -> list[Json]:
        owner = owner_reference(daemons, self._resource)
        spec = template["spec"]
        own = [*(spec.get("tolerations") or ()), *tolerations(daemons.spec.template.spec)]
        pod = pod_from({**template, "spec": {**spec, "tolerations": own}}, owner, labels={HASH_LABEL: revision})
        return [pinned(pod, name) for name in nodes]

    async def _write_status(self, daemons: DaemonSet, status: Json) -> None:
        meta = daemons.metadata
        body = {"metadata": {"uid": meta.uid}, "status": status}
        written = await self.client.patch(DaemonSet, meta.name, meta.namespace, body, subresource="status")
        await self._sets.caught_up(written.metadata.resourceVersion)
