"""Each thing that can be in the way of pods has its words, and the search for the largest packet ends at it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.net import reach
from minik8s.net.reach import HEADERS, SMALLEST, Reach, words

FINE = Reach("h2", "10.0.1.2", "vxlan", True, True, True, 1450, 1450, 0.42)


@pytest.mark.parametrize(
    ("changed", "said", "remedy"),
    [
        ({}, "h1 -> h2: VXLAN, 0.4 ms, packets up to 1450 bytes", ""),
        ({"way": "none", "pod": False}, "no way: h2 (10.0.1.2) is in another subnet", "--pod-network auto or vxlan"),
        ({"size": 1350}, "packets over 1350 bytes get lost, pods send up to 1450", "by 100 bytes"),
        ({"pod": False}, "packets reach the other host, but not pods there: a firewall", "iptables -S FORWARD"),
        ({"pod": False, "tunnel": False}, "UDP port 8472 is blocked between 10.0.0.1 and 10.0.1.2", "--dport 8472"),
        (
            {"pod": False, "tunnel": False, "way": "route"},
            "drops addresses that it did not give",
            "--pod-network vxlan",
        ),
        ({"pod": False, "tunnel": False, "node": False}, "10.0.1.2 does not answer at all", "see that the host is on"),
    ],
)
def test_what_is_in_the_way_is_said(changed: dict[str, object], said: str, remedy: str) -> None:
    found = words("h1", "10.0.0.1", FINE._replace(**changed))  # type: ignore[arg-type]
    assert found.well == (not changed)
    assert said in found.detail
    assert found.detail.startswith("h1 -> h2: ")
    assert remedy in found.remedy
    assert bool(found.remedy) == bool(changed)


def test_a_node_of_another_release_is_understood() -> None:
    assert reach.from_json(FINE._asdict() | {"colour": "blue"}) == FINE
    with pytest.raises(TypeError):
        reach.from_json({"peer": "h2"})


@given(st.integers(0, 2000), st.integers(700, 9000))
def test_the_largest_packet_is_found_in_few_attempts(limit: int, largest: int) -> None:
    """`limit`: the largest that the path lets through."""
    asking, through, tried = reach.sizes(largest), 0, 0
    try:
        size = next(asking)
        while True:
            tried += 1
            fits = size + HEADERS <= limit
            through = size + HEADERS if fits else through
            size = asking.send(fits)
    except StopIteration:
        pass
    assert through == (min(limit, largest) if limit >= HEADERS + 1 else 0) or limit < HEADERS + 2
    assert tried <= 16
    assert largest > SMALLEST
