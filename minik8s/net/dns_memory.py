"""The cluster's names on disk, as this node knew them last: for a start while the API is away.

One file, replaced atomically. A broken one counts as none: all that is in it comes anew from the API.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from minik8s.log import get_logger
from minik8s.net.dns_zone import Records

log = get_logger("dns")
_Kept = dict[str, dict[str, dict[int, tuple[bytes, ...]]]]  # owner -> name -> type -> data of each record


def encode(owners: Mapping[str, Records]) -> bytes:
    return msgspec.json.encode({owner: records for owner, records in owners.items() if owner})


def write(path: Path, content: bytes) -> None:
    """Blocking. Without fsync: after a power cut a broken file is as good as none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    os.replace(fresh, path)


def read(path: Path) -> Mapping[str, Records]:
    """Blocking. By owner, as `encode` was given them."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, OSError) as error:
        log.warning(
            "the names kept on disk cannot be read: starting without",
            path=str(path),
            error=str(error),
            remedy="nothing, once the master answers: the file is written anew",
        )
        return {}
