"""What replicas know of purges, over each kind of register."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from gateway.core.model import Reason
from gateway.core.purges import ALL, TAG, Mark
from gateway.store.base import StoreUnavailable
from gateway.store.generations import Generations
from gateway.store.generations_local import LocalRegister
from gateway.store.generations_redis import NAME, RedisRegister
from gateway.store.generations_sqlite import SqliteRegister
from gateway.store.redis import RedisStore
from gateway.store.sqlite import SqliteStore
from tests.helpers.entries import entry
from tests.helpers.redis_servers import RedisServer, binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from gateway.core.model import Entry
    from gateway.store.generations import Register

PATIENT_S = 5.0


class Now:
    """A monotonic clock that stands still."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tagged(replica: Generations, *tags: str) -> Entry:
    """What the replica would store now."""
    return entry(tags=tags, generation=replica.sequence, stored_at=time.time())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not holds():  # noqa: ASYNC110 - of another task, which tells nobody
            await asyncio.sleep(0.005)


@pytest.fixture(params=["local", "sqlite", "redis"])
async def register(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Register]:
    match request.param:
        case "local":
            yield LocalRegister(time.time)
        case "sqlite":
            sqlite = SqliteStore(tmp_path / "cache.sqlite", deadline_s=PATIENT_S)
            await sqlite.start()
            yield SqliteRegister(sqlite.path, most=20)
            await sqlite.close()
        case _:
            server: RedisServer = request.getfixturevalue("one_redis")
            redis = RedisStore(server.url, deadline_s=PATIENT_S)
            await redis.start()
            yield RedisRegister(redis, most=20)
            await redis.close()


@pytest.fixture
def one_redis() -> Iterator[RedisServer]:
    executable = binary("valkey")
    assert executable is not None
    server = RedisServer(executable)
    server.start()
    yield server
    server.close()


async def test_a_purge_kills_what_was_asked_for_before_it_and_nothing_later(
    register: Register,
) -> None:
    replica = Generations(register)
    await replica.start()
    before = tagged(replica, "a")
    await replica.purge(["tag:a"])
    after = tagged(replica, "a")
    assert (replica.refuse(before), replica.refuse(after)) == (Reason.PURGED, None)
    assert replica.refuse(entry(tags=("b",), generation=0)) is None
    await replica.close()


async def test_another_replica_learns_of_it(register: Register) -> None:
    one, other = Generations(register), Generations(register)
    old = tagged(other, "a")
    await one.purge(["tag:a"])
    assert await other.refresh()
    assert (other.refuse(old), other.sequence) == (Reason.PURGED, one.sequence)


async def test_a_purge_by_age_kills_what_was_stored_before(register: Register) -> None:
    one, other = Generations(register), Generations(register)
    now = time.time()
    await one.purge([ALL], before=now - 60)
    await other.refresh()
    for replica in (one, other):
        old, young = entry(stored_at=now - 61), entry(stored_at=now - 59)
        assert (replica.refuse(old), replica.refuse(young)) == (Reason.PURGED, None)


async def test_each_purge_has_a_sequence_of_its_own_above_all_former_ones(
    register: Register,
) -> None:
    sequences = await asyncio.gather(
        *(register.purge([f"tag:{n % 3}"], None, n) for n in range(30))
    )
    assert len(set(sequences)) == 30
    ahead = max(sequences) + 10**9
    assert ahead < await register.purge([ALL], None, ahead) <= ahead + 1024


async def test_replicas_that_purge_and_look_in_any_order_end_with_the_same(
    register: Register,
) -> None:
    replicas = [Generations(register) for _ in range(3)]

    async def work(number: int, replica: Generations) -> None:
        for step in range(6):
            await replica.purge([f"tag:{number}-{step}"])
            await replica.refresh()

    await asyncio.gather(*(work(n, r) for n, r in enumerate(replicas)))
    for replica in replicas:
        await replica.refresh()
    assert replicas[0].marks.all() == replicas[1].marks.all() == replicas[2].marks.all()


