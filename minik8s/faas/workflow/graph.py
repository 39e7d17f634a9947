"""A definition as a graph, in layers: where each state stands, and which ways lead from it. Pure.

States stand in rows by their longest way from the start (ways back do not count); in a row they stand below what leads
to them, which keeps lines from crossing where that is easily had. Branches of a Parallel and the processor of a Map are
boxes with a graph of their own inside.
"""

from __future__ import annotations

from typing import NamedTuple

from minik8s.faas.workflow.data import Json
from minik8s.faas.workflow.definition import targets

BOX_HEIGHT, GAP_X, GAP_Y, PAD, CHAR = 36, 28, 44, 14, 7.5  # pixels; CHAR is a letter's width
LEAST_WIDTH, MOST_WIDTH = 90, 260
MOST_STUBS = 5_000  # with more of them lines go straight: drawing stays cheap whatever somebody defines
STUB = "\0"  # a place that an edge passes on its way over several rows


Places = dict[str, tuple[float, float, float, float]]  # x, y, width, height


class Node(NamedTuple):
    """A state, `x` and `y` its upper left corner; `inside` is that of what it contains, placed absolutely."""

    name: str
    type: str
    x: float
    y: float
    width: float
    height: float
    inside: tuple[Layout, ...] = ()


class Edge(NamedTuple):
    """`points` from a state's lower edge to another's upper one; `label` is why one goes there."""

    source: str
    target: str
    label: str
    points: tuple[tuple[float, float], ...]


class Layout(NamedTuple):
    width: float
    height: float
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def ways(state: Json) -> list[tuple[str, str]]:
    """(where to, why) of a state, each target once."""
    found: dict[str, list[str]] = {}
    if "Next" in state:
        found.setdefault(state["Next"], []).append("")
    for number, rule in enumerate(state.get("Choices", ()), 1):
        found.setdefault(rule["Next"], []).append(f"rule {number}")
    if "Default" in state:
        found.setdefault(state["Default"], []).append("default")
    for catcher in state.get("Catch", ()):
        found.setdefault(catcher["Next"], []).append("error")
    return [(target, ", ".join(filter(None, reasons))) for target, reasons in found.items()]


def layout(machine: Json) -> Layout:
    """Of a definition without faults."""
    states: Json = machine["States"]
    inner = {name: [layout(each) for each in _inner(state)] for name, state in states.items()}
    sizes = {name: _size(name, within) for name, within in inner.items()}
    rows = _rows(machine)
    bent = sum(abs(rows[target] - rows[name]) for name in rows for target in targets(states[name])) <= MOST_STUBS
    ordered = _ordered(rows, _links(machine, rows, bent=bent))
    widths = [sum(_width(name, sizes) for name in row) + GAP_X * (len(row) - 1) for row in ordered]
    total = max(widths) + 2 * PAD
    nodes: list[Node] = []
    places: Places = {}
    y: float = PAD
    for row, width in zip(ordered, widths, strict=True):
        x = (total - width) / 2
        height = max((sizes[name][1] for name in row if name in sizes), default=BOX_HEIGHT)
        for name in row:
            w = _width(name, sizes)
            h = sizes[name][1] if name in sizes else height
            places[name] = (x, y, w, h)
            if name in states:
                nodes.append(Node(name, states[name]["Type"], x, y, w, h, _inside(inner[name], x, y)))
            x += w + GAP_X
        y += height + GAP_Y
    edges = _edges(machine, rows, places, bent=bent)
    return Layout(total, y - GAP_Y + PAD, tuple(nodes), edges)


def _inner(state: Json) -> list[Json]:
    machines: list[Json] = list(state.get("Branches", ()))
    processor = state.get("ItemProcessor", state.get("Iterator"))
    return [*machines, processor] if processor is not None else machines


def _inside(inner: list[Layout], x: float, y: float) -> tuple[Layout, ...]:
    """Side by side in the box whose corner this is."""
    made, at = [], x + PAD
    for each in inner:
        made.append(_moved(each, at, y + BOX_HEIGHT))
        at += each.width + PAD
    return tuple(made)


