"""When a schedule is due, in the wall clock of a time zone. Pure: the time zone database apart, no clock is looked at.

Where the clock is put forward, times that do not exist that day are due when they would have been had it not been put
forward (02:30 at 03:30). Where it is put back, times that exist twice are due once, at the first; schedules of every
hour (`*/10 * * * *`) are due in both, for they count time and not the clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from minik8s.api.cron import Schedule

FARTHEST = 8 * 366 + 2  # days: from one 29 February to the next there may be eight years (2096 to 2104)


def zone(name: str) -> ZoneInfo:
    """ "" is UTC. ValueError for a name that this machine's time zone database does not have."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone that this machine knows, such as Europe/Berlin") from None


def next_time(schedule: Schedule, place: ZoneInfo, after: float) -> float | None:
    """The first time (Unix seconds) behind `after`; None if there is none, as on 30 February."""
    day = datetime.fromtimestamp(after, place).date()
    for offset in range(-1, FARTHEST):
        times = _times(schedule, place, day + timedelta(days=offset))
        if times and times[-1] > after:
            return times[bisect_right(times, after)]
    return None


def last_time(schedule: Schedule, place: ZoneInfo, after: float, upto: float) -> float | None:
    """The last time with after < time <= upto: however many were missed, one is made up for."""
    first, day = datetime.fromtimestamp(after, place).date(), datetime.fromtimestamp(upto, place).date()
    for offset in range(-1, FARTHEST):
        if day - timedelta(days=offset) < first - timedelta(days=1):
            break
        times = _times(schedule, place, day - timedelta(days=offset))
        at = bisect_right(times, upto)
        if at:
            return times[at - 1] if times[at - 1] > after else None
    return None


@lru_cache(maxsize=32)
def _times(schedule: Schedule, place: ZoneInfo, day: date) -> tuple[float, ...]:
    return tuple(sorted(set(_of_day(schedule, place, day)))) if _fits(schedule, day) else ()


def _of_day(schedule: Schedule, place: ZoneInfo, day: date) -> Iterator[float]:
    for hour in schedule.hours:
        for minute in schedule.minutes:
            at = datetime(day.year, day.month, day.day, hour, minute, tzinfo=place)
            yield at.timestamp()
            if len(schedule.hours) == 24:
                again = at.replace(fold=1)
                if again.astimezone(UTC).astimezone(place).replace(tzinfo=None) == again.replace(tzinfo=None):
                    yield again.timestamp()  # in a gap it would be a time that the clock does not show


def _fits(schedule: Schedule, day: date) -> bool:
    if day.month not in schedule.months:
        return False
    by_day, by_weekday = day.day in schedule.days, day.isoweekday() % 7 in schedule.weekdays
    return by_day and by_weekday if schedule.any_day or schedule.any_weekday else by_day or by_weekday
