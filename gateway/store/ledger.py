"""Where the ledger is kept: always beside the entries, so that gateways that share these share it.

Rule 1: a batch has its writer's name and a number that rises. Whoever has counted a number counts it
never again: a batch whose fate is not known is sent once more, as it was.
Rule 2: nothing is rounded, and nothing is ever taken back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.core.days import each_day
from gateway.core.ledger import added
from gateway.store.base import StoreUnavailable
from gateway.store.memory import MemoryStore
from gateway.store.sqlite import SqliteStore
from gateway.store.walk import furthest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.ledger import Amounts, Line
    from gateway.store.base import Store


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
    """Days that were written and are no longer there: the store needed the room."""


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

    async def forget(self, before: str) -> None:
        """Delete all days earlier than this."""

    async def close(self) -> None:
        """Let go of what is open. It may be used again."""


class MemoryLedger:
    """In this process: it forgets with it, as the store does."""

    kind = "memory"
    lasting = False

    def __init__(self) -> None:
        self._sums: dict[Line, Amounts] = {}
        self._numbers: dict[str, int] = {}

    async def add(self, batch: Batch) -> None:
        """See `LedgerStore`."""
        if batch.number <= self._numbers.get(batch.writer, 0):
            return
        self._numbers[batch.writer] = batch.number
        for line, amounts in batch.cells.items():
            before = self._sums.get(line)
            self._sums[line] = amounts if before is None else added(before, amounts)

    async def read(self, since: str, until: str) -> Kept:
        """See `LedgerStore`."""
        days = set(each_day(since, until))
        return Kept([each for each in self._sums.items() if each[0].day in days], [])

    async def forget(self, before: str) -> None:
        """See `LedgerStore`."""
        self._sums = {line: sums for line, sums in self._sums.items() if line.day >= before}

    async def close(self) -> None:
        """See `LedgerStore`."""


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
