"""What the API server answers about runs besides objects: history, graph, stop, redrive; and tasks for workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from minik8s.api.errors import BadRequest, Conflict, NotFound
from minik8s.api.kinds.workflow import GROUP, Workflow
from minik8s.api.kinds.workflow import RESOURCE as WORKFLOW
from minik8s.api.kinds.workflowrun import WorkflowRun
from minik8s.api.resource import Json
from minik8s.apiserver import body
from minik8s.apiserver.request import ApiResponse, json_response
from minik8s.apiserver.verbs import Call
from minik8s.client.base import Client
from minik8s.clock import rfc3339_milli
from minik8s.faas import resources
from minik8s.faas.admission import parsed
from minik8s.faas.runner import Run, Runner
from minik8s.faas.tokens import Tokens
from minik8s.faas.workflow.execution import Task
from minik8s.faas.workflow.history import Event

PAGE = 500  # events
LONGEST_PAGE = 5_000
VERSION = f"{GROUP}/v1"
Answer = Callable[[Call], Awaitable[ApiResponse]]


class WorkflowApi:
    def __init__(self, client: Client, runner: Runner, tokens: Tokens) -> None:
        self._client = client
        self._runner = runner
        self._tokens = tokens

    def subresources(self) -> Mapping[tuple[str, str], Answer]:
        return {
            ("history", "get"): self.history,
            ("graph", "get"): self.graph,
            ("stop", "create"): self.stop,
            ("redrive", "create"): self.redrive,
        }

    def virtuals(self) -> Mapping[tuple[str, str, str], Answer]:
        return {(GROUP, "v1", "workflowtasks"): self.tasks}

    # -- runs

    async def history(self, call: Call) -> ApiResponse:
        """Events in order; `limit` at most, from behind the number that `continue` says."""
        uid = await self._uid(call)
        limit = min(_number(call.query.get("limit"), "limit", PAGE), LONGEST_PAGE) or PAGE
        after = _number(call.query.get("continue"), "continue", 0)
        events = await self._runner.history.read(uid, after=after, limit=limit)
        meta: Json = {"name": call.info.name, "namespace": call.info.namespace}
        if events and await self._runner.history.read(uid, after=events[-1].id, limit=1):
            meta["continue"] = str(events[-1].id)
        shown = [
            {
                "id": event.id,
                "previousEventId": event.previousEventId,
                "timestamp": rfc3339_milli(event.timestamp),
                "type": event.type,
                "details": event.details,
            }
            for event in events
        ]
        return json_response({"kind": "WorkflowRunHistory", "apiVersion": VERSION, "metadata": meta, "events": shown})

    async def graph(self, call: Call) -> ApiResponse:
        """A workflow; of a run as it knows it, and what it did. `format` is svg (the default), dot or text."""
        from minik8s.faas.workflow import drawing  # not at the top: most masters never draw, and all want to start soon

        form = call.query.get("format") or "svg"
        if form not in drawing.FORMS:
            raise BadRequest(f"format: {form[:40]!r} is none of {', '.join(drawing.FORMS)}")
        definition, events = await self._drawn(call)
        title = f"{call.info.namespace}/{call.info.name}"

        def draw() -> bytes:
            return drawing.FORMS[form](definition, drawing.marks(events), title).encode(errors="replace")

        headers = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
        content = "image/svg+xml" if form == "svg" else "text/plain; charset=utf-8"
        return ApiResponse(200, await asyncio.to_thread(draw), content, headers)

    async def _drawn(self, call: Call) -> tuple[Json, Sequence[Event]]:
        """The definition, and what a run did."""
        if call.info.resource == WORKFLOW.plural:
            workflow = await self._client.get(Workflow, call.info.name, call.info.namespace)
            return parsed(workflow.spec.definition), ()
        uid = await self._uid(call)
        found = await self._runner.history.find(uid)
        if found is None:
            raise NotFound(f'workflow run "{call.info.name}" has not begun')
        return msgspec.json.decode(found.definition), await self._runner.history.read(uid)

    async def stop(self, call: Call) -> ApiResponse:
        """Answers when it is durable that the run has ended."""
        uid = await self._uid(call)
        asked = _asked(call)
        error, cause = (_text(asked, field) for field in ("error", "cause"))
        run = self._runner.get(uid)
        if run is None:
            raise Conflict(f'workflow run "{call.info.name}" does not go on: there is nothing to stop')
        now = self._runner.clock
        await self._runner.report(uid, lambda execution: execution.abort(error, cause, now()))
        return _success()

    async def redrive(self, call: Call) -> ApiResponse:
        uid = await self._uid(call)
        if not await self._runner.redrive(uid):
            why = "only one that has failed, timed out or been stopped can be taken up where it broke off"
            raise Conflict(f'workflow run "{call.info.name}" cannot be redriven: {why}')
        return _success()

    async def _uid(self, call: Call) -> str:
        return (await self._client.get(WorkflowRun, call.info.name, call.info.namespace)).metadata.uid

    # -- tasks

    async def tasks(self, call: Call) -> ApiResponse:
        """list: what waits. create: fetch a task of an activity. update: report, by the token."""
        if call.info.verb == "list":
            shown = [_shown(run, task) for run, task in self._runner.tasks(call.info.namespace)]
            return json_response({"kind": "WorkflowTaskList", "apiVersion": VERSION, "metadata": {}, "items": shown})
        if not call.info.namespace:
            raise BadRequest("tasks are in a namespace: use the path of the namespace's collection")
        if call.info.verb == "create":
            return await self._take(call)
        return await self._report(call)

    async def _take(self, call: Call) -> ApiResponse:
        spec = _asked(call).get("spec") or {}
        activity, worker = _text(spec, "activity"), _text(spec, "workerName") or call.user.name
        if not resources.ACTIVITY.fullmatch(activity):
            raise BadRequest(f"spec.activity: {activity[:80]!r} cannot be the name of an activity")
        seconds = spec.get("waitSeconds", 60)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
            raise BadRequest("spec.waitSeconds: must be a number that is not negative")
        began = time.perf_counter()
        found = await self._tokens.take(call.info.namespace, activity, worker, seconds)
        nothing = {"kind": "WorkflowTask", "apiVersion": VERSION, "spec": spec, "status": {}}
        response = json_response(nothing if found is None else _shown(*found), 201)
        response.waited = time.perf_counter() - began
        return response

    async def _report(self, call: Call) -> ApiResponse:
        """`status`: `{phase: Succeeded, output}`, `{phase: Failed, error, cause}`, `{phase: Running}`: a heartbeat."""
        status = _asked(call).get("status") or {}
        namespace, token = call.info.namespace, call.info.name
        match status.get("phase") if isinstance(status, dict) else None:
            case "Succeeded":
                await self._tokens.succeed(namespace, token, status.get("output"))
            case "Failed":
                await self._tokens.fail(namespace, token, _text(status, "error"), _text(status, "cause"))
            case "Running":
                await self._tokens.heartbeat(namespace, token)
            case _:
                raise BadRequest("status.phase: must be Succeeded, Failed or Running")
        return _success()


def _shown(run: Run, task: Task) -> Json:
    meta: Json = {"name": task.token, "namespace": run.header.namespace}
    spec = {"run": run.header.name, "state": task.state, "resource": task.resource, "input": task.parameters}
    return {"kind": "WorkflowTask", "apiVersion": VERSION, "metadata": meta, "spec": spec,
            "status": {"token": task.token, "fetched": task.noted}}  # fmt: skip


def _asked(call: Call) -> Json:
    return body.decode_object(call.request.body) if call.request.body else {}


def _text(found: Json, field: str) -> str:
    value = found.get(field, "") if isinstance(found, dict) else None
    if not isinstance(value, str) or len(value) > 32_768:
        raise BadRequest(f"{field}: must be a string of at most 32768 characters")
    return value


def _number(text: Any, field: str, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise BadRequest(f"{field}: must be a number, not {text[:40]!r}")
    return int(text)


def _success() -> ApiResponse:
    return json_response({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)
