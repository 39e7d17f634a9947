"""The files that jobs begin with: archives kept by what is in them, and every kind of source packed into one clean tar.

An archive is uploaded in chunks to a partial file, may go on where it was cut off, and gets its name (its SHA-256) only
when that is right; jobs of one namespace with the same archive share it. What goes to a cluster is always packed anew
here, of ordinary files and folders alone: nothing that an archive can hold (links, devices, `..`, a bomb) gets further.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from base64 import b64encode
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from minik8s.api.errors import BadRequest, Conflict
from minik8s.api.kinds.gpujob import Archive

MAX_MEMBERS = 20_000
MAX_UNPACKED = 4 * 2**30  # bytes
MAX_RATIO = 200  # unpacked to packed, beyond which an archive of more than RATIO_FROM is taken for a bomb
RATIO_FROM = 64 * 2**20  # bytes
BLOCK = 2**20


class BadSource(Exception):
    """The sources cannot be used; the text says why, for the person who has sent them."""


class Blobs:
    """Archives below `root`/NAMESPACE. All methods are quick but `append` of the last chunk, which reads the whole."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, namespace: str, archive: Archive) -> Path:
        return self._root / namespace / archive.sha256

    def received(self, namespace: str, archive: Archive) -> int:
        """How many bytes are here; the archive's size when it is whole and right."""
        whole = self.path(namespace, archive)
        if whole.exists():
            return archive.size
        partial = whole.with_suffix(".part")
        return min(partial.stat().st_size, archive.size) if partial.exists() else 0

    def append(self, namespace: str, archive: Archive, offset: int, data: bytes) -> int:
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

    @staticmethod
    def _finish(file: io.BufferedRandom, partial: Path, whole: Path, archive: Archive) -> None:
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != archive.sha256:
            partial.unlink()
            raise BadRequest(f"what was sent has SHA-256 {digest}, announced was {archive.sha256}: send it again")
        partial.rename(whole)

    def keep_only(self, wanted: Collection[tuple[str, str]]) -> None:
        """Remove archives that no `(namespace, sha256)` names."""
        for folder in self._root.iterdir() if self._root.exists() else ():
            for file in folder.iterdir():
                if (folder.name, file.name.removesuffix(".part")) not in wanted:
                    file.unlink(missing_ok=True)


def pack_files(files: Mapping[str, bytes], target: Path) -> str:
    """A tar of these files; its SHA-256. The same files make the same bytes."""
    with _Packing(target) as packing:
        for name in sorted(files):
            packing.add(name, io.BytesIO(files[name]), len(files[name]), executable=files[name].startswith(b"#!"))
    return packing.sha256


def pack_archive(archive: Path, target: Path) -> str:
    """A clean tar of the files of a tar (plain, gzip, bzip2, xz) or zip; its SHA-256. Raises BadSource."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                return _pack_zip(opened, archive.stat().st_size, target)
        with tarfile.open(archive) as read:
            return _pack_tar(read, archive.stat().st_size, target)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadSource(f"the archive cannot be read as tar or zip: {error}") from None


def _pack_zip(opened: zipfile.ZipFile, size: int, target: Path) -> str:
    with _Packing(target, packed=size) as packing:
        for entry in opened.infolist():
            kind = entry.external_attr >> 28
            if entry.is_dir():
                continue
            if kind not in (0, 8):  # S_IFREG; 0 where the archive says nothing of Unix
                raise BadSource(f"the archive holds {entry.filename[:80]!r}, which is a link or a device")
            with opened.open(entry) as file:
                packing.add(entry.filename, file, entry.file_size, executable=bool(entry.external_attr >> 16 & 0o100))
    return packing.sha256


def _pack_tar(read: tarfile.TarFile, size: int, target: Path) -> str:
    with _Packing(target, packed=size) as packing:
        for member in read:
            if member.isdir():
                continue
            file = read.extractfile(member) if member.isreg() else None
            if file is None:
                raise BadSource(f"the archive holds {member.name[:80]!r}, which is a link or a device")
            packing.add(member.name, file, member.size, executable=bool(member.mode & 0o100))
    return packing.sha256


def inline(tar: bytes) -> str:
    """A tar in base64, without the zeros that fill it up to ten kilobytes; "" if it holds no file."""
    bare = tar.rstrip(b"\0")
    return b64encode(bare + bytes(-len(bare) % 512 + 1024)).decode() if bare else ""


class _Packing:
    """Writes the clean tar, block by block, counting what really comes out of the archive."""

    def __init__(self, target: Path, *, packed: int = 0) -> None:
        self._target = target
        self._limit = min(MAX_UNPACKED, max(RATIO_FROM, packed * MAX_RATIO)) if packed else MAX_UNPACKED
        self._names: set[str] = set()
        self._total = 0
        self.sha256 = ""

    def __enter__(self) -> _Packing:
        self._target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tar = tarfile.open(self._target, "w", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._tar.close()
        if kind is not None:
            self._target.unlink(missing_ok=True)
            return
        with open(self._target, "rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    def add(self, name: str, file: io.IOBase | object, size: int, *, executable: bool) -> None:
        path = clean_name(name)
        self._total += size
        if path in self._names:
            raise BadSource(f"the archive holds {path[:80]!r} twice")
        if len(self._names) >= MAX_MEMBERS:
            raise BadSource(f"the archive holds more than {MAX_MEMBERS} files")
        if self._total > self._limit:
            raise BadSource(f"the archive unpacks to more than {self._limit} bytes")
        self._names.add(path)
        info = tarfile.TarInfo(path)
        info.size, info.mode = size, 0o755 if executable else 0o644
        try:
            self._tar.addfile(info, file)  # type: ignore[arg-type]  # no more than `size` is read; less raises
        except OSError as error:
            raise BadSource(f"{path[:80]!r} cannot be read: {error}") from None


def clean_name(name: str) -> str:
    """`./a//b` -> `a/b`. BadSource for what leaves the folder, or is minik8s's own."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or ".." in parts or not parts or "\0" in name or "\n" in name:
        raise BadSource(f"the archive holds {name[:80]!r}, which lies outside of it")
    if parts[0] == ".mk8s":
        raise BadSource("the archive holds a folder .mk8s: that name is minik8s's own")
    return "/".join(parts)
