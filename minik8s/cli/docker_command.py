"""The docker client as a command: what makes and removes node containers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any


class DockerError(Exception):
    """docker refused, or cannot be run; the message is its own last word."""


def docker(
    *words: str, check: bool = True, stdin: Any = subprocess.DEVNULL, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end. Raises DockerError."""
    return run(["docker", *words], check=check, stdin=stdin, environment=environment)


def run(
    command: list[str],
    *,
    check: bool = True,
    stdin: Any = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    try:
        done = subprocess.run(
            command, stdin=stdin, capture_output=True, check=False, env={**os.environ, **(environment or {})}
        )
    except OSError as error:
        raise DockerError(f"{command[0]} cannot be run: {error.strerror}; install the docker client") from None
    if check and done.returncode:
        said = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
        raise DockerError(f"'{' '.join(command[:3])} …' failed: {said or f'exit code {done.returncode}'}")
    return done


def output(*words: str) -> str:
    """What docker prints. Raises DockerError."""
    return docker(*words).stdout.decode(errors="replace").strip()


def inspect(kind: str, *names: str) -> list[dict[str, Any]]:
    """`docker KIND inspect NAME…`"""
    found: list[dict[str, Any]] = json.loads(output(kind, "inspect", *names)) if names else []
    return found
