"""What is counted of HTTP requests that we make: to upstreams, replicas and engines.

The rules are those of `metrics.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry import semconv as s
from gateway.telemetry.buckets import HTTP_SECONDS

if TYPE_CHECKING:
    from gateway.telemetry.tallies import Spread, Tallies

ADDRESSES = 24
"""How many servers get a label of their own; any other is `_other`, without a port."""

_REMEMBERED = 1024


class HttpCalls:
    """Counts in `tallies`."""

    __slots__ = ("_addresses", "_duration", "_lock", "_series")

    def __init__(self, tallies: Tallies) -> None:
        """Make the family."""
        self._lock = tallies.lock
        self._duration = tallies.histogram(
            s.M_HTTP_CLIENT_DURATION,
            "s",
            "Time that an HTTP request to an upstream took, to its last byte.",
            HTTP_SECONDS,
            room=4,
        )
        self._addresses: set[tuple[str, int | None]] = set()
        self._series: dict[tuple[str, str, int | None, int, str], Spread] = {}

    def called(  # noqa: PLR0917 - as in `Metrics`
        self, method: str, host: str, port: int | None, status: int, error: str, seconds: float
    ) -> None:
        """See `Metrics.called`."""
        told = (method, host, port, status, error)
        series = self._series.get(told)
        if series is None:
            series = self._duration.at(self._labels(*told))
            if len(self._series) >= _REMEMBERED:
                self._series.clear()
            self._series[told] = series
        with self._lock:
            series.record(seconds)

    def _labels(
        self, method: str, host: str, port: int | None, status: int, error: str
    ) -> dict[str, str | int]:
        labels: dict[str, str | int] = {
            s.HTTP_METHOD: method if method in s.METHODS else s.METHOD_OTHER
        }
        if (host, port) in self._addresses or len(self._addresses) < ADDRESSES:
            self._addresses.add((host, port))
            labels[s.SERVER_ADDRESS] = host
            if port is not None:
                labels[s.SERVER_PORT] = port
        else:
            labels[s.SERVER_ADDRESS] = s.OTHER
        if status:
            labels[s.HTTP_STATUS] = status
        if error or status >= 400:
            labels[s.ERROR_TYPE] = error or str(status)
        return labels
