"""Where placements are told and heard: the contract of a journal, and what lies in it.

A frame is records of one gateway, in the order in which they came about. Nothing in it refers to
another frame: who joins late understands each one that is left.

    "wgr1"  gateway u64  sequence u64  checksum u64  records u16  (size u16, bytes) each

Rule 1: a frame that isn't whole, is larger than ours ever are, or of another version, is none.
Rule 2: of one gateway, frames with a sequence that was heard already are old news: whoever does not
know whether a frame arrived sends it again.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

import xxhash

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

FRAME_BYTES = 64 * 1024
FRAME_RECORDS = 256
"""What one frame holds at most."""

HISTORY_RECORDS = 20_000
HISTORY_BYTES = 16 << 20
"""How much of what lies there is read when nothing of it is known, at most; the latest of it."""

_MAGIC = b"wgr1"
_HEAD = struct.Struct("<4sQQQH")
_SIZE = struct.Struct("<H")
_CHECKED_FROM = 28
"""Behind the checksum; what stands before it is its seed or tells what it is."""

RECORD_BYTES = FRAME_BYTES - _HEAD.size - _SIZE.size - 1
"""A record beyond this fits into no frame."""


class Frame(NamedTuple):
    """Records of one gateway."""

    gateway: int
    """64 random bits of the process that wrote it."""
    sequence: int
    """Rises with each frame of that gateway, from 1."""
    records: tuple[bytes, ...]


def packed(frame: Frame) -> bytes:
    """As it lies in a journal. The caller keeps to `FRAME_BYTES`, by `size_of` each record."""
    parts = [_SIZE.pack(len(frame.records))]
    for record in frame.records:
        parts += (_SIZE.pack(len(record)), record)
    rest = b"".join(parts)
    checksum = _checksum(frame.gateway, frame.sequence, rest)
    return struct.pack("<4sQQQ", _MAGIC, frame.gateway, frame.sequence, checksum) + rest


def size_of(record: bytes) -> int:
    """What the record adds to a frame."""
    return _SIZE.size + len(record)


def unpacked(blob: bytes) -> Frame | None:
    """The frame, or None for anything else."""
    if not _HEAD.size <= len(blob) <= FRAME_BYTES:
        return None
    magic, gateway, sequence, checksum, count = _HEAD.unpack_from(blob)
    if magic != _MAGIC or checksum != _checksum(gateway, sequence, blob[_CHECKED_FROM:]):
        return None
    records: list[bytes] = []
    place = _HEAD.size
    for _ in range(count):
        if place + _SIZE.size > len(blob):
            return None
        (size,) = _SIZE.unpack_from(blob, place)
        place += _SIZE.size
        records.append(blob[place : place + size])
        place += size
    return Frame(gateway, sequence, tuple(records)) if place == len(blob) else None


def records_in(blob: bytes) -> int:
    """How many records it says to hold, without a look at them; 0 for anything else."""
    if not _HEAD.size <= len(blob) <= FRAME_BYTES or not blob.startswith(_MAGIC):
        return 0
    count: int = _HEAD.unpack_from(blob)[4]
    return count


def _checksum(gateway: int, sequence: int, rest: bytes) -> int:
    return xxhash.xxh3_64_intdigest(rest, seed=gateway ^ sequence)


class Journal(Protocol):
    """What gateways that share a store tell of one pool. For one event loop."""

    kind: str
    """For people: redis, sqlite, none."""
    shared: bool
    """What others write is heard while we run."""
    lasting: bool
    """What is written can be read after a restart."""
    pace_s: float
    """Between two writes."""

    def follow(self) -> AsyncGenerator[Sequence[bytes], None]:
        """What lies in it: lately written frames, oldest first, then an empty portion: that is all
        so far; then what is added. Empty portions in between say that there is nothing new.

        Raises `StoreUnavailable`, nothing else, when it can't be had any more. Called again it goes
        on from there; a frame may come twice.
        """

    async def write(self, frames: Sequence[bytes]) -> None:
        """Add frames. Raises `StoreUnavailable`, nothing else: any of them may have been added."""

    async def close(self) -> None:
        """Close what is open."""


class NoJournal:
    """For a store that forgets with the process and that nobody shares."""

    kind = "none"
    shared = False
    lasting = False
    pace_s = 1.0

    async def follow(self) -> AsyncGenerator[Sequence[bytes], None]:
        """Nothing, ever."""
        yield ()
        await asyncio.Event().wait()

    async def write(self, frames: Sequence[bytes]) -> None:
        """Forgotten."""

    async def close(self) -> None:
        """Nothing is open."""
