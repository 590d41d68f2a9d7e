"""Against real Clusters and Sentinels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot

from gateway.store.base import StoreUnavailable
from gateway.store.redis import RedisStore
from gateway.store.redis_access import Access
from tests.helpers.redis_servers import RedisServer
from tests.helpers.redis_topologies import (
    Cluster,
    Sentinels,
    cluster,
    executable,
    sentinels,
    told,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.redis

PATIENT_S = 10.0
KEYS = [bytes([n]) * 32 for n in range(64)]


@pytest.fixture(scope="module")
def lasting() -> Iterator[Cluster]:
    """One that every test leaves whole."""
    with cluster() as made:
        yield made


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., RedisStore]]:
    made: list[RedisStore] = []

    def make(url: str, deadline_s: float = PATIENT_S, **access: bool | str) -> RedisStore:
        store = RedisStore(url, deadline_s=deadline_s, access=Access(**access))  # type: ignore[arg-type] # flags and names
        made.append(store)
        return store

    yield make
    for store in made:
        await store.close()


async def hits_again(store: RedisStore, keys: list[bytes]) -> float:
    """Seconds until all keys can be put and are found."""
    began = time.monotonic()
    async with asyncio.timeout(PATIENT_S):
        while True:
            with contextlib.suppress(StoreUnavailable):
                for key in keys:
                    await store.put(key, key, 60)
                if await store.get(keys) == keys:
                    return time.monotonic() - began
            await asyncio.sleep(0.01)


async def test_a_cluster_keeps_entries_on_all_its_servers(
    make: Callable[..., RedisStore], lasting: Cluster
) -> None:
    store = make(lasting.url)
    blobs = [key + os.urandom(1000) for key in KEYS]
    await asyncio.gather(*(store.put(k, b, 60) for k, b in zip(KEYS, blobs, strict=True)))
    assert await store.get(KEYS) == blobs
    assert await store.get([KEYS[1], b"~" * 32, KEYS[0]]) == [blobs[1], None, blobs[0]]
    sizes = [told(server, "DBSIZE") for server in lasting.servers[:3]]
    assert sum(sizes) >= len(KEYS)
    assert min(sizes) > len(KEYS) / 8
    assert await store.delete([*KEYS, b"~" * 32]) == len(KEYS)
    assert await store.get(KEYS) == [None] * len(KEYS)


async def test_what_is_asked_of_all_servers_is(
    make: Callable[..., RedisStore], lasting: Cluster
) -> None:
    store = make(lasting.url)
    await asyncio.gather(*(store.put(key, b"x", 60) for key in KEYS))
    assert sum(await store.execute_everywhere("DBSIZE")) == len(KEYS)
    found = {name async for names in store.scan() for name in names}
    assert found == {b"warmgate:" + key.hex().encode() for key in KEYS}
    assert [names async for names in store.scan("no such")] == []
    with pytest.raises(StoreUnavailable, match="unknown command"):
        await store.execute_everywhere("NO_SUCH_COMMAND")
    await store.delete(KEYS)


async def test_a_feed_reaches_across_the_cluster(
    make: Callable[..., RedisStore], lasting: Cluster
) -> None:
    store = make(lasting.url)
    async with asyncio.timeout(PATIENT_S), store.subscription("channel") as messages:
        await told_in_thread(lasting.servers[4], "PUBLISH", "channel", "from a replica")
        assert await anext(messages) == b"from a replica"


async def test_the_rights_that_the_page_names_are_enough(
    make: Callable[..., RedisStore], lasting: Cluster
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "redis.md").read_text()
    (rights,) = re.findall(r"```text\n(ACL SETUSER .*?)```", page, re.DOTALL)
    for server in lasting.servers:
        told(server, *rights.split())
        told(server, "CONFIG", "RESETSTAT")
    url = lasting.url.replace("//", "//warmgate:password@")
    store = make(url, read_from_replicas=True)
    await store.start()
    await hits_again(store, KEYS)
    assert len([name async for names in store.scan() for name in names]) == len(KEYS)
    assert sum(await store.execute_everywhere("DBSIZE")) == len(KEYS)
    assert await store.delete(KEYS) == len(KEYS)
    assert await store.claim("secret", b"mine") == b"mine"
    script = (
        "redis.call('HSET', KEYS[1], 'a', redis.call('TIME')[1]) return redis.call('HLEN', KEYS[1])"
    )
    assert await store.execute("EVAL", script, 1, store.named("marks")) == 1
    assert len(await store.execute("HGETALL", store.named("marks"))) == 2
    async with store.subscription(store.named("channel")) as messages:
        await store.execute("PUBLISH", store.named("channel"), "news")
        assert await anext(messages) == b"news"
    assert await store.execute("UNLINK", store.named("marks")) == 1
    assert await store.execute("UNLINK", store.named("secret")) == 1
    with pytest.raises(StoreUnavailable) as caught:
        await store.execute("GET", "outside")
    assert caught.value.reason == "not_permitted"


async def told_in_thread(server: RedisServer, *command: object) -> object:
    return await asyncio.to_thread(told, server, *command)


async def test_a_slot_that_moves_is_followed_while_it_moves_and_afterwards(
    make: Callable[..., RedisStore], lasting: Cluster
) -> None:
    store = make(lasting.url)
    key = b"m" * 32
    await store.put(key, b"before", 60)
    slot = key_slot(b"warmgate:" + key.hex().encode())
    ids = [told(server, "CLUSTER MYID") for server in lasting.servers[:3]]
    owner = slot // 5461
    source, target = lasting.servers[owner], lasting.servers[(owner + 1) % 3]
    source_id, target_id = ids[owner], ids[(owner + 1) % 3]

    def move(a: RedisServer, b: RedisServer, a_id: bytes, b_id: bytes) -> None:
        told(b, "CLUSTER", "SETSLOT", slot, "IMPORTING", a_id)
        told(a, "CLUSTER", "SETSLOT", slot, "MIGRATING", b_id)
        name = "warmgate:" + key.hex()
        told(a, "MIGRATE", "127.0.0.1", b.port, name, 0, 5000)

    def settle(owner_id: bytes) -> None:
        for server in lasting.servers[:3]:
            told(server, "CLUSTER", "SETSLOT", slot, "NODE", owner_id)

    await asyncio.to_thread(move, source, target, source_id, target_id)
    # ASK: the source says so for what it has given away.
    assert await store.get([key]) == [b"before"]
    await store.put(key, b"meanwhile", 60)
    assert await store.get([key]) == [b"meanwhile"]
    await asyncio.to_thread(settle, target_id)
    # MOVED, before the next look.
    assert await store.get([key]) == [b"meanwhile"]
    assert await store.delete([key]) == 1
    await asyncio.to_thread(move, target, source, target_id, source_id)
    await asyncio.to_thread(settle, source_id)
    assert await store.get([key]) == [None]


async def test_a_single_server_that_is_part_of_a_cluster_says_what_to_write(
    make: Callable[..., RedisStore], lasting: Cluster
) -> None:
    store = make(lasting.servers[0].url)
    results = await asyncio.gather(*(store.get([key]) for key in KEYS), return_exceptions=True)
    refused = [result for result in results if isinstance(result, StoreUnavailable)]
    assert len(refused) > len(KEYS) / 3
    assert "write redis+cluster://" in str(refused[0])


async def test_replicas_of_a_cluster_are_asked_where_that_is_wanted(
    make: Callable[..., RedisStore], lasting: Cluster
) -> None:
    store = make(lasting.url, read_from_replicas=True)
    await asyncio.gather(*(store.put(key, key, 60) for key in KEYS))
    async with asyncio.timeout(PATIENT_S):
        # They follow within milliseconds, but not at once.
        while await store.get(KEYS) != KEYS:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)
    before = [told(s, "INFO", "commandstats")["cmdstat_get"]["calls"] for s in lasting.servers[3:]]
    await store.get(KEYS)
    after = [told(s, "INFO", "commandstats")["cmdstat_get"]["calls"] for s in lasting.servers[3:]]
    assert sum(after) - sum(before) == len(KEYS)
    assert all(b > a for a, b in zip(before, after, strict=True))
    await store.delete(KEYS)


async def test_a_replica_that_is_away_is_replaced_by_its_primary(
    make: Callable[..., RedisStore], lasting: Cluster
) -> None:
    store = make(lasting.url, deadline_s=0.1, read_from_replicas=True)
    await hits_again(store, KEYS)
    lasting.servers[3].pause()
    try:
        await hits_again(store, KEYS)
        assert await store.get(KEYS) == KEYS
    finally:
        lasting.servers[3].resume()
        await asyncio.to_thread(lasting.wait_until_whole)


@pytest.mark.slow
async def test_a_primary_of_a_cluster_that_dies_costs_its_slots_until_its_replica_takes_over(
    make: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        group = await asyncio.to_thread(stack.enter_context, cluster())
        store = make(group.url, deadline_s=0.1)
        await store.start()
        await hits_again(store, KEYS)
        with caplog.at_level(logging.WARNING):
            group.servers[1].kill()
            # The others answer, until the Cluster notices that it is not whole.
            found = [blob for blob in await store.get(KEYS) if blob]
            assert len(KEYS) / 3 < len(found) < len(KEYS)
            again_s = await hits_again(store, KEYS)
        print(f"all slots again after {again_s:.2f} s")
        assert "has its primaries at" in caplog.text
        # Said once for each change, whatever number of commands failed.
        assert caplog.text.count("does not answer") <= 1
        await asyncio.to_thread(stack.close)


@pytest.mark.slow
async def test_a_primary_that_sentinels_replace_is_left_though_it_answers(
    make: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        group = await asyncio.to_thread(stack.enter_context, sentinels())
        store = make(group.url, deadline_s=0.1)
        await store.start()
        await hits_again(store, KEYS)
        with caplog.at_level(logging.WARNING):
            await told_in_thread(group.watchers[0], "SENTINEL", "FAILOVER", "gw")
            began = time.monotonic()
            # The former one lives on, and takes writes that will be lost, until it is told.
            async with asyncio.timeout(PATIENT_S):
                while "primaries at" not in caplog.text:  # noqa: ASYNC110 - it is only logged
                    await asyncio.sleep(0.01)
        print(f"found after {time.monotonic() - began:.2f} s")
        assert f"primaries at 127.0.0.1:{group.replica.port}" in caplog.text
        await hits_again(store, KEYS)
        assert told(group.replica, "DBSIZE") >= len(KEYS)
        await asyncio.to_thread(stack.close)


@pytest.mark.slow
async def test_a_primary_that_dies_behind_sentinels_is_found_also_when_one_of_them_is_stopped(
    make: Callable[..., RedisStore],
) -> None:
    with contextlib.ExitStack() as stack:
        group = await asyncio.to_thread(stack.enter_context, sentinels())
        store = make(group.url, deadline_s=0.1)
        await store.start()
        await hits_again(store, KEYS)
        group.watchers[0].pause()
        group.primary.kill()
        lost_s = await hits_again(store, KEYS)
        group.watchers[0].resume()
        print(f"all keys again after {lost_s:.2f} s")
        await asyncio.to_thread(stack.close)


@pytest.mark.slow
async def test_replicas_behind_sentinels_are_asked_where_that_is_wanted(
    make: Callable[..., RedisStore],
) -> None:
    with contextlib.ExitStack() as stack:
        group: Sentinels = await asyncio.to_thread(stack.enter_context, sentinels())
        page = (Path(__file__).parents[2] / "docs" / "explanation" / "redis.md").read_text()
        rights = re.findall(r"`(\+sentinel\|\w+)`", page)
        assert len(rights) == 2
        for watcher in group.watchers:
            told(watcher, "ACL", "SETUSER", "watch", "on", ">man", "-@all", *rights)
        access = {"sentinel_username": "watch", "sentinel_password": "man"}
        store = make(group.url, read_from_replicas=True, **access)
        await hits_again(store, KEYS)
        before = told(group.replica, "INFO", "commandstats")["cmdstat_get"]["calls"]
        await store.get(KEYS)
        after = told(group.replica, "INFO", "commandstats")["cmdstat_get"]["calls"]
        assert after - before == len(KEYS)
        group.replica.kill()
        await hits_again(store, KEYS)
        await asyncio.to_thread(stack.close)


async def test_without_anybody_who_knows_nobody_waits_after_the_first_look(
    make: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(executable())
    for url in (
        f"redis+sentinel://127.0.0.1:{server.port}/gw",
        f"redis+cluster://127.0.0.1:{server.port}",
    ):
        store = make(url)
        await store.start()
        assert "is not there at start" in caplog.text
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(StoreUnavailable, match="not known where Redis is"):
                await store.get([KEYS[0]])
        assert time.monotonic() - began < 1
        caplog.clear()


async def test_a_sentinel_that_knows_no_such_service_is_no_help(
    make: Callable[..., RedisStore],
) -> None:
    sentinel = RedisServer(executable(), options=("--sentinel",))
    await asyncio.to_thread(sentinel.start)
    try:
        store = make(f"redis+sentinel://127.0.0.1:{sentinel.port}/none")
        with pytest.raises(StoreUnavailable, match="No master found for 'none'"):
            await store.get([KEYS[0]])
    finally:
        sentinel.close()
