"""A Deployment moves its pods from one template to the next by sizing one ReplicaSet per template.

Each look does one step as `rollout` plans it, waits until its own writes are in the copy, and tells the status; the
ReplicaSets' answers bring it back for the next step.
"""

from __future__ import annotations

from typing import NamedTuple

from minik8s.api.errors import AlreadyExists, Conflict, NotFound, StatusError
from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.labels import selects
from minik8s.api.meta import Condition, Json, condition
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock
from minik8s.controllers.ownership import claim, index_by_controller, owned, owner_reference
from minik8s.controllers.pod_control import namespace_is_ending
from minik8s.controllers.pod_facts import is_finished
from minik8s.controllers.revisions import current_annotations, new_set, next_revision, size_annotations
from minik8s.controllers.rollout import (
    REVISION,
    Sizes,
    by_age,
    needs_scaling,
    new_size,
    roll,
    scale,
    superfluous,
    total,
)
from minik8s.controllers.rollout_status import TIMED_OUT, deadline_in, is_complete, status_of
from minik8s.controllers.status import difference, only_status_changed
from minik8s.controllers.templates import Templates, without_hash


class Sets(NamedTuple):
    new: ReplicaSet | None
    old: list[ReplicaSet]

    @property
    def all(self) -> list[ReplicaSet]:
        return [*([self.new] if self.new is not None else []), *self.old]


