"""The real kubectl binaries at hand, oldest first: those that `scripts/kubectl` fetches, else what the machine has."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

_FETCHED = Path(__file__).parent.parent / ".venv" / "kubectl"


@cache
def minor(binary: Path) -> int:
    """34 of a kubectl 1.34; its name tells, else the program itself."""
    named = re.search(r"kubectl\.1\.(\d+)$", binary.name)
    if named is None:
        told = subprocess.run([binary, "version", "--client"], capture_output=True, text=True).stdout
        named = re.search(r"v1\.(\d+)", told)
    return int(named[1]) if named else 0


def _found() -> list[Path]:
    binaries = list(_FETCHED.glob("kubectl.1.*"))
    if not binaries and (installed := shutil.which("kubectl")):
        binaries = [Path(installed)]
    return sorted(binaries, key=minor)


KUBECTLS = _found()
OLDEST, NEWEST = (KUBECTLS[0], KUBECTLS[-1]) if KUBECTLS else (Path("kubectl"), Path("kubectl"))
BOTH = list(dict.fromkeys([OLDEST, NEWEST])) if KUBECTLS else []
