"""Refreshing ends when nobody comes, and costs less than it spares."""

from __future__ import annotations

from random import Random

import pytest

from gateway.core.refresh import MOST_IN_VAIN, Arrivals, Budget, Kept, Prefixes, Worth, pays

# Ten thousand tokens at 0.1 to read, 1.25 to write.
WORTH = Worth(refresh=1000.0, spared=11_500.0, ttl_s=300.0)
MARGIN_S = 20.0


def kept(arrivals: Arrivals, body: bytes = b"x" * 100, used_at: float = 0.0) -> Kept:
    return Kept(body, WORTH, 10_000, arrivals, "anthropic", "/v1/messages", used_at=used_at)


def arrivals_every(gap_s: float, count: int) -> Arrivals:
    found = Arrivals(0.0)
    for number in range(1, count):
        found.came(number * gap_s)
    return found


def test_odds_fall_while_nobody_comes_and_rise_with_the_time_allowed() -> None:
    found = arrivals_every(100.0, 10)

    odds = [found.odds(900.0 + idle, 300.0) for idle in (0.0, 300.0, 3000.0, 30_000.0)]

    assert odds == sorted(odds, reverse=True)
    assert odds[0] > 0.85
    assert odds[-1] < 0.12
    assert found.odds(900.0, 60.0) < found.odds(900.0, 600.0)


def test_it_pays_where_more_is_spared_than_spent() -> None:
    assert pays(WORTH, 0.1)
    assert not pays(WORTH, 0.08)
    assert not pays(Worth(1000.0, 0.0, 300.0), 1.0)


def test_a_prefix_is_kept_from_its_third_request_on() -> None:
    prefixes = Prefixes(10_000)

    told = [prefixes.came(b"p", now) for now in (0.0, 10.0, 20.0)]

    assert told[:2] == [None, None]
    assert told[2] is not None
    prefixes.keep(b"p", kept(told[2]))
    assert prefixes.came(b"p", 30.0) is None
    assert len(prefixes) == 1


def test_what_is_due_is_found_before_it_lapses_and_forgotten_after() -> None:
    prefixes = Prefixes(10_000)
    found = arrivals_every(200.0, 5)
    prefixes.keep(b"p", kept(found, used_at=800.0))

    assert prefixes.next_due(MARGIN_S) == 1080.0
    assert prefixes.due(1079.0, MARGIN_S) == []
    assert [name for name, _ in prefixes.due(1081.0, MARGIN_S)] == [b"p"]
    assert prefixes.due(1101.0, MARGIN_S) == []
    assert len(prefixes) == 0


def test_refreshing_what_nobody_asks_for_ends_by_itself() -> None:
    prefixes = Prefixes(10_000)
    prefixes.keep(b"p", kept(arrivals_every(60.0, 50), used_at=2940.0))
    now, refreshes = 2940.0, 0
    while (due := prefixes.next_due(MARGIN_S)) is not None:
        now = due
        for _, each in prefixes.due(now, MARGIN_S):
            refreshes += 1
            each.used_at = now
            each.in_a_row += 1

    assert refreshes == int(MOST_IN_VAIN * WORTH.spared / WORTH.refresh) == 5
    assert now < 2940.0 + 6 * WORTH.ttl_s


@pytest.mark.parametrize("gap_s", [240.0, 420.0, 900.0, 7200.0])
def test_over_a_day_refreshing_never_costs_much_more_than_it_spares(gap_s: float) -> None:
    random = Random(int(gap_s))
    prefixes = Prefixes(10_000)
    spent = spared = 0.0
    now = held_until = 0.0
    for _ in range(400):
        came = now + random.expovariate(1 / gap_s)
        while (due := prefixes.next_due(MARGIN_S)) is not None and due < came:
            for _, each in prefixes.due(due, MARGIN_S):
                spent += WORTH.refresh
                each.used_at = due
                each.in_a_row += 1
        now = came
        spared += WORTH.spared if held_until < now <= _kept_until(prefixes) else 0.0
        held_until = now + WORTH.ttl_s
        told = prefixes.came(b"p", now)
        if told is not None:
            prefixes.keep(b"p", kept(told, used_at=now))

    assert spent <= spared + 30 * WORTH.refresh
    if gap_s == 420.0:
        assert spared > 1.5 * spent


def _kept_until(prefixes: Prefixes) -> float:
    due = prefixes.next_due(0.0)
    return -1.0 if due is None else due


def test_bodies_are_bounded_and_the_longest_unused_go_first() -> None:
    prefixes = Prefixes(1000)

    assert not prefixes.keep(b"huge", kept(Arrivals(0.0), b"x" * 251))
    for name in (b"a", b"b", b"c", b"d", b"e"):
        assert prefixes.keep(name, kept(Arrivals(0.0), b"x" * 250))

    assert prefixes.size_bytes == 1000
    assert prefixes.came(b"b", 1.0) is None
    prefixes.forget(b"b")
    prefixes.forget(b"b")
    assert prefixes.size_bytes == 750


def test_a_day_has_a_budget_of_money_and_one_of_tokens() -> None:
    budget = Budget(picodollars=100, tokens=1000)

    assert budget.take(60, 600, 0.0)
    assert not budget.take(60, 1, 3600.0)
    assert not budget.take(1, 600, 3600.0)
    assert budget.take(40, 400, 86_399.0)
    assert budget.take(60, 600, 86_400.0)
