"""What a container gets for its devices: plain answers, CDI names, and GPUs by Docker's own request."""

from __future__ import annotations

from pathlib import Path

import pytest

from minik8s.kubelet.devices import cdi
from minik8s.kubelet.devices.allocator import Answer, Holding, PluginDevice, PluginMount
from minik8s.kubelet.devices.answers import allocation

YAML = """
cdiVersion: 0.6.0
kind: vendor.example/net
devices:
  - name: "0"
    containerEdits:
      env: [NET=0]
      deviceNodes: [{path: /dev/net0, hostPath: /dev/null, permissions: rw}]
  - name: "1"
    containerEdits: {env: [NET1=x=y]}
containerEdits:
  mounts: [{hostPath: /usr/lib/net, containerPath: /usr/lib/net, options: [ro, rbind, rslave]}]
  hooks: [{hookName: createContainer, path: /usr/bin/net-hook, args: [x]}]
  additionalGids: [44]
"""


def holding(resource: str = "vendor.example/foo", *ids: str, **answer: object) -> Holding:
    return Holding("u", "default", "p", "c", resource, ids, Answer(**answer))  # type: ignore[arg-type]


def specs(folder: Path) -> list[list[cdi.Spec]]:
    (folder / "etc").mkdir()
    (folder / "run").mkdir()
    (folder / "etc" / "net.yaml").write_text(YAML)
    (folder / "etc" / "broken.json").write_text("{")
    (folder / "etc" / "worse.yaml").write_text("a: [")
    (folder / "run" / "net.json").write_text(
        '{"cdiVersion": "0.6.0", "kind": "vendor.example/net", "devices": '
        '[{"name": "1", "containerEdits": {"env": ["NET=run"]}}]}'
    )
    return cdi.read_specs((folder / "etc", folder / "run", folder / "none"))


def test_cdi_names_become_edits(tmp_path: Path) -> None:
    given = cdi.resolve(["vendor.example/net=0", "vendor.example/net=1"], specs(tmp_path))
    assert given.env == (("NET", "0"), ("NET", "run")), "the later folder wins"
    assert given.devices == (("/dev/null", "/dev/net0", "rw"),)
    assert given.mounts == (("/usr/lib/net", "/usr/lib/net", True, "rslave"),), "once, for both devices"
    assert given.groups == ("44",)
    assert given.hooks == ("/usr/bin/net-hook",)


def test_cdi_names_that_lead_nowhere(tmp_path: Path) -> None:
    known = specs(tmp_path)
    with pytest.raises(cdi.Unresolvable, match=r"unresolvable CDI device vendor\.example/net=7"):
        cdi.resolve(["vendor.example/net=7"], known)
    with pytest.raises(cdi.Unresolvable, match="2 specs of the same folder"):
        cdi.resolve(["vendor.example/net=1"], [known[1] * 2])


def test_answers_are_joined(tmp_path: Path) -> None:
    shared = PluginDevice("/dev/ctl", "/dev/ctl")
    first = holding("vendor.example/foo", "a", envs={"A": "1"}, devices=(shared, PluginDevice("/dev/a", "/dev/a", "r")))
    second = holding(
        "vendor.example/bar", "b", envs={"B": "2"}, devices=(shared,), mounts=(PluginMount("/x", "/y", True),),
        annotations={"cdi.k8s.io/vendor": "vendor.example/net=0", "vendor.example/note": "n"},
    )  # fmt: skip
    given = allocation([first, second], specs(tmp_path), nvidia=False)
    assert given.env == (("A", "1"), ("B", "2"), ("NET", "0"))
    assert [device.container_path for device in given.devices] == ["/dev/ctl", "/dev/a", "/dev/net0"]
    assert ("/x", "/y", True, "") in given.mounts
    assert given.labels["annotation.vendor.example/note"] == "n"
    assert given.left_out == ("/usr/bin/net-hook",)


def test_gpus_by_request_where_the_engine_can() -> None:
    shared = holding("nvidia.com/gpu", "GPU-1::0", envs={"NVIDIA_VISIBLE_DEVICES": "GPU-1"})
    by_cdi = holding("nvidia.com/gpu", "GPU-2", cdi=("nvidia.com/gpu=2",))
    assert allocation([shared], [], nvidia=True).gpus == ("GPU-1",), "what is visible, not what the share is called"
    assert allocation([by_cdi], [], nvidia=True).gpus == ("GPU-2",), "the engine knows better than a spec"
    assert allocation([shared], [], nvidia=False).gpus == ()
    assert allocation([holding("vendor.example/foo", "a")], [], nvidia=True).gpus == ()
