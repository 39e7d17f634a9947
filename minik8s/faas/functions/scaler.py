"""Pods for functions: gateways tell what is in flight, `scale.py` says how many pods that asks for, and here they are
taken from a pool, made, or let go.

What gateways have told is in memory alone. After a restart a function keeps the pods it has, as if they had been busy
until now, and gateways tell anew within a second: nothing is lost, and nothing is cut off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable

from msgspec.structs import replace

from minik8s.api.errors import Invalid, NotFound, StatusError
from minik8s.api.kinds.function import LABEL, PROCESS, Function
from minik8s.api.kinds.functionrevision import SHAPE_LABEL, SHARED, FunctionRevision
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.resource import Json
from minik8s.client.base import JSON_PATCH, Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock
from minik8s.controllers.ownership import index_by_controller, owner_reference
from minik8s.controllers.pod_control import PodControl, namespace_is_ending
from minik8s.controllers.pod_facts import is_finished, is_ready
from minik8s.controllers.status import difference, only_status_changed
from minik8s.faas.functions import crowd, pods
from minik8s.faas.functions.crowd import Demand, Group, Want
from minik8s.faas.functions.scale import Decision
from minik8s.faas.functions.workshop import (
    BY_CROWD,
    BY_POOL,
    Workshop,
    history_of,
    index_by_crowd,
    index_by_pool,
    is_up,
    lost_nodes,
)
from minik8s.faas.promise import Promise

HUSH = 0.1  # seconds after a claim in which nothing is written for people to read
CLAIM = 0.02  # seconds from a promise to its claim: the call goes first
RETELL = 10.0  # seconds between two writes that tell of another rule, but not of other numbers


class Scaler(Controller):
    """Keys are crowds: namespace/function, or namespace/Shared for the functions that share pods."""

    name = "function-scaler"

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder,
        workshop: Workshop,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(client, informers)
        self._workshop = workshop
        self._recorder = recorder
        self._clock = clock
        self._groups: dict[str, dict[str, Group]] = {}  # crowd -> shape -> group
        self._functions = informers.of(Function)
        self._revisions = informers.of(FunctionRevision)
        self._pods = informers.of(Pod)
        self._nodes = informers.of(Node)
        index_by_crowd(self._pods)
        index_by_pool(self._pods)
        index_by_controller(self._revisions)
        self._control = PodControl(client, self._pods, recorder)
        self._told: dict[str, tuple[str, float]] = {}  # by uid: which rule was told of, and when
        self._taken: set[str] = set()  # uids of pods of pools that are being claimed
        self._functions.on_change(self._function_changed)
        self._revisions.on_change(self._revision_changed)
        self._pods.on_change(self._pod_changed)
        self._nodes.on_change(self._node_changed)

    # -- what to look at

    def _function_changed(self, old: Function | None, new: Function | None) -> None:
        told = old is not None and new is not None and old.status.traffic == new.status.traffic
        if not (told and only_status_changed(old, new)):
            for each in (old, new):
                if each is not None:
                    self.queue.add(crowd.key_of(each))
        if new is None and old is not None:
            self._told.pop(old.metadata.uid, None)

    def _revision_changed(self, old: FunctionRevision | None, new: FunctionRevision | None) -> None:
        revision = new or old
        if revision is not None:
            self.queue.add(f"{revision.metadata.namespace}/{revision.spec.crowd}")

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            if pod is not None and LABEL in pod.metadata.labels:
                self.queue.add(f"{pod.metadata.namespace}/{pod.metadata.labels[LABEL]}")
        if new is None and old is not None:
            self._taken.discard(old.metadata.uid)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if old is None or new is None or is_up(old) != is_up(new):
            for key in self._groups:
                self.queue.add(key)

    def tell(self, gateway: str, demands: Iterable[Demand]) -> list[Promise]:
        """What a gateway has in flight; wakes what may need pods at once.

        Where calls are held and there is no pod at all they may go to one of a pool at once: writing the claim takes
        longer than loading the code, and is done meanwhile. If it fails, or the master does first, the pod has code of
        somebody whom it does not belong to: it takes that of nobody else, and starts anew when asked to.
        """
        promises, now = [], self._clock()
        for demand in demands:
            function = self._functions.by_key(demand.function)
            if function is None:
                continue
            key = crowd.key_of(function)
            group = self._groups.setdefault(key, {}).setdefault(demand.shape, Group())
            group.tell(gateway, demand, crowd.unit(function), now)
            promise = self._promise(key, demand.shape, group) if demand.waiting else None
            if promise is None:
                self.queue.add(key)
            else:
                promises.append(promise)
                self.queue.add_after(key, CLAIM)
        return promises

    def _promise(self, key: str, shape: str, group: Group) -> Promise | None:
        namespace, _, name = key.partition("/")
        lost = lost_nodes(self._nodes)
        mine = [pod for pod in self._pods.by_index(BY_CROWD, key) if pod.metadata.labels.get(SHAPE_LABEL) == shape]
        if pods.counting(mine, lost):
            return None
        if group.promised is None:
            want = self._wants(self._members(namespace, name)).get(shape)
            if want is None or not want.called or want.bounds.most < 1:
                return None
            ready = filter(is_ready, self._free(want.revision, lost))
            group.promised = next(iter(pods.best(ready, group.near)), None)
            if group.promised is None:
                return None
            self._taken.add(group.promised.metadata.uid)
        pod = group.promised
        return Promise(key, shape, pod.key, pod.status.podIP, pod.spec.nodeName)

    def _free(self, revision: FunctionRevision, lost: Collection[str]) -> list[Pod]:
        """Idle pods that could run it, and that nobody is about to have."""
        spec = revision.spec
        idle = self._pods.by_index(BY_POOL, f"{revision.metadata.namespace}/{spec.environmentHash}")
        fitting = [pod for pod in idle if pod.metadata.labels.get(SHAPE_LABEL) == spec.shape]
        return [each for each in pods.counting(fitting, lost) if each.metadata.uid not in self._taken]

    # -- one crowd

    async def reconcile(self, key: str) -> float | None:
        namespace, _, name = key.partition("/")
        members = self._members(namespace, name)
        mine = self._pods.by_index(BY_CROWD, key)
        if not members:
            for group in self._groups.get(key, {}).values():
                await self._forsake(group)
            self._groups.pop(key, None)
            await self._remove(self._stranded(mine))
            return None
        wants, groups = self._wants(members), self._groups.setdefault(key, {})
        lost, now = lost_nodes(self._nodes), self._clock()
        decisions: dict[str, Decision] = {}
        for shape in {*wants, *groups, *(pod.metadata.labels.get(SHAPE_LABEL, "") for pod in mine)}:
            alive = [pod for pod in mine if pod.metadata.labels.get(SHAPE_LABEL) == shape]
            want = wants.get(shape)
            counting = [pod for pod in pods.counting(alive, lost) if not self._control.is_going(pod)]
            group = crowd.group_of(groups, shape, len(counting), now, called=want is not None and want.called)
            promised = group.promised
            decision = group.decide(want, sum(map(is_ready, counting)), now)
            if decision is not None:
                decisions[shape] = decision
            else:
                groups.pop(shape)
            await self._adjust(members, want, group, name, alive, counting, decision.desired if decision else 0)
            if promised is not None and group.promised is promised:
                await self._forsake(group)
        hushed = max((group.claimed_at + HUSH - now for group in groups.values()), default=0.0)
        if hushed > 0:
            return hushed  # a call is on its way into that pod: what people want to read can wait until it is there
        await self._tell(members, key, {shape: decisions[shape] for shape in wants}, lost)
        return min((each.again for each in decisions.values() if each.again is not None), default=None)

    async def _adjust(
        self, members: list[Function], want: Want | None, group: Group, name: str, alive: list[Pod],
        counting: list[Pod], desired: int,
    ) -> None:  # fmt: skip
        await self._remove([pod for pod in alive if is_finished(pod)])
        if want is not None and desired > len(counting):
            await self._add(members, want, group, name, desired - len(counting))
        elif desired < len(counting):
            await self._remove(pods.first_to_go(counting, len(counting) - desired))

    def _members(self, namespace: str, name: str) -> list[Function]:
        if name == SHARED:
            sharing = (each for each in self._functions.list(namespace) if each.spec.isolation == PROCESS)
            return sorted((each for each in sharing if not each.deleting), key=lambda each: each.metadata.name)
        function = self._functions.get(namespace, name)
        return [function] if function and not function.deleting and function.spec.isolation != PROCESS else []

    def _wants(self, members: list[Function]) -> dict[str, Want]:
        return crowd.wants(members, {each.metadata.uid: history_of(self._revisions, each) for each in members})

    def _stranded(self, mine: Iterable[Pod]) -> list[Pod]:
        """Pods whose owner runs elsewhere now. Those whose owners are gone are the garbage collector's."""
        functions = (self._functions.list(pod.metadata.namespace) for pod in mine)
        living = {each.metadata.uid for found in functions for each in found if not each.deleting}
        return [pod for pod in mine if living & {owner.uid for owner in pod.metadata.ownerReferences}]

    # -- pods

    async def _add(self, members: list[Function], want: Want, group: Group, name: str, count: int) -> None:
        spec, namespace = want.revision.spec, want.revision.metadata.namespace
        missing = count - await self._claim(members, want.revision, group, name, count)
        if missing <= 0:
            return
        made = await self._workshop.pods(self._workshop.make(spec), namespace, name.lower(), missing)
        owners = self._owners(members)
        documents = [pods.for_function(each, name, spec.shape, owners) for each in made]
        outcome = await self._control.create(members[0], documents)
        if outcome.error is not None and not namespace_is_ending(outcome.error):
            raise outcome.error

    async def _claim(
        self, members: list[Function], revision: FunctionRevision, group: Group, name: str, count: int
    ) -> int:
        """Take up to `count` idle pods of the same shape, the promised one first; how many there were."""
        spec, namespace = revision.spec, revision.metadata.namespace
        promised = group.promised
        free = pods.best(self._free(revision, lost_nodes(self._nodes)), group.near)
        done, newest = 0, 0
        for pod in [*([promised] if promised is not None else []), *free][:count]:
            self._taken.add(pod.metadata.uid)
            patch = pods.claim(spec.environmentHash, name, spec.shape, self._owners(members))
            try:
                taken = await self.client.patch(Pod, pod.metadata.name, namespace, patch, content_type=JSON_PATCH)
            except (Invalid, NotFound):
                continue  # gone, or somebody else's since
            except StatusError:
                if pod is not promised:
                    self._taken.discard(pod.metadata.uid)
                raise
            done, newest = done + 1, max(newest, int(taken.metadata.resourceVersion))
            group.claimed.append(pod.metadata.name)
            group.claimed_at = self._clock()
        if newest:
            await self._pods.caught_up(str(newest))
        if group.promised is promised:
            group.promised = None
        return done

    async def _forsake(self, group: Group) -> None:
        """A promised pod is not needed after all; but there may be code in it."""
        if group.promised is not None:
            await self._remove([group.promised])
            group.promised = None

    def _owners(self, members: list[Function]) -> list[Json]:
        """The function that manages its pods; all that share them, none of which manages."""
        references = [owner_reference(each, self.client.resource(Function)) for each in members]
        if len(members) == 1 and members[0].spec.isolation != PROCESS:
            return references
        return [reference | {"controller": False, "blockOwnerDeletion": False} for reference in references]

    async def _remove(self, going: list[Pod]) -> None:
        for pod in going:
            owners = (self._functions.get(pod.metadata.namespace, each.name) for each in pod.metadata.ownerReferences)
            outcome = await self._control.delete(next(filter(None, owners), pod), [pod])
            if outcome.error is not None:
                raise outcome.error

    # -- status

    async def _tell(self, members: list[Function], key: str, decisions: dict[str, Decision], lost: set[str]) -> None:
        for group in self._groups.get(key, {}).values():
            for pod in group.claimed:
                self._recorder.event(members[0], "Normal", "SuccessfulClaim", f"Claimed idle pod: {pod}")
            group.claimed.clear()
        desired = sum(each.desired for each in decisions.values())
        ready = sum(map(is_ready, pods.counting(self._pods.by_index(BY_CROWD, key), lost)))
        busiest = max(decisions.values(), key=lambda each: each.desired, default=None)
        kind, reason = (busiest.kind, busiest.reason) if busiest is not None else ("", "")
        for function in members:
            status, meta, now = function.status, function.metadata, self._clock()
            told_kind, told_at = self._told.get(meta.uid, ("", -math.inf))
            other = told_kind != kind and now - told_at >= RETELL
            if (status.replicas, status.desiredReplicas) == (ready, desired) and (status.reason and not other):
                continue  # the same number for the same reason, in other figures: not worth a write each second
            self._told[meta.uid] = kind, now
            patch = difference(status, replace(status, replicas=ready, desiredReplicas=desired, reason=reason))
            if patch is not None:
                body = {"metadata": {"uid": meta.uid}, "status": patch}
                written = await self.client.patch(Function, meta.name, meta.namespace, body, subresource="status")
                await self._functions.caught_up(written.metadata.resourceVersion)
