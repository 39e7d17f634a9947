"""A plugin in Go, on grpc-go, made from nothing but the published .proto. Skipped where Debian's Go packages are not.

apt install golang-go golang-goprotobuf-dev golang-google-grpc-dev protobuf-compiler
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from minik8s.kubelet.devices import proto
from minik8s.kubelet.kit import Amount
from tests.kubelet.devices.test_manager import host, pod

GO = "vendor.example/go"
LIBRARIES = Path("/usr/share/gocode")
HERE = Path(__file__).parent / "goplugin"
TOOLS = ("go", "protoc", "protoc-gen-go")

pytestmark = [
    pytest.mark.timeout(600),  # a machine that has never compiled Go's library does it now
    pytest.mark.skipif(
        not all(map(shutil.which, TOOLS)) or not (LIBRARIES / "src/google.golang.org/grpc").exists(),
        reason="needs Go with grpc and protobuf from Debian's packages",
    ),
]


def build(folder: Path) -> Path:
    """The plugin's program; Go's own cache makes the second time quick."""
    stubs, source = folder / "src/example/v1beta1", folder / "src/example/plugin"
    stubs.mkdir(parents=True)
    shutil.copytree(HERE, source)
    published = Path(proto.__file__).parent
    generate = ["protoc", "-I", str(published), f"--go_out=plugins=grpc:{stubs.parent}", "deviceplugin.proto"]
    subprocess.run(generate, check=True, capture_output=True)
    env = os.environ | {"GO111MODULE": "off", "GOPATH": f"{folder}:{LIBRARIES}", "GOFLAGS": ""}
    program = folder / "plugin"
    subprocess.run(["go", "build", "-o", str(program), "example/plugin"], check=True, env=env)
    return program


async def test_a_plugin_of_somebody_else(tmp_path: Path) -> None:
    program = await asyncio.to_thread(build, tmp_path / "go")
    async with host(tmp_path) as node:
        process = await asyncio.create_subprocess_exec(str(program), str(node.plugins), stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            await node.until(lambda: node.manager.amounts() == {GO: Amount(2, 2)})
            assert await process.stdout.readline() == b"registered\n"
            assert node.manager.numa(GO, "go-1") == (1,)
            (given,) = await node.start(pod("p", 1, resource=GO))
            assert dict(given.env) == {"GO_IDS": "[go-1]"}, "its preference"
            assert given.devices == (("/dev/zero", "/dev/go", "r"),)
            assert given.labels == {"annotation.vendor.example/told": "yes"}
            assert await process.stdout.readline() == b"prestart [go-1]\n"
        finally:
            process.kill()
            await process.wait()
        await node.until(lambda: node.manager.amounts() == {GO: Amount(2, 0)})
