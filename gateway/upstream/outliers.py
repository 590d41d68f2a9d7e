"""Who stands far out of its peers: fails, or is slow, though each single answer could be chance.

Rule 1: there must be enough of its own to judge by, and peers to be compared with.
Rule 2: never more than half of a pool is left alone: where most are bad, it isn't they who are odd.
Rule 3: who is kept waiting for because it holds what is asked is not slow: only what is beyond the
waiting that routing allows counts.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.upstream.backend import Backend
    from gateway.upstream.recent import Counts

FEWEST_REQUESTS = 20
"""Of the last half minute to minute, to be judged by them."""
ODD_SHARE = 0.3
"""So much more of its requests fail than of its peers' (the middle one of them)."""
ODD_TIMES = 5.0
"""Its answers begin so many times later than its peers'; prompts differ, so that less may be chance."""
_FEWEST_FOR_SPEED = 3


def outliers(
    backends: Sequence[Backend], now: float, patience_s: float
) -> list[tuple[Backend, str]]:
    """Who should be left alone, the worst first, with a short word for why. `patience_s`: by how much
    less than that its answers begin later than its peers', says nothing.
    """
    here = [each for each in backends if not each.draining]
    counts = {each.name: each.recent.counts(now) for each in here}
    judged = [each for each in here if counts[each.name].requests >= FEWEST_REQUESTS]
    if len(judged) < 2:
        return []
    out = sum(each.ejected or not each.healthy for each in here)
    shares = sorted(_share(counts[each.name]) for each in judged)
    heads = [counts[each.name].median_head_s for each in judged]
    speeds = sorted(head for head in heads if head is not None)
    found: list[tuple[float, Backend, str]] = []
    for each in judged:
        if each.ejected or not each.healthy:
            continue
        own = counts[each.name]
        more = _share(own) - median_without(shares, _share(own))
        if more >= ODD_SHARE:
            found.append((more, each, "fails more than its peers"))
        elif own.median_head_s is not None and len(speeds) >= _FEWEST_FOR_SPEED:
            usual = median_without(speeds, own.median_head_s)
            if own.median_head_s > max(ODD_TIMES * usual, usual + patience_s):
                found.append((0.0, each, "slower than its peers"))
    found.sort(key=lambda odd: -odd[0])
    return [(each, why) for _, each, why in found[: max(0, len(here) // 2 - out)]]


def _share(counts: Counts) -> float:
    return counts.failed / counts.requests


def median_without(ordered: Sequence[float], one: float) -> float:
    """The median of sorted numbers without one of them: at least two are needed."""
    hole, rest = bisect_left(ordered, one), len(ordered) - 1

    def at(index: int) -> float:
        return ordered[index + (index >= hole)]

    if rest % 2:
        return at(rest // 2)
    return (at(rest // 2 - 1) + at(rest // 2)) / 2
