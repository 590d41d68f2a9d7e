"""Where the ledger is kept: always beside the entries, so that gateways that share these share it.

Rule 1: a batch has its writer's name and a number that rises. Whoever has counted a number counts it
never again: a batch whose fate is not known is sent once more, as it was.
Rule 2: nothing is rounded, and nothing is ever taken back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.core.days import each_day
from gateway.core.ledger import added, fold
from gateway.store.base import StoreUnavailable
from gateway.store.memory import MemoryStore
from gateway.store.sqlite import SqliteStore
from gateway.store.walk import furthest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gateway.core.ledger import Amounts, Line
    from gateway.store.base import Store


_AT_ONCE = 200
"""Lines that are folded before others have their turn: a fifth of a millisecond."""


class Spoiled(StoreUnavailable):
    """The batch is counted, but for what somebody else's values stood in the way of."""


class Batch(NamedTuple):
    """What is written at once, or not at all."""

    writer: str
    """Another one in each process."""
    number: int
    """From 1."""
    cells: Mapping[Line, Amounts]


class Kept(NamedTuple):
    """What was read."""

    rows: list[tuple[Line, Amounts]]
    missing: list[str]
    """Days that were written and are no longer there: the store needed the room. In words, what of
    days that nobody can name lies in a damaged file.
    """


class LedgerStore(Protocol):
    """Every method raises `StoreUnavailable`, nothing else."""

    kind: str
    """`memory`, `sqlite` or `redis`."""
    lasting: bool
    """It is still there after a restart of the gateway."""

    async def add(self, batch: Batch) -> None:
        """Count it, if it isn't yet. After `StoreUnavailable` it may or may not be."""

    async def read(self, since: str, until: str) -> Kept:
        """All lines of these days, both included."""

    async def sums(self, since: str, until: str, by: Collection[str]) -> Kept:
        """The same, `gateway.core.ledger.folded` by these names: the lines themselves never are on
        the loop, nor keep it from its work.
        """

    async def today(self) -> str:
        """The day by the clock that all who write here share; empty where there is none."""

    async def forget(self, before: str) -> None:
        """Delete all days earlier than this."""

    async def close(self) -> None:
        """Let go of what is open. It may be used again."""


class MemoryLedger:
    """In this process: it forgets with it, as the store does."""

    kind = "memory"
    lasting = False

    def __init__(self) -> None:
        self._sums: dict[str, dict[Line, Amounts]] = {}
        """By day."""
        self._numbers: dict[str, int] = {}

    async def add(self, batch: Batch) -> None:
        """See `LedgerStore`."""
        if batch.number <= self._numbers.get(batch.writer, 0):
            return
        self._numbers[batch.writer] = batch.number
        for line, amounts in batch.cells.items():
            day = self._sums.setdefault(line.day, {})
            before = day.get(line)
            day[line] = amounts if before is None else added(before, amounts)

    async def read(self, since: str, until: str) -> Kept:
        """See `LedgerStore`."""
        return Kept([each for day in self._there(since, until) for each in day.items()], [])

    async def sums(self, since: str, until: str, by: Collection[str]) -> Kept:
        """See `LedgerStore`."""
        rows: list[tuple[Line, Amounts]] = []
        for day in self._there(since, until):
            lines = list(day)
            found: dict[Line, Amounts] = {}
            for start in range(0, len(lines), _AT_ONCE):
                some = [(line, day[line]) for line in lines[start : start + _AT_ONCE]]
                fold(found, some, by)
                await asyncio.sleep(0)
            rows += found.items()
        return Kept(rows, [])

    async def today(self) -> str:
        """See `LedgerStore`."""
        return ""

    async def forget(self, before: str) -> None:
        """See `LedgerStore`."""
        self._sums = {day: lines for day, lines in self._sums.items() if day >= before}

    async def close(self) -> None:
        """See `LedgerStore`."""

    def _there(self, since: str, until: str) -> list[dict[Line, Amounts]]:
        return [self._sums[day] for day in each_day(since, until) if day in self._sums]


def open_ledger(store: Store) -> LedgerStore:
    """The ledger of a store that is started before it."""
    back = furthest(store)
    if isinstance(back, MemoryStore):
        return MemoryLedger()
    if isinstance(back, SqliteStore):
        from gateway.store.ledger_sqlite import SqliteLedger, beside  # noqa: PLC0415 - only here

        return SqliteLedger(beside(back.path))
    from gateway.store.ledger_redis import RedisLedger  # noqa: PLC0415 - 7 MB, for Redis only
    from gateway.store.redis import RedisStore  # noqa: PLC0415 - the same

    return RedisLedger(back) if isinstance(back, RedisStore) else MemoryLedger()
