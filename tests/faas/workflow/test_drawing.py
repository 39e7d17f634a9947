"""Graphs: states stand in rows without touching, every way is drawn, a run shows, hostile names do no harm."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.faas.workflow.drawing import FORMS, dot, marks, svg, text
from minik8s.faas.workflow.graph import Layout, layout
from minik8s.faas.workflow.history import Event

from .world import World, machine

Json = dict[str, Any]
LOOP = machine(
    {
        "Try": {
            "Type": "Task", "Resource": "f", "Next": "Enough?", "Catch": [{"ErrorEquals": ["E"], "Next": "Undo"}],
        },
        "Enough?": {
            "Type": "Choice", "Default": "Try", "Choices": [{"Variable": "$.x", "IsPresent": True, "Next": "Done"}],
        },
        "Undo": {"Type": "Pass", "Next": "Done"},
        "Done": {"Type": "Succeed"},
    }
)  # fmt: skip
LEFT = machine({"A": {"Type": "Succeed"}})
RIGHT = machine({"B": {"Type": "Pass", "Next": "C"}, "C": {"Type": "Succeed"}})
BRANCHES = machine(
    {
        "Both": {"Type": "Parallel", "Next": "Each", "Branches": [LEFT, RIGHT]},
        "Each": {"Type": "Map", "End": True, "ItemProcessor": machine({"One": {"Type": "Pass", "End": True}})},
    }
)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """How many states, and ways between them."""
    count = draw(st.integers(1, 12))
    state = st.integers(0, count - 1)
    return count, draw(st.lists(st.tuples(state, state), max_size=30))


def boxes(drawn: Layout) -> dict[str, tuple[float, float, float, float]]:
    return {node.name: (node.x, node.y, node.x + node.width, node.y + node.height) for node in drawn.nodes}


def apart(drawn: Layout) -> bool:
    found = list(boxes(drawn).values())
    return all(
        a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        for i, a in enumerate(found)
        for b in found[i + 1 :]
    )


def test_rows_follow_the_longest_way() -> None:
    places = boxes(layout(LOOP))
    tops = [places[name][1] for name in ("Try", "Enough?", "Done")]
    assert tops == sorted(set(tops))
    assert places["Enough?"][1] == places["Undo"][1]
    ways = {(edge.source, edge.target, edge.label) for edge in layout(LOOP).edges}
    assert ways == {("Try", "Enough?", ""), ("Try", "Undo", "error"), ("Enough?", "Done", "rule 1"),
                    ("Enough?", "Try", "default"), ("Undo", "Done", "")}  # fmt: skip


def test_what_a_state_contains_stands_inside() -> None:
    outer = {node.name: node for node in layout(BRANCHES).nodes}
    assert [len(node.inside) for node in outer.values()] == [2, 1]
    left, top, right, bottom = boxes(layout(BRANCHES))["Both"]
    for inner in outer["Both"].inside:
        for x, y, x2, y2 in boxes(inner).values():
            assert left <= x <= x2 <= right
            assert top <= y <= y2 <= bottom


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_states_never_touch(made: tuple[int, list[tuple[int, int]]]) -> None:
    number, ways = made
    states: Json = {}
    for index in range(number):
        rules = [{"Variable": "$.x", "IsNull": True, "Next": f"S{b}"} for a, b in ways if a == index]
        if index + 1 < number:
            rules.append({"Variable": "$.x", "IsNull": True, "Next": f"S{index + 1}"})
        states[f"S{index}"] = {"Type": "Choice", "Choices": rules} if rules else {"Type": "Succeed"}
    drawn = layout(machine(states))
    assert {node.name for node in drawn.nodes} == set(states)
    assert apart(drawn)


@pytest.mark.parametrize(
    "name", ["</svg><script>alert(1)</script>", 'a" onload="x', "a]]>&amp;", "\0\x1b[31m", "\ud800", "-->"]
)
def test_hostile_names_stay_text(name: str) -> None:
    definition = machine({name: {"Type": "Task", "Resource": "f", "End": True}})
    drawn = svg(definition, None, name)
    tree = ElementTree.fromstring(drawn.encode(errors="replace"))
    tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert tags <= {"svg", "title", "defs", "marker", "path", "g", "rect", "text"}
    assert not [key for element in tree.iter() for key in element.attrib if key.startswith("on")]
    assert "\x1b" not in text(definition, None, name) + dot(definition, None, name)


def test_huge_and_deep_definitions_are_drawn_quickly() -> None:
    count = 1500
    wide = {
        f"S{i}": {"Type": "Choice", "Choices": [
            {"Variable": "$.x", "IsNull": True, "Next": f"S{t}"} for t in {min(i + 1, count), count, (i * 7) % count}]}
        for i in range(count)
    }  # fmt: skip
    deep: Json = machine({"S": {"Type": "Succeed"}})
    for depth in range(40):
        deep = machine({f"P{depth}": {"Type": "Parallel", "Branches": [deep], "End": True}})
    began = time.process_time()
    for definition in (machine({**wide, f"S{count}": {"Type": "Succeed"}}), deep):
        for draw in FORMS.values():
            assert draw(definition)
    assert time.process_time() - began < 5


def test_a_run_shows() -> None:
    events = World(BRANCHES).run([1, 2, 3]).recorded
    found = marks(events)
    assert {name: mark.state for name, mark in found.items()} == dict.fromkeys(
        ("Both", "A", "B", "C", "Each", "One"), "succeeded"
    )
    assert (found["One"].entered, found["One"].exited) == (2, 2)  # one for each of what both branches gave
    assert 'data-state="One" data-status="succeeded"' in svg(BRANCHES, found)
    assert "2/2" in text(BRANCHES, found)


def test_where_a_run_is_and_where_it_failed() -> None:
    world = World(machine({"T": {"Type": "Task", "Resource": "f", "End": True}})).start()
    assert marks(world.recorded)["T"].state == "running"
    world.report(lambda execution: execution.fail(3, "E", "", world.now + 1))
    assert marks(world.recorded)["T"] == ("failed", 1, 0, 1, 0.0)
    assert marks([*world.recorded, Event(99, "ExecutionRedriven", world.now)])["T"].state == "running"


def test_what_was_caught_is_told_from_what_went_well() -> None:
    world = World(LOOP).start({"x": 1})
    world.report(lambda execution: execution.fail(3, "E", "", world.now))
    assert {name: mark.state for name, mark in marks(world.recorded).items()} == {
        "Try": "caught", "Undo": "succeeded", "Done": "succeeded",
    }  # fmt: skip
