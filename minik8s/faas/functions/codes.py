"""The code of functions, kept by its hash: archives that were uploaded, and what the controller has packed itself."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Final

from minik8s.api.errors import BadRequest, NotFound
from minik8s.api.kinds.function import Code
from minik8s.apiserver.uploads import Announced, Blobs
from minik8s.archives import BadArchive, check

FRESH: Final = 60.0  # seconds for which an archive is kept though nothing names it (yet)


class Codes:
    """Below `root`/NAMESPACE. Methods read and write files: they are for threads, but `has` and `received`."""

    def __init__(self, root: Path) -> None:
        self._blobs = Blobs(root, _checked)

    def received(self, namespace: str, announced: Announced) -> int:
        """How many bytes are here; all of them once the archive is whole and right."""
        return self._blobs.received(namespace, announced)

    def has(self, namespace: str, code: Announced) -> bool:
        return self._blobs.path(namespace, code).exists()

    def append(self, namespace: str, announced: Announced, offset: int, data: bytes) -> int:
        """A chunk of an upload; the new length. Conflict for a gap, BadRequest for what cannot be taken."""
        return self._blobs.append(namespace, announced, offset, data)

    def put(self, namespace: str, packed: bytes) -> Code:
        """Keep what was packed here."""
        code = Code(sha256=hashlib.sha256(packed).hexdigest(), size=len(packed))
        if not self.has(namespace, code):
            self._blobs.append(namespace, code, 0, packed)
        return code

    def read(self, namespace: str, code: Announced) -> bytes:
        try:
            return self._blobs.path(namespace, code).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"the code {code.sha256[:12]} is not here: upload it again") from None

    def keep_only(self, wanted: Collection[tuple[str, str]]) -> None:
        self._blobs.keep_only(wanted, older=FRESH)


def _checked(packed: bytes) -> None:
    try:
        check(packed)
    except BadArchive as error:
        raise BadRequest(str(error)) from None
