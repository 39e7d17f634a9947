"""Options of the whole suite."""

from __future__ import annotations

import pytest
from hypothesis import settings

# How long a single example takes says nothing on a machine that does other things as well.
settings.register_profile("minik8s", deadline=None)
settings.load_profile("minik8s")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="rewrite golden files with what the code gives now")
