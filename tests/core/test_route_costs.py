"""What a request costs, and who is the cheapest, where rates are measured and so differ a little."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.core.route import Candidate, Wish
from gateway.core.route_costs import Costs
from gateway.core.trail import Trail
from tests.helpers.routed import RATE, Pool, trail


def timed(pool: Pool, number: int, rates: dict[str, float]) -> str:
    """A new conversation of 4,000 tokens, while nobody is busy: who computes it, at its own rate."""
    prompt = trail(f"c{number} text", size=2000)
    placement = pool.affinity.place(
        Wish(prompt), [Candidate(name) for name in pool.names], pool.now, 0.5
    )
    backend = placement.order[0]
    ticket = pool.affinity.sent(placement, backend, pool.now)
    pool.now += 4000 / rates[backend]
    pool.affinity.begun(ticket, pool.now)
    pool.affinity.learn(ticket, 4000, 0)
    pool.affinity.over(ticket, pool.now)
    pool.now += 1.0
    return backend


@pytest.mark.parametrize("faster", ["b0", "b1"])
def test_who_was_timed_a_little_better_does_not_get_all_that_is_new(faster: str) -> None:
    pool = Pool(2)
    rates = {"b0": RATE, "b1": RATE} | {faster: 1.05 * RATE}
    went = Counter(timed(pool, number, rates) for number in range(40))

    assert min(went.values()) >= 18


def test_who_is_clearly_faster_gets_what_is_new() -> None:
    pool = Pool(2)
    went = Counter(timed(pool, number, {"b0": RATE, "b1": 2 * RATE}) for number in range(40))

    assert went["b1"] >= 30


def test_costs_beyond_what_numbers_can_say_are_still_decided() -> None:
    nan = float("nan")
    candidates = [Candidate("a"), Candidate("b")]
    found = Costs(candidates, [], [0, 0], [0.0, 0.0], [nan, nan], [nan, nan])
    assert found.cheapest(Trail(), 0, 0.0, 0.5) in {0, 1}
