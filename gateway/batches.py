"""Embeddings, input by input: serve what is known, ask for the rest, answer in order.

Rule 1: whatever is odd (another number of vectors, another model, a store that is away) ends in the
request going out as it came and its answer being passed on untouched.
Rule 2: `usage` never holds a guess (docs/explanation/embeddings.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from gateway.cache import judged
from gateway.core.directives import cache_status
from gateway.core.mint import Mint
from gateway.core.model import Answer, Reason, Result, Usage
from gateway.core.policy import Hit, Lookup
from gateway.exchange import Spared
from gateway.server import forwarding, relay, replies, stream
from gateway.server.room import held
from gateway.server.whole import SHORT_BYTES
from gateway.store.base import StoreUnavailable
from gateway.store.witness import Witnessed
from gateway.wire import openai_embeddings, openai_embeddings_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp import web

    from gateway.asking import Asking
    from gateway.cache import Clock, ResponseCache
    from gateway.config import Config
    from gateway.core.model import Entry
    from gateway.door import Parts
    from gateway.keeping import Keeping
    from gateway.telemetry.setup import Telemetry
    from gateway.turn import Turn
    from gateway.wire.openai_embeddings_answer import Unit

_log = structlog.get_logger("warmgate.batches")


class Batches:
    """Answers requests of several inputs."""

    def __init__(
        self,
        *,
        config: Config,
        asking: Asking,
        cache: ResponseCache,
        keeping: Keeping,
        telemetry: Telemetry,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._limit = config.cache.max_entry_bytes
        self._asking = asking
        self._cache = cache
        self._keeping = keeping
        self._telemetry = telemetry
        self._clock = clock
        self._random = random_bytes

    async def answer(self, turn: Turn, parts: Parts, lookup: Lookup) -> web.StreamResponse | None:
        """The answer from what is known and what had to be asked for; None when the request is to
        go out as it came (or, under `only-if-cached`, not at all).
        """
        units = parts.batch.units
        turn.lookup = self._cache.dated(lookup)
        known, frame, reason = await self._find(turn, parts, lookup)
        missing = parts.batch.missing(known)
        if not missing:
            served = self._serve(turn, parts, known, frame)
            if served is not None:
                return served
            # Entries of two models: none of them can be used beside the other.
            known, missing, reason = {}, parts.batch.missing(()), Reason.UNREADABLE
        total = sum(unit.size for unit in units)
        asked = sum(units[position].size for position in missing)
        asis = turn.directives.no_transform or turn.directives.only_if_cached
        if not known or asis or not self._would_fit(known, asked):
            turn.exchange.inputs = (0, total)
            turn.exchange.decided(Result.MISS, reason)
            return None
        turn.exchange.inputs = (total - asked, asked)
        turn.exchange.decided(Result.MISS, Reason.PARTIAL)
        answered = await self._ask(turn, parts, known, missing)
        if answered is None:
            turn.exchange.inputs = (0, total)
            turn.exchange.decided(Result.MISS, Reason.UNREADABLE)
        return answered

    def _would_fit(self, known: dict[bytes, Hit], asked: int) -> bool:
        """Can the answer to so many inputs be held? One that turned out too large would have been
        paid for in vain: vectors of one request are all about as long, so the known ones tell.
        """
        longest = max(len(hit.entry.payload) for hit in known.values())
        return longest * asked <= self._limit

    async def _find(
        self, turn: Turn, parts: Parts, lookup: Lookup
    ) -> tuple[dict[bytes, Hit], Entry | None, Reason]:
        """What is known of each unit by its canonical form, the frame, and why there isn't more."""
        if lookup.no_read is not None:
            return {}, None, lookup.no_read
        keys = [key for each in (*parts.units, parts.frame) for key in each]
        span = self._telemetry.spans.lookup(turn.exchange.span)
        began = self._clock.monotonic()
        known: dict[bytes, Hit] = {}
        frame: Entry | None = None
        reason = Reason.ABSENT
        try:
            with Witnessed(span):
                entries = await self._cache.fetch(keys)
        except StoreUnavailable:
            self._telemetry.metrics.store_unavailable("get")
            reason = Reason.STORE_UNAVAILABLE
        except Exception:  # noqa: BLE001 - what lies in a store must not cost a request
            _log.exception("a lookup failed", key=turn.exchange.key_hex8, api=turn.api.name)
            reason = Reason.UNREADABLE
        else:
            for unit, each in zip(parts.batch.units, parts.units, strict=True):
                found = self._cache.judge(turn, [e for key in each if (e := entries.get(key))])
                if isinstance(found, Hit):
                    known[unit.canonical] = found
                elif found.reason is not Reason.ABSENT:
                    reason = found.reason
            framed = self._cache.judge(turn, [e for k in parts.frame if (e := entries.get(k))])
            frame = framed.entry if isinstance(framed, Hit) else None
        whole = not parts.batch.missing(known)
        result, why = (Result.HIT, Reason.EXACT) if whole else (Result.MISS, reason)
        turn.exchange.looks += ((self._clock.monotonic() - began, result, why),)
        span.end(result, why, turn.exchange.key_hex8)
        return known, frame, reason

    def _serve(
        self, turn: Turn, parts: Parts, known: dict[bytes, Hit], frame: Entry | None
    ) -> web.StreamResponse | None:
        units = parts.batch.units
        hits = [known[unit.canonical] for unit in units]
        mint = Mint(int(self._clock.now()), self._random(16))
        payloads = [hit.entry.payload for hit in hits]
        framed = frame.payload if frame else None
        answer = openai_embeddings_answer.assemble(units, payloads, framed, mint)
        if answer is None and frame is not None:
            # The frame is of another model than the entries that came since.
            frame = None
            answer = openai_embeddings_answer.assemble(units, payloads, None, mint)
        if answer is None:
            return None
        exchange = turn.exchange
        exchange.inputs = (sum(unit.size for unit in units), 0)
        exchange.decided(Result.HIT, Reason.EXACT)
        exchange.status = 200
        usage = _usage_of(known, units)
        if usage is None and frame is not None:
            # What the call for all of them was told to cost.
            usage = answer.usage
        exchange.spared += (Spared(usage, answer.model),)
        if answer.usage is not None:
            exchange.usage = answer.usage
            exchange.span.saved(answer.usage)
        left = min(hit.ttl_left_s for hit in hits)
        headers = {
            "Age": str(int(max(hit.age_s for hit in hits))),
            "Cache-Status": cache_status(Result.HIT, Reason.EXACT, ttl_left_s=left),
            turn.api.request_id_header: f"req_{self._random(16).hex()}",
        }
        exchange.mark(headers)
        size = len(answer.payload)
        share = held(turn.share.budget, size) if size > SHORT_BYTES else None
        return replies.document(answer.payload, headers, share)

    async def _ask(
        self, turn: Turn, parts: Parts, known: dict[bytes, Hit], missing: list[int]
    ) -> web.StreamResponse | None:
        """Ask for the missing units alone, and join their answers with the known ones."""
        exchange = turn.exchange
        sent = openai_embeddings.remaining(turn.body, parts.batch, missing)
        async with self._asking.call(turn, sent, decodable=True, plain=False) as underway:
            upstream, taken = underway.upstream, underway.taken
            exchange.status = upstream.status
            answered = forwarding.response_headers(upstream.headers)
            if taken is None and upstream.status < 300:
                # Embeddings, maybe, that we can't read: of some inputs, not of all.
                return None
            if taken is None:
                exchange.forwarded(answered, upstream.status)
                exchange.begun = True
                out = relay.Relay(upstream.status, upstream.reason, answered)
                return await stream.relay_response(
                    turn.request, out, upstream, on_first=underway.call.first_chunk
                )
            await stream.take_whole(upstream, taken, underway.call.first_chunk)
            read = judged(turn.api, turn.rules, taken)
            underway.answer = read if isinstance(read, Answer) else None
        if not isinstance(read, Answer):
            return None
        asked = [parts.batch.units[position] for position in missing]
        fresh = openai_embeddings_answer.answer_parts(read.payload, asked)
        if fresh is None:
            return None
        payloads = {form: hit.entry.payload for form, hit in known.items()}
        payloads |= {u.canonical: a.payload for u, a in zip(asked, fresh, strict=True)}
        whole = openai_embeddings_answer.assemble(
            parts.batch.units,
            [payloads[u.canonical] for u in parts.batch.units],
            read.payload,
            None,
        )
        if whole is None:
            return None
        exchange.usage = whole.usage
        there = [unit for unit in parts.batch.units if unit.canonical in known]
        exchange.spared += (Spared(_usage_of(known, there), whole.model),)
        self._keeping.keep_units(turn, parts, missing, fresh, whole=whole.payload)
        for name in ("Content-Length", "Content-Encoding", "Content-Type"):
            answered.popall(name, None)
        exchange.forwarded(answered, upstream.status)
        return replies.joined(whole.payload, answered)


def _usage_of(known: dict[bytes, Hit], units: Sequence[Unit]) -> Usage | None:
    """What these units cost when they were asked for; None unless it is known of each of them."""
    told = [known[unit.canonical].entry.usage for unit in units]
    counts = [usage.uncached_input for usage in told if usage is not None]
    return Usage(uncached_input=sum(counts)) if len(counts) == len(units) else None
