from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faas.runtime.pod import Pod, pod


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """One for a whole file: revisions do not know each other."""
    with pod(tmp_path_factory.mktemp("pod")) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Pod]:
    """One for a test that does something to the supervisor."""
    with pod(tmp_path) as made:
        yield made
