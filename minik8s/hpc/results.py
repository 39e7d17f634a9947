"""Results of jobs on the master's disk: one folder for each job, read by clients while it still grows.

Names come from a cluster, so they are taken apart and put together again; what would lie outside of the job's folder
does not exist. Who reads the output of a job that runs is remembered for a while: only then it is worth fetching more
of it.
"""

from __future__ import annotations

import shutil
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from fnmatch import translate
from pathlib import Path
from re import Pattern, compile
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from minik8s.api.errors import BadRequest, Conflict
from minik8s.api.kinds.gpujob import GpuJobSpec
from minik8s.hpc.sources import BadSource, clean_name

WATCHED = 20.0  # seconds for which a reader counts as one who waits for more
MAX_FILES = 5000  # of a job's artifacts
MAX_BYTES = 8 * 2**30
PARTIAL = ".mk8s-part"
CHUNK = 2 * 2**20  # bytes of a result, or of an archive, in one message


class Full(Exception):
    """A job's results are too many, or too large."""


class RemoteFile(NamedTuple):
    path: str
    size: int
    modified: float


class Results:
    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._readers: dict[str, float] = {}

    def folder(self, uid: str) -> Path:
        return self._root / uid

    def file(self, uid: str, name: str) -> Path | None:
        """The file of a job; None if there is none, whatever `name` tries."""
        try:
            path = self.folder(uid) / clean_name(name)
            return path if stat.S_ISREG(path.lstat().st_mode) else None
        except (BadSource, OSError, ValueError):
            return None

    def place(self, uid: str, name: str) -> Path:
        """Where a file of the cluster belongs. Raises BadSource."""
        path = self.folder(uid) / clean_name(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def index(self, uid: str) -> list[RemoteFile]:
        folder = self.folder(uid)
        found = []
        for path in sorted(folder.rglob("*")) if folder.exists() else ():
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and not path.name.endswith(PARTIAL):
                found.append(RemoteFile(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime))
        return found

    def write(self, uid: str, name: str, offset: int, data: bytes, size: int | None) -> int:
        """Bytes of a file at `offset`; its length then. Without `size` it is one that grows, and 0 begins it anew; with
        it the file gets its name when all is there. Blocks. Raises BadSource, Full, Conflict for a gap (which tells the
        right offset), BadRequest for too much."""
        if clean_name(name).endswith(PARTIAL):
            raise BadSource(f"names do not end with {PARTIAL}")
        try:
            place = self.place(uid, name)
        except OSError as error:
            raise BadSource(error.strerror) from None
        target = place if size is None else place.with_name(place.name + PARTIAL)
        here = target.stat().st_size if target.exists() else 0
        if offset > here:
            raise Conflict(f"the piece begins at {offset}, but only {here} bytes are here: go on from there",
                           details={"received": here})  # fmt: skip
        if size is not None and offset + len(data) > size:
            raise BadRequest(f"a file of {size} bytes was announced, and more were sent")
        self._refuse_too_much(uid, place, max(size or 0, offset + len(data)))
        with open(target, "r+b" if target.exists() else "w+b") as file:
            file.seek(offset)
            file.write(data)
            file.truncate()
        if offset + len(data) == size:
            target.replace(place)
        return offset + len(data)

    def _refuse_too_much(self, uid: str, place: Path, size: int) -> None:
        """Raise Full if a file of that size is too much beside the others, also those that are not whole yet."""
        names = (place, place.with_name(place.name + PARTIAL))
        others = [each.lstat().st_size for each in self.folder(uid).rglob("*") if each not in names and each.is_file()]
        if len(others) >= MAX_FILES or sum(others) + size > MAX_BYTES:
            raise Full(f"a job's results are {MAX_FILES} files and {MAX_BYTES} bytes at most")

    def zipped(self, uid: str) -> IO[bytes]:
        """All of it as an open, nameless zip file. Blocks: call it in a thread."""
        made = TemporaryFile()  # noqa: SIM115 - the caller closes it
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            for each in self.index(uid):
                packed.write(self.folder(uid) / each.path, each.path)
        made.seek(0)
        return made

    def remove(self, uid: str) -> None:
        shutil.rmtree(self.folder(uid), ignore_errors=True)
        self._readers.pop(uid, None)

    def read(self, uid: str) -> None:
        """Somebody reads this job's output."""
        self._readers[uid] = self._clock() + WATCHED

    def has_reader(self, uid: str) -> bool:
        return self._readers.get(uid, 0) > self._clock()


def parse_listing(text: str) -> list[RemoteFile]:
    """What `remote_text.listing` prints; files with odd names (bytes that are no text, line ends) are left out."""
    found = []
    for line in text.split("\0"):
        size, _, rest = line.lstrip("\n").partition(" ")
        modified, _, path = rest.partition(" ")
        if size.isdigit() and path and "\n" not in path and "\ufffd" not in path:
            found.append(RemoteFile(path, int(size), float(modified or 0)))
    return found


def choose(spec: GpuJobSpec, files: list[RemoteFile]) -> list[RemoteFile]:
    """The files to bring back: standard output and error, and what fits `artifacts`. Pure."""
    prefix = spec.workDir.rstrip("/") + "/" if spec.workDir else ""
    patterns = [*map(_slurm_name, (spec.output.stdout, spec.output.stderr)), *map(_glob, spec.output.artifacts)]
    return [
        each for each in files
        if each.path.startswith(prefix) and any(p.fullmatch(each.path.removeprefix(prefix)) for p in patterns)
    ]  # fmt: skip


def within_limits(files: list[RemoteFile]) -> tuple[list[RemoteFile], list[str]]:
    """As many as may be brought back, and what is to be said of the first that may not. Pure."""
    total = 0
    for at, each in enumerate(files[:MAX_FILES]):
        total += each.size
        if total > MAX_BYTES:
            return files[:at], [f"{each.path}: larger than the limit of {MAX_BYTES} bytes for all results"]
    return files[:MAX_FILES], []


def _slurm_name(name: str) -> Pattern[str]:
    """`job-%a.out` -> what sbatch makes of it (filename pattern, sbatch(1))."""
    from re import escape, sub

    return compile(sub(r"%\d*[A-Za-z]", "[^/]+", escape(name).replace(r"\%", "%")))


def _glob(pattern: str) -> Pattern[str]:
    """`*` stays within a folder, `**` does not."""
    parts = [translate(part)[4:-3] if part != "**" else ".*" for part in pattern.split("/")]
    text = "/".join(part if part == ".*" else part.replace(".*", "[^/]*") for part in parts)
    return compile(f"(?s:{text.replace('.*/', '(?:.*/)?')})")


def blocks(file: IO[bytes], size: int = 256 * 1024) -> Iterator[bytes]:
    while block := file.read(size):
        yield block
