"""What this gateway placed, in a small file beside the store's: known again after a restart.

Rule 1: losing it costs some prompts their warm replica, so it is never worth waiting for: no write is
forced to the disk, and a damaged file is deleted and begun anew.
Rule 2: a file of somebody else is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.store.journal import HISTORY_BYTES, HISTORY_RECORDS, records_in
from gateway.store.sqlite_beside import Form, SqliteBeside

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x57477250
FILE_BYTES = 32 << 20
_ROWS = 20_000
"""Frames of one pool that are kept."""

_BUSY_S = 0.5
_DROPPED_AT_ONCE = 256
_READ = 64

_TABLES = """
CREATE TABLE IF NOT EXISTS frames
    (id INTEGER PRIMARY KEY AUTOINCREMENT, pool TEXT NOT NULL, frame BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS frames_pool ON frames (pool, id);
"""
FORM = Form("-routes", APPLICATION_ID, 1, _TABLES, "OFF", _BUSY_S)

beside = FORM.path
"""The journal's file of a store's file."""


class SqliteJournal:
    """The frames of one pool, in a file that all pools share."""

    kind = "sqlite"
    shared = False
    lasting = True
    pace_s = 1.0

    def __init__(self, path: Path, pool: str, *, file_bytes: int = FILE_BYTES) -> None:
        """In the file at `path`, made where it is missing; at most about `file_bytes` of it."""
        self._path = path
        self._file = SqliteBeside(path, FORM, _begin_anew)
        self._pool = pool
        self._file_bytes = file_bytes

    def __repr__(self) -> str:
        return f"<SqliteJournal {self._pool} in {self._path}>"

    async def follow(self) -> AsyncGenerator[Sequence[bytes], None]:
        """See `Journal`; nothing is added but by us."""
        frames = await asyncio.to_thread(self._file.use, self._read)
        for place in range(0, len(frames), _READ):
            yield frames[place : place + _READ]
        del frames
        yield ()
        await asyncio.Event().wait()

    async def write(self, frames: Sequence[bytes]) -> None:
        """See `Journal`."""
        await asyncio.to_thread(self._file.use, lambda database: self._write(database, frames))

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


def _begin_anew(path: Path, problem: sqlite3.Error) -> None:
    logger.warning("%s is damaged (%s): it is begun anew", path, problem)
    path.unlink(missing_ok=True)
