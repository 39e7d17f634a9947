"""Options of the whole suite, and its lanes: which tests may run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# How long a single example takes says nothing on a machine that does other things as well.
settings.register_profile("minik8s", deadline=None)
settings.load_profile("minik8s")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also what takes minutes")
    parser.addoption("--update-goldens", action="store_true", help="rewrite golden files with what the code gives now")


# A host has room for one agent with real containers, and for one lab host with the usual address: who needs either
# goes one after the other. By folder or file.
LANES = {
    **dict.fromkeys(("e2e", "faults", "host", "kubelet/devices/test_on_agent.py", "net/test_dns_host.py"), "host"),
    "multihost": "lab",
}


def pytest_itemcollected(item: pytest.Item) -> None:
    """`pytest -n 2 --dist loadgroup` keeps each lane, and elsewhere each file with its fixtures, in one process."""
    place = item.path.relative_to(Path(__file__).parent)
    lane = LANES.get(place.parts[0]) or LANES.get(str(place)) or str(place)
    item.add_marker(pytest.mark.xdist_group(lane))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
