"""How a replica did of late: of the last half minute to minute, in a bounded number of numbers."""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

PERIOD_S = 30.0
_MOST_HEADS = 32


class Counts(NamedTuple):
    """What is known of the last one to two periods."""

    requests: int
    failed: int
    median_head_s: float | None
    """Seconds to the head of an answer; None where too few were told to say so."""


_FEWEST_HEADS = 5


class Recent:
    """Two periods: the one that runs, and the one before it."""

    __slots__ = ("_began", "_failed", "_heads", "_requests")

    def __init__(self) -> None:
        self._began = 0.0
        self._requests = [0, 0]
        self._failed = [0, 0]
        self._heads: tuple[list[float], list[float]] = ([], [])

    def add(self, now: float, *, failed: bool, head_s: float | None = None) -> None:
        """A request ended, or its answer began."""
        self._turn(now)
        self._requests[0] += 1
        self._failed[0] += failed
        heads = self._heads[0]
        if head_s is not None:
            # Beyond that many the later ones stand for all: those before them are written over.
            if len(heads) < _MOST_HEADS:
                heads.append(head_s)
            else:
                heads[self._requests[0] % _MOST_HEADS] = head_s

    def counts(self, now: float) -> Counts:
        """As of now."""
        self._turn(now)
        heads = [*self._heads[0], *self._heads[1]]
        middle = median(heads) if len(heads) >= _FEWEST_HEADS else None
        return Counts(sum(self._requests), sum(self._failed), middle)

    def clear(self) -> None:
        """Begin anew: what was, must not count against it twice."""
        self._requests, self._failed, self._heads = [0, 0], [0, 0], ([], [])

    def _turn(self, now: float) -> None:
        passed = now - self._began
        if passed < PERIOD_S:
            return
        if passed >= 2 * PERIOD_S:
            self.clear()
        else:
            self._requests = [0, self._requests[0]]
            self._failed = [0, self._failed[0]]
            self._heads = ([], self._heads[0])
        self._began = now
