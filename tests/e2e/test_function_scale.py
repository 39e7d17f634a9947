"""From nothing to twenty pods and back under calls, while traffic is shifted and code changes: no call fails."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.agent import until
from tests.e2e.space import Space
from tests.e2e.test_gateway import call, load, pods

MOST, CLIENTS = 20, 24
SCALE = {"minReplicas": 0, "maxReplicas": MOST, "idleSeconds": 1}


def code(version: int) -> str:
    return f"import asyncio\n\nasync def main(params):\n    await asyncio.sleep(0.2)\n    return 'v{version}'\n"


def function(space: Space, version: int, most: int = MOST, **spec: object) -> None:
    resources = {"requests": {"cpu": "1m", "memory": "8Mi"}}
    space.apply({"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": {"name": "f"},
                 "spec": {"code": {"inline": code(version)}, "concurrency": 1, "resources": resources,
                          "scale": SCALE | {"maxReplicas": most}, **spec}})  # fmt: skip


def shares(space: Space) -> list[tuple[str, int]]:
    traffic = space.get("function.faas.minik8s.io", "f")["status"].get("traffic") or []
    return [(each["revision"], each["percent"]) for each in traffic]


@pytest.mark.long
@pytest.mark.timeout(500, func_only=True)
def test_twenty_pods_and_back_with_shifting_traffic_and_new_code(space: Space) -> None:
    function(space, 1)
    space.wait("condition=Ready", "function.faas.minik8s.io/f", seconds=120)
    until(lambda: not pods(space), seconds=60)
    began = time.monotonic()
    with load(space, CLIENTS) as answers:
        until(lambda: len(pods(space)) == MOST, seconds=150)
        grown = time.monotonic() - began
        for version in (2, 3):  # in place, in all of them
            function(space, version)
            until(lambda version=version: (200, f"v{version}") in answers, seconds=120)  # type: ignore[misc]
        for percent in (90, 50, 10):
            split = [{"revision": "f-00001", "percent": percent}, {"revision": "f-00003", "percent": 100 - percent}]
            function(space, 3, traffic=split)
            wanted = [(each["revision"], each["percent"]) for each in split]
            until(lambda wanted=wanted: shares(space) == wanted, seconds=60)  # type: ignore[misc]
            before = len(answers)
            until(lambda before=before: {"v1", "v3"} <= {text for _, text in answers[before:]}, seconds=60)  # type: ignore[misc]
        function(space, 3, most=1)
        until(lambda: len(pods(space)) == 1, seconds=120)
        function(space, 3)
        until(lambda: len(pods(space)) > 5, seconds=120)  # up again before it goes down for good
    until(lambda: not pods(space), seconds=120)
    print(f"{len(answers)} calls: {Counter(answers)}; {MOST} pods after {grown:.1f} s")
    assert {status for status, _ in answers} == {200}
    assert {text for _, text in answers} == {"v1", "v2", "v3"}
    assert call(space) == (200, "v3")
