"""How much may be asked a second time: a pool in trouble must not be asked twice as much for it."""

from __future__ import annotations

WINDOW_S = 10
SHARE = 0.2
AT_LEAST = 3


class RetryBudget:
    """A part of the requests of the last ten seconds, and a few where there are hardly any."""

    __slots__ = ("_asked", "_retried", "_second")

    def __init__(self) -> None:
        # One of each for every second; the index is the second modulo their number.
        self._asked = [0] * WINDOW_S
        self._retried = [0] * WINDOW_S
        self._second = 0

    def __repr__(self) -> str:
        return f"<RetryBudget {sum(self._retried)} of {sum(self._asked)} asked again>"

    def asked(self, now: float) -> None:
        """A client's request begins (not: one of our attempts)."""
        self._asked[self._turn(now)] += 1

    def take(self, now: float) -> bool:
        """May one be asked again? Where it may, that counts."""
        index = self._turn(now)
        if sum(self._retried) >= max(AT_LEAST, SHARE * sum(self._asked)):
            return False
        self._retried[index] += 1
        return True

    def _turn(self, now: float) -> int:
        second = int(now)
        for passed in range(max(self._second + 1, second - WINDOW_S + 1), second + 1):
            self._asked[passed % WINDOW_S] = self._retried[passed % WINDOW_S] = 0
        # A clock that went back changes nothing.
        self._second = max(self._second, second)
        return self._second % WINDOW_S
