"""Identical requests at the same time: the first one's call answers them all.

The first (the leader) gets the upstream's response as it comes, byte for byte. The others get it
as they asked for it: a stream live from the first byte that came, under an id of its own, or a
document when it is complete; whatever can't be given so without loss, they ask for themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from multidict import CIMultiDict

from gateway.core import identity, samples
from gateway.core.directives import cache_status
from gateway.core.model import Finish, Form, Reason, Result
from gateway.core.policy import may_coalesce
from gateway.errors import GatewayError
from gateway.flight import Head
from gateway.seat import Overflown
from gateway.server import forwarding, replies, stream
from gateway.server.relay import Relay
from gateway.wire.live import Live

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from gateway.asking import Underway
    from gateway.cache import Clock
    from gateway.flight import Flight
    from gateway.flights import Flights
    from gateway.keeping import Keeping
    from gateway.seat import Seat
    from gateway.sending import Sending
    from gateway.serving import Serving
    from gateway.turn import Turn

# How long a leader whose client has left waits to learn whether its answer was complete.
_LANDING_S = 1.0

# What a failure says that was meant for another credential, and is true for all.
_ANYBODYS = frozenset(
    {"content-type", "content-length", "content-encoding", "retry-after", "retry-after-ms"}
)

# Answers in another form are made of what is known to be complete.
_UNSURE = frozenset({Finish.INCOMPLETE, Finish.ERROR, Finish.UNKNOWN, Finish.EMPTY})


_COLLAPSED = {"Cache-Status": cache_status(Result.COLLAPSED, Reason.ABSENT)}


class Coalescing:
    """Lets requests share calls."""

    def __init__(
        self,
        *,
        flights: Flights,
        sending: Sending,
        keeping: Keeping,
        serving: Serving,
        clock: Clock,
    ) -> None:
        self._flights = flights
        self._sending = sending
        self._keeping = keeping
        self._serving = serving
        self._clock = clock

    @property
    def landings(self) -> int:
        """How many calls have ended so far."""
        return self._flights.landings

    def landed_since(self, landings: int, turn: Turn) -> bool:
        """Whether a call for just this has ended since there were so many."""
        if landings == self._flights.landings:
            return False
        return self._flights.landed_since(landings, self._key(turn, turn.slot))

    def may(self, turn: Turn) -> bool:
        """Whether the request may share a call."""
        ask, lookup = turn.known.ask, turn.lookup
        if ask is None or lookup is None or turn.directives.only_if_cached:
            return False
        return may_coalesce(ask, turn.policy, lookup, proven=turn.proven)

    def on_its_way(self, turn: Turn) -> bool:
        """Whether just this is being asked for now, because nothing of it was stored.

        (What is asked for because of what one client wants of age or form keeps nobody from what
        there is.)
        """
        if turn.samples != 1:
            return False
        flight = self._flights.find(self._key(turn, 0))
        return flight is not None and flight.unknown

    async def answer(self, turn: Turn) -> web.StreamResponse | None:
        """The answer of a call that is on its way, or of one that is made for this and all that
        come while it lasts. None when the request is to go out by itself.
        """
        key = self._key(turn, self._slot(turn))
        assert turn.known.ask is not None
        # What is on its way may not be what this client can be given: there is a second call for
        # those who asked for the other form, and after that each is alone.
        for other in (False, True):
            each = identity.form_key(key, turn.known.ask.form) if other else key
            flight = self._flights.find(each)
            if flight is None:
                return await self._lead(turn, each)
            seat = flight.board()
            try:
                answered = await self._follow(turn, flight, seat)
            finally:
                seat.leave()
            if answered is not None:
                return answered
        return None

    def refresh(self, turn: Turn) -> None:
        """Ask for the successor of what is served stale, with the requester's own credential; what
        comes is stored. One call at a time, whoever asks meanwhile.
        """
        key = self._key(turn, turn.slot)
        ask = turn.known.ask
        if ask is None or self._flights.find(key) is not None:
            return
        aside = replace(turn, exchange=turn.exchange.aside())
        size = len(turn.body)

        if not turn.share.budget.has_room(size, optional=True):
            return
        fly = partial(self._revalidate, aside, key)
        flight = self._flights.start(key, turn.known.who, ask, fly)
        if flight is not None:
            # Whose request it was holds it no longer.
            flight.carry(size)
            flight.keep()

    def _key(self, turn: Turn, slot: int) -> bytes:
        assert turn.lookup is not None
        # What was asked for before a purge is no answer for those who come after it.
        generation = turn.lookup.generation.to_bytes(8, "big")
        return samples.slot_key(turn.known.identities[0], slot) + generation

    def _slot(self, turn: Turn) -> int:
        """Of the answers that are missing, one that nobody is asking for; else the one drawn."""
        if turn.samples != 1:
            slots = turn.empty_slots
            free = (slot for slot in slots if not self._flights.find(self._key(turn, slot)))
            turn.slot = next(free, turn.slot)
        return turn.slot

    # --- the first one --------------------------------------------------------------------------

    async def _lead(self, turn: Turn, key: bytes) -> web.StreamResponse | None:
        ask, exchange = turn.known.ask, turn.exchange
        assert ask is not None
        flight = self._flights.start(key, turn.known.who, ask, partial(self._fly, turn, key))
        if flight is None:
            return None
        flight.unknown = exchange.reason is Reason.ABSENT
        seat = flight.board(reads=True)
        before_s, began = exchange.elsewhere_s, self._clock.monotonic()
        try:
            head = await seat.head()
            turn.refuse_failure(head.status)
            headers = forwarding.response_headers(head.headers)
            exchange.forwarded(headers, head.status)
            exchange.begun = True
            out = Relay(head.status, head.reason, headers)
            sieve = None
            if flight.asked_usage:
                sieve = stream.Sieve(turn.api.without_unasked_usage)
            answered = await stream.relay_response(turn.request, out, seat, sieve=sieve)
            await _landing(flight)
        except (stream.ClientGone, asyncio.CancelledError):
            seat.leave()
            if not flight.aboard:
                # What came in full is an answer, though its client did not wait for the end.
                await _landing(flight)
            raise
        finally:
            seat.leave()
            # Waiting for a slow client is none of our time, and may outlast the call.
            waited_s = self._clock.monotonic() - began
            exchange.elsewhere_s = max(exchange.elsewhere_s, before_s + waited_s)
        return answered

    async def _revalidate(self, turn: Turn, key: bytes, flight: Flight) -> bool:
        """As `_fly`, after the request was answered: in a trace of its own."""
        span = turn.exchange.span = turn.exchange.span.revalidation()
        try:
            return await self._fly(turn, key, flight)
        except GatewayError as problem:
            span.error(problem.code)
            raise
        finally:
            span.end()

    async def _fly(self, turn: Turn, key: bytes, flight: Flight) -> bool:
        """The call itself, whoever is aboard. True while its answer is on its way to the store."""
        stored = partial(self._flights.remove, key, flight)
        underway: Underway | None = None
        try:
            async with self._sending.ask(turn, plain=True, on_stored=stored) as underway:
                await self._pass_on(underway, flight)
        finally:
            if underway is not None:
                flight.answer = underway.answer
        return underway.stored

    @staticmethod
    async def _pass_on(underway: Underway, flight: Flight) -> None:
        upstream, taken = underway.upstream, underway.taken
        flight.form = taken.form if taken is not None else None
        flight.live = underway.live
        flight.asked_usage = underway.asked_usage and flight.live
        flight.span = underway.call.span
        flight.begin(Head(upstream.status, upstream.reason, upstream.headers))
        if taken is None:
            flight.unkept()
        first = True

        def put(chunk: bytes) -> bool:
            nonlocal first
            if first:
                underway.call.first_chunk()
                first = False
            if taken is not None:
                taken.feed(chunk)
                if taken.overflowed:
                    flight.close()
            return flight.put(chunk)

        await upstream.pass_to(put, flight.room)
        if taken is not None:
            taken.complete = True
        flight.end()

    # --- the others -----------------------------------------------------------------------------

    async def _follow(self, turn: Turn, flight: Flight, seat: Seat) -> web.StreamResponse | None:
        """The answer of the flight; None when this request can't be given it."""
        began = self._clock.monotonic()
        try:
            try:
                head = await seat.head()
            except GatewayError:
                self._decided(turn, flight)
                raise
            ask = turn.known.ask
            assert ask is not None
            if not _readable(turn, head):
                return None
            if head.status != 200:
                # What an upstream says to one credential (a limit, a model it may not use) is
                # not what it says to another.
                as_is = flight.who == turn.known.who or head.status >= 500
                return await self._relay(turn, flight, seat) if as_is else None
            if flight.form is None:
                as_is = flight.who == turn.known.who and flight.ask.form is ask.form
                return await self._relay(turn, flight, seat) if as_is else None
            if ask.form is Form.STREAM and flight.live:
                if ask.include_usage and not flight.has_usage:
                    return None
                return await self._live(turn, flight, seat)
        finally:
            turn.exchange.elsewhere_s += self._clock.monotonic() - began
        return await self._whole(turn, flight, seat)

    async def _relay(self, turn: Turn, flight: Flight, seat: Seat) -> web.StreamResponse | None:
        """What is no answer, as it came: failures are everybody's."""
        head = await seat.head()
        turn.refuse_failure(head.status)
        self._decided(turn, flight)
        headers = forwarding.response_headers(head.headers)
        if flight.who != turn.known.who:
            # The rest (a session, an organisation, its limits) is of the other credential.
            headers = CIMultiDict((n, v) for n, v in headers.items() if n.lower() in _ANYBODYS)
        headers.popall("Set-Cookie", None)
        turn.exchange.forwarded(headers, head.status)
        turn.exchange.begun = True
        out = Relay(head.status, head.reason, headers)
        return await stream.relay_response(turn.request, out, seat)

    async def _live(self, turn: Turn, flight: Flight, seat: Seat) -> web.StreamResponse | None:
        """The stream from its first byte, each event as it comes."""
        exchange, ask = turn.exchange, turn.known.ask
        assert ask is not None
        try:
            first = await seat.readany()
        except Overflown:
            return None
        self._decided(turn, flight)
        exchange.status = 200
        headers = {**_COLLAPSED, **self._serving.headers(turn)}
        live = Live(turn.api, ask, self._serving.mint(), sift_usage=flight.has_usage)
        exchange.begun = True
        out = replies.stream_head(headers)
        try:
            answered = await stream.relay_response(
                turn.request, out, _After(first, seat), sieve=stream.Sieve(live)
            )
            await _landing(flight)
        finally:
            if flight.answer is not None and seat.has_all:
                exchange.answered = True
                answer = flight.answer
                self._serving.saved(turn, answer.usage, answer.model, answer.terms)
        return answered

    async def _whole(self, turn: Turn, flight: Flight, seat: Seat) -> web.StreamResponse | None:
        """The finished answer in the form asked for."""
        began = self._clock.monotonic()
        try:
            answer = await seat.landed()
        except GatewayError:
            self._decided(turn, flight)
            raise
        finally:
            turn.exchange.elsewhere_s += self._clock.monotonic() - began
        assert turn.known.ask is not None
        if answer is None or (
            answer.finish in _UNSURE and answer.recorded is not turn.known.ask.form
        ):
            return None
        entry = self._keeping.entry(turn, answer, turn.policy.ttl_s)
        if not turn.api.can_serve(entry, turn.known.ask):
            return None
        if flight.span is not None:
            turn.exchange.span.collapsed(flight.span)
        return await self._serving.entry(
            turn, entry, Result.COLLAPSED, Reason.ABSENT, dict(_COLLAPSED)
        )

    @staticmethod
    def _decided(turn: Turn, flight: Flight) -> None:
        turn.exchange.decided(Result.COLLAPSED, Reason.ABSENT)
        if flight.span is not None:
            turn.exchange.span.collapsed(flight.span)


class _After:
    """A seat of which the first part was read already."""

    def __init__(self, first: bytes, seat: Seat) -> None:
        self._first = first
        self._seat = seat

    async def pass_to(
        self, sink: Callable[[bytes], bool], room: Callable[[], Awaitable[None]]
    ) -> None:
        if self._first and not sink(self._first):
            await room()
        await self._seat.pass_to(sink, room)


def _readable(turn: Turn, head: Head) -> bool:
    """Whether the client can read what is handed on as it came. Answers are decoded for it."""
    coding = head.headers.get("Content-Encoding", "").strip().lower()
    if head.status == 200 or coding in {"", "identity"}:
        return True
    accepted = turn.request.headers.get("Accept-Encoding", "").lower()
    return coding in {each.partition(";")[0].strip() for each in accepted.split(",")}


async def _landing(flight: Flight) -> None:
    """Wait, not for ever, until all is known of the call."""
    if flight.landed:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LANDING_S):
            while not flight.landed:
                await flight.news(of_parts=False)
