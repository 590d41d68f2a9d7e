"""Keys that hold a prefix together, and never get more requests than a machine takes."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from random import Random

import pytest

from gateway.core.hints import MOST_SHARDS, WINDOW_S, CacheKeys

LIMIT = 15


def test_a_prefix_that_is_asked_for_seldom_has_one_key() -> None:
    keys = CacheKeys()

    given = {keys.key(b"d", 7, turn, LIMIT, turn * 10.0) for turn in range(100)}

    assert len(given) == 1
    assert len(next(iter(given))) <= 64


def test_other_prefixes_and_other_domains_have_other_keys() -> None:
    keys = CacheKeys()

    given = {
        keys.key(domain, prefix, 1, LIMIT, 0.0) for domain in (b"a", b"b") for prefix in (1, 2)
    }

    assert len(given) == 4


@pytest.mark.parametrize("per_minute", [10, 60, 400, 2000])
def test_no_key_is_given_more_often_than_a_machine_takes(per_minute: int) -> None:
    random = Random(per_minute)
    keys = CacheKeys()
    given: dict[str, list[float]] = defaultdict(list)
    now = 0.0
    while now < 600.0:
        now += random.expovariate(per_minute / 60)
        given[keys.key(b"d", 7, random.getrandbits(60), LIMIT, now)].append(now)

    busiest = max(
        sum(1 for other in times if at - WINDOW_S < other <= at)
        for times in given.values()
        for at in times
    )
    assert busiest <= LIMIT
    # Few enough that each is used: twice what the rate takes, and half as many for its bursts.
    assert len(given) <= max(2, 5 * per_minute / LIMIT)


def test_a_conversation_stays_with_its_key_while_the_rate_is_steady() -> None:
    random = Random(5)
    keys = CacheKeys()
    conversations = [random.getrandbits(60) for _ in range(60)]
    seen: dict[int, set[str]] = defaultdict(set)
    for minute in range(40):
        for place, conversation in enumerate(conversations):
            key = keys.key(b"d", 7, conversation, LIMIT, minute * 60.0 + place)
            if minute >= 10:
                seen[conversation].add(key)

    moved = sum(len(each) > 1 for each in seen.values())
    assert moved <= len(conversations) / 4


def test_one_fast_conversation_does_not_scatter_the_others() -> None:
    keys = CacheKeys()
    others = set()
    for second in range(1200):
        keys.key(b"d", 7, 2, LIMIT, float(second))
        if second % 30 == 0 and second > 300:
            others.add(keys.key(b"d", 7, 4, LIMIT, second + 0.5))

    assert len(others) <= 4


def test_keys_become_fewer_again_when_the_rush_is_over() -> None:
    keys = CacheKeys()
    for place in range(2000):
        keys.key(b"d", 7, place, LIMIT, place * 0.2)
    later = {keys.key(b"d", 7, place, LIMIT, 400.0 + place * 60.0) for place in range(200)}
    calm = {keys.key(b"d", 7, place, LIMIT, 20_000.0 + place * 60.0) for place in range(50)}

    assert len(later) > len(calm) == 1


def test_beyond_all_keys_requests_still_get_one() -> None:
    keys = CacheKeys()

    given = {keys.key(b"d", 7, place, LIMIT, 0.001 * place) for place in range(6000)}

    assert len(given) == MOST_SHARDS


def test_prefixes_are_forgotten_beyond_the_bound() -> None:
    keys = CacheKeys(prefixes=10)

    for prefix in range(100):
        keys.key(b"d", prefix, 1, LIMIT, 0.0)

    assert "10 prefixes" in repr(keys)


def test_without_a_limit_there_is_one_key() -> None:
    keys = CacheKeys()

    assert len({keys.key(b"d", 7, place, 0, 0.0) for place in range(100)}) == 1


def test_thousands_of_prefixes_take_less_than_a_megabyte() -> None:
    keys = CacheKeys()
    tracemalloc.start()
    try:
        for prefix in range(2048):
            keys.key(b"d" * 32, prefix << 40, prefix, LIMIT, prefix / 10)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1_000_000
