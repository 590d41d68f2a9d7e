"""Who stands far out of its peers, by what was seen of late."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.outliers import median_without, outliers
from gateway.upstream.recent import PERIOD_S, Recent
from tests.helpers.pools import NAMES, StandingClock, pool_of

if TYPE_CHECKING:
    from gateway.upstream.replicas import Replicas


PATIENCE_S = 2.0


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


def saw(pool: Replicas, clock: StandingClock, shares: list[float], heads: list[float]) -> None:
    """100 requests of each replica; that share of them failed, the others took so long."""
    for backend, share, head_s in zip(pool, shares, heads, strict=True):
        for number in range(100):
            failed = number < share * 100
            backend.recent.add(clock.now, failed=failed, head_s=None if failed else head_s)


@pytest.mark.parametrize(
    ("shares", "heads", "odd"),
    [
        ([0, 0, 0, 0], [1, 1, 1, 1], []),
        ([0, 0, 0.5, 0], [1, 1, 1, 1], [2]),
        ([0.1, 0.1, 0.35, 0.1], [1, 1, 1, 1], []),
        # All alike: it isn't they who are odd.
        ([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 1], []),
        # The worst first, and never more than half.
        ([0.9, 0, 0.6, 0.7], [1, 1, 1, 1], [0]),
        ([0.9, 0, 0.6, 0, 0], [1, 1, 1, 1, 1], [0, 2]),
        ([0, 0, 0, 0], [1, 1, 1, 8], [3]),
        # Many times slower, but nothing that anybody would feel; slow, but not many times.
        ([0, 0, 0, 0], [0.1, 0.1, 0.1, 1.5], []),
        ([0, 0, 0, 0], [10, 10, 10, 40], []),
        # Of two, nobody can say whose speed is the odd one.
        ([0, 0], [0.1, 60], []),
        ([0, 1.0], [1, 1], [1]),
        ([1.0], [1], []),
    ],
)
def test_who_fails_or_is_slow_far_more_than_its_peers_is_odd(
    clock: StandingClock, shares: list[float], heads: list[float], odd: list[int]
) -> None:
    pool = pool_of(clock, len(shares))
    saw(pool, clock, shares, heads)
    assert [each.name for each, _ in outliers(tuple(pool), clock.now, PATIENCE_S)] == [
        NAMES[n] for n in odd
    ]


def test_few_requests_say_nothing(clock: StandingClock) -> None:
    pool = pool_of(clock)
    saw(pool, clock, [0, 0, 0], [1, 1, 1])
    pool[NAMES[0]].recent.clear()
    for _ in range(19):
        pool[NAMES[0]].recent.add(clock.now, failed=True)
    assert outliers(tuple(pool), clock.now, PATIENCE_S) == []
    pool[NAMES[0]].recent.add(clock.now, failed=True)
    assert [each.name for each, _ in outliers(tuple(pool), clock.now, PATIENCE_S)] == [NAMES[0]]


def test_those_that_are_out_already_count_for_the_half(clock: StandingClock) -> None:
    pool = pool_of(clock, 5)
    saw(pool, clock, [0, 0, 0.8, 0.9, 0], [1] * 5)
    pool[NAMES[0]].eject(clock.now)
    assert [each.name for each, _ in outliers(tuple(pool), clock.now, PATIENCE_S)] == [NAMES[3]]
    for _ in range(3):
        pool[NAMES[1]].probed("timeout")
    assert outliers(tuple(pool), clock.now, PATIENCE_S) == []


def test_an_odd_one_is_left_alone_and_judged_anew_afterwards(clock: StandingClock) -> None:
    pool = pool_of(clock)
    saw(pool, clock, [0, 0, 0.9], [1, 1, 1])
    ((odd, why),) = outliers(tuple(pool), clock.now, PATIENCE_S)
    pool.eject(odd, why)
    assert (odd.ejected_for_s, odd.failure) == (10.0, "fails more than its peers")
    clock.passes(10)
    odd.succeeded(clock.now)
    assert odd.ready
    assert outliers(tuple(pool), clock.now, PATIENCE_S) == []


def test_what_was_seen_is_forgotten_after_one_to_two_periods() -> None:
    recent = Recent()
    for _ in range(10):
        recent.add(100.0, failed=True)
    assert recent.counts(100.0 + PERIOD_S)[:2] == (10, 10)
    recent.add(100.0 + PERIOD_S, failed=False, head_s=1.0)
    assert recent.counts(100.0 + PERIOD_S + 1)[:2] == (11, 10)
    assert recent.counts(100.0 + 2 * PERIOD_S)[:2] == (1, 0)
    assert recent.counts(100.0 + 9 * PERIOD_S)[:2] == (0, 0)


def test_a_busy_replica_costs_no_more_memory_than_a_quiet_one() -> None:
    recent = Recent()
    for number in range(100_000):
        recent.add(100.0, failed=False, head_s=float(number >= 50_000))
    counts = recent.counts(100.0)
    assert (counts.requests, counts.median_head_s) == (100_000, 1.0)
    assert sum(map(len, recent._heads)) == 32


@pytest.mark.parametrize(
    ("routing", "head_s", "odd"),
    [
        ({"policy": "round_robin"}, 4, True),
        # Who waits for its home on purpose would wait elsewhere too, for its prompt.
        ({"policy": "prefix"}, 19, False),
        ({"policy": "prefix"}, 22, True),
        ({"policy": "prefix", "break_s": 1, "new_break_s": 1}, 4, True),
        ({"policy": "session"}, 1e6, False),
    ],
)
def test_who_is_waited_for_on_purpose_is_not_slow(
    clock: StandingClock, routing: dict[str, object], head_s: float, odd: bool
) -> None:
    pool = pool_of(clock, routing=routing)
    saw(pool, clock, [0, 0, 0], [0.5, 0.5, head_s])
    found = outliers(tuple(pool), clock.now, pool.patience_s)
    assert [each.name for each, _ in found] == [NAMES[2]] * odd


@given(st.lists(st.integers(0, 5).map(float), min_size=2, max_size=12), st.data())
def test_the_median_of_the_others_is_just_that(numbers: list[float], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(numbers) - 1))
    others = [*numbers[:index], *numbers[index + 1 :]]
    assert median_without(sorted(numbers), numbers[index]) == median(others)


def test_a_large_pool_is_judged_in_milliseconds(clock: StandingClock) -> None:
    pool = pool_of(clock, 1)
    for number in range(511):
        pool.add(f"b{number}", f"http://10.1.{number // 256}.{number % 256}:8000/v1").probed(None)
    saw(pool, clock, [0.0] * 511 + [0.9], [1.0 + number / 512 for number in range(512)])
    took = []
    for _ in range(5):
        began = time.perf_counter()
        found = outliers(tuple(pool), clock.now, PATIENCE_S)
        took.append(time.perf_counter() - began)
        assert [each.name for each, _ in found] == ["b510"]
    # About 3 ms; a shared machine gets ten times as much.
    assert min(took) < 0.03
