"""Cron's fields: what is taken, as which numbers, and what is refused with which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.cron import MACROS, parse_cron


def test_all_of_everything() -> None:
    found = parse_cron("* * * * *")
    assert found.minutes == set(range(60))
    assert found.hours == set(range(24))
    assert found.days == set(range(1, 32))
    assert found.months == set(range(1, 13))
    assert found.weekdays == set(range(7))
    assert found.any_day
    assert found.any_weekday


@pytest.mark.parametrize(
    ("text", "field", "numbers"),
    [
        ("*/15 * * * *", "minutes", {0, 15, 30, 45}),
        ("5/20 * * * *", "minutes", {5, 25, 45}),
        ("1,2,40-42 * * * *", "minutes", {1, 2, 40, 41, 42}),
        ("0 9-17/4 * * *", "hours", {9, 13, 17}),
        ("0 0 31 * *", "days", {31}),
        ("0 0 1 jan,Jul *", "months", {1, 7}),
        ("0 0 * * 7", "weekdays", {0}),
        ("0 0 * * mon-fri", "weekdays", {1, 2, 3, 4, 5}),
        ("0 0 * * 5-7", "weekdays", {0, 5, 6}),
        ("@Weekly", "weekdays", {0}),
    ],
)
def test_fields(text: str, field: str, numbers: set[int]) -> None:
    assert getattr(parse_cron(text), field) == numbers


def test_a_list_of_all_days_is_not_any_day() -> None:
    assert not parse_cron("0 0 1-31 * 1").any_day
    assert parse_cron("0 0 * * 1").any_day
    assert not parse_cron("0 0 * * 1").any_weekday


@pytest.mark.parametrize("text", MACROS)
def test_macros(text: str) -> None:
    assert parse_cron(text).minutes == {0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("@never", "five fields"),
        ("60 * * * *", "the minute '60' must be 0 to 59"),
        ("* 24 * * *", "the hour '24'"),
        ("* * 0 * *", "the day of month '0' must be 1 to 31"),
        ("* * * foo *", "or a name like feb"),
        ("* * * * 8", "the day of week '8'"),
        ("*/0 * * * *", "no step"),
        ("5-1 * * * *", "ends before it begins"),
        ("1,,2 * * * *", "the minute ''"),
        ("٣ * * * *", "must be 0 to 59"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_cron(text)


@given(st.text(max_size=40))
def test_anything_is_a_schedule_or_refused(text: str) -> None:
    try:
        found = parse_cron(text)
    except ValueError:
        return
    assert found.minutes
    assert found.hours
    assert found.days
    assert found.months
    assert found.weekdays
