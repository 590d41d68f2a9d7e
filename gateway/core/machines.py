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


class Machines:
    """Counts who was asked lately. The clock is an argument and never goes back."""

    def __init__(self) -> None:
        self._lately: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def asked(self, whose: Hashable, most_a_minute: int, now: float) -> int:
        """The number of the machine that gets one more request: 0 for the first one."""
        if not most_a_minute:
            return 0
        lately = self._lately.get(whose)
        if lately is None:
            if len(self._lately) >= _MOST_KEYS:
                self._lately.popitem(last=False)
            lately = self._lately[whose] = deque()
        else:
            self._lately.move_to_end(whose)
        while lately and lately[0] <= now - _MINUTE_S:
            lately.popleft()
        lately.append(now)
        return (len(lately) - 1) // most_a_minute
