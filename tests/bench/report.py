"""A measure, what it is compared with, and the table and JSON of many. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

HEADER = ("MEASURE", "RESULT", "GOAL", "VERDICT", "BESIDE IT")


@dataclass(frozen=True)
class Result:
    """`goal` is a bound: an upper one, or a lower one where `more` is better. None: just a number worth knowing."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    more: bool = False
    beside: str = ""  # a floor or a peer, measured in the same run

    @property
    def ok(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.more else self.value <= self.goal

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        if self.ok:
            return "ok"
        if not self.goal:
            return "missed"
        off = (self.goal / self.value if self.more else self.value / self.goal) if self.value else float("inf")
        return f"missed: {off:.2f} times the goal" if not self.more else f"missed: {1 / off:.0%} of the goal"

    def row(self) -> tuple[str, ...]:
        goal = "" if self.goal is None else f"{'≥' if self.more else '≤'} {number(self.goal)} {self.unit}"
        return self.name, f"{number(self.value)} {self.unit}", goal, self.verdict, self.beside

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name, "value": self.value, "unit": self.unit, "goal": self.goal,
            "better": "more" if self.more else "less", "ok": self.ok, "beside": self.beside,
        }  # fmt: skip


def number(value: float) -> str:
    """Three digits that count, thousands apart: `12 345`, `98.7`, `0.031`."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if value else "0"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Columns side by side; the second and third, which hold numbers, to the right."""
    cells = [HEADER, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    lines = []
    for row in cells:
        aligned = (
            c.rjust(w) if at in (1, 2) else c.ljust(w) for at, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
