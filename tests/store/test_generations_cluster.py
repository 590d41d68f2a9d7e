"""Marks and walks over a Redis Cluster, with no more rights than the page names."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.core.model import Reason
from gateway.core.selection import Selection
from gateway.store import codec
from gateway.store.generations import Generations
from gateway.store.inventory import Inventory
from gateway.store.redis import RedisStore
from gateway.store.registers import open_register
from tests.helpers.entries import entry
from tests.helpers.redis_topologies import cluster, told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.redis_topologies import Cluster

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "redis.md"


@pytest.fixture(scope="module")
def whole() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.mark.redis
async def test_a_cluster_is_counted_purged_and_reclaimed_as_one(whole: Cluster) -> None:
    (rights,) = re.findall(r"```text\n(ACL SETUSER .*?)```", PAGE.read_text(), re.DOTALL)
    for server in whole.servers:
        told(server, *rights.split())
    url = whole.url.replace("//", "//warmgate:password@")
    stores = [RedisStore(url, deadline_s=10.0) for _ in range(2)]
    replicas = [Generations(open_register(store, time.time)) for store in stores]
    for store, replica in zip(stores, replicas, strict=True):
        await store.start()
        await replica.start()
    one, other = replicas
    keys = [bytes([n]) * 32 for n in range(60)]
    for n, key in enumerate(keys):
        made = entry(
            stored_at=time.time(), generation=one.sequence, tags=("even",) if n % 2 == 0 else ()
        )
        await stores[0].put(key, codec.encode(made, key), 60)
    inventory = Inventory(stores[0], one, time.time)
    even = Selection(("tag:even",))
    assert ((await inventory.tally()).entries, (await inventory.tally(even)).entries) == (60, 30)
    await inventory.purge(even)
    assert await other.refresh()
    refused = [
        other.refuse(codec.decode(blob, key))
        for key, blob in zip(keys, await stores[1].get(keys), strict=True)
        if blob is not None
    ]
    assert refused == [Reason.PURGED, None] * 30
    assert await inventory.reclaim() == 30
    assert (await inventory.tally()).entries == 30
    for store, replica in zip(stores, replicas, strict=True):
        await replica.close()
        await store.close()
