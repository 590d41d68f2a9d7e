from __future__ import annotations

import asyncio
import sqlite3
import stat
from contextlib import aclosing, closing
from typing import TYPE_CHECKING

import pytest

from gateway.store import journal_sqlite
from gateway.store.base import StoreUnavailable
from gateway.store.journal import Frame, NoJournal, packed
from gateway.store.journal_sqlite import SqliteJournal, beside
from gateway.store.journals import open_journal
from gateway.store.memory import MemoryStore
from gateway.store.sqlite import SqliteStore
from gateway.store.tiered import TieredStore

if TYPE_CHECKING:
    from pathlib import Path


def frame(number: int, size: int = 10) -> bytes:
    return packed(Frame(1, number, (bytes(size),)))


async def lying(journal: SqliteJournal) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(10), aclosing(journal.follow()) as portions:
        async for portion in portions:
            if not portion:
                break
            found += portion
    return found


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite-routes"
    frames = [frame(number) for number in range(200)]
    await SqliteJournal(path, "pool").write(frames[:100])
    await SqliteJournal(path, "other").write([frame(1000)])
    await SqliteJournal(path, "pool").write(frames[100:])
    assert await lying(SqliteJournal(path, "pool")) == frames
    assert await lying(SqliteJournal(path, "other")) == [frame(1000)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_latest_frames_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_sqlite, "_ROWS", 30)
    journal = SqliteJournal(tmp_path / "routes", "pool")
    for number in range(0, 100, 10):
        await journal.write([frame(n) for n in range(number, number + 10)])
    assert await lying(journal) == [frame(n) for n in range(70, 100)]


async def test_of_a_long_history_the_latest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SqliteJournal(tmp_path / "routes", "pool")
    frames = [frame(n, 1000) for n in range(200)]
    await journal.write(frames)
    monkeypatch.setattr(journal_sqlite, "HISTORY_BYTES", 50_000)
    assert await lying(journal) == frames[-48:]
    monkeypatch.setattr(journal_sqlite, "HISTORY_RECORDS", 20)
    assert await lying(journal) == frames[-20:]


async def test_the_file_stays_within_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "routes"
    gone = SqliteJournal(path, "gone", file_bytes=1 << 20)
    await gone.write([frame(n, 1000) for n in range(500)])
    journal = SqliteJournal(path, "pool", file_bytes=1 << 20)
    for number in range(0, 4000, 100):
        await journal.write([frame(n, 1000) for n in range(number, number + 100)])
    found = await lying(journal)
    assert found[-1] == frame(3999, 1000)
    assert 300 < len(found) < 1100
    # A pool that nobody has any more leaves room for the others.
    assert await lying(gone) == []
    assert path.stat().st_size < 2 << 20


@pytest.mark.parametrize("damage", ["no database", "a torn page"])
async def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "routes"
    journal = SqliteJournal(path, "pool")
    await journal.write([frame(n, 3000) for n in range(200)])
    if damage == "no database":
        path.write_bytes(b"something else " * 1000)
    else:
        whole = bytearray(path.read_bytes())
        whole[4096:] = b"\xff" * (len(whole) - 4096)
        path.write_bytes(whole)
    await journal.write([frame(1)])
    assert (await lying(journal))[-1] == frame(1)


async def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "routes"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (a)")
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="something else"):
        await SqliteJournal(path, "pool").write([frame(1)])
    assert path.read_bytes() == before


async def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    journal = SqliteJournal(tmp_path / "file" / "routes", "pool")
    with pytest.raises(StoreUnavailable):
        await journal.write([frame(1)])
    with pytest.raises(StoreUnavailable):
        await lying(journal)


async def test_pools_may_write_at_the_same_time(tmp_path: Path) -> None:
    journals = [SqliteJournal(tmp_path / "routes", f"pool {number}") for number in range(8)]
    await asyncio.gather(*(journal.write([frame(1)]) for journal in journals))
    assert [await lying(journal) for journal in journals] == [[frame(1)]] * 8


def test_the_journal_lies_beside_the_entries(tmp_path: Path) -> None:
    memory = MemoryStore(1000, lambda: 0.0)
    assert isinstance(open_journal(memory, "pool"), NoJournal)
    sqlite = SqliteStore(tmp_path / "cache.sqlite")
    journal = open_journal(TieredStore(memory, sqlite, lambda: 0.0), "pool")
    assert isinstance(journal, SqliteJournal)
    assert beside(sqlite.path) == tmp_path / "cache.sqlite-routes"
