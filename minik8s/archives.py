"""Code on its way: a folder, a file, a zip or a tar become one canonical tar.gz, and whoever takes one can check it.

The same files make the same bytes: names in order, no times, no owners. What goes in is ordinary files alone; nothing
that an archive can hold besides (links, devices, `..`, a bomb) gets through, on either side.
"""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple, Protocol

MAX_PACKED: Final = 64 * 2**20  # bytes
MAX_UNPACKED: Final = 256 * 2**20  # bytes
MAX_FILES: Final = 10_000
IGNORE_FILE: Final = ".funcignore"  # patterns as in .gitignore, one a line; no `!`
IGNORED: Final = (
    ".git/", ".hg/", ".svn/", "__pycache__/", "*.py[co]", ".venv/", "venv/", "node_modules/", ".mypy_cache/",
    ".pytest_cache/", ".ruff_cache/", ".tox/", ".idea/", ".vscode/", ".DS_Store", "__MACOSX/", IGNORE_FILE,
)  # fmt: skip
_HEADERS = 32 * 2**20  # bytes that a tar may have besides its files
_UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError,
               NotImplementedError, RuntimeError)  # fmt: skip


class BadArchive(Exception):
    """The code cannot be taken; the text says why and what would help."""


class File(NamedTuple):
    name: str
    data: bytes
    executable: bool = False


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


# -- packing


def pack(path: Path) -> bytes:
    """The canonical archive of a folder, of one .py file, or of an archive. Raises BadArchive."""
    if path.is_dir():
        return pack_files(_of_folder(path))
    if not path.is_file():
        raise BadArchive(f"there is no file or folder {str(path)!r}")
    if path.suffix == ".py":
        return pack_files([File(path.name, path.read_bytes())])
    return pack_files(_without_top(list(read(path))))


def pack_files(files: Iterable[File] | Mapping[str, bytes]) -> bytes:
    """The canonical archive of these files. Raises BadArchive."""
    given = (
        (File(name, data, data[:2] == b"#!") for name, data in files.items()) if isinstance(files, Mapping) else files
    )
    count = _Count()
    named = {count.add(file.name, len(file.data)): file for file in given}
    if not named:
        raise BadArchive("there are no files to pack")
    made = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=made, mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(named):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(named[name].data), 0o755 if named[name].executable else 0o644
            tar.addfile(info, io.BytesIO(named[name].data))
    if made.tell() > MAX_PACKED:
        raise BadArchive(f"packed it has {made.tell()} bytes, and {MAX_PACKED} is the limit: read large data from a "
                         f"volume or a service; {IGNORE_FILE} names what to leave out")  # fmt: skip
    return made.getvalue()


# -- reading what may come from anybody


def check(packed: bytes) -> None:
    """Raises BadArchive for a tar.gz that must not be unpacked. Holds one file in memory at a time."""
    if len(packed) > MAX_PACKED:
        raise BadArchive(f"the archive has {len(packed)} bytes, and {MAX_PACKED} is the limit")
    for _ in _guarded(_of_tar(gzip.GzipFile(fileobj=io.BytesIO(packed))), "the archive"):
        pass


def unpack(packed: bytes, folder: Path) -> None:
    """Write the files of a tar.gz below `folder`, which must be empty. Raises BadArchive."""
    for file in _guarded(_of_tar(gzip.GzipFile(fileobj=io.BytesIO(packed))), "the archive"):
        path = os.path.join(folder, file.name)
        if "/" in file.name:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as made:
            os.fchmod(made.fileno(), 0o755 if file.executable else 0o644)
            made.write(file.data)


