"""The policies that place without looking at what is held: for comparison, and for those who choose
them. Each returns the index of a candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.route import Candidate
    from gateway.core.route_replica import Replica

_LEAST_WEIGHT = 1e-6


def weight_of(candidate: Candidate) -> float:
    """Its weight, as something to divide by."""
    return max(candidate.weight, _LEAST_WEIGHT)


def by_turn(
    candidates: Sequence[Candidate], replicas: Sequence[Replica], *, rehearsed: bool = False
) -> int:
    """Round robin, smooth and weighted, as nginx does it: each is given its weight, the richest is
    chosen, and pays for all. Who is no candidate saves nothing up. `rehearsed`: it stays its turn.
    """
    if rehearsed:
        richest = [each.turns + weight_of(c) for c, each in zip(candidates, replicas, strict=True)]
        return max(range(len(richest)), key=richest.__getitem__)
    total = 0.0
    best = 0
    for index, (candidate, replica) in enumerate(zip(candidates, replicas, strict=True)):
        weight = weight_of(candidate)
        total += weight
        replica.turns += weight
        if replica.turns > replicas[best].turns:
            best = index
    replicas[best].turns -= total
    return best


def least_pending(candidates: Sequence[Candidate], waits: Sequence[float], dice: float) -> int:
    """The shortest wait; then the least in flight for its weight; then at random."""
    count = len(candidates)
    shift = int(dice * count)

    def key(index: int) -> tuple[float, float, int]:
        candidate = candidates[index]
        return (waits[index], candidate.in_flight / weight_of(candidate), (index - shift) % count)

    return min(range(count), key=key)