async def test_a_register_remembers_so_many_names_and_forgets_none_of_the_dead(
    register: Register,
) -> None:
    if isinstance(register, LocalRegister):
        pytest.skip("its bound is that of the marks in memory")
    replica = Generations(register)
    await replica.start()
    old = [tagged(replica, str(n)) for n in range(60)]
    for n in range(50):
        await register.purge([f"tag:{n}"], None, 0)
    _, marks = await register.read()
    assert len(marks) <= 21
    newcomer = Generations(register)
    await newcomer.refresh()
    assert [newcomer.refuse(each) for each in old[:50]] == [Reason.PURGED] * 50
    await newcomer.purge(["tag:new"])
    assert newcomer.refuse(tagged(newcomer, "59")) is None
    # Nothing that was folded is told back to the register.
    await replica.refresh()
    assert len((await register.read())[1]) <= 22
    await replica.close()


class TestFreshness:
    """A replica that has not heard for too long serves nothing with tags."""

    @pytest.fixture
    async def redis(self, redis_server: RedisServer) -> AsyncIterator[RedisStore]:
        store = RedisStore(redis_server.url, deadline_s=PATIENT_S)
        await store.start()
        yield store
        await store.close()

    async def test_beyond_the_bound_only_entries_without_tags_are_served(
        self, redis: RedisStore
    ) -> None:
        clock = Now()
        replica = Generations(RedisRegister(redis), bound_s=3, monotonic=clock)
        assert replica.refuse(tagged(replica, "a")) is Reason.PURGES_UNKNOWN
        await replica.refresh()
        clock.now += 3.0
        assert replica.refuse(tagged(replica, "a")) is None
        clock.now += 0.1
        assert replica.refuse(tagged(replica, "a")) is Reason.PURGES_UNKNOWN
        assert replica.refuse(tagged(replica)) is None
        await replica.refresh()
        assert replica.refuse(tagged(replica, "a")) is None

    async def test_a_register_that_is_away_is_as_old_as_the_last_answer(
        self, redis_server: RedisServer
    ) -> None:
        clock = Now()
        redis = RedisStore(redis_server.url, deadline_s=0.1)
        await redis.start()
        replica = Generations(RedisRegister(redis), monotonic=clock)
        await replica.refresh()
        redis_server.kill()
        clock.now += 2
        assert not await replica.refresh()
        assert replica.age_s == 2
        await redis.close()

    async def test_a_purge_is_pushed_to_replicas_before_they_poll(self, redis: RedisStore) -> None:
        one = Generations(RedisRegister(redis), poll_s=60)
        other = Generations(RedisRegister(redis), poll_s=60)
        await one.start()
        await other.start()
        # Until the subscription stands a message reaches nobody.
        async with asyncio.timeout(PATIENT_S):
            while not (await redis.execute("PUBSUB", "NUMSUB", redis.named(NAME)))[1] == 2:  # noqa: ASYNC110, SIM201
                await asyncio.sleep(0.005)
        for name in ("tag:a", "tag:b", ALL):
            sequence = await one.purge([name])
            await until(lambda sequence=sequence: other.sequence == sequence)  # type: ignore[misc]
        assert other.marks.all() == one.marks.all()
        # One that missed a message reads everything.
        await RedisRegister(redis).join({"tag:c": Mark(5), "tag:d": Mark(6)}, 0)
        await until(lambda: other.marks.get("tag:d") == Mark(6))
        await one.close()
        await other.close()

    async def test_what_somebody_else_put_there_is_no_register(self, redis: RedisStore) -> None:
        await redis.execute("SET", redis.named(NAME), "something")
        replica = Generations(RedisRegister(redis))
        assert not await replica.refresh()
        with pytest.raises(StoreUnavailable):
            await replica.purge([ALL])
        await redis.execute("DEL", redis.named(NAME))
        await redis.execute("HSET", redis.named(NAME), "#", "many")
        assert not await replica.refresh()


