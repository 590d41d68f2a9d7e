"""Store -> where its marks of purges lie: always with the entries, so that they are shared alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store.generations_local import LocalRegister
from gateway.store.generations_sqlite import SqliteRegister
from gateway.store.memory import MemoryStore
from gateway.store.sqlite import SqliteStore
from gateway.store.tiered import TieredStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.store.base import Store
    from gateway.store.generations import Register


def open_register(store: Store, clock: Callable[[], float]) -> Register:
    """The register of a store that is started before it; `clock` gives seconds since the epoch."""
    back = store.back if isinstance(store, TieredStore) else store
    if isinstance(back, MemoryStore):
        return LocalRegister(clock)
    if isinstance(back, SqliteStore):
        return SqliteRegister(back.path, clock)
    from gateway.store.generations_redis import RedisRegister  # noqa: PLC0415 - 7 MB, for Redis only
    from gateway.store.redis import RedisStore  # noqa: PLC0415 - the same

    return RedisRegister(back) if isinstance(back, RedisStore) else LocalRegister(clock)
