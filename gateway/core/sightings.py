"""`volatile.find`, paragraph by paragraph, remembering what was found: for texts that come again
and again with little changed.

Searching costs half a millisecond for each kilobyte, too much for every request; but of a prompt
that differs from the last one in a timestamp, all paragraphs but one are known.
Rule 1: what is found depends on the text alone, never on what was searched before, because
rewrites that depend on it must be the same on every turn of a conversation.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from gateway.core import volatile
from gateway.core import volatile_patterns as patterns
from gateway.core.volatile import Confidence, Kind, Sighting

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 256 * 1024
"""Characters of a text that are searched; what volatile text stands behind them costs little."""

_PARAGRAPH = "\n\n"
_LONG_PARAGRAPH = 512
_LONG_LINE = 1024
# No value of those that are looked for has such a place in it.
_BETWEEN_WORDS = re.compile(r"(?<=[a-z]{3}) (?=[a-z]{3})")
# What stands before a paragraph that a label or a doubt in it may reach back to.
_CONTEXT = max(patterns.LABEL_REACH, patterns.EXAMPLE_REACH) + 32
_KEPT_CHARACTERS = 4 * 1024 * 1024
_AT_ONCE = 4096


class _Searched(NamedTuple):
    """What one paragraph holds, positions counted from its beginning."""

    sightings: tuple[Sighting, ...]
    closes: int
    """Where an example that was open before it ends in it; -1: nowhere."""
    opens: bool | None
    """Whether an example is open behind it; None: as before it."""


@dataclass(slots=True)
class Effort:
    """What may still be done for one request, by who can wait for the rest till its texts come again:
    searching takes half a millisecond for a kilobyte of prose, and forty times as long where there
    is one date after the other.
    """

    characters: int = _AT_ONCE
    """Of paragraphs that are not known yet. One that is longer is never searched."""
    paragraphs: int = 8192
    sightings: int = 64

    def reads(self) -> bool:
        """May one paragraph more be looked at?"""
        self.paragraphs -= 1
        return self.paragraphs >= 0 and self.sightings > 0

    def searches(self, characters: int) -> bool:
        """May one of this length be searched, that is not known?"""
        if characters > self.characters:
            if characters <= _AT_ONCE:
                # What comes behind it has to wait, too.
                self.paragraphs = 0
            return False
        self.characters -= characters
        return True


class Sightings:
    """Remembers what paragraphs hold, the latest 4 million characters of them."""

    def __init__(self, kept_characters: int = _KEPT_CHARACTERS) -> None:
        """`kept_characters`: of the paragraphs that are remembered."""
        self._kept = kept_characters
        self._size = 0
        self._known: OrderedDict[tuple[str, str], _Searched] = OrderedDict()

    def find(self, text: str, effort: Effort | None = None) -> list[Sighting]:
        """The volatile pieces of a text, in order, none overlapping another. Never raises. `effort`
        bounds what is done, and is used up by it; without, the text is searched up to LONGEST.
        """
        found: list[Sighting] = []
        in_example = False
        for start, end in _paragraphs(text[:LONGEST]):
            if effort is not None and not effort.reads():
                break
            key = text[max(0, start - _CONTEXT) : start], text[start:end]
            known = self._known.get(key)
            if known is None:
                if effort is not None and not effort.searches(end - start):
                    continue
                known = self._search(key)
            else:
                self._known.move_to_end(key)
            if effort is not None:
                effort.sightings -= len(known.sightings)
            for sighting in known.sightings:
                doubted = in_example and not 0 <= known.closes <= sighting.start
                if doubted and sighting.kind is not Kind.BILLING_HEADER:
                    sighting = replace(sighting, confidence=Confidence.WEAK)  # noqa: PLW2901
                found.append(
                    replace(sighting, start=start + sighting.start, end=start + sighting.end)
                )
            if known.opens is not None:
                in_example = known.opens
        return found

    def _search(self, key: tuple[str, str]) -> _Searched:
        known = self._known[key] = _search(*key)
        self._size += len(key[0]) + len(key[1])
        while self._size > self._kept:
            (before, paragraph), _ = self._known.popitem(last=False)
            self._size -= len(before) + len(paragraph)
        return known


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Where each paragraph begins and ends. A long one is cut at its line ends: that a value in it
    gets longer moves no boundary outside of it. A long line is cut between two plain words, so that
    what stands at its head is searched however long it is.
    """
    start = 0
    while start < len(text):
        at = text.find(_PARAGRAPH, start)
        end = at + len(_PARAGRAPH) if at >= 0 else len(text)
        while end - start > _LONG_PARAGRAPH and (cut := _cut(text, start, end)):
            yield start, cut
            start = cut
        if start < end:
            yield start, end
        start = end


def _cut(text: str, start: int, end: int) -> int:
    """Where what begins at `start` is cut; 0 for nowhere."""
    least = start + _LONG_PARAGRAPH
    line_end = text.find("\n", least, min(end, least + _LONG_LINE)) + 1
    if line_end or end - start <= _LONG_LINE:
        return line_end
    line_end = text.rfind("\n", start, least) + 1
    if line_end:
        return line_end
    between = _BETWEEN_WORDS.search(text, least, min(end, least + _LONG_LINE))
    return 0 if between is None else between.end()


def _search(before: str, paragraph: str) -> _Searched:
    shift = len(before)
    sightings = tuple(
        replace(each, start=each.start - shift, end=each.end - shift)
        for each in volatile.find(before + paragraph)
        if each.start >= shift
    )
    closes, opens = -1, None
    for edge in patterns.EXAMPLE_EDGE.finditer(paragraph):
        opens = edge["open"] is not None or edge["example_heading"] is not None
        if not opens and closes < 0:
            closes = edge.start()
    return _Searched(sightings, closes, opens)
