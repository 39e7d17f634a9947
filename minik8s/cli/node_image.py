"""The image of a node container: a Docker Engine and this very minik8s with the libraries it runs with.

Its base is a given image of Debian or Ubuntu, or is made from this machine's own programs, so that no registry is
needed. The files are in configs/node-image/ of the source tree.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import minik8s
from minik8s.cli.docker_command import docker, run

IMAGE = f"minik8s/node:{minik8s.__version__}"
OWN_BASE = "minik8s/node-base"
ROOT = Path(minik8s.__file__).parent.parent
FOLDER = ROOT / "configs" / "node-image"


class ImageError(Exception):
    """The image cannot be made; the message says why and what to do."""


def image_id(image: str) -> str:
    """ "" for an image that is not there."""
    done = docker("image", "inspect", "--format", "{{.Id}}", image, check=False)
    return done.stdout.decode().strip() if done.returncode == 0 else ""


def build(image: str, base: str) -> None:
    """Make the image; without `base` from this machine's programs. Raises ImageError, DockerError."""
    if not FOLDER.is_dir():
        raise ImageError(f"{FOLDER} is missing: build the image from a checkout of minik8s, not from a package")
    before = image_id(image)
    own = not base
    if own:
        base = OWN_BASE
        run([str(FOLDER / "base-from-host"), base, sys.executable])
    with tempfile.TemporaryDirectory(prefix="minik8s-image-") as name:
        context = Path(name)
        shutil.copytree(FOLDER, context, dirs_exist_ok=True)
        lay_packages(context / "packages")
        # The classic builder is in every engine; BuildKit needs a plugin of the client's.
        environment = {"DOCKER_BUILDKIT": "0"}
        docker("build", "--quiet", "--tag", image, "--build-arg", f"BASE={base}", name, environment=environment)
    for left in [OWN_BASE] * own + [before] * (before not in ("", image_id(image))):
        docker("image", "rm", left, check=False)  # it stays where containers still run on it


def lay_packages(folder: Path) -> None:
    """minik8s and the libraries that it needs, as they are installed here, below `folder`."""
    shutil.copytree(
        Path(minik8s.__file__).parent, folder / "minik8s", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    # The checkout says what is needed now; what was noted when it was installed may be old.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for distribution in closure(project["dependencies"]):
        for file in distribution.files or ():
            if ".." in file.parts or file.suffix == ".pyc" or not (source := Path(str(file.locate()))).is_file():
                continue  # scripts, and what was compiled here
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def closure(requirements: Iterable[str]) -> list[metadata.Distribution]:
    """The distributions that are meant, with all that they need. Raises ImageError for one that is not installed."""
    found: dict[str, metadata.Distribution] = {}
    wanted = list(requirements)
    while wanted:
        requirement, _, marker = wanted.pop().partition(";")
        name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0].lower()
        if name in found or "extra ==" in marker:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if marker:  # for other systems
                continue
            raise ImageError(f"{name} is not installed here: install what minik8s needs, then try again") from None
        wanted += found[name].requires or ()
    return list(found.values())
