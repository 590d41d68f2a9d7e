"""A small SQLite file beside the store's: opened for each piece of work, and closed after it.

Rule 1: a file of somebody else is left alone.
Rule 2: the first write makes the file (0600), its folder (0700) and its tables where they are missing.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from gateway.store.base import StoreUnavailable
from gateway.store.sqlite_file import is_damage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")


class Form(NamedTuple):
    """What files of one kind have in common."""

    suffix: str
    """Of the store's file's name."""
    application_id: int
    """Says in the file's header that it is ours; likewise its `version`."""
    version: int
    tables: str
    """The statements that make them."""
    synchronous: str
    """What SQLite waits for: `OFF`, `NORMAL`."""
    busy_s: float
    """How long a write waits for another process's."""

    def path(self, store: Path) -> Path:
        """The file of a store's file."""
        return store.with_name(store.name + self.suffix)


class SqliteBeside:
    """Works in one file. Blocking: for threads, any number of them."""

    def __init__(
        self, path: Path, form: Form, set_aside: Callable[[Path, sqlite3.Error], None]
    ) -> None:
        """`set_aside` gets a damaged file out of the way, and says so."""
        self.path = path
        self._form = form
        self._set_aside = set_aside

    def use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` makes of the database, tables made; done again where it was damaged. Raises
        `StoreUnavailable`.
        """
        try:
            try:
                return self._try(work)
            except sqlite3.DatabaseError as exc:
                if not is_damage(exc):
                    raise
                self._set_aside(self.path, exc)
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + "-journal").unlink()
                return self._try(work)
        except (OSError, sqlite3.Error, OverflowError) as exc:
            raise StoreUnavailable(f"{self.path}: {exc}") from exc

    def is_made(self, database: sqlite3.Connection) -> bool:
        """False where it is empty still. Raises `StoreUnavailable` for a database of something else,
        sqlite3.Error.
        """
        form = self._form
        # In one transaction: another process may be making the tables.
        database.execute("BEGIN")
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute("COMMIT")
        if (application, version) == (form.application_id, form.version):
            return True
        if application or version or tables:
            raise StoreUnavailable(f"{self.path} is a database of something else")
        return False

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T:
        form = self._form
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(
            sqlite3.connect(self.path, timeout=form.busy_s, isolation_level=None)
        ) as database:
            if not self.is_made(database):
                database.executescript(
                    f"BEGIN EXCLUSIVE;\n{form.tables}\n"
                    f"PRAGMA application_id = {form.application_id};\n"
                    f"PRAGMA user_version = {form.version};\nCOMMIT;"
                )
            database.execute(f"PRAGMA synchronous = {form.synchronous}")
            return work(database)
