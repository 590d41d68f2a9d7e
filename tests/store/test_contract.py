"""What every store must do, whichever it is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from gateway.store import codec
from gateway.store.memory import MemoryStore
from gateway.store.redis import RedisStore
from gateway.store.sqlite import SqliteStore
from gateway.store.tiered import TieredStore
from tests.helpers.entries import entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.store.base import Store
    from tests.helpers.redis_servers import RedisServer

# Only faults are about deadlines; here a slow machine must not matter.
PATIENT_S = 10.0


@pytest.fixture
async def memory() -> MemoryStore:
    return MemoryStore(64 << 20, time.time)


@pytest.fixture
async def sqlite(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "cache.sqlite", deadline_s=PATIENT_S)


@pytest.fixture
async def redis(redis_server: RedisServer) -> RedisStore:
    return RedisStore(redis_server.url, deadline_s=PATIENT_S)


@pytest.fixture
async def tiered_sqlite(memory: MemoryStore, sqlite: SqliteStore) -> TieredStore:
    return TieredStore(memory, sqlite, time.time)


@pytest.fixture
async def tiered_redis(memory: MemoryStore, redis: RedisStore) -> TieredStore:
    return TieredStore(memory, redis, time.time)


class Contract:
    """Tests that each subclass runs on its `store`."""

    async def test_a_blob_comes_back_whole_and_in_the_order_asked(self, store: Store) -> None:
        blobs = {bytes([n]) * 32: bytes([n]) * (n * 4000 + 1) for n in range(8)}
        for key, blob in blobs.items():
            await store.put(key, blob, 60)
        keys = [*reversed(blobs), b"?" * 32]
        assert await store.get(keys) == [*reversed(blobs.values()), None]

    async def test_the_same_key_twice_in_one_lookup_is_answered_twice(self, store: Store) -> None:
        await store.put(b"a" * 32, b"x", 60)
        assert await store.get([b"a" * 32, b"a" * 32]) == [b"x", b"x"]

    async def test_no_keys_no_blobs(self, store: Store) -> None:
        assert await store.get([]) == []
        assert await store.delete([]) == 0

    async def test_a_put_replaces_what_was_there(self, store: Store) -> None:
        for blob in (b"first", b"", b"second"):
            await store.put(b"a" * 32, blob, 60)
            assert await store.get([b"a" * 32]) == [blob]

    async def test_any_bytes_are_keys_and_blobs(self, store: Store) -> None:
        key, blob = bytes(range(32)), bytes(range(256)) + b"\r\n$5\r\n"
        await store.put(key, blob, 60)
        assert await store.get([key]) == [blob]

    async def test_a_large_blob_comes_back(self, store: Store) -> None:
        blob = bytes(range(256)) * 16384
        await store.put(b"a" * 32, blob, 60)
        assert await store.get([b"a" * 32]) == [blob]

    async def test_deleted_keys_are_gone_and_counted(self, store: Store) -> None:
        await store.put(b"a" * 32, b"x", 60)
        await store.put(b"b" * 32, b"y", 60)
        assert await store.delete([b"a" * 32, b"?" * 32]) == 1
        assert await store.get([b"a" * 32, b"b" * 32]) == [None, b"y"]
        assert await store.delete([b"a" * 32]) == 0

    async def test_a_deleted_key_can_be_put_again(self, store: Store) -> None:
        await store.put(b"a" * 32, b"x", 60)
        await store.delete([b"a" * 32])
        await store.put(b"a" * 32, b"y", 60)
        assert await store.get([b"a" * 32]) == [b"y"]

    async def test_what_expired_is_not_found(self, store: Store) -> None:
        await store.put(b"a" * 32, b"x", 0.05)
        async with asyncio.timeout(PATIENT_S):
            while await store.get([b"a" * 32]) != [None]:  # noqa: ASYNC110 - its clock, its time
                await asyncio.sleep(0.01)

    async def test_many_at_once_each_get_their_own(self, store: Store) -> None:
        async def one(number: int) -> None:
            key = number.to_bytes(32, "big")
            blob = codec.encode(entry(payload=key, stored_at=time.time()), key)
            await store.put(key, blob, 60)
            for _ in range(5):
                (found,) = await store.get([key])
                assert found is not None
                assert codec.decode(found, key).payload == key

        await asyncio.gather(*map(one, range(200)))


async def started(store: Store) -> AsyncIterator[Store]:
    await store.start()
    yield store
    await store.close()


class TestMemory(Contract):
    @pytest.fixture
    async def store(self, memory: MemoryStore) -> AsyncIterator[Store]:
        async for store in started(memory):
            yield store


class TestSqlite(Contract):
    @pytest.fixture
    async def store(self, sqlite: SqliteStore) -> AsyncIterator[Store]:
        async for store in started(sqlite):
            yield store


class TestRedis(Contract):
    @pytest.fixture
    async def store(self, redis: RedisStore) -> AsyncIterator[Store]:
        async for store in started(redis):
            yield store


class TestTieredSqlite(Contract):
    @pytest.fixture
    async def store(self, tiered_sqlite: TieredStore) -> AsyncIterator[Store]:
        async for store in started(tiered_sqlite):
            yield store


class TestTieredRedis(Contract):
    @pytest.fixture
    async def store(self, tiered_redis: TieredStore) -> AsyncIterator[Store]:
        async for store in started(tiered_redis):
            yield store
