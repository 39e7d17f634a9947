"""Workflows on a real agent, driven by the command line as people do; killed at many points, a run ends the same."""

from __future__ import annotations

import itertools
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minik8s.api.errors import NotFound, StatusError
from minik8s.cli.connection import Choice, Cluster
from minik8s.cli.wire import Unreachable
from minik8s.clock import parse_time
from tests.agent import Agent, Ended, until

EXAMPLES = Path(__file__).parents[2] / "configs" / "examples" / "workflows"
Json = dict[str, Any]
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def master() -> Iterator[Agent]:
    """A control plane without a node: it needs no containers, and leaves this host's network alone."""
    with tempfile.TemporaryDirectory(prefix="minik8s-wf-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIK8S_DASHBOARD_LISTEN", "off")
        agent = Agent(Path(folder) / "data", options=("--role", "master", "--node-ip", "127.0.0.1"))
        agent.start()
        try:
            yield agent
        finally:
            agent.kill9()


def wf(agent: Agent, *words: str, **more: Any) -> Ended:
    return agent.minik8s("wf", *words, **more)


def ask(agent: Agent, method: str, path: str, body: Any = None) -> Json:
    """What the server answers; without the half second that a process of its own costs."""
    cluster = Cluster(Choice(kubeconfig=str(agent.kubeconfig)), timeout=10)
    found: Json = json.loads(
        cluster.wire.call(method, f"/apis/faas.minik8s.io/v1/namespaces/default/{path}", body=body)
    )
    return found


def begin(agent: Agent, workflow: str, input: Any = None) -> str:
    name = f"{workflow}-{next(NUMBERS)}"
    spec = {"workflowRef": {"name": workflow}} | ({} if input is None else {"input": input})
    ask(agent, "POST", "workflowruns", {"metadata": {"name": name}, "spec": spec})
    return name


def status(agent: Agent, name: str) -> Json:
    found: Json = ask(agent, "GET", f"workflowruns/{name}").get("status") or {}
    return found


def result(agent: Agent, name: str) -> Json:
    """The status of a run once it has ended."""
    ended = ("Succeeded", "Failed", "Aborted", "TimedOut")
    return until(lambda: (found := status(agent, name)).get("phase") in ended and found)


def events(agent: Agent, name: str) -> list[Json]:
    return wf(agent, "history", name, "-o", "json").json  # type: ignore[no-any-return]


def token(agent: Agent, run: str) -> str:
    """Of the task for which a run waits, once it does."""
    tasks = until(lambda: [t for t in ask(agent, "GET", "workflowtasks")["items"] if t["spec"]["run"] == run])
    return str(tasks[0]["status"]["token"])


class Worker(threading.Thread):
    """Fetches tasks of an activity over the API, as a program would, and answers by `answer`; outlives the agent."""

    def __init__(self, agent: Agent, activity: str, answer: Callable[[Any], Any]) -> None:
        super().__init__(daemon=True)
        self.agent, self.activity, self.answer = agent, activity, answer
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        path = "/apis/faas.minik8s.io/v1/namespaces/default/workflowtasks"
        spec = {"activity": self.activity, "waitSeconds": 0.5}
        cluster = Cluster(Choice(kubeconfig=str(self.agent.kubeconfig)), timeout=5)
        while not self.ended.is_set():
            try:
                task = cluster.wire.send("POST", path, {"spec": spec})
                if token := task["status"].get("token"):
                    told = {"phase": "Succeeded", "output": self.answer(task["spec"]["input"])}
                    self._report(cluster, f"{path}/{token}", told)
            except (StatusError, Unreachable, OSError):
                self.ended.wait(0.05)

    def _report(self, cluster: Any, path: str, told: Json) -> None:
        while not self.ended.is_set():
            try:
                cluster.wire.send("PUT", path, {"status": told})
                return
            except NotFound:
                return  # was told before the agent died
            except (StatusError, Unreachable, OSError):
                self.ended.wait(0.05)

    def stop(self) -> None:
        self.ended.set()
        self.join(10)


@pytest.mark.kubectl
def test_every_example_is_taken_as_it_is(master: Agent) -> None:
    said = wf(master, "apply", "-f", str(EXAMPLES))
    assert {
        f"workflow/{name} created" for name in ("print", "branches", "approval", "map-reduce", "saga", "steps")
    } == set(said.out.splitlines())
    assert said.err.count("older dialect") == 2
    assert "unchanged" in wf(master, "apply", "-f", str(EXAMPLES / "saga.yaml")).out  # its null has stayed
    assert wf(master, "validate", str(EXAMPLES)).out.count("is valid") == 6
    assert "print" in master.kubectl("get", "wf").out


def test_steps(master: Agent) -> None:
    assert wf(master, "run", "steps", "--wait").json == {"double": 8, "same": 4, "size": "large"}
    assert wf(master, "run", "steps", "-w", "-i", '{"n": 1}').json["size"] == "small"


