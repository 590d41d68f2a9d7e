from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.days import before, day_of, each_day, number_of

DAYS = st.dates(date(1, 1, 1), date(9999, 12, 31))


@given(st.integers(0, 250_000_000_000))
def test_a_time_falls_on_the_day_that_the_calendar_says(at: int) -> None:
    assert day_of(at) == datetime.fromtimestamp(at, UTC).date().isoformat()


@given(DAYS)
def test_a_day_has_the_number_that_the_calendar_says(day: date) -> None:
    assert number_of(day.isoformat()) == (day - date(1970, 1, 1)).days


@given(DAYS.filter(lambda day: day > date(30, 1, 1)), st.integers(0, 10_000))
def test_so_many_days_earlier_is_what_the_calendar_says(day: date, days: int) -> None:
    assert before(day.isoformat(), days) == (day - timedelta(days)).isoformat()


def test_a_second_before_midnight_is_still_that_day() -> None:
    midnight = datetime(2026, 11, 22, tzinfo=UTC).timestamp()

    assert day_of(midnight - 0.001) == "2026-11-21"
    assert day_of(midnight) == "2026-11-22"


def test_all_days_of_a_stretch_are_named_over_a_leap_day() -> None:
    assert each_day("2028-02-27", "2028-03-01") == [
        "2028-02-27",
        "2028-02-28",
        "2028-02-29",
        "2028-03-01",
    ]
    assert each_day("2026-11-23", "2026-11-22") == []


@pytest.mark.parametrize(
    "text", ["", "2026-02-29", "2026-13-01", "2026-00-10", "2026-1-1", "yesterday", "0000-01-01"]
)
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no day"):
        number_of(text)
