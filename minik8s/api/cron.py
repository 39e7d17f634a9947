"""Cron's five fields (minute, hour, day of month, month, day of week) as sets of numbers. What they mean is for others.

Names (JAN, MON) in any case, ranges, lists, steps, Sunday as 0 or 7, and @hourly, @daily (@midnight), @weekly,
@monthly, @yearly (@annually), as CronJobs take them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MACROS: Final = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip


class Schedule(NamedTuple):
    """`any_day` and `any_weekday` tell `*` from a list of all: a day counts if both fit, or, where neither is `*`,
    if one of them does (crontab(5))."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]  # 1..31
    months: frozenset[int]  # 1..12
    weekdays: frozenset[int]  # 0 = Sunday .. 6
    any_day: bool
    any_weekday: bool


def parse_cron(text: str) -> Schedule:
    """ValueError, telling what is wrong, for what is no schedule."""
    fields = MACROS.get(text.strip().lower(), text).split()
    if len(fields) != 5:
        raise ValueError("write five fields: minute hour day-of-month month day-of-week, e.g. */5 * * * *")
    minutes, hours, days, months, weekdays = fields
    return Schedule(
        _field(minutes, "minute", 0, 59),
        _field(hours, "hour", 0, 23),
        _field(days, "day of month", 1, 31),
        _field(months, "month", 1, 12, MONTHS),
        frozenset(number % 7 for number in _field(weekdays, "day of week", 0, 7, DAYS)),
        days[0] in "*?",
        weekdays[0] in "*?",
    )


def _field(text: str, what: str, low: int, high: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isascii() and step.isdecimal() and int(step) > 0):
            raise ValueError(f"the {what} {part!r} has no step after '/'")
        first, dash, last = span.partition("-")
        if first in ("*", "?") and not dash:
            begin, end = low, high
        else:
            begin = _number(first, what, low, high, names)
            end = _number(last, what, low, high, names) if dash else high if slash else begin
        if begin > end:
            raise ValueError(f"the {what} {part!r} ends before it begins")
        found.update(range(begin, end + 1, int(step) if slash else 1))
    return frozenset(found)


def _number(text: str, what: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + low
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and low <= int(text) <= high):
        raise ValueError(
            f"the {what} {text[:20]!r} must be {low} to {high}" + (" or a name like " + names[1] if names else "")
        )
    return int(text)
