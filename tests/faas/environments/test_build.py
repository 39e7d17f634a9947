"""The script that builds, run for real with pip and a folder of wheels; and what is swept away later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minik8s.api.kinds.environment import RESOURCE, Environment, EnvironmentSpec, environment_hash
from minik8s.api.kinds.pod import Pod
from minik8s.faas.environments import plan, sweep
from minik8s.testing import cluster


def wheel(folder: Path, name: str, version: str, code: str = "", requires: str = "") -> None:
    """A wheel as small as there can be."""
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as made:
        made.writestr(f"{name}.py", code)
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel(folder, "greeting", "1.0", "WORDS = 'hello'\n", requires="helper>=2")
    wheel(folder, "helper", "2.1", "X = 1\n")
    wheel(folder, "helper", "3.0", "X = 2\n")
    return folder


def build(
    target: Path, wheels: Path | str, requirements: str, pinned: str = "", index: str = ""
) -> subprocess.CompletedProcess[str]:
    target.mkdir(exist_ok=True)
    spec = EnvironmentSpec(requirements=(requirements,), indexUrl=index)
    (container,) = plan.job(Environment(spec=spec), "/r", "image")["spec"]["template"]["spec"]["containers"]
    command = [sys.executable, *container["command"][1:], str(target), str(wheels), requirements, pinned]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env = own | {each["name"]: each["value"] for each in container["env"]}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)


@contextmanager
def index(folder: Path, wheels: Path) -> Iterator[str]:
    """A package index as PEP 503 has it, of static files, with what is in a folder of wheels; its URL."""
    for made in wheels.glob("*.whl"):
        page = folder / "simple" / made.name.partition("-")[0]
        page.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, page)
        with (page / "index.html").open("a") as file:
            file.write(f'<!DOCTYPE html><a href="{made.name}">{made.name}</a>\n')

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
        finally:
            server.shutdown()


def test_what_is_required_is_there_whole_or_not_at_all(tmp_path: Path, wheels: Path) -> None:
    target = tmp_path / "t"
    done = build(target, wheels, "greeting==1.0")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = target / "site-packages"
    assert {"greeting.py", "helper.py"} <= {each.name for each in folder.iterdir()}
    assert (folder / "helper.py").read_text() == "X = 2\n"
    assert folder.stat().st_mode & 0o777 == 0o755
    assert [each.name for each in target.iterdir()] == ["site-packages"]
    again = build(target, wheels, "absent")  # the same folder is never built twice
    assert again.returncode == 0

    pinned = build(tmp_path / "p", wheels, "greeting==1.0\nhelper==2.1", "pinned")
    assert pinned.returncode == 0, pinned.stdout
    assert (tmp_path / "p" / "site-packages" / "helper.py").read_text() == "X = 1\n"


def test_packages_come_from_an_index_of_ones_own(tmp_path: Path, wheels: Path) -> None:
    with index(tmp_path / "index", wheels) as url:
        done = build(tmp_path / "t", "", "greeting", index=url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {"greeting.py", "helper.py"} <= {each.name for each in (tmp_path / "t" / "site-packages").iterdir()}
        failed = build(tmp_path / "f", "", "absent", index=url)
        assert failed.returncode != 0
        assert "No matching distribution found for absent" in failed.stdout
        few = tmp_path / "few"  # the rest is from the index
        few.mkdir()
        wheel(few, "private", "0.1", requires="greeting")
        both = build(tmp_path / "b", few, "private", index=url)
        assert both.returncode == 0, both.stdout + both.stderr


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://pypi.example/simple/", ""),
        ("http://10.0.0.7:8000/simple", ""),
        ("pypi.example/simple", "must be the URL of a package index"),
        ("file:///etc", "must be the URL of a package index"),
        ("https://a b/", "must be the URL of a package index"),
        ("https://[::/", "must be the URL of a package index"),
        ("https://pypi.example:x/", "must be the URL of a package index"),
        ("https://somebody:hush@pypi.example/", "must not contain a user or password"),
    ],
)
def test_an_index_is_a_url_without_secrets(url: str, fault: str) -> None:
    causes = RESOURCE.validate({"spec": {"requirements": ["a"], "indexUrl": url}}, None)
    assert ([fault in cause.message for cause in causes] or [not fault]) == [True]
    assert not any("hush" in cause.message for cause in causes)


def test_another_index_is_another_environment() -> None:
    plain = EnvironmentSpec(requirements=("a",))
    assert environment_hash(plain) != environment_hash(EnvironmentSpec(requirements=("a",), indexUrl="https://a/"))


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, wheels: Path) -> None:
    done = build(tmp_path / "t", wheels, "absent>=9")
    assert done.returncode != 0
    assert "No matching distribution found for absent>=9" in done.stdout
    assert list((tmp_path / "t").iterdir()) == []


async def test_folders_of_nobody_are_swept_away(tmp_path: Path) -> None:
    async with cluster(nodes=0) as it:
        spec = {"requirements": ["a"]}
        await it.client.create(Environment, {"metadata": {"name": "e"}, "spec": spec}, "default")
        known = environment_hash(EnvironmentSpec(requirements=("a",)))
        volumes, _ = plan.volumes(tmp_path, "a" * 16)
        pod = {"metadata": {"name": "p"}, "spec": {"volumes": volumes, "containers": [{"name": "c", "image": "i"}]}}
        mounting = await it.client.create(Pod, pod, "default")
        for name in (known, "a" * 16, "b" * 16, "c" * 16):
            (tmp_path / name / "site-packages").mkdir(parents=True)
            if name[0] != "c":
                os.utime(tmp_path / name, (1, 1))
        await sweep.sweep(tmp_path, it.client, lambda: [mounting])
        assert set(os.listdir(tmp_path)) == {known, "a" * 16, "c" * 16}
