"""Manifests: objects out of files, folders, URLs and standard input, each knowing where it was written.

Everything is read and checked before anything is sent, so that a typing error in the last document changes nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from minik8s.api.errors import StatusError
from minik8s.cli import yaml_read
from minik8s.cli.yaml_read import Document, YamlError

SUFFIXES = (".yaml", ".yml", ".json")
URL_TIMEOUT = 30.0  # seconds
Json = dict[str, Any]


class Manifest(NamedTuple):
    """An object as written. `source` is the file's name, the URL, or STDIN."""

    obj: Json
    source: str
    places: dict[yaml_read.Path, tuple[int, int]]
    root: yaml_read.Path = ()  # where in the document it stands: not () inside a List

    @property
    def kind(self) -> str:
        return str(self.obj["kind"])

    @property
    def api_version(self) -> str:
        return str(self.obj["apiVersion"])

    @property
    def name(self) -> str:
        return str(self.obj["metadata"].get("name") or "")

    @property
    def namespace(self) -> str:
        return str(self.obj["metadata"].get("namespace") or "")

    def where(self, field: str = "") -> str:
        """`web.yaml:7:5`, the place of a field given as the server writes it: `spec.containers[0].foo`."""
        path: yaml_read.Path = self.root
        for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", field):
            further = (*path, int(index) if index else name)
            if further not in self.places:
                break
            path = further
        line, column = self.places.get(path, (0, 0))
        return f"{self.source}:{line}:{column}" if line else self.source


def read(filenames: Sequence[str], *, recursive: bool = False) -> list[Manifest]:
    """All objects of the files, in order. A ClickException names the first mistake."""
    found: list[Manifest] = []
    for name in filenames:
        for source, text in _texts(name, recursive=recursive):
            for document in documents(text, source):
                found += expand(document, source)
    if not found:
        raise click.ClickException(f"no objects in {', '.join(filenames)}")
    return found


def texts(filenames: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(file, its text) for whoever reads what need not be manifests."""
    for name in filenames:
        yield from _texts(name, recursive=False)


def native(manifest: Manifest) -> list[Manifest]:
    """The native objects of a manifest that may be written in an older dialect, which is told as a warning."""
    from minik8s.api.dialects import convert

    try:
        converted = convert(manifest.obj)
    except StatusError as error:
        raise click.ClickException(f"{manifest.where()}: {error.message}") from None
    for warning in converted.warnings:
        click.echo(f"{click.style('Warning:', fg='yellow')} {manifest.where()}: {warning}", err=True)
    return [manifest._replace(obj=obj) for obj in converted.objects]


def refuse_doubles(manifests: Iterable[tuple[tuple[str, ...], Manifest]]) -> None:
    """Two documents must not describe one object; `manifests` come with what identifies them."""
    seen: dict[tuple[str, ...], Manifest] = {}
    for identity, manifest in manifests:
        if manifest.name and identity in seen:
            raise click.ClickException(
                f'{manifest.where()}: {manifest.kind} "{manifest.name}" is defined twice, first at '
                f"{seen[identity].where()}"
            )
        seen[identity] = manifest


def documents(text: str, source: str) -> Iterator[Document]:
    try:
        if text.lstrip()[:1] == "{" and (whole := _json(text, source)) is not None:
            yield whole
        else:
            yield from yaml_read.load_all(text, source)
    except YamlError as error:
        raise click.ClickException(str(error)) from None


def _json(text: str, source: str) -> Document | None:
    """A JSON text, which may hold what YAML does not (tabs); None if it begins as JSON but is YAML."""

    def unique(pairs: list[tuple[str, Any]]) -> Json:
        made = dict(pairs)
        if len(made) < len(pairs):
            double = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
            raise click.ClickException(f'{source}: duplicate key "{double}"')
        return made

    try:
        return Document(json.loads(text, object_pairs_hook=unique), {(): (1, 1)})
    except json.JSONDecodeError as error:
        if source.endswith(".json"):
            raise click.ClickException(f"{source}:{error.lineno}:{error.colno}: {error.msg}") from None
        return None


def _texts(name: str, *, recursive: bool) -> Iterator[tuple[str, str]]:
    if name == "-":
        yield "STDIN", sys.stdin.read()
    elif name.startswith(("http://", "https://")):
        yield name, _download(name)
    else:
        path = Path(name)
        for file in _files(path, recursive=recursive) if path.is_dir() else [path]:
            yield str(file), _text(file)


def _files(folder: Path, *, recursive: bool) -> list[Path]:
    inside = folder.rglob("*") if recursive else folder.iterdir()
    files = sorted(file for file in inside if file.suffix in SUFFIXES and file.is_file())
    if not files:
        hint = "" if recursive else "; -R looks into its folders, too"
        raise click.ClickException(f"the folder {folder} has no .yaml, .yml or .json files{hint}")
    return files


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise click.ClickException(f'the path "{path}" does not exist') from None
    except OSError as error:
        raise click.ClickException(f'the path "{path}" cannot be read: {error.strerror}') from None
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path}: this is no text: byte {error.start} is not UTF-8") from None


def _download(url: str) -> str:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=URL_TIMEOUT) as answer:  # noqa: S310 - http and https alone come here
            data: bytes = answer.read()
            return data.decode()
    except (URLError, OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"unable to read {url}: {error}") from None


def expand(document: Document, source: str) -> Iterator[Manifest]:
    """The object of a document, or those of a List."""
    whole = Manifest(document.value, source, document.places)
    if not isinstance(document.value, dict):
        raise click.ClickException(f"{whole.where()}: an object is expected, with apiVersion, kind and metadata")
    if str(document.value.get("kind", "")).endswith("List") and isinstance(document.value.get("items"), list):
        for index, item in enumerate(document.value["items"]):
            inner = Manifest(item, source, document.places, ("items", index))
            if not isinstance(item, dict):
                raise click.ClickException(f"{inner.where()}: an object is expected")
            yield _checked(inner)
    else:
        yield _checked(whole)


def _checked(manifest: Manifest) -> Manifest:
    from minik8s.api.dialects import UNVERSIONED

    obj = manifest.obj
    if obj.get("kind") in UNVERSIONED:
        obj.setdefault("apiVersion", "v1")
    for field in ("apiVersion", "kind"):
        value = obj.get(field)
        if not isinstance(value, str) or not value:
            problem = "is not set" if value is None else "must be a string"
            raise click.ClickException(f"{manifest.where(field)}: {field} {problem}")
    meta = obj.setdefault("metadata", {})
    if meta is None or not isinstance(meta, dict):
        raise click.ClickException(f"{manifest.where('metadata')}: metadata must be an object with a name")
    name = meta.get("name")
    if name is not None and not isinstance(name, str):
        hint = f'; write "{name}" in quotes' if not isinstance(name, dict | list) else ""
        raise click.ClickException(f"{manifest.where('metadata.name')}: metadata.name must be a string{hint}")
    if not name and not meta.get("generateName"):
        raise click.ClickException(f"{manifest.where('metadata')}: metadata.name is not set")
    return manifest
