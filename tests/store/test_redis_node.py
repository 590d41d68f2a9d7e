from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING

import pytest

from gateway.store.base import StoreUnavailable
from gateway.store.redis import RedisStore
from gateway.store.redis_node import BATCH, HUGE_BYTES, QUIET_S, Node
from tests.helpers.fault_proxy import FaultProxy
from tests.helpers.redis_topologies import told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.helpers.redis_servers import RedisServer

PATIENT_S = 10.0
KEYS = [bytes([n]) * 32 for n in range(BATCH)]


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_server.url, deadline_s=PATIENT_S)
    yield store
    await store.close()
    gc.collect()


def node_of(store: RedisStore) -> Node:
    (node,) = store._topology.primaries()
    return node


async def test_what_is_asked_in_one_turn_shares_one_pipeline(redis_server: RedisServer) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        store = RedisStore(proxy.url, deadline_s=PATIENT_S)
        await asyncio.gather(*(store.put(key, b"of " + key, 60) for key in KEYS))
        found = await asyncio.gather(*(store.get([key]) for key in KEYS))
        assert found == [[b"of " + key] for key in KEYS]
        assert proxy.connections == 1
        # More than a batch takes another connection, so that one huge reply delays only so many.
        await asyncio.gather(*(store.get([key]) for key in (*KEYS, *KEYS)))
        assert proxy.connections == 2
        await store.close()


async def test_a_refusal_in_a_pipeline_is_that_of_its_command_alone(
    store: RedisStore, redis_server: RedisServer
) -> None:
    told(redis_server, "RPUSH", "warmgate:" + KEYS[1].hex(), "foreign")
    await store.put(KEYS[0], b"mine", 60)
    lookups = [store.get([key]) for key in KEYS[:3]]
    refused = asyncio.ensure_future(store.execute("GET", "warmgate:" + KEYS[1].hex()))
    assert await asyncio.gather(*lookups) == [[b"mine"], [None], [None]]
    with pytest.raises(StoreUnavailable) as caught:
        await refused
    assert caught.value.reason == "refused"
    assert len(node_of(store).connections._idle) == 1


async def test_a_huge_value_goes_alone(redis_server: RedisServer) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        store = RedisStore(proxy.url, deadline_s=PATIENT_S)
        await asyncio.gather(
            store.put(KEYS[0], bytes(HUGE_BYTES + 1), 60), *(store.get([key]) for key in KEYS)
        )
        assert proxy.connections == 2
        await store.close()


async def test_a_late_pipeline_fails_all_that_wait_and_costs_its_connection(
    redis_server: RedisServer,
) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        store = RedisStore(proxy.url, deadline_s=0.05)
        await store.start()
        proxy.faults.delay_s = lambda: 0.1
        results = await asyncio.gather(*(store.get([key]) for key in KEYS), return_exceptions=True)
        assert {getattr(result, "reason", None) for result in results} == {"late"}
        proxy.faults.delay_s = lambda: 0.0
        # So many failed together, but in one instant: that may have been our own doing.
        assert not node_of(store).breaker.is_open
        assert await store.get(KEYS) == [None] * len(KEYS)
        await store.close()


async def test_a_full_server_refuses_entries_and_answers_lookups(
    store: RedisStore, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put(KEYS[0], b"kept", 60)
    told(redis_server, "CONFIG", "SET", "maxmemory", "1")
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            with pytest.raises(StoreUnavailable) as caught:
                await store.put(KEYS[1], b"x", 60)
            assert caught.value.reason == "full"
            assert await store.get(KEYS[:2]) == [b"kept", None]
        assert not node_of(store).breaker.is_open
        told(redis_server, "CONFIG", "SET", "maxmemory", "0")
        await store.put(KEYS[1], b"x", 60)
        assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
            "Redis refuses entries"
        ]
        # Near the limit it refuses one moment and takes the next: only lasting peace is said.
        node_of(store)._refused_at[True] -= QUIET_S
        await store.put(KEYS[1], b"y", 60)
        await store.put(KEYS[1], b"z", 60)
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "Redis refuses entries",
        "Redis takes entries again",
    ]
    assert len(node_of(store).connections._idle) == 1


async def test_a_server_that_became_a_replica_refuses_entries_and_is_dialled_anew(
    redis_server: RedisServer,
) -> None:
    # Managed Redis: after a failover the name points to another server.
    async with FaultProxy(redis_server.port) as proxy:
        store = RedisStore(proxy.url, deadline_s=PATIENT_S)
        await store.put(KEYS[0], b"x", 60)
        told(redis_server, "REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable) as caught:
            await store.put(KEYS[0], b"y", 60)
        assert caught.value.reason == "read_only"
        told(redis_server, "REPLICAOF", "NO", "ONE")
        await store.put(KEYS[0], b"z", 60)
        assert await store.get([KEYS[0]]) == [b"z"]
        assert proxy.connections == 2
        await store.close()


async def test_a_user_who_may_not_is_refused_by_name(
    store: RedisStore, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    told(
        redis_server,
        *["ACL", "SETUSER", "gw", "on", ">secret", "~warmgate:*", "&warmgate:*", "+get", "+ping"],
    )
    port = redis_server.port
    reader = RedisStore(f"redis://gw:secret@127.0.0.1:{port}", deadline_s=PATIENT_S)
    assert await reader.get([KEYS[0]]) == [None]
    with pytest.raises(StoreUnavailable) as caught:
        await reader.put(KEYS[0], b"x", 60)
    assert caught.value.reason == "not_permitted"
    outside = RedisStore(
        f"redis://gw:secret@127.0.0.1:{port}", deadline_s=PATIENT_S, key_prefix="elsewhere:"
    )
    for _ in range(3):
        with pytest.raises(StoreUnavailable) as caught:
            await outside.get([KEYS[0]])
        assert caught.value.reason == "not_permitted"
    assert caplog.text.count("Redis refuses entries") == 1
    assert caplog.text.count("Redis refuses lookups") == 1
    await reader.close()
    await outside.close()


async def test_nobody_who_left_is_waited_for_and_nobody_who_stays_is_hurt(
    store: RedisStore,
) -> None:
    await store.put(KEYS[0], b"x", 60)
    lookups = [asyncio.ensure_future(store.get([KEYS[0]])) for _ in range(8)]
    await asyncio.sleep(0)
    for lookup in lookups[::2]:
        lookup.cancel()
    results = await asyncio.gather(*lookups, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 4
    assert results[1::2] == [[b"x"]] * 4


async def test_closing_ends_what_is_under_way(redis_server: RedisServer) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        store = RedisStore(proxy.url, deadline_s=0.2)
        await store.start()
        proxy.faults.delay_s = lambda: PATIENT_S
        lookups = [asyncio.ensure_future(store.get([key])) for key in KEYS]
        await asyncio.sleep(0)
        await store.close()
        results = await asyncio.gather(*lookups, return_exceptions=True)
        assert {type(result) for result in results} == {StoreUnavailable}
