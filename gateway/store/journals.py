"""Store -> where its gateways tell what they placed: always beside the entries, shared alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store.journal import NoJournal
from gateway.store.journal_sqlite import SqliteJournal, beside
from gateway.store.memory import MemoryStore
from gateway.store.sqlite import SqliteStore
from gateway.store.walk import furthest

if TYPE_CHECKING:
    from gateway.store.base import Store
    from gateway.store.journal import Journal


def open_journal(store: Store, pool: str) -> Journal:
    """The journal of one pool, in a store that is started before it."""
    back = furthest(store)
    if isinstance(back, MemoryStore):
        return NoJournal()
    if isinstance(back, SqliteStore):
        return SqliteJournal(beside(back.path), pool)
    from gateway.store.journal_redis import RedisJournal  # noqa: PLC0415 - 7 MB, for Redis only
    from gateway.store.redis import RedisStore  # noqa: PLC0415 - the same

    return RedisJournal(back, pool) if isinstance(back, RedisStore) else NoJournal()
