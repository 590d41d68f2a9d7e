"""What lies in a store, and what operators do with it. Never on a request's way.

Rule 1: nothing here shows a payload unless asked to, and nothing ever a credential: entries have none.
Rule 2: a purge is a mark, whatever the store holds; counting is for people, and may be an estimate.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.core import identity, samples
from gateway.core.model import Form
from gateway.store import codec, coding
from gateway.store.base import StoreUnavailable
from gateway.store.walk import count, furthest, walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.model import Entry
    from gateway.core.selection import Selection
    from gateway.store.base import Store
    from gateway.store.generations import Generations

SAMPLED = 20_000
"""Entries that are looked at for counts, unless more are asked for; beyond, counts are estimates."""

TOP = 20
_KEPT_KINDS = 10_000
_KEY_BYTES = 32


@dataclass(slots=True)
class Tally:
    """Counts over the entries that were looked at, and how many times as many there are."""

    entries: int = 0
    stored_bytes: int = 0
    payload_bytes: int = 0
    dead: int = 0
    expired: int = 0
    damaged: int = 0
    other: int = 0
    by_model: Counter[str] = field(default_factory=Counter)
    by_tag: Counter[str] = field(default_factory=Counter)
    scale: float = 1.0
    """1: everything was counted. Above: estimates, from so small a part."""

    @property
    def exact(self) -> bool:
        """Was everything counted?"""
        return self.scale == 1.0

    def scaled(self, number: int) -> int:
        """The number for the whole store."""
        return round(number * self.scale)

    def told(self) -> dict[str, Any]:
        """For people and programs; plain JSON values."""
        return {
            "exact": self.exact,
            "entries": self.scaled(self.entries),
            "stored_bytes": self.scaled(self.stored_bytes),
            "payload_bytes": self.scaled(self.payload_bytes),
            "purged": self.scaled(self.dead),
            "expired": self.scaled(self.expired),
            "damaged": self.scaled(self.damaged),
            "by_model": {name: self.scaled(n) for name, n in self.by_model.most_common(TOP)},
            "by_tag": {name: self.scaled(n) for name, n in self.by_tag.most_common(TOP)},
        }


class Inventory:
    """The entries of one store, for an operator."""

    def __init__(
        self,
        store: Store,
        generations: Generations,
        clock: Callable[[], float],
        *,
        limit_bytes: int = codec.LARGEST_BYTES,
    ) -> None:
        """`clock` gives seconds since the epoch; payloads over `limit_bytes` are not unpacked."""
        self.store = store
        self.generations = generations
        self._clock = clock
        self._limit_bytes = limit_bytes

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    async def tally(self, selection: Selection | None = None, limit: int = SAMPLED) -> Tally:
        """Count what is selected (or all), after a look at about `limit` entries.

        Raises `StoreUnavailable`.
        """
        tally = Tally()
        seen = 0
        async for portion in walk(self.store):
            for key, blob in portion:
                seen += 1
                self._count(tally, key, blob, selection)
            if seen >= limit:
                tally.scale = max(1.0, await count(self.store) / seen)
                break
        return tally

    def _count(self, tally: Tally, key: bytes, blob: bytes, selection: Selection | None) -> None:
        if len(blob) == _KEY_BYTES:
            # Where the entry of a response lies that the provider keeps.
            tally.other += 1
            return
        try:
            entry, size = codec.describe(blob, key)
        except codec.Damaged:
            tally.damaged += selection is None
            return
        if selection is not None and not selection.picks(entry):
            return
        if self.generations.marks.kill(entry):
            tally.dead += 1
            return
        if self._lapsed(entry):
            tally.expired += 1
            return
        tally.entries += 1
        tally.stored_bytes += len(blob)
        tally.payload_bytes += size
        tally.by_model[entry.model] += 1
        for tag in entry.tags:
            if tag in tally.by_tag or len(tally.by_tag) < _KEPT_KINDS:
                tally.by_tag[tag] += 1

    async def purge(self, selection: Selection) -> int:
        """Kill what is selected, everywhere; the sequence. Raises `StoreUnavailable`."""
        return await self.generations.purge(selection.names, selection.before)

    async def reclaim(self) -> int:
        """Delete what is dead or lapsed and still takes up room; how many. Raises
        `StoreUnavailable`: some are gone then.
        """
        gone = 0
        async for key, entry, _ in self.entries():
            if self.generations.marks.kill(entry) or self._lapsed(entry):
                gone += await furthest(self.store).delete([key])
        return gone

    async def entries(
        self, selection: Selection | None = None
    ) -> AsyncIterator[tuple[bytes, Entry, bytes]]:
        """Key, entry without payload, and blob of all that are selected. Raises
        `StoreUnavailable`.
        """
        async for portion in walk(self.store):
            for key, blob in portion:
                try:
                    entry, _ = codec.describe(blob, key)
                except codec.Damaged:
                    continue
                if selection is None or selection.picks(entry):
                    yield key, entry, blob

    async def find(self, key_hex: str, limit: int = SAMPLED) -> list[dict[str, Any]]:
        """The entries of a key, whole or as the log shows it; of a short one among about `limit`
        entries, if they don't lie under the key itself. Raises `StoreUnavailable`.
        """
        if len(key_hex) == 2 * _KEY_BYTES:
            keys = _places(bytes.fromhex(key_hex))
            blobs = await furthest(self.store).get(keys)
            held = [(key, blob) for key, blob in zip(keys, blobs, strict=True) if blob is not None]
            return [told for each in held if (told := self.told(*each))]
        shown: list[dict[str, Any]] = []
        async for portion in walk(self.store, key_hex):
            shown += [told for each in portion if (told := self.told(*each))]
        if shown:
            return shown
        seen = 0
        async for key, entry, blob in self.entries():
            seen += 1
            if entry.key_hex8 == key_hex[:8] and (told := self.told(key, blob)):
                shown.append(told)
            if seen >= limit:
                break
        return shown

    async def payload(self, key: bytes) -> bytes:
        """The answer that lies under a key. Raises LookupError, `StoreUnavailable`."""
        (blob,) = await furthest(self.store).get([key])
        if blob is None:
            raise LookupError(key.hex())
        entries, _ = await coding.decoded({key: blob}, self._limit_bytes)
        if key not in entries:
            raise LookupError(key.hex())
        return entries[key].payload

    def told(self, key: bytes, blob: bytes) -> dict[str, Any] | None:
        """An entry for people and programs, without its payload; None for what is none."""
        try:
            entry, size = codec.describe(blob, key)
        except codec.Damaged:
            return None
        now = self.now()
        refused = self.generations.refuse(entry)
        return {
            "key": key.hex(),
            "identity": entry.key_hex8 or None,
            "api": entry.api,
            "model": entry.model,
            "tags": list(entry.tags),
            "recorded": entry.recorded.value,
            "forms": sorted(form.value for form in entry.forms),
            "age_s": round(entry.age_s(now), 1),
            "ttl_left_s": round(entry.stored_at + entry.ttl_s - now, 1),
            "generation": entry.generation,
            "refused": refused.value if refused else None,
            "stored_bytes": len(blob),
            "payload_bytes": size,
            "output_tokens": entry.usage.output if entry.usage else None,
        }

    def _lapsed(self, entry: Entry) -> bool:
        return entry.age_s(self.now()) >= entry.ttl_s


def _places(key: bytes) -> list[bytes]:
    """Where entries of an identity may lie: its slots, each in both forms or in one."""
    places = []
    for slot in range(samples.MOST):
        place = samples.slot_key(key, slot)
        places += [place, *(identity.form_key(place, form) for form in Form)]
    return places


async def reach(generations: Generations) -> None:
    """Learn what was purged. Raises `StoreUnavailable`."""
    if not await generations.refresh():
        raise StoreUnavailable("the register of purges can't be read")
