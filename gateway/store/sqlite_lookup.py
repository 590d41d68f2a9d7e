"""The reading side of the SQLite file: a connection of its own, so that nobody waits for a write.

In WAL mode readers see the last commit while the next one is being written, or a checkpoint waits
for the disk.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.store.base import StoreUnavailable
from gateway.store.sqlite_file import BUSY_MS, Moved, identity_now, is_broken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.store.sqlite_file import SqliteFile


class SqliteLookup:
    """Follows a file that another thread opens, writes and mends. Blocking; for one thread."""

    def __init__(
        self,
        file: SqliteFile,
        clock: Callable[[], float],
        report: Callable[[Exception, tuple[int, int]], None],
    ) -> None:
        """`report` is told when a file turns out to be useless, and which; the writing side must
        mend it. `clock` gives seconds since the epoch.
        """
        self._file = file
        self._clock = clock
        self._report = report
        self._database: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The blobs that are there and have not expired. Raises `StoreUnavailable`."""
        marks = ",".join("?" * len(keys))
        try:
            rows = self._connection().execute(
                f"SELECT key, blob FROM entries WHERE key IN ({marks}) AND expires_at > ?",  # noqa: S608 - only question marks
                (*keys, self._clock()),
            )
            return dict(rows.fetchall())
        except sqlite3.Error as exc:
            if is_broken(exc) and (opened := self._opened) is not None:
                self.close()
                self._report(exc, opened)
            raise StoreUnavailable(f"{self._file.path}: {exc}") from exc

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        self._opened = None
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()

    def _connection(self) -> sqlite3.Connection:
        path, wanted = self._file.path, self._file.identity
        if wanted is None or wanted != self._opened:
            self.close()
        if wanted is None:
            raise StoreUnavailable(f"{path} is not open")
        if identity_now(path) != wanted:
            self.close()
            moved = Moved(path)
            self._report(moved, wanted)
            raise moved
        if self._database is None:
            self._opened = wanted
            # Never to make a file: the writing side does that, and looks at what it finds first.
            uri = f"{path.absolute().as_uri()}?mode=rw"
            self._database = sqlite3.connect(
                uri, uri=True, timeout=BUSY_MS / 1000, isolation_level=None
            )
            self._database.execute("PRAGMA query_only = ON")
        return self._database
