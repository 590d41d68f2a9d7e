"""The stream, read and written over real servers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from gateway.store import journal_redis
from gateway.store.base import StoreUnavailable
from gateway.store.journal import Frame, packed, unpacked
from gateway.store.journal_redis import RedisJournal
from gateway.store.redis import RedisStore
from tests.helpers.redis_topologies import told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.helpers.redis_servers import RedisServer

PATIENT_S = 20.0
KEY = "warmgate:route:pool"


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_server.url, deadline_s=PATIENT_S)
    yield store
    await store.close()


def frame(number: int, size: int = 10) -> bytes:
    return packed(Frame(1, number, (bytes(size),)))


async def so_far(journal: RedisJournal) -> list[bytes]:
    """What lies in it, up to the first empty portion."""
    found: list[bytes] = []
    async with asyncio.timeout(PATIENT_S), aclosing(journal.follow()) as portions:
        async for portion in portions:
            if not portion:
                return found
            found += portion
    raise AssertionError("it never said that this is all")


async def drained(portions: AsyncIterator[Sequence[bytes]]) -> None:
    """To its end, with nothing in it."""
    async for portion in portions:
        assert not portion


async def test_what_one_writes_another_reads_in_order_and_goes_on_reading(
    store: RedisStore,
) -> None:
    writer, reader = RedisJournal(store, "pool"), RedisJournal(store, "pool")
    early = [frame(number) for number in range(50)]
    await writer.write(early)
    found: list[bytes] = []
    late = [frame(number) for number in range(50, 80)]
    async with asyncio.timeout(PATIENT_S), aclosing(reader.follow()) as portions:
        async for portion in portions:
            found += portion
            if not portion and found == early:
                await writer.write(late)
            if len(found) == 80:
                break
    assert found == early + late
    # Another pool has a stream of its own.
    assert await so_far(RedisJournal(store, "other")) == []
    await writer.close()


async def test_a_lost_feed_is_said_and_resumed_where_it_was(
    store: RedisStore, redis_server: RedisServer
) -> None:
    writer, reader = RedisJournal(store, "pool"), RedisJournal(store, "pool")
    await writer.write([frame(1)])
    assert await so_far(reader) == [frame(1)]
    async with asyncio.timeout(PATIENT_S), aclosing(reader.follow()) as portions:
        assert await anext(portions) == ()
        told(redis_server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(StoreUnavailable):
            await drained(portions)
    # The writer notices that its connection is gone before it uses it, and takes a new one.
    await writer.write([frame(2)])
    async with asyncio.timeout(PATIENT_S), aclosing(reader.follow()) as portions:
        while not (portion := await anext(portions)):
            pass
    assert portion == [frame(2)]
    await writer.close()


async def test_a_stream_that_went_back_is_read_anew(
    store: RedisStore, redis_server: RedisServer
) -> None:
    reader = RedisJournal(store, "pool")
    # By a server whose clock is far ahead.
    told(redis_server, "XADD", KEY, "9999999999999-0", "f", frame(1))
    assert await so_far(reader) == [frame(1)]
    told(redis_server, "DEL", KEY)
    writer = RedisJournal(store, "pool")
    await writer.write([frame(2)])
    assert await so_far(reader) == [frame(2)]
    await writer.close()


async def test_a_stream_that_goes_back_while_it_is_followed_is_noticed(
    store: RedisStore, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_redis, "WAIT_S", 0.01)
    reader = RedisJournal(store, "pool")
    told(redis_server, "XADD", KEY, "9999999999999-0", "f", frame(1))
    async with asyncio.timeout(PATIENT_S), aclosing(reader.follow()) as portions:
        assert await anext(portions) == [frame(1)]
        told(redis_server, "DEL", KEY)
        told(redis_server, "XADD", KEY, "1-0", "f", frame(2))
        with pytest.raises(StoreUnavailable, match="went back"):
            await drained(portions)
    assert await so_far(reader) == [frame(2)]


async def test_of_a_long_history_the_latest_is_read(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RedisJournal(store, "pool")
    frames = [frame(number, 1000) for number in range(600)]
    await writer.write(frames)
    assert await so_far(RedisJournal(store, "pool")) == frames
    monkeypatch.setattr(journal_redis, "HISTORY_BYTES", 100_000)
    assert await so_far(RedisJournal(store, "pool")) == frames[-96:]
    monkeypatch.setattr(journal_redis, "HISTORY_RECORDS", 20)
    assert await so_far(RedisJournal(store, "pool")) == frames[-20:]
    await writer.close()


async def test_what_is_older_than_an_hour_is_not_read(
    store: RedisStore, redis_server: RedisServer
) -> None:
    for minutes, number in ((0, 1), (61, 2), (120, 3)):
        told(redis_server, "XADD", KEY, f"{minutes * 60_000 + 1}-0", "f", frame(number))
    assert await so_far(RedisJournal(store, "pool")) == [frame(2), frame(3)]


async def test_the_stream_keeps_to_its_bytes_whatever_the_size_of_frames(
    store: RedisStore, redis_server: RedisServer
) -> None:
    budget = 1 << 20
    writer = RedisJournal(store, "pool", stream_bytes=budget)
    for size, count in ((100, 4000), (20_000, 400), (1000, 3000), (60_000, 200)):
        for number in range(0, count, 20):
            await writer.write([frame(n, size) for n in range(number, number + 20)])
        assert told(redis_server, "MEMORY", "USAGE", KEY, "SAMPLES", 0) < 4 * budget + 64 * size
    assert 0 < told(redis_server, "TTL", KEY) <= 7200
    await writer.close()


async def test_what_somebody_else_puts_there_is_passed_over(
    store: RedisStore, redis_server: RedisServer
) -> None:
    writer = RedisJournal(store, "pool")
    await writer.write([frame(1)])
    told(redis_server, "XADD", KEY, "*", "other", "field", "and", "another")
    told(redis_server, "XADD", KEY, "*", "f", "garbage")
    for _ in range(5):
        told(redis_server, "XADD", KEY, "*", "f", bytes(10 << 20))
    await writer.write([frame(2)])
    found = await so_far(RedisJournal(store, "pool"))
    assert [blob for blob in found if unpacked(blob)] == [frame(1), frame(2)]
    await writer.close()


async def test_a_key_of_another_kind_is_said(store: RedisStore, redis_server: RedisServer) -> None:
    told(redis_server, "SET", KEY, "text")
    journal = RedisJournal(store, "pool")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await journal.write([frame(1)])
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await so_far(journal)
    # And the store has no part in it.
    assert await store.get([bytes(32)]) == [None]


async def test_a_stopped_server_costs_a_write_its_deadline(
    store: RedisStore, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_redis, "DEADLINE_S", 0.05)
    monkeypatch.setattr(journal_redis, "WAIT_S", 0.05)
    journal = RedisJournal(store, "pool")
    await journal.write([frame(1)])
    redis_server.pause()
    async with asyncio.timeout(PATIENT_S):
        with pytest.raises(StoreUnavailable):
            await journal.write([frame(2)])
        with pytest.raises(StoreUnavailable):
            await so_far(journal)
        with pytest.raises(StoreUnavailable):
            await journal.write([frame(2)])
    redis_server.resume()
    await journal.write([frame(3)])
    assert [unpacked(blob) for blob in await so_far(journal)][-1] == unpacked(frame(3))
    await journal.close()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_both_forms_of_replies_are_understood(
    redis_server: RedisServer, protocol: int
) -> None:
    store = RedisStore(f"{redis_server.url}?protocol={protocol}", deadline_s=PATIENT_S)
    journal = RedisJournal(store, "pool")
    await journal.write([frame(1)])
    assert await so_far(journal) == [frame(1)]
    async with asyncio.timeout(PATIENT_S), aclosing(journal.follow()) as portions:
        assert await anext(portions) == ()
        await journal.write([frame(2)])
        assert await anext(portions) == [frame(2)]
    await journal.close()
    await store.close()
