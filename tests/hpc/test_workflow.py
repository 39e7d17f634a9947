"""GpuJobs as tasks of workflows, on a real Slurm."""

from __future__ import annotations

from typing import Any

import pytest

from minik8s.api.kinds.rbac import RoleBinding
from minik8s.api.kinds.workflow import Workflow
from minik8s.api.kinds.workflowrun import ENDED, WorkflowRun, WorkflowRunStatus
from tests.hpc.slurm import Lab, Slurm, lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


async def run(it: Lab, name: str, definition: Any, payload: Any) -> WorkflowRunStatus:
    await it.client.create(Workflow, {"metadata": {"name": name}, "spec": {"definition": definition}}, "default")
    spec = {"workflowRef": {"name": name}, "input": payload}
    await it.client.create(WorkflowRun, {"metadata": {"name": name}, "spec": spec}, "default")
    done = await it.it.until(WorkflowRun, lambda each: each.metadata.name == name and each.status.phase in ENDED,
                             seconds=60)  # fmt: skip
    return done.status


async def test_a_step_on_a_supercomputer(slurm: Slurm) -> None:
    async with lab(slurm) as it:
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
        binding = {"metadata": {"name": "runs"}, "roleRef": role, "subjects": [subject]}
        await it.client.create(RoleBinding, binding, "default")
        job = {"spec": {"run.$": "States.Array($.command)"}}
        definition = {
            "StartAt": "Train",
            "States": {
                "Train": {
                    "Type": "Task", "Resource": "gpujob.sync", "Parameters": job, "ResultPath": "$.job", "Next": "Good",
                    "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.why", "Next": "Bad"}],
                },
                "Good": {"Type": "Pass", "OutputPath": "$.job.status", "End": True},
                "Bad": {"Type": "Fail", "Error": "Training", "CausePath": "$.why.Cause"},
            },
        }  # fmt: skip
        good = await run(it, "good", definition, {"command": "echo trained"})
        assert good.phase == "Succeeded", good
        assert (good.output["phase"], good.output["exitCode"], bool(good.output["jobId"])) == ("Succeeded", 0, True)
        definition["States"]["Train"]["Resource"] = "k8s:gpujob.sync"
        bad = await run(it, "bad", definition, {"command": "exit 7"})
        assert (bad.phase, bad.error) == ("Failed", "Training")
        assert "NonZeroExit" in bad.cause
