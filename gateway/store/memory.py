"""A byte budget in this process: the least recently used go first. A budget of 0 keeps nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cachetools import TLRUCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OVERHEAD_BYTES = 512
"""What one kept blob costs beside itself: key, tuple, and the nodes of the cache's own
structures. Measured with tracemalloc; a test holds it to that."""

_LARGEST_SHARE = 8
"""A blob over an eighth of the budget would push out too many others for one answer."""


class _Kept(NamedTuple):
    expires_at: float
    blob: bytes


class MemoryStore:
    """Never blocks, never raises `StoreUnavailable`. For one event loop."""

    name = "memory"

    def __init__(self, budget_bytes: int, clock: Callable[[], float]) -> None:
        """Keep at most about `budget_bytes`; `clock` gives seconds."""
        self.budget_bytes = budget_bytes
        self._clock = clock
        self._kept: TLRUCache[bytes, _Kept] = TLRUCache(
            maxsize=budget_bytes,
            ttu=lambda _key, kept, _now: kept.expires_at,
            timer=clock,
            getsizeof=lambda kept: len(kept.blob) + OVERHEAD_BYTES,
        )

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._kept)} blobs, {self.size_bytes} of {self.budget_bytes} B>"

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    @property
    def size_bytes(self) -> int:
        """Bytes kept now, overhead included."""
        return int(self._kept.currsize)

    async def start(self) -> None:
        """Nothing to open."""

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The blobs, in the order asked."""
        found = (self._kept.get(key) for key in keys)
        return [None if kept is None else kept.blob for kept in found]

    async def put(self, key: bytes, blob: bytes, ttl_s: float) -> None:
        """Keep the blob, unless it is over an eighth of the budget. What was there goes anyway:
        an older blob must not outlive its successor.
        """
        self._kept.pop(key, None)
        size_bytes = len(blob) + OVERHEAD_BYTES
        if ttl_s > 0 and size_bytes * _LARGEST_SHARE <= self.budget_bytes:
            self._kept[key] = _Kept(self._clock() + ttl_s, blob)

    async def delete(self, keys: Sequence[bytes]) -> int:
        """Forget the keys."""
        return sum(self._kept.pop(key, None) is not None for key in keys)

    async def close(self) -> None:
        """Forget everything."""
        self._kept.clear()
