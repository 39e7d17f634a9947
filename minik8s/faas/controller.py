"""WorkflowRuns: begins runs of new objects, writes how they stand into status, forgets those whose objects are gone."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from minik8s.api.errors import NotFound
from minik8s.api.kinds.function import Function
from minik8s.api.kinds.workflow import Workflow, WorkflowSpec
from minik8s.api.kinds.workflowrun import ENDED, WorkflowRun
from minik8s.api.resource import Json
from minik8s.client.base import JSON_PATCH, Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import rfc3339
from minik8s.faas import chain
from minik8s.faas.admission import faults, parsed
from minik8s.faas.object_task import DEPTH
from minik8s.faas.run_log import Found, Header
from minik8s.faas.runner import STATUSES, Run, Runner, digest, new_secret
from minik8s.faas.workflow import errors

SOON = 0.2  # seconds between two looks at a run that goes on: its status is for people


class WorkflowRunController(Controller):
    name = "workflowrun"

    def __init__(self, client: Client, informers: Informers, runner: Runner, recorder: Recorder) -> None:
        super().__init__(client, informers)
        self._runner = runner
        self._recorder = recorder
        self._runs = informers.of(WorkflowRun)
        self._runs.on_change(self._object_changed)
        self._uids: dict[str, set[str]] = {}  # of runs that the log may have, by key
        runner.changed = lambda key: self.queue.add_after(key, SOON)

    def _object_changed(self, old: WorkflowRun | None, new: WorkflowRun | None) -> None:
        for each in (old, new):
            if each is not None:
                self._uids.setdefault(each.key, set()).add(each.metadata.uid)
        obj = new or old
        assert obj is not None
        if new is None or new.status.phase not in ENDED:
            self.queue.add(obj.key)

    async def run(self) -> None:
        await self.informers.synced()
        await self._runner.ready.wait()
        for uid, key, _ in await self._runner.history.all():  # objects may have gone while nobody looked
            self._uids.setdefault(key, set()).add(uid)
            if self._runs.by_key(key) is None:
                self.queue.add(key)
        await super().run()

    async def reconcile(self, key: str) -> float | None:
        obj = self._runs.by_key(key)
        uid = obj.metadata.uid if obj is not None else ""
        for gone in self._uids.get(key, set()) - {uid}:
            await self._runner.forget(gone)
            self._uids[key].discard(gone)
        if obj is None:
            self._uids.pop(key, None)
            return None
        if obj.deleting:
            return None
        run = self._runner.get(uid)
        if run is None and obj.status.phase in ENDED:
            found = await self._runner.history.find(uid)
            if found is None or found.end is None or _ended(found) == _told(obj):
                return None
            await self._tell(obj, _ended(found))
            return None
        if run is not None and run.execution.status != "RUNNING":
            return SOON  # its end is on the way to the disk
        found = await self._runner.history.find(uid) if run is None else None
        if run is None and found is None:
            await self._begin(obj)
            return None
        status = _going(run) if run is not None else _ended(found) if found is not None and found.end else None
        if status is not None:
            await self._tell(obj, status)
        return None

    async def _begin(self, obj: WorkflowRun) -> None:
        """Take the definition as it is now: the run keeps it."""
        function, namespace = obj.spec.functionRef.name, obj.metadata.namespace
        what, name = ("function", function) if function else ("workflow", obj.spec.workflowRef.name)
        try:
            workflow = await (self._chain(name, namespace) if function else self.client.get(Workflow, name, namespace))
        except NotFound:
            await self._refuse(obj, f"there is no {what} {name!r} in namespace {namespace!r}")
            return
        if found := faults(workflow.spec.definition):  # stored by a version that knew less
            await self._refuse(obj, f"{what} {name}: {found[0]}")
            return
        raw = await self.client.raw(self.client.resource(WorkflowRun), obj.metadata.name, namespace)
        if raw["metadata"]["uid"] != obj.metadata.uid:
            return
        definition = parsed(workflow.spec.definition)
        depth = obj.metadata.annotations.get(DEPTH, "0")
        header = Header(
            uid=obj.metadata.uid, namespace=namespace, name=obj.metadata.name, workflow=name,
            revision=workflow.metadata.generation, definition=digest(definition),
            account=obj.spec.serviceAccountName or "default", secret=new_secret(),
            input=raw["spec"].get("input", {} if workflow.spec.input is None else workflow.spec.input),
            depth=int(depth[:3]) if depth.isascii() and depth.isdecimal() else 0,
        )  # fmt: skip
        self._runner.begin(header, definition)

    async def _chain(self, name: str, namespace: str) -> Workflow:
        """What a function, and those that it may hand over to, are as a workflow. NotFound if it is not there."""
        first = await self.client.get(Function, name, namespace)
        declared = {name: first.spec.invokes}
        todo = list(first.spec.invokes)
        for each in todo:
            if each in declared:
                continue
            declared[each] = ()  # one that is not there is told of when it is called
            with suppress(NotFound):
                declared[each] = (await self.client.get(Function, each, namespace)).spec.invokes
            todo += declared[each]
        definition = chain.definition(name, declared)
        return Workflow(metadata=first.metadata, spec=WorkflowSpec(definition=definition))

    async def _refuse(self, obj: WorkflowRun, why: str) -> None:
        now = rfc3339(self._runner.clock())
        await self._tell(obj, {"phase": "Failed", "error": errors.RUNTIME, "cause": why, "startTime": now,
                               "completionTime": now})  # fmt: skip

    async def _tell(self, obj: WorkflowRun, status: Json) -> None:
        if status == _told(obj):
            return
        # Not a merge patch: that would take the nulls out of an output.
        patch: list[Json] = [{"op": "test", "path": "/metadata/uid", "value": obj.metadata.uid},
                 {"op": "add", "path": "/status", "value": status}]  # fmt: skip
        try:
            await self.client.patch(WorkflowRun, obj.metadata.name, obj.metadata.namespace, patch,
                                    subresource="status", content_type=JSON_PATCH)  # fmt: skip
        except NotFound:
            return
        if status["phase"] in ENDED and obj.status.phase not in ENDED:
            good = status["phase"] == "Succeeded"
            text = ": ".join(filter(None, (f"the run has {status['phase'].lower()}", status.get("error"),
                                           status.get("cause"))))  # fmt: skip
            self._recorder.event(obj, "Normal" if good else "Warning", status["phase"], text)


def _going(run: Run) -> Json:
    execution = run.execution
    status = _common(run.header, STATUSES[execution.status], execution.started_at, execution.events,
                     execution.redrives)  # fmt: skip
    if states := list(dict.fromkeys(execution.current())):
        status["currentStates"] = states[:100]
    return status


def _ended(found: Found) -> Json:
    end = found.end
    assert end is not None
    status = _common(found.header, STATUSES[end.status], end.started, end.events, end.redrives)
    status["completionTime"] = rfc3339(end.ended)
    if end.status == "SUCCEEDED":
        status["output"] = end.output
    return status | {key: text for key, text in (("error", end.error), ("cause", end.cause)) if text}


def _common(header: Header, phase: str, started: float, events: int, redrives: int) -> Json:
    status: Json = {"phase": phase, "startTime": rfc3339(started), "events": events,
                    "workflowRevision": header.revision, "definitionHash": header.definition}  # fmt: skip
    return status | ({"redrives": redrives} if redrives else {})


def _told(obj: WorkflowRun) -> Any:
    """The status as it is, in the form in which ours is."""
    told = msgspec.to_builtins(obj.status)
    if obj.status.phase == "Succeeded":
        told.setdefault("output", None)
    return told
