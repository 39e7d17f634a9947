"""Output: tables as kubectl aligns them, and objects as YAML, JSON, names, JSONPath or columns of one's own choice."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from minik8s.cli import jsonpath
from minik8s.cli.discovery import Kind

Json = dict[str, Any]
PADDING, MIN_WIDTH = 3, 6  # characters between columns, and of the narrowest column with its padding; as kubectl
NONE = "<none>"
FORMATS = ("wide", "json", "yaml", "name", "jsonpath=…", "jsonpath-file=…", "jsonpath-as-json=…", "custom-columns=…",
           "custom-columns-file=…")  # fmt: skip
STATUS_COLOURS = {
    "Running": "green", "Ready": "green", "Active": "green", "Bound": "green", "Complete": "green",
    "Pending": "yellow", "ContainerCreating": "yellow", "Terminating": "yellow", "PodInitializing": "yellow",
    "Unknown": "yellow", "Warning": "yellow", "Ready,SchedulingDisabled": "yellow",
    "NotReady": "red", "Error": "red", "CrashLoopBackOff": "red", "ImagePullBackOff": "red", "ErrImagePull": "red",
    "Failed": "red", "OOMKilled": "red", "Evicted": "red",
}  # fmt: skip
Printer = Callable[[Any], str]


def dump(value: Any, form: str) -> str:
    """A value as `yaml` or `json` text, ending in a newline."""
    if form == "json":
        return json.dumps(value, indent=4, ensure_ascii=False) + "\n"
    from minik8s.cli.yaml_write import to_yaml

    return to_yaml(value)


def echo(text: str) -> None:
    """Print, quietly ending when nobody reads on (`| head`)."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None


# -- tables


class Layout:
    """Widths of columns that only grow, so that rows printed later (of a watch) stay under their headings."""

    def __init__(self, *, colour: bool | None = None) -> None:
        self._widths: list[int] = []
        self._colour = sys.stdout.isatty() if colour is None else colour

    def lines(self, rows: Sequence[Sequence[str]], *, heading: bool = False) -> str:
        """The text of rows; `heading`: the first one is the heading."""
        for row in rows:
            for index, cell in enumerate(row[:-1]):
                needed = max(len(cell) + PADDING, MIN_WIDTH)
                if index == len(self._widths):
                    self._widths.append(needed)
                self._widths[index] = max(self._widths[index], needed)
        return "".join(f"{self._line(row, heading and at == 0)}\n" for at, row in enumerate(rows))

    def _line(self, row: Sequence[str], heading: bool) -> str:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], self._widths, strict=False)] + list(row[-1:])
        if not self._colour:
            return "".join(padded)
        return "".join(_coloured(cell, heading) for cell in padded)


def _coloured(cell: str, heading: bool) -> str:
    if heading:
        return click.style(cell, bold=True)
    colour = STATUS_COLOURS.get(cell.strip())
    return click.style(cell, fg=colour) if colour else cell


def cell_text(value: Any) -> str:
    """A cell on one line."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    first, newline, _ = text.partition("\n")
    return first + "..." if newline else text


class TablePrinter:
    """Rows of one kind's Table, with the columns that options add."""

    def __init__(
        self, kind: Kind, *, wide: bool = False, namespaces: bool = False, kinds: bool = False,
        labels: bool = False, label_columns: Sequence[str] = (), headings: bool = True, layout: Layout | None = None,
    ) -> None:  # fmt: skip
        self._kind, self._wide, self._kinds = kind, wide, kinds
        self._namespaces = namespaces and kind.namespaced
        self._labels, self._label_columns, self._headings = labels, label_columns, headings
        self._layout = layout or Layout()
        self._columns: list[Json] = []

    def text(self, table: Json, prefix: Sequence[str] = ()) -> str:
        """The text of a Table; the heading comes with the first one. `prefix`: cells put before each row's."""
        heading = bool(not self._columns and self._headings)
        self._columns = table.get("columnDefinitions") or self._columns
        rows = [[*prefix, *self._row(row)] for row in table.get("rows") or ()]
        if heading and rows:
            rows.insert(0, [*("EVENT" for _ in prefix), *self._heading()])
        return self._layout.lines(rows, heading=heading)

    def _heading(self) -> list[str]:
        names = ["NAMESPACE"] if self._namespaces else []
        names += [column["name"].upper() for column in self._columns if self._shown(column)]
        names += [label.rpartition("/")[2].upper() for label in self._label_columns]
        return names + (["LABELS"] if self._labels else [])

    def _row(self, row: Json) -> list[str]:
        meta = (row.get("object") or {}).get("metadata") or {}
        cells = [meta.get("namespace", "")] if self._namespaces else []
        for index, (column, value) in enumerate(zip(self._columns, row["cells"], strict=False)):
            if self._shown(column):
                text = cell_text(value)
                cells.append(f"{self._kind.one}/{text}" if self._kinds and index == 0 else text)
        labels = meta.get("labels") or {}
        cells += [labels.get(key, "") for key in self._label_columns]
        return cells + ([label_text(labels)] if self._labels else [])

    def _shown(self, column: Json) -> bool:
        return self._wide or not column.get("priority")


