"""One API server for all tests of the command line; each test has a namespace and a home of its own."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_harness import ROOT, Cli, TestServer

from minik8s.api.kinds.namespace import Namespace

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    server = TestServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cli(server: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    namespace = f"t{next(_numbers)}"
    server.ask(lambda client: client.create(Namespace, {"metadata": {"name": namespace}}))
    monkeypatch.chdir(tmp_path)
    return Cli(server, tmp_path, namespace)


@pytest.fixture(scope="session", params=["1.28", "1.37"])
def kubectl(request: pytest.FixtureRequest) -> Path:
    folder = subprocess.run([ROOT / "scripts" / "kubectl"], capture_output=True, text=True, timeout=300)
    binary = ROOT / ".venv" / "kubectl" / f"kubectl.{request.param}"
    if not binary.exists():
        pytest.skip(f"no kubectl: {folder.stderr.strip()[-200:]}")
    return binary
