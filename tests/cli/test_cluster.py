"""Nodes as containers: a cluster of two subnets on the real Docker Engine, and what is left of it afterwards."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from minik8s.cli import cli, node_image
from minik8s.cli.kubeconfig import default_path, merged, unmerged, write_merged, write_unmerged
from minik8s.cli.yaml_read import load
from tests.agent import Ended, run, until
from tests.images import BUSYBOX, docker_answers, make_images
from tests.kubectls import NEWEST

CLUSTER, USER = {"server": "https://127.0.0.1:1"}, {"client-key-data": "a"}
OTHER: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "prod", "cluster": {"server": "https://prod"}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "current-context": "prod",
    "preferences": {"colors": True},
}


def test_a_cluster_is_put_into_a_kubeconfig_and_taken_out() -> None:
    with_it = merged(OTHER, "minik8s", CLUSTER, USER)
    assert [entry["name"] for entry in with_it["clusters"]] == ["prod", "minik8s"]
    assert with_it["current-context"] == "minik8s"
    assert merged(with_it, "minik8s", CLUSTER, USER) == with_it  # not twice
    assert unmerged(with_it, "minik8s") == OTHER | {"current-context": ""}
    assert unmerged(OTHER, "minik8s") == OTHER
    assert unmerged({"clusters": None}, "minik8s") == {"clusters": []}


def test_the_file_keeps_what_is_others(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "config"
    write_merged(path, "minik8s", CLUSTER, USER)
    assert path.stat().st_mode & 0o777 == 0o600
    assert write_unmerged(path, "minik8s")
    assert os.listdir(path.parent) == []  # nothing was left in it
    path.write_text(json.dumps(OTHER))
    link = tmp_path / "link"
    link.symlink_to(path)
    write_merged(link, "minik8s", CLUSTER, USER)
    assert link.is_symlink()
    assert load(path.read_text(), "")["preferences"] == {"colors": True}
    assert write_unmerged(link, "minik8s")
    assert not write_unmerged(link, "minik8s")
    assert load(path.read_text(), "") == OTHER | {"current-context": ""}


def test_where_the_kubeconfig_is() -> None:
    assert default_path({"KUBECONFIG": ":/a:/b"}) == Path("/a")
    assert default_path({}) == Path.home() / ".kube" / "config"


@pytest.mark.parametrize(
    ("content", "said"), [("a: [", "config:1:"), ("[]", "is no kubeconfig"), (None, "another program is writing")]
)
def test_a_kubeconfig_that_cannot_be_written_is_told(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "config"
    path.write_text(content or "{}")
    if content is None:
        (tmp_path / "config.lock").touch()
    with pytest.raises(Exception, match=said):
        write_merged(path, "minik8s", CLUSTER, USER)
    assert path.read_text() == (content or "{}")


def test_mistakes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*words: str) -> str:
        result = CliRunner().invoke(cli, ["cluster", *words])
        assert result.exit_code == 1
        return result.output

    assert "lower case letters" in said("create", "--name", "Not_This")
    monkeypatch.setattr(node_image, "FOLDER", Path("/nowhere"))
    assert "/nowhere is missing: build the image from a checkout" in said("build-image")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "docker cannot be run: No such file or directory; install the docker client" in said("list")


def test_what_the_image_takes_along() -> None:
    assert {"aiohttp", "yarl", "msgspec"} <= {
        found.name.lower() for found in node_image.closure(["aiohttp", "msgspec"])
    }
    assert node_image.closure(['no-such-thing; sys_platform == "win32"']) == []
    with pytest.raises(node_image.ImageError, match="no-such-thing is not installed here"):
        node_image.closure(["no-such-thing>=1"])


class Made:
    """The command line with a home of its own, and kubectl with the kubeconfig that it writes there."""

    name = f"t{os.getpid()}"

    def __init__(self, home: Path) -> None:
        self.env = {**os.environ, "HOME": str(home), "MINIK8S_CLUSTER": self.name}
        self.env.pop("KUBECONFIG", None)

    def minik8s(self, *words: str, **more: Any) -> Ended:
        return run([sys.executable, "-m", "minik8s", "cluster", *words], env=self.env, seconds=170, **more)

    def kubectl(self, *words: str, **more: Any) -> Ended:
        return run([str(NEWEST), *words], env=self.env, **more)


def remains() -> dict[str, list[str]]:
    """What of ours is on this machine's engine and in its kernel."""
    mark = f"label=minik8s.cluster={Made.name}"
    return {
        "containers": run(["docker", "ps", "--all", "--quiet", "--filter", mark]).out.split(),
        "networks": run(["docker", "network", "ls", "--quiet", "--filter", mark]).out.split(),
    }


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    if os.geteuid() != 0 or not docker_answers():
        pytest.skip("needs root and a Docker Engine")
    make_images("busybox")
    made = Made(tmp_path)
    try:
        yield made
    finally:
        made.minik8s("delete", check=False)
        run(["docker", "image", "rm", f"minik8s.test/node:{made.name}"], check=False)


@pytest.mark.docker
@pytest.mark.root
@pytest.mark.kubectl
@pytest.mark.timeout(300)
def test_a_cluster_in_containers(made: Made) -> None:
    image = f"minik8s.test/node:{made.name}"
    assert f"there is no image {image}" in made.minik8s("create", "--image", image, check=False).err
    assert remains() == {"containers": [], "networks": []}
    made.minik8s("build-image", "--image", image)
    made.minik8s("create", "--image", image, "--workers", "1", "--subnets", "2")
    again = made.minik8s("create", "--image", image, check=False)
    assert f"there is a cluster {made.name} already" in again.err
    nodes = made.kubectl("get", "nodes", "-o", "json").json["items"]
    assert sorted(node["metadata"]["name"] for node in nodes) == [f"{made.name}-control-plane", f"{made.name}-worker"]
    assert f"{made.name}-worker" in made.minik8s("list").out
    volumes = run(["docker", "inspect", f"{made.name}-worker", "--format", "{{range .Mounts}}{{.Name}} {{end}}"]).out
    made.minik8s("load-image", BUSYBOX)
    container = {
        "name": "c",
        "image": BUSYBOX,
        "command": ["sh", "-c", "mkdir /www; hostname > /www/name; exec httpd -f -p 80 -h /www"],
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    web = {"selector": {"matchLabels": {"app": "web"}}, "template": template}
    objects = [
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web"}, "spec": web},
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        },
    ]  # fmt: skip
    made.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    made.kubectl("rollout", "status", "ds/web", "--timeout=60s", seconds=70)
    pods = set(made.kubectl("get", "pods", "-o", "name").out.replace("pod/", "").split())
    first = sorted(pods)[0]
    seen: set[str] = set()

    def ask() -> bool:
        fetch = "for i in 1 2 3 4 5 6 7 8; do timeout 3 wget -qO- http://web/name; done"
        seen.update(made.kubectl("exec", first, "--", "sh", "-c", fetch, check=False).out.split())
        return seen >= pods

    until(ask, what=lambda: f"{seen} of {pods} answered")
    made.minik8s("delete")
    assert remains() == {"containers": [], "networks": []}
    assert not set(volumes.split()) & set(run(["docker", "volume", "ls", "--quiet"]).out.split())
    assert not (Path(made.env["HOME"]) / ".kube" / "config").exists()
    assert "there is no cluster" in made.minik8s("delete").out
