"""Marks in a table of the SQLite file, for the processes that share it.

Each look opens the file that is there now: it may have been set aside or deleted meanwhile.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from gateway.core.purges import JITTER_BITS, MOST_NAMES, Mark, Marks, folded, following
from gateway.store.base import StoreUnavailable
from gateway.store.generations import News, Version
from gateway.store.sqlite_file import APPLICATION_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")

_BUSY_S = 5.0
"""A purge may wait so long for another process's write; looks don't wait for writes."""

_SEQUENCE, _INCARNATION = "#", "@"
_TABLE = """
CREATE TABLE IF NOT EXISTS purges
    (name TEXT NOT NULL PRIMARY KEY, sequence INTEGER NOT NULL, before REAL NOT NULL)
"""
_WRITE = """
INSERT INTO purges VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE
    SET sequence = max(sequence, excluded.sequence), before = max(before, excluded.before)
"""


class SqliteRegister:
    """The marks of one file."""

    shared = True

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, most: int = MOST_NAMES
    ) -> None:
        """In the file at `path`, which the store makes; `clock` gives seconds since the epoch."""
        self._path = path
        self._clock = clock
        self._most = most
        # SQLite's own waiting is unfair: of many at once some would never get their turn.
        self._writing = asyncio.Lock()

    async def look(self) -> Version:
        """Its version; (0, 0) where there is none."""
        return await self._use(_version)

    async def read(self) -> tuple[Version, dict[str, Mark]]:
        """All of it."""
        return await self._use(_read)

    async def purge(self, names: Sequence[str], before: float | None, above: int) -> int:
        """Mark the names; the sequence."""

        def work(database: sqlite3.Connection) -> int:
            version = _version(database)
            sequence = self._following(max(above, version.sequence))
            mark = Mark(sequence if before is None else 0, before or 0.0)
            self._write(database, dict.fromkeys(names, mark), sequence)
            return sequence

        return await self._use(work, writing=True)

    async def join(self, marks: Mapping[str, Mark], above: int) -> None:
        """Take over marks that it lacks."""

        def work(database: sqlite3.Connection) -> None:
            version, held = _read(database)
            known = Marks(self._most)
            known.join(held, version.sequence)
            new = {name: mark for name, mark in marks.items() if not known.covers(name, mark)}
            if new or version.sequence < above:
                sequence = self._following(max(above, version.sequence))
                self._write(database, new, sequence)

        await self._use(work, writing=True)

    @asynccontextmanager
    async def news(self) -> AsyncIterator[AsyncIterator[News | None]]:
        """Nothing: a file doesn't tell, the poll finds out."""

        async def nothing() -> AsyncIterator[News | None]:
            await asyncio.Event().wait()
            yield None

        yield nothing()

    def _following(self, sequence: int) -> int:
        return following(sequence, self._clock(), secrets.randbits(JITTER_BITS))

    def _write(
        self, database: sqlite3.Connection, marks: Mapping[str, Mark], sequence: int
    ) -> None:
        # The incarnation is drawn once, the sequence only rises.
        database.execute(
            "INSERT OR IGNORE INTO purges VALUES (?, ?, 0)", (_INCARNATION, secrets.randbits(62))
        )
        rows = [(name, mark.sequence, mark.before) for name, mark in marks.items()]
        database.executemany(_WRITE, [(_SEQUENCE, sequence, 0.0), *rows])
        (count,) = database.execute("SELECT count(*) FROM purges").fetchone()
        if count - 2 <= self._most:
            return
        held = _read(database)[1]
        kept = folded(held, self._most)
        database.executemany(
            "DELETE FROM purges WHERE name = ?", [(name,) for name in held if name not in kept]
        )
        database.executemany(_WRITE, [(name, *mark) for name, mark in kept.items()])

    async def _use(self, work: Callable[[sqlite3.Connection], T], *, writing: bool = False) -> T:
        if not writing:
            return await asyncio.to_thread(self._use_here, work, writing)
        async with self._writing:
            return await asyncio.to_thread(self._use_here, work, writing)

    def _use_here(self, work: Callable[[sqlite3.Connection], T], writing: bool) -> T:
        # `rw`: a file that is not there is the store's to make.
        where = f"file:{quote(str(self._path))}?mode=rw"
        try:
            with closing(
                sqlite3.connect(where, timeout=_BUSY_S, isolation_level=None, uri=True)
            ) as database:
                (application,) = database.execute("PRAGMA application_id").fetchone()
                if application != APPLICATION_ID:
                    raise StoreUnavailable(f"{self._path} is no cache of ours (yet)")
                # A read needs one state of several rows, a write what it read before.
                database.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
                if writing:
                    database.execute(_TABLE)
                try:
                    result = work(database)
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
                return result
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"{self._path}: {exc}") from exc


def _version(database: sqlite3.Connection) -> Version:
    return _read(database, "WHERE name IN ('#', '@')")[0]


def _read(database: sqlite3.Connection, where: str = "") -> tuple[Version, dict[str, Mark]]:
    try:
        rows = database.execute(f"SELECT name, sequence, before FROM purges {where}").fetchall()  # noqa: S608 - a constant
    except sqlite3.OperationalError as exc:
        if "no such table" not in str(exc):
            raise
        rows = []
    marks = {name: Mark(sequence, before) for name, sequence, before in rows}
    incarnation = marks.pop(_INCARNATION, Mark()).sequence
    return Version(incarnation, marks.pop(_SEQUENCE, Mark()).sequence), marks
