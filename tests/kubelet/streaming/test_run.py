"""`kubectl run -it` with a whole kubelet below: the pod is made, attached to, and removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minik8s.api.errors import AlreadyExists
from minik8s.api.kinds.namespace import Namespace
from tests.images import BUSYBOX
from tests.kubelet.node import node
from tests.kubelet.streaming.cluster import Cluster
from tests.kubelet.streaming.test_kubectl import terminal

pytestmark = [pytest.mark.docker, pytest.mark.kubectl, pytest.mark.root]


async def test_run_interactively(docker: Cluster, kubectl: Path) -> None:
    for name in ("kube-node-lease", "kube-system"):
        try:
            await docker.client.create(Namespace, {"metadata": {"name": name}})
        except AlreadyExists:
            continue
    # There is no scheduler here, and nothing makes service accounts.
    spec = {"nodeName": "n1", "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
    asked = (
        "run",
        "-it",
        "--rm",
        "once",
        f"--image={BUSYBOX}",
        "--restart=Never",
        f"--overrides={json.dumps({'spec': spec})}",
    )
    async with node(docker.client, docker.runtime, None, name="n1", kubelet_port=docker.kubelet[1]):
        async with terminal(docker, kubectl, *asked, "--", "sh") as (screen, process):
            await screen.type(b"", until=b"# ")
            await screen.type(b"echo $((6*7)); exit 5\n", until=b"42\r\n")
            assert await process.wait() == 5
            assert b'pod "once" deleted' in screen.seen
