"""`volatile.find`, paragraph by paragraph, remembering what was found: for texts that come again
and again with little changed.

Searching costs half a millisecond for each kilobyte, too much for every request; but of a prompt
that differs from the last one in a timestamp, all paragraphs but one are known.
Rule 1: what is found depends on the text alone, never on what was searched before, because
rewrites that depend on it must be the same on every turn of a conversation.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
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
# What stands before a paragraph that a label or a doubt in it may reach back to.
_CONTEXT = max(patterns.LABEL_REACH, patterns.EXAMPLE_REACH) + 32
_KEPT_CHARACTERS = 4 * 1024 * 1024


class _Searched(NamedTuple):
    """What one paragraph holds, positions counted from its beginning."""

    sightings: tuple[Sighting, ...]
    closes: int
    """Where an example that was open before it ends in it; -1: nowhere."""
    opens: bool | None
    """Whether an example is open behind it; None: as before it."""


class Sightings:
    """Remembers what paragraphs hold, the latest 4 million characters of them."""

    def __init__(
        self, kept_characters: int = _KEPT_CHARACTERS, searched_characters: int | None = None
    ) -> None:
        """`searched_characters`: of paragraphs not known yet so many at most are searched in one
        call, for who can wait for the rest till the text comes again. Unset: all.
        """
        self._kept = kept_characters
        self._searched_at_once = searched_characters
        self._size = 0
        self._known: OrderedDict[tuple[str, str], _Searched] = OrderedDict()

    def find(self, text: str) -> list[Sighting]:
        """The volatile pieces of a text, in order, none overlapping another. Never raises."""
        found: list[Sighting] = []
        in_example = False
        searched = 0
        for start, end in _paragraphs(text[:LONGEST]):
            key = text[max(0, start - _CONTEXT) : start], text[start:end]
            known = self._known.get(key)
            if known is None:
                if self._searched_at_once is not None and searched > self._searched_at_once:
                    break
                searched += end - start
                known = self._search(key)
            else:
                self._known.move_to_end(key)
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
    gets longer moves no boundary outside of it.
    """
    start = 0
    while start < len(text):
        at = text.find(_PARAGRAPH, start)
        end = at + len(_PARAGRAPH) if at >= 0 else len(text)
        while end - start > _LONG_PARAGRAPH:
            line_end = text.find("\n", start + _LONG_PARAGRAPH, end) + 1
            if not line_end:
                break
            yield start, line_end
            start = line_end
        if start < end:
            yield start, end
        start = end


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
