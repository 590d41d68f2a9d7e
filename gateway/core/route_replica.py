"""One replica as its gateway sees it: what it holds, what waits there, how fast it is.

Rule 1: trails count tokens by estimate, engines exactly. What an engine reports is brought to the
trail's measure by that request's own ratio; capacities, by the ratio of all requests (`Scale`).
Rule 2: an engine that clearly holds less than thought has evicted what we thought held: all that
was last used no later than the first step that is missing. If most of the mirror goes by that, the
cache began anew, and nothing is learnt about its size; else it is as large as what remains.
Rule 3: an engine that clearly holds more than a full mirror has room for that much more.
"""

from __future__ import annotations

from bisect import bisect_right
from math import exp
from typing import TYPE_CHECKING

from gateway.core.backlog import Backlog, Pace
from gateway.core.mirror import Mirror
from gateway.core.slot_mirror import SlotMirror

if TYPE_CHECKING:
    from gateway.core.route import RouteTicket
    from gateway.core.trail import Trail

SLACK_TOKENS = 256
SLACK_SHARE = 0.05
"""Of the prompt: a report that differs by more than both together differs clearly."""

FULL = 0.9
"""Of its capacity: a mirror that holds so much evicts."""
ANEW = 0.125
"""Of what a mirror held: where less remains, the cache was emptied, not full."""
FEWEST_TOKENS = 1024
"""A cache is never thought to be smaller."""

LATELY_S = 60.0
"""A request that was sent counts by exp(-age / this) when it is compared who was sent most lately."""
WORK_S = 300.0
"""And so does what it gave to compute."""

_FORGET = 0.98


def slack(tokens: int) -> float:
    """Tokens by which a report about a prompt of so many tokens may differ, and mean nothing."""
    return SLACK_TOKENS + SLACK_SHARE * tokens


class Scale:
    """Tokens of the engine for one that a trail estimates: of one pool."""

    __slots__ = ("_estimated", "_told")

    def __init__(self) -> None:
        self._told = 0.0
        self._estimated = 0.0

    @property
    def ratio(self) -> float:
        """1 until something was told."""
        if not self._estimated or not self._told:
            return 1.0
        return min(max(self._told / self._estimated, 0.05), 20.0)

    def saw(self, told: int, estimated: int) -> None:
        """A prompt was told to have so many tokens."""
        if told > 0 and estimated > 0:
            self._told = self._told * _FORGET + told
            self._estimated = self._estimated * _FORGET + estimated


