"""Verbs that write: apply, patch, label, annotate; and what all of them share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import click

from minik8s.api.errors import Conflict, NotFound, StatusError
from minik8s.cli import targets
from minik8s.cli.connection import Cluster
from minik8s.cli.printing import as_list, echo, printer
from minik8s.cli.targets import Target
from minik8s.cli.verb import (
    Failures,
    all_namespaces_option,
    complete_targets,
    dry_run_option,
    explain,
    files_option,
    output_option,
    recursive_option,
    selector_option,
    validate_option,
    validation,
    verb,
)  # fmt: skip
from minik8s.cli.wire import JSON_PATCH, MERGE, STRATEGIC

ATTEMPTS = 5  # at an object that others change at the same moment; as kubectl
UNKNOWN_FIELD = re.compile(r'(?:unknown|duplicate) field "([^"]+)"')
Json = dict[str, Any]
PATCH_TYPES = {"strategic": STRATEGIC, "merge": MERGE, "json": JSON_PATCH}


class Writing:
    """What writing verbs share: parameters of requests, dry runs, and telling what was done."""

    def __init__(self, cluster: Cluster, *, output: str = "", dry_run: str = "none", validate: str = "strict") -> None:
        self.cluster = cluster
        self.dry_run = dry_run
        self.print = printer(output)
        self.failures = Failures()
        self._several: list[Json] = []
        self._name_only = output == "name"
        self.query = {"fieldManager": "minik8s", "fieldValidation": validation(validate)}
        if dry_run == "server":
            self.query["dryRun"] = "All"

    def told(self, target: Target, obj: Json, done: str) -> None:
        """Say what was done to an object, or keep it for `finish` when the whole object is wanted."""
        if self.print is not None and not self._name_only:
            self._several.append(obj)
            return
        name = target.name or obj["metadata"].get("name", "")
        dry = {"server": " (server dry run)", "client": " (dry run)"}.get(self.dry_run, "")
        echo(f"{target.kind.one}/{name}" + ("" if self._name_only else f" {done}{dry}") + "\n")

    def finish(self) -> None:
        if self._several and self.print is not None:
            echo(self.print(self._several[0] if len(self._several) == 1 else as_list(self._several)))
        self.failures.finish()

    def each(self, wanted: Sequence[Target], act: Callable[[Target], None], doing: str) -> None:
        """Act on every target; a refusal of one is told, with its place in the file, and the others go on."""
        for target in wanted:
            try:
                act(target)
            except StatusError as error:
                self.failures.add(told_error(error, target, doing))
        self.finish()


def told_error(error: StatusError, target: Target, doing: str) -> str:
    """The line about a refused object; where a field of the file is meant, with file, line and column."""
    if target.manifest is None or not target.manifest.source:  # made of words
        return explain(error)
    fields = [cause.field for cause in getattr(error, "causes", ())] or UNKNOWN_FIELD.findall(error.message)
    place = target.manifest.where(fields[0]) if fields else target.manifest.source
    if error.reason == "Invalid":
        return f"The {error.message} ({place})"
    return explain(error, f'error when {doing} "{place}"')


def wanted_of(
    cluster: Cluster, words: Sequence[str], filenames: Sequence[str], selector: str = "", *,
    recursive: bool = False, everything: bool = False, everywhere: bool = False,
) -> list[Target]:  # fmt: skip
    """Single objects that words, a selector or files mean. Naming only a kind needs --all or a selector."""
    found = targets.parse(cluster, words, everywhere=everywhere)
    if any(not target.name for target in found):
        if not (selector or everything):
            raise click.ClickException("name the objects, or select them with -l, or take --all")
        found = list_of(cluster, found, selector)
    elif selector and found:
        raise click.ClickException("a name and a selector cannot be given together")
    if filenames:
        found += targets.from_files(cluster, filenames, recursive=recursive)
    elif not words:
        raise click.ClickException("say what: KIND NAME, or -f FILE")
    return found


def list_of(cluster: Cluster, wanted: Sequence[Target], selector: str, fields: str = "") -> list[Target]:
    """Every object of the targets' kinds that the selectors choose."""
    pairs = (("labelSelector", selector), ("fieldSelector", fields))
    query = {key: value for key, value in pairs if value}
    found = []
    for target in wanted:
        for item in cluster.wire.get(target.path, query)["items"]:
            meta = item["metadata"]
            found.append(Target(target.kind, meta["name"], meta.get("namespace")))
    return found


def need_files(filenames: Sequence[str]) -> None:
    if not filenames:
        raise click.ClickException("say what: -f FILE, a folder, a URL, or - for standard input")


# -- apply


