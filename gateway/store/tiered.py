"""A memory tier in front of a store that is further away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store import codec
from gateway.store.base import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.store.base import Store
    from gateway.store.memory import MemoryStore


class TieredStore:
    """Memory first, then the back; what the back had is kept in memory for the rest of its life.

    The memory of other replicas is out of reach: what is deleted here may live on there until it
    expires.
    """

    name = "tiered"

    def __init__(self, memory: MemoryStore, back: Store, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch: the codec's times are measured by it."""
        self.memory = memory
        self.back = back
        self._clock = clock
        self._deletions = 0

    def __repr__(self) -> str:
        return f"<TieredStore {self.memory!r} {self.back!r}>"

    async def start(self) -> None:
        """Start both."""
        await self.memory.start()
        await self.back.start()

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The blobs, in the order asked. The back is asked only for what memory lacks.

        Raises `StoreUnavailable` when memory has none of them and the back can't be asked.
        """
        blobs = await self.memory.get(keys)
        missing = [place for place, blob in enumerate(blobs) if blob is None]
        if not missing:
            return blobs
        deletions = self._deletions
        try:
            fetched = await self.back.get([keys[place] for place in missing])
        except StoreUnavailable:
            if len(missing) == len(keys):
                raise
            return blobs
        for place, blob in zip(missing, fetched, strict=True):
            if blob is None:
                continue
            blobs[place] = blob
            # A blob that was deleted or replaced while it was on its way must not come back.
            if deletions == self._deletions and keys[place] not in self.memory:
                await self._promote(keys[place], blob)
        return blobs

    async def put(self, key: bytes, blob: bytes, ttl_s: float) -> None:
        """Keep the blob in both.

        Raises `StoreUnavailable` when the back did not take it; memory has it nevertheless.
        """
        # What is kept beyond its lifetime, for bad times, is not for memory: it would hide the
        # successor that another replica has fetched.
        left_s = min(ttl_s, self._left_s(blob, ttl_s))
        await self.memory.put(key, blob, left_s)
        await self.back.put(key, blob, ttl_s)

    async def delete(self, keys: Sequence[bytes]) -> int:
        """Forget the keys; how many existed in the fuller tier.

        Raises `StoreUnavailable` when the back could not be asked; memory has forgotten them.
        """
        self._deletions += 1
        in_memory = await self.memory.delete(keys)
        try:
            return max(in_memory, await self.back.delete(keys))
        finally:
            # A lookup that began meanwhile may have found them in the back.
            self._deletions += 1

    async def close(self) -> None:
        """Close both."""
        await self.back.close()
        await self.memory.close()

    async def _promote(self, key: bytes, blob: bytes) -> None:
        # Whoever decodes a damaged one will say so; memory has no use for it.
        await self.memory.put(key, blob, self._left_s(blob, 0.0))

    def _left_s(self, blob: bytes, otherwise_s: float) -> float:
        try:
            return codec.expires_at(blob) - self._clock()
        except codec.Damaged:
            return otherwise_s
