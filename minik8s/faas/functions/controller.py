"""Functions: each change of what would run becomes a FunctionRevision; what revisions turn out to be becomes status.

A revision without a verdict gets a pod from the scaler, and the gateway beside that pod loads it and writes the
verdict. Only then does traffic go to it, so code that cannot be loaded leaves what runs alone.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode

import msgspec
from msgspec.structs import replace

from minik8s.api.errors import NotFound
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.environment import Environment
from minik8s.api.kinds.function import LABEL, PROCESS, Code, Function
from minik8s.api.kinds.functionrevision import SHARED, FunctionRevision, FunctionRevisionSpec
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Object, condition
from minik8s.archives import BadArchive, pack_files
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, system_clock
from minik8s.controllers.ownership import index_by_controller, owner_reference
from minik8s.controllers.status import difference, with_condition
from minik8s.faas.environments.plan import implicit_name
from minik8s.faas.functions import pods, revisions
from minik8s.faas.functions.codes import Codes
from minik8s.faas.functions.crowd import key_of
from minik8s.faas.functions.revisions import Built, Trouble
from minik8s.faas.functions.workshop import BY_CROWD, history_of, index_by_crowd

UPLOADING = "Uploading"
ARCHIVES = "archives"  # a key beside those of functions: removing what nothing names
SETTLE = 90.0  # seconds until that, for archives that were sent just now are kept anyhow


class FunctionController(Controller):
    name = "function-controller"

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, codes: Codes, clock: Clock = system_clock
    ) -> None:
        super().__init__(client, informers)
        self._codes = codes
        self._recorder = recorder
        self._clock = clock
        self._functions = informers.of(Function)
        self._revisions = informers.of(FunctionRevision)
        self._environments = informers.of(Environment)
        self._pods = informers.of(Pod)
        index_by_controller(self._revisions)
        index_by_crowd(self._pods)
        self._functions.add_index("needs", _needs)
        self._functions.on_change(self._function_changed)
        self._revisions.on_change(self._revision_changed)
        self._environments.on_change(lambda old, new: self._wake(Environment, new or old))
        maps = informers.metadata(client.resource(ConfigMap))
        maps.on_change(lambda old, new: self._wake(ConfigMap, new or old))
        self._pods.on_change(self._pod_changed)

    # -- what to look at

    def _function_changed(self, old: Function | None, new: Function | None) -> None:
        if new is None or (old is not None and old.spec.code != new.spec.code):
            self.queue.add_after(ARCHIVES, SETTLE)
        if new is not None and (old is None or old.metadata.generation != new.metadata.generation):
            self.queue.add(new.key)

    def _revision_changed(self, old: FunctionRevision | None, new: FunctionRevision | None) -> None:
        revision = new or old
        if revision is not None:
            self.queue.add(f"{revision.metadata.namespace}/{revision.spec.function}")
        if new is None:
            self.queue.add_after(ARCHIVES, SETTLE)

    def _wake(self, kind: type[Object], changed: Object | None) -> None:
        if changed is not None and len(self._functions):
            for function in self._functions.by_index("needs", f"{kind.__name__} {changed.key}"):
                self.queue.add(function.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Only why it does not start is of interest here."""
        if new is None or LABEL not in new.metadata.labels or pods.trouble([new]) == pods.trouble([old or Pod()]):
            return
        namespace, name = new.metadata.namespace, new.metadata.labels[LABEL]
        sharing = [each.key for each in self._functions.list(namespace) if each.spec.isolation == PROCESS]
        for key in sharing if name == SHARED else (f"{namespace}/{name}",):
            self.queue.add(key)

    def code_arrived(self, namespace: str, name: str) -> None:
        self.queue.add(f"{namespace}/{name}")

    # -- one function

    async def run(self) -> None:
        await self.informers.synced()
        self.queue.add(ARCHIVES)  # what named them may have gone while nobody looked
        await super().run()

    async def reconcile(self, key: str) -> float | None:
        if key == ARCHIVES:
            await self._sweep()
            return None
        function = self._functions.by_key(key)
        if function is None or function.deleting:
            return None
        history = history_of(self._revisions, function)
        found = await self._made_of(function)
        trouble = found if isinstance(found, Trouble) else None
        if not isinstance(found, Trouble):
            code, built = found
            number = (history[-1].spec.number if history else 0) + 1
            wanted = revisions.spec_of(function, code, built, number)
            if not history or not revisions.same(history[-1].spec, wanted):
                history.append(await self._create(function, wanted))
        await self._tell(function, history, trouble)
        await self._prune(function, history)
        return None

    async def _made_of(self, function: Function) -> tuple[Code, Built] | Trouble:
        built = self._environment(function)
        code = await self._code(function)
        if isinstance(code, Trouble):
            return code
        return built if isinstance(built, Trouble) else (code, built)

    def _environment(self, function: Function) -> Built | Trouble:
        name, namespace = environment_of(function), function.metadata.namespace
        found = self._environments.get(namespace, name) if name else None
        return revisions.built(name, namespace, found, made_for_it=not function.spec.environment)

    async def _code(self, function: Function) -> Code | Trouble:
        code, namespace = function.spec.code, function.metadata.namespace
        if code.sha256:
            received = self._codes.received(namespace, code)
            if self._codes.has(namespace, code):
                return Code(code.sha256, code.size)
            text = f"the archive {code.sha256[:12]} is not here: {received} of {code.size} bytes have been sent"
            return Trouble(UPLOADING, f"{text}; minik8s func update sends it")
        files = {"func.py": code.inline.encode()} if code.inline else await self._of_config_map(function)
        if isinstance(files, Trouble):
            return files
        try:
            packed = await asyncio.to_thread(pack_files, files)
        except BadArchive as error:
            return Trouble("CodeError", str(error))
        return await asyncio.to_thread(self._codes.put, namespace, packed)

    async def _of_config_map(self, function: Function) -> dict[str, bytes] | Trouble:
        reference, namespace = function.spec.code.configMap, function.metadata.namespace
        if reference is None:
            return Trouble(
                "NoCode", "spec.code is empty: give an archive (minik8s func add), `inline` or a `configMap`"
            )
        try:
            found = await self.client.get(ConfigMap, reference.name, namespace)
        except NotFound:
            return Trouble("NoCode", f'there is no ConfigMap "{reference.name}" in namespace "{namespace}"')
        files = {name: text.encode() for name, text in found.data.items()}
        return files | {name: b64decode(data) for name, data in found.binaryData.items()}

    async def _create(self, function: Function, wanted: FunctionRevisionSpec) -> FunctionRevision:
        meta = function.metadata
        name = revisions.name_of(meta.name, wanted.number)
        document = {
            "metadata": {
                "name": name,
                "labels": {LABEL: meta.name},
                "ownerReferences": [owner_reference(function, self.client.resource(Function))],
            },
            "spec": msgspec.to_builtins(wanted) | {"function": meta.name, "number": wanted.number},
        }
        made = await self.client.create(FunctionRevision, document, meta.namespace)
        await self._revisions.caught_up(made.metadata.resourceVersion)
        self._recorder.event(function, "Normal", "RevisionCreated", f"Created revision {name}")
        return made

    async def _tell(self, function: Function, history: list[FunctionRevision], trouble: Trouble | None) -> None:
        meta, status = function.metadata, function.status
        latest = history[-1] if history else None
        ready = [each for each in history if revisions.is_ready(each)]
        shares = revisions.traffic(function.spec.traffic, history, status.traffic)
        mine = [each for each in self._pods.by_index(BY_CROWD, key_of(function)) if not each.deleting]
        told = revisions.ready_condition(latest, trouble, pods.trouble(mine))
        new = replace(
            status,
            observedGeneration=meta.generation,
            latestRevision=latest.metadata.name if latest else "",
            readyRevision=ready[-1].metadata.name if ready else "",
            traffic=shares,
            url=f"/function/{meta.namespace}/{meta.name}",
            conditions=with_condition(status.conditions, told, self._clock()),
        )
        patch = difference(status, new)
        if patch is None:
            return
        before = condition(status.conditions, revisions.READY)
        written = await self.client.patch(
            Function, meta.name, meta.namespace, {"metadata": {"uid": meta.uid}, "status": patch}, subresource="status"
        )
        await self._functions.caught_up(written.metadata.resourceVersion)
        if before is None or (before.status, before.reason, before.message) != (told.status, told.reason, told.message):
            if told.status == "True":
                self._recorder.event(function, "Normal", "RevisionReady", told.message)
            elif told.status == "False":
                kind = "Normal" if told.reason == UPLOADING else "Warning"  # the object always comes before its code
                self._recorder.event(function, kind, told.reason, told.message)

    async def _prune(self, function: Function, history: list[FunctionRevision]) -> None:
        current = self._functions.by_key(function.key) or function  # with the status as it was written just now
        shares = (*function.spec.traffic, *current.status.traffic)
        for revision in revisions.superfluous(history, function.spec.revisionHistoryLimit, shares):
            meta = revision.metadata
            await self.client.delete(FunctionRevision, meta.name, meta.namespace, uid=meta.uid)

    # -- archives

    async def _sweep(self) -> None:
        """Remove archives that nothing names any more; by what the API says, for copies may be behind."""
        made = (await self.client.list(FunctionRevision)).items
        functions = (await self.client.list(Function)).items
        named = {(each.metadata.namespace, each.spec.code.sha256) for each in made}
        named |= {(each.metadata.namespace, each.spec.code.sha256) for each in functions}
        await asyncio.to_thread(self._codes.keep_only, named)


def environment_of(function: Function) -> str:
    """The Environment that it names, or that is made for its own requirements; "" for the plain one."""
    requirements = function.spec.requirements
    return function.spec.environment or (implicit_name(requirements) if isinstance(requirements, list) else "")


def _needs(function: Function) -> list[str]:
    """Index: what else a function is made of."""
    needed, namespace = [], function.metadata.namespace
    if name := environment_of(function):
        needed.append(f"Environment {namespace}/{name}")
    if function.spec.code.configMap is not None:
        needed.append(f"ConfigMap {namespace}/{function.spec.code.configMap.name}")
    return needed