@verb()
@files_option
@recursive_option
@output_option
@dry_run_option
@validate_option
@click.option("--server-side", is_flag=True, help="Not served yet.")
@click.option("--force", is_flag=True, help="Make anew what cannot be changed.")
@click.option("--overwrite/--no-overwrite", default=True, hidden=True)
@click.option(
    "-j",
    "--job-archive",
    "archive",
    default="",
    help="Sources of the file's GpuJob (an archive), or the code of its Function (.py, folder or archive).",
)
def apply(
    cluster: Cluster, filenames: tuple[str, ...], recursive: bool, output: str, dry_run: str, validate: str,
    server_side: bool, force: bool, overwrite: bool, archive: str,
) -> None:  # fmt: skip
    """Make objects as files say: create what is missing, change what differs, leave alone what others have set."""
    need_files(filenames)
    if server_side:
        raise click.ClickException("server-side apply is not served yet: leave --server-side out")
    writing = Writing(cluster, output=output, dry_run=dry_run, validate=validate)
    wanted = targets.from_files(cluster, filenames, recursive=recursive)
    if nameless := next((t for t in wanted if not t.name and t.manifest), None):
        assert nameless.manifest is not None
        raise click.ClickException(
            f"{nameless.manifest.where('metadata')}: apply needs a name, generateName is for create"
        )
    writing.each(wanted, lambda target: _apply_one(writing, target, archive, force=force), "applying")


def _apply_one(writing: Writing, target: Target, archive: str, *, force: bool) -> None:
    """An object, and what comes with it from this disk: a GpuJob's archive, a Function's code."""
    from minik8s.cli import code, gpu, upload

    assert target.manifest is not None
    data = gpu.announce(target.manifest.obj, archive)
    packed = code.announce(target.manifest, archive)
    Applying(writing, target, force=force).run()
    if writing.dry_run == "none":
        if data is not None:
            upload.send(writing.cluster, f"{target.path}/source", data)
        if packed is not None:
            upload.send(writing.cluster, f"{target.path}/code", packed)


class Applying:
    """One object of an apply."""

    def __init__(self, writing: Writing, target: Target, *, force: bool) -> None:
        from minik8s.cli.apply import with_annotation

        assert target.manifest is not None
        self.writing, self.target, self.force = writing, target, force
        self.wire = writing.cluster.wire
        self.wanted = with_annotation(target.manifest.obj)

    def run(self) -> None:
        for attempt in range(ATTEMPTS):
            try:
                live = self.wire.get(self.target.path)
            except NotFound as error:
                if error.details.get("kind") == "namespaces":
                    raise
                self._create()
                return
            try:
                self._change(live)
                return
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise

    def _create(self) -> None:
        obj = self.wanted
        if self.writing.dry_run != "client":
            path = self.target.kind.path(self.target.namespace)
            obj = self.wire.send("POST", path, self.wanted, self.writing.query)
        self.writing.told(self.target, obj, "created")

    def _change(self, live: Json) -> None:
        from minik8s.cli.apply import last_applied, schema_root, three_way

        target, writing = self.target, self.writing
        root = schema_root(target.kind.api_version, target.kind.kind)
        original = last_applied(live)
        if original is None:
            click.echo(
                f"{click.style('Warning:', fg='yellow')} {target.text} was not made by apply and lacks its annotation; "
                "it is added now", err=True,
            )  # fmt: skip
        patch = three_way(original, self.wanted, live, root)
        if not patch:
            writing.told(target, live, "unchanged")
            return
        obj = live
        if writing.dry_run == "client":
            obj = self._foreseen(live, patch, root)
        else:
            try:
                media = STRATEGIC if root is not None else MERGE
                obj = self.wire.send("PATCH", target.path, patch, writing.query, content_type=media)
            except StatusError as error:
                if not self.force or error.code not in (409, 422) or error.reason == "Conflict":
                    raise
                obj = self._replace()
        writing.told(target, obj, "configured")

    @staticmethod
    def _foreseen(live: Json, patch: Json, root: Any) -> Json:
        from minik8s.api.patch import merge_patch, strategic_merge
        from minik8s.api.schema import Schema

        merged: Json = merge_patch(live, patch) if root is None else strategic_merge(live, patch, Schema(root))
        return merged

    def _replace(self) -> Json:
        from minik8s.cli.delete import delete_and_wait

        if not self.writing.query.get("dryRun"):
            delete_and_wait(self.writing.cluster, self.target, {"gracePeriodSeconds": 0})
        return self.wire.send("POST", self.target.kind.path(self.target.namespace), self.wanted, self.writing.query)


# -- patch, label, annotate