def _moved(drawn: Layout, x: float, y: float) -> Layout:
    nodes = tuple(
        node._replace(x=node.x + x, y=node.y + y, inside=tuple(_moved(inner, x, y) for inner in node.inside))
        for node in drawn.nodes
    )
    edges = tuple(edge._replace(points=tuple((px + x, py + y) for px, py in edge.points)) for edge in drawn.edges)
    return drawn._replace(nodes=nodes, edges=edges)


def _size(name: str, inner: list[Layout]) -> tuple[float, float]:
    width = min(max(len(name) * CHAR + 2 * PAD, LEAST_WIDTH), MOST_WIDTH)
    if not inner:
        return width, BOX_HEIGHT
    within = sum(each.width + PAD for each in inner) + PAD
    return max(width, within), BOX_HEIGHT + max(each.height for each in inner) + PAD


def _width(name: str, sizes: dict[str, tuple[float, float]]) -> float:
    return sizes[name][0] if name in sizes else PAD


def _rows(machine: Json) -> dict[str, int]:
    """State -> row: the longest way from the start, ways back left out. Without recursion: chains may be long."""
    states, start = machine["States"], machine["StartAt"]
    order: list[str] = []  # every state after all that it leads to
    back: set[tuple[str, str]] = set()
    seen, on_way = {start}, {start}
    stack = [(start, iter(targets(states[start])))]
    while stack:
        name, following = stack[-1]
        target = next(following, None)
        if target is None:
            stack.pop()
            on_way.discard(name)
            order.append(name)
        elif target in on_way:
            back.add((name, target))
        elif target not in seen:
            seen.add(target)
            on_way.add(target)
            stack.append((target, iter(targets(states[target]))))
    rows = dict.fromkeys(reversed(order), 0)
    for name in rows:
        for target in targets(states[name]):
            if (name, target) not in back:
                rows[target] = max(rows[target], rows[name] + 1)
    return rows


def _stub(source: str, target: str, row: int) -> str:
    return f"{STUB}{source}{STUB}{target}{STUB}{row}"


def _links(machine: Json, rows: dict[str, int], *, bent: bool) -> list[tuple[str, str]]:
    """Pairs of neighbours in adjacent rows, with stubs for ways over several rows."""
    found = []
    for name, row in rows.items():
        for target, _ in ways(machine["States"][name]):
            before = name
            for between in range(row + 1, rows[target] if bent else 0):
                stub = _stub(name, target, between)
                found.append((before, stub))
                before = stub
            if rows[target] == row + 1 or (bent and rows[target] > row):
                found.append((before, target))
    return found


def _ordered(rows: dict[str, int], links: list[tuple[str, str]]) -> list[list[str]]:
    """Names and stubs of each row from left to right: by the mean place of what leads to them."""
    level: dict[str, int] = dict(rows)
    above: dict[str, list[str]] = {}
    for source, target in links:
        level[target] = level[source] + 1
        above.setdefault(target, []).append(source)
    found: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for name, row in level.items():
        found[row].append(name)
    place: dict[str, float] = {}

    def mean(name: str) -> float:
        sources = [place[source] for source in above.get(name, ()) if source in place]
        return sum(sources) / len(sources) if sources else 0.5

    for row_names in found:
        row_names.sort(key=mean)  # stable: what is equal stays as the definition has it
        for index, name in enumerate(row_names):
            place[name] = (index + 0.5) / len(row_names)
    return found


def _edges(machine: Json, rows: dict[str, int], places: Places, *, bent: bool) -> tuple[Edge, ...]:
    made = []
    for name, row in rows.items():
        for target, label in ways(machine["States"][name]):
            x, y, w, h = places[name]
            tx, ty, tw, th = places[target]
            if rows[target] > row:
                points = [(x + w / 2, y + h)]
                for between in range(row + 1, rows[target] if bent else 0):
                    sx, sy, sw, sh = places[_stub(name, target, between)]
                    points += [(sx + sw / 2, sy), (sx + sw / 2, sy + sh)]
                points.append((tx + tw / 2, ty))
            else:  # back: from the right side to the right side
                points = [
                    (x + w, y + h / 2),
                    (max(x + w, tx + tw) + GAP_X / 2, (y + ty + h) / 2),
                    (tx + tw, ty + th / 2),
                ]
            made.append(Edge(name, target, label, tuple(points)))
    return tuple(made)
