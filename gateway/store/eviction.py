"""A mapping with a byte budget that survives scans: S3-FIFO.

New values go into a small queue, a tenth of the budget. What is used there goes on to the main
queue, what is not goes, and only its key's hash is remembered: if it comes back soon it goes
straight into the main queue. So a scan, which asks for nothing twice, flows through the small queue.
Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

V = TypeVar("V")

_SMALL_PART = 10
_MOST_USES = 3


class _Kept(Generic[V]):
    __slots__ = ("size_bytes", "uses", "value")

    def __init__(self, value: V, size_bytes: int) -> None:
        self.value = value
        self.size_bytes = size_bytes
        self.uses = 0


class ScanProof(Generic[V]):
    """Values under byte keys, their sizes at most `budget_bytes` together. For one thread."""

    __slots__ = ("_ghosts", "_gone", "_main", "_small", "_small_bytes", "_used", "budget")

    def __init__(self, budget_bytes: int) -> None:
        """What a value costs is the caller's to say. Each kept one may have a ghost, of 100 bytes."""
        self.budget = budget_bytes
        self._used = 0
        self._small: OrderedDict[bytes, _Kept[V]] = OrderedDict()
        self._small_bytes = 0
        self._main: OrderedDict[bytes, _Kept[V]] = OrderedDict()
        # What went unused lately, as many as are kept, in their order. By hash: one key taken for
        # another only gets a better place than it has earned.
        self._gone: deque[int] = deque()
        self._ghosts: set[int] = set()

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def __contains__(self, key: bytes) -> bool:
        return key in self._main or key in self._small

    def keys(self) -> list[bytes]:
        """The keys that are kept now."""
        return [*self._main, *self._small]

    @property
    def used_bytes(self) -> int:
        """The sizes of all values together."""
        return self._used

    def get(self, key: bytes) -> V | None:
        """The value, which counts as a use."""
        kept = self._main.get(key) or self._small.get(key)
        if kept is None:
            return None
        if kept.uses < _MOST_USES:
            kept.uses += 1
        return kept.value

    def put(self, key: bytes, value: V, size_bytes: int) -> None:
        """Keep the value in place of a former one; others go for it. `size_bytes` must be within
        the budget.
        """
        kept = _Kept(value, size_bytes)
        if (former := self._main.get(key)) is not None:
            # In its former place, with its uses: what is replaced is wanted no less.
            kept.uses = former.uses
            self._used -= former.size_bytes
            self._main[key] = kept
        elif (former := self._small.get(key)) is not None:
            kept.uses = former.uses
            self._used -= former.size_bytes
            self._small_bytes += size_bytes - former.size_bytes
            self._small[key] = kept
        elif hash(key) in self._ghosts:
            self._ghosts.remove(hash(key))
            self._main[key] = kept
        else:
            self._small_bytes += size_bytes
            self._small[key] = kept
        self._used += size_bytes
        while self._used > self.budget:
            if self._small_bytes * _SMALL_PART > self.budget or not self._main:
                self._shorten_small()
            else:
                self._shorten_main()

    def pop(self, key: bytes) -> V | None:
        """Forget the key; the value that was there."""
        kept = self._main.pop(key, None)
        if kept is None:
            kept = self._small.pop(key, None)
            if kept is None:
                return None
            self._small_bytes -= kept.size_bytes
        self._used -= kept.size_bytes
        return kept.value

    def clear(self) -> None:
        """Forget everything."""
        for each in (self._small, self._main, self._gone, self._ghosts):
            each.clear()
        self._used = self._small_bytes = 0

    def _shorten_small(self) -> None:
        key, kept = self._small.popitem(last=False)
        self._small_bytes -= kept.size_bytes
        if kept.uses:
            kept.uses = 0
            self._main[key] = kept
            return
        self._used -= kept.size_bytes
        self._gone.append(hash(key))
        self._ghosts.add(hash(key))
        while len(self._gone) > len(self) + 1:
            self._ghosts.discard(self._gone.popleft())

    def _shorten_main(self) -> None:
        key, kept = self._main.popitem(last=False)
        if kept.uses:
            kept.uses -= 1
            self._main[key] = kept
        else:
            self._used -= kept.size_bytes
