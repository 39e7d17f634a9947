"""`edit`: objects in one's own editor, opened again with the reason when the server refuses them; no text is lost."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from minik8s.api.errors import StatusError
from minik8s.cli.connection import Cluster
from minik8s.cli.printing import as_list, dump, without_managed_fields
from minik8s.cli.targets import Target
from minik8s.cli.verb import complete_targets, explain, files_option, output_option, validate_option, verb
from minik8s.cli.wire import MERGE, STRATEGIC
from minik8s.cli.write import Writing, wanted_of

Json = dict[str, Any]
HEADER = """\
# Edit the object below. Lines that begin with '#' are ignored; an empty file gives up.
# If the server refuses it, the file is opened again with the reason.
#
"""


@verb()
@click.argument("words", metavar="KIND NAME", nargs=-1, shell_complete=complete_targets)
@files_option
@click.option("--subresource", default="", help="status or scale")
@output_option
@validate_option
def edit(
    cluster: Cluster, words: tuple[str, ...], filenames: tuple[str, ...], subresource: str, output: str, validate: str
) -> None:
    """Change objects in your editor (KUBE_EDITOR, VISUAL or EDITOR)."""
    writing = Writing(cluster, output="" if output == "json" else output, validate=validate)
    wanted = wanted_of(cluster, words, filenames)
    Editing(writing, wanted, subresource, "json" if output == "json" else "yaml").run()
    writing.finish()


class Editing:
    def __init__(self, writing: Writing, wanted: list[Target], subresource: str, form: str) -> None:
        self.writing, self.wanted, self.form = writing, wanted, form
        self.subresource = subresource
        self.wire = writing.cluster.wire

    def run(self) -> None:
        before = [without_managed_fields(self.wire.get(self._path(target))) for target in self.wanted]
        shown = before[0] if len(before) == 1 else as_list(before)
        text, reason = dump(shown, self.form), ""
        original = text
        while True:
            header = HEADER + "".join(f"# {line}\n" for line in reason.splitlines()) + ("#\n" if reason else "")
            edited = self._open(header + text if self.form == "yaml" else text)
            body = _without_header(edited)
            if not body.strip() or (body == text and (reason or text == original)):
                self._give_up(body, text, reason)
                return
            text = body
            try:
                self._store(before, self._read(text))
                return
            except click.ClickException as error:
                reason = error.format_message()
            except StatusError as error:
                reason = explain(error)
            click.echo(reason, err=True)

    def _path(self, target: Target) -> str:
        return target.kind.path(target.namespace, target.name, self.subresource)

    def _give_up(self, body: str, text: str, reason: str) -> None:
        """Nothing was changed; what was refused is kept in a file."""
        if not reason:
            click.echo("Edit cancelled, no changes made.", err=True)
            return
        with tempfile.NamedTemporaryFile("w", prefix="minik8s-edit-", suffix=f".{self.form}", delete=False) as copy:
            copy.write((body.strip() and body) or text)
        raise click.ClickException(f"edit cancelled, the refused text is in {copy.name}: {reason}")

    def _open(self, text: str) -> str:
        command = next((os.environ[n] for n in ("KUBE_EDITOR", "VISUAL", "EDITOR") if os.environ.get(n)), "vi")
        with tempfile.TemporaryDirectory(prefix="minik8s-edit-") as folder:
            file = Path(folder) / f"object.{self.form}"
            file.write_text(text)
            try:
                subprocess.run([*shlex.split(command), str(file)], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise click.ClickException(
                    f'the editor "{command}" failed ({error}): set EDITOR to another one'
                ) from None
            return file.read_text()

    def _read(self, text: str) -> list[Json]:
        from minik8s.cli.manifests import documents

        objects: list[Json] = []
        for document in documents(text, "the edited text"):
            value = document.value
            if not isinstance(value, dict):
                raise click.ClickException("an object is expected")
            objects += value["items"] if value.get("kind") == "List" else [value]
        return objects

    def _store(self, before: list[Json], after: list[Json]) -> None:
        """Patch what has changed; fields that others change meanwhile stay theirs."""
        from minik8s.cli.apply import schema_root, three_way

        held = {_name(obj): obj for obj in before}
        if [_name(obj) for obj in after] != list(held):
            raise click.ClickException("apiVersion, kind, name and namespace of an object cannot be edited")
        changed = False
        for target, obj in zip(self.wanted, after, strict=True):
            old = held[_name(obj)]
            root = schema_root(target.kind.api_version, target.kind.kind)
            patch = three_way(old, obj, old, root)
            if not patch:
                continue
            changed = True
            media = STRATEGIC if root is not None else MERGE
            answer = self.wire.send("PATCH", self._path(target), patch, self.writing.query, content_type=media)
            before[before.index(old)] = without_managed_fields(answer)
            self.writing.told(target, answer, "edited")
        if not changed:
            click.echo("Edit cancelled, no changes made.", err=True)


def _name(obj: Json) -> str:
    meta = obj.get("metadata") or {}
    return json.dumps([obj.get("apiVersion"), obj.get("kind"), meta.get("namespace"), meta.get("name")])


def _without_header(text: str) -> str:
    lines = text.splitlines(keepends=True)
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    return "".join(lines)
