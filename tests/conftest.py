"""Options of the whole suite, and its lanes: which tests may run side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# How long a single example takes says nothing on a machine that does other things as well.
settings.register_profile("minik8s", deadline=None)
settings.load_profile("minik8s")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also what takes minutes")
    parser.addoption("--update-goldens", action="store_true", help="rewrite golden files with what the code gives now")


# A host has room for one agent with real containers, for one lab host with the usual address and for one Slurm: who
# needs either goes one after the other. So do all that use the host's own engine: some look at everything that it has.
# By folder or file; every other file is a lane of its own.
LANES = {
    **dict.fromkeys(
        (
            "cli/test_cluster.py",
            "e2e",
            "faas/runtime/test_image.py",
            "faults",
            "host",
            "kubelet/devices/test_on_agent.py",
            "kubelet/streaming",
            "kubelet/test_on_docker.py",
            "net/test_dns_host.py",
            "runtime/test_contract.py",
            "runtime/test_docker.py",
        ),
        "host",
    ),
    "hpc/test_local.py": "lab",
    "multihost": "lab",
    "hpc": "slurm",
}
LONGEST = ("host", "lab")  # begin first


def lane(path: str) -> str:
    """Of a test file, by its path below tests/."""
    above = path
    while above not in LANES and above:
        above = above.rpartition("/")[0]
    return LANES.get(above, path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`pytest -n 2 --dist loadscope --no-loadscope-reorder` runs lanes side by side, each in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return lane(nodeid.partition("::")[0].removeprefix("tests/"))

    return Lanes(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    here = Path(__file__).parent
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(lane(item.path.relative_to(here).as_posix()), len(order)))
