"""Which days are meant: `7d` for the last seven, today included, or a date; all in UTC."""

from __future__ import annotations

import re

from gateway.core.days import before, number_of

_LATELY = re.compile(r"([0-9]{1,4})d")
MOST_DAYS = 4000
"""That are read at once."""


def period(since: str, until: str, today: str) -> tuple[str, str]:
    """First and last day. `until` empty: today; a `since` of `7d` counts back from it. Raises
    ValueError, in words for people.
    """
    last = until or today
    number_of(last)
    lately = _LATELY.fullmatch(since)
    if lately is not None:
        days = int(lately[1])
        if not 1 <= days <= MOST_DAYS:
            raise ValueError(f"{since!r} is not from 1d to {MOST_DAYS}d")
        first = before(last, days - 1)
        # Days before the year 1 can be counted, but are none: whoever reads would fail on them.
        if first < "0001-01-01":
            raise ValueError(f"{since} until {last} begins too early: no day is before 0001-01-01")
        return first, last
    try:
        days = number_of(last) - number_of(since)
    except ValueError:
        raise ValueError(f"{since!r} is neither days, such as 7d, nor a date: 2026-11-22") from None
    if not 0 <= days < MOST_DAYS:
        raise ValueError(f"from {since} to {last} are no 1 to {MOST_DAYS} days")
    return since, last
