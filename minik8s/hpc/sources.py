"""The files that jobs begin with: every kind of source packed into one clean tar.

What goes to a cluster is always packed anew here, of ordinary files and folders alone: nothing that an archive can hold
(links, devices, `..`, a bomb) gets further.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

MAX_MEMBERS = 20_000
MAX_UNPACKED = 4 * 2**30  # bytes
MAX_RATIO = 200  # unpacked to packed, beyond which an archive of more than RATIO_FROM is taken for a bomb
RATIO_FROM = 64 * 2**20  # bytes
BLOCK = 2**20


class BadSource(Exception):
    """The sources cannot be used; the text says why, for the person who has sent them."""


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
