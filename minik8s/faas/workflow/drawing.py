"""Graphs as SVG, DOT and text, with what a run did laid over: colour, counts, times. Pure; names are never trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import NamedTuple

from minik8s.faas.workflow.data import Json
from minik8s.faas.workflow.graph import BOX_HEIGHT, Layout, Node, layout, ways
from minik8s.faas.workflow.history import ENDS, Event

COLOURS = {"": "#f4f5f7", "running": "#bfdbfe", "succeeded": "#bbf7d0", "failed": "#fecaca", "caught": "#fed7aa"}
STROKES = {"": "#9aa1ac", "running": "#2563eb", "succeeded": "#16a34a", "failed": "#dc2626", "caught": "#ea580c"}

FAILURES = ("TaskFailed", "ActivityFailed", "TaskTimedOut", "ActivityTimedOut", "StateFailed")


class Mark(NamedTuple):
    """What a run did in a state: how it stands, how often it was entered and left, tried again; seconds in it."""

    state: str
    entered: int = 0
    exited: int = 0
    failures: int = 0
    seconds: float = 0.0

    @property
    def text(self) -> str:
        parts = [f"{self.exited}/{self.entered}"] if self.entered > 1 or self.exited != self.entered else []
        parts += [f"{self.failures} failed"] if self.failures else []
        return " · ".join([*parts, _seconds(self.seconds)] if self.exited else parts)


def marks(events: Iterable[Event]) -> dict[str, Mark]:
    """What events say of each state; what is in no map was not entered."""
    entered: dict[str, int] = {}
    exited: dict[str, int] = {}
    failures: dict[str, int] = {}
    seconds: dict[str, float] = {}
    begun: dict[str, float] = {}  # when a state was entered last: what leads out of one with branches happened in these
    troubled: set[str] = set()  # states whose last attempt failed
    state_of: dict[int, tuple[str, float]] = {}  # event -> the state in which it happened, and since when that goes on
    ended = False
    for event in events:
        where = state_of.get(event.previousEventId, ("", 0.0))
        name = event.details.get("name", "")
        if event.type in ENDS or event.type == "ExecutionRedriven":
            ended = event.type in ENDS
        elif event.type.endswith("StateEntered"):
            where = (name, event.timestamp)
            entered[name] = entered.get(name, 0) + 1
            begun[name] = event.timestamp
            troubled.discard(name)
        elif event.type.endswith("StateExited"):
            exited[name] = exited.get(name, 0) + 1
            since = where[1] if where[0] == name else begun.get(name, event.timestamp)
            seconds[name] = seconds.get(name, 0.0) + event.timestamp - since
        elif event.type.endswith(FAILURES):
            failures[where[0]] = failures.get(where[0], 0) + 1
            troubled.add(where[0])
        elif event.type.endswith(("TaskSucceeded", "ActivitySucceeded")):
            troubled.discard(where[0])
        state_of[event.id] = where
    found = {}
    for name, count in entered.items():
        out = exited.get(name, 0)
        stands = "failed" if ended else "running"
        if out >= count:
            stands = "caught" if name in troubled else "succeeded"
        found[name] = Mark(stands, count, out, failures.get(name, 0), seconds.get(name, 0.0))
    return found


def svg(definition: Json, overlay: Mapping[str, Mark] | None = None, title: str = "") -> str:
    """A whole SVG document, without scripts, links and anything that is fetched."""
    drawn = layout(definition)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawn.width + 20:.0f} {drawn.height:.0f}" '
        f'width="{drawn.width + 20:.0f}" height="{drawn.height:.0f}" '
        'font-family="system-ui,sans-serif" font-size="13">',
        f"<title>{_text(title)}</title>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>',
        *_svg(drawn, definition["StartAt"], overlay or {}),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _svg(drawn: Layout, start: str, overlay: Mapping[str, Mark]) -> Iterator[str]:
    for edge in drawn.edges:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in edge.points)
        dash = ' stroke-dasharray="4 3"' if "error" in edge.label else ""
        yield f'<path d="{path}" fill="none" stroke="#6b7280" marker-end="url(#a)"{dash}/>'
        if edge.label:
            (x, y), (tx, ty) = edge.points[0], edge.points[1]
            at = f'x="{(x + tx) / 2 + 4:.1f}" y="{(y + ty) / 2 + 4:.1f}"'
            yield f'<text {at} font-size="10" fill="#6b7280">{_text(edge.label)}</text>'
    for node in drawn.nodes:
        yield from _node(node, node.name == start, overlay)


def _node(node: Node, first: bool, overlay: Mapping[str, Mark]) -> Iterator[str]:
    mark = overlay.get(node.name, Mark(""))
    radius = BOX_HEIGHT / 2 if node.type in ("Succeed", "Fail") else 4
    about = f"{node.name} ({node.type}){': ' + mark.state if mark.state else ''}"
    yield f'<g data-state="{_text(node.name)}" data-status="{mark.state}"><title>{_text(about)}</title>'
    yield (
        f'<rect x="{node.x:.1f}" y="{node.y:.1f}" width="{node.width:.1f}" height="{node.height:.1f}" rx="{radius:g}" '
        f'fill="{COLOURS[mark.state]}" stroke="{STROKES[mark.state]}" stroke-width="{2 if first else 1}"/>'
    )
    middle = node.x + node.width / 2
    room = int(node.width / 7.5)
    name = node.name if len(node.name) <= room else node.name[: room - 1] + "…"
    low = node.y + (16 if mark.text or node.inside else 23)
    yield f'<text x="{middle:.1f}" y="{low:.1f}" text-anchor="middle">{_text(name)}</text>'
    if mark.text:
        yield f'<text x="{middle:.1f}" y="{low + 14:.1f}" text-anchor="middle" font-size="10">{_text(mark.text)}</text>'
    yield "</g>"
    for inner in node.inside:
        yield from _svg(inner, "", overlay)


def dot(definition: Json, overlay: Mapping[str, Mark] | None = None, title: str = "") -> str:
    """The graph for Graphviz."""
    lines = [f"digraph {_quoted(title)} {{", "  node [shape=box, style=filled];"]
    lines += _dot(definition, overlay or {}, "  ", "c")
    return "\n".join([*lines, "}"]) + "\n"


def _dot(machine: Json, overlay: Mapping[str, Mark], indent: str, prefix: str) -> Iterator[str]:
    for number, (name, state) in enumerate(machine["States"].items()):
        mark = overlay.get(name, Mark(""))
        label = name + (f"\n{mark.text}" if mark.text else "")
        yield f'{indent}{_quoted(name)} [label={_quoted(label)}, fillcolor="{COLOURS[mark.state]}"];'
        for target, why in ways(state):
            yield f"{indent}{_quoted(name)} -> {_quoted(target)} [label={_quoted(why)}];"
        processor = state.get("ItemProcessor", state.get("Iterator"))
        for index, inner in enumerate([*state.get("Branches", ()), *([processor] if processor else [])]):
            own = f"{prefix}_{number}_{index}"
            yield f"{indent}subgraph cluster_{own} {{ label={_quoted(name)};"
            yield from _dot(inner, overlay, indent + "  ", own)
            yield f"{indent}}}"
            yield f"{indent}{_quoted(name)} -> {_quoted(inner['StartAt'])} [style=dotted];"


def text(definition: Json, overlay: Mapping[str, Mark] | None = None, title: str = "") -> str:
    """One line a state, for terminals."""
    lines = [_plain(title)] if title else []
    return "\n".join([*lines, *_lines(definition, overlay or {}, "")]) + "\n"


def _lines(machine: Json, overlay: Mapping[str, Mark], indent: str) -> Iterator[str]:
    signs = {"": " ", "running": "»", "succeeded": "✓", "failed": "✗", "caught": "!"}
    drawn = sorted(layout(machine).nodes, key=lambda node: (node.y, node.x))
    for node in drawn:
        state, mark = machine["States"][node.name], overlay.get(node.name, Mark(""))
        to = ", ".join(_plain(target) + (f" ({why})" if why else "") for target, why in ways(state))
        first = "→" if node.name == machine["StartAt"] else " "
        said = f"{indent}{signs[mark.state]}{first} {_plain(node.name)} [{node.type}]{' → ' + to if to else ''}"
        yield said + (f"   {mark.text}" if mark.text else "")
        processor = state.get("ItemProcessor", state.get("Iterator"))
        for inner in [*state.get("Branches", ()), *([processor] if processor else [])]:
            yield from _lines(inner, overlay, indent + "    ")


FORMS = {"svg": svg, "dot": dot, "text": text}


def _text(value: str) -> str:
    """Text of an XML document, which may not hold control characters however they are written."""
    return escape(_plain(value), quote=True)


def _plain(value: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value)


def _quoted(value: str) -> str:
    inner = "\\n".join(_plain(line) for line in value.replace("\\", "\\\\").replace('"', '\\"').split("\n"))
    return f'"{inner}"'


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 120 else f"{value / 60:.0f} min"
