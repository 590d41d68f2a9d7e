"""Which of a provider's machines a request probably goes to, where it is documented that a prefix
that is asked for too often goes to others: `Machines`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

_MINUTE_S = 60.0
_MOST_KEYS = 10_000


_FEW = 8
"""Times up to which a list holds them: an empty deque takes seven times as much."""


class Machines:
    """Counts who was asked lately. The clock is an argument and never goes back."""

    def __init__(self) -> None:
        self._lately: OrderedDict[Hashable, list[float] | deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """Prefixes that were asked for in the last minute, about."""
        return len(self._lately)

    def asked(self, whose: Hashable, most_a_minute: int, now: float) -> int:
        """The number of the machine that gets one more request: 0 for the first one."""
        if not most_a_minute:
            return 0
        before = now - _MINUTE_S
        lately = self._lately.pop(whose, None)
        if lately is None:
            self._make_room(before)
            lately = []
        while lately and lately[0] <= before:
            del lately[0]
        lately.append(now)
        if len(lately) > _FEW and isinstance(lately, list):
            lately = deque(lately)
        self._lately[whose] = lately
        return (len(lately) - 1) // most_a_minute

    def _make_room(self, before: float) -> None:
        """Who was asked last longest ago stands first."""
        for _ in range(2):
            oldest = next(iter(self._lately), None)
            if oldest is None or (
                len(self._lately) < _MOST_KEYS and self._lately[oldest][-1] > before
            ):
                return
            del self._lately[oldest]
