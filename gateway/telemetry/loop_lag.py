"""How late the event loop is: what a timer waits beyond its time, everything else waits too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_S = 1.0
"""Few wakings, for a gateway at rest; what hangs for longer than this is seen whole."""


class LoopLag:
    """Tells `tell` once a second by how many seconds the loop was late. For one running loop."""

    def __init__(self, tell: Callable[[float], None], every_s: float = EVERY_S) -> None:
        """Starts to watch."""
        self._tell = tell
        self._every_s = every_s
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer = self._arm()

    def close(self) -> None:
        """Watch no more."""
        self._timer.cancel()

    def _arm(self) -> asyncio.TimerHandle:
        self._due = self._loop.time() + self._every_s
        return self._loop.call_at(self._due, self._rang)

    def _rang(self) -> None:
        self._tell(max(0.0, self._loop.time() - self._due))
        self._timer = self._arm()
