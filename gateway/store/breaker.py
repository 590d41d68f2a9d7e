"""When to stop asking something that does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Breaker:
    """Closed while operations succeed; open after enough failures in a row; then one probe.

    It opens only when the failures also span `span_s`: a stalled event loop makes every waiting
    operation time out in the same instant, which says nothing about the other side.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        failures: int = 5,
        span_s: float = 0.05,
        open_s: float = 1.0,
    ) -> None:
        """Open after `failures` in a row over at least `span_s`, for `open_s`, by a monotonic
        `clock`.
        """
        self._clock = clock
        self._limit = failures
        self._span_s = span_s
        self._open_s = open_s
        self._failures = 0
        self._failing_since = 0.0
        self._open_until: float | None = None
        self._probing = False

    def __repr__(self) -> str:
        state = "closed" if self._open_until is None else "open"
        return f"<Breaker {state}, {self._failures} failures in a row>"

    @property
    def is_open(self) -> bool:
        """Nothing but a probe may pass."""
        return self._open_until is not None

    @property
    def would_enter(self) -> bool:
        """Whether `enter` would say True now."""
        return self._open_until is None or (not self._probing and self._clock() >= self._open_until)

    def enter(self) -> bool:
        """Whether to try. Each True is followed by one of `succeeded`, `failed`, `abandoned`."""
        if self._open_until is None:
            return True
        if not self.would_enter:
            return False
        self._probing = True
        return True

    def succeeded(self) -> bool:
        """The other side answered: close. True when it was open."""
        was_open = self._open_until is not None
        self._failures = 0
        self._open_until = None
        self._probing = False
        return was_open

    def failed(self, count: int = 1) -> bool:
        """It did not, to so many at once. True when this failure opened the breaker."""
        now = self._clock()
        if self._failures == 0:
            self._failing_since = now
        self._failures += count
        was_open = self._open_until is not None
        if was_open or (
            self._failures >= self._limit and now - self._failing_since >= self._span_s
        ):
            # An operation that began before the opening and fails after it is no probe, but it
            # may prolong the pause: it is news just as bad.
            self._open_until = now + self._open_s
            self._probing = False
        return not was_open and self._open_until is not None

    def abandoned(self) -> None:
        """The caller went away before there was an outcome."""
        self._probing = False
