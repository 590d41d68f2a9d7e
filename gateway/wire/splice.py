"""Changes to a raw JSON text that leave every other byte as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from gateway.wire.seek import Member


class Edit(NamedTuple):
    """`text[start:end]` becomes `new`; where both are equal, `new` is put in."""

    start: int
    end: int
    new: bytes


class Taken(ValueError):
    """A member of this name says something else already; `str()` is the name."""


def applied(text: bytes, edits: Iterable[Edit]) -> bytes:
    """The text with these changes, which are in its order and don't overlap."""
    out: list[bytes] = []
    at = 0
    for start, end, new in edits:
        out += (text[at:start], new)
        at = end
    out.append(text[at:])
    return b"".join(out)


def without(spans: Sequence[tuple[int, int]], gone: Sequence[bool]) -> Iterator[Edit]:
    """The edits that take some items (or members) out of a list (or object), with their commas."""
    index = 0
    while index < len(spans):
        if not gone[index]:
            index += 1
            continue
        first = index
        while index < len(spans) and gone[index]:
            index += 1
        if first:
            yield Edit(spans[first - 1][1], spans[index - 1][1], b"")
        elif index < len(spans):
            yield Edit(spans[0][0], spans[index][0], b"")
        else:
            yield Edit(spans[0][0], spans[-1][1], b"")


def rewritten(
    text: bytes,
    opened: int,
    members: Sequence[Member],
    *,
    removed: Collection[str] = (),
    added: Mapping[str, bytes],
    replaces: bool = False,
) -> Iterator[Edit]:
    """The edits that take members out of an object, and put others in behind the last.

    `opened` is where the first member would stand. A member that is to be added takes the place of
    one of its name that is null, or to be removed, or any where `replaces`; else `Taken`.
    """
    waiting = dict(added)
    gone: list[bool] = []
    for member in members:
        new = waiting.pop(member.name, None)
        if new is None:
            gone.append(member.name in removed)
            continue
        gone.append(False)
        is_free = replaces or member.name in removed
        if not is_free and text[member.value : member.end] != b"null":
            raise Taken(member.name)
        yield Edit(member.value, member.end, new)
    yield from without([(member.start, member.end) for member in members], gone)
    if waiting:
        spelled = b",".join(b'"' + name.encode() + b'":' + new for name, new in waiting.items())
        comma = b"" if all(gone) else b","
        at = members[-1].end if members else opened
        yield Edit(at, at, comma + spelled)
