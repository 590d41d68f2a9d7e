from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import stat
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from gateway.store import sqlite_file
from gateway.store.base import StoreUnavailable
from gateway.store.sqlite import SqliteStore
from gateway.store.sqlite_lookup import SqliteLookup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32
PATIENT_S = 10.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "warmgate" / "cache.sqlite"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(path: Path, clock: Clock) -> AsyncIterator[Callable[..., SqliteStore]]:
    """Makes stores over the same file and closes them in the end."""
    made: list[SqliteStore] = []

    def make(deadline_s: float = PATIENT_S, **settings: Any) -> SqliteStore:
        store = SqliteStore(path, clock=clock, deadline_s=deadline_s, **settings)
        made.append(store)
        return store

    yield make
    for store in made:
        await store.close()


class Obstacle:
    """Holds the store's threads between two pieces of work."""

    def __init__(self, store: SqliteStore) -> None:
        self._desks = (store._jobs, store._reader)
        self._reached = threading.Barrier(len(self._desks) + 1)
        self._go_on = threading.Event()

    async def __aenter__(self) -> None:
        def wait() -> None:
            self._reached.wait(PATIENT_S)
            self._go_on.wait(PATIENT_S)

        self._holding = [asyncio.create_task(desk.ask(wait, PATIENT_S)) for desk in self._desks]
        await asyncio.to_thread(self._reached.wait, PATIENT_S)

    async def __aexit__(self, *_: object) -> None:
        self._go_on.set()
        await asyncio.gather(*self._holding)


async def drained(store: SqliteStore) -> None:
    """Until everything accepted is in the file."""
    async with asyncio.timeout(PATIENT_S):
        while store._pending:
            await store._jobs.ask(lambda: None, PATIENT_S)


async def again(store: SqliteStore, key: bytes) -> bytes | None:
    """What is under the key, once the file can be asked again."""
    async with asyncio.timeout(PATIENT_S):
        while True:
            try:
                (found,) = await store.get([key])
            except StoreUnavailable:
                await asyncio.sleep(0.005)
            else:
                return found


def set_aside(path: Path) -> list[Path]:
    """The damaged files, the oldest first; without what lay beside them."""
    return sorted(
        p for p in path.parent.iterdir() if ".corrupt-" in p.name and p.name.endswith("Z")
    )


