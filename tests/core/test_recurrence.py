"""Odds that are learned: from a prior, through what came and what did not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.recurrence import NEVER, Awaited, Odds, Recurrence, Waiting

PRIOR = Odds(0.1, 0.3, 0.5, 0.6)


def test_without_observations_the_prior_holds() -> None:
    assert Recurrence().odds(PRIOR, 3.0) == pytest.approx(PRIOR)


def test_what_comes_soon_raises_all_odds_and_what_comes_late_only_the_far_ones() -> None:
    soon, late = Recurrence(), Recurrence()
    for _ in range(20):
        soon.came(10.0)
        late.came(1000.0)

    assert soon.odds(PRIOR, 3.0).minute > 0.8
    assert late.odds(PRIOR, 3.0).five_minutes < 0.1
    assert late.odds(PRIOR, 3.0).half_hour > 0.8


@pytest.mark.parametrize(
    ("ttl_s", "expected"), [(10, 0.0), (60, 0.1), (300, 0.3), (1800, 0.5), (3600, 0.6), (7200, 0.6)]
)
def test_a_lifetime_is_given_the_odds_of_the_gaps_it_spans(ttl_s: int, expected: float) -> None:
    assert PRIOR.within(ttl_s) == expected


def test_what_is_overdue_lowers_the_near_odds_until_it_comes() -> None:
    counts = Recurrence()
    waiting = Waiting(100)
    awaited = [Awaited(0.0, (counts,)) for _ in range(10)]
    for one in awaited:
        waiting.add(one)
    waiting.pass_time(60.0)
    assert counts.odds(PRIOR, 3.0).five_minutes == pytest.approx(0.3)

    waiting.pass_time(100.0)
    assert counts.odds(PRIOR, 3.0).five_minutes < 0.1

    for one in awaited:
        one.came(120.0)
    assert counts.odds(PRIOR, 3.0).five_minutes > 0.8


def test_what_did_not_come_in_an_hour_is_lost_and_told_once() -> None:
    counts = Recurrence()
    waiting = Waiting(100)
    one = Awaited(0.0, (counts,))
    waiting.add(one)
    for now in (100.0, 3700.0, 3800.0):
        waiting.pass_time(now)
    one.came(4000.0)

    assert counts.weight == 1.0
    assert counts.odds(NEVER, 0.001).hour == 0.0
    assert not len(waiting)


def test_waiting_is_bounded_and_what_overflows_counts_for_nothing() -> None:
    counts = Recurrence()
    waiting = Waiting(10)
    for number in range(1000):
        waiting.add(Awaited(float(number), (counts,)))
        waiting.pass_time(float(number))
        assert len(waiting) <= 21


def test_what_was_long_ago_is_forgotten() -> None:
    counts = Recurrence()
    for _ in range(1000):
        counts.came(10.0)
    for _ in range(300):
        counts.lost()
    assert counts.odds(PRIOR, 3.0).hour < 0.5
    assert counts.weight <= 257


@given(
    gaps=st.lists(st.floats(0.0, 10_000.0), max_size=50),
    overdue=st.integers(0, 20),
    weight=st.floats(0.1, 20.0),
)
def test_odds_are_probabilities_and_grow_with_the_lifetime(
    gaps: list[float], overdue: int, weight: float
) -> None:
    counts = Recurrence()
    counts.doubt(overdue)
    for gap in gaps:
        counts.came(gap)

    odds = counts.odds(PRIOR, weight)

    assert all(0.0 <= p <= 1.0 for p in odds)
    assert list(odds) == sorted(odds)
    assert all(both >= one - 1e-9 for both, one in zip(odds.or_else(PRIOR), odds, strict=True))
