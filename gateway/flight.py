"""One upstream call for many: identical requests that arrive while it is on its way board it.

Rule 1: the call belongs to all who wait for it. Whoever leaves, the first one included, leaves the
others theirs; when the last has left, it is cancelled at once.
Rule 2: what has passed is kept up to a bound, so that a late one gets it too. Beyond the bound
nobody can board any more, and the call goes at the pace of the slowest who still reads.
Rule 3: failures are everybody's, and nobody's after: a call that failed is not found again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import GatewayError, UpstreamBroken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from multidict import CIMultiDictProxy

    from gateway.core.model import Answer, Ask, Form
    from gateway.telemetry.spans import InferenceSpan

WINDOW_BYTES = 256 * 1024
"""How far a call runs ahead of the fastest who reads it."""


class Head(NamedTuple):
    """What an upstream's response begins with."""

    status: int
    reason: str | None
    headers: CIMultiDictProxy[str]


class Overflown(Exception):
    """More has passed than was kept: whoever has not read it from the start can't have it all."""


class Flight:
    """One upstream call. Its pilot (a task) tells what comes; those aboard read it."""

    def __init__(self, who: bytes, ask: Ask, limit_bytes: int) -> None:
        """For the request of `who` (a credential's hash); keep at most about `limit_bytes` of what
        passes.
        """
        self.who = who
        self.ask = ask
        self.head: Head | None = None
        self.form: Form | None = None
        """What the answer comes in; None for what is no answer."""
        self.span: InferenceSpan | None = None
        """Of the upstream call, for the requests that share it to point to."""
        self.live = False
        """Its events can be told apart while they pass."""
        self.asked_usage = False
        """It holds the usage event, which the first one did not ask for."""
        self.answer: Answer | None = None
        """What the finished answer was read as, once landed; None when it could not be."""
        self.landed = False
        """All is over, in whatever way: nothing will be told any more."""
        self.open = True
        """May still be boarded."""
        self.error: GatewayError | None = None
        self._limit = limit_bytes
        self._chunks: deque[bytes] = deque()
        self._dropped = 0
        self._held = 0
        self._total = 0
        self._furthest = 0
        self._ended = False
        self._seats: set[Seat] = set()
        # Told of every change; told of the head and of the end only; called with every part.
        self._waiting: list[asyncio.Future[None]] = []
        self._patient: list[asyncio.Future[None]] = []
        self._pouring: set[Seat] = set()
        self._pilot: asyncio.Task[None] | None = None

    @property
    def has_usage(self) -> bool:
        """The stream holds a usage event that clients get only if they ask for it."""
        return self.asked_usage or self.ask.include_usage

    @property
    def aboard(self) -> int:
        """How many wait for it or read it."""
        return len(self._seats)

    def __repr__(self) -> str:
        state = "landed" if self.landed else "on its way"
        return f"<Flight {state}, {len(self._seats)} aboard, {self._held} B held>"

    # --- for the pilot --------------------------------------------------------------------------

    def begin(self, head: Head) -> None:
        """The upstream has answered; its body follows."""
        self.head = head
        self._tell_all()

    def put(self, chunk: bytes) -> bool:
        """A part of the body; False where there is no room for the next one yet."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        self._total += len(chunk)
        if self._total > self._limit:
            self.close()
        if not self.open:
            self._drop()
        self._tell()
        return self._has_room()

    async def room(self) -> None:
        """Return when there is room for more."""
        while not self._has_room():
            await self.news()

    def end(self) -> None:
        """The body is complete."""
        self._ended = True
        self._tell_all()

    def close(self) -> None:
        """Keep nothing for late ones any more, and let nobody else board."""
        if self.open:
            self.open = False
            self._drop()
            self._tell_all()

    def fail(self, error: GatewayError) -> None:
        """The call broke off."""
        if self.error is None and not self._ended:
            self.error = error
        self._tell_all()

    def land(self) -> None:
        """Nothing comes any more."""
        if not self._ended and self.error is None:
            self.error = UpstreamBroken("the call that this request waited for was given up")
        self.landed = True
        self._tell_all()

    def _has_room(self) -> bool:
        readers = [seat for seat in self._seats if seat.reads]
        if not readers:
            # Nobody to wait for; what is over the bound has been dropped.
            return True
        if self._total - self._furthest > WINDOW_BYTES:
            self._furthest = max(seat.taken for seat in readers)
            if self._total - self._furthest > WINDOW_BYTES:
                return False
        return self.open or self._held <= WINDOW_BYTES

    def _drop(self) -> None:
        """Forget what all who read have read."""
        readers = [seat.next for seat in self._seats if seat.reads]
        keep_from = min(readers, default=self._dropped + len(self._chunks))
        while self._dropped < keep_from:
            self._held -= len(self._chunks.popleft())
            self._dropped += 1

    # --- for those aboard -----------------------------------------------------------------------

    def board(self, *, reads: bool = False) -> Seat:
        """A place; leave it when done. `reads`: it will take the body part by part."""
        seat = Seat(self, reads=reads)
        self._seats.add(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """Give the place up; the last one ends the call."""
        if seat not in self._seats:
            return
        self._seats.discard(seat)
        if not self.open:
            self._drop()
        # The pilot may be waiting for just this one to read on.
        self._tell()
        if not self._seats and not self.landed:
            self.open = False
            if self._pilot is not None:
                self._pilot.cancel()

    def read_from(self, seat: Seat) -> bytes | None:
        """The next part; b"" at the end, None when it has not come yet. Raises what ended it."""
        place = seat.next - self._dropped
        if place < 0:
            raise Overflown
        if place < len(self._chunks):
            chunk = self._chunks[place]
            seat.next += 1
            seat.taken += len(chunk)
            self._furthest = max(self._furthest, seat.taken)
            if not self.open:
                self._drop()
            if self._waiting:
                self._tell()
            return chunk
        if self.error is not None:
            raise again(self.error)
        return b"" if self._ended else None

    async def news(self, *, of_parts: bool = True) -> None:
        """Return when something has changed; with `of_parts` also when a part came or was taken."""
        # One future each: a waiter that is cancelled cancels what it waits for.
        waiting = asyncio.get_running_loop().create_future()
        (self._waiting if of_parts else self._patient).append(waiting)
        await waiting

    def pour(self, seat: Seat, pouring: bool) -> None:
        """Let the seat be called with what comes, or no longer."""
        (self._pouring.add if pouring else self._pouring.discard)(seat)

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)
        for seat in tuple(self._pouring):
            seat.pour()

    def _tell_all(self) -> None:
        patient, self._patient = self._patient, []
        for each in patient:
            if not each.done():
                each.set_result(None)
        self._tell()

    def piloted_by(self, pilot: asyncio.Task[None]) -> None:
        """Who is cancelled when all have left."""
        self._pilot = pilot


class Seat:
    """One waiting request's place aboard."""

    __slots__ = ("_busy", "_flight", "_full", "_sink", "_turn", "next", "reads", "taken")

    def __init__(self, flight: Flight, *, reads: bool) -> None:
        self._flight = flight
        self._sink: Callable[[bytes], bool] | None = None
        self._turn: asyncio.Future[None] | None = None
        self._busy = False
        self._full = False
        self.reads = reads
        """Takes part by part: the call must not run away from it."""
        self.next = 0
        self.taken = 0

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
