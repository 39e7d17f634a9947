"""Functions on several hosts: what they require comes to the node that runs them, every gateway leads there."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from tests.agent import until
from tests.e2e.space import Space
from tests.multihost.cluster import Cluster

API = "faas.minik8s.io/v1"
CODE = "import greeting\n\n\ndef main(params):\n    return greeting.WORDS\n"


def test_an_environment_follows_pods_to_their_nodes(cluster: Cluster, space: Space, tmp_path: Path) -> None:
    info = "greeting-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "greeting-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("greeting.py", "WORDS = 'from afar'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    # The hosts share this machine's disk; where environments lie, each is given one of its own.
    folder = cluster.master.data / "environments"
    folder.mkdir(exist_ok=True)
    for host in cluster.hosts.values():
        host.run("mount", "-t", "tmpfs", "tmpfs", str(folder))
    environment = {"apiVersion": API, "kind": "Environment", "metadata": {"name": "greetings"},
                   "spec": {"requirements": ["greeting"], "findLinks": str(tmp_path), "poolSize": 0}}  # fmt: skip
    function = {"apiVersion": API, "kind": "Function", "metadata": {"name": "greeter"},
                "spec": {"environment": "greetings", "code": {"inline": CODE},
                         "nodeSelector": {"kubernetes.io/hostname": "h2"}}}  # fmt: skip
    space.apply(environment, function)
    space.wait("condition=Ready", "function.faas.minik8s.io/greeter", seconds=60)
    status = space.get("environment.faas.minik8s.io", "greetings")["status"]
    assert "h2" in status["nodes"]
    assert status["installed"] == ["greeting==1.0"]
    there = f"{folder}/{status['hash']}/site-packages/greeting.py"
    for name, host in cluster.hosts.items():
        assert (host.run("test", "-e", there, check=False).code == 0) == (name in status["nodes"])

    for host in cluster.hosts.values():  # from each, through its own gateway, to the one pod
        url = f"http://{host.address}:8081/function/{space.name}/greeter"
        until(lambda host=host, url=url: host.run("curl", "-sS", "-d", "{}", url, check=False).out == "from afar")  # type: ignore[misc]
    (pod,) = space.get("pods", "-l", "faas.minik8s.io/function=greeter")
    assert pod["spec"]["nodeName"] == "h2"
    told = cluster.master.minik8s("-n", space.name, "func", "calls", "greeter", "-o", "json").json
    assert len([call for call in told["items"] if call["status"] == 200]) >= 3, json.dumps(told)
