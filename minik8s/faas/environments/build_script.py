"""Runs inside the pod that builds an environment, as `python3 -c`: pip's --target, then one rename.

Arguments: the folder to build in, a folder of wheels or "", the requirements (lines), "pinned" where they are the whole
list of what is to be there. pip takes its index from PIP_INDEX_URL. What the pod's last word is (/dev/termination-log)
is told in the Environment: the versions installed, one a line, or the end of pip's output. It imports nothing of
minik8s: the image need not have it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAST_WORD = Path("/dev/termination-log")
TOLD = 4000  # bytes: Kubernetes keeps 4096 of a last word
STALE = 7200  # seconds after which what a killed build has left is taken away


def main(target: Path, wheels: str, requirements: str, pinned: str) -> int:
    done = target / "site-packages"
    for left in target.glob(".part-*"):
        if time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)
    if not done.exists():
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=target))
        try:
            if requirements and (code := install(part, wheels, requirements, pinned)):
                return code
            part.chmod(0o755)  # mkdtemp's is for its owner only; functions need not run as that one
            try:
                part.rename(done)
            except OSError:
                if not done.exists():  # else somebody else was faster, with the same
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    tell("\n".join(installed(done)))
    return 0


def install(part: Path, wheels: str, requirements: str, pinned: str) -> int:
    """pip's exit code; its output goes to ours, its end is told."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements + "\n")
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--target", str(part), "--no-input", "--no-cache-dir",
                   "--disable-pip-version-check", "--root-user-action", "ignore", "-r", file.name]  # fmt: skip
        command += ["--find-links", wheels] if wheels else []
        command += ["--no-index"] if wheels and not os.environ.get("PIP_INDEX_URL") else []
        command += ["--no-deps"] if pinned else []
        lines: list[str] = []
        pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        assert pip.stdout is not None
        for line in pip.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines = [*lines[-30:], line]
        if code := pip.wait():
            tell("".join(lines))
            return code
    return 0


def installed(folder: Path) -> list[str]:
    from importlib.metadata import distributions

    found = {(each.metadata["Name"], each.version) for each in distributions(path=[str(folder)])}
    return sorted(f"{name}=={version}" for name, version in found)


def tell(text: str) -> None:
    if os.path.exists(LAST_WORD):
        LAST_WORD.write_bytes(text.encode()[-TOLD:])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:5]))
