"""The contract of a store, and its one error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class StoreUnavailable(Exception):
    """The store could not answer within its deadline, or at all. The request goes on without."""

    def __init__(self, problem: str, reason: str = "unavailable") -> None:
        """`problem` in words, for logs; `reason` is one word out of few, for metrics."""
        super().__init__(problem)
        self.reason = reason


class Store(Protocol):
    """Blobs under 32-byte keys, each with its own time to live.

    Every method has a deadline inside (default 50 ms) and raises `StoreUnavailable`, nothing
    else, when the store is gone, slow, full or broken. A blob that comes back is the one that
    was put under that key, whole; expiry is best effort (the entry's own age decides).
    """

    name: str
    """Short kind for metrics and logs: memory, sqlite, redis, tiered."""

    async def start(self) -> None:
        """Open what can be opened; a store that is down now must not raise, but come back later."""

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The blob of each key or None, in the order asked; one round trip."""

    async def put(self, key: bytes, blob: bytes, ttl_s: float) -> None:
        """Keep the blob for about `ttl_s` seconds, replacing what was there."""

    async def delete(self, keys: Sequence[bytes]) -> int:
        """Forget the keys; how many existed."""

    async def close(self) -> None:
        """Flush what was accepted, within a bound, and release threads and connections."""