@verb()
@click.argument("words", metavar="KIND NAME", nargs=-1, shell_complete=complete_targets)
@files_option
@click.option("-p", "--patch", "text", default="", help="The patch, JSON or YAML.")
@click.option("--patch-file", default="", help="File with the patch.")
@click.option("--type", "form", type=click.Choice(list(PATCH_TYPES)), default="strategic", help="What kind of patch.")
@click.option("--subresource", default="", help="status or scale")
@output_option
@dry_run_option
@validate_option
def patch(
    cluster: Cluster, words: tuple[str, ...], filenames: tuple[str, ...], text: str, patch_file: str, form: str,
    subresource: str, output: str, dry_run: str, validate: str,
) -> None:  # fmt: skip
    """Change fields of objects: patch deploy web -p '{"spec":{"replicas":3}}'."""
    writing = Writing(cluster, output=output, dry_run=dry_run, validate=validate)
    change = _read_patch(text, patch_file)
    wanted = wanted_of(cluster, words, filenames)

    def act(target: Target) -> None:
        media = PATCH_TYPES[form]
        if form == "strategic" and "." in target.kind.group and not target.kind.group.endswith(".k8s.io"):
            media = MERGE  # custom resources have no merge keys
        before = cluster.wire.get(target.path)
        obj = before
        if dry_run != "client":
            path = target.kind.path(target.namespace, target.name, subresource)
            obj = cluster.wire.send("PATCH", path, change, writing.query, content_type=media)
        same = obj["metadata"].get("resourceVersion") == before["metadata"].get("resourceVersion")
        writing.told(target, obj, "patched (no change)" if same and dry_run == "none" else "patched")

    writing.each(wanted, act, "patching")


def _read_patch(text: str, file: str) -> Any:
    from minik8s.cli.yaml_read import YamlError, load

    if bool(text) == bool(file):
        raise click.ClickException("give the patch with -p or --patch-file, one of them")
    source = file or "--patch"
    try:
        if file:
            with open(file) as opened:
                text = opened.read()
        change = json.loads(text) if text.lstrip()[:1] in ("{", "[") and _is_json(text) else load(text, source)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    except YamlError as error:
        raise click.ClickException(str(error)) from None
    if not isinstance(change, dict | list):
        raise click.ClickException("a patch is an object, or a list of operations (--type json)")
    return change


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _marking(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of label and annotate, which differ in a word."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.argument("words", metavar="KIND NAME KEY=VALUE|KEY-...", nargs=-1, shell_complete=complete_targets),
            files_option, selector_option, all_namespaces_option, output_option, dry_run_option,
            click.option("--all", "everything", is_flag=True, help="All objects of the kind."),
            click.option("--overwrite", is_flag=True, help=f"Change {what}s that have another value."),
            click.option("--list", "listing", is_flag=True, help=f"Print the {what}s."),
        ):  # fmt: skip
            function = option(function)
        return function

    return decorate


@verb()
@_marking("label")
def label(cluster: Cluster, words: tuple[str, ...], **options: Any) -> None:
    """Set or remove labels: label pods web-0 tier=front old-."""
    _mark(cluster, words, "labels", "labeled", "unlabeled", options)


@verb()
@_marking("annotation")
def annotate(cluster: Cluster, words: tuple[str, ...], **options: Any) -> None:
    """Set or remove annotations: annotate deploy web note='a sentence' old-."""
    _mark(cluster, words, "annotations", "annotated", "annotated", options)


def _mark(cluster: Cluster, words: Sequence[str], field: str, done: str, undone: str, options: dict[str, Any]) -> None:
    names, changes = split_changes(words)
    if not changes and not options["listing"]:
        raise click.ClickException("say what to change: KEY=VALUE to set, KEY- to remove")
    wanted = wanted_of(
        cluster, names, options["filenames"], options["selector"], everything=options["everything"],
        everywhere=options["all_namespaces"],
    )  # fmt: skip
    writing = Writing(cluster, output=options["output"], dry_run=options["dry_run"])

    def act(target: Target) -> None:
        obj = cluster.wire.get(target.path)
        held = obj["metadata"].get(field) or {}
        if options["listing"]:
            echo("".join(f"{key}={value}\n" for key, value in sorted(held.items())))
            return
        for key, value in changes.items():
            if value is not None and held.get(key, value) != value and not options["overwrite"]:
                raise Conflict(f"{target.text}: {key} is {held[key]} already; --overwrite changes it")
        moving = {key: value for key, value in changes.items() if held.get(key) != value}
        if not moving:
            writing.told(target, obj, f"not {done}")
            return
        if options["dry_run"] != "client":
            change = {"metadata": {field: moving}}
            obj = cluster.wire.send("PATCH", target.path, change, writing.query, content_type=MERGE)
        writing.told(target, obj, undone if all(value is None for value in moving.values()) else done)

    writing.each(wanted, act, "changing")


def split_changes(words: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """Words that name objects, and `key=value` | `key-` that change them."""
    names = [word for word in words if "=" not in word and not word.endswith("-")]
    changes: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            changes[key] = value
        elif word.endswith("-"):
            changes[word[:-1]] = None
    return names, changes