class DeploymentController(Controller):
    name = "deployment-controller"

    def __init__(self, client: Client, informers: Informers, recorder: Recorder, clock: Clock) -> None:
        super().__init__(client, informers)
        self._clock = clock
        self._recorder = recorder
        self._resource = client.resource(Deployment)
        self._deployments = informers.of(Deployment)
        self._sets = informers.of(ReplicaSet)
        self._pods = informers.of(Pod)
        index_by_controller(self._sets)
        index_by_controller(self._pods)
        self._templates = Templates(client)
        self._deployments.on_change(self._deployment_changed)
        self._sets.on_change(self._set_changed)
        self._pods.on_change(self._pod_changed)

    def _deployment_changed(self, old: Deployment | None, new: Deployment | None) -> None:
        if old is not None and (new is None or old.metadata.uid != new.metadata.uid):
            self._templates.forget(old.metadata.uid)
        if not only_status_changed(old, new):
            self.queue.add((new or old or Deployment()).key)

    def _set_changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        if old is not None and (new is None or old.metadata.uid != new.metadata.uid):
            self._templates.forget(old.metadata.uid)
        for each in (old, new):
            reference = each.controller if each is not None else None
            if each is not None and reference is not None and reference.kind == "Deployment":
                self.queue.add(f"{each.metadata.namespace}/{reference.name}")
        if new is not None and new.controller is None and not new.deleting:
            for deployment in self._deployments.list(new.metadata.namespace):
                if selects(deployment.spec.selector, new.metadata.labels):
                    self.queue.add(deployment.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Recreate waits for the last old pod to be gone."""
        if old is None or (new is not None and not is_finished(new)):
            return
        reference = old.controller
        owner = self._sets.get(old.metadata.namespace, reference.name) if reference is not None else None
        manager = owner.controller if owner is not None else None
        if manager is not None:
            deployment = self._deployments.get(old.metadata.namespace, manager.name)
            if deployment is not None and deployment.spec.strategy.type == "Recreate":
                self.queue.add(deployment.key)

    async def reconcile(self, key: str) -> float | None:
        deployment = self._deployments.by_key(key)
        if deployment is None:
            return None
        selector = deployment.spec.selector
        if not (selector.matchLabels or selector.matchExpressions):
            text = "This deployment is selecting all pods. A non-empty selector is required."
            self._recorder.event(deployment, "Warning", "SelectingAll", text)
            return None
        mine = await claim(self.client, deployment, lambda each: selects(selector, each.metadata.labels), self._sets)
        sets = await self._sort(deployment, mine)
        news = self._pause_news(deployment)
        if not deployment.deleting:
            deployment, sets, created = await self._step(deployment, sets)
            news = created or news
        return await self._write_status(deployment, sets, news)

    async def _sort(self, deployment: Deployment, mine: list[ReplicaSet]) -> Sets:
        """Which of its sets has the Deployment's template now (the oldest if several), and the others."""
        wanted = without_hash(await self._templates.of(deployment))
        new = None
        for each in by_age(mine):
            if without_hash(await self._templates.of(each)) == wanted:
                new = each
                break
        return Sets(new, [each for each in mine if each is not new])

    async def _step(self, deployment: Deployment, sets: Sets) -> tuple[Deployment, Sets, Condition | None]:
        """One step towards the spec. Returns all as it is afterwards and what is to be told of the progress."""
        news = None
        scaling = needs_scaling(deployment, sets.all)
        if not (deployment.spec.paused or scaling) and sets.new is None and self._may_begin(deployment, sets):
            sets, news = await self._create(deployment, sets)
        elif sets.new is not None and condition(deployment.status.conditions, "Progressing") is None:
            news = _progressing("True", "FoundNewReplicaSet", f'Found new replica set "{sets.new.metadata.name}"')
        deployment, sets = await self._remember(deployment, sets)
        if deployment.spec.paused or scaling:
            sizes = scale(deployment, sets.new, sets.old)
            resized = [each for each in sets.all if each.spec.replicas or each.metadata.name in sizes]
        else:
            sizes = self._plan(deployment, sets)
            resized = [each for each in sets.all if each is sets.new or each.metadata.name in sizes]
        sets = await self._resize(deployment, sets, sizes, resized)
        if deployment.spec.paused or is_complete(deployment, status_of(deployment, sets.new, sets.old, self._clock())):
            await self._clean(deployment, sets.old)
        return deployment, sets, news

    def _may_begin(self, deployment: Deployment, sets: Sets) -> bool:
        """Recreate: not before the old sets are empty and their last pod has stopped."""
        if deployment.spec.strategy.type != "Recreate":
            return True
        return not total(sets.old) and not self._old_pods_run(sets)

    def _old_pods_run(self, sets: Sets) -> bool:
        return any(not is_finished(pod) for each in sets.old for pod in owned(self._pods, each))

    def _plan(self, deployment: Deployment, sets: Sets) -> Sizes:
        if deployment.spec.strategy.type != "Recreate":
            return roll(deployment, sets.new, sets.old) if sets.new is not None else {}
        shrunk = {each.metadata.name: 0 for each in sets.old if each.spec.replicas}
        if shrunk or sets.new is None or self._old_pods_run(sets):
            return shrunk
        return {sets.new.metadata.name: deployment.spec.replicas}

    def _pause_news(self, deployment: Deployment) -> Condition | None:
        known = condition(deployment.status.conditions, "Progressing")
        if known is not None and known.reason == TIMED_OUT:
            return None
        was_paused = known is not None and known.reason == "DeploymentPaused"
        if deployment.spec.paused and not was_paused:
            return _progressing("Unknown", "DeploymentPaused", "Deployment is paused")
        if was_paused and not deployment.spec.paused:
            return _progressing("Unknown", "DeploymentResumed", "Deployment is resumed")
        return None

    # -- writes

    async def _create(self, deployment: Deployment, sets: Sets) -> tuple[Sets, Condition]:
        size = new_size(deployment, 0, total(sets.old))
        owner = owner_reference(deployment, self._resource)
        template = await self._templates.of(deployment)
        body = new_set(deployment, template, owner, next_revision(sets.old), size)
        name = body["metadata"]["name"]
        try:
            made = await self.client.create(ReplicaSet, body)
        except AlreadyExists:
            made = await self._collided(deployment, template, name)
        except StatusError as error:
            if not namespace_is_ending(error):
                text = f'Failed to create new replica set "{name}": {error}'
                self._recorder.event(deployment, "Warning", "ReplicaSetCreateError", text)
                await self._write_status(deployment, sets, _progressing("False", "ReplicaSetCreateError", text))
            raise
        else:
            if size:
                self._tell_scaling(deployment, name, 0, size)
        await self._sets.caught_up(made.metadata.resourceVersion)
        return Sets(made, sets.old), _progressing("True", "NewReplicaSetCreated", f'Created new replica set "{name}"')

    async def _collided(self, deployment: Deployment, template: Json, name: str) -> ReplicaSet:
        """The name is taken: by our own set that the copy did not show yet; or by another: then the hash changes."""
        there = await self.client.get(ReplicaSet, name, deployment.metadata.namespace)
        owner = there.controller
        ours = owner is not None and owner.uid == deployment.metadata.uid
        if ours and without_hash(await self._templates.of(there)) == without_hash(template):
            return there
        count = (deployment.status.collisionCount or 0) + 1
        await self._patch_status(deployment, {"collisionCount": count})
        self.queue.add(deployment.key)
        raise Conflict(f"replica set {there.key} is not ours: trying another name")

    async def _remember(self, deployment: Deployment, sets: Sets) -> tuple[Deployment, Sets]:
        """Keep the new set's revision, copied annotations and minReadySeconds and the Deployment's revision right."""
        new = sets.new
        if new is None:
            return deployment, sets
        known = new.metadata.annotations
        wanted = current_annotations(deployment, known, next_revision(sets.old))
        patch: Json = {}
        if wanted != known:
            patch["metadata"] = {"annotations": dict(wanted.items() - known.items())}
        if new.spec.minReadySeconds != deployment.spec.minReadySeconds:
            patch["spec"] = {"minReadySeconds": deployment.spec.minReadySeconds}
        if patch:
            new = await self.client.patch(ReplicaSet, new.metadata.name, new.metadata.namespace, patch)
            await self._sets.caught_up(new.metadata.resourceVersion)
        number = new.metadata.annotations.get(REVISION, "")
        meta = deployment.metadata
        if meta.annotations.get(REVISION) != number:
            mark: Json = {"metadata": {"uid": meta.uid, "annotations": {REVISION: number}}}
            written = await self.client.patch(Deployment, meta.name, meta.namespace, mark)
            await self._deployments.caught_up(written.metadata.resourceVersion)
            if written.metadata.generation != meta.generation:
                raise Conflict(f"{deployment.key} has changed since it was read")
            deployment = written
        return deployment, Sets(new, sets.old)

    async def _resize(self, deployment: Deployment, sets: Sets, sizes: Sizes, affected: list[ReplicaSet]) -> Sets:
        marks = size_annotations(deployment)
        changed: dict[str, ReplicaSet] = {}
        for each in affected:
            meta, before = each.metadata, each.spec.replicas
            after = sizes.get(meta.name, before)
            if after == before and marks.items() <= meta.annotations.items():
                continue
            patch: Json = {"metadata": {"annotations": marks}, "spec": {"replicas": after}}
            written = await self.client.patch(ReplicaSet, meta.name, meta.namespace, patch)
            changed[meta.name] = written
            if after != before:
                self._tell_scaling(deployment, meta.name, before, after)
            await self._sets.caught_up(written.metadata.resourceVersion)
        new = sets.new and changed.get(sets.new.metadata.name, sets.new)
        return Sets(new, [changed.get(each.metadata.name, each) for each in sets.old])

    def _tell_scaling(self, deployment: Deployment, name: str, before: int, after: int) -> None:
        direction = "up" if after > before else "down"
        text = f"Scaled {direction} replica set {name} from {before} to {after}"
        self._recorder.event(deployment, "Normal", "ScalingReplicaSet", text)

    async def _clean(self, deployment: Deployment, old: list[ReplicaSet]) -> None:
        for each in superfluous(deployment, old):
            meta = each.metadata
            try:
                await self.client.delete(ReplicaSet, meta.name, meta.namespace, uid=meta.uid)
            except NotFound:
                continue

    async def _write_status(self, deployment: Deployment, sets: Sets, news: Condition | None) -> float | None:
        now = self._clock()
        status = status_of(deployment, sets.new, sets.old, now, news=news)
        patch = difference(deployment.status, status)
        if patch is not None:
            await self._patch_status(deployment, patch)
        return deadline_in(deployment, status, now)

    async def _patch_status(self, deployment: Deployment, status: Json) -> None:
        meta = deployment.metadata
        body = {"metadata": {"uid": meta.uid}, "status": status}
        written = await self.client.patch(Deployment, meta.name, meta.namespace, body, subresource="status")
        await self._deployments.caught_up(written.metadata.resourceVersion)


def _progressing(status: str, reason: str, message: str) -> Condition:
    return Condition(type="Progressing", status=status, reason=reason, message=message)
