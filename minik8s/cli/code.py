"""A function's code on its way into the cluster: packed here, announced by its hash, sent behind the object."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minik8s.api.dialects_function import GROUP_VERSION, SOURCE_ANNOTATION

if TYPE_CHECKING:
    from minik8s.cli.manifests import Manifest  # and with it a YAML parser, which most of this does without

Json = dict[str, Any]
REQUIREMENTS = "requirements.txt"


def pack(path: Path) -> bytes:
    """The archive of a .py file, a folder or an archive. A ClickException says what is wrong with it."""
    from minik8s import archives

    try:
        return archives.pack(path)
    except archives.BadArchive as error:
        raise click.ClickException(str(error)) from None


def put_into(spec: Json, path: Path, *, environment: str = "") -> bytes:
    """Pack `path` and write into a Function's spec which archive will come, and, unless it has an environment, what
    the code requires."""
    packed = pack(path)
    spec["code"] = {"sha256": hashlib.sha256(packed).hexdigest(), "size": len(packed)}
    if not spec.get("environment", environment) and "requirements" not in spec:
        found = requirements(path / REQUIREMENTS) if path.is_dir() else requirements_in(packed)
        if found:
            spec["requirements"] = found
    return packed


def requirements(file: Path) -> list[str]:
    """The lines of a requirements.txt; [] if there is none."""
    try:
        return lines(file.read_text()) if file.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read: {error}") from None


def requirements_in(packed: bytes) -> list[str]:
    """Those of an archive that was packed here."""
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as opened:
        found = opened.extractfile(REQUIREMENTS) if REQUIREMENTS in opened.getnames() else None
        return lines(found.read().decode(errors="replace")) if found else []


def lines(text: str) -> list[str]:
    from minik8s.api.kinds.function import lines as split

    spec: Json = {"requirements": text}
    split(spec, "requirements")
    return list(spec["requirements"])


def announce(manifest: Manifest, given: str) -> bytes | None:
    """Of a Function's manifest: complete it by the code that `apply -j` or its annotation names; None if neither."""
    obj = manifest.obj
    if obj.get("kind") != "Function" or obj.get("apiVersion") != GROUP_VERSION:
        return None
    source = str((obj["metadata"].get("annotations") or {}).get(SOURCE_ANNOTATION) or "")
    if not given and not source:
        return None
    path = Path(given or source)
    if not given and not path.is_absolute():  # as the manifest's author sees it
        path = Path(manifest.source).parent / path if Path(manifest.source).is_file() else path
    if not path.exists():
        where = f"-j {given}" if given else f"{manifest.where(f'metadata.annotations.{SOURCE_ANNOTATION}')}: {source}"
        raise click.ClickException(f"{where}: there is no such file or folder here")
    spec = obj.setdefault("spec", {})
    inline = [name for name in ("inline", "configMap") if (spec.get("code") or {}).get(name)]
    if inline:
        raise click.ClickException(f"{manifest.where('spec.code')}: the manifest has code of its own ({inline[0]}) "
                                   f"and names {path}, too: leave one out")  # fmt: skip
    return put_into(spec, path)
