"""What is counted of pools: requests by why they went where they went, and those that went on.

`RouteMetrics` counts nothing; `RouteTallies` counts. The rules are those of `metrics.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry import semconv as s

if TYPE_CHECKING:
    from gateway.core.route import Branch
    from gateway.telemetry.tallies import Tallies


class RouteMetrics:
    """Counts nothing."""

    __slots__ = ()

    def sent(self, upstream: str, branch: Branch) -> None:
        """A request was sent to a replica."""

    def retried(self, upstream: str, reason: str) -> None:
        """One failed before an answer began, and goes to the next; `reason` is the status, or a
        short, fixed word.
        """


NULL_ROUTE = RouteMetrics()


class RouteTallies(RouteMetrics):
    """Counts in `tallies`."""

    __slots__ = ("_lock", "_requests", "_retries")

    def __init__(self, tallies: Tallies) -> None:
        """Make the families."""
        self._lock = tallies.lock
        self._requests = tallies.counter(
            s.M_ROUTE_REQUESTS, "{request}", "Requests sent to replicas, by why there."
        )
        self._retries = tallies.counter(
            s.M_ROUTE_RETRIES, "{request}", "Requests that went on to another replica, by why."
        )

    def sent(self, upstream: str, branch: Branch) -> None:
        """See the base."""
        series = self._requests.at({s.L_UPSTREAM: upstream, s.L_BRANCH: branch.value})
        with self._lock:
            series.value += 1

    def retried(self, upstream: str, reason: str) -> None:
        """See the base."""
        series = self._retries.at({s.L_UPSTREAM: upstream, s.L_REASON: reason})
        with self._lock:
            series.value += 1
