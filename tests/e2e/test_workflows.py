"""Workflows on a real node: Jobs, requests to a Service by its name, functions; and calls that nobody waits for."""

from __future__ import annotations

import json
from pathlib import Path

from tests.agent import Ended, until
from tests.e2e.space import Space

EXAMPLES = Path(__file__).parents[2] / "configs" / "examples" / "functions"


def test_a_job_and_a_service_are_tasks(space: Space) -> None:
    container = {"name": "c", "image": "minik8s.test/busybox:1", "command": ["sh", "-c", "exit 0"]}
    job = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}}
    space.k("create", "rolebinding", "runs", "--clusterrole=edit", f"--serviceaccount={space.name}:default")
    space.pod("web", "sh", "-c", "mkdir /w && echo '{\"well\": true}' > /w/index.html && httpd -f -p 8080 -h /w",
              labels={"app": "web"})  # fmt: skip
    space.k("expose", "pod", "web", "--port=80", "--target-port=8080")
    states = {
        "Job": {"Type": "Task", "Resource": "k8s:job.sync", "Parameters": job, "TimeoutSeconds": 60, "Next": "Ask"},
        "Ask": {
            "Type": "Task",
            "Resource": f"http://web.{space.name}.svc.cluster.local/",
            "Parameters": {"Method": "GET"},
            "Retry": [{"ErrorEquals": ["States.Http.Socket"], "IntervalSeconds": 1, "MaxAttempts": 5}],
            "ResultSelector": {"said.$": "$.ResponseBody"},
            "End": True,
        },
    }
    api = "faas.minik8s.io/v1"
    workflow = {"apiVersion": api, "kind": "Workflow", "metadata": {"name": "w"},
                "spec": {"definition": {"StartAt": "Job", "States": states}}}  # fmt: skip
    run = {"apiVersion": api, "kind": "WorkflowRun", "metadata": {"name": "r"}, "spec": {"workflowRef": {"name": "w"}}}
    space.apply(workflow, run)
    found = space.until("wfr r", lambda run: run.get("status", {}).get("completionTime"), seconds=40)
    assert found["status"]["phase"] == "Succeeded", found["status"]
    assert found["status"]["output"] == {"said": {"well": True}}
    assert [each["reason"] for each in space.events("Succeeded", name="r")] == ["Succeeded"]


def example(space: Space, name: str, *functions: str) -> None:
    space.agent.minik8s("-n", space.name, "apply", "-f", str(EXAMPLES / name))
    for function in functions:
        space.wait("condition=Ready", f"function.faas.minik8s.io/{function}", seconds=40)


def wf(space: Space, *words: str, check: bool = True) -> Ended:
    return space.agent.minik8s("-n", space.name, "wf", *words, check=check)


def test_a_hundred_items_are_squared_and_added_up(space: Space) -> None:
    example(space, "map-reduce.yaml", "squared", "total")
    assert wf(space, "run", "squares", "--wait").json == {"total": sum(n * n for n in range(1, 101))}


def test_a_trip_is_booked_or_cancelled(space: Space) -> None:
    example(space, "saga.yaml", "book-flight", "book-hotel", "cancel-flight")
    good = wf(space, "run", "trip", "--wait", "-i", '{"nights": 3}').json
    assert (good["flight"], good["hotel"]) == ({"booking": "F-3"}, {"booking": "H-3"})
    bad = wf(space, "run", "trip", "--wait", "-i", '{"nights": 30}', check=False)
    assert bad.code == 1
    assert "NoRoom" in bad.err
    runs = space.get("workflowruns")
    (failed,) = [run for run in runs if run["status"]["phase"] == "Failed"]
    assert json.loads(failed["status"]["cause"])["errorMessage"] == "nobody has a room for 30 nights"
    said = wf(space, "history", failed["metadata"]["name"], "-o", "json").json
    entered = [each["details"]["name"] for each in said if each["type"].endswith("StateEntered")]
    assert entered == ["Flight", "Hotel", "CancelFlight", "Failed"]


def test_somebody_approves_what_a_function_has_asked(space: Space) -> None:
    example(space, "approval.yaml", "ask", "pay")
    space.apply({"apiVersion": "faas.minik8s.io/v1", "kind": "WorkflowRun", "metadata": {"name": "r"},
                 "spec": {"workflowRef": {"name": "order"}}})  # fmt: skip
    asked = until(lambda: [r for r in wf(space, "task", "list").out.splitlines() if r.split()[-2:-1] == ["true"]])
    wf(space, "task", "succeed", asked[0].split()[-1], "-d", '{"approved": true}')
    found = space.until("wfr r", lambda run: run.get("status", {}).get("completionTime"), seconds=40)
    assert found["status"]["output"] == {"paid": 100}


def test_a_job_that_fails_tells_its_last_words(space: Space) -> None:
    container = {
        "name": "c",
        "image": "minik8s.test/busybox:1",
        "command": ["sh", "-c", "echo the disk is full; exit 3"],
    }
    job = {"spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}}
    space.k("create", "rolebinding", "runs", "--clusterrole=edit", f"--serviceaccount={space.name}:default")
    states = {"J": {"Type": "Task", "Resource": "k8s:job.sync", "Parameters": job, "End": True}}
    api = "faas.minik8s.io/v1"
    workflow = {"apiVersion": api, "kind": "Workflow", "metadata": {"name": "w"},
                "spec": {"definition": {"StartAt": "J", "States": states}}}  # fmt: skip
    run = {"apiVersion": api, "kind": "WorkflowRun", "metadata": {"name": "r"}, "spec": {"workflowRef": {"name": "w"}}}
    space.apply(workflow, run)
    found = space.until("wfr r", lambda run: run.get("status", {}).get("completionTime"), seconds=40)
    assert found["status"]["phase"] == "Failed", found["status"]
    assert found["status"]["cause"].endswith("the last lines of its log:\nthe disk is full")


def test_calls_that_nobody_waits_for(space: Space) -> None:
    example(space, "later.yaml", "flaky", "journal")
    path = f"/apis/faas.minik8s.io/v1/namespaces/{space.name}/functions/flaky"

    def send(payload: str) -> str:
        return str(
            json.loads(space.agent.kubectl("create", "--raw", f"{path}/calls", "-f", "-", stdin=payload).out)["id"]
        )

    def phase(id: str) -> str:
        return str(space.agent.kubectl("get", "--raw", f"{path}/calls/{id}").json["status"]["phase"])

    good, bad = send('{"order": 7}'), send('{"bad": true}')
    until(lambda: phase(good) == "Succeeded" and phase(bad) == "DeadLetter", seconds=60)
    letters = space.agent.kubectl("get", "--raw", f"{path}/deadletters").json["items"]
    assert [(each["metadata"]["name"], each["status"]["attempts"]) for each in letters] == [(bad, 2)]
    assert letters[0]["status"]["error"] == "ValueError"
    said = until(lambda: (found := space.out("logs", "-l", "faas.minik8s.io/function=journal", "--tail=-1")).count("\n")
                 >= 1 and found, seconds=30)  # fmt: skip
    assert "Success {'order': 7} {'done': 7}" in said
    assert "RetriesExhausted {'bad': True}" in said
