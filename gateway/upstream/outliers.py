"""Who stands far out of its peers: fails, or is slow, though each single answer could be chance.

Rule 1: there must be enough of its own to judge by, and peers to be compared with.
Rule 2: never more than half of a pool is left alone: where most are bad, it isn't they who are odd.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.upstream.backend import Backend

FEWEST_REQUESTS = 20
"""Of the last half minute to minute, to be judged by them."""
ODD_SHARE = 0.3
"""So much more of its requests fail than of its peers' (the middle one of them)."""
ODD_TIMES = 5.0
ODD_S = 2.0
"""Its answers begin so many times later than its peers', and so much at least. Prompts differ: what is
slow within that may just have had the long ones."""
_FEWEST_FOR_SPEED = 3


def outliers(backends: Sequence[Backend], now: float) -> list[tuple[Backend, str]]:
    """Who should be left alone, the worst first, with a short word for why."""
    here = [each for each in backends if not each.draining]
    counts = {each.name: each.recent.counts(now) for each in here}
    judged = [each for each in here if counts[each.name].requests >= FEWEST_REQUESTS]
    out = sum(each.ejected or not each.healthy for each in here)
    found: list[tuple[float, Backend, str]] = []
    for each in judged:
        peers = [counts[other.name] for other in judged if other is not each]
        if each.ejected or not each.healthy or not peers:
            continue
        own = counts[each.name]
        more = own.failed / own.requests - median(p.failed / p.requests for p in peers)
        heads = [p.median_head_s for p in peers if p.median_head_s is not None]
        if more >= ODD_SHARE:
            found.append((more, each, "fails more than its peers"))
        elif own.median_head_s is not None and len(heads) >= _FEWEST_FOR_SPEED - 1:
            usual = median(heads)
            if own.median_head_s > max(ODD_TIMES * usual, usual + ODD_S):
                found.append((0.0, each, "slower than its peers"))
    found.sort(key=lambda odd: -odd[0])
    return [(each, why) for _, each, why in found[: max(0, len(here) // 2 - out)]]
