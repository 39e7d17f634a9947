"""Which iptables commands Docker's FORWARD policy asks for."""

from __future__ import annotations

import pytest

from minik8s.net.docker_forward import CHAIN, plan, plan_removal

DOCKER = [
    "-P INPUT ACCEPT",
    "-P FORWARD DROP",
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-A DOCKER-USER -j RETURN",
]
OURS = [
    f"-A {CHAIN} -i mk8s+ -j ACCEPT",
    f"-A {CHAIN} -o mk8s+ -j ACCEPT",
    f"-A {CHAIN} -m mark --mark 0x200000/0x200000 -j ACCEPT",
    f"-A {CHAIN} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
]


def run(listing: list[str], commands: list[list[str]]) -> list[str]:
    """iptables, as far as needed here."""
    for command in commands:
        verb, chain, *rest = command
        rule = " ".join(["-A", chain, *rest])
        if verb == "-N":
            listing = [*listing, f"-N {chain}"]
        elif verb == "-F":
            listing = [line for line in listing if not line.startswith(f"-A {chain} ")]
        elif verb == "-X":
            listing = [line for line in listing if line != f"-N {chain}"]
        elif verb == "-D":
            listing.remove(rule)
        elif verb == "-I":
            first = next((i for i, line in enumerate(listing) if line.startswith(f"-A {chain} ")), len(listing))
            listing = [*listing[:first], rule, *listing[first:]]
        else:
            listing = [*listing, rule]
    return listing


def test_nothing_where_everything_is_let_through() -> None:
    assert plan(["-P INPUT ACCEPT", "-P FORWARD ACCEPT", "-P OUTPUT ACCEPT"], "mk8s+") == []


@pytest.mark.parametrize(
    ("listing", "home"),
    [
        (DOCKER, "DOCKER-USER"),
        (["-P FORWARD DROP"], "FORWARD"),
        (["-P FORWARD ACCEPT", "-A FORWARD -j REJECT"], "FORWARD"),
        ([*DOCKER, f"-N {CHAIN}", f"-A {CHAIN} -i mk8s+ -j ACCEPT"], "DOCKER-USER"),  # half of it
        ([*DOCKER, f"-N {CHAIN}", *OURS, f"-A DOCKER-USER -j {CHAIN}"], "DOCKER-USER"),  # behind RETURN
    ],
)
def test_pods_are_let_through_first_and_once(listing: list[str], home: str) -> None:
    done = run(list(listing), plan(listing, "mk8s+"))
    assert next(line for line in done if line.startswith(f"-A {home} ")) == f"-A {home} -j {CHAIN}"
    assert done.count(f"-A {home} -j {CHAIN}") == 1
    assert [line for line in done if line.startswith(f"-A {CHAIN} ")] == OURS
    assert plan(done, "mk8s+") == []
    clean = [line for line in listing if CHAIN not in line]
    assert sorted(run(done, plan_removal(done))) == sorted(clean)
    assert plan_removal(clean) == []
