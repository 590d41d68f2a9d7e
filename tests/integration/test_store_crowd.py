"""Redis that is slow, cut off, killed, stopped and restarted, with 64 clients at work.

Each client has its own key, and every value carries its key and a number of its own: a reply that
was matched to another command would be seen.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import random
import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import pytest

from gateway.store.base import StoreUnavailable
from gateway.store.redis import RedisStore
from tests.helpers.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.helpers.redis_servers import RedisServer

T = TypeVar("T")

CLIENTS = 64
DEADLINE_S = 0.05
TICK_S = 0.001
SETTLE_S = 10.0


@dataclass
class Crowd:
    """Clients that put, get and check, as fast as they are allowed to, until told to stop."""

    store: RedisStore
    hits: int = 0
    misses: int = 0
    failures: int = 0
    mismatches: list[str] = field(default_factory=list)
    unexpected: list[BaseException] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    noise_s: list[float] = field(default_factory=list)
    progress: asyncio.Condition = field(default_factory=asyncio.Condition)
    _stop: bool = False

    async def client(self, number: int) -> None:
        key = (number + 1).to_bytes(32, "big")  # its mirror image is nobody's
        for turn in itertools.count():
            if self._stop:
                return
            value = key + turn.to_bytes(8, "big") + os.urandom(200 + 50 * number)
            await self._time(self.store.put(key, value, 60))
            found = await self._time(self.store.get([key, key[::-1]]))
            if found is not None:
                mine, nobodys = found
                if nobodys is not None or (mine is not None and mine[:32] != key):
                    self.mismatches.append(f"client {number}: {mine!r:.80} {nobodys!r:.80}")
                self.hits += mine is not None
                self.misses += mine is None
            async with self.progress:
                self.progress.notify_all()
            # What a request would do in between; also keeps 64 clients from owning the machine.
            await asyncio.sleep(0.01)

    async def _time(self, operation: Awaitable[T]) -> T | None:
        began = time.perf_counter()
        try:
            return await operation
        except StoreUnavailable:
            self.failures += 1
        except Exception as exc:  # noqa: BLE001 - anything else breaks the contract
            self.unexpected.append(exc)
        finally:
            self.took_s.append(time.perf_counter() - began)
        return None

    async def ticker(self) -> None:
        """Does nothing, often: how late it is woken is the noise of machine and event loop."""
        while not self._stop:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self.noise_s.append(time.perf_counter() - began - TICK_S)

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(SETTLE_S), self.progress:
            await self.progress.wait_for(met)

    async def until_more_hits(self, count: int = 3 * CLIENTS) -> float:
        """Wait for so many more; how long that took."""
        began = time.perf_counter()
        goal = self.hits + count
        await self.until(lambda: self.hits >= goal)
        return time.perf_counter() - began

    async def until_more_failures(self, count: int = 3 * CLIENTS) -> None:
        goal = self.failures + count
        await self.until(lambda: self.failures >= goal)

    def stop(self) -> None:
        self._stop = True

    def check(self, what: str) -> None:
        slowest, noise = max(self.took_s), max(self.noise_s)
        print(
            f"{what}: {self.hits} hits, {self.misses} misses, {self.failures} unavailable; "
            f"slowest {slowest * 1000:.1f} ms, median {statistics.median(self.took_s) * 1000:.2f} "
            f"ms, deadline {DEADLINE_S * 1000:.0f} ms, noise up to {noise * 1000:.1f} ms"
        )
        assert self.mismatches == []
        assert self.unexpected == []
        # Woken late by its deadline, and then once more to hear of it: two waits for the loop.
        assert slowest <= DEADLINE_S + 2 * noise + 0.005


@asynccontextmanager
async def crowding(store: RedisStore) -> AsyncIterator[Crowd]:
    """A crowd that has had its first hits, until the context is left."""
    crowd = Crowd(store)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(crowd.ticker())
        for number in range(CLIENTS):
            tasks.create_task(crowd.client(number))
        try:
            await crowd.until_more_hits()
            yield crowd
        finally:
            crowd.stop()


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: FaultProxy) -> AsyncIterator[RedisStore]:
    store = RedisStore(proxy.url, deadline_s=DEADLINE_S)
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def crowd(store: RedisStore) -> AsyncIterator[Crowd]:
    async with crowding(store) as crowd:
        yield crowd


async def test_replies_later_than_the_deadline_are_never_matched_to_another_command(
    crowd: Crowd, proxy: FaultProxy
) -> None:
    # One reply in four is late, by a little or by a lot: it would arrive while the next command
    # on that connection waits. The others are in time, so that the store goes on asking.
    dice = random.Random(20261122)
    proxy.faults.delay_s = lambda: dice.choice((0.0, 0.0, 0.02, dice.uniform(0.045, 0.12)))
    hits, failures = crowd.hits + 6 * CLIENTS, crowd.failures + 6 * CLIENTS
    await crowd.until(lambda: crowd.hits >= hits and crowd.failures >= failures)
    proxy.faults.delay_s = lambda: 0.0
    again_s = await crowd.until_more_hits()
    crowd.check(f"some replies late, hits again after {again_s:.2f} s")
    assert again_s < 2.5


async def test_when_all_replies_are_late_nobody_waits_longer_and_hits_resume(
    crowd: Crowd, proxy: FaultProxy
) -> None:
    for delay_s in (0.06, 0.12, 0.055, 0.2):
        proxy.faults.delay_s = functools.partial(float, delay_s)
        await crowd.until_more_failures(CLIENTS)
    proxy.faults.delay_s = lambda: 0.0
    again_s = await crowd.until_more_hits()
    crowd.check(f"all replies late, hits again after {again_s:.2f} s")
    assert again_s < 2.5


async def test_replies_that_end_in_the_middle_fail_and_nothing_is_left_of_them(
    crowd: Crowd, proxy: FaultProxy
) -> None:
    for limit in (1, 7, 100):
        proxy.faults.cut_after = limit
        await crowd.until_more_failures(CLIENTS)
        proxy.faults.cut_after = None
        await crowd.until_more_hits(CLIENTS)
        proxy.faults.reset_after = limit
        await crowd.until_more_failures(CLIENTS)
        proxy.faults.reset_after = None
        await crowd.until_more_hits(CLIENTS)
    crowd.check("cut replies")


async def test_callers_that_go_away_leave_no_reply_behind(
    crowd: Crowd, store: RedisStore, proxy: FaultProxy
) -> None:
    proxy.faults.delay_s = lambda: 0.02
    for number in range(200):
        lookup = asyncio.create_task(store.get([number.to_bytes(32, "little")]))
        # Somewhere between before the connection and after the reply.
        await asyncio.sleep(number % 40 / 1000)
        lookup.cancel()
        await asyncio.gather(lookup, return_exceptions=True)
    proxy.faults.delay_s = lambda: 0.0
    await crowd.until_more_hits()
    crowd.check("callers gone")


@pytest.fixture
async def near_store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_server.url, deadline_s=DEADLINE_S)
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def near_crowd(near_store: RedisStore) -> AsyncIterator[Crowd]:
    async with crowding(near_store) as crowd:
        yield crowd


async def test_a_killed_server_delays_nobody_beyond_the_deadline_and_hits_resume(
    near_crowd: Crowd, redis_server: RedisServer
) -> None:
    redis_server.kill()
    await near_crowd.until_more_failures(10 * CLIENTS)
    await asyncio.to_thread(redis_server.start)
    again_s = await near_crowd.until_more_hits()
    near_crowd.check(f"killed and started, hits again after {again_s:.2f} s")
    assert again_s < 2.5


async def test_a_stopped_server_delays_nobody_beyond_the_deadline_and_hits_resume(
    near_crowd: Crowd, redis_server: RedisServer
) -> None:
    redis_server.pause()
    await near_crowd.until_more_failures(10 * CLIENTS)
    redis_server.resume()
    again_s = await near_crowd.until_more_hits()
    near_crowd.check(f"stopped and continued, hits again after {again_s:.2f} s")
    assert again_s < 2.5


async def test_a_restarted_server_delays_nobody_beyond_the_deadline_and_hits_resume(
    near_crowd: Crowd, redis_server: RedisServer
) -> None:
    for _ in range(3):
        await asyncio.to_thread(redis_server.restart)
        again_s = await near_crowd.until_more_hits()
        assert again_s < 2.5
    near_crowd.check("restarted three times")


async def test_a_server_that_is_away_costs_a_lookup_nothing_once_that_is_known(
    near_crowd: Crowd, redis_server: RedisServer
) -> None:
    redis_server.pause()
    await near_crowd.until_more_failures(3 * CLIENTS)
    near_crowd.took_s.clear()
    await near_crowd.until_more_failures(20 * CLIENTS)
    redis_server.resume()
    slow = sum(took_s > DEADLINE_S / 2 for took_s in near_crowd.took_s)
    print(f"{slow} of {len(near_crowd.took_s)} waited")
    assert slow <= 2 * CLIENTS
