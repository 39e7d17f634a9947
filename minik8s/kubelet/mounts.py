"""Mounts that the kubelet makes by mount(2) itself: memory file systems, and pinned subPaths. Blocking, and fast."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

MS_NOSUID, MS_NODEV, MS_BIND = 2, 4, 4096
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def mount_tmpfs(path: Path, size: int, mode: int) -> None:
    """Mount an empty tmpfs of `size` bytes (0 = the kernel's default, half of memory); idempotent. OSError."""
    if os.path.ismount(path):
        return
    options = f"mode={mode:o}" + (f",size={size}" if size else "")
    _mount(b"tmpfs", path, b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())


def bind(descriptor: int, target: Path) -> None:
    """Mount what `descriptor` is open on over `target`, which must exist. OSError."""
    _mount(f"/proc/self/fd/{descriptor}".encode(), target, b"", MS_BIND, b"")


def _mount(source: bytes, target: Path, kind: bytes, flags: int, options: bytes) -> None:
    if _libc().mount(source, os.fsencode(target), kind, flags, options) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def unmount(path: Path) -> None:
    """Take away what is mounted on `path`; what is in use stays for its users only. Idempotent."""
    _libc().umount2(os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW)


def unmount_below(root: Path) -> None:
    """Unmount all that is mounted below `root`, deepest first; idempotent."""
    prefix = f"{os.path.realpath(root)}/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        points = [line.split()[4].encode().decode("unicode_escape") for line in mounts]
    for point in sorted((p for p in points if p.startswith(prefix)), reverse=True):
        _libc().umount2(os.fsencode(point), MNT_DETACH | UMOUNT_NOFOLLOW)
