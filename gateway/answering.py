"""The way of an understood request: from the cache, from a call that others share, from its own,
or, where the upstream fails, from what is stale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from gateway.core.model import Reason, Result
from gateway.core.policy import Hit, Miss, Stale, Unsatisfiable
from gateway.errors import GatewayError, NotInCache, UpstreamFailed
from gateway.server import forwarding, relay, stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from gateway.cache import ResponseCache
    from gateway.coalescing import Coalescing
    from gateway.core.policy import AfterLookup, Lookup
    from gateway.exchange import Exchange
    from gateway.sending import Sending
    from gateway.serving import Serving
    from gateway.turn import Turn
    from gateway.upstream.response import Response


class Answering:
    """Finds an answer for each turn."""

    def __init__(
        self,
        *,
        cache: ResponseCache,
        serving: Serving,
        sending: Sending,
        coalescing: Coalescing,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._cache = cache
        self._serving = serving
        self._sending = sending
        self._coalescing = coalescing
        self._random = random_bytes

    async def cached(self, turn: Turn, lookup: Lookup) -> web.StreamResponse:
        """An answer that the cache has a say in."""
        exchange = turn.exchange
        joins = self._coalescing.may(turn)
        if joins and not turn.policy.beyond_s and self._coalescing.on_its_way(turn):
            # Then the store has nothing yet, and need not be asked.
            exchange.decided(Result.MISS, Reason.ABSENT)
            answered = await self._coalescing.answer(turn)
            if answered is not None:
                return answered
        served = await self._stored(turn, await self._look(turn, lookup, joins=joins))
        if served is not None:
            return served
        try:
            answered = await self._coalescing.answer(turn) if joins else None
            return answered or await self.alone(turn)
        except GatewayError as problem:
            served = await self._instead(turn, problem)
            if served is None:
                raise
            return served

    async def _stored(self, turn: Turn, found: AfterLookup) -> web.StreamResponse | None:
        """What the lookup found as a response; None when the upstream is to be asked."""
        exchange = turn.exchange
        match found:
            case Hit():
                served = await self._serving.hit(turn, found, Result.HIT, Reason.EXACT)
            case Stale(hit) if turn.lookup is not None and turn.lookup.write:
                self._coalescing.refresh(turn)
                why = Reason.STALE_WHILE_REVALIDATE
                served = await self._serving.hit(turn, hit, Result.STALE, why)
            case Unsatisfiable(reason):
                exchange.decided(Result.MISS, reason)
                raise not_in_cache(reason)
            case Stale(_, reason):
                # Its successor could not be kept.
                exchange.decided(Result.MISS, reason)
                return None
            case Miss(reason, spare):
                exchange.decided(Result.MISS, reason)
                turn.spare = spare
                return None
            case _:
                assert_never(found)
        if served is None:
            exchange.decided(Result.MISS, Reason.UNREADABLE)
        return served

    async def _look(self, turn: Turn, lookup: Lookup, *, joins: bool) -> AfterLookup:
        before = self._coalescing.landings
        found = await self._cache.look(turn, lookup, self._random(8))
        if joins and isinstance(found, Miss) and self._coalescing.landed_since(before, turn):
            # A call for just this ended while we looked: it may have left what we look for.
            found = await self._cache.look(turn, lookup, self._random(8))
        return found

    async def _instead(self, turn: Turn, problem: GatewayError) -> web.StreamResponse | None:
        """The stale answer that stands for a failure, if there is one and nothing has been sent."""
        if turn.spare is None or turn.exchange.begun:
            return None
        failed = problem.answered if isinstance(problem, UpstreamFailed) else None
        why = Reason.STALE_IF_ERROR
        return await self._serving.hit(turn, turn.spare, Result.STALE, why, failed=failed)

    async def alone(self, turn: Turn) -> web.StreamResponse:
        """Ask the upstream; tee its answer into the cache if it has a say."""
        async with self._sending.ask(turn) as underway:
            turn.refuse_failure(underway.upstream.status)
            sieve = None
            if underway.asked_usage and underway.live:
                sieve = stream.Sieve(turn.api.without_unasked_usage)
            return await passed_on(
                turn.request,
                underway.upstream,
                turn.exchange,
                taken=underway.taken,
                sieve=sieve,
                on_first=underway.call.first_chunk,
            )


async def passed_on(
    request: web.BaseRequest,
    upstream: Response,
    exchange: Exchange,
    *,
    taken: stream.Recording | None = None,
    sieve: stream.Sieve | None = None,
    on_first: Callable[[], None] | None = None,
) -> web.StreamResponse:
    """The upstream's response to the client, as it comes."""
    headers = forwarding.response_headers(upstream.headers)
    exchange.forwarded(headers, upstream.status)
    exchange.begun = True
    out = relay.Relay(upstream.status, upstream.reason, headers)
    return await stream.relay_response(
        request, out, upstream, taken=taken, sieve=sieve, on_first=on_first
    )


def not_in_cache(reason: Reason) -> NotInCache:
    """What a client is told that forbade to ask."""
    return NotInCache(
        f"only-if-cached was asked for, and there is no answer to serve ({reason.value})"
    )
