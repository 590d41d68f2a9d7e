"""Records of placements, and a journal in memory that does what a test wants."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from gateway.core.route_records import RecordKind, RouteRecord
from gateway.core.trail import Trail
from gateway.store.base import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence


def placed(gateway: int, number: int, steps: int = 5) -> RouteRecord:
    """A prompt of so many steps, its prints by its number."""
    dice = random.Random(number)
    prints = tuple(dice.getrandbits(64) for _ in range(steps))
    trail = Trail(prints, tuple(range(100, 100 * steps + 1, 100)))
    return RouteRecord(
        kind=RecordKind.PLACED,
        gateway=gateway,
        number=number,
        backend="10.0.0.1:8000",
        at=1_800_000_000.0 + number,
        trail=trail,
        session=0,
        uncached=100,
    )


def over(gateway: int, number: int) -> RouteRecord:
    """The end of that request."""
    return RouteRecord(RecordKind.OVER, gateway, number, "10.0.0.1:8000", 1_800_000_100.0)


class Shelf:
    """Where frames lie; one for all gateways of a test."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.added = asyncio.Condition()

    async def add(self, frames: Sequence[bytes]) -> None:
        async with self.added:
            self.frames += frames
            self.added.notify_all()


class ShelfJournal:
    """As a journal in Redis."""

    kind = "shelf"
    shared = True
    lasting = True
    pace_s = 0.001

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.refuses = False
        self.breaks = False
        """Raises what it has promised not to raise."""
        self.is_deaf = False
        """Answers that there is nothing new, whatever there is."""
        self.is_silent = False
        self.loses_replies = 0
        """So many writes are done and reported as failed."""
        self._at = 0

    async def follow(self) -> AsyncGenerator[Sequence[bytes], None]:
        while True:
            self._may()
            if self.is_silent:
                await asyncio.Event().wait()
            frames = [] if self.is_deaf else self.shelf.frames[self._at :]
            self._at += len(frames)
            yield frames
            if not frames:
                try:
                    async with asyncio.timeout(0.01), self.shelf.added:
                        await self.shelf.added.wait()
                except TimeoutError:
                    pass

    async def write(self, frames: Sequence[bytes]) -> None:
        self._may()
        await self.shelf.add(frames)
        if self.loses_replies:
            self.loses_replies -= 1
            raise StoreUnavailable("no reply")

    async def close(self) -> None:
        self.refuses = True

    def _may(self) -> None:
        if self.breaks:
            raise ZeroDivisionError
        if self.refuses:
            raise StoreUnavailable("refused")
