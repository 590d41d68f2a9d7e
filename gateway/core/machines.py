"""Which of a provider's machines a request probably goes to, where it is documented that a prefix
that is asked for too often goes to others: `Machines`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict

_MINUTE_S = 60.0
_MOST_KEYS = 10_000

KEY_BYTES = 200
"""What one that was asked for once takes; a test holds it to what the process really pays."""


class Machines:
    """Counts who was asked lately. The clock is an argument and never goes back."""

    def __init__(self) -> None:
        # Most are asked for once, and of them there is nothing but the time.
        self._lately: OrderedDict[int, float | array[float]] = OrderedDict()

    def __len__(self) -> int:
        """Prefixes that were asked for in the last minute, about."""
        return len(self._lately)

    def asked(self, whose: int, most_a_minute: int, now: float) -> int:
        """The number of the machine that gets one more request: 0 for the first one. `whose` is a
        fingerprint: who is taken for another is only told the number of a later machine.
        """
        if not most_a_minute:
            return 0
        before = now - _MINUTE_S
        lately = self._lately.pop(whose, None)
        if lately is None:
            self._make_room(before)
            self._lately[whose] = float(now)
            return 0
        if isinstance(lately, float):
            lately = array("d", (lately,))
        past = bisect_right(lately, before)
        if past:
            del lately[:past]
        lately.append(now)
        self._lately[whose] = lately
        return (len(lately) - 1) // most_a_minute

    def _make_room(self, before: float) -> None:
        """Who was asked last longest ago stands first."""
        for _ in range(2):
            oldest = next(iter(self._lately), None)
            if oldest is None:
                return
            lately = self._lately[oldest]
            latest = lately if isinstance(lately, float) else lately[-1]
            if len(self._lately) < _MOST_KEYS and latest > before:
                return
            del self._lately[oldest]
