"""A stored answer, or one that another request's call brought, as this client asked for it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from gateway.cache import LONG_BYTES
from gateway.core.directives import cache_status
from gateway.core.mint import Mint
from gateway.core.model import Form, Reason, Result
from gateway.core.template import template
from gateway.errors import Overloaded
from gateway.exchange import Spared
from gateway.server import replies
from gateway.server.room import held, overloaded
from gateway.server.whole import SHORT_BYTES
from gateway.wire.table import OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from gateway.budget import Share
    from gateway.cache import Clock
    from gateway.core.model import Entry, Usage
    from gateway.core.policy import Hit
    from gateway.telemetry.setup import Telemetry
    from gateway.turn import Turn
    from gateway.warm import Warm

_log = structlog.get_logger("warmgate.serving")

_REPLAY = "x-gateway-replay"


class Serving:
    """Makes responses of entries."""

    def __init__(
        self,
        telemetry: Telemetry,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        warm: Warm,
    ) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._random = random_bytes
        self._warm = warm

    def mint(self) -> Mint:
        """Fresh ids for one answer."""
        return Mint(int(self._clock.now()), self._random(16))

    def headers(self, turn: Turn) -> dict[str, str]:
        """What every response says that comes from no call of its own. Needs what was decided."""
        headers = {turn.api.request_id_header: f"req_{self._random(16).hex()}"}
        turn.exchange.mark(headers)
        return headers

    async def hit(
        self,
        turn: Turn,
        hit: Hit,
        result: Result,
        reason: Reason,
        *,
        failed: int | None = None,
    ) -> web.StreamResponse | None:
        """The hit as a response; None when the entry turns out not to be servable after all.
        `failed` is the status of the upstream's failure that it stands for.
        """
        headers = {
            "Age": str(int(hit.age_s)),
            "Cache-Status": cache_status(result, reason, ttl_left_s=hit.ttl_left_s, status=failed),
        }
        return await self.entry(turn, hit.entry, result, reason, headers)

    async def entry(
        self, turn: Turn, entry: Entry, result: Result, reason: Reason, headers: dict[str, str]
    ) -> web.StreamResponse | None:
        """The entry as a response under `headers` and those that all have; None if it is broken."""
        ask, exchange = turn.known.ask, turn.exchange
        assert ask is not None
        try:
            payload, share = await self._held(turn, entry)
        except Overloaded:
            raise
        except Exception:  # noqa: BLE001 - a broken entry must cost a call, not the request
            _log.exception("an entry can't be served", key=exchange.key_hex8, api=turn.api.name)
            return None
        exchange.decided(result, reason)
        exchange.status = 200
        if turn.api is OPENAI_EMBEDDINGS:
            exchange.inputs = (1, 0)
        self.saved(turn, entry.usage, entry.model, entry.terms)
        headers |= self.headers(turn)
        if ask.form is Form.BODY:
            return replies.document(payload, headers, share)
        if turn.request.headers.get(_REPLAY, "").strip().lower() == "original":
            exchange.begun = True
            began = self._clock.monotonic()
            try:
                return await replies.paced_stream(turn.request, payload, headers, entry.gaps_ms)
            finally:
                exchange.elsewhere_s += self._clock.monotonic() - began
                if share is not None:
                    share.release()
        return replies.whole_stream(payload, headers, share)

    async def _held(self, turn: Turn, entry: Entry) -> tuple[bytes, Share | None]:
        """The answer in the form asked for, and what a long one holds of the budget until it has
        gone out. Raises `Overloaded`, and what `_rendered` raises.
        """
        size = len(entry.payload)
        if size <= SHORT_BYTES:
            payload = await self._rendered(turn, entry)
            longer = len(payload) > SHORT_BYTES
            return payload, held(turn.share.budget, len(payload)) if longer else None
        share = held(turn.share.budget, size)
        try:
            payload = await self._rendered(turn, entry)
        except BaseException:
            share.release()
            raise
        if len(payload) > size and not share.grow(len(payload) - size):
            share.release()
            raise overloaded()
        return payload, share

    async def _rendered(self, turn: Turn, entry: Entry) -> bytes:
        """The entry's answer in the form asked for. Raises what `serve` raises on a broken entry."""
        ask, mint = turn.known.ask, self.mint()
        assert ask is not None
        if len(entry.payload) > LONG_BYTES:
            return await asyncio.to_thread(turn.api.serve, entry, ask, mint, turn.rules)
        warm = self._warm.of(entry)
        # Ids that the request's history holds too are replaced: then it's no common rendering.
        if warm is not None and (
            not ask.history_ids or (warm.ids is not None and ask.history_ids.isdisjoint(warm.ids))
        ):
            how = (ask.form, ask.include_usage)
            if how not in warm.templates:
                serve = partial(turn.api.serve, entry, ask, rules=turn.rules)
                found = template(serve, entry.payload, self._random(16))
                self._warm.rendered(warm, how, found)
            known = warm.templates[how]
            if known is not None:
                return known.fill(mint)
        return turn.api.serve(entry, ask, mint, turn.rules)

    def saved(
        self, turn: Turn, usage: Usage | None, model: str, terms: tuple[str, ...] = ()
    ) -> None:
        """Tell of tokens that nobody pays for this answer; `usage` and `terms` as they were recorded."""
        exchange = turn.exchange
        instead = exchange.reason is not Reason.STALE_IF_ERROR
        exchange.spared += (Spared(usage, model, terms, instead),)
        if usage is not None:
            exchange.usage = usage
            exchange.span.saved(usage)
