"""Trails of conversations, turn after turn: what was read of a turn is not read again in the next.

Three steps, the second one wherever there is time: `begin`, `Reading.read`, `keep`. No content is
kept: fingerprints, sizes, places; bounded in bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import orjson

from gateway.core.blocks import Section
from gateway.core.trail import Trail
from gateway.wire.base import NotUnderstood
from gateway.wire.beginnings import Beginnings, Start
from gateway.wire.lenient import members, text
from gateway.wire.trail import (
    CHATS,
    COMPLETIONS,
    LONG_BYTES,
    MANY_STEPS,
    first_print,
    of_blocks,
    pieces_of,
    trail,
)

if TYPE_CHECKING:
    from gateway.core.canonical import Json
    from gateway.core.prefix import Path, PrefixBlock
    from gateway.wire import beginnings

WITH_TRAIL = CHATS | {COMPLETIONS}

BUDGET_BYTES = 16 * 1024 * 1024
_MOST_PIECES = 100_000
"""Of all long texts together: 2 KiB of text each, about 40 bytes here."""
_MESSAGES = Section.MESSAGES


class Read(NamedTuple):
    """What the way of a request depends on."""

    trail: Trail
    lead: int = 0
    """Steps before the conversation: tools and system texts; 0 where that can't be told."""
    previous: str = ""
    """The response that it continues, by the id that its server gave it."""
    has_slot: bool = False
    """It says itself where in the replica it is to be computed."""


class Reading:
    """A body that is about to be read, and what is known of its beginning."""

    def __init__(
        self, api: str, body: bytes, start: Start | None, known: OrderedDict[int, tuple[int, ...]]
    ) -> None:
        self.start = start
        self.reading: beginnings.Reading | None = None
        self.fresh: dict[int, tuple[int, ...]] = {}
        """The pieces of long texts that were not known yet."""
        self._api = api
        self._body = body
        self._known = known

    def read(self, seed: bytes = b"") -> Read:
        """Read it, in any thread. `seed` is whatever keeps caches apart and is not in the body.

        Raises ValueError (of JSON, of encoding) for what can't be read.
        """
        start = self.start
        if start is None:
            document: Json = orjson.loads(self._body)
            return _told(document, trail(self._api, document, seed), 0)
        try:
            reading = start.read()
            pieces = self._pieces(start, reading)
            if pieces is None:
                # What was left out holds long texts that are forgotten.
                start = self.start = Start(self._api, self._body, None, start.keys, None, None)
                reading = start.read()
                pieces = self._pieces(start, reading)
        except NotUnderstood:
            return Read(Trail())
        self.reading = reading
        blocks = reading.prompt.blocks
        found = of_blocks(blocks, pieces or {}, first_print(members(reading.document), seed))
        return _told(reading.document, found, _lead(blocks, pieces or {}))

    def _pieces(
        self, start: Start, reading: beginnings.Reading
    ) -> dict[int, tuple[int, ...]] | None:
        """Of its long texts, by the digest of their blocks."""
        found: dict[int, tuple[int, ...]] = {}
        for block in reading.prompt.blocks:
            if block.size <= LONG_BYTES:
                continue
            known = self._known.get(block.digest)
            if known is None:
                path = _stands_at(block.path, start)
                if path is None:
                    return None
                known = self.fresh[block.digest] = pieces_of(block, reading.document, path)
            found[block.digest] = known
        return found


class Trails:
    """Remembers what bodies were read as. For one event loop."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        """About so many bytes are kept."""
        self._beginnings = Beginnings(budget_bytes)
        self._pieces: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._count = 0

    def __repr__(self) -> str:
        return f"<Trails of {self._beginnings!r}, {self._count} pieces>"

    def begin(self, api: str, body: bytes) -> Reading:
        """What is known of a body."""
        start = self._beginnings.begin(api, body, None) if api in CHATS else None
        return Reading(api, body, start, self._pieces)

    def keep(self, done: Reading) -> None:
        """Remember what was read."""
        for digest, pieces in done.fresh.items():
            if digest not in self._pieces:
                self._pieces[digest] = pieces
                self._count += len(pieces) + 1
        while self._count > _MOST_PIECES:
            self._count -= len(self._pieces.popitem(last=False)[1]) + 1
        if done.start is not None and done.reading is not None:
            self._beginnings.keep(done.start, done.reading)


def _told(document: Json, found: Trail, lead: int) -> Read:
    body = members(document)
    return Read(found, lead, text(body.get("previous_response_id")), "id_slot" in body)


def _lead(blocks: tuple[PrefixBlock, ...], pieces: dict[int, tuple[int, ...]]) -> int:
    steps = 0
    for block in blocks:
        if block.section is _MESSAGES:
            break
        steps += 1 + (len(pieces.get(block.digest, ())) if block.size > LONG_BYTES else 0)
    return steps if steps <= MANY_STEPS else 0


def _stands_at(path: Path, start: Start) -> Path | None:
    """Where what had this place in the body stands in the document; None where it was left out."""
    skipped = start.skipped
    if skipped is None or path[0] not in {"messages", "input"} or len(path) < 2:
        return path
    index = path[1]
    assert isinstance(index, int)
    if index < skipped.before:
        return path
    if index < skipped.before + skipped.left_out:
        return None
    return (path[0], index - skipped.left_out, *path[2:])
