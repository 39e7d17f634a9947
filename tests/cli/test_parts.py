"""`enable` and `disable`: parts of an agent, switched in the settings that its next start resumes with."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from minik8s.cli import cli
from minik8s.config import resume


def run(data: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--data-dir", str(data)])


def test_a_part_is_off_until_it_is_switched_on_again(tmp_path: Path) -> None:
    assert run(tmp_path, "disable", "dashboard").output == "dashboard disabled\n"
    assert resume({"data_dir": tmp_path}).dashboard_listen == "off"
    assert run(tmp_path, "disable", "dashboard").output == "dashboard is disabled already\n"
    assert run(tmp_path, "enable", "host-dns").output == "host-dns enabled\n"
    assert json.loads((tmp_path / "config.yaml").read_text()) == {"dashboardListen": "off", "hostDns": True}
    assert run(tmp_path, "enable", "dashboard").exit_code == 0
    assert json.loads((tmp_path / "config.yaml").read_text()) == {"hostDns": True}


def test_without_a_name_all_are_listed(tmp_path: Path) -> None:
    run(tmp_path, "disable", "ingress")
    listed = json.loads(run(tmp_path, "enable", "-o", "json").output)
    assert listed == {"dashboard": True, "functions": True, "gpu-jobs": True, "host-dns": False, "ingress": False,
                      "workflows": True}  # fmt: skip
    assert "ingress    disabled  nginx for" in run(tmp_path, "disable").output


def test_another_name_is_told_in_one_line(tmp_path: Path) -> None:
    failed = run(tmp_path, "enable", "dashbord")
    assert failed.exit_code == 1
    assert "dashboard" in failed.output
    assert not (tmp_path / "config.yaml").exists()
