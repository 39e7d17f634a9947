"""Which link is missing on the way from a GPU to a pod."""

from __future__ import annotations

import pytest

from minik8s.cli.diagnosis import BAD, GOOD
from minik8s.cli.doctor_gpu import GpuFacts, findings

WELL = GpuFacts(
    cards=1, driver="550.54", nodes=1, smi="GPU 0: H200", toolkit=True, runtimes=("nvidia", "runc"), folder="/p",
    listening=True, sockets=("nvidia.sock",), plugin="Registered", capacity="1", allocatable="1",
)  # fmt: skip


def test_all_is_well() -> None:
    assert {finding.state for finding in findings(WELL)} == {GOOD}


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        ({"cards": 0, "nodes": 0}, "card"),
        ({"driver": ""}, "driver"),
        ({"smi": "", "smi_fault": "Driver/library version mismatch"}, "nvidia-smi"),
        ({"toolkit": False}, "toolkit"),
        ({"runtimes": ("runc",)}, "docker"),
        ({"listening": False}, "socket"),
        ({"plugin": "Missing"}, "registration"),
        ({"plugin": ""}, "registration"),
        ({"allocatable": "0"}, "capacity"),
        ({"cluster_fault": "refused"}, "registration"),
    ],
)
def test_one_link_is_missing(broken: dict[str, object], check: str) -> None:
    (found,) = [finding for finding in findings(WELL._replace(**broken)) if finding.state != GOOD]  # type: ignore[arg-type]
    assert found.check == check
    assert found.remedy


def test_a_machine_without_anything() -> None:
    found = list(findings(GpuFacts(smi_fault="nvidia-smi is not in PATH")))
    assert found[0].state == BAD
    assert [finding.check for finding in found][:3] == ["card", "driver", "nvidia-smi"]