def label_text(labels: Json) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or NONE


def as_list(objects: Iterable[Json]) -> Json:
    return {"apiVersion": "v1", "items": list(objects), "kind": "List", "metadata": {"resourceVersion": ""}}


def without_managed_fields(obj: Json) -> Json:
    meta = obj.get("metadata")
    if isinstance(meta, dict) and "managedFields" in meta:
        return {**obj, "metadata": {key: value for key, value in meta.items() if key != "managedFields"}}
    return obj


# -- other forms


def printer(output: str) -> Printer | None:
    """What turns an object (or a List) into text; None for tables ("" and `wide`). ClickException for other forms."""
    form, _, argument = output.partition("=")
    if form in ("", "wide"):
        return None
    if form in ("json", "yaml"):
        return lambda obj: dump(_sorted(obj), form)
    if form == "name":
        return _names
    if form in ("jsonpath", "jsonpath-as-json", "jsonpath-file"):
        return _jsonpath(form, _argument(form, argument, from_file=form.endswith("-file")))
    if form in ("custom-columns", "custom-columns-file"):
        return _custom_columns(_argument(form, argument, from_file=form.endswith("-file")), file=form.endswith("-file"))
    if form.startswith(("go-template", "template")):
        raise click.ClickException("go-templates are kubectl's own: use -o jsonpath=… or -o custom-columns=…")
    raise click.ClickException(f'unknown output format "{output}"; there are {", ".join(FORMATS)}')


def _argument(form: str, argument: str, *, from_file: bool) -> str:
    if not argument:
        raise click.ClickException(f"-o {form} needs a value: -o {form}=…")
    if not from_file:
        return argument
    try:
        with open(argument) as file:
            return file.read()
    except OSError as error:
        raise click.ClickException(f"{argument} cannot be read: {error.strerror}") from None


def _sorted(obj: Any) -> Any:
    """Keys in order, as kubectl prints them."""
    if isinstance(obj, dict):
        return {key: _sorted(obj[key]) for key in sorted(obj)}
    return [_sorted(item) for item in obj] if isinstance(obj, list) else obj


def _names(obj: Json) -> str:
    items = obj["items"] if isinstance(obj.get("items"), list) else [obj]
    return "".join(f"{object_name(item)}\n" for item in items)


def object_name(obj: Json) -> str:
    """`pod/web`, `deployment.apps/web`."""
    group = obj.get("apiVersion", "").rpartition("/")[0]
    kind = str(obj.get("kind", "")).lower()
    return f"{kind}.{group}/{obj['metadata']['name']}" if group else f"{kind}/{obj['metadata']['name']}"


def _jsonpath(form: str, text: str) -> Printer:
    template = jsonpath.as_template(text.strip() if form.endswith("-file") else text)
    try:
        jsonpath.render(template, {})
    except jsonpath.JsonPathError as error:
        raise click.ClickException(f"error parsing jsonpath {text}, {error}") from None
    if form == "jsonpath-as-json":
        return lambda obj: json.dumps(jsonpath.find(text, obj), indent=4, ensure_ascii=False) + "\n"
    return lambda obj: jsonpath.render(template, obj)


def _custom_columns(spec: str, *, file: bool) -> Printer:
    """`NAME:.metadata.name,IMAGE:.spec.containers[*].image`; a file has the headings and the paths on two lines."""
    if file:
        headings, paths = (line.split() for line in spec.strip().splitlines()[:2])
        columns = list(zip(headings, paths, strict=True))
    else:
        columns = []
        for part in _split_columns(spec):
            heading, colon, path = part.partition(":")
            if not colon or not path:
                raise click.ClickException(f'custom-columns wants HEADING:PATH, "{part}" is not')
            columns.append((heading, path))
    try:
        found = [jsonpath.compile_path(jsonpath.relaxed(path.strip("{}"))) for _, path in columns]
    except jsonpath.JsonPathError as error:
        raise click.ClickException(str(error)) from None

    def text(obj: Json) -> str:
        items = obj["items"] if isinstance(obj.get("items"), list) else [obj]
        rows = [[heading for heading, _ in columns]]
        for item in items:
            rows.append([",".join(jsonpath.text_of(value) for value in path(item)) or NONE for path in found])
        return Layout().lines(rows, heading=True)

    return text


def _split_columns(spec: str) -> list[str]:
    parts, depth = [""], 0
    for c in spec:
        depth += (c in "[(") - (c in "])")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return parts
