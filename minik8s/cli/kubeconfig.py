"""The user's kubeconfig: a cluster's entries are put in and taken out, and all else in it stays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from minik8s.cli.yaml_read import YamlError, load
from minik8s.cli.yaml_write import to_yaml

PARTS = ("clusters", "users", "contexts")


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """The file that kubectl would write: the first of KUBECONFIG, or ~/.kube/config."""
    named = [part for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(named[0]) if named else Path.home() / ".kube" / "config"


def merged(config: dict[str, Any], name: str, cluster: dict[str, Any], user: dict[str, Any]) -> dict[str, Any]:
    """`config` with this cluster, its user and a context that is the current one. Pure."""
    entries = {"clusters": {"cluster": cluster}, "users": {"user": user}}
    entries["contexts"] = {"context": {"cluster": name, "user": name}}
    kept = unmerged(config, name)
    added = {part: [*(kept.get(part) or ()), {"name": name, **entry}] for part, entry in entries.items()}
    return {"apiVersion": "v1", "kind": "Config", **kept, **added, "current-context": name}


def unmerged(config: dict[str, Any], name: str) -> dict[str, Any]:
    """`config` without this cluster. Pure."""
    left = dict(config)
    for part in PARTS:
        if part in left:
            left[part] = [entry for entry in left[part] or () if entry.get("name") != name]
    if left.get("current-context") == name:
        left["current-context"] = ""
    return left


def write_merged(path: Path, name: str, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    with _locked(path):
        _write(path, merged(_read(path), name, cluster, user))


def write_unmerged(path: Path, name: str) -> bool:
    """Whether anything had to be taken out."""
    if not path.exists():
        return False
    with _locked(path):
        before = _read(path)
        after = unmerged(before, name)
        if after == before:
            return False
        if any(after.get(part) for part in PARTS) or after.keys() - {*PARTS, "apiVersion", "kind", "current-context"}:
            _write(path, after)
        else:
            path.resolve().unlink()  # nothing is left in it
        return True


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = load(path.read_text(), str(path))
    except YamlError as error:
        raise click.ClickException(str(error)) from None
    if found is not None and not isinstance(found, dict):
        raise click.ClickException(f"{path} is no kubeconfig")
    return found or {}


def _write(path: Path, config: dict[str, Any]) -> None:
    """Atomically, through a link too, readable by its owner only: there are keys in it."""
    target = path.resolve()
    fresh = target.with_name(f".{target.name}.minik8s")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(to_yaml(config))
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, target)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """kubectl's own lock: a file beside it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise click.ClickException(
            f"{lock} is there: another program is writing {path}; if none is, remove that file"
        ) from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
