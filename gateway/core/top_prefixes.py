"""Beginnings that many requests share, and where they are probably warm: data, and how it is ranked.

No content: a prefix is told by its fingerprint.
"""

from __future__ import annotations

from heapq import nlargest
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class TopPrefix(NamedTuple):
    """One of them, as far as its cache is known here."""

    fingerprint: int
    where: str
    """A pool; or a provider's cache, by the first 8 hex digits of whose it is."""
    model: str
    """Empty for a pool: a replica serves one."""
    requests: int
    """Of those that `of` counts; for a pool, conversations."""
    of: int
    tokens: int
    """Estimated; 0 where nobody has."""
    left_s: float | None = None
    """How long it lives on unless it is read; None where nothing lapses, or nothing is held."""
    ttl_s: int = 0
    warm: tuple[str, ...] = ()
    """Replicas of the pool that are thought to hold it."""

    @property
    def weight(self) -> int:
        """By which they are ranked: tokens that would have been computed without any cache."""
        return self.requests * max(1, self.tokens)


def ranked(found: Iterable[TopPrefix], most: int) -> list[TopPrefix]:
    """The heaviest of them, the heaviest first, each once."""
    once = {(each.where, each.model, each.fingerprint): each for each in found}
    return nlargest(most, once.values(), key=lambda each: each.weight)
