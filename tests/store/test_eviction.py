"""The queue that a scan passes through: never over its budget, never an old value, hot keys stay."""

from __future__ import annotations

import itertools
import random
from typing import Any

from cachetools import LRUCache
from hypothesis import given
from hypothesis import strategies as st

from gateway.store.eviction import ScanProof


def key(number: int) -> bytes:
    return number.to_bytes(4, "big")


@given(
    st.integers(20, 120),
    st.lists(
        st.tuples(st.sampled_from("gppd"), st.integers(0, 12), st.integers(0, 20)), max_size=200
    ),
)
def test_whatever_is_done_it_holds_the_latest_value_or_none_and_never_too_much(
    budget: int, steps: list[tuple[str, int, int]]
) -> None:
    cache: ScanProof[object] = ScanProof(budget)
    latest: dict[bytes, tuple[object, int]] = {}
    for what, number, size in steps:
        this = key(number)
        expected = latest.get(this)
        match what:
            case "g":
                found = cache.get(this)
                assert found is None or (expected is not None and found is expected[0])
            case "p":
                value = object()
                cache.put(this, value, size)
                latest[this] = (value, size)
            case _:
                found = cache.pop(this)
                assert found is None or (expected is not None and found is expected[0])
                assert this not in cache
        kept = [each for each in latest if each in cache]
        assert len(cache) == len(kept)
        assert cache.used_bytes == sum(latest[each][1] for each in kept) <= budget
        assert len(cache._gone) <= len(cache) + 2
        assert cache._ghosts <= set(cache._gone)
        assert cache._small_bytes == sum(each.size_bytes for each in cache._small.values())
        assert not cache._small.keys() & cache._main.keys()
    cache.clear()
    assert (len(cache), cache.used_bytes, cache._small_bytes) == (0, 0, 0)


def test_what_was_used_survives_a_scan_of_many_times_the_budget() -> None:
    cache: ScanProof[int] = ScanProof(100)
    for number in range(50):
        cache.put(key(number), number, 1)
        cache.get(key(number))
    for stranger in range(1000, 11_000):
        assert cache.get(key(stranger)) is None
        cache.put(key(stranger), stranger, 1)
    assert [cache.get(key(number)) for number in range(50)] == list(range(50))


def test_what_comes_back_soon_after_it_went_stays_the_next_time() -> None:
    cache: ScanProof[str] = ScanProof(100)
    for number in range(150):
        cache.put(key(number), "", 1)
    (gone, *_) = [number for number in range(150, 0, -1) if key(number - 1) not in cache]
    back = key(gone - 1)
    cache.put(back, "again", 1)
    for number in range(1000, 1099):
        cache.put(key(number), "", 1)
    assert cache.get(back) == "again"


def test_what_is_used_no_more_goes_in_the_end() -> None:
    cache: ScanProof[int] = ScanProof(100)
    for number in range(100):
        cache.put(key(number), number, 1)
        for _ in range(5):
            cache.get(key(number))
    for number in range(1000, 1500):
        for _ in range(2):
            cache.put(key(number), number, 1)
            cache.get(key(number))
    assert sum(key(number) in cache for number in range(100)) == 0


def test_a_value_larger_than_the_small_queue_is_kept_where_there_is_room() -> None:
    cache: ScanProof[str] = ScanProof(100)
    cache.put(key(1), "most of it", 95)
    assert cache.get(key(1)) == "most of it"
    cache.put(key(2), "all of it", 100)
    assert cache.used_bytes <= 100


def hits(cache: Any, trace: list[bytes]) -> int:
    found = 0
    for each in trace:
        if cache.get(each) is None:
            cache.put(each, 1, 1) if isinstance(cache, ScanProof) else cache.update({each: 1})
        else:
            found += 1
    return found


def test_with_scans_in_between_it_hits_more_often_than_the_least_recently_used() -> None:
    dice = random.Random(5)
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(2000)))
    strangers = itertools.count(10_000)
    trace: list[bytes] = []
    for _ in range(20):
        trace += map(key, dice.choices(range(2000), cum_weights=weights, k=1000))
        trace += (key(next(strangers)) for _ in range(500))
    ours, lru = hits(ScanProof(100), trace), hits(LRUCache(100), trace)
    print(f"{ours / 20_000:.1%} against {lru / 20_000:.1%} of the repeated ones")
    assert ours > 1.1 * lru
