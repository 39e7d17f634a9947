"""Schedules in wall clocks: across months, leap years, and days on which the clock is put forward or back."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.cron import parse_cron
from minik8s.faas.queue.cron import last_time, next_time, zone

BERLIN = "Europe/Berlin"


def at(text: str, place: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone(place)).timestamp()


def following(schedule: str, after: str, place: str = "", count: int = 3) -> list[str]:
    times, now = [], at(after, place)
    for _ in range(count):
        found = next_time(parse_cron(schedule), zone(place), now)
        assert found is not None
        now = found
        times.append(datetime.fromtimestamp(now, zone(place)).strftime("%Y-%m-%d %H:%M %z"))
    return times


@pytest.mark.parametrize(
    ("schedule", "after", "place", "times"),
    [
        ("*/20 * * * *", "2026-01-31T23:30", "", ["2026-01-31 23:40", "2026-02-01 00:00", "2026-02-01 00:20"]),
        ("0 0 29 feb *", "2096-03-01", "", ["2104-02-29 00:00", "2108-02-29 00:00", "2112-02-29 00:00"]),
        ("0 9 * * mon-fri", "2026-01-02T09:00", "", ["2026-01-05 09:00", "2026-01-06 09:00", "2026-01-07 09:00"]),
        ("0 0 13 * 5", "2026-03-01", "", ["2026-03-06 00:00", "2026-03-13 00:00", "2026-03-20 00:00"]),  # either
        ("0 0 13 * *", "2026-03-01", "", ["2026-03-13 00:00", "2026-04-13 00:00", "2026-05-13 00:00"]),
        ("@yearly", "2026-03-01", "", ["2027-01-01 00:00", "2028-01-01 00:00", "2029-01-01 00:00"]),
        ("30 8 * * *", "2026-06-01", "Asia/Kolkata", ["2026-06-01 08:30", "2026-06-02 08:30", "2026-06-03 08:30"]),
    ],
)
def test_times(schedule: str, after: str, place: str, times: list[str]) -> None:
    assert [each[:16] for each in following(schedule, after, place)] == times


def test_the_clock_is_put_forward() -> None:
    """2026-03-29, 02:00 to 03:00."""
    assert following("30 2 * * *", "2026-03-28T12:00", BERLIN, 2) == [
        "2026-03-29 03:30 +0200",
        "2026-03-30 02:30 +0200",
    ]
    assert following("*/30 * * * *", "2026-03-29T01:20", BERLIN) == [
        "2026-03-29 01:30 +0100", "2026-03-29 03:00 +0200", "2026-03-29 03:30 +0200",
    ]  # fmt: skip


def test_the_clock_is_put_back() -> None:
    """2026-10-25, 03:00 to 02:00."""
    assert following("30 2 * * *", "2026-10-25T00:00", BERLIN, 2) == [
        "2026-10-25 02:30 +0200",
        "2026-10-26 02:30 +0100",
    ]
    assert following("*/30 * * * *", "2026-10-25T01:59", BERLIN, 5) == [
        "2026-10-25 02:00 +0200", "2026-10-25 02:30 +0200", "2026-10-25 02:00 +0100", "2026-10-25 02:30 +0100",
        "2026-10-25 03:00 +0100",
    ]  # fmt: skip


def test_what_never_comes_and_what_is_nowhere() -> None:
    assert next_time(parse_cron("0 0 30 2 *"), zone(""), 0.0) is None
    assert last_time(parse_cron("0 0 30 2 *"), zone(""), 0.0, 1e9) is None
    for name in ("Mars/Olympus", "../etc/passwd", "Europe"):
        with pytest.raises(ValueError, match="no time zone"):
            zone(name)


def test_of_all_that_was_missed_the_last() -> None:
    hourly, utc = parse_cron("0 * * * *"), zone("")
    begin = at("2026-01-01T00:00", "")
    assert last_time(hourly, utc, begin, begin + 3599) is None
    assert last_time(hourly, utc, begin, begin + 3600) == begin + 3600
    assert last_time(hourly, utc, begin, begin + 10 * 86400 + 1800) == begin + 10 * 86400
    yearly = parse_cron("@yearly")
    assert last_time(yearly, utc, begin - 1, at("2026-12-31T00:00", "")) == begin


@given(st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 1,2,3 * * 0", "15 */5 1-7 * mon", "59 23 31 * *"]),
       st.sampled_from(["", BERLIN, "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]),
       st.integers(1_700_000_000, 1_900_000_000))  # fmt: skip
def test_next_and_last_agree(schedule: str, place: str, now: int) -> None:
    plan, where = parse_cron(schedule), zone(place)
    following = next_time(plan, where, now)
    assert following is not None
    assert following > now
    assert last_time(plan, where, now, following) == following
    assert last_time(plan, where, now, following - 1) is None
    assert next_time(plan, where, following - 1) == following
