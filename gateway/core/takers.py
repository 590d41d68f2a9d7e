"""Who has taken what is added to requests, and who has refused it lately: `Takers`."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

_STAND_DOWN_S = 3600.0
_MOST = 1000

Cache: TypeAlias = tuple[bytes, str, str]
"""Domain, API, model."""


class Takers:
    """Remembers the latest of either. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._taken: OrderedDict[Cache, None] = OrderedDict()
        self._refused: OrderedDict[Cache, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Takers {len(self._taken)}, {len(self._refused)} refused>"

    def __len__(self) -> int:
        """Of how many anything is known."""
        return len(self._taken.keys() | self._refused.keys())

    def took(self, cache: Cache) -> None:
        """A request with something of ours was answered."""
        self._taken[cache] = None
        self._taken.move_to_end(cache)
        if len(self._taken) > _MOST:
            self._taken.popitem(last=False)

    def has_taken(self, cache: Cache) -> bool:
        """Ever, as far as is remembered?"""
        return cache in self._taken

    def refused(self, cache: Cache, now: float) -> None:
        """It was answered only without: nothing is added for a while."""
        self._refused[cache] = now + _STAND_DOWN_S
        self._refused.move_to_end(cache)
        if len(self._refused) > _MOST:
            self._refused.popitem(last=False)

    def stands_down(self, cache: Cache, now: float) -> bool:
        """Is that while not over yet?"""
        return self._refused.get(cache, 0.0) > now
