"""Does somebody place requests that we don't hear of? `Strangers`, from what engines report.

Who places alone knows what each replica holds. If engines hold clearly more of our prompts than we
put there, more often than once in a hundred requests, another gateway put it there, and a new
conversation should go where that one would send it, too.
"""

from __future__ import annotations

WINDOW = 128
"""Reports that are looked at, and needed."""
_RARE = 0.01


class Strangers:
    """Of one pool."""

    __slots__ = ("_bits", "_seen")

    def __init__(self) -> None:
        self._bits = 0
        self._seen = 0

    def told(self, *, is_surprising: bool) -> None:
        """An engine reported what it held of a request's prompt."""
        self._bits = (self._bits << 1 | is_surprising) & ((1 << WINDOW) - 1)
        self._seen = min(self._seen + 1, WINDOW)

    @property
    def unlikely(self) -> bool:
        """Nothing showed that there are any, in as many reports as are needed to say so."""
        return self._seen >= WINDOW and self._bits.bit_count() <= _RARE * WINDOW

    @property
    def likely(self) -> bool:
        """Reports showed it."""
        return self._bits.bit_count() > _RARE * WINDOW
