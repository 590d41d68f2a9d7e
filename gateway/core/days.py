"""Days of the calendar as text, `2026-11-22`, in UTC. Text of this shape sorts as days do."""

from __future__ import annotations

import re
from functools import lru_cache

_DAY_S = 86_400
_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
# Of the proleptic Gregorian calendar: days before 1970-01-01, counted from a March 1st, and in each
# 400 years (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
_TO_1970 = 719_468
_400_YEARS = 146_097


def day_of(at: float) -> str:
    """The day of a time in seconds since the epoch."""
    return _spelled(int(at // _DAY_S))


def before(day: str, days: int) -> str:
    """The day so many days earlier. Raises ValueError for what is no day."""
    return _spelled(number_of(day) - days)


def each_day(since: str, until: str) -> list[str]:
    """All days from `since` to `until`, both included; none if they stand the wrong way round.
    Raises ValueError.
    """
    return [_spelled(number) for number in range(number_of(since), number_of(until) + 1)]


def number_of(day: str) -> int:
    """Days since 1970-01-01. Raises ValueError for what is no day."""
    found = _DAY.fullmatch(day)
    if found is None:
        raise ValueError(f"{day!r} is no day: write it as 2026-11-22")
    year, month, of_month = map(int, found.groups())
    # Years that begin in March have their odd day at the end.
    of_era = year - (month <= 2)
    era, of_era = of_era // 400, of_era % 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + of_month - 1
    number = era * _400_YEARS + of_era * 365 + of_era // 4 - of_era // 100 + of_year - _TO_1970
    if not 1 <= month <= 12 or year < 1 or _spelled(number) != day:
        raise ValueError(f"{day!r} is no day of the calendar")
    return number


@lru_cache(maxsize=64)
def _spelled(number: int) -> str:
    era, of_era = divmod(number + _TO_1970, _400_YEARS)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    march = (5 * of_year + 2) // 153
    of_month = of_year - (153 * march + 2) // 5 + 1
    month = march + 3 if march < 10 else march - 9
    return f"{era * 400 + year + (month <= 2):04d}-{month:02d}-{of_month:02d}"
