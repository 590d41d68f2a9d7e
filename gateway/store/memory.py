"""A byte budget in this process, which a scan does not empty. A budget of 0 keeps nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.store.eviction import ScanProof

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OVERHEAD_BYTES = 640
"""What one kept blob costs beside itself: key, tuple, the nodes of the queues, and the ghost of
one that went. Measured with tracemalloc; a test holds it to that."""

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
        self._kept: ScanProof[_Kept] = ScanProof(budget_bytes)

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._kept)} blobs, {self.size_bytes} of {self.budget_bytes} B>"

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def keys(self) -> list[bytes]:
        """The keys that are kept now, lapsed ones included."""
        return self._kept.keys()

    @property
    def size_bytes(self) -> int:
        """Bytes kept now, overhead included."""
        return self._kept.used_bytes

    async def start(self) -> None:
        """Nothing to open."""

    def peek(self, key: bytes) -> bytes | None:
        """The blob, at once: the very object that was put."""
        return self._unexpired(key)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The blobs, in the order asked."""
        return [self._unexpired(key) for key in keys]

    async def put(self, key: bytes, blob: bytes, ttl_s: float) -> None:
        """Keep the blob, unless it is over an eighth of the budget. What was there goes anyway:
        an older blob must not outlive its successor.
        """
        size_bytes = len(blob) + OVERHEAD_BYTES
        if ttl_s > 0 and size_bytes * _LARGEST_SHARE <= self.budget_bytes:
            self._kept.put(key, _Kept(self._clock() + ttl_s, blob), size_bytes)
        else:
            self._kept.pop(key)

    async def delete(self, keys: Sequence[bytes]) -> int:
        """Forget the keys."""
        return sum(self._kept.pop(key) is not None for key in keys)

    async def close(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def _unexpired(self, key: bytes) -> bytes | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.expires_at <= self._clock():
            self._kept.pop(key)
            return None
        return kept.blob
