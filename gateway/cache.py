"""The response cache as the proxy uses it: look an entry up, judge what an upstream answered.

What is kept of that is in `keeping`. What may be served is decided in `core.policy`; here it is carried out, and nothing that goes wrong
here fails a request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from gateway.core import identity, samples
from gateway.core.model import Entry, Finish, Form, Reason, Result
from gateway.core.policy import Hit, Lookup, Miss, Stale, after_lookup, missed
from gateway.store import coding
from gateway.store.base import StoreUnavailable
from gateway.store.memory import MemoryStore
from gateway.store.tiered import TieredStore
from gateway.store.witness import Witnessed
from gateway.wire.table import OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.model import Answer
    from gateway.core.policy import AfterLookup
    from gateway.providers.base import ApiRules
    from gateway.server.stream import Recording
    from gateway.store.base import Store
    from gateway.store.generations import Generations
    from gateway.telemetry.setup import Telemetry
    from gateway.turn import Turn
    from gateway.warm import Warm
    from gateway.wire.base import WireApi


_log = structlog.get_logger("warmgate.cache")


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
        self._telemetry = telemetry
        self._clock = clock
        self._generations = generations
        self._max_entry_bytes = max_entry_bytes
        self._warm = warm
        self._memory = _memory_of(store)

    def dated(self, lookup: Lookup) -> Lookup:
        """The lookup as of now: what is purged from here on will kill its answer as well."""
        generation = self._generations.sequence
        if lookup.generation == generation:
            return lookup
        return Lookup(lookup.write, lookup.no_read, generation)

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
            at_hand = self._at_hand(turn)
            if at_hand is not None:
                found = at_hand
            else:
                with Witnessed(span):
                    found = await self._find(turn, seed)
        except StoreUnavailable:
            self._telemetry.metrics.store_unavailable("get")
            found = missed(Reason.STORE_UNAVAILABLE, turn.directives)
        except Exception:  # noqa: BLE001 - what lies in a store must not cost a request
            _log.exception("a lookup failed", key=exchange.key_hex8, api=turn.api.name)
            found = missed(Reason.UNREADABLE, turn.directives)
        result, reason = _in_words(found)
        ended = self._clock.monotonic()
        exchange.step("lookup", began, ended)
        exchange.looks += ((ended - began, result, reason),)
        span.end(result, reason, exchange.key_hex8)
        return found

    def _at_hand(self, turn: Turn) -> AfterLookup | None:
        """What can be said at once: the hit, if all that it takes is in memory, decoded (what most
        hits are); that there is nothing, where there is no store but memory.
        """
        ask = turn.known.ask
        if self._memory is None or turn.samples != 1 or ask is None or ask.keeps_id:
            return None
        entries: list[Entry] = []
        for key in turn.known.keys:
            blob = self._memory.peek(key)
            if blob is None:
                continue
            entry = self._warm.get(key, blob)
            if entry is None:
                # It may be younger than those at hand.
                return None
            entries.append(entry)
        if not entries:
            nowhere = self._store is self._memory
            return missed(Reason.ABSENT, turn.directives) if nowhere else None
        found = self.judge(turn, entries)
        return found if isinstance(found, Hit) else None

    async def _find(self, turn: Turn, seed: bytes) -> AfterLookup:
        ask = turn.known.ask
        assert ask is not None
        slots = [turn.known.keys]
        for slot in range(1, turn.samples):
            each_slot = [samples.slot_key(each, slot) for each in turn.known.identities]
            slots.append(identity.entry_keys(each_slot, ask.form))
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


def _memory_of(store: Store) -> MemoryStore | None:
    memory = store.memory if isinstance(store, TieredStore) else store
    return memory if isinstance(memory, MemoryStore) else None


def _in_words(found: AfterLookup) -> tuple[Result, Reason]:
    if isinstance(found, Hit):
        return Result.HIT, Reason.EXACT
    return Result.STALE if isinstance(found, Stale) else Result.MISS, found.reason


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
