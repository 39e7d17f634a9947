"""What an agent does without until its API answers: each of these costs tens of milliseconds, and megabytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LATER = ("aiodocker", "aiohttp", "asyncssh", "google.protobuf", "grpclib", "rich", "ruamel", "minik8s.roles.node")
START = f"""
import sys
import minik8s.cli.agent, minik8s.roles.agent, minik8s.roles.master
from minik8s.config import load, resume, save
save(load({{"data_dir": sys.argv[1], "node_name": "a-node"}}))
assert resume({{"data_dir": sys.argv[1]}}).node_name == "a-node"
print(*[name for name in {LATER} if name in sys.modules])
"""


def test_the_api_answers_without_what_comes_later(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", START, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
