from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.store import codec
from gateway.store.base import StoreUnavailable
from gateway.store.memory import MemoryStore
from gateway.store.tiered import TieredStore
from tests.helpers.entries import entry

if TYPE_CHECKING:
    from collections.abc import Sequence

A, B = b"a" * 32, b"b" * 32


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Back:
    """A store in a dictionary that counts, fails and waits on command."""

    name = "back"

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.asked: list[list[bytes]] = []
        self.down = False
        self.answering = asyncio.Event()
        self.answering.set()
        self.looked = asyncio.Event()

    async def start(self) -> None:
        self.asked.append([b"start"])

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._check()
        self.asked.append(list(keys))
        found = [self.kept.get(key) for key in keys]
        self.looked.set()
        await self.answering.wait()
        return found

    async def put(self, key: bytes, blob: bytes, ttl_s: float) -> None:
        self._check()
        self.kept[key] = blob

    async def delete(self, keys: Sequence[bytes]) -> int:
        self._check()
        return sum(self.kept.pop(key, None) is not None for key in keys)

    async def close(self) -> None:
        self.asked.append([b"close"])

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("down")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def back() -> Back:
    return Back()


@pytest.fixture
async def store(clock: Clock, back: Back) -> TieredStore:
    return TieredStore(MemoryStore(1 << 20, clock), back, clock)


def blob(clock: Clock, ttl_s: float = 60.0) -> bytes:
    return codec.encode(entry(stored_at=clock.now, ttl_s=ttl_s), bytes(32))


async def test_a_put_reaches_both_and_a_get_asks_memory_alone(
    store: TieredStore, back: Back, clock: Clock
) -> None:
    await store.put(A, blob(clock), 60)
    assert back.kept == {A: blob(clock)}
    assert await store.get([A]) == [blob(clock)]
    assert back.asked == []


async def test_the_back_is_asked_only_for_what_memory_lacks(
    store: TieredStore, back: Back, clock: Clock
) -> None:
    await store.put(A, b"in memory", 60)
    back.kept[B] = blob(clock)
    assert await store.get([B, A]) == [blob(clock), b"in memory"]
    assert back.asked == [[B]]


async def test_what_the_back_had_stays_in_memory_for_the_rest_of_its_life(
    store: TieredStore, back: Back, clock: Clock
) -> None:
    back.kept[A] = given = blob(clock, ttl_s=60)
    clock.now += 50
    assert await store.get([A]) == [given]
    assert await store.get([A]) == [given]
    assert back.asked == [[A]]
    clock.now += 10
    assert await store.memory.get([A]) == [None]


async def test_bytes_that_are_no_entry_are_returned_but_not_kept(
    store: TieredStore, back: Back
) -> None:
    back.kept[A] = b"damaged"
    assert await store.get([A]) == [b"damaged"]
    assert A not in store.memory


async def test_a_put_is_in_memory_even_when_the_back_is_down(
    store: TieredStore, back: Back
) -> None:
    back.down = True
    with pytest.raises(StoreUnavailable):
        await store.put(A, b"x", 60)
    assert await store.get([A]) == [b"x"]


async def test_what_memory_has_is_returned_when_the_back_is_down(
    store: TieredStore, back: Back
) -> None:
    await store.put(A, b"x", 60)
    back.down = True
    assert await store.get([A, B]) == [b"x", None]
    with pytest.raises(StoreUnavailable):
        await store.get([B])


async def test_a_delete_forgets_in_memory_even_when_the_back_is_down(
    store: TieredStore, back: Back
) -> None:
    await store.put(A, b"x", 60)
    back.down = True
    with pytest.raises(StoreUnavailable):
        await store.delete([A])
    assert A not in store.memory


async def test_a_delete_counts_what_only_the_back_had(store: TieredStore, back: Back) -> None:
    await store.put(A, b"x", 60)
    back.kept[B] = b"y"
    assert await store.delete([A, B]) == 2


async def test_what_is_deleted_while_it_is_on_its_way_does_not_come_back(
    store: TieredStore, back: Back, clock: Clock
) -> None:
    back.kept[A] = blob(clock)
    back.answering.clear()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        lookup = tasks.create_task(store.get([A]))
        await back.looked.wait()
        assert await store.delete([A]) == 1
        back.answering.set()
    assert lookup.result() == [blob(clock)]
    assert await store.get([A]) == [None]


async def test_what_is_replaced_while_it_is_on_its_way_is_not_overwritten(
    store: TieredStore, back: Back, clock: Clock
) -> None:
    back.kept[A] = blob(clock)
    back.answering.clear()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(store.get([A]))
        await back.looked.wait()
        await store.put(A, b"newer", 60)
        back.answering.set()
    assert await store.get([A]) == [b"newer"]


async def test_both_are_started_and_closed(store: TieredStore, back: Back) -> None:
    await store.start()
    await store.close()
    assert back.asked == [[b"start"], [b"close"]]
    assert "MemoryStore" in repr(store)
