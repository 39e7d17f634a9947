"""A worker whose master is away: its pods go on, are supervised from the node's own cache, and are taken up again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.agent import Agent, run, until
from tests.e2e.space import FOREVER, Space, container, pod
from tests.images import docker_answers, make_images
from tests.kubectls import KUBECTLS

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.kubectl,
    pytest.mark.timeout(240, func_only=True),
]


def _containers(space: Space) -> dict[str, tuple[str, int]]:
    """Container name in the pod -> (id, pid), of those that run; sandboxes too."""
    label = f"label=io.kubernetes.pod.namespace={space.name}"
    ids = run(["docker", "ps", "-q", "--no-trunc", "--filter", label]).out.split()
    told: list[Any] = json.loads(run(["docker", "inspect", *ids], check=False).out) if ids else []
    return {c["Config"]["Labels"]["io.kubernetes.container.name"]: (c["Id"], c["State"]["Pid"]) for c in told}


def test_pods_are_supervised_while_the_master_is_away(tmp_path: Any) -> None:
    if not docker_answers() or not KUBECTLS:
        pytest.skip("needs a Docker Engine that answers, and kubectl")
    make_images("busybox")
    with Agent.lent("--role", "worker", "--node-name", "worker") as worker:
        master = Agent(tmp_path / "master", options=("--role", "master"))
        try:
            master.start()
            token = master.minik8s("token", "create", "--data-dir", str(master.data)).out.strip()
            worker.options += ("--join", f"127.0.0.1:{master.port}", "--token", token)
            worker.start()
            master.kubectl("wait", "--for=condition=Ready", "node/worker", "--timeout=60s")
            space = Space.make(master, "away")
            space.apply(pod("p", containers=[container(n, *FOREVER)
                                             for n in ("kept", "killed")]))  # fmt: skip
            space.wait("condition=Ready", "pod/p")
            before = _containers(space)
            until(lambda: list((worker.data / "kubelet").glob("cache*")))
            master.kill9()
            worker.restart()
            run(["docker", "kill", before["killed"][0]])
            until(lambda: _containers(space).get("killed", before["killed"]) != before["killed"])
            assert {k: v for k, v in _containers(space).items() if k != "killed"} == {
                k: v for k, v in before.items() if k != "killed"
            }
            master.start()
            space.until(
                "pod p", lambda p: sum(s["restartCount"] for s in p["status"]["containerStatuses"]) == 1, seconds=40
            )
            master.kubectl("wait", "--for=condition=Ready", "node/worker", "--timeout=40s")
            until(lambda: space.exec("p", "hostname", container="kept", check=False) == "p")
            space.k("delete", "pod", "p", seconds=40)
            until(lambda: not _containers(space))
        finally:
            if master.pid is not None:
                master.stop()
