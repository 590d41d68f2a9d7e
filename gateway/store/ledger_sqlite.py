"""The ledger in a small file beside the store's: one transaction for each batch.

Rule 1: the store's file may be deleted to empty the cache; what was paid stays.
Rule 2: a damaged file is set aside, never deleted; a file of somebody else is left alone.
Rule 3: what was counted survives the death of the process at once, that of the machine after the
next write at the latest.
Rule 4: who only reads makes no file, writes nothing and sets nothing aside.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.core.days import day_of, number_of
from gateway.core.ledger import OTHER, Amounts, Line
from gateway.store.base import StoreUnavailable
from gateway.store.ledger import Batch, Kept
from gateway.store.sqlite_beside import Form, SqliteBeside
from gateway.store.sqlite_file import is_damage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

T = TypeVar("T")

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x5747706C
_BUSY_S = 2.0
_ASIDE = ".corrupt-"
MOST_LINES = 20_000
"""Of one day, by all processes together; what is new beyond them goes to `_other`."""
_WRITER_S = 30 * 86_400

_LINE = ("day", "provider", "model", "scope", "cause")
_AMOUNTS = Amounts._fields
_TABLES = f"""
CREATE TABLE IF NOT EXISTS lines (
    {", ".join(f"{name} TEXT NOT NULL" for name in _LINE)},
    {", ".join(f"{name} INTEGER NOT NULL" for name in _AMOUNTS)},
    PRIMARY KEY ({", ".join(_LINE)})
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS writers (writer TEXT NOT NULL PRIMARY KEY, number INTEGER NOT NULL,
    at INTEGER NOT NULL);
"""
FORM = Form("-ledger", APPLICATION_ID, 1, _TABLES, "NORMAL", _BUSY_S)

beside = FORM.path
"""The ledger's file of a store's file."""
# (Names of ours, no values.)
_ADD = (
    f"INSERT INTO lines ({', '.join((*_LINE, *_AMOUNTS))}) "  # noqa: S608
    f"VALUES ({', '.join('?' * (len(_LINE) + len(_AMOUNTS)))}) "
    f"ON CONFLICT ({', '.join(_LINE)}) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _AMOUNTS)
)
_READ = f"SELECT {', '.join((*_LINE, *_AMOUNTS))} FROM lines WHERE day BETWEEN ? AND ?"  # noqa: S608
_THERE = f"SELECT 1 FROM lines WHERE {' AND '.join(f'{name} = ?' for name in _LINE)}"  # noqa: S608


# SQLite's sums end at 2^63; halves of them don't get there.
_HALVES = ", ".join(f"sum({name} >> 32), sum({name} & 4294967295)" for name in _AMOUNTS)
_FOLDED = ("provider", "model", "scope")


def _summed(by: Collection[str]) -> str:
    """`gateway.core.ledger.folded`, as SQLite does it."""
    kept = [name if name not in _FOLDED or name in by else "''" for name in _LINE]
    groups = ", ".join(name for name in kept if name in _LINE)
    return (
        f"SELECT {', '.join(kept)}, {_HALVES} FROM lines "  # noqa: S608 - names of ours
        f"WHERE day BETWEEN ? AND ? GROUP BY {groups}"
    )


def _whole(row: Sequence[Any]) -> tuple[Line, Amounts]:
    width = len(_LINE)
    high, low = row[width::2], row[width + 1 :: 2]
    line = Line(*row[:width])
    return line, Amounts._make((a << 32) + b for a, b in zip(high, low, strict=True))


class SqliteLedger:
    """The ledger of all processes that share a file."""

    kind = "sqlite"
    lasting = True

    def __init__(self, path: Path, *, most_lines: int = MOST_LINES) -> None:
        """In the file at `path`; the first write makes it where it is missing."""
        self._path = path
        self._file = SqliteBeside(path, FORM, _set_aside)
        self._most_lines = most_lines

    def __repr__(self) -> str:
        return f"<SqliteLedger {self._path}>"

    async def add(self, batch: Batch) -> None:
        """See `LedgerStore`."""
        await asyncio.to_thread(self._file.use, lambda database: self._add(database, batch))

    async def read(self, since: str, until: str) -> Kept:
        """See `LedgerStore`."""
        number_of(since), number_of(until)
        rows, lost = await asyncio.to_thread(
            self._look, lambda database: database.execute(_READ, (since, until)).fetchall(), since
        )
        width = len(_LINE)
        return Kept([(Line(*row[:width]), Amounts(*row[width:])) for row in rows], lost)

    async def sums(self, since: str, until: str, by: Collection[str]) -> Kept:
        """See `LedgerStore`."""
        number_of(since), number_of(until)
        asked = _summed(by)
        rows, lost = await asyncio.to_thread(
            self._look,
            lambda database: [_whole(row) for row in database.execute(asked, (since, until))],
            since,
        )
        return Kept(rows, lost)

    async def today(self) -> str:
        """See `LedgerStore`: it is this machine's."""
        return ""

    async def forget(self, before: str) -> None:
        """See `LedgerStore`."""

        def work(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM lines WHERE day < ?", (before,))
            old = int(time.time()) - _WRITER_S
            database.execute("DELETE FROM writers WHERE at < ?", (old,))

        await asyncio.to_thread(self._file.use, work)

    async def close(self) -> None:
        """Nothing stays open between two writes."""

    # What follows runs in a thread.

    def _add(self, database: sqlite3.Connection, batch: Batch) -> None:
        database.execute("BEGIN IMMEDIATE")
        known = database.execute("SELECT number FROM writers WHERE writer = ?", (batch.writer,))
        if batch.number <= (known.fetchone() or (0,))[0]:
            database.execute("ROLLBACK")
            return
        database.execute(
            "INSERT INTO writers VALUES (?, ?, ?) ON CONFLICT (writer) DO UPDATE "
            "SET number = excluded.number, at = excluded.at",
            (batch.writer, batch.number, int(time.time())),
        )
        left: dict[str, int] = {}
        for line, amounts in batch.cells.items():
            if line.day not in left:
                count = database.execute("SELECT count(*) FROM lines WHERE day = ?", (line.day,))
                left[line.day] = self._most_lines - int(count.fetchone()[0])
            place = line
            if left[line.day] <= 0 and database.execute(_THERE, line).fetchone() is None:
                place = line._replace(model=OTHER, scope=OTHER)
            left[line.day] -= 1
            database.execute(_ADD, (*place, *amounts))
        database.execute("COMMIT")

    def _look(
        self, work: Callable[[sqlite3.Connection], list[T]], since: str
    ) -> tuple[list[T], list[str]]:
        try:
            lost = self._lost(since)
            if not self._path.exists():
                return [], lost
            address = f"{self._path.absolute().as_uri()}?mode=ro"
            with closing(
                sqlite3.connect(address, uri=True, timeout=_BUSY_S, isolation_level=None)
            ) as database:
                return work(database) if self._file.is_made(database) else [], lost
        except (OSError, sqlite3.Error, OverflowError) as exc:
            problem = str(exc)
            if getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK:
                problem = "a write broke off in the middle; the next gateway that writes undoes it"
            elif is_damage(exc):
                problem = f"it is damaged ({exc}); the next gateway that writes sets it aside"
            raise StoreUnavailable(f"{self._path}: {problem}") from exc

    def _lost(self, since: str) -> list[str]:
        """What was set aside and may have some of these days, in words: the latest three."""
        start = self._path.name + _ASIDE
        times = [each.name.removeprefix(start) for each in self._path.parent.glob(f"*{_ASIDE}*")]
        return [
            f"what {start}{at} has of days up to {day} (damaged, set aside)"
            for at in sorted((int(time) for time in times if time.isdecimal()), reverse=True)[:3]
            if (day := day_of(at)) >= since
        ]


def _set_aside(path: Path, problem: sqlite3.Error) -> None:
    aside = path.with_name(f"{path.name}{_ASIDE}{int(time.time())}")
    logger.error("%s is damaged (%s): it is set aside as %s", path, problem, aside)
    path.replace(aside)
