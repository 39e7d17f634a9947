"""The systemd unit of an agent, whatever its folder is called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from minik8s.roles import process


@pytest.mark.parametrize(
    ("folder", "written"),
    [
        ("/var/lib/minik8s", "/var/lib/minik8s"),
        ("/srv/my cluster", '"/srv/my cluster"'),
        ('/srv/a"b\\c', '"/srv/a\\"b\\\\c"'),
        ("/srv/100%", "/srv/100%%"),
        ("/srv/$HOME;x", '"/srv/$$HOME;x"'),
    ],
)
def test_a_unit_names_its_folder_as_systemd_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, written: str
) -> None:
    unit = tmp_path / "minik8s.service"
    monkeypatch.setattr(process, "UNIT_FILE", unit)
    monkeypatch.setattr(process, "_systemctl", lambda *words: None)
    process.install_unit(Path(folder))
    (line,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    assert line.endswith(f" -m minik8s run --data-dir {written}")
    if shutil.which("systemd-analyze") is not None:  # part of systemd itself, which needs not be here
        done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
        assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])
