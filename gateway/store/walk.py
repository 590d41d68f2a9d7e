"""Through all entries of a store, in portions: for counts and exports, never for a request.

Bounded memory, no locks. What is written or deleted meanwhile may be missing, or come twice.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway.store.base import StoreUnavailable
from gateway.store.memory import MemoryStore
from gateway.store.sqlite import SqliteStore
from gateway.store.tiered import TieredStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from gateway.store.base import Store
    from gateway.store.redis import RedisStore

PORTION = 200
"""Keys that are looked at in one go."""

FETCHED = 25
"""Blobs that are fetched in one go: entries may have megabytes."""

PORTION_BYTES = 16 << 20
_BUSY_S = 1.0
_KEY_BYTES = 32


def furthest(store: Store) -> Store:
    """The part of a store that holds everything."""
    return store.back if isinstance(store, TieredStore) else store


async def walk(store: Store, begins: str = "") -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """Keys and blobs of all, or of those whose key begins with these hex digits.

    Raises `StoreUnavailable`.
    """
    match furthest(store):
        case MemoryStore() as memory:
            keys = [key for key in memory.keys() if key.hex().startswith(begins)]  # noqa: SIM118
            for some in _parts(keys):
                # Memory answers without waiting: let the requests have their turn.
                await asyncio.sleep(0)
                yield await _held(memory, some)
        case SqliteStore() as sqlite:
            last = bytes.fromhex(begins + "0" * (len(begins) % 2))
            while rows := await asyncio.to_thread(_rows, sqlite.path, last):
                yield [row for row in rows if row[0].hex().startswith(begins)]
                if not rows[-1][0].hex().startswith(begins):
                    return
                last = rows[-1][0] + b"\0"
        case other:
            redis = _redis(other)
            prefix = len(redis.named(""))
            async for names in redis.scan(begins, PORTION):
                found = [key for name in names if (key := _key(name[prefix:])) is not None]
                for some in _parts(found):
                    yield await _held(redis, some)


async def count(store: Store) -> int:
    """About how many keys there are; in Redis with whatever else is in that database.

    Raises `StoreUnavailable`.
    """
    match furthest(store):
        case MemoryStore() as memory:
            return len(memory.keys())
        case SqliteStore() as sqlite:
            return await asyncio.to_thread(_count, sqlite.path)
        case other:
            return sum(map(int, await _redis(other).execute_everywhere("DBSIZE")))


def _redis(store: Store) -> RedisStore:
    """The store, when it is Redis. Raises `StoreUnavailable` for what nobody can look through."""
    from gateway.store.redis import RedisStore  # noqa: PLC0415 - 7 MB, for Redis only

    if not isinstance(store, RedisStore):
        raise StoreUnavailable(f"{store!r} can't be looked through")
    return store


async def _held(store: Store, keys: list[bytes]) -> list[tuple[bytes, bytes]]:
    blobs = await store.get(keys) if keys else []
    return [(key, blob) for key, blob in zip(keys, blobs, strict=True) if blob is not None]


def _parts(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), FETCHED):
        yield keys[start : start + FETCHED]


def _key(name: bytes) -> bytes | None:
    """The key that a name in Redis spells; None for what else lies there."""
    try:
        key = bytes.fromhex(name.decode("ascii"))
    except ValueError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _rows(path: Path, first: bytes) -> list[tuple[bytes, bytes]]:
    try:
        rows: list[tuple[bytes, bytes]] = []
        size = 0
        with closing(_opened(path)) as database:
            for row in database.execute(
                "SELECT key, blob FROM entries WHERE key >= ? ORDER BY key LIMIT ?",
                (first, PORTION),
            ):
                rows.append(row)
                size += len(row[1])
                if size > PORTION_BYTES:
                    break
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{path}: {exc}") from exc
    return rows


def _count(path: Path) -> int:
    try:
        with closing(_opened(path)) as database:
            (rows,) = database.execute("SELECT count(*) FROM entries").fetchone()
            return int(rows)
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{path}: {exc}") from exc


def _opened(path: Path) -> sqlite3.Connection:
    # Read-only, and anew each time: the file may be set aside or deleted meanwhile.
    where = f"file:{quote(str(path))}?mode=ro"
    return sqlite3.connect(where, timeout=_BUSY_S, isolation_level=None, uri=True)
