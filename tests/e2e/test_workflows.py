"""A workflow on a real node: a Job whose end it waits for, then a request to a Service by its name."""

from __future__ import annotations

from tests.e2e.space import Space


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
