"""What operators have declared dead: marks under names, and which entries they kill.

Rule 1: an entry is dead when a mark under one of its names is above the entry's generation, or
reaches beyond the time at which it was stored.
Rule 2: marks only rise. Sets of marks joined in any order, any number of times, are the same.
Rule 3: a name that is forgotten leaves its mark to its kind (`tag:` for `tag:a`): more entries die
than were meant, never fewer.

The sequence of a mark is unique and rises over all names. An entry's generation is the highest
sequence that was known when its *request* was looked up: an answer that was asked for before a
purge and stored after it is dead too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.core.model import Entry

ALL = "*"
"""The name that every entry has."""

TAG = "tag:"
MODEL = "model:"
KEY = "key:"
"""Kinds of names: an entry has the bare kind too, a tagged one at least."""

MOST_NAMES = 10_000
"""Names that are remembered; beyond it the oldest quarter is folded into the names of the kinds."""

MOST_TAGS = 16
_TAG = re.compile(r"[!-+\--~]{1,128}")


class Mark(NamedTuple):
    """Entries of lower generations are dead, and those stored before a time (since the epoch)."""

    sequence: int = 0
    before: float = 0.0

    def joined(self, other: Mark) -> Mark:
        """What either of them kills."""
        return Mark(max(self.sequence, other.sequence), max(self.before, other.before))

    def covers(self, other: Mark) -> bool:
        """Does it kill whatever the other does?"""
        return self.sequence >= other.sequence and self.before >= other.before


NOTHING = Mark()


def tags(values: Iterable[str]) -> tuple[str, ...] | None:
    """The tags in the lines of `x-gateway-cache-tags`, sorted; None when they can't all be kept.

    A tag is 1 to 128 visible ASCII characters without a comma; there may be 16.
    """
    found = {tag for value in values for each in value.split(",") if (tag := each.strip())}
    if len(found) > MOST_TAGS or not all(map(_TAG.fullmatch, found)):
        return None
    return tuple(sorted(found))


def names(entry: Entry) -> list[str]:
    """The names under which the entry can be purged."""
    found = [ALL, KEY, KEY + entry.key_hex8, MODEL, MODEL + entry.model]
    if entry.tags:
        found.append(TAG)
        found += [TAG + tag for tag in entry.tags]
    return found


def kind(name: str) -> str:
    """The name that a forgotten one leaves its mark to; a kind and `*` are their own."""
    head, colon, _ = name.partition(":")
    return head + colon


def covered(marks: Mapping[str, Mark], name: str, mark: Mark) -> bool:
    """Do `marks` kill whatever `mark` under `name` kills?"""
    known = marks.get(name, NOTHING).joined(marks.get(kind(name), NOTHING))
    return known.joined(marks.get(ALL, NOTHING)).covers(mark)


JITTER_BITS = 10


def following(sequence: int, now: float, jitter: int) -> int:
    """A sequence above the one given, and above all that a register forgot which lost its marks:
    microseconds since the epoch, unless the clock was set back. `now` is seconds.

    `jitter` is a random number of 10 bits: without it a register that lost its last write, under a
    clock that was set back, would give the same sequence to another purge.
    """
    return max(sequence + 1 + jitter, int(now * 1e6))


class Marks:
    """The marks that are known here, and the highest `sequence` among all that ever were."""

    __slots__ = ("_before", "_marks", "_most", "sequence")

    def __init__(self, most: int = MOST_NAMES) -> None:
        """Remember at most `most` names."""
        self.sequence = 0
        self._before = 0.0
        self._marks: dict[str, Mark] = {}
        self._most = most

    def __repr__(self) -> str:
        return f"<Marks under {len(self._marks)} names, sequence {self.sequence}>"

    def __len__(self) -> int:
        return len(self._marks)

    def get(self, name: str) -> Mark:
        """The mark under exactly this name."""
        return self._marks.get(name, NOTHING)

    def all(self) -> dict[str, Mark]:
        """Every mark by its name."""
        return dict(self._marks)

    def kill(self, entry: Entry) -> bool:
        """Is the entry dead?"""
        if entry.generation >= self.sequence and entry.stored_at >= self._before:
            return False
        for name in names(entry):
            mark = self._marks.get(name)
            if mark is not None and (
                mark.sequence > entry.generation or mark.before > entry.stored_at
            ):
                return True
        return False

    def join(self, marks: Mapping[str, Mark], sequence: int) -> None:
        """Take over what others know."""
        self.sequence = max(self.sequence, sequence)
        for name, mark in marks.items():
            joined = self.get(name).joined(mark)
            self._marks[name] = joined
            self.sequence = max(self.sequence, joined.sequence)
            self._before = max(self._before, joined.before)
        if len(self._marks) > self._most:
            self._marks = folded(self._marks, self._most)

    def covers(self, name: str, mark: Mark) -> bool:
        """Is whatever the mark kills dead already?"""
        return covered(self._marks, name, mark)

    def lacking(self, marks: Mapping[str, Mark]) -> dict[str, Mark]:
        """Those that kill what `marks` don't."""
        return {n: m for n, m in self._marks.items() if not covered(marks, n, m)}


def folded(marks: Mapping[str, Mark], most: int) -> dict[str, Mark]:
    """The same in at most `most` names, or the few of the kinds: where there are more, the oldest
    go, until three quarters are left.
    """
    kept = {
        name: mark
        for name, mark in marks.items()
        if kind(name) == name or not _covered_by_others(marks, name, mark)
    }
    if len(kept) <= most:
        return kept
    foldable = sorted((name for name in kept if kind(name) != name), key=lambda n: _age(kept[n]))
    for name in foldable[: len(kept) - most * 3 // 4]:
        mark = kept.pop(name)
        kept[kind(name)] = kept.get(kind(name), NOTHING).joined(mark)
    return kept


def _covered_by_others(marks: Mapping[str, Mark], name: str, mark: Mark) -> bool:
    return marks.get(kind(name), NOTHING).joined(marks.get(ALL, NOTHING)).covers(mark)


def _age(mark: Mark) -> float:
    # Sequences are microseconds since the epoch, unless the clock was set back.
    return max(mark.sequence, mark.before * 1e6)
