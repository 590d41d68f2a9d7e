"""What this gateway placed, in a small file beside the store's: known again after a restart.

Rule 1: losing it costs some prompts their warm replica, so it is never worth waiting for: no write is
forced to the disk, and a damaged file is deleted and begun anew.
Rule 2: a file of somebody else is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, TypeVar

from gateway.store.base import StoreUnavailable
from gateway.store.journal import HISTORY_BYTES, HISTORY_RECORDS, records_in
from gateway.store.sqlite_file import is_damage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

T = TypeVar("T")

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x57477250
_VERSION = 1
FILE_BYTES = 32 << 20
_ROWS = 20_000
"""Frames of one pool that are kept."""

_BUSY_S = 0.5
_DROPPED_AT_ONCE = 256
_READ = 64

_SCHEMA = f"""
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS frames
    (id INTEGER PRIMARY KEY AUTOINCREMENT, pool TEXT NOT NULL, frame BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS frames_pool ON frames (pool, id);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""


def beside(store: Path) -> Path:
    """The journal's file of a store's file."""
    return store.with_name(store.name + "-routes")


class SqliteJournal:
    """The frames of one pool, in a file that all pools share."""

    kind = "sqlite"
    shared = False
    lasting = True
    pace_s = 1.0

    def __init__(self, path: Path, pool: str, *, file_bytes: int = FILE_BYTES) -> None:
        """In the file at `path`, made where it is missing; at most about `file_bytes` of it."""
        self._path = path
        self._pool = pool
        self._file_bytes = file_bytes

    def __repr__(self) -> str:
        return f"<SqliteJournal {self._pool} in {self._path}>"

    async def follow(self) -> AsyncGenerator[Sequence[bytes], None]:
        """See `Journal`; nothing is added but by us."""
        frames = await asyncio.to_thread(self._use, self._read)
        for place in range(0, len(frames), _READ):
            yield frames[place : place + _READ]
        del frames
        yield ()
        await asyncio.Event().wait()

    async def write(self, frames: Sequence[bytes]) -> None:
        """See `Journal`."""
        await asyncio.to_thread(self._use, lambda database: self._write(database, frames))

    async def close(self) -> None:
        """Nothing stays open between two writes."""

    # What follows runs in a thread.

    def _read(self, database: sqlite3.Connection) -> list[bytes]:
        rows = database.execute(
            "SELECT frame FROM frames WHERE pool = ? ORDER BY id DESC LIMIT ?", (self._pool, _ROWS)
        )
        found: list[bytes] = []
        size = records = 0
        for (frame,) in rows:
            # Any type may lie in a column.
            if not isinstance(frame, bytes):
                continue
            size += len(frame)
            records += records_in(frame)
            if size > HISTORY_BYTES or records > HISTORY_RECORDS:
                break
            found.append(frame)
        return found[::-1]

    def _write(self, database: sqlite3.Connection, frames: Sequence[bytes]) -> None:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(
            "INSERT INTO frames (pool, frame) VALUES (?, ?)",
            [(self._pool, frame) for frame in frames],
        )
        database.execute(
            "DELETE FROM frames WHERE pool = ?1 AND id <= (SELECT id FROM frames WHERE pool = ?1 "
            "ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            (self._pool, _ROWS),
        )
        while self._size_bytes(database) > self._file_bytes:
            # The oldest of all pools: one that is no longer there goes that way too.
            removed = database.execute(
                "DELETE FROM frames WHERE id IN (SELECT id FROM frames ORDER BY id LIMIT ?)",
                (_DROPPED_AT_ONCE,),
            )
            if not removed.rowcount:
                break
        database.execute("COMMIT")

    def _size_bytes(self, database: sqlite3.Connection) -> int:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        (free,) = database.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * page_bytes)

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                return self._try(work)
            except sqlite3.DatabaseError as exc:
                if not is_damage(exc):
                    raise
                logger.warning("%s is damaged (%s): it is begun anew", self._path, exc)
                for each in (self._path, self._path.with_name(self._path.name + "-journal")):
                    with suppress(FileNotFoundError):
                        each.unlink()
                return self._try(work)
        except (OSError, sqlite3.Error) as exc:
            raise StoreUnavailable(f"{self._path}: {exc}") from exc

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(
            sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        ) as database:
            # In one transaction: another pool may be making the tables.
            database.execute("BEGIN")
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            database.execute("COMMIT")
            if (application, version) != (APPLICATION_ID, _VERSION):
                if application or version or tables:
                    raise StoreUnavailable(f"{self._path} is a database of something else")
                database.executescript(_SCHEMA)
            database.execute("PRAGMA synchronous = OFF")
            return work(database)
