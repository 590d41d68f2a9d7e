"""Entries of a simulated cache that are gone before their time, as a provider may drop them."""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable

    Key: TypeAlias = tuple[Hashable, int]


class Losses:
    """Of one cache. The same seed and requests lose the same."""

    def __init__(self, *, share: float = 0.0, capacity: int | None = None, seed: int = 0) -> None:
        """`share` of the entries that would have been read are found to be gone; beyond `capacity`
        entries those go that were used least recently.
        """
        self._share = share
        self._capacity = capacity
        self._dice = random.Random(f"{seed}: losses")  # noqa: S311 - to be repeated
        self._used: OrderedDict[Key, None] = OrderedDict()

    def lost(self, key: Key) -> bool:
        """Is this entry, which is about to be read, gone?"""
        if self._share and self._dice.random() < self._share:
            self._used.pop(key, None)
            return True
        self._touch(key)
        return False

    def displaced(self, key: Key) -> list[Key]:
        """What has to go for this entry, which was just made."""
        self._touch(key)
        gone: list[Key] = []
        while self._capacity is not None and len(self._used) > self._capacity:
            gone.append(self._used.popitem(last=False)[0])
        return gone

    def _touch(self, key: Key) -> None:
        if self._capacity is not None:
            self._used[key] = None
            self._used.move_to_end(key)
