"""The image of pods that run parts of minik8s itself, made by nodes that need it: this machine's Python, the libraries
that those parts need, and this very source.

`python -m minik8s.roles.agent_image` writes an archive that `docker load` takes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minik8s.faas.runtime_image import Recipe


def recipe() -> Recipe:
    from minik8s.faas.runtime_image import Recipe  # what makes images is not needed until there is one to be made

    return Recipe(
        repository="minik8s/agent",
        carried=(
            "__init__.py", "aio.py", "api", "apiserver/__init__.py", "apiserver/auth.py", "apiserver/uploads.py",
            "client", "clock.py", "controllers", "hpc", "log", "metrics.py", "pki.py",
        ),
        distributions=(
            "aiohappyeyeballs", "aiohttp", "aiosignal", "asyncssh", "attrs", "cffi", "cryptography", "frozenlist",
            "idna", "msgspec", "multidict", "propcache", "structlog", "typing_extensions", "yarl",
        ),
        command=("-s", "-m", "minik8s.hpc.sidecar"),
        made_by="minik8s",
    )  # fmt: skip


def agent_image() -> str:
    """`minik8s/agent:<version>-<hash of the source>`: masters and nodes of one source agree on it."""
    from minik8s.faas.runtime_image import image_name

    return image_name(recipe())


def main() -> None:
    from minik8s.faas.runtime_image import write

    write(sys.stdout.buffer, recipe=recipe())


if __name__ == "__main__":
    main()
