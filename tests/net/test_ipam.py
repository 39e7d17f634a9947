"""Laws of pod addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.net.base import AddressesExhausted
from minik8s.net.ipam import Leases, from_dict, next_address

CIDR = "10.244.3.0/29"
STEPS = st.lists(st.tuples(st.sampled_from(["take", "release"]), st.sampled_from("abcdefgh")), max_size=60)


@given(STEPS)
def test_no_address_is_ever_held_twice_and_a_pod_keeps_its_own(steps: list[tuple[str, str]]) -> None:
    leases = Leases(CIDR, {})
    for step, uid in steps:
        before = leases
        if step == "release":
            leases = leases.release(uid)
            assert uid not in leases.held
        else:
            try:
                leases = leases.take(uid)
            except AddressesExhausted:
                assert len(before.held) == 6
                continue
            assert leases.take(uid) == leases
        assert len(set(leases.held.values())) == len(leases.held)
        assert not set(leases.freed) & set(leases.held.values())
        for other in set(before.held) - {uid}:
            assert leases.held[other] == before.held[other]
        assert from_dict(CIDR, leases.to_dict()) == leases


@given(STEPS)
def test_a_freed_address_is_given_again_last(steps: list[tuple[str, str]]) -> None:
    leases = Leases(CIDR, {})
    for step, uid in steps:
        if step == "take" and uid not in leases.held and len(leases.held) < 6:
            fresh = {f"10.244.3.{n}" for n in range(1, 7)} - set(leases.held.values()) - set(leases.freed)
            taken = leases.take(uid)
            assert taken.held[uid] in fresh if fresh else taken.held[uid] == leases.freed[0]
            leases = taken
        elif step == "release":
            leases = leases.release(uid)


def test_addresses_in_order_without_the_first_and_the_last() -> None:
    assert next_address("10.244.3.0/30", (), ()) == "10.244.3.1"
    assert next_address("10.244.3.0/30", ("10.244.3.1",), ()) == "10.244.3.2"
    with pytest.raises(AddressesExhausted, match="larger pod range"):
        next_address("10.244.3.0/30", ("10.244.3.1", "10.244.3.2"), ())


def test_the_kernel_is_right_about_who_is_wired() -> None:
    leases = Leases(CIDR, {"a": "10.244.3.1", "b": "10.244.3.2"}, ("10.244.3.3",))
    seen = leases.seen({"b": "10.244.3.1", "c": "10.244.3.3", "stranger": "10.9.9.9"})
    assert seen.held == {"b": "10.244.3.1", "c": "10.244.3.3"}
    assert seen.freed == ()


def test_leases_of_another_range_are_dropped() -> None:
    data = {
        "cidr": "10.9.0.0/24",
        "held": {"a": "10.9.0.1", "b": "10.244.3.2", "c": "10.244.3.2"},
        "freed": ["10.9.0.7"],
    }
    assert from_dict(CIDR, data) == Leases(CIDR, {"b": "10.244.3.2"}, ())
    assert from_dict(CIDR, {}) == Leases(CIDR, {})
