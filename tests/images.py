"""The images that tests run, made on the spot by `scripts/images`."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

BUSYBOX = "minik8s.test/busybox:1"
NGINX = "minik8s.test/nginx:1"
PYTHON = "minik8s.test/python:3.11"
INGRESS = "minik8s/nginx:1"

_SCRIPT = Path(__file__).parent.parent / "scripts" / "images"


@functools.cache
def make_images(*names: str) -> None:
    """Make what is absent of `busybox`, `nginx`, `python` (no names: these three), `ingress`; once in a test run."""
    done = subprocess.run([_SCRIPT, *names], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"scripts/images failed:\n{done.stdout}{done.stderr}")


@functools.cache
def docker_answers() -> bool:
    """Whether a Docker Engine answers here; tests marked `docker` are skipped without."""
    try:
        return subprocess.run(["docker", "version"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
