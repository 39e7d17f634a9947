"""Archives that clients upload in chunks, kept by what is in them.

An upload goes to a partial file, may go on where it was cut off, and gets its name (its SHA-256) only when that is
right; objects of one namespace that name the same archive share it.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from minik8s.api.errors import BadRequest, Conflict


class Announced(Protocol):
    """What an object says of its archive, before it is here."""

    @property
    def sha256(self) -> str: ...

    @property
    def size(self) -> int: ...


class Blobs:
    """Archives below `root`/NAMESPACE. All methods are quick but `append` of the last chunk, which reads the whole.

    `check` is given an archive that is right by its hash before anybody else sees it; it raises BadRequest."""

    def __init__(self, root: Path, check: Callable[[bytes], None] | None = None) -> None:
        self._root = root
        self._check = check

    def path(self, namespace: str, archive: Announced) -> Path:
        return self._root / namespace / archive.sha256

    def received(self, namespace: str, archive: Announced) -> int:
        """How many bytes are here; the archive's size when it is whole and right."""
        whole = self.path(namespace, archive)
        if whole.exists():
            return archive.size
        partial = whole.with_suffix(".part")
        return min(partial.stat().st_size, archive.size) if partial.exists() else 0

    def append(self, namespace: str, archive: Announced, offset: int, data: bytes) -> int:
        """Add a chunk at `offset`; the new length. Conflict (which tells the right offset) for a gap, BadRequest for
        too much, or for what is not the archive that was announced."""
        whole = self.path(namespace, archive)
        here = self.received(namespace, archive)
        if whole.exists():
            return archive.size
        if offset > here or offset < 0:
            raise Conflict(f"the chunk begins at {offset}, but only {here} bytes are here: go on from there",
                           details={"received": here})  # fmt: skip
        if offset + len(data) > archive.size:
            raise BadRequest(f"the archive was announced with {archive.size} bytes, and more were sent")
        partial = whole.with_suffix(".part")
        partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(partial, "r+b" if partial.exists() else "w+b") as file:
            file.seek(offset)
            file.write(data)
            file.truncate()
            if offset + len(data) == archive.size:
                self._finish(file, partial, whole, archive)
        return offset + len(data)

    def _finish(self, file: io.BufferedRandom, partial: Path, whole: Path, archive: Announced) -> None:
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != archive.sha256:
            partial.unlink()
            raise BadRequest(f"what was sent has SHA-256 {digest}, announced was {archive.sha256}: send it again")
        if self._check is not None:
            try:
                self._check(partial.read_bytes())
            except BadRequest:
                partial.unlink()
                raise
        partial.rename(whole)

    def keep_only(self, wanted: Collection[tuple[str, str]], *, older: float = 0.0) -> None:
        """Remove archives that no `(namespace, sha256)` names, and that are at least `older` seconds old: who has just
        sent one may be named a moment later."""
        for folder in self._root.iterdir() if self._root.exists() else ():
            for file in folder.iterdir():
                stale = time.time() - file.stat().st_mtime >= older
                if stale and (folder.name, file.name.removesuffix(".part")) not in wanted:
                    file.unlink(missing_ok=True)
