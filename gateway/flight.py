"""One upstream call for many: identical requests that arrive while it is on its way board it.

Rule 1: the call belongs to all who wait for it. Whoever leaves, the first one included, leaves the
others theirs; when the last has left, it is cancelled at once.
Rule 2: what has passed is kept up to a bound, so that a late one gets it too. Beyond the bound
nobody can board any more, and the call goes at the pace of the slowest who still reads.
Rule 3: failures are everybody's, and nobody's after: a call that failed is not found again.

For one process and one event loop. Another place to board (a lock in Redis, say) would stand
behind `Flights.start` and `Flights.find`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import structlog
from cachetools import LRUCache

from gateway.errors import GatewayError, UpstreamBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from multidict import CIMultiDictProxy

    from gateway.background import Background
    from gateway.core.model import Answer, Ask, Form
    from gateway.telemetry.spans import InferenceSpan

_log = structlog.get_logger("warmgate.flight")

WINDOW_BYTES = 256 * 1024
"""How far a call runs ahead of the fastest who reads it."""

# Calls that have just ended; a lookup takes milliseconds.
_REMEMBERED = 4096


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
        self._waiting: list[asyncio.Future[None]] = []
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
        self._tell()

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
        self._tell()

    def close(self) -> None:
        """Keep nothing for late ones any more, and let nobody else board."""
        if self.open:
            self.open = False
            self._drop()
            self._tell()

    def fail(self, error: GatewayError) -> None:
        """The call broke off."""
        if self.error is None and not self._ended:
            self.error = error
        self._tell()

    def land(self) -> None:
        """Nothing comes any more."""
        if not self._ended and self.error is None:
            self.error = UpstreamBroken("the call that this request waited for was given up")
        self.landed = True
        self._tell()

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

    async def news(self) -> None:
        """Return when something has changed."""
        # One future each: a waiter that is cancelled cancels what it waits for.
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def piloted_by(self, pilot: asyncio.Task[None]) -> None:
        """Who is cancelled when all have left."""
        self._pilot = pilot


class Seat:
    """One waiting request's place aboard."""

    __slots__ = ("_flight", "next", "reads", "taken")

    def __init__(self, flight: Flight, *, reads: bool) -> None:
        self._flight = flight
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
            await flight.news()
        return flight.head

    async def readany(self) -> bytes:
        """What has come, or comes next, of the body; b"" at its end.

        Raises what ended the call, after all that came of it; `Overflown` when the start is gone.
        """
        self.reads = True
        while (chunk := self._flight.read_from(self)) is None:
            await self._flight.news()
        return chunk

    def left(self) -> bytes:
        """Nothing: all that came is read before the call's end is told."""
        return b""

    async def landed(self) -> Answer | None:
        """What the finished answer was read as, or None. Raises what ended the call."""
        flight = self._flight
        while not flight.landed:
            if not flight.open and not self.reads:
                # Too long to be held, and so to be read as a whole.
                return None
            await flight.news()
        if flight.error is not None:
            raise again(flight.error)
        return flight.answer

    def leave(self) -> None:
        """Give it up."""
        self._flight.leave(self)


class Flights:
    """The calls that are on their way, by what they ask."""

    def __init__(self, background: Background, limit_bytes: int) -> None:
        """`background` owns the calls; each keeps at most about `limit_bytes` of its answer."""
        self._background = background
        self._limit = limit_bytes
        self._flights: dict[bytes, Flight] = {}
        self._landings = 0
        self._gone: LRUCache[bytes, int] = LRUCache(_REMEMBERED)

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def landings(self) -> int:
        """How many have gone from the table."""
        return self._landings

    def landed_since(self, landings: int, key: bytes) -> bool:
        """Whether one under this key has gone since there were so many."""
        return self._gone.get(key, -1) >= landings

    def find(self, key: bytes) -> Flight | None:
        """The call on its way under this key, if it can be boarded."""
        flight = self._flights.get(key)
        return flight if flight is not None and flight.open else None

    def start(
        self,
        key: bytes,
        who: bytes,
        ask: Ask,
        fly: Callable[[Flight], Coroutine[Any, Any, bool]],
    ) -> Flight | None:
        """A new call under the key for the first who asks, flown by `fly`; None when there is no room for its task.

        `fly` says whether the flight is to be found until `remove` (its answer is being written
        where a lookup would find it), or goes from the table when it lands.
        """
        flight = Flight(who, ask, self._limit)

        def started(pilot: asyncio.Task[None]) -> None:
            flight.piloted_by(pilot)
            # A task that is cancelled before its first step never comes to its `finally`.
            pilot.add_done_callback(lambda _: self._land(key, flight, stays=flight.landed))

        if not self._background.spawn(self._fly(key, flight, fly), "flight", started):
            return None
        self._flights[key] = flight
        return flight

    def remove(self, key: bytes, flight: Flight) -> None:
        """It is not to be found any more."""
        if self._flights.get(key) is flight:
            del self._flights[key]
            self._gone[key] = self._landings
            self._landings += 1

    async def _fly(
        self, key: bytes, flight: Flight, fly: Callable[[Flight], Coroutine[Any, Any, bool]]
    ) -> None:
        stays = False
        try:
            stays = await fly(flight)
        except GatewayError as error:
            flight.fail(error)
        except Exception:  # noqa: BLE001 - all who wait get an answer whatever it was
            _log.exception("a shared call failed")
            flight.fail(GatewayError("the gateway failed; its log has the details"))
        finally:
            self._land(key, flight, stays=stays)

    def _land(self, key: bytes, flight: Flight, *, stays: bool = False) -> None:
        flight.land()
        if not stays:
            self.remove(key, flight)


def again(error: GatewayError) -> GatewayError:
    """The same error for one more request: an exception raised twice would grow its traceback."""
    copy = type(error)(error.message, param=error.param)
    copy.__cause__ = error
    return copy
