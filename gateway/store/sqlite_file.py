"""The SQLite file: opened, written, swept, set aside when damaged. Blocking; for one thread.

Rule 1: a file that is not ours is never written to, and only moved when it is no database at all.
Rule 2: what SQLite calls corrupt is moved to `<file>.corrupt-<n>`, and a new file begun.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from gateway.store.base import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x57476174
"""Says in the file's header that it is a cache of ours."""

SCHEMA_VERSION = 1

_SCHEMA = f"""
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS entries
    (key BLOB NOT NULL PRIMARY KEY, expires_at REAL NOT NULL, blob BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS entries_expires_at ON entries (expires_at);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

_OPEN_BUSY_S = 1.0
_OPEN_PAUSE_S = 0.02
_BUSY_MS = 20
"""How long to wait for another process's write; the writer tries again later, readers never wait."""

_SWEEP_ROWS = 64


class SqliteFile:
    """Raises `StoreUnavailable`, nothing else, and recovers by itself where it can."""

    def __init__(self, path: Path, clock: Callable[[], float], *, budget_bytes: int) -> None:
        """Keep at most about `budget_bytes` in `path`; `clock` gives seconds since the epoch."""
        self.path = path
        self._clock = clock
        self._budget_bytes = budget_bytes
        self._database: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    @property
    def is_open(self) -> bool:
        """It can be asked."""
        return self._database is not None

    def open(self) -> None:
        """Open the file, making it (0600) and its folder (0700) where they are missing."""
        try:
            try:
                self._database = self._open_patiently()
            except (PermissionError, sqlite3.Error) as exc:
                if not _is_damage(exc) or not self.path.is_file():
                    raise
                self._set_aside(exc)
                self._database = self._open_patiently()
        except (OSError, sqlite3.Error) as exc:
            raise StoreUnavailable(f"{self.path} can't be used: {exc}") from exc

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The blobs that are there and have not expired."""
        marks = ",".join("?" * len(keys))
        with self._use() as database:
            rows = database.execute(
                f"SELECT key, blob FROM entries WHERE key IN ({marks}) AND expires_at > ?",  # noqa: S608 - only question marks
                (*keys, self._clock()),
            )
            return dict(rows.fetchall())

    def write(self, rows: Iterable[tuple[bytes, float, bytes]]) -> None:
        """Keep rows of key, expiry and blob: all of them or none."""
        with self._use() as database, _transaction(database):
            database.executemany(
                "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET expires_at = excluded.expires_at, blob = excluded.blob",
                rows,
            )

    def delete(self, keys: Sequence[bytes]) -> set[bytes]:
        """Forget the keys; those that existed."""
        where = f"FROM entries WHERE key IN ({','.join('?' * len(keys))})"
        with self._use() as database, _transaction(database):
            found = database.execute(f"SELECT key {where}", keys).fetchall()
            database.execute(f"DELETE {where}", keys)
        return {key for (key,) in found}

    def sweep(self) -> bool:
        """Remove a few rows that expired, or that expire first where the budget is exceeded.

        True when there may be more to remove.
        """
        with self._use() as database:
            full = self._size_bytes(database) > self._budget_bytes
            with _transaction(database):
                removed = database.execute(
                    "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries "
                    "WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
                    (math.inf if full else self._clock(), _SWEEP_ROWS),
                ).rowcount
        return removed == _SWEEP_ROWS

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()

    def _open_patiently(self) -> sqlite3.Connection:
        """Two processes that make the file at the same time: SQLite doesn't wait for the other
        where that might be a deadlock (switching to WAL), whatever the busy timeout says.
        """
        give_up = time.monotonic() + _OPEN_BUSY_S
        while True:
            try:
                return self._open()
            except sqlite3.OperationalError as exc:
                if not _is_busy(exc) or time.monotonic() >= give_up:
                    raise
                time.sleep(_OPEN_PAUSE_S)

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives the log files beside it the mode of the file itself.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(self.path, timeout=_OPEN_BUSY_S, isolation_level=None)
        try:
            is_new = self._look(database)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            if is_new:
                database.executescript(_SCHEMA)
            database.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            self._opened = _identity(self.path)
        except BaseException:
            database.close()
            raise
        return database

    def _look(self, database: sqlite3.Connection) -> bool:
        """True for an empty file, False for one of ours. Raises for any other; writes nothing."""
        # In one transaction: another process may be making the file between two of these.
        database.execute("BEGIN")
        try:
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
        finally:
            database.execute("ROLLBACK")
        if application != APPLICATION_ID:
            if application or version or tables:
                raise StoreUnavailable(f"{self.path} is a database of something else")
            return True
        if version != SCHEMA_VERSION:
            # 1 is the first, so this is a newer Warmgate's, and it may be running.
            raise StoreUnavailable(f"{self.path} was made by a newer version ({version})")
        return False

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        if self._database is None:
            raise StoreUnavailable(f"{self.path} is not open")
        try:
            yield self._database
        except sqlite3.Error as exc:
            if _is_damage(exc):
                self._give_up(exc)
            raise StoreUnavailable(f"{self.path}: {exc}") from exc

    def _give_up(self, exc: sqlite3.Error) -> None:
        """Close a file that turned out to be damaged and set it aside; the next `open` mends."""
        self.close()
        with suppress(OSError):
            # Another process may have done so already: what is there now would be its new file.
            if _identity(self.path) == self._opened:
                self._set_aside(exc)

    def _set_aside(self, exc: Exception) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.corrupt-{number}")).exists():
            number += 1
        self.path.rename(aside)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                beside = self.path.with_name(self.path.name + suffix)
                beside.rename(aside.with_name(aside.name + suffix))
        logger.error(
            "The cache file %s is damaged (%s). It was set aside as %s; a new one is begun, "
            "stored answers are lost",
            self.path,
            exc,
            aside,
        )

    @staticmethod
    def _size_bytes(database: sqlite3.Connection) -> int:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        (free,) = database.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * page_bytes)


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled it back already.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_busy(exc: sqlite3.Error) -> bool:
    code = getattr(exc, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _is_damage(exc: Exception) -> bool:
    if isinstance(exc, PermissionError):
        return True
    code = getattr(exc, "sqlite_errorcode", None)
    # The low byte is the primary code; the rest says where (SQLITE_CORRUPT_INDEX, ...).
    return code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
