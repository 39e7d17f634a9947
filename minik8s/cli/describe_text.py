"""The text of `describe`: labelled lines, aligned as Go's tabwriter aligns kubectl's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from minik8s.api.kinds.columns import duration
from minik8s.clock import parse_time

PADDING = 2
NONE = "<none>"
Json = dict[str, Any]


class Lines:
    """Lines with tabs between their cells."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def text(self, text: str, level: int = 0) -> None:
        self.texts.append("  " * level + text)

    def add(self, label: str, value: Any, level: int = 0) -> None:
        """`Label:  value`; a value of several lines goes on below."""
        first, *more = str(value).split("\n")
        self.texts.append(f"{'  ' * level}{label}:\t{first}")
        self.texts += [f"{'  ' * level}\t{line}" for line in more]

    def row(self, level: int, *cells: Any) -> None:
        self.texts.append("  " * level + "\t".join(str(cell) for cell in cells))

    def table(self, level: int, headings: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
        self.row(level, *headings)
        self.row(level, *("-" * len(heading) for heading in headings))
        for row in rows:
            self.row(level, *row)


def align(texts: list[str]) -> str:
    """Cells of neighbouring lines under each other: a column ends where a line has no such cell."""
    rows = [text.split("\t") for text in texts]
    column = 0
    while any(len(row) > column + 1 for row in rows):
        start = 0
        while start < len(rows):
            end = start
            while end < len(rows) and len(rows[end]) > column + 1:
                end += 1
            width = max((len(row[column]) for row in rows[start:end]), default=0) + PADDING
            for row in rows[start:end]:
                row[column] = row[column].ljust(width)
            start = end + 1
        column += 1
    return "".join("".join(row).rstrip() + "\n" for row in rows)


def mapping(lines: Lines, label: str, pairs: Mapping[str, Any] | None, level: int = 0, sep: str = "=") -> None:
    """Labels, annotations, selectors: one a line, none said as such. What apply left for itself is no news."""
    shown = [
        f"{key}{sep}{value}" if sep == "=" else f"{key}: {value}"
        for key, value in sorted((pairs or {}).items())
        if key != "kubectl.kubernetes.io/last-applied-configuration"
    ]
    lines.add(label, "\n".join(text.replace("\n", " ") if len(text) > 200 else text for text in shown) or NONE, level)


def generic(lines: Lines, value: Json, level: int = 0) -> None:
    """Any object, its fields in order under spaced titles: `podCIDR` is `Pod CIDR`."""
    for key in sorted(value):
        inner = value[key]
        label = title(key)
        if isinstance(inner, dict):
            if inner:
                lines.text(f"{label}:", level)
                generic(lines, inner, level + 1)
        elif isinstance(inner, list):
            lines.text(f"{label}:", level)
            for item in inner:
                if isinstance(item, dict):
                    generic(lines, item, level + 1)
                else:
                    lines.text(str(item), level + 1)
        else:
            lines.add(
                label,
                {True: "true", False: "false", None: NONE}.get(inner, inner)
                if not isinstance(inner, int) or isinstance(inner, bool)
                else inner,
                level,
            )


def title(field: str) -> str:
    words = re.sub(
        r"([a-z0-9])([A-Z])|([A-Z]+)(?=[A-Z][a-z])", lambda m: f"{m[1]} {m[2]}" if m[1] else f"{m[3]} ", field
    )
    return words[:1].upper() + words[1:]


def age(timestamp: str | None, now: float) -> str:
    return duration(now - parse_time(timestamp)) if timestamp else "<unknown>"


def when(timestamp: str | None) -> str:
    """`Sun, 22 Nov 2026 01:13:50 +0000`"""
    import time

    return time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(parse_time(timestamp))) if timestamp else "<unset>"


def controlled_by(lines: Lines, meta: Json) -> None:
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    if owner:
        lines.add("Controlled By", f"{owner['kind']}/{owner['name']}")


def head(lines: Lines, obj: Json, *, annotations: bool = True) -> None:
    meta = obj["metadata"]
    lines.add("Name", meta["name"])
    if meta.get("namespace"):
        lines.add("Namespace", meta["namespace"])
    mapping(lines, "Labels", meta.get("labels"))
    if annotations:
        mapping(lines, "Annotations", meta.get("annotations"), sep=": ")
    if meta.get("deletionTimestamp"):
        lines.add("Deleted At", when(meta["deletionTimestamp"]))
