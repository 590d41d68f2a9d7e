"""One differing piece of text: how far it reaches, what it is, and how a finding shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.core import canonical
from gateway.core.alignment import shared_end, shared_start
from gateway.core.canonical import Uncacheable
from gateway.core.volatile import Confidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.findings import What
    from gateway.core.volatile import Sighting


class Change(NamedTuple):
    """One place that changed, and what recurs behind it up to the next one."""

    what: What
    path: str
    excerpt: str
    lost_tokens: int
    in_conversation: bool = False
    """Whether one conversation's own turns differ here, not just two requests of one origin."""


class Side(NamedTuple):
    """A differing piece of a text, which is all of `text[start:end]`."""

    text: str
    start: int
    end: int


def narrowed(before: str, after: str) -> tuple[Side, Side]:
    """Both texts, without what is equal at their beginnings and ends."""
    start = shared_start(before, after)
    end = shared_end(before, after, min(len(before), len(after)) - start)
    return Side(before, start, len(before) - end), Side(after, start, len(after) - end)


def kind_of(side: Side, find: Callable[[str], list[Sighting]]) -> What | None:
    """What kind of volatile text the piece is, if a pattern knows it."""
    for sighting in find(side.text):
        if sighting.start <= side.start < sighting.end:
            return sighting.kind
        inside = side.start <= sighting.start < side.end
        short = side.end - side.start <= _LONGEST_NAMED
        if inside and short and sighting.confidence > Confidence.WEAK:
            return sighting.kind
    return None


# In a longer piece something will always look like a date or an id.
_LONGEST_NAMED = 160


def words(side: Side) -> str:
    """The differing piece, with the rest of the words that it cuts."""
    text, start, end = side
    low, high = max(0, start - _WORD), min(len(text), end + _WORD)
    while start > low and not text[start - 1].isspace():
        start -= 1
    while end < high and not text[end].isspace():
        end += 1
    return text[start:end]


_WORD = 32


def folded(text: str) -> bytes | None:
    """What a JSON text says, however it is spelled; None if it is none."""
    try:
        return canonical.encode(canonical.fold(canonical.parse(text.encode())))
    except (Uncacheable, UnicodeEncodeError):
        return None


def size(text: str) -> int:
    """UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
