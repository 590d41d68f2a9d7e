"""One upstream call for many: identical requests that arrive while it is on its way board it.

Rule 1: the call belongs to all who wait for it. Whoever leaves, the first one included, leaves the
others theirs; when the last has left, it is cancelled at once.
Rule 2: what has passed is kept up to a bound, so that a late one gets it too. Beyond the bound
nobody can board any more, and the call goes at the pace of the slowest who still reads; whoever is so
slow that others wait for it loses its place after a while.
Rule 3: failures are everybody's, and nobody's after: a call that failed is not found again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import UpstreamBroken
from gateway.seat import PIECE_BYTES, Overflown, Seat, again

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from gateway.budget import Share
    from gateway.core.model import Answer, Ask, Form
    from gateway.errors import GatewayError
    from gateway.telemetry.spans import InferenceSpan

WINDOW_BYTES = 256 * 1024
"""How far a call runs ahead of the fastest who reads it."""

PATIENCE_S = 10.0
"""How long the others wait for one who reads too slowly for a call that can't be held."""


class Head(NamedTuple):
    """What an upstream's response begins with."""

    status: int
    reason: str | None
    headers: CIMultiDictProxy[str]


class Flight:
    """One upstream call. Its pilot (a task) tells what comes; those aboard read it."""

    def __init__(self, who: bytes, ask: Ask, limit_bytes: int, share: Share) -> None:
        """For the request of `who` (a credential's hash); keep at most about `limit_bytes` of what
        passes, and no more than `share` can grow to.
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
        self.unknown = False
        """Nothing was stored that could have been served in its place, to anybody."""
        self.answer: Answer | None = None
        """What the finished answer was read as, once landed; None when it could not be."""
        self.landed = False
        """All is over, in whatever way: nothing will be told any more."""
        self.open = True
        """May still be boarded."""
        self.error: GatewayError | None = None
        self._limit = limit_bytes
        self._share = share
        self._freight = 0
        self._listed = True
        self._chunks: deque[bytes] = deque()
        self._dropped = 0
        self._held = 0
        self._total = 0
        self._furthest = 0
        self._ended = False
        self._seats: set[Seat] = set()
        self._keeper: Seat | None = None
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
        if self._total > self._limit or (self.open and not self._share.grow(len(chunk))):
            self.close()
        if not self.open:
            self._drop()
        self._tell()
        return self._has_room()

    async def room(self) -> None:
        """Return when there is room for more."""
        while not self._has_room():
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while not self._has_room():
                        await self.news()
            except TimeoutError:
                self._shed()

    def _shed(self) -> None:
        """Let go of those for whom others wait. Where all are as slow it is everybody's pace."""
        if self.open:
            return
        readers = [seat for seat in self._seats if seat.reads]
        ahead = max((seat.taken for seat in readers), default=0)
        for seat in readers:
            if seat.taken < ahead - WINDOW_BYTES:
                seat.lost = True
                self.leave(seat)

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
        self.unkept()

    def unkept(self) -> None:
        """Nothing of it will be stored: who waits for just that has no reason to stay."""
        if self._keeper is not None:
            self.leave(self._keeper)

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
        # A task that was cancelled holds the way to where it was, and so the flight.
        self._pilot = None
        self._tell_all()
        self._give_back()

    def unlisted(self) -> None:
        """It can't be found any more."""
        self._listed = False
        self._give_back()

    def carry(self, size_bytes: int) -> bool:
        """Count so many bytes more as held until it is over; False where there is no room."""
        if not self._share.grow(size_bytes):
            return False
        self._freight += size_bytes
        return True

    def _give_back(self) -> None:
        if self.landed and not self._listed and not self._seats:
            self._share.release()

    def _has_room(self) -> bool:
        readers = [seat for seat in self._seats if seat.reads]
        if not readers or (self.open and len(readers) < len(self._seats)):
            # Nobody to wait for, or somebody who waits for the whole of it: all is held that is
            # not over the bound.
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
        self._share.shrink_to(self._freight + self._held)

    # --- for those aboard -----------------------------------------------------------------------

    def board(self, *, reads: bool = False) -> Seat:
        """A place; leave it when done. `reads`: it will take the body part by part."""
        seat = Seat(self, reads=reads)
        self._seats.add(seat)
        return seat

    def keep(self) -> None:
        """Board for its own sake: it is flown to its end, as long as that may be stored."""
        self._keeper = self.board()

    def leave(self, seat: Seat) -> None:
        """Give the place up; the last one ends the call, unless it is complete: then all that is
        left is to keep what was paid for.
        """
        if seat not in self._seats:
            return
        self._seats.discard(seat)
        if not self.open:
            self._drop()
        # The pilot may be waiting for just this one to read on.
        self._tell()
        if not self._seats and not self.landed:
            self.open = False
            if self._pilot is not None and not self._ended:
                self._pilot.cancel()
        self._give_back()

    def read_from(self, seat: Seat) -> bytes | None:
        """The next part; b"" at the end, None when it has not come yet. Raises what ended it."""
        if seat.lost:
            raise UpstreamBroken("this client read too slowly for others who share its call")
        place = seat.next - self._dropped
        if place < 0:
            raise Overflown
        if place < len(self._chunks):
            chunk = self._chunks[place]
            seat.next += 1
            if place + 1 < len(self._chunks):
                chunk = self._several(chunk, place, seat)
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

    def _several(self, first: bytes, place: int, seat: Seat) -> bytes:
        """What lies together from there on, up to a bound, as one part."""
        parts, size = [first], len(first)
        for chunk in islice(self._chunks, place + 1, None):
            if size + len(chunk) > PIECE_BYTES:
                break
            parts.append(chunk)
            size += len(chunk)
        seat.next += len(parts) - 1
        return first if len(parts) == 1 else b"".join(parts)

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
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if not each.done():
                    each.set_result(None)
        if self._pouring:
            for seat in tuple(self._pouring):
                seat.pour()

    def _tell_all(self) -> None:
        if self._patient:
            patient, self._patient = self._patient, []
            for each in patient:
                if not each.done():
                    each.set_result(None)
        self._tell()

    def all_taken(self, seat: Seat) -> bool:
        """The body is complete, and the seat has taken it."""
        return self._ended and seat.taken == self._total

    def piloted_by(self, pilot: asyncio.Task[None]) -> None:
        """Who is cancelled when all have left."""
        self._pilot = pilot
