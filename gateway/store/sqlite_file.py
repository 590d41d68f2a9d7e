"""The SQLite file: opened, written, kept within its budget, set aside when damaged.

Rule 1: a file that is not ours is never written to, and only moved when it is no database at all.
Rule 2: what SQLite calls corrupt is moved to `<file>.corrupt-<time>`, and a new file begun.
Rule 3: a file that is no longer at its path is left alone: what is written there is lost.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.store.base import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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

_ASIDE = ".corrupt-"

_OPEN_BUSY_S = 1.0
_OPEN_PAUSE_S = 0.02
BUSY_MS = 20
"""How long to wait for another process's write; the writer tries again later, readers never wait."""

_SWEEP_ROWS = 64
_EVICTED_AT_ONCE = 16
_LARGEST_BATCH_BYTES = 64 << 20
"""How far the file may pass its budget in the worst case; SQLite itself refuses more."""

_SET_ASIDE = 3
"""How many damaged files are kept: a failing disk must not fill itself with them."""

# A connection that met one of these is of no use any more; a new one may be.
_BROKEN = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


class Moved(StoreUnavailable):
    """The open file is no longer what is at its path."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was deleted or replaced")


class SqliteFile:
    """The writing side. Raises `StoreUnavailable`, nothing else, and recovers by itself where it
    can. Blocking; for one thread.
    """

    def __init__(self, path: Path, clock: Callable[[], float], *, budget_bytes: int) -> None:
        """Keep at most about `budget_bytes` in `path`; `clock` gives seconds since the epoch."""
        self.path = path
        self._clock = clock
        self._budget_bytes = budget_bytes
        self._page_bytes = 4096
        self._database: sqlite3.Connection | None = None
        self._logs: dict[Path, tuple[int, int] | None] = {}
        self.identity: tuple[int, int] | None = None
        """Device and inode of the open file; None while none is open. Any thread may look."""

    @property
    def is_open(self) -> bool:
        """It can be asked. Any thread may look."""
        return self.identity is not None

    def open(self) -> None:
        """Open the file, making it (0600) and its folder (0700) where they are missing."""
        try:
            try:
                self._database = self._open_patiently()
            except sqlite3.Error as exc:
                if not is_damage(exc) or not self.path.is_file():
                    raise
                self._set_aside(exc)
                self._database = self._open_patiently()
            self._logs = {beside: identity_now(beside) for beside in _beside(self.path)}
            self.identity = identity(self.path)
        except (OSError, sqlite3.Error) as exc:
            self.close()
            raise StoreUnavailable(f"{self.path} can't be used: {exc}") from exc

    def write(self, rows: Sequence[tuple[bytes, float, bytes]]) -> None:
        """Keep rows of key, expiry and blob: all of them or none. What expires first goes for them
        where the budget is reached.
        """
        self._must_be_in_place()
        coming = sum(len(blob) for _, _, blob in rows)
        with self._use() as database, _transaction(database):
            self._make_room(database, coming)
            database.executemany(
                "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET expires_at = excluded.expires_at, blob = excluded.blob",
                rows,
            )

    def delete(self, keys: Sequence[bytes]) -> set[bytes]:
        """Forget the keys; those that existed."""
        self._must_be_in_place()
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
                removed = _remove(database, math.inf if full else self._clock(), _SWEEP_ROWS)
        return removed == _SWEEP_ROWS

    def shrink(self) -> None:
        """Give up some of what is kept: the disk is full, and the room in the file is used again."""
        with self._use() as database, _transaction(database):
            _remove(database, math.inf, _SWEEP_ROWS)

    def give_up(self, problem: Exception) -> None:
        """Close a file that turned out to be useless, and set it aside where it is damaged; the
        next `open` mends.
        """
        opened = self.identity
        self.close()
        if isinstance(problem, Moved):
            self._drop_logs()
        if not is_damage(problem):
            return
        with suppress(OSError):
            # Another process may have done so already: what is there now would be its new file.
            if identity(self.path) == opened:
                self._set_aside(problem)

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        self.identity = None
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()

    def _must_be_in_place(self) -> None:
        """What is written into a file that was deleted or replaced would be lost."""
        if self.identity is not None and identity_now(self.path) != self.identity:
            moved = Moved(self.path)
            self.give_up(moved)
            raise moved

    def _drop_logs(self) -> None:
        """Delete the logs of a file that is gone: SQLite would apply them to whatever takes its
        place. Those of another file, which another process began meanwhile, are left alone.
        """
        for beside, opened in self._logs.items():
            if opened is not None and identity_now(beside) == opened:
                with suppress(OSError):
                    beside.unlink()

    def _make_room(self, database: sqlite3.Connection, coming: int) -> None:
        """Remove about as much as is coming, and a little more, until the budget holds it.

        Bounded: where the budget was lowered, sweeping does the rest.
        """
        size = self._size_bytes(database)
        least = size - 2 * coming - _EVICTED_AT_ONCE * self._page_bytes
        while size + coming > self._budget_bytes and size > least:
            if not _remove(database, math.inf, _EVICTED_AT_ONCE):
                return
            size = self._size_bytes(database)

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
        # SQLite gives the log files beside it the mode of the file itself. Only a new file is
        # opened here: closing a descriptor drops the locks of all others of this process.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if not os.access(self.path, os.R_OK | os.W_OK):
            # SQLite would open it for reading, and never find out that it may be written again.
            raise PermissionError(errno.EACCES, "it may not be read and written", str(self.path))
        database = sqlite3.connect(self.path, timeout=_OPEN_BUSY_S, isolation_level=None)
        try:
            is_new = self._look(database)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            if is_new:
                database.executescript(_SCHEMA)
            # Whoever deletes an answer means it to be gone. Costs a tenth to a fifth of the CPU where
            # much is removed; some builds do so by default, others don't.
            database.execute("PRAGMA secure_delete = ON")
            (self._page_bytes,) = database.execute("PRAGMA page_size").fetchone()
            most = (self._budget_bytes + _LARGEST_BATCH_BYTES) // self._page_bytes
            database.execute(f"PRAGMA max_page_count = {most}")
            database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
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
            if is_broken(exc):
                self.give_up(exc)
            raise StoreUnavailable(f"{self.path}: {exc}") from exc

    def _set_aside(self, problem: Exception) -> None:
        aside = self._free_name()
        self.path.rename(aside)
        for beside, there in zip(_beside(self.path), _beside(aside), strict=True):
            with suppress(FileNotFoundError):
                beside.rename(there)
        logger.error(
            "The cache file %s is damaged (%s). It was set aside as %s; a new one is begun, "
            "stored answers are lost",
            self.path,
            problem,
            aside,
        )
        for old in sorted(self.path.parent.glob(f"{self.path.name}{_ASIDE}*Z"))[:-_SET_ASIDE]:
            for each in (old, *_beside(old)):
                each.unlink(missing_ok=True)

    def _free_name(self) -> Path:
        """`<file>.corrupt-20261122T073000.123456Z`: their names sort by age."""
        now = self._clock()
        while True:
            text = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            aside = self.path.with_name(self.path.name + _ASIDE + text)
            if not aside.exists():
                return aside
            now += 1e-6

    def _size_bytes(self, database: sqlite3.Connection) -> int:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        (free,) = database.execute("PRAGMA freelist_count").fetchone()
        return int((pages - free) * self._page_bytes)


def _remove(database: sqlite3.Connection, until: float, most: int) -> int:
    """Remove at most so many of the rows that expire first, and not after `until`."""
    return database.execute(
        "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries "
        "WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
        (until, most),
    ).rowcount


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


def _beside(path: Path) -> tuple[Path, Path]:
    """The logs that SQLite keeps beside a file."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def identity(path: Path) -> tuple[int, int]:
    """Which file is at the path: its device and inode. Raises OSError."""
    status = path.stat()
    return status.st_dev, status.st_ino


def identity_now(path: Path) -> tuple[int, int] | None:
    """The same; None where there is no file, or none that can be looked at."""
    try:
        return identity(path)
    except OSError:
        return None


def is_damage(problem: Exception) -> bool:
    """The file holds something other than a sound database."""
    return _code(problem) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_broken(problem: Exception) -> bool:
    """The connection is of no use any more."""
    return _code(problem) in _BROKEN


def is_full(problem: BaseException | None) -> bool:
    """There is no room, on the disk or within the budget."""
    return _code(problem) == sqlite3.SQLITE_FULL


def _is_busy(problem: sqlite3.Error) -> bool:
    return _code(problem) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _code(problem: BaseException | None) -> int | None:
    code: int | None = getattr(problem, "sqlite_errorcode", None)
    # The low byte is the primary code; the rest says where (SQLITE_CORRUPT_INDEX, ...).
    return None if code is None else code & 0xFF
