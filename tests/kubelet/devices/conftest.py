from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: the address of a socket has room for 107 characters."""
    with tempfile.TemporaryDirectory(prefix="mk8s-") as folder:
        yield Path(folder)