def contents(path: Path) -> dict[str, bytes]:
    """Every file in the folder."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def put_in_place(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def overwrite_all_but_the_ends(path: Path) -> None:
    """The header and the schema stay sound."""
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size_bytes - 8192))


def rows(path: Path) -> list[bytes]:
    with closing(sqlite3.connect(path)) as database:
        return [key for (key,) in database.execute("SELECT key FROM entries ORDER BY key")]


async def test_entries_outlive_the_process(make: Callable[..., SqliteStore]) -> None:
    store = make()
    await store.start()
    for key in (A, B, C):
        await store.put(key, key * 1000, 60)
    await store.close()
    again = make()
    await again.start()
    assert await again.get([A, B, C]) == [A * 1000, B * 1000, C * 1000]


async def test_the_file_is_for_its_owner_only(make: Callable[..., SqliteStore], path: Path) -> None:
    store = make()
    await store.start()
    await store.put(A, b"x", 60)
    await drained(store)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("cache.sqlite", "cache.sqlite-wal", "cache.sqlite-shm"), 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_get_sees_a_put_that_is_not_written_yet(make: Callable[..., SqliteStore]) -> None:
    store = make()
    await store.start()
    async with Obstacle(store):
        await store.put(A, b"first", 60)
        await store.put(A, b"second", 60)
        assert await store.get([A]) == [b"second"]


async def test_what_waits_to_be_written_expires_too(
    make: Callable[..., SqliteStore], clock: Clock
) -> None:
    store = make()
    await store.start()
    async with Obstacle(store):
        await store.put(A, b"x", 60)
        clock.now += 61
        assert await store.get([A]) == [None]
    await drained(store)
    assert await store.get([A]) == [None]


async def test_a_delete_also_forgets_what_is_not_written_yet(
    make: Callable[..., SqliteStore],
) -> None:
    store = make()
    await store.start()
    await store.put(A, b"written", 60)
    await drained(store)
    async with Obstacle(store):
        await store.put(A, b"newer", 60)
        await store.put(B, b"pending", 60)
        deleting = asyncio.create_task(store.delete([A, B, C]))
        await asyncio.sleep(0)  # it has begun, and waits for the thread
    assert await deleting == 2
    assert await store.get([A, B, C]) == [None, None, None]


async def test_a_put_is_refused_when_too_many_wait(make: Callable[..., SqliteStore]) -> None:
    store = make(pending_puts=2)
    await store.start()
    async with Obstacle(store):
        await store.put(A, b"1", 60)
        await store.put(B, b"2", 60)
        with pytest.raises(StoreUnavailable, match="too much"):
            await store.put(C, b"3", 60)
        await store.put(B, b"a replacement takes no room", 60)
    await drained(store)
    await store.put(C, b"3", 60)
    assert await store.get([A, B, C]) == [b"1", b"a replacement takes no room", b"3"]


async def test_a_put_is_refused_when_too_many_bytes_wait(
    make: Callable[..., SqliteStore],
) -> None:
    store = make(pending_bytes=1000)
    await store.start()
    async with Obstacle(store):
        await store.put(A, bytes(600), 60)
        with pytest.raises(StoreUnavailable, match="too much"):
            await store.put(B, bytes(401), 60)
        await store.put(B, bytes(400), 60)
    await drained(store)
    await store.put(C, bytes(1000), 60)
    await drained(store)
    assert store._size_bytes == 0


async def test_puts_that_wait_are_written_together(
    make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    await store.start()
    batches: list[int] = []
    write = sqlite_file.SqliteFile.write

    def counted(self: sqlite_file.SqliteFile, rows: list[tuple[bytes, float, bytes]]) -> None:
        batches.append(len(rows))
        write(self, rows)

    monkeypatch.setattr(sqlite_file.SqliteFile, "write", counted)
    async with Obstacle(store):
        for number in range(100):
            await store.put(number.to_bytes(32, "big"), bytes(1000), 60)
        await store.put(A, bytes(5 << 20), 60)
        await store.put(B, b"", 60)
    await drained(store)
    assert batches == [101, 1]


async def test_a_late_answer_reaches_nobody(make: Callable[..., SqliteStore]) -> None:
    store = make()
    await store.start()
    await store.put(A, b"of A", 60)
    await store.put(B, b"of B", 60)
    await drained(store)
    store._deadline_s = 0.02
    async with Obstacle(store):
        with pytest.raises(StoreUnavailable, match="within 20 ms"):
            await store.get([A])
    store._deadline_s = PATIENT_S
    assert await store.get([B]) == [b"of B"]


async def test_a_lookup_nobody_waits_for_is_not_done(
    make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    await store.start()
    read: list[bytes] = []

    def counted(_self: SqliteLookup, keys: list[bytes]) -> dict[bytes, bytes]:
        read.extend(keys)
        return {}

    monkeypatch.setattr(SqliteLookup, "read", counted)
    async with Obstacle(store):
        gone = asyncio.create_task(store.get([A]))
        stays = asyncio.create_task(store.get([B]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    assert await stays == [None]
    assert read == [B]


async def test_lookups_that_wait_for_the_thread_are_bounded(
    make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.desk.WAITING_JOBS", 2)
    store = make()
    await store.start()
    async with Obstacle(store):
        waiting = [asyncio.create_task(store.get([key])) for key in (A, B)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="too many"):
            await store.get([C])
    assert await asyncio.gather(*waiting) == [[None], [None]]


async def test_expired_rows_are_removed_in_small_batches(
    make: Callable[..., SqliteStore], clock: Clock, path: Path
) -> None:
    store = make(sweep_s=0.01)
    await store.start()
    for number in range(200):
        await store.put(number.to_bytes(32, "big"), b"x", 60)
    await store.put(A, b"stays", 1000)
    await drained(store)
    clock.now += 100
    async with asyncio.timeout(PATIENT_S):
        while rows(path) != [A]:  # noqa: ASYNC110 - the thread has no event for it
            await asyncio.sleep(0.005)
    assert await store.get([A]) == [b"stays"]


async def test_over_its_budget_it_removes_what_expires_first(
    make: Callable[..., SqliteStore], path: Path
) -> None:
    store = make(sweep_s=0.01, budget_bytes=4 << 20)
    await store.start()
    for number in range(100):
        await store.put(number.to_bytes(32, "big"), bytes(100_000), 1000 + number)
    await drained(store)
    async with asyncio.timeout(PATIENT_S):
        while len(kept := rows(path)) == 100:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)
    assert kept == [number.to_bytes(32, "big") for number in range(100)][-len(kept) :]
    assert 0 < len(kept) <= 42


@pytest.mark.parametrize("damage", [b"this is no database, but it is long enough" * 100, b"SQLite"])
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    make: Callable[..., SqliteStore], path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        put_in_place(path, damage)
        store = make()
        await store.start()
        await store.put(A, b"x", 60)
        assert await store.get([A]) == [b"x"]
        await store.close()
        assert len(aside := set_aside(path)) == number
        assert aside[-1].read_bytes() == damage
        (said,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
        assert str(aside[-1]) in said.getMessage()
        caplog.clear()


async def test_only_the_latest_damaged_files_are_kept(
    make: Callable[..., SqliteStore], path: Path, clock: Clock
) -> None:
    for number in range(5):
        put_in_place(path, b"no database %d " % number * 100)
        put_in_place(path.with_name(path.name + "-wal"), b"")
        clock.now += 60
        store = make()
        await store.start()
        await store.close()
    assert [p.name for p in set_aside(path)] == [
        f"cache.sqlite.corrupt-19700101T00{minute}40.000000Z" for minute in (19, 20, 21)
    ]
    assert [p.read_bytes()[:13] for p in set_aside(path)] == [
        b"no database %d" % n for n in (2, 3, 4)
    ]
    assert len(contents(path)) <= 7


async def test_a_file_that_another_process_replaced_is_not_set_aside(
    make: Callable[..., SqliteStore], path: Path
) -> None:
    store = make()
    await store.start()
    for number in range(100):
        await store.put(number.to_bytes(32, "big"), bytes(3000), 60)
    await store.close()
    overwrite_all_but_the_ends(path)
    one, other = make(), make()
    await one.start()
    await other.start()
    with pytest.raises(StoreUnavailable, match="malformed"):
        await one.get([A])
    assert await again(one, A) is None
    await one.put(A, b"x", 60)
    await drained(one)
    with pytest.raises(StoreUnavailable, match="replaced"):
        await other.get([A])
    assert await again(other, A) == b"x"
    assert len(set_aside(path)) == 1


async def test_damage_found_while_running_is_mended_while_running(
    make: Callable[..., SqliteStore], path: Path
) -> None:
    store = make()
    await store.start()
    for number in range(100):
        await store.put(number.to_bytes(32, "big"), bytes(3000), 60)
    await store.close()
    overwrite_all_but_the_ends(path)
    store = make()
    await store.start()
    with pytest.raises(StoreUnavailable, match="malformed"):
        await store.get([A])
    assert await again(store, A) is None
    await store.put(A, b"x", 60)
    await drained(store)
    assert rows(path) == [A]
    assert len(set_aside(path)) == 1


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("CREATE TABLE accounts (id)", "something else"),
        ("PRAGMA application_id = 7", "something else"),
        (
            f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}; PRAGMA user_version = 2",
            "newer version",
        ),
    ],
)
async def test_a_database_that_is_not_ours_is_not_touched(
    make: Callable[..., SqliteStore], path: Path, statement: str, says: str
) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(statement)
    before = contents(path)
    store = make()
    await store.start()
    with pytest.raises(StoreUnavailable, match=says):
        await store.put(A, b"x", 60)
    with pytest.raises(StoreUnavailable):
        await store.get([A])
    await store.close()
    assert contents(path) == before


async def test_a_folder_that_cannot_be_made_makes_it_unavailable_until_it_can(
    make: Callable[..., SqliteStore], path: Path
) -> None:
    blocking = path.parent.parent
    blocking.write_text("a file where a folder should be")
    store = make(retry_s=0.02)
    await store.start()
    with pytest.raises(StoreUnavailable):
        await store.put(A, b"x", 60)
    with pytest.raises(StoreUnavailable):
        await store.get([A])
    with pytest.raises(StoreUnavailable):
        await store.delete([A])
    blocking.unlink()
    async with asyncio.timeout(PATIENT_S):
        while not store._file.is_open:  # noqa: ASYNC110 - it tries again by its own clock
            await asyncio.sleep(0.005)
    await store.put(A, b"x", 60)
    assert await store.get([A]) == [b"x"]


async def test_while_another_process_writes_puts_wait_and_gets_answer(
    make: Callable[..., SqliteStore], path: Path
) -> None:
    store = make(retry_s=0.02)
    await store.start()
    await store.put(A, b"x", 60)
    await drained(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await store.put(B, b"y", 60)
        async with asyncio.timeout(PATIENT_S):
            while store._problem is None:  # noqa: ASYNC110 - the thread has no event for it
                await asyncio.sleep(0.005)
        assert await store.get([A, B]) == [b"x", b"y"]
        assert rows(path) == [A]
        other.execute("ROLLBACK")
    await drained(store)
    assert rows(path) == [A, B]


async def test_two_processes_share_one_file(make: Callable[..., SqliteStore]) -> None:
    one, other = make(retry_s=0.02), make(retry_s=0.02)
    await asyncio.gather(one.start(), other.start())
    await one.put(A, b"x", 60)
    await drained(one)
    assert await other.get([A]) == [b"x"]


async def test_many_that_make_the_file_together_all_have_it(tmp_path: Path) -> None:
    for number in range(20):
        stores = [SqliteStore(tmp_path / f"{number}.sqlite") for _ in range(4)]
        await asyncio.gather(*(store.start() for store in stores))
        assert all(store._file.is_open for store in stores), stores
        await asyncio.gather(*(store.close() for store in stores))


async def test_a_closed_store_is_unavailable(make: Callable[..., SqliteStore]) -> None:
    store = make()
    await store.start()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.get([A])
    with pytest.raises(StoreUnavailable):
        await store.put(A, b"x", 60)
    assert not store._thread.is_alive()
    assert not store._reader._thread.is_alive()


async def test_a_store_that_was_never_started_closes(make: Callable[..., SqliteStore]) -> None:
    await make().close()


# -- the file goes, changes, fills up or is held while it is in use ---------------------------


async def filled(make: Callable[..., SqliteStore], **settings: Any) -> SqliteStore:
    """A store that holds A in its file, and has read it once."""
    store = make(retry_s=0.02, **settings)
    await store.start()
    await store.put(A, b"x", 60)
    await drained(store)
    assert await store.get([A]) == [b"x"]
    return store


@pytest.mark.parametrize("whole_folder", [False, True])
async def test_a_file_deleted_while_it_is_open_is_made_anew(
    make: Callable[..., SqliteStore], path: Path, whole_folder: bool
) -> None:
    store = await filled(make)
    if whole_folder:
        shutil.rmtree(path.parent)
    else:
        path.unlink()  # noqa: ASYNC240 - it takes no time
    assert await again(store, A) is None
    await store.put(B, b"y", 60)
    await drained(store)
    assert rows(path) == [B]


async def test_what_was_accepted_before_the_file_was_deleted_is_written_to_the_new_one(
    make: Callable[..., SqliteStore], path: Path
) -> None:
    store = await filled(make)
    async with Obstacle(store):
        await store.put(B, b"y", 60)
        path.unlink()  # noqa: ASYNC240 - it takes no time
    await drained(store)
    assert rows(path) == [B]


async def test_a_file_put_in_its_place_is_used_if_it_is_ours_and_not_touched_if_not(
    make: Callable[..., SqliteStore], path: Path
) -> None:
    store = await filled(make)
    foreign = path.with_name("foreign")
    with closing(sqlite3.connect(foreign)) as database:
        database.execute("CREATE TABLE accounts (id)")
    before = foreign.read_bytes()
    foreign.rename(path)
    with pytest.raises(StoreUnavailable, match="replaced"):
        await store.get([A])
    async with asyncio.timeout(PATIENT_S):
        while "something else" not in repr(store):  # noqa: ASYNC110 - the thread has no event for it
            await asyncio.sleep(0.005)
    with pytest.raises(StoreUnavailable):
        await store.put(B, b"y", 60)
    assert contents(path)[path.name] == before
    ours = SqliteStore(path.with_name("ours"), clock=Clock())
    await ours.start()
    await ours.put(C, b"z", 60)
    await ours.close()
    ours.path.rename(path)
    assert await again(store, C) == b"z"


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000])
async def test_a_file_overwritten_while_it_is_open_gives_no_wrong_answer_and_is_mended(
    make: Callable[..., SqliteStore], path: Path, content: bytes
) -> None:
    store = await filled(make)
    keys = [number.to_bytes(32, "big") for number in range(200)]
    for key in keys:
        await store.put(key, key * 1000, 60)
    await drained(store)
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(content)
    right = lost = 0
    for key in keys:
        # SQLite still has what is in its log; the rest is lost.
        found = await again(store, key)
        assert found in {None, key * 1000}
        right += found is not None
        lost += found is None
    print(f"{right} right, {lost} lost")
    await store.close()
    store = make()
    await store.start()
    await store.put(B, b"y", 60)
    await drained(store)
    assert rows(path)[-1] == B


async def test_a_file_that_may_not_be_opened_is_left_alone_until_it_may(
    make: Callable[..., SqliteStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await filled(make)).close()
    before = contents(path)

    def refuse(*_: object, **__: object) -> sqlite3.Connection:
        # As SQLite says it for a file without permissions; tests may run as root, who has all.
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("gateway.store.sqlite_file.sqlite3.connect", refuse)
        store = make(retry_s=0.02)
        await store.start()
        with pytest.raises(StoreUnavailable):
            await store.get([A])
        assert contents(path) == before
    assert await again(store, A) == b"x"


async def test_over_its_budget_the_file_stops_growing_at_once(
    make: Callable[..., SqliteStore], path: Path
) -> None:
    store = make(budget_bytes=4 << 20, sweep_s=1000)
    await store.start()
    largest = 0
    for number in range(300):
        await store.put(number.to_bytes(32, "big"), bytes(100_000), 1000 + number)
        if number % 20 == 0:
            await drained(store)
            largest = max(largest, len(contents(path)[path.name]))
    await drained(store)
    assert largest <= (4 << 20) + (1 << 20)
    kept = rows(path)
    assert 10 <= len(kept) <= 42
    assert kept[-1] == (299).to_bytes(32, "big")


async def test_a_lower_budget_is_reached_by_sweeping(
    make: Callable[..., SqliteStore], path: Path
) -> None:
    store = make()
    await store.start()
    for number in range(300):
        await store.put(number.to_bytes(32, "big"), bytes(50_000), 1000 + number)
    await store.close()
    store = make(budget_bytes=1 << 20, sweep_s=0.01)
    await store.start()
    async with asyncio.timeout(PATIENT_S):
        while len(rows(path)) > 20:  # noqa: ASYNC110 - the thread has no event for it
            await asyncio.sleep(0.005)
    await store.put(A, b"x", 10_000)
    await drained(store)
    assert A in rows(path)


async def test_a_lookup_does_not_wait_for_a_write(make: Callable[..., SqliteStore]) -> None:
    store = await filled(make)
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        go_on.wait(PATIENT_S)

    writing = asyncio.create_task(store._jobs.ask(wait, PATIENT_S))
    await asyncio.to_thread(reached.wait, PATIENT_S)
    assert await store.get([A, B]) == [b"x", None]
    go_on.set()
    await writing


async def test_while_another_process_locks_the_file_lookups_fail_fast_and_then_resume(
    make: Callable[..., SqliteStore], path: Path
) -> None:
    store = await filled(make, deadline_s=0.05)
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("COMMIT")
        store = make(retry_s=0.02, deadline_s=0.05)
        began = time.perf_counter()
        starting = asyncio.create_task(store.start())
        took: list[float] = []
        for _ in range(200):
            began = time.perf_counter()
            with pytest.raises(StoreUnavailable):
                await store.get([A])
            took.append(time.perf_counter() - began)
        print(f"slowest {max(took) * 1000:.1f} ms, of 200 {sum(took) * 1000:.0f} ms")
        assert max(took) < 0.2
    await starting
    assert await again(store, A) == b"x"


async def test_a_file_that_became_read_only_is_opened_again_when_it_is_not(
    make: Callable[..., SqliteStore],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = await filled(make)
    tried = threading.Semaphore(0)

    def refuse(*_: object) -> bool:
        tried.release()
        return False

    def only_read() -> None:
        assert store._file._database is not None
        store._file._database.execute("PRAGMA query_only = ON")

    with monkeypatch.context() as patch:
        # Tests may run as root, whom no permission stops.
        patch.setattr("gateway.store.sqlite_file.os.access", refuse)
        await store._jobs.ask(only_read, PATIENT_S)
        await store.put(B, b"y", 60)
        for _ in range(5):
            assert await asyncio.to_thread(tried.acquire, timeout=PATIENT_S)
        with pytest.raises(StoreUnavailable):
            await store.put(C, b"z", 60)
    assert await again(store, A) == b"x"
    await drained(store)
    assert rows(path) == [A, B]
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 2
    assert "readonly" in said[0]
    assert "works again" in said[1]
