"""How soon things come again: `Recurrence` counts, `Awaited` is one thing that may still come.

A cache pays by the odds that a prefix is asked for again within a lifetime. They are counted by
kinds of boundaries, start from a prior, and shrink towards the more general kind while there is
little to go by.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

BUCKETS_S = (60.0, 300.0, 1800.0, 3600.0)
"""Upper ends of the gaps that are told apart: those of the lifetimes that providers offer."""

_MOST = 256.0
"""Observations after which the older half of the weight is forgotten."""

PATIENCE_S = 90.0
"""Of all that come again within five minutes most have come by now: what has not is counted as
lost for the time being, or a burst of one-shot requests would be over before it taught anything."""


class Odds(NamedTuple):
    """Probability that it comes again within each of BUCKETS_S, cumulative."""

    minute: float
    five_minutes: float
    half_hour: float
    hour: float

    def within(self, ttl_s: float) -> float:
        """Of coming again while something lives that lives so long, in seconds."""
        return self[min(bisect_left(BUCKETS_S, ttl_s), 3)] if ttl_s >= BUCKETS_S[0] else 0.0

    def or_else(self, other: Odds) -> Odds:
        """That one of two independent things comes again."""
        return Odds(
            *(1.0 - (1.0 - one) * (1.0 - two) for one, two in zip(self, other, strict=True))
        )


NEVER = Odds(0.0, 0.0, 0.0, 0.0)


class Recurrence:
    """Counts of gaps, and of what never came again."""

    __slots__ = ("_came", "_doubted", "_lost")

    def __init__(self) -> None:
        self._came = [0.0, 0.0, 0.0, 0.0]
        self._lost = 0.0
        self._doubted = 0.0

    @property
    def weight(self) -> float:
        """How many observations this stands for."""
        return sum(self._came) + self._lost + self._doubted

    @property
    def returns(self) -> float:
        """How many of them came again."""
        return sum(self._came)

    def came(self, gap_s: float) -> None:
        """It came again after so many seconds."""
        bucket = bisect_left(BUCKETS_S, gap_s)
        if bucket > 3:
            self._lost += 1.0
        else:
            self._came[bucket] += 1.0
        self._forget()

    def doubt(self, by: int) -> None:
        """So many more (or, negative, fewer) are overdue."""
        self._doubted = max(0.0, self._doubted + by)

    def lost(self) -> None:
        """It did not come again within the longest lifetime."""
        self._lost += 1.0
        self._forget()

    def _forget(self) -> None:
        if sum(self._came) + self._lost > _MOST:
            self._came = [count / 2.0 for count in self._came]
            self._lost /= 2.0

    def without(self, part: Recurrence) -> Recurrence:
        """What is counted here beyond a part of it that is counted there, too."""
        rest = Recurrence()
        rest._came = [max(0.0, a - b) for a, b in zip(self._came, part._came, strict=True)]
        rest._lost = max(0.0, self._lost - part._lost)
        rest._doubted = max(0.0, self._doubted - part._doubted)
        return rest

    def odds(self, prior: Odds, weight: float) -> Odds:
        """What is counted, and the prior as if it had been seen `weight` times."""
        known = sum(self._came) + self._lost
        near = known + self._doubted + weight
        far = known + weight
        minute, five, half, hour = self._came
        # The overdue ones may still come in an hour: they lower the near odds only, and the far
        # ones as far as those consist of the near.
        p1 = (minute + weight * prior.minute) / near
        p5 = (minute + five + weight * prior.five_minutes) / near
        later = (half + weight * (prior.half_hour - prior.five_minutes)) / far
        last = (hour + weight * (prior.hour - prior.half_hour)) / far
        p30 = min(1.0, p5 + later)
        return Odds(p1, p5, p30, min(1.0, p30 + last))


@dataclass(slots=True)
class Awaited:
    """Something seen at `since`, that may be seen again."""

    since: float
    tellers: tuple[Recurrence, ...]
    """Who is to be told."""
    doubted: bool = False
    settled: bool = False
    premium: float = 0.0
    """What was spent on its coming again, in tokens, while its kind had proved nothing."""

    def came(self, now: float) -> None:
        """It is here again."""
        if self.settled:
            return
        self.settled = True
        for teller in self.tellers:
            if self.doubted:
                teller.doubt(-1)
            teller.came(now - self.since)


class Waiting:
    """All that is awaited, oldest first; bounded: what overflows is forgotten, not counted."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._fresh: deque[Awaited] = deque()
        self._overdue: deque[Awaited] = deque()

    def __len__(self) -> int:
        """How much is awaited."""
        return len(self._fresh) + len(self._overdue)

    def add(self, one: Awaited) -> None:
        """Wait for one more."""
        self._fresh.append(one)
        if len(self._fresh) > self._most:
            self._fresh.popleft().settled = True

    def pass_time(self, now: float) -> None:
        """Count what is overdue, or will not come any more."""
        fresh, overdue = self._fresh, self._overdue
        while fresh and (fresh[0].settled or now - fresh[0].since > PATIENCE_S):
            one = fresh.popleft()
            if one.settled:
                continue
            one.doubted = True
            for teller in one.tellers:
                teller.doubt(+1)
            overdue.append(one)
        while overdue and (overdue[0].settled or now - overdue[0].since > BUCKETS_S[-1]):
            self._close(overdue.popleft())
        while len(overdue) > self._most:
            self._close(overdue.popleft())

    def _close(self, one: Awaited) -> None:
        if one.settled:
            return
        one.settled = True
        for teller in one.tellers:
            teller.doubt(-1)
            teller.lost()
