"""The response cache as the proxy uses it: look an entry up, keep an answer.

What may be served and stored is decided in `core.policy`; here it is carried out, and nothing
that goes wrong here fails a request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from gateway.core import identity, purges, samples
from gateway.core.model import Entry, Finish, Form, Reason, Result
from gateway.core.policy import Hit, Keep, Miss, Skip, Stale, after_lookup, after_response, missed
from gateway.store import coding
from gateway.store.base import StoreUnavailable
from gateway.store.memory import MemoryStore
from gateway.store.tiered import TieredStore
from gateway.wire.table import OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.background import Background
    from gateway.core.model import Answer
    from gateway.core.policy import AfterLookup, Lookup
    from gateway.exchange import Exchange
    from gateway.providers.base import ApiRules
    from gateway.server.stream import Recording
    from gateway.store.base import Store
    from gateway.store.generations import Generations
    from gateway.telemetry.setup import Telemetry
    from gateway.turn import Turn
    from gateway.upstream.choice import Endpoint
    from gateway.warm import Warm
    from gateway.wire.base import WireApi


_log = structlog.get_logger("warmgate.cache")

_TAGS = "x-gateway-cache-tags"

# How often storing the parts of a large batch may wait for the store, and how long.
_PUTS_A_PAUSE = 256
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from: `now` seconds since the epoch, `monotonic` seconds since anything."""

    now: Callable[[], float]
    monotonic: Callable[[], float]


class ResponseCache:
    """Entries in a store, under the identities of the requests they answer."""

    def __init__(
        self,
        store: Store,
        background: Background,
        telemetry: Telemetry,
        clock: Clock,
        records: Store | None = None,
        *,
        generations: Generations,
        max_entry_bytes: int,
        warm: Warm,
    ) -> None:
        """`records` is where answers go that a provider keeps and may delete: the store itself,
        or the part of it that all replicas see, so that a deletion reaches them all.
        """
        self._store = store
        # An entry lies under one of several keys: a tier that was asked for all of them would go
        # to the back for the others each time, though it holds the one that answers.
        self._near: list[Store] = [store.memory] if isinstance(store, TieredStore) else []
        self._records = records or store
        self._background = background
        self._telemetry = telemetry
        self._clock = clock
        self._generations = generations
        self._max_entry_bytes = max_entry_bytes
        self._warm = warm
        self._memory = _memory_of(store)

    def dated(self, lookup: Lookup) -> Lookup:
        """The lookup as of now: what is purged from here on will kill its answer as well."""
        return replace(lookup, generation=self._generations.sequence)

    async def look(self, turn: Turn, lookup: Lookup, seed: bytes) -> AfterLookup:
        """What the cache has for the request. Never raises: a store that is away is a miss.

        On a miss `turn.slot` says where the answer goes; `seed` are random bytes to draw with.
        """
        turn.lookup = self.dated(lookup)
        if turn.api is OPENAI_EMBEDDINGS:
            # Nobody votes on vectors: they are the same each time, and each time would be paid.
            turn.samples = 1
        if lookup.no_read is not None:
            turn.slot = samples.empty_slot(turn.samples, seed)
            return missed(lookup.no_read, turn.directives)
        exchange = turn.exchange
        span = self._telemetry.spans.lookup(exchange.span)
        began = self._clock.monotonic()
        found: AfterLookup
        try:
            found = self._at_hand(turn) or await self._find(turn, seed)
        except StoreUnavailable:
            self._telemetry.metrics.store_unavailable("get")
            found = missed(Reason.STORE_UNAVAILABLE, turn.directives)
        except Exception:  # noqa: BLE001 - what lies in a store must not cost a request
            _log.exception("a lookup failed", key=exchange.key_hex8, api=turn.api.name)
            found = missed(Reason.UNREADABLE, turn.directives)
        result, reason = _in_words(found)
        self._telemetry.metrics.lookup(self._clock.monotonic() - began, result, reason)
        span.end(result, reason, exchange.key_hex8)
        return found

    def _at_hand(self, turn: Turn) -> Hit | None:
        """The hit, if all that it takes is in memory, decoded: what most hits are."""
        ask = turn.known.ask
        if self._memory is None or turn.samples != 1 or ask is None or ask.keeps_id:
            return None
        entries = [
            entry
            for key in turn.known.keys
            if (blob := self._memory.peek(key)) is not None
            and (entry := self._warm.get(key, blob)) is not None
        ]
        if not entries:
            return None
        found = self.judge(turn, entries)
        return found if isinstance(found, Hit) else None

    async def _find(self, turn: Turn, seed: bytes) -> AfterLookup:
        ask = turn.known.ask
        assert ask is not None
        slots = [
            [
                key
                for each in turn.known.identities
                for key in _keys(samples.slot_key(each, slot), ask.form)
            ]
            for slot in range(turn.samples)
        ]
        if ask.keeps_id:
            # The record may be gone at the provider: its lifetime is not stretched.
            turn.policy = replace(turn.policy, stale_while_revalidate_s=0.0, stale_if_error_s=0.0)
        stores = [self._records] if ask.keeps_id else [*self._near, self._store]
        found: list[AfterLookup] = []
        hits: dict[int, Hit] = {}
        for store in stores:
            entries = await self.fetch([key for keys in slots for key in keys], store)
            found = [self.judge(turn, [e for k in keys if (e := entries.get(k))]) for keys in slots]
            hits = {slot: each for slot, each in enumerate(found) if isinstance(each, Hit)}
            if len(hits) == len(slots):
                break
        drawn = samples.draw(hits, turn.samples, seed)
        if isinstance(drawn, Hit):
            return drawn
        turn.slot = drawn
        turn.empty_slots = tuple(slot for slot in range(len(slots)) if slot not in hits)
        if not hits and turn.samples == 1:
            return found[drawn]
        if not hits:
            # One stale answer for each of them would be no variety.
            each = found[drawn]
            return missed(each.reason, turn.directives) if isinstance(each, Stale) else each
        if turn.directives.only_if_cached:
            # Fewer answers than wanted, but asking for more is forbidden.
            return hits[min(hits)]
        return Miss(Reason.MORE_SAMPLES)

    async def fetch(self, keys: list[bytes], store: Store | None = None) -> dict[bytes, Entry]:
        """The sound entries among the keys. Raises `StoreUnavailable`."""
        blobs = await (store or self._store).get(keys)
        found = {key: blob for key, blob in zip(keys, blobs, strict=True) if blob is not None}
        entries, damaged = await coding.decoded(found, self._max_entry_bytes)
        for _ in damaged:
            # Foreign, cut or flipped bytes: as good as absent, but somebody should know.
            self._telemetry.metrics.stored(Reason.UNREADABLE)
        if self._memory is not None:
            for key, entry in entries.items():
                # The tier may have kept what came from behind it: the same object from now on.
                if self._memory.peek(key) is found[key]:
                    self._warm.put(key, found[key], entry)
        dead = [key for key, entry in entries.items() if self._generations.marks.kill(entry)]
        for near in self._near if dead else ():
            # Behind it may lie a successor that another replica has fetched.
            await near.delete(dead)
        return entries

    def judge(self, turn: Turn, entries: list[Entry]) -> AfterLookup:
        """Which of the entries may be served, or why none."""
        ask = turn.known.ask
        assert ask is not None
        return after_lookup(
            entries,
            lambda entry: entry.api == turn.api.name and turn.api.can_serve(entry, ask),
            turn.policy,
            turn.directives,
            proven=turn.proven,
            now=self._clock.now(),
            refuse=self._generations.refuse,
        )

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

    def put_all(
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
        )

    def _put_behind(
        self,
        exchange: Exchange,
        puts: list[tuple[bytes, bytes | Entry]],
        ttl_s: float,
        store: Store,
        on_stored: Callable[[], None] | None,
    ) -> bool:
        def started(task: asyncio.Task[None]) -> None:
            if on_stored is not None:
                task.add_done_callback(lambda _: on_stored())

        put = self._put(exchange, puts, ttl_s, store)
        if not self._background.spawn(put, "store put", started):
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
            self._telemetry.metrics.stored(outcome, self._clock.monotonic() - began, size)
            span.end(outcome)


