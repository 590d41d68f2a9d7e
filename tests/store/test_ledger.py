"""What holds for the ledger wherever it is kept, and what for each place alone."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import sqlite3
import stat
import threading
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.days import day_of
from gateway.core.ledger import OTHER, Amounts, Line, fold, folded
from gateway.core.savings import KEYS, summary
from gateway.store import ledger as ledger_memory
from gateway.store import ledger_redis, ledger_sqlite
from gateway.store.base import StoreUnavailable
from gateway.store.ledger import Batch, Kept, LedgerStore, MemoryLedger, Spoiled, open_ledger
from gateway.store.ledger_redis import RedisLedger
from gateway.store.ledger_sqlite import SqliteLedger, beside
from gateway.store.memory import MemoryStore
from gateway.store.redis import RedisStore
from gateway.store.sqlite import SqliteStore
from gateway.store.tiered import TieredStore
from tests.helpers.redis_topologies import cluster, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence

    from tests.helpers.redis_servers import RedisServer

PATIENT_S = 20.0
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "redis.md"
DAY = "2026-11-22"
HUGE = 9_007_199_254_740_993
"""2^53 + 1: what floating-point numbers can't tell from its neighbour."""


def line(model: str = "gpt-4o", scope: str = "1a2b3c4d", day: str = DAY) -> Line:
    return Line(day, "openai", model, scope, "request")


def batch(number: int, *lines: Line, writer: str = "w", amounts: Amounts | None = None) -> Batch:
    one = amounts or Amounts(1, uncached=7, paid_pd=HUGE)
    return Batch(writer, number, dict.fromkeys(lines or (line(),), one))


def set_aside(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if ".corrupt-" in each.name]


@asynccontextmanager
async def redis_ledger(server: RedisServer, **more: int) -> AsyncIterator[RedisLedger]:
    store = RedisStore(server.url, deadline_s=PATIENT_S)
    ledger = RedisLedger(store, **more)
    try:
        yield ledger
    finally:
        await ledger.close()
        await store.close()


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LedgerStore]:
    if request.param == "memory":
        yield MemoryLedger()
    elif request.param == "sqlite":
        yield SqliteLedger(tmp_path / "cache.sqlite-ledger")
    else:
        from tests.helpers.redis_servers import RedisServer, binary  # noqa: PLC0415 - for one kind

        executable = binary("valkey")
        assert executable is not None
        server = RedisServer(executable)
        await asyncio.to_thread(server.start)
        try:
            async with redis_ledger(server) as opened:
                yield opened
        finally:
            await asyncio.to_thread(server.close)


async def test_sums_are_exact_whoever_adds(ledger: LedgerStore) -> None:
    await ledger.add(batch(1, line(), line("other")))
    await ledger.add(batch(2))
    await ledger.add(batch(1, writer="somebody else"))

    kept = await ledger.read(DAY, DAY)

    assert dict(kept.rows) == {
        line(): Amounts(3, uncached=21, paid_pd=3 * HUGE),
        line("other"): Amounts(1, uncached=7, paid_pd=HUGE),
    }
    assert kept.missing == []


async def test_what_is_sent_again_is_counted_once(ledger: LedgerStore) -> None:
    for number in (1, 1, 2, 2, 1):
        await ledger.add(batch(number))

    (row,) = (await ledger.read(DAY, DAY)).rows
    assert row[1].times == 2


async def test_only_the_days_asked_for_are_read_and_old_ones_go(ledger: LedgerStore) -> None:
    days = ["2026-10-31", "2026-11-01", "2026-11-21", DAY]
    await ledger.add(batch(1, *(line(day=day) for day in days)))

    async def there(since: str, until: str) -> list[str]:
        return sorted(each.day for each, _ in (await ledger.read(since, until)).rows)

    assert await there("2026-11-01", "2026-11-21") == days[1:3]
    await ledger.forget("2026-11-21")
    assert await there("2026-01-01", "2026-12-31") == days[2:]
    assert await there("2026-12-01", "2026-11-01") == []


