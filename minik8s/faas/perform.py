"""Who does the tasks: functions, HTTP endpoints, objects of the cluster; activities and tokens are left for others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from minik8s.api.kinds.job import RESOURCE as JOB
from minik8s.api.kinds.workflowrun import RESOURCE as RUN
from minik8s.client.base import Client
from minik8s.faas import chain, object_task, resources
from minik8s.faas.http_task import HttpTasks
from minik8s.faas.resources import Resource
from minik8s.faas.run_log import Header
from minik8s.faas.workflow import errors
from minik8s.faas.workflow.data import Json
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.execution import Task

Acting = Callable[[str, str], Client]  # (namespace, ServiceAccount) -> a client with its rights
Tail = Callable[[Client, Json], Awaitable[str]]  # the last lines that a Job's pod said before it failed


class Functions(Protocol):
    """The cluster's functions. `key` is the same when a call is repeated."""

    async def invoke(self, namespace: str, name: str, payload: Any, key: str) -> Any:
        """The answer. Raises StateError."""
        ...

    async def hop(self, namespace: str, name: str, payload: Any, key: str) -> tuple[str, Any]:
        """(function to which it hands over, parameters for that), or ("", the answer). Raises StateError."""
        ...


class NoFunctions:
    """Where functions are switched off."""

    async def invoke(self, namespace: str, name: str, payload: Any, key: str) -> Any:
        raise StateError(errors.TASK_FAILED, f"functions are not enabled: {namespace}/{name} cannot be called")

    async def hop(self, namespace: str, name: str, payload: Any, key: str) -> tuple[str, Any]:
        return "", await self.invoke(namespace, name, payload, key)


def key(run: Header, task: Task) -> str:
    """Names one attempt of one task of one run, for those who must not do the same twice."""
    return f"{run.uid}-{task.id}"


class Performer:
    def __init__(self, functions: Functions, http: HttpTasks, acting: Acting, tail: Tail) -> None:
        self.functions = functions
        self._http = http
        self._acting = acting
        self._tail = tail

    async def __call__(self, run: Header, task: Task) -> Any:
        resource = resources.parse(task.resource)  # was checked when the workflow was stored
        if resource.kind == "http":
            return await self._http.perform(resource.name, task.parameters, key(run, task))
        if resource.kind == "function":
            namespace, _, name = resource.name.rpartition("/")
            return await self.functions.invoke(namespace or run.namespace, name, task.parameters, key(run, task))
        if resource.kind == "invoke":
            hop = chain.asked(task.parameters)
            following, said = await self.functions.hop(run.namespace, resource.name, hop.params, key(run, task))
            return chain.outcome(hop, resource.name, following, said)
        client = self._acting(run.namespace, run.account)
        if resource.kind == "workflow":
            return await self._workflow(client, resource, run, task)
        return await self._object(client, resource, run, task)

    async def _workflow(self, client: Client, resource: Resource, run: Header, task: Task) -> Any:
        made = await object_task.make(client, RUN, object_task.nested(run, task, resource.name, run.depth))
        if not resource.sync:
            return {"name": made["metadata"]["name"]}
        done = await object_task.ended(client, RUN, made)
        return done["status"].get("output")

    async def _object(self, client: Client, resource: Resource, run: Header, task: Task) -> Any:
        kind = object_task.kind_named(client.scheme, resource.name)
        made = await object_task.make(client, kind, object_task.dressed(kind, run, task))
        if not resource.sync:
            return _result(made)
        try:
            return _result(await object_task.ended(client, kind, made))
        except StateError as error:
            said = await self._tail(client, made) if kind is JOB else ""
            if not said:
                raise
            raise StateError(error.error, f"{error.cause}; the last lines of its log:\n{said}") from None


def _result(obj: Json) -> Json:
    meta = {field: obj["metadata"][field] for field in ("name", "namespace", "uid")}
    return {"metadata": meta, "status": obj.get("status") or {}}