def _tags(turn: Turn) -> tuple[str, ...] | None:
    """The names that the request gives its answer; None for some that can't be kept."""
    return purges.tags(turn.request.headers.getall(_TAGS, ()))


def _memory_of(store: Store) -> MemoryStore | None:
    memory = store.memory if isinstance(store, TieredStore) else store
    return memory if isinstance(memory, MemoryStore) else None


def _in_words(found: AfterLookup) -> tuple[Result, Reason]:
    if isinstance(found, Hit):
        return Result.HIT, Reason.EXACT
    return Result.STALE if isinstance(found, Stale) else Result.MISS, found.reason


def _keys(key: bytes, form: Form) -> tuple[bytes, bytes]:
    """Where an entry for this form may lie: with the other, or alone."""
    return key, identity.form_key(key, form)


# A long stream takes 13 microseconds for each event: beside the loop, so that nobody waits for it.
LONG_BYTES = 256 * 1024


def judged(api: WireApi, rules: ApiRules, taken: Recording) -> Answer | Reason:
    """The recorded answer, read, or why it can't be."""
    if taken.overflowed:
        return Reason.TOO_LARGE
    if not taken.complete and taken.form is Form.BODY:
        return Reason.INCOMPLETE
    payload = taken.payload()
    if payload is None:
        return Reason.CONTENT_ENCODING if taken.complete else Reason.INCOMPLETE
    if taken.form is Form.BODY:
        return api.read_body(payload, rules)
    answer = api.read_stream(payload, rules)
    # A stream ends with its terminal event: a client may hang up there, before the response's end
    # has come. Without that event, what was recorded is a part, maybe cut within a character.
    if not taken.complete and answer.finish in {Finish.INCOMPLETE, Finish.UNKNOWN}:
        return Reason.INCOMPLETE
    return answer
