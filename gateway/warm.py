"""What was decoded and rendered lately: a hot entry is read, checked and rendered once, not each time.

Only for blobs of the memory tier, which stay the same object while they are kept: that is how it is
known that a remembered entry is the one in the store. Bounded in bytes; the first in goes first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.wire.live import ids_in

if TYPE_CHECKING:
    from gateway.core.model import Entry, Form
    from gateway.core.template import Template

_OVERHEAD_BYTES = 1500
_LARGEST_SHARE = 8


@dataclass(slots=True)
class WarmEntry:
    """An entry, the blob that it was decoded from, and its templates."""

    blob: bytes
    entry: Entry
    size_bytes: int
    ids: frozenset[str] | None
    """The ids in it; None where they can't be told."""
    templates: dict[tuple[Form, bool], Template | None] = field(default_factory=dict)


class Warm:
    """Remembers about `budget_bytes`; 0 remembers nothing. For one event loop."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._used = 0
        self._kept: dict[bytes, WarmEntry] = {}
        self._by_entry: dict[int, WarmEntry] = {}

    def __repr__(self) -> str:
        return f"<Warm {len(self._kept)} entries, {self._used} of {self._budget} B>"

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        return self._used

    def get(self, key: bytes, blob: bytes) -> Entry | None:
        """The entry that was decoded from this very blob."""
        warm = self._kept.get(key)
        return warm.entry if warm is not None and warm.blob is blob else None

    def put(self, key: bytes, blob: bytes, entry: Entry) -> None:
        """Remember it, unless it is too large a share of the whole."""
        self._forget(key)
        # The blob is the memory tier's, and counted there.
        size = len(entry.payload) + _OVERHEAD_BYTES
        if size * _LARGEST_SHARE > self._budget:
            return
        warm = self._kept[key] = WarmEntry(blob, entry, size, ids_in(entry.payload))
        self._by_entry[id(entry)] = warm
        self._grow(size)

    def of(self, entry: Entry) -> WarmEntry | None:
        """What is remembered of this very entry."""
        warm = self._by_entry.get(id(entry))
        return warm if warm is not None and warm.entry is entry else None

    def rendered(self, warm: WarmEntry, how: tuple[Form, bool], found: Template | None) -> None:
        """Remember a template, or that there is none."""
        warm.templates[how] = found
        if found is not None and id(warm.entry) in self._by_entry:
            warm.size_bytes += found.size_bytes
            self._grow(found.size_bytes)

    def _grow(self, size: int) -> None:
        self._used += size
        while self._used > self._budget and self._kept:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: bytes) -> None:
        warm = self._kept.pop(key, None)
        if warm is not None:
            self._used -= warm.size_bytes
            del self._by_entry[id(warm.entry)]
