"""Changes of a JSON text piece by piece: every character that no change names stays the client's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import orjson

from gateway.wire.spans import locate, opened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from gateway.core.prefix import Path
    from gateway.core.volatile_text import Replacement
    from gateway.wire.spans import Span

_SPACE = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")


class Edit(NamedTuple):
    """`text[start:end]` becomes `new`."""

    start: int
    end: int
    new: str


class Entry(NamedTuple):
    """One member of an object: name, colon and value stand at `text[start:value.end]`."""

    name: str
    start: int
    value: Span

    def of(self, text: str) -> str:
        """How it is spelled."""
        return text[self.start : self.value.end]


def edited(text: str, edits: Iterable[Edit], start: int = 0, end: int | None = None) -> str:
    """The text (or `text[start:end]`) with the edits made. They may not overlap."""
    parts: list[str] = []
    at = start
    for edit in sorted(edits):
        parts += (text[at : edit.start], edit.new)
        at = edit.end
    parts.append(text[at : len(text) if end is None else end])
    return "".join(parts)


def entries(text: str, span: Span) -> Iterator[Entry]:
    """The members of an opened object in the order they stand in."""
    at = span.start + 1
    for name, value in span.members.items():
        comma = _COMMA.match(text, at)
        start = comma.end() if comma is not None else _after_space(text, at)
        yield Entry(name, start, value)
        at = value.end


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def arranged(text: str, span: Span, old: Sequence[tuple[int, int]], new: Sequence[str]) -> str:
    """An opened list or object with its parts (which stand at `old`) replaced one by one, white
    space and commas between them left as they are.
    """
    edits = [Edit(start, end, part) for (start, end), part in zip(old, new, strict=True)]
    return edited(text, edits, span.start, span.end)


def removals(parts: Sequence[tuple[int, int]], gone: Collection[int]) -> list[Edit]:
    """What takes some parts (by index) out of a list or object, with the commas that are too many
    then. `parts` are where all of them stand.
    """
    kept = [index for index in range(len(parts)) if index not in gone]
    if not kept:
        return [Edit(parts[0][0], parts[-1][1], "")]
    edits = [Edit(parts[0][0], parts[kept[0]][0], "")] if kept[0] else []
    return edits + [
        Edit(parts[index - 1][1], parts[index][1], "") for index in gone if index > kept[0]
    ]


class Located:
    """A JSON text whose parts are opened when they are asked for, each once."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is no JSON, as each look does for a member named twice."""
        self.text = text
        self._opened: dict[Path, Span] = {(): locate(text, 1)}

    def opened(self, path: Path) -> Span:
        """The value at a path, its own parts located. Raises LookupError where there is none."""
        found = self._opened.get(path)
        if found is None:
            found = self._opened[path] = opened(self.text, self.closed(path), 1)
        return found

    def closed(self, path: Path) -> Span:
        """Where the value at a path stands. Raises LookupError where there is none."""
        owner, step = self.opened(path[:-1]), path[-1]
        return owner.items[step] if isinstance(step, int) else owner.members[step]

    def parts(self, path: Path) -> list[tuple[int, int]]:
        """Where the items of a list stand, or the members of an object."""
        owner = self.opened(path)
        if owner.items:
            return [(item.start, item.end) for item in owner.items]
        return [(entry.start, entry.value.end) for entry in entries(self.text, owner)]


_UNIT = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^\\]+",
    re.DOTALL,
)


def respelled(literal: str, replacements: Sequence[Replacement]) -> str:
    """A JSON string literal with some characters of the string that it spells replaced; the others
    keep their spelling. `replacements` count characters of the string, in order.
    """
    inner = literal[1:-1]
    if "\\" not in inner:
        edits = [Edit(start, end, _escaped(new)) for start, end, new in replacements]
        return f'"{edited(inner, edits)}"'
    wanted = sorted({at for each in replacements for at in (each.start, each.end)})
    found: dict[int, int] = {}
    position = 0
    for unit in _UNIT.finditer(inner):
        plain = inner[unit.start()] != "\\"
        size = unit.end() - unit.start() if plain else 1
        while wanted and wanted[0] <= position + size:
            ahead = wanted[0] - position
            # An escape is one character, whatever it takes to spell it.
            at = unit.start() + ahead if plain else (unit.end() if ahead else unit.start())
            found[wanted.pop(0)] = at
        position += size
        if not wanted:
            break
    edits = [Edit(found[start], found[end], _escaped(new)) for start, end, new in replacements]
    return f'"{edited(inner, edits)}"'


def _escaped(text: str) -> str:
    return orjson.dumps(text).decode()[1:-1]


def literal(text: str) -> str:
    """The JSON string that spells a text."""
    return orjson.dumps(text).decode()
