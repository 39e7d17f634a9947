"""What this node knew last, on disk: its pods and the objects that they use, for a start while the master is away.

One file, replaced atomically, readable by its owner only: secrets are in it. A broken file counts as none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.meta import Object, Struct
from minik8s.log import get_logger

log = get_logger("kubelet")


class Known(Struct):
    pods: tuple[Pod, ...] = ()
    configMaps: tuple[ConfigMap, ...] = ()
    secrets: tuple[Secret, ...] = ()


def known(pods: Sequence[Pod], objects: Sequence[Object]) -> Known:
    maps = tuple(obj for obj in objects if isinstance(obj, ConfigMap))
    return Known(tuple(pods), maps, tuple(obj for obj in objects if isinstance(obj, Secret)))


def write(path: Path, content: Known) -> None:
    """Blocking. Durable: after a power cut it is the old or the new file, whole."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(msgspec.json.encode(content))
        out.flush()
        os.fsync(out.fileno())
    os.replace(fresh, path)


def read(path: Path) -> Known:
    """Blocking."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Known)
    except FileNotFoundError:
        return Known()
    except (msgspec.DecodeError, OSError) as error:
        log.warning(
            "the cache cannot be read: starting without",
            path=str(path),
            error=str(error),
            remedy="nothing, once the master answers: it is written anew",
        )
        return Known()
