"""Files that change under a reader's eyes as one: a folder whose content is swapped by one rename.

    volume/..2024_05_01_10_00_00.123456/key     what is there now
    volume/..data -> ..2024_05_01_…             swapped atomically
    volume/key -> ..data/key                    what the container opens

The layout is Kubernetes' AtomicWriter's, which programs that watch their configuration know. Blocking: use a thread.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

DATA = "..data"


class File(NamedTuple):
    data: bytes
    mode: int


class UnsafePath(ValueError):
    """A path that could leave its folder, or that collides with the layout's own names."""


def check_relative(path: str) -> str:
    """`path` itself if it is relative, stays inside, and does not begin with `..`; UnsafePath otherwise."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or "\0" in path or parts[0].startswith(".."):
        raise UnsafePath(f"invalid path {path!r}: it must be relative and must not contain '..' or begin with it")
    return path


def write_tree(folder: Path, files: Mapping[str, File], gid: int | None = None) -> bool:
    """Make `folder` show exactly `files` (by relative path). False if it did already. `gid` is the pod's fsGroup."""
    for path in files:
        check_relative(path)
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    current = _current(folder)
    if current is not None and _same(current, files):
        return False
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime()) + secrets.token_hex(5)
    fresh = folder / stamp
    fresh.mkdir(mode=0o755)
    for path, file in files.items():
        _write(fresh, path, file, gid)
    if gid is not None:
        for base, _, _ in os.walk(fresh):
            os.chown(base, -1, gid)
            os.chmod(base, 0o2755)  # noqa: S103 - readable as any volume; the files have their own modes
    link = folder / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(stamp)
    os.replace(link, folder / DATA)
    _show(folder, {path.split("/")[0] for path in files})
    for old in folder.iterdir():
        if old.name.startswith("..2") and old.name != stamp:
            shutil.rmtree(old)
    return True


def _current(folder: Path) -> Path | None:
    try:
        return folder / os.readlink(folder / DATA)
    except (FileNotFoundError, OSError):
        return None


def _same(current: Path, files: Mapping[str, File]) -> bool:
    present = {
        os.path.relpath(os.path.join(base, name), current) for base, _, names in os.walk(current) for name in names
    }
    if present != set(files):
        return False
    return all((current / path).read_bytes() == file.data for path, file in files.items())


def _write(root: Path, path: str, file: File, gid: int | None) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    # fsGroup: its members may read what the owner may read, as SetVolumeOwnership does for read-only volumes.
    mode = file.mode if gid is None else file.mode | 0o440
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(file.data)
        if gid is not None:
            os.fchown(out.fileno(), -1, gid)
        os.fchmod(out.fileno(), mode)


def _show(folder: Path, names: set[str]) -> None:
    """One link for each top-level name; links to what is gone are removed after the swap."""
    for name in names:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(f"{DATA}/{name}")
    for entry in folder.iterdir():
        if entry.is_symlink() and entry.name not in names and not entry.name.startswith(".."):
            entry.unlink()


def open_inside(root: Path, relative: str) -> int:
    """A descriptor (O_PATH) of `relative` below `root`, made as folders where nothing is; UnsafePath if it leads out.

    Links are resolved once, judged, and then no link is followed on the way: a container that owns the volume may swap
    a folder for a link to `/` at any moment (the fault of CVE-2021-25741). The caller closes the descriptor.
    """
    check_relative(relative)
    base = os.path.realpath(root)
    real = os.path.realpath(os.path.join(base, relative))
    if not real.startswith(base.rstrip("/") + "/"):
        raise UnsafePath(f"subPath {relative!r} leads out of its volume through a symbolic link")
    here = os.open(base, os.O_PATH | os.O_DIRECTORY)
    try:
        for part in os.path.relpath(real, base).split("/"):
            below = _step(here, part)
            os.close(here)
            here = below
            if stat.S_ISLNK(os.fstat(here).st_mode):
                raise UnsafePath(f"subPath {relative!r} was changed to a symbolic link meanwhile")
    except (OSError, UnsafePath):
        os.close(here)
        raise
    return here


def _step(folder: int, name: str) -> int:
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        owner = os.fstat(folder)
        os.mkdir(name, 0o750, dir_fd=folder)
        below = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
        fresh = f"/proc/self/fd/{below}"
        os.chown(fresh, owner.st_uid, owner.st_gid)
        os.chmod(fresh, owner.st_mode & 0o7777)
        return below


def give_to_group(root: Path, gid: int) -> None:
    """fsGroup for a writable volume: the group owns it, may write, and new files inherit it."""
    for base, folders, names in os.walk(root):
        for path in [base] if base == str(root) else []:
            _share(path, gid, 0o2770)
        for name in folders:
            _share(os.path.join(base, name), gid, 0o2770)
        for name in names:
            _share(os.path.join(base, name), gid, 0o660)


def _share(path: str, gid: int, bits: int) -> None:
    if os.path.islink(path):
        return
    os.chown(path, -1, gid)
    os.chmod(path, os.stat(path).st_mode & 0o7777 | bits)
