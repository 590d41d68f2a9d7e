"""Which eviction policy the memory tier should have: hit ratio and CPU, on traces with scans.

    python -m bench.memory_policies

Three traces over blobs of 1 to 64 KB (a median of 4): Zipf alone; Zipf in which every so often a
scan passes (an evaluation that asks each of its questions once); Zipf whose popular keys change.
The cache holds a twentieth of all bytes. theine and cachebox are measured where they are installed;
theine can't count bytes, so it gets as many entries as would fit on average.
"""

from __future__ import annotations

import importlib
import itertools
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cachetools import LRUCache, TLRUCache

from gateway.store.eviction import ScanProof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEYS = 40_000
REQUESTS = 400_000
BUDGET_PART = 20
NEVER = 1e12


class Cache(NamedTuple):
    """How to look a key up, and how to keep a blob of such a size."""

    get: Callable[[bytes], Any]
    put: Callable[[bytes, bytes, int], None]


def key(number: int) -> bytes:
    return number.to_bytes(8, "big") * 4


def zipf(dice: random.Random, count: int, skew: float = 0.9) -> Iterator[int]:
    weights = list(itertools.accumulate(1 / (rank + 1) ** skew for rank in range(KEYS)))
    yield from dice.choices(range(KEYS), cum_weights=weights, k=count)


def traces() -> dict[str, list[int]]:
    dice = random.Random(20261122)
    plain = list(zipf(dice, REQUESTS))
    scanned: list[int] = []
    strangers = itertools.count(KEYS)
    for start in range(0, REQUESTS, 20_000):
        scanned += plain[start : start + 20_000]
        scanned += itertools.islice(strangers, 10_000)
    moving = [(n + i // 40_000 * 500) % KEYS for i, n in enumerate(plain)]
    return {"Zipf": plain, "Zipf with scans": scanned, "Zipf that moves": moving}


def lru(budget: int, _entries: int) -> Cache:
    cache: LRUCache[bytes, tuple[bytes, int]] = LRUCache(budget, lambda value: value[1])

    def put(key: bytes, blob: bytes, size: int) -> None:
        cache[key] = (blob, size)

    return Cache(cache.get, put)


def tlru(budget: int, _entries: int) -> Cache:
    cache: TLRUCache[bytes, tuple[bytes, int]] = TLRUCache(
        budget, lambda _k, _v, _now: NEVER, time.time, lambda value: value[1]
    )

    def put(key: bytes, blob: bytes, size: int) -> None:
        cache[key] = (blob, size)

    return Cache(cache.get, put)


def ours(budget: int, _entries: int) -> Cache:
    cache: ScanProof[bytes] = ScanProof(budget)
    return Cache(cache.get, cache.put)


def theine(_budget: int, entries: int) -> Cache:
    cache = importlib.import_module("theine").Cache(entries, nolock=True)

    def get(key: bytes) -> Any:
        return cache.get(key)[0]

    return Cache(get, lambda key, blob, _size: cache.set(key, blob))


def cachebox(kind: str) -> Callable[[int, int], Cache]:
    def make(budget: int, _entries: int) -> Cache:
        made = getattr(importlib.import_module("cachebox"), kind)
        cache = made(budget, getsizeof=lambda _key, value: value[1])

        def put(key: bytes, blob: bytes, size: int) -> None:
            cache[key] = (blob, size)

        return Cache(cache.get, put)

    return make


CANDIDATES: dict[str, Callable[[int, int], Cache]] = {
    "cachetools LRU": lru,
    "cachetools TLRU": tlru,
    "cachebox LRU": cachebox("LRUCache"),
    "cachebox LFU": cachebox("LFUCache"),
    "theine (W-TinyLFU)": theine,
    "ours (S3-FIFO)": ours,
}


def run(cache: Cache, trace: list[bytes], sizes: dict[bytes, int]) -> float:
    """The hit ratio of those that were asked for before."""
    seen: set[bytes] = set()
    hits = could = 0
    for each in trace:
        could += each in seen
        seen.add(each)
        if cache.get(each) is not None:
            hits += 1
        else:
            cache.put(each, b"x", sizes[each])
    return hits / could


def cost_us(make: Callable[[int, int], Cache]) -> tuple[float, float]:
    """CPU of a get that finds, and of a put that makes another go."""
    cache = make(1000 * 1000, 1000)
    keys = [key(n) for n in range(21_000)]
    for each in keys[:1000]:
        cache.put(each, b"x", 1000)
    present = [each for each in keys[:1000] if cache.get(each) is not None] * 100
    began = time.process_time()
    for each in present:
        cache.get(each)
    get_us = (time.process_time() - began) / len(present) * 1e6
    began = time.process_time()
    for each in keys[1000:]:
        cache.put(each, b"x", 1000)
    return get_us, (time.process_time() - began) / 20_000 * 1e6


def main() -> None:
    dice = random.Random(7)
    tested = {name: [key(number) for number in numbers] for name, numbers in traces().items()}
    every = {each for trace in tested.values() for each in trace} | set(map(key, range(KEYS)))
    sizes = {
        each: int(min(64e3, max(1e3, dice.lognormvariate(8.3, 1.0)))) for each in sorted(every)
    }
    budget = sum(sizes[key(n)] for n in range(KEYS)) // BUDGET_PART
    print(f"| policy | {' | '.join(tested)} | get, us | put, us |")
    print(f"| --- |{' --- |' * (len(tested) + 2)}")
    for name, make in CANDIDATES.items():
        try:
            ratios = [run(make(budget, KEYS // BUDGET_PART), t, sizes) for t in tested.values()]
            get_us, put_us = cost_us(make)
        except ImportError:
            print(f"| {name} | not installed |")
            continue
        shown = " | ".join(f"{ratio:.1%}" for ratio in ratios)
        print(f"| {name} | {shown} | {get_us:.2f} | {put_us:.2f} |")


if __name__ == "__main__":
    main()
