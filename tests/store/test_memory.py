from __future__ import annotations

import os
import tracemalloc

import pytest

from gateway.store.memory import OVERHEAD_BYTES, MemoryStore


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


async def test_what_was_not_used_goes_when_the_budget_is_full() -> None:
    store = MemoryStore(10 * (OVERHEAD_BYTES + 100), Clock())
    for number in range(10):
        await store.put(key(number), bytes(100), 60)
    await store.get([key(0)])
    await store.put(key(10), bytes(100), 60)
    assert await store.get([key(0), key(1), key(10)]) == [bytes(100), None, bytes(100)]
    assert store.size_bytes == store.budget_bytes


async def test_what_expired_is_not_found_and_frees_its_bytes() -> None:
    clock = Clock()
    store = MemoryStore(100_000, clock)
    await store.put(key(1), b"a", 10)
    clock.now += 9.9
    assert await store.get([key(1)]) == [b"a"]
    clock.now += 0.2
    assert await store.get([key(1)]) == [None]
    assert store.size_bytes == 0


async def test_a_blob_over_an_eighth_of_the_budget_is_not_kept_and_its_predecessor_goes() -> None:
    store = MemoryStore(80_000, Clock())
    await store.put(key(1), b"old", 60)
    await store.put(key(1), bytes(10_000), 60)
    assert await store.get([key(1)]) == [None]
    await store.put(key(1), bytes(10_000 - OVERHEAD_BYTES), 60)
    assert await store.get([key(1)]) == [bytes(10_000 - OVERHEAD_BYTES)]


async def test_a_blob_that_expired_already_is_not_kept_and_its_predecessor_goes() -> None:
    store = MemoryStore(80_000, Clock())
    await store.put(key(1), b"old", 60)
    await store.put(key(1), b"new", 0)
    assert await store.get([key(1)]) == [None]


async def test_a_budget_of_zero_keeps_nothing() -> None:
    store = MemoryStore(0, Clock())
    await store.put(key(1), b"", 60)
    assert await store.get([key(1)]) == [None]


@pytest.mark.parametrize("budget_bytes", [1 << 30, 4 << 20], ids=["with room", "full"])
async def test_the_budget_covers_what_the_process_really_pays(budget_bytes: int) -> None:
    blobs = 20_000
    store = MemoryStore(budget_bytes, Clock())
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for number in range(blobs):
            await store.put(os.urandom(32), bytes(100 + number % 2), 60 + number)
        paid = sum(s.size_diff for s in tracemalloc.take_snapshot().compare_to(before, "lineno"))
    finally:
        tracemalloc.stop()
    kept = store.size_bytes / (OVERHEAD_BYTES + 100.5)
    print(f"{paid / kept - 100:.0f} bytes of overhead for each blob")
    assert 0.5 * store.size_bytes < paid < store.size_bytes


async def test_it_says_how_full_it_is() -> None:
    store = MemoryStore(100_000, Clock())
    await store.put(key(1), bytes(1000 - OVERHEAD_BYTES), 60)
    assert repr(store) == "<MemoryStore 1 blobs, 1000 of 100000 B>"


async def test_a_scan_does_not_push_out_what_is_asked_for_again_and_again() -> None:
    store = MemoryStore(1000 * (OVERHEAD_BYTES + 100), Clock())
    popular = [key(number) for number in range(300)]
    for each in popular:
        await store.put(each, bytes(100), 60)
    await store.get(popular)
    for number in range(1000, 21_000):
        await store.put(key(number), bytes(100), 60)
    assert None not in await store.get(popular)


async def test_an_answer_that_was_replaced_is_never_served_again() -> None:
    store = MemoryStore(100 * (OVERHEAD_BYTES + 100), Clock())
    for number in range(1000):
        await store.put(key(number % 7), bytes(number % 100), 60)
        await store.put(key(1000 + number), bytes(100), 60)
        (found,) = await store.get([key(number % 7)])
        assert found in {None, bytes(number % 100)}
