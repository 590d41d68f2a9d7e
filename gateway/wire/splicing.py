"""Parts of a JSON text by their paths, each located when it is asked for, and changes to them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import orjson

from gateway.wire.seek import NotThere, Seeker, offsets
from gateway.wire.splice import applied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.prefix import Path
    from gateway.core.volatile_text import Replacement
    from gateway.wire.splice import Edit

_LIST, _OBJECT = b"[{"


class Part(NamedTuple):
    """An item of a list or a member of an object: it stands at `text[start:end]`, its value at
    `text[value:end]`.
    """

    step: str | int
    start: int
    value: int
    end: int


class Located:
    """A JSON text whose parts are looked for when they are asked for, each list and object once."""

    def __init__(self, text: bytes) -> None:
        """The text is JSON. Every method raises `NotThere` for what is none of its parts, and for an
        object that names a member twice.
        """
        self.text = text
        self._seek = Seeker(text)
        self._parts: dict[int, list[Part]] = {}
        self._whole = Part("", self._seek.begin(), self._seek.begin(), len(text))

    def part(self, path: Path, owner: Part | None = None) -> Part:
        """The part at a path, which begins at the owner, or at the whole."""
        found = owner or self._whole
        for step in path:
            inner = (each for each in self.parts(found) if each.step == step)
            found_there = next(inner, None)
            if found_there is None:
                raise NotThere(f"nothing is called {step}")
            found = found_there
        return found

    def parts(self, owner: Part) -> list[Part]:
        """The items or members of a part, in the order they stand in; none of any other value."""
        at = owner.value
        known = self._parts.get(at)
        if known is None:
            bracket = self.text[at]
            if bracket == _OBJECT:
                members, _ = self._seek.members(at)
                known = [Part(*member) for member in members]
                if len({part.step for part in known}) != len(known):
                    raise NotThere("a member is named twice")
            else:
                known = self._items(at) if bracket == _LIST else []
            self._parts[at] = known
        return known

    def _items(self, at: int) -> list[Part]:
        found: list[Part] = []
        at = self._seek.opened(at, _LIST)
        while (item := self._seek.item(at)) is not None:
            found.append(Part(len(found), at, at, item[0]))
            at = item[1]
        return found

    def spelled(self, part: Part) -> bytes:
        """How the part's value is spelled."""
        return self.text[part.value : part.end]


def arranged(located: Located, owner: Part, new: Sequence[bytes]) -> bytes:
    """A list or object with its parts (names of members included) replaced one by one; white space
    and commas between them stay.
    """
    parts = located.parts(owner)
    if not parts:
        return located.spelled(owner)
    out = [located.text[owner.value : parts[0].start], new[0]]
    for (one, other), spelled in zip(pairwise(parts), new[1:], strict=True):
        out += (located.text[one.end : other.start], spelled)
    out.append(located.text[parts[-1].end : owner.end])
    return b"".join(out)


def edited(located: Located, part: Part, edits: Sequence[Edit]) -> bytes:
    """A part (its name included) with some edits made in it."""
    inside = [
        edit._replace(start=edit.start - part.start, end=edit.end - part.start) for edit in edits
    ]
    return applied(located.text[part.start : part.end], sorted(inside))


def respelled(literal: bytes, replacements: Sequence[Replacement]) -> bytes:
    """A JSON string with some characters of what it says replaced; the others keep their spelling.
    `replacements` count characters, in order.
    """
    inner = literal[1:-1]
    length = len(orjson.loads(literal))
    cuts = sorted({at for each in replacements for at in each[:2] if 0 < at < length})
    places = {0: 0, length: len(inner), **dict(zip(cuts, offsets(inner, cuts), strict=True))}
    out: list[bytes] = []
    done = 0
    for start, end, new in replacements:
        out += (inner[done : places[start]], orjson.dumps(new)[1:-1])
        done = places[end]
    return b"".join((b'"', *out, inner[done:], b'"'))
