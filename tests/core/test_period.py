from __future__ import annotations

import pytest

from gateway.core.period import period

TODAY = "2026-11-22"


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("7d", "", ("2026-11-16", TODAY)),
        ("1d", "", (TODAY, TODAY)),
        ("2026-11-01", "", ("2026-11-01", TODAY)),
        ("30d", "2026-03-01", ("2026-01-31", "2026-03-01")),
        ("2026-11-01", "2026-11-02", ("2026-11-01", "2026-11-02")),
    ],
)
def test_days_are_counted_back_or_named(since: str, until: str, expected: object) -> None:
    assert expected == period(since, until, TODAY)


@pytest.mark.parametrize(
    ("since", "until"),
    [("0d", ""), ("5000d", ""), ("7", ""), ("2026-11-23", ""), ("7d", "soon"), ("1990-01-01", "")],
)
def test_what_is_no_stretch_of_days_is_refused(since: str, until: str) -> None:
    with pytest.raises(ValueError, match=r"d'|day|date"):
        period(since, until, TODAY)


@pytest.mark.parametrize(("since", "until"), [("4000d", "0005-01-01"), ("7d", "0001-01-01")])
def test_days_before_the_first_of_all_are_told_to_be_too_early(since: str, until: str) -> None:
    with pytest.raises(ValueError, match="too early"):
        period(since, until, "2026-11-22")
