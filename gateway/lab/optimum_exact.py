"""The least that one conversation can cost, exactly, where it only grows and never overlaps itself.

Each prompt then begins with the one before, so of all entries with one lifetime only the longest
matters: it reaches over every shorter one, and is renewed whenever a shorter one could be. What can
be alive is one short-lived entry and one long-lived entry below it; a request hits the longer of
them (or, with markers only below it, the other), writes to some boundary with the long lifetime
and on to some boundary with the short one. The programme goes through all of that, forward, and
drops a state where another is no worse in every respect, or where even the tokenwise bound of what
is still to come leaves it above what is known to be possible.

At most three markers are needed (at the hit, and after each write), so neither the limit of four
nor the look-back ever forbids what is found here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.lab.optimum_block import Seen
    from gateway.providers.prompt_cache import CacheRules

_MOST_STATES = 400
_SLACK = 1e-9
_INFINITE = float("inf")


class _State(NamedTuple):
    """What is alive after a request: boundaries (0 for none) and when they were last used."""

    short: int
    short_used: float
    long: int
    long_used: float


class _Hit(NamedTuple):
    at: int
    is_short: bool
    limit: int
    """Boundary up to which may be written."""
    only_long: bool


_NOTHING = _State(0, 0.0, 0, 0.0)


def exact_cost(
    rules: CacheRules, requests: Sequence[tuple[Seen, int]], ends: Sequence[int]
) -> float | None:
    """The least cost of a conversation, or None where that isn't found with bounded effort.

    `ends` are the cumulative tokens at each boundary where an entry can end; each request gives the
    number of those that its prompt reaches over. Requests must be in order and not shrink, and none
    may begin before the answer to the one before has.
    """
    for (before, fewer), (after, more) in pairwise(requests):
        if more < fewer or after.at < before.first_byte_at:
            return None
    search = _Search(rules, requests, ends)
    possible = search.run(_INFINITE, whole=False)
    return None if possible is None else search.run(possible, whole=True)


class _Search:
    def __init__(
        self, rules: CacheRules, requests: Sequence[tuple[Seen, int]], ends: Sequence[int]
    ) -> None:
        self._read = rules.read
        short, long = rules.lifetimes[0], rules.lifetimes[-1]
        self._short_s, self._write_short = short.ttl_s, short.write
        self._long_s, self._write_long = long.ttl_s, long.write
        self._one_lifetime = len(rules.lifetimes) == 1
        self._requests = requests
        self._tokens = [0, *ends]
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Bounds of what one token pays from a request on: `alive` if it may be read, or `dead`."""
        count = len(self._requests)
        self._alive = [0.0] * (count + 1)
        self._dead = [0.0] * (count + 1)
        self._new = [0.0] * (count + 1)
        """What the tokens pay that are not there before that request."""
        for i in range(count - 1, -1, -1):
            (at, _, price), end = self._requests[i]
            gap = self._requests[i + 1][0].at - at if i + 1 < count else _INFINITE
            after = self._dead[i + 1]
            long = self._alive[i + 1] if gap <= self._long_s else after
            short = self._alive[i + 1] if gap <= self._short_s else after
            self._alive[i] = self._read * price + long
            self._dead[i] = min(
                price + after, self._write_short * price + short, self._write_long * price + long
            )
            before = self._requests[i - 1][1] if i else 0
            fresh = self._tokens[end] - self._tokens[before]
            self._new[i] = self._new[i + 1] + fresh * self._dead[i]

    def run(self, possible: float, *, whole: bool) -> float | None:
        """The least cost, of all ways or of the few that are nearly always best; None: too many."""
        states = {_NOTHING: 0.0}
        for i in range(len(self._requests)):
            following: dict[_State, float] = {}
            limit = possible * (1 + _SLACK)
            for state, spent in states.items():
                for after, cost in self._ways(i, state, limit - spent, whole=whole):
                    if spent + cost < following.get(after, _INFINITE):
                        following[after] = spent + cost
            states = _undominated(following)
            if len(states) > _MOST_STATES:
                if whole:
                    return None
                cheapest = sorted(states.items(), key=lambda each: each[1])
                states = dict(cheapest[:_MOST_STATES])
        return min(states.values(), default=None)

    def _hits(self, i: int, state: _State) -> Iterator[_Hit]:
        (at, _, _), end = self._requests[i]
        short = state.short if at - state.short_used <= self._short_s else 0
        long = state.long if at - state.long_used <= self._long_s else 0
        if short > long:
            yield _Hit(short, is_short=True, limit=end, only_long=False)
            if long:
                yield _Hit(long, is_short=False, limit=short - 1, only_long=True)
        else:
            yield _Hit(long, is_short=False, limit=end, only_long=False)

    def _ways(
        self, i: int, state: _State, allowed: float, *, whole: bool
    ) -> Iterator[tuple[_State, float]]:
        """States after a request, and what it costs to get there."""
        (at, _, price), end = self._requests[i]
        tokens = self._tokens
        for hit in self._hits(i, state):
            start = hit.at
            for long in self._boundaries(start, hit.limit, whole=whole, none=self._one_lifetime):
                base = self._read * tokens[start] + self._write_long * (
                    tokens[long] - tokens[start]
                )
                places = self._boundaries(long, hit.limit, whole=whole, none=hit.only_long)
                for last in places:
                    cost = price * (
                        base
                        + self._write_short * (tokens[last] - tokens[long])
                        + tokens[end]
                        - tokens[last]
                    )
                    after = _after(state, hit, long, last, at)
                    if cost + self._ahead(i, after) <= allowed:
                        yield after, cost

    def _boundaries(self, start: int, limit: int, *, whole: bool, none: bool) -> Sequence[int]:
        """Where a write may end that begins at `start`; there for none at all."""
        if none or limit <= start:
            return (start,)
        if whole:
            return range(start, limit + 1)
        return sorted({start, start + 1, limit})

    def _ahead(self, i: int, state: _State) -> float:
        """No less than this is still to be paid."""
        if i + 1 == len(self._requests):
            return 0.0
        at = self._requests[i + 1][0].at
        short = state.short if at - state.short_used <= self._short_s else 0
        long = state.long if at - state.long_used <= self._long_s else 0
        covered = self._tokens[max(short, long)]
        known = self._tokens[self._requests[i][1]]
        return (
            covered * self._alive[i + 1] + (known - covered) * self._dead[i + 1] + self._new[i + 1]
        )


def _after(state: _State, hit: _Hit, long: int, last: int, at: float) -> _State:
    if long > hit.at:
        kept_long, long_used = long, at
    else:
        kept_long = state.long
        long_used = at if hit.at == state.long and not hit.is_short else state.long_used
    if last > long:
        return _State(last, at, kept_long, long_used)
    if hit.only_long:
        return _State(state.short, state.short_used, kept_long, long_used)
    if hit.is_short and long == hit.at:
        return _State(hit.at, at, kept_long, long_used)
    return _State(0, 0.0, kept_long, long_used)


def _undominated(states: dict[_State, float]) -> dict[_State, float]:
    kept: list[tuple[_State, float]] = []
    for state, cost in sorted(states.items(), key=lambda each: each[1]):
        if not any(
            other.short == state.short
            and other.short_used >= state.short_used
            and other.long >= state.long
            and other.long_used >= state.long_used
            for other, _ in kept
        ):
            kept.append((state, cost))
    return dict(kept)
