"""Gateways on one store, each with its own connections, as processes have them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.placements import Placements
from gateway.store.journal import NoJournal
from gateway.store.journals import open_journal
from gateway.store.memory import MemoryStore
from gateway.store.redis import RedisStore
from gateway.store.sqlite import SqliteStore
from tests.helpers.placed import over, placed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.core.route_records import RouteRecord
    from gateway.store.base import Store
    from tests.helpers.redis_servers import RedisServer

PATIENT_S = 20.0
POOLS = ("llama", "qwen")


class Gateway:
    """What one process has of it."""

    def __init__(self, store: Store, number: int) -> None:
        self.heard: dict[str, list[RouteRecord]] = {pool: [] for pool in POOLS}
        self.said: list[bool] = []
        self.placements = Placements(POOLS, lambda pool: open_journal(store, pool), number)
        for pool, records in self.heard.items():
            self.placements.on_heard(pool, records.append)
        self.placements.on_shares("llama", self.said.append)

    def shares(self) -> bool:
        return all(self.placements.shares(pool) for pool in POOLS)


@pytest.fixture
async def join(redis_server: RedisServer) -> AsyncIterator[Callable[[int], Gateway]]:
    made: list[tuple[Gateway, RedisStore]] = []

    def make(number: int) -> Gateway:
        store = RedisStore(redis_server.url)
        made.append((Gateway(store, number), store))
        return made[-1][0]

    yield make
    for gateway, store in made:
        await gateway.placements.close(0.0)
        await store.close()


async def until(met: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not met():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.002)


async def test_what_becomes_of_a_request_is_heard_by_the_others(
    join: Callable[[int], Gateway],
) -> None:
    one, other = join(1), join(2)
    await one.placements.start()
    await other.placements.start()
    assert one.shares()
    assert one.said == [True]
    records = [placed(1, 1), over(1, 1)]
    for record in records:
        one.placements.tell("llama", record)
    one.placements.tell("nowhere", placed(1, 1))
    await until(lambda: len(other.heard["llama"]) == 2)
    assert other.heard["llama"] == records
    assert one.heard["llama"] == other.heard["qwen"] == []
    assert not one.placements.shares("nowhere")


async def test_a_gateway_that_starts_knows_what_the_others_and_its_predecessor_placed(
    join: Callable[[int], Gateway],
) -> None:
    one, other = join(1), join(2)
    for each, pool in ((one, "llama"), (other, "qwen")):
        await each.placements.start()
        for number in range(500):
            each.placements.tell(pool, placed(each.placements.gateway, number))
    await one.placements.close(PATIENT_S)
    await until(lambda: other.placements.told()["qwen"]["told"] == 500)
    await until(lambda: not other.placements.told()["qwen"]["waiting"])
    successor = join(3)
    await successor.placements.start(PATIENT_S)
    assert successor.heard["llama"] == [placed(1, number) for number in range(500)]
    await until(lambda: len(successor.heard["qwen"]) == 500)


@pytest.mark.parametrize("fault", ["killed", "stopped"])
async def test_while_redis_is_away_nothing_is_shared_and_then_it_is_told_after_all(
    join: Callable[[int], Gateway], redis_server: RedisServer, fault: str
) -> None:
    one, other = join(1), join(2)
    await one.placements.start()
    await other.placements.start()
    one.placements.tell("llama", placed(1, 1))
    await until(lambda: other.heard["llama"])
    await asyncio.to_thread(redis_server.kill if fault == "killed" else redis_server.pause)
    one.placements.tell("llama", placed(1, 2))
    await until(lambda: not one.placements.shares("llama") and not other.placements.shares("qwen"))
    assert one.placements.told()["llama"]["problem"]
    # A gateway that starts now does not wait for it.
    late = join(3)
    async with asyncio.timeout(5):
        await late.placements.start()
    assert not late.shares()
    await asyncio.to_thread(redis_server.start if fault == "killed" else redis_server.resume)
    await until(lambda: one.shares() and other.shares() and late.shares())
    assert one.said == [True, False, True]
    one.placements.tell("llama", placed(1, 3))
    await until(lambda: len(other.heard["llama"]) == 3)
    assert [record.number for record in other.heard["llama"]] == [1, 2, 3]
    await until(lambda: late.heard["llama"][-1:] == [placed(1, 3)])


async def test_with_sqlite_only_what_was_placed_survives_a_restart(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "cache.sqlite")
    one = Gateway(store, 1)
    await one.placements.start()
    for record in (placed(1, 1), over(1, 1), placed(1, 2)):
        one.placements.tell("llama", record)
    assert not one.shares()
    await one.placements.close(PATIENT_S)
    successor = Gateway(store, 2)
    await successor.placements.start(PATIENT_S)
    assert successor.heard["llama"] == [placed(1, 1), placed(1, 2)]
    assert not successor.shares()
    await successor.placements.close(0.0)


async def test_in_memory_nothing_survives_and_nothing_is_shared() -> None:
    gateway = Gateway(MemoryStore(1000, lambda: 0.0), 1)
    await gateway.placements.start()
    gateway.placements.tell("llama", placed(1, 1))
    assert not gateway.shares()
    assert gateway.placements.told()["llama"]["journal"] == "none"
    await gateway.placements.close(0.0)


async def test_a_pool_that_another_config_brings_is_told_under_a_number_of_its_own() -> None:
    placements = Placements(["llama"], lambda _: NoJournal(), 1)
    kept = placements.shares("llama")

    arriving, leaving = placements.turn(["llama", "qwen"], 2)
    assert (len(arriving), leaving) == (1, [])
    assert (placements.teller("llama"), placements.teller("qwen")) == (1, 2)

    arriving, leaving = placements.turn(["llama"], 3)
    assert (arriving, len(leaving)) == ([], 1)
    # Who still ends a request there tells nobody.
    placements.tell("qwen", placed(2, 1))
    again, _ = placements.turn(["llama", "qwen"], 4)
    assert (len(again), placements.teller("qwen")) == (1, 4)
    assert placements.shares("llama") is kept
    for feed in (*leaving, *again):
        await feed.close(0.0)
    await placements.close(0.0)
