"""An event loop whose clock jumps to the next timer: hours of waiting in milliseconds, and always
in the same order.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: what would have been waited is added to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everybody waits, and nothing will ever come")
        self.now += max(0.0, timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`time()` counts from 0, and only as far as somebody sleeps."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        # What is due by rounding only must not be waited for again and again.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jumping.now


def run_simulated(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end on a loop of its own. A deadlock is an AssertionError."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(work)
