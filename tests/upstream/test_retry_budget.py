"""How much may be asked a second time."""

from __future__ import annotations

from gateway.upstream.retry_budget import RetryBudget


def taken(budget: RetryBudget, now: float, tries: int = 1000) -> int:
    return sum(budget.take(now) for _ in range(tries))


def test_a_quiet_pool_may_ask_three_again_in_ten_seconds() -> None:
    budget = RetryBudget()
    assert [taken(budget, 100.0 + second) for second in range(10)] == [3] + [0] * 9
    assert taken(budget, 110.0) == 3


def test_a_busy_pool_may_ask_a_fifth_again() -> None:
    budget = RetryBudget()
    for number in range(1000):
        budget.asked(50.0 + number / 200)
    assert taken(budget, 55.0) == 200
    assert taken(budget, 59.9) == 0
    # Those of the first two seconds are too long ago; the retries were later.
    assert taken(budget, 61.9) == 0


def test_what_was_long_ago_counts_no_more() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.asked(50.0)
    assert taken(budget, 60.0) == 3


def test_a_clock_that_goes_back_grants_nothing_anew() -> None:
    budget = RetryBudget()
    assert taken(budget, 1000.0) == 3
    assert taken(budget, 10.0) == 0
