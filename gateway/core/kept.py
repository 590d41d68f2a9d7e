"""What requests have had a provider's cache keep, as far as we know: `Kept`.

Rule 1: what was ever kept is remembered after it has expired or was lost: only so can it be told
that it was missed.
Rule 2: fingerprints, counts and times; bounded in bytes: what was met longest ago is forgotten.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

ENTRY_BYTES = 180
"""What an entry takes with its place in the table."""
PREFIX_BYTES = 100
"""What a prefix takes of which is known that somebody sent it."""
MOST_MACHINES = 16
"""On which one prefix is remembered: those that used it last."""


class Entry:
    """A prefix that was written, on one machine."""

    __slots__ = ("about", "lost", "machine", "ready_at", "tokens", "ttl_s", "used_at")

    def __init__(self, machine: str, ttl_s: float, used_at: float, ready_at: float) -> None:
        self.machine = machine
        self.ttl_s = ttl_s
        self.used_at = used_at
        """Start of the request that wrote or last read it: its lifetime counts from there."""
        self.ready_at = ready_at
        """When the answer to its writer began: it can be read from then on."""
        self.tokens = 0
        """Exactly, where an answer has told; else 0."""
        self.about = 0
        """In proportion to what its writer's whole prompt came to; 0 until that was told."""
        self.lost = False
        """It was to be read, and was not there."""

    def is_alive(self, now: float) -> bool:
        """It has not expired."""
        return now <= self.used_at + self.ttl_s


Entries: TypeAlias = tuple[Entry, ...]
_USED_AT = attrgetter("used_at")


class Kept:
    """Entries by the fingerprint of their prefix, within `budget_bytes`."""

    def __init__(self, budget_bytes: int) -> None:
        self._half = budget_bytes // 2
        # As in `core.prefix_tree`: what is met in the old half moves to the young one.
        self._young: dict[int, Entries] = {}
        self._old: dict[int, Entries] = {}
        self._bytes = [0, 0]

    def __repr__(self) -> str:
        return f"<Kept {len(self)} prefixes>"

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    @property
    def size_bytes(self) -> int:
        """About what it takes."""
        return sum(self._bytes)

    def find(self, prefix: int) -> Entries:
        """On which machines it was written; empty for a prefix that nobody is known to have sent,
        and for one that was sent and not written.
        """
        return self._young.get(prefix) or self._old.get(prefix) or ()

    def known(self, prefixes: Sequence[int]) -> list[int]:
        """Which of them `find` has something for: their places, the last first."""
        young, old = self._young, self._old
        if young.keys().isdisjoint(prefixes) and old.keys().isdisjoint(prefixes):
            return []
        return [
            at
            for at in range(len(prefixes) - 1, -1, -1)
            if young.get(prefixes[at]) or old.get(prefixes[at])
        ]

    def knows(self, prefix: int) -> bool:
        """Was it sent?"""
        return prefix in self._young or prefix in self._old

    def note(self, prefix: int) -> None:
        """It was sent, or is met again."""
        if prefix not in self._young:
            self._set(prefix, self._old.get(prefix, ()))

    def on(self, prefix: int, machine: str) -> Entry | None:
        """What was written on that machine."""
        return _among(self.find(prefix), machine)

    def write(self, prefix: int, entry: Entry) -> Entry:
        """It was written, once more perhaps: what is kept of it then."""
        others = self.find(prefix)
        if not others:
            self._set(prefix, (entry,))
            return entry
        before = _among(others, entry.machine)
        if before is None:
            if len(others) >= MOST_MACHINES:
                # Each of many users may have a machine of their own: it is copied with every one.
                least = min(others, key=_USED_AT)
                others = tuple(each for each in others if each is not least)
            self._set(prefix, (*others, entry))
            return entry
        self.note(prefix)
        if before.is_alive(entry.used_at) and not before.lost:
            entry.ttl_s = max(entry.ttl_s, before.ttl_s)
        before.ttl_s, before.ready_at = entry.ttl_s, min(entry.ready_at, before.ready_at)
        before.used_at = max(entry.used_at, before.used_at)
        before.lost = False
        return before

    def remove(self, prefix: int, entry: Entry) -> None:
        """It was not written after all."""
        left = tuple(each for each in self.find(prefix) if each is not entry)
        self._set(prefix, left)

    def _set(self, prefix: int, entries: Entries) -> None:
        for number, half in enumerate((self._young, self._old)):
            if (known := half.pop(prefix, None)) is not None:
                self._bytes[number] -= PREFIX_BYTES + ENTRY_BYTES * len(known)
        size = PREFIX_BYTES + ENTRY_BYTES * len(entries)
        if self._bytes[0] + size > self._half:
            self._old, self._bytes[1] = self._young, self._bytes[0]
            self._young, self._bytes[0] = {}, 0
        self._young[prefix] = entries
        self._bytes[0] += size


def _among(entries: Entries, machine: str) -> Entry | None:
    for each in entries:
        if each.machine == machine:
            return each
    return None