def test_lists_in_all_forms_and_names_that_complete(master: Agent) -> None:
    wf(master, "run", "steps", "--name", "shown", "--wait")
    assert "workflowrun.faas.minik8s.io/shown" in wf(master, "list", "steps", "-o", "name").out.splitlines()
    assert wf(master, "list", "-A").out.split()[0] == "NAMESPACE"
    assert wf(master, "get", "shown", "-o", "jsonpath={.status.phase}").out == "Succeeded"
    for verb, name in (("run", "steps"), ("history", "shown")):
        env = {"_MINIK8S_COMPLETE": "bash_complete", "COMP_WORDS": f"minik8s wf {verb} s", "COMP_CWORD": "3"}
        assert f"plain,{name}" in master.minik8s(env=env).out.splitlines()


@pytest.mark.parametrize("text", ["NaN", "[1", '"\\ud800"', "[" * 100_000])
def test_an_input_that_is_no_json_is_told(master: Agent, text: str) -> None:
    said = wf(master, "run", "steps", "-i", "-", stdin=text, check=False)
    assert said.code == 1
    assert said.err.startswith("error: --input: this is not JSON: ")


def test_classic_workflows_say_that_functions_are_missing(master: Agent) -> None:
    said = wf(master, "run", "print", "--wait", check=False)
    assert said.code == 1
    assert "Function.NotFound" in said.err


def test_a_fault_is_told_with_its_place(master: Agent) -> None:
    text = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "B"}}})
    for command in (("apply", "-"), ("validate", "-")):
        said = wf(master, *command, stdin=text, check=False)
        assert said.code == 1
        assert "/States/A/Next" in said.err
        assert "there is no state 'B'" in said.err


def test_approval(master: Agent) -> None:
    name = begin(master, "approval")
    mark = token(master, name)
    assert [name, "Approve", "manual.waitForTaskToken", "false", mark] in [
        row.split() for row in wf(master, "task", "list").out.splitlines()
    ]
    wf(master, "task", "succeed", mark, "-d", '{"ok": true}')
    assert result(master, name)["output"] == "paid"
    said = wf(master, "task", "succeed", mark, check=False)
    assert said.code == 1
    assert "no run of this namespace waits" in said.err


def test_stop_and_redrive(master: Agent) -> None:
    name = begin(master, "approval")
    mark = token(master, name)
    wf(master, "stop", name, "--error", "Enough")
    assert result(master, name)["error"] == "Enough"
    wf(master, "redrive", name)
    fresh = token(master, name)
    assert fresh != mark
    ask(master, "PUT", f"workflowtasks/{fresh}", {"status": {"phase": "Succeeded", "output": {"ok": True}}})
    done = until(lambda: (found := status(master, name))["phase"] == "Succeeded" and found)
    assert (done["output"], done["redrives"]) == ("paid", 1)


def test_a_saga_undoes_what_was_booked(master: Agent) -> None:
    name = begin(master, "saga", {})
    task = wf(master, "task", "get", "book-flight").json
    wf(master, "task", "succeed", task["token"], "-d", '"F1"')

    def answer(activity: str, told: Json) -> Any:
        task = ask(master, "POST", "workflowtasks", {"spec": {"activity": activity, "waitSeconds": 9}})
        ask(master, "PUT", f"workflowtasks/{task['status']['token']}", {"status": told})
        return task["spec"]["input"]

    for _ in range(3):
        answer("book-hotel", {"phase": "Failed", "error": "NoRoom", "cause": "full"})
    assert answer("cancel-flight", {"phase": "Succeeded"})["flight"] == "F1"
    done = result(master, name)
    assert (done["phase"], done["error"], done["cause"]) == ("Failed", "NoRoom", "full")


@pytest.mark.long
def test_a_run_survives_being_killed_anywhere(master: Agent) -> None:
    """A hundred tasks by workers, and the agent is killed again and again: the output is the same, nothing is lost."""
    done: list[int] = []
    workers = [
        Worker(master, "square", lambda n: done.append(n) or n * n),
        Worker(master, "square", lambda n: done.append(n) or n * n),
        Worker(master, "sum", sum),
    ]
    try:
        name = begin(master, "map-reduce")
        for share in (1, 40, 90):
            until(lambda share=share: len(done) >= share)
            master.kill9()
            master.start()
        found = result(master, name)
    finally:
        for worker in workers:
            worker.stop()
    assert found["output"] == sum(n * n for n in range(1, 101))
    kinds = [event["type"] for event in events(master, name)]
    assert kinds.count("MapIterationSucceeded") == 100  # each completed state once
    assert kinds.count("ActivitySucceeded") == 101
    assert kinds.count("ExecutionSucceeded") == 1


def test_timers_go_on_across_a_restart(master: Agent) -> None:
    text = json.dumps({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 3, "End": True}}})
    wf(master, "apply", "-", "--name", "wait", stdin=text)
    name = begin(master, "wait", {})
    until(lambda: status(master, name).get("currentStates") == ["W"])
    master.kill9()
    master.start()
    assert result(master, name)["phase"] == "Succeeded"
    told = events(master, name)
    entered, exited = (next(e for e in told if e["type"] == f"WaitState{what}") for what in ("Entered", "Exited"))
    assert 2.9 < parse_time(exited["timestamp"]) - parse_time(entered["timestamp"]) < 15


def test_removing(master: Agent) -> None:
    text = json.dumps({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 60, "End": True}}})
    wf(master, "apply", "-", "--name", "goes", stdin=text)
    begin(master, "goes", {})
    wf(master, "rm", "goes", "--runs")
    said = wf(master, "list", "goes")
    assert "No resources" in said.err
