"""Where markers pay: `choose`.

A request's tokens are read up to its deepest boundary that the cache holds, written from there to
its last marker, and paid in full behind it. What a marker costs is therefore certain, and known
now: the premium on what is written. What it is worth is the chance that the next request which
comes this way finds an entry that it would not find otherwise. Both are weighed here in tokens at
the price of uncached input.

Rule 1: a marker inside of what is written anyway costs nothing: every boundary from which other
requests part gets one.
Rule 2: an entry stands for its whole prefix, but only what lies behind the deepest hit is paid at
the rate of its lifetime. So an hour-long entry is cheap where little is new: one small turn, or the
first block of a large one, keeps everything before it.
Rule 3: of two choices that are worth the same, the one with less written.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gateway.core.recurrence import Odds
    from gateway.providers.prompt_cache import CacheRules

_ANCHORED_TURNS = 2.0
"""For how many turns an hour-long entry counts: the next one will be written about so much later."""

_STARTS = 4.0
"""For how many later starts an hour-long entry at a shared beginning counts."""

_MOST_INNER = 12
"""Boundaries inside of what is new at which an hour-long entry is considered."""


class Head(NamedTuple):
    """A boundary from which requests part: those that share it, and nothing behind it."""

    block: int
    odds: Odds
    """That another request comes which needs an entry just here."""
    proven: bool = True
    """Others have started here before."""
    live: bool = False
    """The cache holds just this prefix, or somebody is writing it at this moment."""


class Sight(NamedTuple):
    """What is known of a request's prompt, as far as it matters to its markers."""

    tokens: Sequence[int]
    """Cumulative, at the end of each block."""
    markable: Callable[[int], bool]
    """May a marker stand on this block?"""
    read: int
    """The deepest block whose prefix can be read now; -1 for none."""
    read_ttl_s: int
    """How long that entry lives when it is read; 0 without one."""
    kept: int
    """The deepest block whose prefix a long-lived entry holds now and for a while; -1 for none."""
    end: int
    """The last block that can carry a marker; -1 for none."""
    odds: Odds
    """That a request comes which continues this one."""
    heads: Sequence[Head]
    """In rendering order."""
    minimum: int
    """Tokens below which no entry is made."""
    given: int = -1
    """The deepest block that is written whatever we do, by a marker of the client; -1 for none."""
    given_ttl_s: int = 0
    """How long that will live."""


class Choice(NamedTuple):
    """What is to be written: up to `long` with the long lifetime, up to `short` with the short."""

    short: int
    long: int
    premium: float
    """What writing costs beyond uncached input, in tokens at the price of uncached input."""
    worth: float
    """What it is expected to save, less the premium; compared with writing nothing."""


NOTHING = Choice(-1, -1, 0.0, 0.0)


def choose(sight: Sight, rules: CacheRules) -> Choice:
    """The choice that is worth most; NOTHING where no writing pays."""
    best = NOTHING
    base = _loss(sight, rules, -1, -1)
    for short, long in _options(sight, rules):
        premium = _premium(sight, rules, short, long)
        worth = base - _loss(sight, rules, short, long) - premium
        if worth > best.worth:
            best = Choice(short, long, premium, worth)
    return best


def _options(sight: Sight, rules: CacheRules) -> Iterator[tuple[int, int]]:
    """Pairs of (short, long) ends that may be written. A long-lived marker never follows a
    short-lived one, as providers demand.
    """
    ends = [h.block for h in sight.heads if not h.live and _can_end(sight, h.block)]
    if sight.end >= 0 and _can_end(sight, sight.end) and sight.end not in ends:
        ends.append(sight.end)
    for end in ends:
        yield end, -1
    if len(rules.lifetimes) < 2:
        return
    for long in {*ends, *(_inner(sight) if sight.end in ends else ())}:
        yield -1, long
        for end in ends:
            if end > long:
                yield end, long


def _can_end(sight: Sight, block: int) -> bool:
    return block > sight.read and sight.tokens[block] >= sight.minimum


def _inner(sight: Sight) -> list[int]:
    """Boundaries inside of what is new, from the first on."""
    new = range(sight.read + 1, sight.end)
    return list(islice((b for b in new if sight.markable(b) and _can_end(sight, b)), _MOST_INNER))


def _premium(sight: Sight, rules: CacheRules, short: int, long: int) -> float:
    """What writing up to these ends costs beyond what the client's own markers cost anyway."""
    is_far = sight.given_ttl_s >= rules.lifetimes[-1].ttl_s
    far, near = (sight.given, -1) if is_far else (-1, sight.given)
    before = _surcharge(sight, rules, near, far)
    return _surcharge(sight, rules, max(short, near), max(long, far)) - before


def _surcharge(sight: Sight, rules: CacheRules, near: int, far: int) -> float:
    tokens, at = sight.tokens, sight.read
    found = 0.0
    for end, lifetime in ((far, rules.lifetimes[-1]), (near, rules.lifetimes[0])):
        if end > at:
            start = tokens[at] if at >= 0 else 0
            found += (lifetime.write - 1.0) * (tokens[end] - start)
            at = end
    return found


def _loss(sight: Sight, rules: CacheRules, short: int, long: int) -> float:
    """What the next requests are expected to pay beyond reading what they share with this one."""
    tokens, end = sight.tokens, sight.end
    near_s = rules.lifetimes[0].ttl_s
    far_s = rules.lifetimes[-1].ttl_s
    # Who finds nothing to read writes it, or will the time after.
    each = rules.lifetimes[0].write - rules.read
    total = 0.0

    def at(block: int) -> int:
        return tokens[block] if block >= 0 else 0

    if end >= 0:
        whole = tokens[end]
        near = max(sight.read, sight.given, short, long)
        far = max(sight.kept, long)
        if sight.given_ttl_s >= far_s:
            far = max(far, sight.given)
        if sight.read_ttl_s >= far_s:
            far = max(far, sight.read)
        p_near = sight.odds.within(near_s)
        p_far = sight.odds.within(far_s) - p_near
        total += p_near * each * (whole - at(near))
        if far_s > near_s:
            # A beginning that others keep alive is there without us, too.
            shared = max((h.odds.within(near_s) * tokens[h.block] for h in sight.heads), default=0)
            behind = whole - max(at(far), shared)
            total += p_far * each * behind * (1.0 + _ANCHORED_TURNS * p_near)
    covered = 0
    for head in sight.heads:
        block = head.block
        lives_s = far_s if block <= long else near_s if block <= max(short, sight.given) else 0
        if head.live:
            covered = tokens[block]
        elif lives_s and _can_end(sight, block):
            worth = _worth_of_head(head.odds, rules, lives_s > near_s)
            total -= worth * (tokens[block] - covered)
            covered = tokens[block]
    return total


def _worth_of_head(odds: Odds, rules: CacheRules, is_long: bool) -> float:
    """What an entry saves for each token of a beginning that is shared, before what it costs."""
    near, far = rules.lifetimes[0], rules.lifetimes[-1]
    p_near, p_far = odds.within(near.ttl_s), odds.within(far.ttl_s)
    # Who comes later and finds nothing writes it again, or will the time after.
    worth = p_near * (near.write - rules.read)
    if not is_long:
        return worth
    # The longer lifetime costs more but once; what it saves is what later starts pay less for
    # good: compared with the shorter one, or with none where that doesn't pay.
    pays = worth > near.write - 1.0
    each_near = min(1.0, p_near * rules.read + (1.0 - p_near) * near.write)
    each_far = p_far * rules.read + (1.0 - p_far) * far.write
    return (worth if pays else 0.0) + _STARTS * max(0.0, each_near - each_far)
