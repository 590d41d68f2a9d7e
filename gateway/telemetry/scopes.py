"""What is counted by who asked: requests, under the beginning of the keyed hash of a credential.

The rules are those of `metrics.py`. A scope gets a label once an upstream (or the cache, for somebody
whom it accepted) has answered it, so that made-up keys don't fill the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry import semconv as s
from gateway.telemetry.metrics import SCOPES, ProvenNames

if TYPE_CHECKING:
    from gateway.core.model import Result
    from gateway.telemetry.tallies import Count, Tallies

_LIMITED, _REFUSED, _FAILED = "limited", "refused", "failed"


class ScopeTallies:
    """Counts in `tallies`."""

    __slots__ = ("_lock", "_names", "_requests", "_series")

    def __init__(self, tallies: Tallies) -> None:
        """Make the family."""
        self._lock = tallies.lock
        self._names = ProvenNames(SCOPES)
        self._requests = tallies.counter(
            s.M_SCOPE_REQUESTS, "{request}", "Requests by who asked, and how they ended.", room=100
        )
        self._series: dict[tuple[str, str], Count] = {}

    def requested(self, scope: str, result: Result | None, status: int) -> None:
        """One request has ended; `scope` is empty for who gave no credential or was not read."""
        if status == 429:
            outcome = _LIMITED
        elif status >= 500:
            outcome = _FAILED
        elif status >= 400:
            outcome = _REFUSED
        else:
            outcome = result.value if result is not None else "none"
        label = self._names.label(scope, proven=0 < status < 400)
        series = self._series.get((label, outcome))
        if series is None:
            # Labels and outcomes are few, so this is.
            series = self._requests.at({s.L_SCOPE: label, s.L_OUTCOME: outcome})
            self._series[label, outcome] = series
        with self._lock:
            series.value += 1
