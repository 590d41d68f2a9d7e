"""Unguessable bytes, fetched from the system a page at a time: a hit takes some four times."""

from __future__ import annotations

import os

_PAGE_BYTES = 4096


class Randomness:
    """Call it with how many bytes are wanted. For one thread of one process."""

    def __init__(self) -> None:
        self._page = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        """So many bytes that nobody was given before."""
        end = self._at + count
        if end > len(self._page):
            self._page = os.urandom(max(_PAGE_BYTES, count))
            self._at, end = 0, count
        taken = self._page[self._at : end]
        self._at = end
        return taken
