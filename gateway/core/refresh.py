"""Is a prefix worth reading again, just before its provider forgets it?

Rule 1: reading it costs its tokens at the rate of reads, for certain; what that spares is the write
that the next request would have to pay instead of a read, and only if that request comes before the
prefix is forgotten once more.
Rule 2: how likely it comes is told by when others came. Who hasn't come for long is believed to have
left: odds fall with the silence, so refreshing ends by itself.
Rule 3: a day has a budget.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

MOST_IN_VAIN = 0.5
"""What refreshes that nobody asked for in between may cost together, as a part of what one that
pays spares: who has left is not seen to leave, so waiting has to have an end of its own."""

_DAY_S = 86_400.0
# Gaps that are counted: older ones weigh less and less.
_DECAY = 0.9
# One imagined gap of a quarter of an hour: after a single request nothing is known.
_PRIOR_GAP_S = 900.0
_PRIOR_WEIGHT = 0.5
_LEAST_REQUESTS = 3
_MOST_WATCHED = 4096


class Worth(NamedTuple):
    """What a prefix costs, in one unit: picodollars, or tokens for an engine of one's own."""

    refresh: float
    """Reading it once, and asking for nothing."""
    spared: float
    """What the next request pays less for finding it."""
    ttl_s: float
    """How long it is kept from its last use on."""


@dataclass(slots=True)
class Arrivals:
    """When requests for one prefix came."""

    last: float
    weight: float = _PRIOR_WEIGHT
    """How many gaps are counted, the old ones in part."""
    total_s: float = _PRIOR_WEIGHT * _PRIOR_GAP_S
    """The counted gaps' sum."""
    count: int = 1

    def came(self, now: float) -> None:
        """One more request."""
        gap = max(0.0, now - self.last)
        self.weight = self.weight * _DECAY + 1.0
        self.total_s = self.total_s * _DECAY + gap
        self.last = now
        self.count += 1

    def odds(self, now: float, within_s: float) -> float:
        """That one comes within so many seconds from now, given that none has since the last.

        Gaps are exponential at a rate that is known as well as so many gaps tell it: a Lomax
        distribution, whose odds fall while nobody comes.
        """
        waited = self.total_s + max(0.0, now - self.last)
        return 1.0 - math.pow(waited / (waited + within_s), self.weight)


def pays(worth: Worth, odds: float) -> bool:
    """Is more spared than spent, on average?"""
    return odds * worth.spared > worth.refresh


@dataclass(slots=True)
class Budget:
    """What may be spent on refreshing in a day (UTC)."""

    picodollars: int
    tokens: int
    _day: int = -1
    _spent: int = 0
    _read: int = 0

    def take(self, picodollars: int, tokens: int, epoch_s: float) -> bool:
        """Spend so much, if the day has it left."""
        day = int(epoch_s // _DAY_S)
        if day != self._day:
            self._day, self._spent, self._read = day, 0, 0
        if self._spent + picodollars > self.picodollars or self._read + tokens > self.tokens:
            return False
        self._spent += picodollars
        self._read += tokens
        return True


@dataclass(slots=True)
class Kept:
    """A prefix that may be refreshed: what is sent for it, and what is known of it."""

    body: bytes = field(repr=False)
    worth: Worth
    tokens: int
    arrivals: Arrivals
    upstream: str
    path: str
    """Where it goes: the upstream's name, and our own route."""
    identity: bytes = b""
    """Who answers there: a name may come to be another's."""
    picodollars: int = 0
    """What a refresh costs in money; 0 where there is no price."""
    used_at: float = 0.0
    """The last time that its lifetime began: a request, or a refresh."""
    in_a_row: int = 0

    def due(self, margin_s: float) -> float:
        """When it has to be read again, in the clock's seconds."""
        return self.used_at + max(1.0, self.worth.ttl_s - margin_s)

    def lapsed(self, now: float) -> bool:
        """Has the provider forgotten it?"""
        return now - self.used_at >= self.worth.ttl_s


class Prefixes:
    """The prefixes that are kept to be refreshed, bounded in bytes: the longest unused go first."""

    def __init__(self, budget_bytes: int) -> None:
        """`budget_bytes` for their bodies."""
        self._budget = budget_bytes
        self._arrivals: OrderedDict[bytes, Arrivals] = OrderedDict()
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def resize(self, budget_bytes: int) -> None:
        """Another budget holds."""
        self._budget = budget_bytes
        while self.size_bytes > self._budget:
            self.forget(next(iter(self._kept)))

    def leave(self, upstreams: Collection[str]) -> None:
        """Keep nothing for these any longer."""
        for name in [name for name, kept in self._kept.items() if kept.upstream in upstreams]:
            self.forget(name)

    def came(self, name: bytes, now: float) -> Arrivals | None:
        """A request for it came. Its arrivals, where there have been enough to keep it and it isn't
        kept yet.
        """
        arrivals = self._arrivals.get(name)
        if arrivals is None:
            arrivals = self._arrivals[name] = Arrivals(now)
            if len(self._arrivals) > _MOST_WATCHED:
                self._arrivals.popitem(last=False)
        else:
            self._arrivals.move_to_end(name)
            arrivals.came(now)
        kept = self._kept.get(name)
        if kept is None:
            return arrivals if arrivals.count >= _LEAST_REQUESTS else None
        self._kept.move_to_end(name)
        kept.used_at = now
        kept.in_a_row = 0
        return None

    def keep(self, name: bytes, kept: Kept) -> bool:
        """Keep it; False where it is too large a part of all."""
        if 4 * len(kept.body) > self._budget:
            return False
        self.forget(name)
        self._kept[name] = kept
        self.size_bytes += len(kept.body)
        while self.size_bytes > self._budget:
            self.forget(next(iter(self._kept)))
        return True

    def forget(self, name: bytes) -> None:
        """Keep its body no longer; when it came is still known."""
        kept = self._kept.pop(name, None)
        if kept is not None:
            self.size_bytes -= len(kept.body)

    def next_due(self, margin_s: float) -> float | None:
        """When the next one has to be read again; None without any."""
        return min((kept.due(margin_s) for kept in self._kept.values()), default=None)

    def due(self, now: float, margin_s: float) -> list[tuple[bytes, Kept]]:
        """Those to be read again now, because it pays. Those for which it doesn't (any more) are
        forgotten.
        """
        found: list[tuple[bytes, Kept]] = []
        for name, kept in list(self._kept.items()):
            if kept.due(margin_s) > now:
                continue
            odds = kept.arrivals.odds(now, kept.worth.ttl_s)
            spent = kept.in_a_row * kept.worth.refresh
            vain = spent + kept.worth.refresh > MOST_IN_VAIN * kept.worth.spared
            if kept.lapsed(now) or vain or not pays(kept.worth, odds):
                self.forget(name)
            else:
                found.append((name, kept))
        return found