def read(path: Path) -> Iterator[File]:
    """The files of a zip or a tar (plain, gzip, bzip2, xz), but those that nobody wants. Raises BadArchive."""
    if zipfile.is_zipfile(path):
        yield from _guarded(_of_zip(path), str(path))
        return
    with path.open("rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        opened: Readable = raw
        for magic, unpack in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
            if start.startswith(magic):
                opened = unpack(raw, "rb")
        yield from _guarded(_of_tar(opened), str(path))


def _guarded(files: Iterator[File], what: str) -> Iterator[File]:
    """Under their clean names, without those that nobody wants."""
    count = _Count()
    try:
        for file in files:
            clean = count.add(file.name, len(file.data))
            if not _skipped(clean, IGNORED):
                yield file._replace(name=clean)
    except _UNREADABLE as error:
        raise BadArchive(f"{what} is no folder, no .py file, and cannot be read as zip or tar: {error}") from None


def _of_zip(path: Path) -> Iterator[File]:
    with zipfile.ZipFile(path) as opened:
        for entry in opened.infolist():
            if entry.is_dir():
                continue
            if entry.external_attr >> 28 not in (0, 8):  # S_IFREG; 0 where the archive says nothing of Unix
                raise BadArchive(f"the archive holds {entry.filename[:80]!r}, which is a link or a device")
            if entry.file_size > MAX_UNPACKED:
                raise _too_much()
            yield File(entry.filename, opened.read(entry), bool(entry.external_attr >> 16 & 0o100))


def _of_tar(unpacked: Readable) -> Iterator[File]:
    with tarfile.open(fileobj=_Bounded(unpacked), mode="r|") as opened:
        for entry in opened:
            if entry.isdir():
                continue
            file = opened.extractfile(entry) if entry.isreg() and not entry.issparse() else None
            if file is None:
                raise BadArchive(f"the archive holds {entry.name[:80]!r}, which is a link or a device")
            data = file.read()
            if len(data) != entry.size:
                raise BadArchive(f"the archive ends within {entry.name[:80]!r}")
            yield File(entry.name, data, bool(entry.mode & 0o100))


class _Bounded(io.RawIOBase):
    """What comes out of a decompressor, as long as it is not too much: a few kilobytes may become terabytes."""

    def __init__(self, inner: Readable) -> None:
        self._inner, self._left = inner, MAX_UNPACKED + _HEADERS

    def read(self, size: int = -1) -> bytes:
        data = self._inner.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise _too_much()
        return data


class _Count:
    """What one archive has had so far, against the limits."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._folders: set[str] = set()
        self._bytes = 0

    def add(self, name: str, size: int) -> str:
        """The clean name. BadArchive once it is too much, for doubles, and for a file where a folder is."""
        clean = clean_name(name)
        self._bytes += size
        above = set(_above(clean))
        if clean in self._names or clean in self._folders or above & self._names:
            raise BadArchive(f"the archive holds {clean[:80]!r} twice")
        if len(self._names) >= MAX_FILES:
            raise BadArchive(f"there are more than {MAX_FILES} files; {IGNORE_FILE} names what to leave out")
        if self._bytes > MAX_UNPACKED:
            raise _too_much()
        self._names.add(clean)
        self._folders |= above
        return clean


def _too_much() -> BadArchive:
    return BadArchive(f"unpacked there are more than {MAX_UNPACKED} bytes: read large data from a volume or a "
                      f"service; {IGNORE_FILE} names what to leave out")  # fmt: skip


def clean_name(name: str) -> str:
    """`./a//b` -> `a/b`. BadArchive for what leaves the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or ".." in parts or not parts or any(ord(c) < 32 for c in name) or len(name) > 1000:
        raise BadArchive(f"the archive holds {name[:80]!r}, which lies outside of it or is no name")
    return "/".join(parts)


def _without_top(files: list[File]) -> list[File]:
    """Archives of a folder begin all names with it."""
    tops = {file.name.partition("/")[0] for file in files}
    if len(tops) != 1 or not all("/" in file.name for file in files):
        return files
    return [file._replace(name=file.name.partition("/")[2]) for file in files]


# -- folders


def _of_folder(folder: Path) -> Iterator[File]:
    root = folder.resolve()
    patterns = (*IGNORED, *_patterns(folder / IGNORE_FILE))
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder)
        folders[:] = sorted(name for name in folders if not _matches((inside / name).as_posix(), patterns, folder=True))
        for name in [name for name in folders if Path(place, name).is_symlink()]:
            raise BadArchive(f"{str(inside / name)!r} is a link to a folder: copy it, or name it in {IGNORE_FILE}")
        for name in sorted(files):
            path = Path(place, name)
            if _matches((inside / name).as_posix(), patterns, folder=False):
                continue
            if not path.resolve().is_relative_to(root):
                raise BadArchive(f"{str(inside / name)!r} is a link that leads out of the folder: copy the file, or "
                                 f"name it in {IGNORE_FILE}")  # fmt: skip
            if not path.is_file():
                raise BadArchive(f"{str(inside / name)!r} is no ordinary file: name it in {IGNORE_FILE}")
            try:
                if path.stat().st_size > MAX_UNPACKED:
                    raise _too_much()
                yield File((inside / name).as_posix(), path.read_bytes(), bool(path.stat().st_mode & 0o100))
            except OSError as error:
                raise BadArchive(f"{path} cannot be read: {error.strerror}") from None


def _patterns(file: Path) -> list[str]:
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _above(name: str) -> Iterator[str]:
    """The folders that a file lies in, the nearest first."""
    while name := name.rpartition("/")[0]:
        yield name


def _skipped(name: str, patterns: Sequence[str]) -> bool:
    above = any(_matches(folder, patterns, folder=True) for folder in _above(name))
    return above or _matches(name, patterns, folder=False)


def _matches(path: str, patterns: Sequence[str], *, folder: bool) -> bool:
    """As .gitignore has it: a slash at the end means folders; one elsewhere the whole path; none the name alone."""
    name = path.rpartition("/")[2]
    for pattern in patterns:
        bare = pattern.rstrip("/")
        if pattern.endswith("/") and not folder:
            continue
        if fnmatch.fnmatchcase(path if "/" in bare else name, bare.lstrip("/")):
            return True
    return False
