"""One request's place aboard a shared call: how it waits for the answer, or takes it part by part."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.core.model import Answer
    from gateway.errors import GatewayError
    from gateway.flight import Flight, Head

PIECE_BYTES = 64 * 1024
"""Whoever comes late takes what has passed in pieces of about this size, not event by event."""


class Overflown(Exception):
    """More has passed than was kept: whoever has not read it from the start can't have it all."""


class Seat:
    """One waiting request's place aboard."""

    __slots__ = ("_busy", "_flight", "_full", "_sink", "_turn", "lost", "next", "reads", "taken")

    def __init__(self, flight: Flight, *, reads: bool) -> None:
        self._flight = flight
        self._sink: Callable[[bytes], bool] | None = None
        self._turn: asyncio.Future[None] | None = None
        self._busy = False
        self._full = False
        self.reads = reads
        """Takes part by part: the call must not run away from it."""
        self.lost = False
        """Others could not wait for it any longer."""
        self.next = 0
        self.taken = 0

    @property
    def has_all(self) -> bool:
        """It has taken the whole body."""
        return self._flight.all_taken(self)

    async def head(self) -> Head:
        """What the response begins with. Raises what ended the call before it."""
        flight = self._flight
        while flight.head is None:
            if flight.error is not None:
                raise again(flight.error)
            await flight.news(of_parts=False)
        return flight.head

    async def readany(self) -> bytes:
        """What has come, or comes next, of the body; b"" at its end.

        Raises what ended the call, after all that came of it; `Overflown` when the start is gone.
        """
        self.reads = True
        while (chunk := self._flight.read_from(self)) is None:
            await self._flight.news()
        return chunk

    async def pass_to(
        self, sink: Callable[[bytes], bool], room: Callable[[], Awaitable[None]]
    ) -> None:
        """Hand each part to `sink` in the very turn of the loop in which it comes: no task is woken
        for it. Where `sink` says that it can't take more, `room` is awaited.

        Raises what `readany` raises, and what `sink` raises.
        """
        self.reads = True
        while True:
            chunk = self._flight.read_from(self)
            if chunk is None:
                await self._listen(sink)
                if self._full:
                    await room()
            elif not chunk:
                return
            elif not sink(chunk):
                await room()
            elif len(chunk) > PIECE_BYTES // 2:
                # A long way to catch up: others have a turn in between.
                await asyncio.sleep(0)

    async def _listen(self, sink: Callable[[bytes], bool]) -> None:
        """Return when there is something that `pour` does not do."""
        self._turn = asyncio.get_running_loop().create_future()
        self._sink, self._full = sink, False
        self._flight.pour(self, True)
        try:
            await self._turn
        finally:
            self._flight.pour(self, False)

    def pour(self) -> None:
        """Hand on what has come, if somebody listens. What ends it is left to whoever waits."""
        turn, sink = self._turn, self._sink
        # Reading tells others, and they us: what comes meanwhile is taken in the same loop.
        if turn is None or sink is None or self._busy or turn.done():
            return
        self._busy = True
        try:
            while (chunk := self._flight.read_from(self)) is not None and chunk:
                if not sink(chunk):
                    self._full = True
                    break
            else:
                if chunk is None:
                    return
        except Exception as error:  # noqa: BLE001 - told to the task that waits
            turn.set_exception(error)
            return
        finally:
            self._busy = False
        turn.set_result(None)

    async def landed(self) -> Answer | None:
        """What the finished answer was read as, or None. Raises what ended the call."""
        flight = self._flight
        while not flight.landed:
            if not flight.open and not self.reads:
                # Too long to be held, and so to be read as a whole.
                return None
            await flight.news(of_parts=False)
        if flight.error is not None:
            raise again(flight.error)
        return flight.answer

    def leave(self) -> None:
        """Give it up."""
        self._flight.leave(self)


def again(error: GatewayError) -> GatewayError:
    """The same error for one more request: an exception raised twice would grow its traceback."""
    copy = type(error)(error.message, param=error.param)
    copy.__cause__ = error
    return copy
