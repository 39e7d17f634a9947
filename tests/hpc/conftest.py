"""One Slurm for all tests of this folder, on ports of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hpc.slurm import NEEDED, Slurm

PORT = int(os.environ.get("MINIK8S_SLURM_PORT", 25900))


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if missing or os.geteuid():
        pytest.skip(f"a Slurm of our own needs root, and {', '.join(missing) or 'nothing else'}")
    base = Path(tempfile.mkdtemp(prefix="minik8s-slurm-"))  # pytest's own folders are for root alone
    base.chmod(0o755)  # and its daemons run as users of their own
    made = Slurm(base, PORT)
    try:
        made.up()
        yield made
    finally:
        made.down()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def healthy(slurm: Slurm) -> Iterator[Slurm]:
    """A Slurm of which the test may break things: what does not run afterwards is started again."""
    yield slurm
    slurm.up()
    slurm.resume()