class TestLostWrites:
    """A register that went back brings nothing back to life."""

    @pytest.fixture
    async def redis(self, redis_server: RedisServer) -> AsyncIterator[RedisStore]:
        store = RedisStore(redis_server.url, deadline_s=PATIENT_S)
        await store.start()
        yield store
        await store.close()

    async def test_one_that_was_emptied_is_told_what_replicas_know(self, redis: RedisStore) -> None:
        register = RedisRegister(redis)
        one, newcomer = Generations(register), Generations(register)
        await one.refresh()
        dead = tagged(one, "a")
        await one.purge(["tag:a"])
        await redis.execute("DEL", redis.named(NAME))
        assert await one.refresh()
        await newcomer.refresh()
        assert (one.refuse(dead), newcomer.refuse(dead)) == (Reason.PURGED, Reason.PURGED)

    async def test_a_purge_after_the_loss_kills_what_older_replicas_hold(
        self, redis: RedisStore
    ) -> None:
        register = RedisRegister(redis)
        one, newcomer = Generations(register), Generations(register)
        await one.purge(["tag:a"])
        held = tagged(one, "b")
        await redis.execute("DEL", redis.named(NAME))
        # It knows nothing of what was lost.
        await newcomer.purge(["tag:b"])
        await one.refresh()
        assert one.refuse(held) is Reason.PURGED

    async def test_so_does_one_under_a_clock_that_was_set_back(self, redis: RedisStore) -> None:
        register = RedisRegister(redis)
        one, two = Generations(register), Generations(register)
        await one.purge(["tag:a"])
        await two.refresh()
        held = tagged(one, "b")
        await redis.execute("DEL", redis.named(NAME))
        await redis.execute(
            "HSET", redis.named(NAME), "@", "77", "#", "1000", "tag:b", "1000 0.000000"
        )
        await one.refresh()
        await two.refresh()
        assert (one.refuse(held), two.refuse(held)) == (Reason.PURGED, Reason.PURGED)
        assert one.refuse(tagged(one, "b")) is None

    async def test_a_purge_that_a_failover_lost_is_made_good_by_whoever_heard_of_it(
        self, redis: RedisStore
    ) -> None:
        register = RedisRegister(redis)
        one, two = Generations(register), Generations(register)
        for replica in (one, two):
            await replica.purge(["tag:z"])
            await replica.refresh()
        await one.refresh()
        dead = tagged(two, "a")
        await one.purge(["tag:a"])
        # The new primary never had it, and something else was purged there since.
        await redis.execute("HDEL", redis.named(NAME), "tag:a")
        await two.purge(["tag:c"])
        assert two.refuse(dead) is None
        await one.refresh()
        await two.refresh()
        assert two.refuse(dead) is Reason.PURGED
        await one.refresh()
        assert one.marks.all() == two.marks.all()

    async def test_a_file_that_was_set_aside_is_told_too(self, tmp_path: Path) -> None:
        store = SqliteStore(tmp_path / "cache.sqlite", deadline_s=PATIENT_S)
        await store.start()
        one = Generations(SqliteRegister(store.path))
        await one.refresh()
        dead = tagged(one, "a")
        await one.purge(["tag:a"])
        await store.close()
        store.path.rename(tmp_path / "aside")
        assert not await one.refresh()
        store = SqliteStore(tmp_path / "cache.sqlite", deadline_s=PATIENT_S)
        await store.start()
        assert await one.refresh()
        newcomer = Generations(SqliteRegister(store.path))
        await newcomer.refresh()
        assert newcomer.refuse(dead) is Reason.PURGED
        await store.close()


async def test_a_foreign_database_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable):
        await SqliteRegister(path).purge([ALL], None, 0)
    assert path.read_bytes() == before


async def test_the_kind_of_a_folded_name_is_no_reason_to_purge_it_anew(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "cache.sqlite", deadline_s=PATIENT_S)
    await store.start()
    register = SqliteRegister(store.path, most=4)
    replica = Generations(register)
    for n in range(12):
        await replica.purge([f"tag:{n}"])
        await replica.refresh()
    young = tagged(replica, "x")
    await replica.refresh()
    assert replica.refuse(young) is None
    assert (await register.read())[1][TAG].sequence > 0
    await store.close()