async def test_what_names_hold_comes_back_as_it_was(ledger: LedgerStore) -> None:
    odd = line("mødel: {x} |\\ 'y'", scope="")
    await ledger.add(batch(1, odd))

    assert [each for each, _ in (await ledger.read(DAY, DAY)).rows] == [odd]


async def test_many_writers_at_once_lose_nothing(ledger: LedgerStore) -> None:
    async def write(writer: int) -> None:
        for number in range(1, 6):
            await ledger.add(batch(number, writer=str(writer)))

    await asyncio.gather(*map(write, range(8)))

    (row,) = (await ledger.read(DAY, DAY)).rows
    assert row[1] == Amounts(40, uncached=280, paid_pd=40 * HUGE)


async def test_sums_are_those_of_the_lines_that_are_read(ledger: LedgerStore) -> None:
    dice = random.Random(5)
    days = ["2026-11-20", "2026-11-21", DAY]
    for number in range(1, 4):
        cells = {
            Line(
                dice.choice(days),
                dice.choice(("openai", "anthropic")),
                dice.choice(("a", "b", "ß")),
                dice.choice(("", "1a2b3c4d")),
                dice.choice(("request", "ours", "of a later version")),
            ): Amounts(*(dice.choice((0, 1, 2**31, -(2**33), HUGE)) for _ in Amounts._fields))
            for _ in range(60)
        }
        await ledger.add(Batch("w", number, cells))
    for since in days:
        lines = (await ledger.read(since, DAY)).rows
        for by in ([], ["day"], ["model"], ["scope", "provider"], ["cause"], list(KEYS)):
            kept = await ledger.sums(since, DAY, by)

            assert dict(kept.rows) == dict(folded(lines, by))
            assert len(kept.rows) == len(dict(kept.rows))
            assert summary(kept.rows, by) == summary(lines, by)
            assert kept.missing == []
    assert await ledger.sums(DAY, "2026-11-20", []) == Kept([], [])


async def test_sums_beyond_what_the_store_can_count_are_exact(ledger: LedgerStore) -> None:
    much = Amounts(1, paid_pd=2**63 - 1, premium_pd=-(2**63))
    await ledger.add(batch(1, *(line(f"m{n}") for n in range(5)), amounts=much))

    ((_, sums),) = (await ledger.sums(DAY, DAY, [])).rows
    assert sums == Amounts(5, paid_pd=5 * (2**63 - 1), premium_pd=-5 * 2**63)


