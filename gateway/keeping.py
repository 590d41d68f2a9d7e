"""What becomes of an answer that may be kept: one entry, or one for each input of a batch.

What may be stored is decided in `core.policy`; here it is carried out behind the response, and nothing
that goes wrong here fails a request.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.core import identity, purges, samples
from gateway.core.model import Entry, Reason
from gateway.core.policy import Keep, Skip, after_response
from gateway.store import coding
from gateway.store.base import StoreUnavailable
from gateway.store.witness import Witnessed
from gateway.wire import openai_embeddings_answer
from gateway.wire.table import OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.background import Background
    from gateway.budget import Budget
    from gateway.cache import Clock
    from gateway.core.model import Answer
    from gateway.door import Parts
    from gateway.exchange import Exchange
    from gateway.store.base import Store
    from gateway.store.generations import Generations
    from gateway.telemetry.setup import Telemetry
    from gateway.turn import Turn
    from gateway.upstream.choice import Endpoint

# How often storing the parts of a large batch may wait for the store, and how long.
_PUTS_A_PAUSE = 256
_PAUSE_S = 0.1
_TAGS = "x-gateway-cache-tags"


class Keeping:
    """Writes into the store what may be kept."""

    def __init__(
        self,
        store: Store,
        background: Background,
        telemetry: Telemetry,
        clock: Clock,
        *,
        records: Store,
        generations: Generations,
        budget: Budget,
    ) -> None:
        """`records` is where answers go that a provider keeps and may delete: the store itself,
        or the part of it that all replicas see, so that a deletion reaches them all. `budget`
        bounds what waits to be written.
        """
        self._store = store
        self._background = background
        self._telemetry = telemetry
        self._clock = clock
        self._records = records
        self._generations = generations
        self._budget = budget

    def keep(
        self,
        turn: Turn,
        answer: Answer,
        pace: Callable[[], tuple[int, ...]],
        on_stored: Callable[[], None] | None = None,
    ) -> bool:
        """Store the answer, if it may be: the writing goes on behind the response, and when it is
        over `on_stored` is called; False where there is none. `pace` gives the gaps of a recorded
        stream, and is only asked for what is kept.
        """
        parts = turn.known.batch
        if parts is None:
            return self._keep_one(turn, answer, pace, on_stored)
        answers = openai_embeddings_answer.answer_parts(answer.payload, parts.batch.units)
        if answers is None:
            self.skip(turn.exchange, Reason.UNREADABLE)
            return False
        positions = range(len(answers))
        return self.keep_units(
            turn, parts, positions, answers, whole=answer.payload, on_stored=on_stored
        )

    def keep_units(
        self,
        turn: Turn,
        parts: Parts,
        positions: Iterable[int],
        answers: list[Answer],
        *,
        whole: bytes,
        on_stored: Callable[[], None] | None = None,
    ) -> bool:
        """Keep each unit's own answer, and what the whole said beside the embeddings."""
        assert turn.known.ask is not None
        assert turn.lookup is not None
        kept = [
            (parts.units[position][0], answer)
            for position, answer in zip(positions, answers, strict=True)
        ]
        kept.append((parts.frame[0], openai_embeddings_answer.frame_of(whole)))
        decision = after_response(answers[0], turn.known.ask, turn.policy, write=turn.lookup.write)
        if isinstance(decision, Keep):
            return self._put_all(turn, kept, decision.ttl_s, on_stored)
        self.skip(turn.exchange, decision.reason)
        return False

    def _keep_one(
        self,
        turn: Turn,
        answer: Answer,
        pace: Callable[[], tuple[int, ...]],
        on_stored: Callable[[], None] | None,
    ) -> bool:
        exchange = turn.exchange
        assert turn.known.ask is not None
        assert turn.lookup is not None
        decision = after_response(answer, turn.known.ask, turn.policy, write=turn.lookup.write)
        match decision:
            case Skip(reason):
                self._told(exchange, reason)
                return False
            case Keep(ttl_s):
                key = samples.slot_key(turn.known.identities[0], turn.slot)
                if len(answer.forms) == 1 and turn.api is not OPENAI_EMBEDDINGS:
                    # One form only: leave room beside it for an entry that serves the other.
                    # (Embeddings have no other, and batches look for their inputs under the key.)
                    key = identity.form_key(key, next(iter(answer.forms)))
                entry = self.entry(turn, answer, ttl_s, pace())
                if self._unwanted(turn, entry):
                    return False
                puts: list[tuple[bytes, bytes | Entry]] = [(key, entry)]
                if turn.known.ask.keeps_id:
                    puts.append((self._record_key(turn.known.endpoint, answer.response_id), key))
                if turn.known.ask.keeps_id:
                    return self._put_behind(exchange, puts, ttl_s, self._records, on_stored)
                kept_s = ttl_s + turn.policy.beyond_s
                return self._put_behind(exchange, puts, kept_s, self._store, on_stored)

    def _put_all(
        self,
        turn: Turn,
        answers: list[tuple[bytes, Answer]],
        ttl_s: float,
        on_stored: Callable[[], None] | None = None,
    ) -> bool:
        """Store several answers under their keys, behind the response; as in `keep`."""
        puts: list[tuple[bytes, bytes | Entry]] = [
            (key, replace(self.entry(turn, answer, ttl_s), key_hex8=key.hex()[:8]))
            for key, answer in answers
        ]
        if any(isinstance(entry, Entry) and self._unwanted(turn, entry) for _, entry in puts):
            return False
        return self._put_behind(turn.exchange, puts, ttl_s, self._store, on_stored)

    def _unwanted(self, turn: Turn, entry: Entry) -> bool:
        """Does the operator, or what the request asked for, forbid to keep it? Says why."""
        reason = None
        if _tags(turn) is None:
            # Kept without a tag it could not be purged by it.
            reason = Reason.BAD_TAGS
        elif self._generations.marks.kill(entry):
            reason = Reason.PURGED
        if reason is not None:
            self._told(turn.exchange, reason)
        return reason is not None

    def forget_record(self, endpoint: Endpoint, response_id: str) -> None:
        """The provider has deleted a response that it kept: its entry goes as well."""
        self._background.spawn(self._forget(self._record_key(endpoint, response_id)), "forget")

    async def _forget(self, record: bytes) -> None:
        try:
            (key,) = await self._records.get([record])
            await self._records.delete([record] if key is None else [record, key])
        except StoreUnavailable:
            self._telemetry.metrics.store_unavailable("delete")

    @staticmethod
    def _record_key(endpoint: Endpoint, response_id: str) -> bytes:
        return identity.digest((b"record", endpoint.identity, response_id.encode()))

    def entry(
        self, turn: Turn, answer: Answer, ttl_s: float, gaps_ms: tuple[int, ...] = ()
    ) -> Entry:
        """The answer as an entry that is made now."""
        return Entry(
            api=turn.api.name,
            recorded=answer.recorded,
            forms=answer.forms,
            payload=answer.payload,
            stored_at=self._clock.now(),
            ttl_s=ttl_s,
            model=answer.model,
            response_id=answer.response_id,
            usage=answer.usage,
            has_stream_usage=answer.has_stream_usage,
            gaps_ms=gaps_ms if any(gaps_ms) else (),
            tags=_tags(turn) or (),
            generation=turn.lookup.generation if turn.lookup else 0,
            key_hex8=turn.exchange.key_hex8 or "",
            terms=answer.terms,
        )

    def _put_behind(
        self,
        exchange: Exchange,
        puts: list[tuple[bytes, bytes | Entry]],
        ttl_s: float,
        store: Store,
        on_stored: Callable[[], None] | None,
    ) -> bool:
        share = self._budget.share(optional=True)

        def over(_: object) -> None:
            share.release()
            if on_stored is not None:
                on_stored()

        size = sum(len(kept.payload) for _, kept in puts if isinstance(kept, Entry))
        put = self._put(exchange, puts, ttl_s, store)
        if not share.grow(size) or not self._background.spawn(
            put, "store put", lambda task: task.add_done_callback(over)
        ):
            put.close()
            share.release()
            self._told(exchange, Reason.STORE_UNAVAILABLE)
            return False
        exchange.stored = Reason.STORED
        exchange.span.stored(Reason.STORED)
        return True

    def skip(self, exchange: Exchange, reason: Reason) -> None:
        """Say why an answer was not even judged."""
        self._told(exchange, reason)

    def _told(self, exchange: Exchange, reason: Reason) -> None:
        exchange.stored = reason
        exchange.span.stored(reason)
        self._telemetry.metrics.stored(reason)

    async def _put(
        self,
        exchange: Exchange,
        puts: list[tuple[bytes, bytes | Entry]],
        ttl_s: float,
        store: Store,
    ) -> None:
        span = self._telemetry.spans.store(exchange.span)
        began = self._clock.monotonic()
        size = 0
        outcome: str = Reason.STORED
        try:
            # A store that takes so many puts and no more gets time to write them.
            pauses = len(puts) // _PUTS_A_PAUSE
            for key, kept in puts:
                blob = kept if isinstance(kept, bytes) else await coding.encoded(kept, key)
                size += len(blob)
                while True:
                    try:
                        with Witnessed(span):
                            await store.put(key, blob, ttl_s)
                        break
                    except StoreUnavailable:
                        if not pauses:
                            raise
                        pauses -= 1
                    await asyncio.sleep(_PAUSE_S)
        except StoreUnavailable:
            outcome = Reason.STORE_UNAVAILABLE
            self._telemetry.metrics.store_unavailable("put")
        finally:
            ended = self._clock.monotonic()
            exchange.step("store", began, ended)
            self._telemetry.metrics.stored(outcome, ended - began, size)
            span.end(outcome)


def _tags(turn: Turn) -> tuple[str, ...] | None:
    """The names that the request gives its answer; None for some that can't be kept."""
    headers = turn.request.headers
    return purges.tags(headers.getall(_TAGS)) if _TAGS in headers else ()
