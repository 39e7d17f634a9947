"""Real-kernel tests run in a network namespace of their own: the machine's tables are never touched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from .kernel import Host, private_namespace


@pytest.fixture(scope="session")
def kernel() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make network namespaces")
    if shutil.which("nft") is None or shutil.which("ip") is None:
        pytest.skip("needs the packages nftables and iproute2")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not allow new network namespaces")


@pytest.fixture
def host(kernel: None) -> Iterator[Host]:
    with private_namespace():
        host = Host()
        try:
            yield host
        finally:
            host.close()