async def test_looking_at_sums_never_has_the_lines_on_the_loop(
    ledger: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not more of them at once than nobody feels."""
    here = threading.get_ident()
    most = 0

    def seen(
        sums: dict[Line, Amounts], rows: Iterable[tuple[Line, Amounts]], by: Collection[str]
    ) -> None:
        nonlocal most
        told = list(rows)
        if threading.get_ident() == here:
            most = max(most, len(told))
        fold(sums, told, by)

    def whole(row: Sequence[Any]) -> tuple[Line, Amounts]:
        assert threading.get_ident() != here
        return real(row)

    real = ledger_sqlite._whole
    monkeypatch.setattr(ledger_sqlite, "_whole", whole)
    for store in (ledger_redis, ledger_memory):
        monkeypatch.setattr(store, "fold", seen)
    # (Lines that are made for the loop would be found by this.)
    monkeypatch.setattr(ledger_redis, "_rows", on_no_loop(ledger_redis._rows, here))
    for number in range(1, 11):
        lines = [line(f"m{n}", scope=f"{number:08x}") for n in range(100)]
        await ledger.add(batch(number, *lines))

    assert len((await ledger.sums(DAY, DAY, ["day"])).rows) == 1
    assert most <= 200


def on_no_loop(work: Callable[..., Any], loop: int) -> Callable[..., Any]:
    def checked(*args: Any) -> Any:
        assert threading.get_ident() != loop
        return work(*args)

    return checked


# --- SQLite ---------------------------------------------------------------------------------------


async def test_the_file_lies_beside_the_stores_and_is_nobody_elses(tmp_path: Path) -> None:
    path = beside(tmp_path / "cache.sqlite")
    await SqliteLedger(path).add(batch(1))

    assert path.name == "cache.sqlite-ledger"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (row,) = (await SqliteLedger(path).read(DAY, DAY)).rows
    assert row[1].paid_pd == HUGE


async def test_a_damaged_file_is_set_aside_and_a_foreign_one_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x-ledger"
    path.write_bytes(b"SQLite format 3\0" + b"garbage" * 2000)
    await SqliteLedger(path).add(batch(1))
    assert len(set_aside(tmp_path)) == 1
    assert len((await SqliteLedger(path).read(DAY, DAY)).rows) == 1

    foreign = tmp_path / "y-ledger"
    with closing(sqlite3.connect(foreign)) as database:
        database.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreUnavailable, match="something else"):
        await SqliteLedger(foreign).add(batch(1))


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def read_and_summed(path: Path) -> list[Kept]:
    ledger = SqliteLedger(path)
    return [await ledger.read(DAY, DAY), await ledger.sums(DAY, DAY, ["day"])]


async def test_who_reads_makes_no_file_and_no_folder(tmp_path: Path) -> None:
    assert await read_and_summed(tmp_path / "nowhere" / "x-ledger") == [Kept([], [])] * 2
    assert names(tmp_path) == []


async def test_who_reads_writes_nothing_into_a_file_that_is_empty_still(tmp_path: Path) -> None:
    path = tmp_path / "x?#%41-ledger"
    path.touch()

    assert await read_and_summed(path) == [Kept([], [])] * 2
    assert path.read_bytes() == b""
    assert names(tmp_path) == [path.name]

    await SqliteLedger(path).add(batch(1))
    assert [len(kept.rows) for kept in await read_and_summed(path)] == [1, 1]


async def test_what_a_crash_left_half_written_is_left_to_who_writes(tmp_path: Path) -> None:
    path, crashed = tmp_path / "x-ledger", tmp_path / "crashed"
    await SqliteLedger(path).add(batch(1))
    crashed.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        # (So that what it writes is in the files at once.)
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN IMMEDIATE")
        database.execute("DELETE FROM lines")
        left = ["x-ledger", "x-ledger-journal"]
        for name in left:
            shutil.copy(tmp_path / name, crashed)
        database.execute("ROLLBACK")

    with pytest.raises(StoreUnavailable, match="broke off"):
        await read_and_summed(crashed / "x-ledger")
    assert names(crashed) == left

    await SqliteLedger(crashed / "x-ledger").add(batch(2))
    (kept, _) = await read_and_summed(crashed / "x-ledger")
    assert [amounts.times for _, amounts in kept.rows] == [2]


async def test_who_reads_a_damaged_file_leaves_it_where_it_is_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x-ledger"
    damaged = b"SQLite format 3\0" + b"garbage" * 2000
    path.write_bytes(damaged)
    ledger = SqliteLedger(path)

    with pytest.raises(StoreUnavailable, match=r"is damaged .* sets it aside"):
        await ledger.read(DAY, DAY)
    with pytest.raises(StoreUnavailable, match=r"is damaged .* sets it aside"):
        await ledger.sums(DAY, DAY, ["day"])
    assert names(tmp_path) == ["x-ledger"]
    assert path.read_bytes() == damaged


async def test_what_was_set_aside_is_told_for_days_that_it_may_have(tmp_path: Path) -> None:
    path = tmp_path / "x[1]-ledger"
    # (At noon of the day before `DAY`; the others are nothing of ours.)
    for name in (f"{path.name}.corrupt-1795262400", f"{path.name}.corrupt-old", "y.corrupt-1"):
        (tmp_path / name).touch()
    ledger = SqliteLedger(path)
    lost = ["what x[1]-ledger.corrupt-1795262400 has of days up to 2026-11-21 (damaged, set aside)"]

    assert await ledger.read("2026-11-01", DAY) == Kept([], lost)
    await ledger.add(batch(1))
    assert (await ledger.read("2026-11-21", DAY)).missing == lost
    assert (await ledger.sums("2026-11-01", "2026-11-02", ["day"])).missing == lost
    assert (await ledger.read(DAY, DAY)).missing == []


async def test_lines_beyond_the_most_are_folded_in_a_file(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "x", most_lines=3)
    await ledger.add(batch(1, *(line(f"m{n}") for n in range(6))))
    await ledger.add(batch(2, line("m0"), line("m9")))

    rows = dict((await ledger.read(DAY, DAY)).rows)
    assert rows[line("m0")].times == 2
    assert rows[line(OTHER, OTHER)].times == 4
    assert len(rows) == 4


# --- Redis ----------------------------------------------------------------------------------------


async def test_lines_beyond_the_most_are_folded_in_redis(redis_server: RedisServer) -> None:
    async with redis_ledger(redis_server, most_fields=9) as ledger:
        await ledger.add(batch(1, *(line(f"m{n}") for n in range(6))))
        await ledger.add(batch(2, line("m0"), line("m9")))

        rows = dict((await ledger.read(DAY, DAY)).rows)
    assert rows[line("m0")].times == 2
    assert sum(each.times for each in rows.values()) == 8
    assert len(rows) == 4


async def test_a_day_that_redis_gave_up_is_told_and_not_taken_for_nothing(
    redis_server: RedisServer,
) -> None:
    async with redis_ledger(redis_server) as ledger:
        await ledger.add(batch(1, line(), line(day="2026-11-21")))
        await asyncio.to_thread(told, redis_server, "DEL", "warmgate:{ledger}:2026-11-21")

        kept = await ledger.read("2026-11-01", DAY)

    assert (len(kept.rows), kept.missing) == (1, ["2026-11-21"])


async def test_a_day_that_goes_while_it_is_summed_is_told_and_not_taken_for_less(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with redis_ledger(redis_server) as ledger:
        for number in range(1, 11):
            lines = [line(f"m{n}", scope=f"{number:08x}") for n in range(100)]
            await ledger.add(batch(number, *lines, line(day="2026-11-21")))
        real = ledger._ask
        portions = 0

        async def ask(commands: list[Any], deadline_s: float) -> list[Any]:
            nonlocal portions
            replies = await real(commands, deadline_s)
            if commands[-1][:2] == ("HSCAN", f"warmgate:{{ledger}}:{DAY}"):
                portions += 1
                if portions == 1:
                    key = f"warmgate:{{ledger}}:{DAY}"
                    await asyncio.to_thread(told, redis_server, "DEL", key)
            return replies

        monkeypatch.setattr(ledger, "_ask", ask)
        with pytest.raises(StoreUnavailable, match="while it was read"):
            await ledger.sums("2026-11-01", DAY, ["day"])
        kept = await ledger.sums("2026-11-01", DAY, ["day"])

    assert portions > 1
    assert [(each.day, sums.times) for each, sums in kept.rows] == [("2026-11-21", 10)]
    assert kept.missing == [DAY]


async def test_a_redis_without_room_counts_all_of_a_batch_or_nothing(
    redis_server: RedisServer,
) -> None:
    async with redis_ledger(redis_server) as ledger:
        await asyncio.to_thread(told, redis_server, "CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable):
            await ledger.add(batch(1))
        await asyncio.to_thread(told, redis_server, "CONFIG", "SET", "maxmemory", "0")
        assert (await ledger.read(DAY, DAY)).rows == []
        await ledger.add(batch(1))
        assert len((await ledger.read(DAY, DAY)).rows) == 1


async def test_who_may_not_add_has_counted_nothing(redis_server: RedisServer) -> None:
    async with redis_ledger(redis_server) as ledger:
        deny = ("ACL", "SETUSER", "default", "-hincrby")
        await asyncio.to_thread(told, redis_server, *deny)
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as refused:
                await ledger.add(batch(1))
            assert not isinstance(refused.value, Spoiled)
        await asyncio.to_thread(told, redis_server, "ACL", "SETUSER", "default", "+hincrby")
        await ledger.add(batch(1))
        await ledger.add(batch(1))
        (row,) = (await ledger.read(DAY, DAY)).rows
    assert row[1].times == 1


async def test_the_rights_that_are_documented_are_enough(redis_server: RedisServer) -> None:
    (rights,) = re.findall(r"```text\n(ACL SETUSER .*?)```", PAGE.read_text(), re.DOTALL)
    _, _, user, *words = rights.split()
    await asyncio.to_thread(told, redis_server, "ACL", "SETUSER", user, *words)
    port = redis_server.port
    store = RedisStore(f"redis://{user}:password@127.0.0.1:{port}/0", deadline_s=PATIENT_S)
    ledger = RedisLedger(store, most_fields=1)
    await ledger.add(batch(1, line(), line(day="2026-11-21")))
    await ledger.forget(DAY)

    assert len((await ledger.read("2026-11-01", DAY)).rows) == 1
    await ledger.close()
    await store.close()


async def test_somebody_elses_values_spoil_what_they_stand_for_and_no_more(
    redis_server: RedisServer,
) -> None:
    async with redis_ledger(redis_server) as ledger:
        key = "warmgate:{ledger}:" + DAY
        field = "openai\x1fbad\x1f1a2b3c4d\x1frequest\x1fpaid_pd"
        await asyncio.to_thread(told, redis_server, "HSET", key, field, "no number")
        with pytest.raises(Spoiled):
            await ledger.add(batch(1, line(), line("bad")))
        await ledger.add(batch(1, line(), line("bad")))
        rows = dict((await ledger.read(DAY, DAY)).rows)
        assert rows[line()] == Amounts(1, uncached=7, paid_pd=HUGE)

        await asyncio.to_thread(told, redis_server, "DEL", key)
        await asyncio.to_thread(told, redis_server, "SET", key, "theirs")
        with pytest.raises(StoreUnavailable, match="is no hash"):
            await ledger.add(batch(2))


async def test_nothing_lapses_but_the_numbers_of_writers(redis_server: RedisServer) -> None:
    async with redis_ledger(redis_server) as ledger:
        await ledger.add(batch(1))
    lives = {
        name.decode().removeprefix("warmgate:{ledger}:"): told(redis_server, "TTL", name)
        for name in told(redis_server, "KEYS", "*ledger*")
    }

    assert lives.pop("by:w") > 86_400
    assert lives == {DAY: -1, "days": -1}


async def test_whoever_shares_a_redis_goes_by_its_day(redis_server: RedisServer) -> None:
    async with redis_ledger(redis_server) as ledger:
        before = day_of(time.time())
        assert before <= await ledger.today() <= day_of(time.time() + 60)


@pytest.mark.slow
@pytest.mark.redis
async def test_in_a_cluster_all_of_it_is_one_slot() -> None:
    manager = cluster()
    group = await asyncio.to_thread(manager.__enter__)
    try:
        store = RedisStore(group.url, deadline_s=PATIENT_S)
        ledger = RedisLedger(store)
        days = [f"2026-11-{day:02d}" for day in range(1, 29)]
        await ledger.add(batch(1, *(line(day=day) for day in days)))
        await ledger.add(batch(1, *(line(day=day) for day in days)))
        kept = await ledger.read(days[0], days[-1])
        assert [amounts.times for _, amounts in kept.rows] == [1] * 28
        await ledger.forget("2026-11-15")
        assert len((await ledger.read(days[0], days[-1])).rows) == 14
        await ledger.close()
        await store.close()
    finally:
        await asyncio.to_thread(group.close)


# --- which ----------------------------------------------------------------------------------------


def test_the_ledger_lies_where_the_entries_lie(tmp_path: Path) -> None:
    memory = MemoryStore(1000, lambda: 0.0)
    sqlite = SqliteStore(tmp_path / "c", deadline_s=1, clock=lambda: 0.0, budget_bytes=1 << 20)
    redis = RedisStore("redis://127.0.0.1:1/0")

    assert open_ledger(memory).kind == "memory"
    assert open_ledger(TieredStore(memory, sqlite, lambda: 0.0)).kind == "sqlite"
    assert open_ledger(TieredStore(memory, redis, lambda: 0.0)).kind == "redis"
    assert repr(open_ledger(redis)) == "<RedisLedger warmgate:{ledger}:*>"
    assert ledger_redis.RedisLedger.lasting
