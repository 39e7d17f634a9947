"""Workflows on a whole cluster in memory: objects become runs, tasks are done, status and history tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from minik8s.api.errors import Conflict, Invalid, NotFound, StatusError
from minik8s.api.kinds.function import Function
from minik8s.api.kinds.job import Job
from minik8s.api.kinds.rbac import RoleBinding
from minik8s.api.kinds.workflow import RESOURCE, Workflow
from minik8s.api.kinds.workflowrun import ENDED, WorkflowRun
from minik8s.client.base import Client
from minik8s.faas.workflow.errors import StateError
from minik8s.metrics import REGISTRY
from minik8s.testing import Cluster, cluster

Json = dict[str, Any]
BASE = RESOURCE.base_path("default")
TASKS = BASE.replace("workflows", "workflowtasks")


class Functions:
    """Functions of the cluster that are Python ones."""

    def __init__(self, **functions: Callable[[Any], Any]) -> None:
        self.functions = functions
        self.calls: list[tuple[str, Any, str]] = []

    async def invoke(self, namespace: str, name: str, payload: Any, key: str) -> Any:
        self.calls.append((f"{namespace}/{name}", payload, key))
        return self.functions[name](payload)

    async def hop(self, namespace: str, name: str, payload: Any, key: str) -> tuple[str, Any]:
        """A function that returns a pair hands over."""
        said = await self.invoke(namespace, name, payload, key)
        return said if isinstance(said, tuple) else ("", said)


@pytest_asyncio.fixture
async def it() -> AsyncIterator[Cluster]:
    async with cluster(nodes=0, workflow_http_allow="127.0.0.0/8") as made:
        yield made


def one(state: Json, **more: Any) -> Json:
    return {"StartAt": "A", "States": {"A": {**state, "End": True}, **more}}


async def define(it: Cluster, name: str, definition: Json | str, **spec: Any) -> Workflow:
    return await it.client.create(
        Workflow, {"metadata": {"name": name}, "spec": {"definition": definition, **spec}}, "default"
    )


async def run(it: Cluster, workflow: str, name: str = "r", **spec: Any) -> WorkflowRun:
    body = {"metadata": {"name": name}, "spec": {"workflowRef": {"name": workflow}, **spec}}
    return await it.client.create(WorkflowRun, body, "default")


async def ended(it: Cluster, name: str = "r") -> WorkflowRun:
    return await it.until(WorkflowRun, lambda each: each.metadata.name == name and each.status.phase in ENDED)


async def call(it: Cluster, method: str, path: str, body: Any = None, **query: str) -> Json:
    data = b"" if body is None else msgspec.json.encode(body)
    answer: Json = msgspec.json.decode(await it.client.transport.request(method, path, query=query, body=data))
    return answer


async def fetch(it: Cluster, activity: str, wait: float = 5) -> Json:
    return await call(it, "POST", TASKS, {"spec": {"activity": activity, "workerName": "w", "waitSeconds": wait}})


async def test_a_run_ends_with_its_output_and_its_history(it: Cluster) -> None:
    definition = {
        "StartAt": "A",
        "States": {
            "A": {"Type": "Pass", "Result": {"n": 1, "none": None}, "ResultPath": "$.a", "Next": "B"},
            "B": {"Type": "Succeed"},
        },
    }
    made = await define(it, "w", definition, input={"x": None})
    await run(it, "w")
    done = await ended(it)
    assert done.status.phase == "Succeeded"
    assert done.status.output == {"x": None, "a": {"n": 1, "none": None}}
    assert done.status.workflowRevision == made.metadata.generation == 1
    assert done.status.completionTime >= done.status.startTime
    path = f"{BASE.replace('workflows', 'workflowruns')}/r/history"
    history = await call(it, "GET", path, limit="2")
    assert [event["type"] for event in history["events"]] == ["ExecutionStarted", "PassStateEntered"]
    rest = await call(it, "GET", path, **{"continue": history["metadata"]["continue"]})
    assert [event["id"] for event in rest["events"]] == [3, 4, 5, 6]
    assert "continue" not in rest["metadata"]
    assert rest["events"][-1]["details"] == {"output": done.status.output}


async def test_a_definition_may_be_the_text_of_it(it: Cluster) -> None:
    text = msgspec.json.encode(one({"Type": "Pass", "ResultPath": None})).decode()
    made = await define(it, "w", text)
    columns = {column.name: column.cell(msgspec.to_builtins(made), 0.0) for column in RESOURCE.columns}
    assert (columns["Start"], columns["States"]) == ("A", 1)
    await run(it, "w", input={"x": None})
    assert (await ended(it)).status.output == {"x": None}
    with pytest.raises(StatusError, match="the text is not JSON"):
        await define(it, "broken", text[:-1])


async def test_faults_of_a_definition_are_causes_with_their_fields(it: Cluster) -> None:
    with pytest.raises(Invalid) as refused:
        await define(it, "w", {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "ftp:x", "Next": "B"}}})
    fields = {cause["field"] for cause in refused.value.details["causes"]}
    assert fields == {"spec.definition/States/A/Resource", "spec.definition/States/A/Next"}
    with pytest.raises(Invalid, match="not JSON"):
        await define(it, "w", "{")
    await define(it, "w", '{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}')


async def test_a_run_of_nothing_fails_and_says_so(it: Cluster) -> None:
    await run(it, "nothing")
    assert "no workflow 'nothing'" in (await ended(it)).status.cause


async def test_functions_are_called_with_a_key(it: Cluster) -> None:
    assert it.master.workflows is not None
    functions = it.master.workflows.performer.functions = Functions(add=lambda p: {"x": p["x"] + 5})
    await define(it, "w", one({"Type": "Task", "Resource": "add"}))
    made = await run(it, "w", input={"x": 5})
    assert (await ended(it)).status.output == {"x": 10}
    assert functions.calls == [("default/add", {"x": 5}, f"{made.metadata.uid}-3")]


async def test_without_the_function_the_error_is_clear(it: Cluster) -> None:
    await define(it, "w", one({"Type": "Task", "Resource": "add"}))
    await run(it, "w")
    status = (await ended(it)).status
    assert (status.phase, status.error) == ("Failed", "Function.NotFound")
    assert 'no function "add"' in status.cause


async def test_a_map_over_a_hundred_items(it: Cluster) -> None:
    assert it.master.workflows is not None
    it.master.workflows.performer.functions = Functions(square=lambda n: n * n, total=sum)
    each = {"StartAt": "S", "States": {"S": {"Type": "Task", "Resource": "square", "End": True}}}
    definition = {
        "StartAt": "M",
        "States": {
            "M": {"Type": "Map", "ItemProcessor": each, "MaxConcurrency": 10, "Next": "R"},
            "R": {"Type": "Task", "Resource": "total", "End": True},
        },
    }
    await define(it, "w", definition)
    await run(it, "w", input=list(range(100)))
    assert (await ended(it)).status.output == sum(n * n for n in range(100))


async def test_a_saga_retries_and_undoes(it: Cluster) -> None:
    undone: list[str] = []

    def broken(payload: Any) -> Any:
        raise StateError("NoRoom", "the hotel is full")

    assert it.master.workflows is not None
    functions = Functions(flight=lambda p: "F1", hotel=broken, cancel=lambda p: undone.append(p["Flight"]))
    it.master.workflows.performer.functions = functions
    definition = {
        "StartAt": "Flight",
        "States": {
            "Flight": {"Type": "Task", "Resource": "flight", "ResultPath": "$.Flight", "Next": "Hotel"},
            "Hotel": {
                "Type": "Task", "Resource": "hotel", "End": True,
                "Retry": [{"ErrorEquals": ["NoRoom"], "MaxAttempts": 1, "IntervalSeconds": 1, "BackoffRate": 1}],
                "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.why", "Next": "Undo"}],
            },
            "Undo": {"Type": "Task", "Resource": "cancel", "ResultPath": None, "Next": "Failed"},
            "Failed": {"Type": "Fail", "ErrorPath": "$.why.Error", "CausePath": "$.why.Cause"},
        },
    }  # fmt: skip
    await define(it, "w", definition)
    await run(it, "w", input={})
    status = (await ended(it)).status
    assert (status.phase, status.error, status.cause) == ("Failed", "NoRoom", "the hotel is full")
    assert undone == ["F1"]
    assert [name for name, _, _ in functions.calls].count("default/hotel") == 2


async def test_an_activity_is_fetched_and_reported(it: Cluster) -> None:
    await define(it, "w", one({"Type": "Task", "Resource": "activity:approve", "HeartbeatSeconds": 60}))
    waiting = asyncio.create_task(fetch(it, "approve"))  # before there is anything to do
    await run(it, "w", input={"sum": 7})
    task = await waiting
    assert (task["spec"]["input"], task["spec"]["run"], task["spec"]["state"]) == ({"sum": 7}, "r", "A")
    token = task["status"]["token"]
    assert await call(it, "GET", TASKS) == {
        "kind": "WorkflowTaskList", "apiVersion": "faas.minik8s.io/v1", "metadata": {},
        "items": [{**task, "status": {"token": token, "fetched": True}}],
    }  # fmt: skip
    assert (await fetch(it, "approve", 0))["status"] == {}  # nobody else gets it
    await call(it, "PUT", f"{TASKS}/{token}", {"status": {"phase": "Running"}})
    forged = f"{token[:-1]}{'0' if token[-1] != '0' else '1'}"
    for wrong in (forged, "x", "a.b.c", token.replace(".3.", ".4.")):
        with pytest.raises(NotFound):
            await call(it, "PUT", f"{TASKS}/{wrong}", {"status": {"phase": "Succeeded"}})
    await call(it, "PUT", f"{TASKS}/{token}", {"status": {"phase": "Succeeded", "output": {"ok": True}}})
    assert (await ended(it)).status.output == {"ok": True}
    with pytest.raises(NotFound):
        await call(it, "PUT", f"{TASKS}/{token}", {"status": {"phase": "Failed", "error": "Late"}})


async def test_somebody_approves_by_token(it: Cluster) -> None:
    state = {"Type": "Task", "Resource": "manual.waitForTaskToken", "Parameters": {"for.$": "$.who"}}
    await define(it, "w", one(state))
    await run(it, "w", input={"who": "ann"})
    await it.until(WorkflowRun, lambda each: each.status.currentStates == ("A",))
    (task,) = (await call(it, "GET", TASKS))["items"]
    assert task["spec"]["input"] == {"for": "ann"}
    refusal = {"status": {"phase": "Failed", "error": "Refused", "cause": "no money"}}
    await call(it, "PUT", f"{TASKS}/{task['metadata']['name']}", refusal)
    status = (await ended(it)).status
    assert (status.error, status.cause) == ("Refused", "no money")


async def offered(it: Cluster) -> dict[str, list[str]]:
    found = msgspec.json.decode(await it.client.transport.request("GET", "/apis/faas.minik8s.io/v1"))
    return {each["name"]: each["verbs"] for each in found["resources"]}


async def test_what_is_offered_is_answered(it: Cluster) -> None:
    assert (await offered(it))["workflowtasks"] == ["create", "list", "update"]
    await define(it, "w", one({"Type": "Task", "Resource": "manual.waitForTaskToken"}))
    await run(it, "w")
    await it.until(WorkflowRun, lambda each: each.status.currentStates == ("A",))
    everywhere = "/apis/faas.minik8s.io/v1/workflowtasks"
    assert (await call(it, "GET", everywhere))["items"] == (await call(it, "GET", TASKS))["items"] != []
    assert (await call(it, "GET", TASKS.replace("default", "other")))["items"] == []
    with pytest.raises(StatusError, match="in a namespace"):
        await call(it, "POST", everywhere, {"spec": {"activity": "a"}})


async def test_what_is_switched_off_is_not_offered() -> None:
    async with cluster(nodes=0, workflows=False, functions=False) as it:
        found = await offered(it)
        assert "workflowtasks" not in found
        assert "workflows" in found  # objects are kept all the same
        with pytest.raises(NotFound):
            await call(it, "GET", TASKS)


async def test_stop_and_redrive(it: Cluster) -> None:
    definition = {
        "StartAt": "First",
        "States": {
            "First": {"Type": "Pass", "Result": 1, "ResultPath": "$.one", "Next": "Wait"},
            "Wait": {"Type": "Task", "Resource": "activity:slow", "End": True},
        },
    }
    await define(it, "w", definition)
    await run(it, "w", input={})
    await it.until(WorkflowRun, lambda each: each.status.currentStates == ("Wait",))
    path = f"{BASE.replace('workflows', 'workflowruns')}/r"
    with pytest.raises(Conflict, match="cannot be redriven"):
        await call(it, "POST", f"{path}/redrive", {})
    await call(it, "POST", f"{path}/stop", {"error": "Enough", "cause": "too slow"})
    status = (await ended(it)).status
    assert (status.phase, status.error, status.cause) == ("Aborted", "Enough", "too slow")
    with pytest.raises(Conflict, match="nothing to stop"):
        await call(it, "POST", f"{path}/stop")
    await call(it, "POST", f"{path}/redrive")
    task = await fetch(it, "slow")
    await call(it, "PUT", f"{TASKS}/{task['status']['token']}", {"status": {"phase": "Succeeded", "output": 2}})
    done = await it.until(WorkflowRun, lambda each: each.status.phase == "Succeeded")
    assert (done.status.output, done.status.redrives, done.status.error) == (2, 1, "")
    types = [event["type"] for event in (await call(it, "GET", f"{path}/history"))["events"]]
    assert types.count("PassStateEntered") == 1  # what was done stays done
    assert types.count("ExecutionRedriven") == 1


async def allow(it: Cluster, role: str) -> None:
    await it.client.create(
        RoleBinding,
        {
            "metadata": {"name": "runs"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
        },
        "default",
    )


async def test_nested_workflows_have_the_rights_of_the_account(it: Cluster) -> None:
    await define(it, "inner", one({"Type": "Pass", "Parameters": {"doubled.$": "States.MathAdd($.n, $.n)"}}))
    await define(it, "outer", one({"Type": "Task", "Resource": "workflow:inner.sync"}))
    await run(it, "outer", input={"n": 4})
    status = (await ended(it)).status
    assert status.error == "States.Permissions"
    assert "workflowruns" in status.cause
    await allow(it, "edit")
    await run(it, "outer", "again", input={"n": 4})
    done = await ended(it, "again")
    assert (done.status.phase, done.status.output) == ("Succeeded", {"doubled": 8})
    names = [each.metadata.name for each in (await it.client.list(WorkflowRun, "default")).items]
    assert len(names) == 3


async def test_a_workflow_that_runs_itself_comes_to_an_end(it: Cluster) -> None:
    await define(it, "w", one({"Type": "Task", "Resource": "workflow:w.sync"}))
    await allow(it, "edit")
    await run(it, "w")
    assert "is there a circle?" in (await ended(it)).status.cause


async def test_a_deleted_run_is_forgotten(it: Cluster) -> None:
    assert it.master.workflows is not None
    runner = it.master.workflows.runner
    await define(it, "w", one({"Type": "Wait", "Seconds": 1000}))
    made = await run(it, "w")
    await it.until(WorkflowRun, lambda each: each.status.phase == "Running")
    await it.client.delete(WorkflowRun, "r", "default")
    async with asyncio.timeout(5):
        while runner.get(made.metadata.uid) is not None or await runner.history.all():
            await asyncio.sleep(0)
    await run(it, "w")  # another one of the same name
    await it.until(WorkflowRun, lambda each: each.status.phase == "Running")


async def test_a_run_cannot_be_changed(it: Cluster) -> None:
    await define(it, "w", one({"Type": "Wait", "Seconds": 1000}))
    await run(it, "w", input={"x": 1})
    with pytest.raises(StatusError, match="immutable"):
        await it.client.patch(WorkflowRun, "r", "default", {"spec": {"input": {"x": 2}}})


async def test_objects_are_made_and_followed_to_their_end(it: Cluster) -> None:
    await allow(it, "edit")
    job = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}
    await define(it, "w", one({"Type": "Task", "Resource": "k8s:job.sync", "Parameters": job}))
    await run(it, "w")
    made = await it.until(Job, lambda each: True, "default")
    assert made.metadata.ownerReferences[0].name == "r"
    told = {"status": {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}}
    await it.client.patch(Job, made.metadata.name, "default", told, subresource="status")
    status = (await ended(it)).status
    assert status.phase == "Succeeded", status
    assert status.output["metadata"]["name"] == made.metadata.name


async def test_a_job_that_fails_is_told_with_its_last_words(it: Cluster) -> None:
    assert it.master.workflows is not None

    async def tail(client: Client, job: Json) -> str:
        return f"Traceback of {job['kind']}"

    it.master.workflows.performer._tail = tail
    await allow(it, "edit")
    job = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}
    await define(it, "w", one({"Type": "Task", "Resource": "k8s:job.sync", "Parameters": job}))
    await run(it, "w")
    made = await it.until(Job, lambda each: True, "default")
    told = {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}}
    await it.client.patch(Job, made.metadata.name, "default", told, subresource="status")
    status = (await ended(it)).status
    assert (status.phase, status.error) == ("Failed", "States.TaskFailed")
    assert "has failed: BackoffLimitExceeded; the last lines of its log:\nTraceback of Job" in status.cause


def counted() -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in REGISTRY.lines() if line.startswith("workflow_"))
    return {name: float(value) for name, value in lines}


async def test_what_runs_do_is_counted(it: Cluster) -> None:
    before = counted()
    assert it.master.workflows is not None
    it.master.workflows.performer.functions = Functions(add=lambda p: p["x"] + 5)
    await define(it, "w", one({"Type": "Task", "Resource": "add"}))
    await run(it, "w", "good", input={"x": 1})
    await ended(it, "good")
    await define(it, "v", one({"Type": "Task", "Resource": "manual.waitForTaskToken"}))
    await run(it, "v", "waits")
    await it.until(WorkflowRun, lambda each: each.status.currentStates == ("A",))
    now = counted()

    def more(name: str) -> float:
        return now[name] - before.get(name, 0)

    assert more("workflow_transitions_total") == 2
    assert more('workflow_runs_ended_total{phase="Succeeded"}') == 1
    assert more('workflow_task_duration_seconds_count{kind="function",outcome="succeeded"}') == 1
    assert now['workflow_runs{phase="Running"}'] == now['workflow_runs{phase="Succeeded"}'] == 1
    assert b"workflow_transitions_total" in await it.client.transport.request("GET", "/metrics")


async def test_a_run_is_drawn(it: Cluster) -> None:
    await define(it, "w", one({"Type": "Pass"}))
    await run(it, "w")
    await ended(it)
    path = f"{BASE.replace('workflows', 'workflowruns')}/r/graph"
    drawn = await it.client.transport.request("GET", path)
    assert drawn.startswith(b"<svg ")
    assert b'data-state="A" data-status="succeeded"' in drawn
    assert b"A [Pass]" in await it.client.transport.request("GET", path, query={"format": "text"})
    with pytest.raises(StatusError, match="none of svg, dot, text"):
        await it.client.transport.request("GET", path, query={"format": "gif"})


async def test_a_function_and_those_it_hands_over_to_are_a_run(it: Cluster) -> None:
    for name, invokes in (("a", ["b", "c"]), ("b", ["c", "gone"]), ("c", ["a"])):
        code = {"inline": "def main(params):\n    return params\n"}
        await it.client.create(Function, {"metadata": {"name": name}, "spec": {"code": code, "invokes": invokes}},
                               "default")  # fmt: skip
    assert it.master.workflows is not None
    hands = Functions(a=lambda p: ("b", {"n": p["n"] + 1}), b=lambda p: ("c", p), c=lambda p: p["n"] or ("a", {}))
    it.master.workflows.performer.functions = hands
    for name, given in (("r", {"n": 1}), ("circle", {"n": -1})):
        body = {"metadata": {"name": name}, "spec": {"functionRef": {"name": "a"}, "input": given}}
        await it.client.create(WorkflowRun, body, "default")
    assert (await ended(it)).status.output == 2
    runs = BASE.replace("workflows", "workflowruns")
    events = (await call(it, "GET", f"{runs}/r/history"))["events"]
    hops = [event["details"] for event in events if event["type"] == "TaskStateExited"]
    assert [(each["name"], each["output"]) for each in hops] == [
        ("a", {"next": "b", "params": {"n": 2}, "chain": ["a"]}),
        ("b", {"next": "c", "params": {"n": 2}, "chain": ["a", "b"]}),
        ("c", {"next": "", "response": 2}),
    ]
    drawn = await it.client.transport.request("GET", f"{runs}/r/graph", query={"format": "text"})
    assert "✓→ a [Task]" in drawn.decode()
    assert "✓  c [Task]" in drawn.decode()
    assert "   gone [Task]" in drawn.decode()  # might have been
    circle = (await ended(it, "circle")).status
    assert (circle.phase, circle.error, circle.cause) == (
        "Failed", "Function.InvokeError", "a cycle: a -> b -> c -> a")  # fmt: skip
    hands.functions["c"] = lambda p: "mended"
    await call(it, "POST", f"{runs}/circle/redrive", {})
    done = await it.until(WorkflowRun, lambda each: each.metadata.name == "circle" and each.status.redrives == 1
                          and each.status.phase in ENDED)  # fmt: skip
    assert done.status.output == "mended"
    assert sorted(name for name, _, _ in hands.calls) == [f"default/{name}" for name in "aabbccc"]


async def test_a_run_of_both_of_neither_and_of_no_function_is_refused(it: Cluster) -> None:
    both = {"workflowRef": {"name": "w"}, "functionRef": {"name": "f"}}
    for spec, field in (({}, "workflowRef"), (both, "functionRef")):
        with pytest.raises(Invalid, match=rf"spec\.{field}\.name"):
            await it.client.create(WorkflowRun, {"metadata": {"name": "x"}, "spec": spec}, "default")
    body = {"metadata": {"name": "r"}, "spec": {"functionRef": {"name": "nobody"}}}
    await it.client.create(WorkflowRun, body, "default")
    assert "there is no function 'nobody'" in (await ended(it)).status.cause
