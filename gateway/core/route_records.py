"""What gateways tell each other of a placement and of what came of it: `RouteRecord`, and its bytes.

Rule 1: what can't be read (another version, cut short, too long) is None, never an error.
Rule 2: no content, no credentials: prints, counts, digests of ids, and names of replicas.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from struct import error as struct_error
from typing import NamedTuple

from gateway.core.trail import Trail

VERSION = 1
MOST_STEPS = 512
"""Of a trail that is told."""
_MOST_NAME = 0xFFFF


class RecordKind(IntEnum):
    """What happened."""

    PLACED = 1
    BEGUN = 2
    """The first byte is here."""
    OVER = 3
    MADE = 4
    """Its answer is kept by the replica, and others may go on from it."""


class RouteRecord(NamedTuple):
    """One thing that happened to one request."""

    kind: RecordKind
    gateway: int
    """Who says it: a number that is drawn when a gateway starts."""
    number: int
    """Of the request, in that gateway."""
    backend: str
    at: float
    """Wall clock, seconds since 1970."""
    trail: Trail = Trail()
    """Of PLACED only."""
    session: int = 0
    """Of PLACED; of MADE the digest of the answer's id."""
    uncached: int = 0
    """Tokens that the replica was thought to have to compute."""
    streamed: bool = True
    """Its first byte will come when the prompt is computed, not with the whole answer."""


# version, kind, flags, name's length, gateway, number, at, session, uncached, steps
_HEAD = Struct("<BBBHQQdQIH")
_U64 = (1 << 64) - 1
_U32 = (1 << 32) - 1


def encode(record: RouteRecord) -> bytes:
    """The record as bytes: about 12 for each step."""
    name = record.backend.encode("utf-8", "surrogatepass")[:_MOST_NAME]
    prints, ends = record.trail.prints, record.trail.ends
    if len(prints) > MOST_STEPS:
        prints, ends = _thinned(record.trail)
    count = len(prints)
    head = _HEAD.pack(
        VERSION,
        record.kind,
        record.trail.is_open | record.streamed << 1,
        len(name),
        record.gateway & _U64,
        record.number & _U64,
        record.at,
        record.session & _U64,
        min(max(record.uncached, 0), _U32),
        count,
    )
    layout = Struct(f"<{count}Q{count}I")
    try:
        steps = layout.pack(*prints, *ends)
    except struct_error:
        steps = layout.pack(
            *(each & _U64 for each in prints), *(min(max(each, 0), _U32) for each in ends)
        )
    return head + name + steps


def decode(record: bytes) -> RouteRecord | None:
    """The record; None where these bytes are none that we know."""
    if len(record) < _HEAD.size:
        return None
    version, kind, flags, length, gateway, number, at, session, uncached, count = _HEAD.unpack_from(
        record
    )
    if version != VERSION or kind not in tuple(RecordKind) or count > MOST_STEPS:
        return None
    if len(record) != _HEAD.size + length + 12 * count or at != at:  # noqa: PLR0124 - not a number
        return None
    try:
        name = record[_HEAD.size : _HEAD.size + length].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    steps = Struct(f"<{count}Q{count}I").unpack_from(record, _HEAD.size + length)
    trail = Trail(steps[:count], steps[count:], bool(flags & 1))
    # (Nobody can have been given more to compute than there is.)
    uncached = min(uncached, trail.tokens)
    return RouteRecord(
        RecordKind(kind), gateway, number, name, at, trail, session, uncached, bool(flags & 2)
    )


def _thinned(trail: Trail) -> tuple[tuple[int, ...], tuple[int, ...]]:
    # The first ones as they are, or who hears of it could not tell how far another prompt is held;
    # and the last two, by which the conversation is known.
    first = MOST_STEPS - 2
    return trail.prints[:first] + trail.prints[-2:], trail.ends[:first] + trail.ends[-2:]
