"""Tasks that are objects of the cluster: made under a name that a repetition finds again, and watched to their end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from minik8s.aio import backoff
from minik8s.api.errors import AlreadyExists, Forbidden, Gone, NotFound, ServiceUnavailable, StatusError
from minik8s.api.kinds.workflowrun import RESOURCE as RUN
from minik8s.api.meta import Object
from minik8s.api.resource import Json, Resource
from minik8s.api.scheme import Scheme
from minik8s.client.base import Client
from minik8s.faas.run_log import Header
from minik8s.faas.workflow import errors
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.execution import Task

RUN_LABEL = "faas.minik8s.io/run"
DEPTH = "faas.minik8s.io/depth"  # annotation of a nested run: how many are above it
DEEPEST = 16
GOOD_PHASES = ("Succeeded", "Completed")
BAD_PHASES = ("Failed", "TimedOut", "Aborted", "Cancelled", "Lost")
GOOD_CONDITIONS, BAD_CONDITIONS = ("Complete", "Succeeded"), ("Failed",)


class Whole(Object):
    """Any object, to be watched: what of it counts is read from the API whole."""


def verdict(obj: Json) -> tuple[bool, str] | None:
    """(did it succeed, what it says of its failure) of an object that has ended: by its conditions, or its phase."""
    status = obj.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in (*GOOD_CONDITIONS, *BAD_CONDITIONS):
            said = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
            return condition["type"] in GOOD_CONDITIONS, said
    phase = status.get("phase")
    if phase in (*GOOD_PHASES, *BAD_PHASES):
        words = [phase, *(status.get(field) for field in ("error", "reason", "cause", "message"))]
        return phase in GOOD_PHASES, ": ".join(str(word) for word in words if word)
    return None


def kind_named(scheme: Scheme, name: str) -> Resource:
    """The kind `job`, `jobs`, `jobs.batch`. StateError if there is none."""
    for resource in scheme.resources:
        if name.lower() in (resource.kind.lower(), resource.plural, resource.name, *resource.shortNames):
            return resource
    raise StateError(errors.RUNTIME, f"there is no kind {name!r} in this cluster")


def named(run: Header, task: Task) -> str:
    """The same whenever the task is repeated, and another for each run and each attempt."""
    return f"{run.name[:36].rstrip('.-')}-{run.uid[:8]}-{task.id}"


def dressed(resource: Resource, run: Header, task: Task) -> Json:
    """The object that a task's parameters describe. StateError if they describe none."""
    parameters = task.parameters
    if not isinstance(parameters, dict) or not isinstance(parameters.get("metadata") or {}, dict):
        raise StateError(errors.RUNTIME, f"the parameters must be a {resource.kind}, such as {{spec: …}}")
    if not resource.namespaced:
        raise StateError(errors.RUNTIME, f"a {resource.kind} is in no namespace; workflows make only what is")
    given = parameters.get("metadata") or {}
    meta = {
        **{key: given[key] for key in ("labels", "annotations") if key in given},
        "name": named(run, task),
        "namespace": run.namespace,
        "ownerReferences": [owner(run)],
    }
    meta["labels"] = {**(meta.get("labels") or {}), RUN_LABEL: run.name[:63].rstrip(".-")}
    rest = {key: value for key, value in parameters.items() if key not in ("metadata", "status")}
    return {**rest, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}


def owner(run: Header) -> Json:
    return {"apiVersion": RUN.api_version, "kind": RUN.kind, "name": run.name, "uid": run.uid}


def nested(run: Header, task: Task, workflow: str, depth: int) -> Json:
    """A run below this one. StateError if it is too deep."""
    if depth >= DEEPEST:
        raise StateError(errors.RUNTIME, f"workflows run {depth} deep in one another: is there a circle?")
    spec: Json = {"workflowRef": {"name": workflow}, "input": task.parameters}
    if run.account:
        spec["serviceAccountName"] = run.account
    meta = {"name": named(run, task), "namespace": run.namespace, "ownerReferences": [owner(run)],
            "annotations": {DEPTH: str(depth + 1)}}  # fmt: skip
    return {"apiVersion": RUN.api_version, "kind": RUN.kind, "metadata": meta, "spec": spec}


async def make(client: Client, resource: Resource, obj: Json) -> Json:
    """Create it, or find it where a repetition has. StateError for what the cluster refuses."""
    meta = obj["metadata"]
    for delay in backoff():
        try:
            with suppress(AlreadyExists):
                await client.create(resource.type, obj, meta["namespace"])
            return await client.raw(resource, meta["name"], meta["namespace"])
        except ServiceUnavailable:
            await asyncio.sleep(delay)
        except StatusError as error:
            raise refused(error) from None
    raise AssertionError("backoff is endless")


def refused(error: StatusError) -> StateError:
    return StateError(errors.PERMISSIONS if isinstance(error, Forbidden) else errors.TASK_FAILED, error.message)


async def ended(client: Client, resource: Resource, obj: Json) -> Json:
    """The object when it has ended well. StateError if it fails, or is deleted."""
    meta = obj["metadata"]
    what = f"{resource.kind} {meta['name']}"
    for delay in backoff():
        try:
            found = await _followed(client, resource, meta)
        except (Gone, ServiceUnavailable):
            await asyncio.sleep(delay)
            continue
        except NotFound:
            raise StateError(errors.TASK_FAILED, f"{what} has been deleted") from None
        except StatusError as error:
            raise refused(error) from None
        if found is None:  # the watch has ended by itself
            continue
        good, said = verdict(found) or (False, "")
        if not good:
            raise StateError(errors.TASK_FAILED, f"{what} has failed: {said}")
        return found
    raise AssertionError("backoff is endless")


async def _followed(client: Client, resource: Resource, meta: Json) -> Json | None:
    name, namespace = meta["name"], meta["namespace"]
    obj = await client.raw(resource, name, namespace)
    if verdict(obj) is not None:
        return obj
    version = obj["metadata"]["resourceVersion"]
    fields = f"metadata.name={name}"
    async with client.watch(resource, Whole, namespace, after=version, fields=fields) as batches:
        async for batch in batches:
            if any(event.type != "BOOKMARK" for event in batch):
                obj = await client.raw(resource, name, namespace)
                if verdict(obj) is not None:
                    return obj
    return None
