"""Where the parts of a JSON text stand, so that one can be cut out or put in and every other
character stays as it was.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

_SPACE = re.compile(r"[ \t\n\r]*")


# In a text that is known to be JSON nothing else than a list of numbers looks like this. Vectors
# are most of an answer, and nobody has to read them to find their end.
_NUMBERS = re.compile(r"\[[ \t\n\r]*-?[0-9][-+.0-9eE, \t\n\r]*\]")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Span:
    """One value: it stands at `text[start:end]`. Opened ones hold their parts, others a `value`."""

    start: int
    end: int
    value: Any = None
    numbers: bool = False
    """A list of numbers, one at least, that was not opened and has no `value`."""
    members: dict[str, Span] = field(default_factory=dict)
    items: tuple[Span, ...] = ()

    def of(self, text: str) -> str:
        """How it is spelled."""
        return text[self.start : self.end]


def locate(text: str, depth: int, *, is_json: bool = False) -> Span:
    """The one value of a JSON text, objects and lists opened `depth` levels deep, what is deeper
    as plain Python values. Raises ValueError for what is no JSON, or names a member of an opened
    object twice. `is_json` spares the proof for a text that was located before.
    """
    if not is_json:
        orjson.loads(text)  # from here on only ends have to be found
    try:
        return _value(text, _skip(text, 0), depth)
    except (IndexError, RecursionError) as error:
        raise ValueError("cut short, or nested too deeply") from error


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # it matches nothing, too
    return match.end()


def _value(text: str, at: int, depth: int) -> Span:
    if depth and text[at] == "{":
        return _object(text, at, depth)
    if depth and text[at] == "[":
        return _list(text, at, depth)
    if (vector := _NUMBERS.match(text, at)) is not None:
        return Span(at, vector.end(), numbers=True)
    value, end = _DECODER.raw_decode(text, at)
    return Span(at, end, value)


def _object(text: str, start: int, depth: int) -> Span:
    members: dict[str, Span] = {}
    at = _skip(text, start + 1)
    if text[at] == "}":
        return Span(start, at + 1, {})
    while True:
        name, at = _DECODER.raw_decode(text, at)
        if name in members:
            raise ValueError(f"{name} is named twice")
        colon = _skip(text, at)
        members[name] = _value(text, _skip(text, colon + 1), depth - 1)
        at = _skip(text, members[name].end)
        if text[at] == "}":
            return Span(start, at + 1, members=members)
        at = _skip(text, at + 1)


def _list(text: str, start: int, depth: int) -> Span:
    items: list[Span] = []
    at = _skip(text, start + 1)
    if text[at] == "]":
        return Span(start, at + 1, [])
    while True:
        items.append(_value(text, at, depth - 1))
        at = _skip(text, items[-1].end)
        if text[at] == "]":
            return Span(start, at + 1, items=tuple(items))
        at = _skip(text, at + 1)


def replaced(text: str, changes: Iterable[tuple[Span, str]], start: int = 0, end: int = -1) -> str:
    """The text (or `text[start:end]`) with each span spelled anew. Spans may not overlap."""
    out: list[str] = []
    at = start
    for span, spelled in sorted(changes, key=lambda change: change[0].start):
        out += (text[at : span.start], spelled)
        at = span.end
    out.append(text[at : len(text) if end < 0 else end])
    return "".join(out)
