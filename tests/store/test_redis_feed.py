from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.store import redis_feed
from gateway.store.base import StoreUnavailable
from gateway.store.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.helpers.redis_servers import RedisServer

PATIENT_S = 10.0


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_server.url, deadline_s=PATIENT_S)
    yield store
    await store.close()


async def test_any_command_that_concerns_a_key_can_be_given(store: RedisStore) -> None:
    name = store.named("generations")
    assert name == "warmgate:generations"
    assert await store.execute("HINCRBY", name, "tag", 2) == 2
    assert await store.execute("HGETALL", name) == [b"tag", b"2"]
    with pytest.raises(StoreUnavailable):
        await store.execute("GET", name)


async def test_what_is_published_arrives_in_order(store: RedisStore) -> None:
    channel = store.named("news")
    async with asyncio.timeout(PATIENT_S), store.subscription(channel) as messages:
        for number in range(100):
            assert await store.execute("PUBLISH", channel, f"message {number}") == 1
        heard = [await anext(messages) for _ in range(100)]
    assert heard == [b"message %d" % number for number in range(100)]


async def _publish(store: RedisStore) -> None:
    await store.execute("PUBLISH", "c", "late")


async def test_a_silent_feed_goes_on(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_feed, "PING_S", 0.01)
    monkeypatch.setattr(redis_feed, "SILENCE_S", 0.1)
    async with asyncio.timeout(PATIENT_S), store.subscription("c") as messages:
        # Three times as long as it may stay silent without being asked.
        asyncio.get_running_loop().call_later(0.3, asyncio.ensure_future, _publish(store))
        assert await anext(messages) == b"late"


async def test_a_lost_feed_is_said(store: RedisStore, redis_server: RedisServer) -> None:
    async with asyncio.timeout(PATIENT_S), store.subscription("c") as messages:
        redis_server.kill()
        with pytest.raises(StoreUnavailable, match="ended"):
            await anext(messages)
    with pytest.raises(StoreUnavailable, match="no subscription"):
        async with store.subscription("c"):
            pass


async def test_a_feed_of_a_stopped_server_is_given_up(
    store: RedisStore, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_feed, "PING_S", 0.02)
    monkeypatch.setattr(redis_feed, "SILENCE_S", 0.1)
    async with asyncio.timeout(PATIENT_S):
        async with store.subscription("c") as messages:
            redis_server.pause()
            with pytest.raises(StoreUnavailable, match="silent"):
                await anext(messages)
        with pytest.raises(StoreUnavailable, match="no subscription"):
            async with store.subscription("c"):
                pass
    redis_server.resume()