class Replica:
    """`most_steps` bounds its mirror's memory; tokens are a trail's unless said otherwise."""

    __slots__ = (
        "_cache_tokens",
        "_lately",
        "_lately_at",
        "_work",
        "backlog",
        "born",
        "expected",
        "gone",
        "met_at",
        "mirror",
        "name",
        "pace",
        "reported",
        "reports",
        "turns",
        "unbegun",
        "weight",
    )

    def __init__(self, name: str, cache_tokens: int, slots: int, most_steps: int) -> None:
        self.name = name
        self.weight = 1.0
        self._cache_tokens = float(cache_tokens)
        """Of the engine's cache, as the engine counts; 0: not known."""
        self.mirror: Mirror | SlotMirror = (
            SlotMirror(slots, most_steps) if slots else Mirror(cache_tokens, most_steps)
        )
        self.backlog = Backlog()
        self.pace = Pace()
        self.unbegun: set[int] = set()
        """Stamps of requests that may still have to be computed."""
        self.born = 0
        """Stamps up to this one are of another life."""
        self.gone = False
        self.turns = 0.0
        self.expected = 0
        self.reported = 0
        """Cached tokens, thought and told, of all requests that were told of."""
        self.reports = False
        """It tells of cached tokens."""
        self.met_at = float("-inf")
        """When it last might have been asked."""
        self._lately = 0.0
        self._lately_at = 0.0
        self._work = 0.0

    @property
    def capacity(self) -> int:
        """Tokens that its cache is thought to hold, as trails count; 0: not known."""
        return self.mirror.capacity

    def sized(self, cache_tokens: int, slots: int, ratio: float) -> None:
        """Its cache is so large, as the engine says; 0: it doesn't."""
        mirror = self.mirror
        if slots:
            if not isinstance(mirror, SlotMirror) or mirror.slots != slots:
                self.mirror = SlotMirror(slots, mirror.most_steps)
            return
        if isinstance(mirror, SlotMirror):
            self.mirror = mirror = Mirror(0, mirror.most_steps)
        if cache_tokens:
            self._cache_tokens = float(cache_tokens)
            self.rescaled(ratio)

    def rescaled(self, ratio: float) -> None:
        """So many tokens of the engine are one of a trail."""
        if self._cache_tokens and isinstance(self.mirror, Mirror):
            self.mirror.capacity = max(1, int(self._cache_tokens / ratio))
            self.mirror.fit()

    def turns_lately(self, now: float) -> float:
        """Requests that it was sent lately: about as many as conversations that are going on there,
        each of which will want more to be computed and kept.
        """
        return self._lately * exp(min(0.0, self._lately_at - now) / LATELY_S)

    def work_lately(self, now: float) -> float:
        """Tokens that these gave it to compute."""
        return self._work * exp(min(0.0, self._lately_at - now) / WORK_S)

    def asked(self, tokens: int, now: float) -> None:
        """It was sent a request that gives it so many tokens to compute."""
        turns, work = self.turns_lately(now), self.work_lately(now)
        self._lately, self._work = turns + 1.0, work + tokens
        self._lately_at = max(now, self._lately_at)

    def level(self, turns: float, work: float, now: float) -> None:
        """As if it had been sent so many requests lately, and so much work."""
        self._lately = max(turns, self.turns_lately(now))
        self._work = max(work, self.work_lately(now))
        self._lately_at = max(now, self._lately_at)

    def takes(self, trail: Trail, depth: int, stamp: int, slot: int | None) -> tuple[int, ...]:
        """It computes the prompt, of which it held `depth` steps. Returns when each of them had
        been used, 0 where it may not be computed yet.
        """
        mirror, unbegun = self.mirror, self.unbegun
        stamps = mirror.stamps(trail.prints, depth)
        if unbegun:
            stamps = tuple([0 if each in unbegun else each for each in stamps])
        mirror.touch(trail, depth, stamp, slot)
        if len(unbegun) >= 1 << 13:
            unbegun.clear()
        unbegun.add(stamp)
        return stamps

    def learn(self, ticket: RouteTicket, cached: float, ratio: float) -> None:
        """So many tokens (as the trail counts) of its prompt were in its cache."""
        if ticket.stamp <= self.born:
            return
        self.reports = True
        trail = ticket.placement.wish.trail
        self.expected += ticket.expected
        self.reported += int(cached)
        differs = cached - ticket.expected
        if abs(differs) <= slack(trail.tokens):
            return
        mirror = self.mirror
        if differs > 0:
            answered = min(len(ticket.stamps) + 1, len(trail.ends))
            if cached <= trail.until(answered) + slack(trail.tokens):
                return  # its own answer to what it was thought to hold, which it holds as well
            if mirror.capacity and mirror.tokens >= FULL * mirror.capacity:
                self._resize(mirror.capacity + differs, ratio)
            return
        missing = bisect_right(trail.ends, cached)
        if missing >= len(ticket.stamps):
            return
        stamp = ticket.stamps[missing]
        if stamp <= self.born:  # it was not computed yet, or that cache was another one
            return
        before = mirror.tokens
        mirror.forget_until(stamp)
        if mirror.tokens >= ANEW * before:
            self._resize(max(mirror.tokens, 0.5 * mirror.capacity), ratio)

    def _resize(self, tokens: float, ratio: float) -> None:
        if isinstance(self.mirror, Mirror):
            self._cache_tokens = max(tokens, FEWEST_TOKENS) * ratio
            self.rescaled(ratio)

    def emptied(self, stamp: int) -> None:
        """It began anew after the request of this stamp: it holds nothing, and nothing waits."""
        self.mirror.clear()
        self.backlog.clear()
        self.unbegun.clear()
        self.born = stamp
