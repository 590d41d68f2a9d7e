"""Hands `tallies.py` to OpenTelemetry's own readers, as the data that their SDK would collect.

The SDK for Python has no `MetricProducer` (its issue 4768), which is what the specification has
for this. So the readers are subclassed where they say that they may be: `_receive_metrics`, which
gets what the SDK has collected, and adds our families to it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import export as sdk

from gateway.telemetry.semconv import SCOPE
from gateway.telemetry.tallies import Count, Counter, Histogram, Spread, Tallies

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_DELTA = sdk.AggregationTemporality.DELTA
_CUMULATIVE = sdk.AggregationTemporality.CUMULATIVE


class Collection:
    """What one reader gets: all since the start, or with `delta` what is new since it last came.

    The smallest and largest value of a histogram are those since the last time that a `delta`
    reader came. There is one such reader at most, and Prometheus' text shows neither.
    """

    def __init__(self, tallies: Tallies, *, delta: bool = False) -> None:
        self._tallies = tallies
        self._delta = delta
        self._lock = threading.Lock()
        self._told_counts: dict[Count, float] = {}
        self._told_spreads: dict[Spread, tuple[list[int], float]] = {}
        self._last_ns: int | None = None

    def added_to(self, collected: sdk.MetricsData) -> sdk.MetricsData:
        """What the SDK collected, with our families in our scope."""
        metrics = self.metrics()
        return sdk.MetricsData(
            [
                replace(
                    of_resource,
                    scope_metrics=[
                        replace(scope, metrics=[*metrics, *scope.metrics])
                        if scope.scope.name == SCOPE
                        else scope
                        for scope in of_resource.scope_metrics
                    ],
                )
                for of_resource in collected.resource_metrics
            ]
        )

    def metrics(self) -> list[sdk.Metric]:
        """The families that have something to tell."""
        with self._lock:
            now_ns = time.time_ns()
            found = [
                sdk.Metric(family.name, family.what, family.unit, data)
                for family in self._tallies.families
                if (data := self._data(family, now_ns)).data_points
            ]
            if self._delta:
                self._last_ns = now_ns
            return found

    def _data(self, family: Counter | Histogram, now_ns: int) -> sdk.Sum | sdk.Histogram:
        temporality = _DELTA if self._delta else _CUMULATIVE
        if isinstance(family, Counter):
            sums = [self._sum(series, now_ns) for series in family.all()]
            return sdk.Sum([p for p in sums if p is not None], temporality, is_monotonic=True)
        spreads = [self._spread(series, now_ns) for series in family.all()]
        return sdk.Histogram([p for p in spreads if p is not None], temporality)

    def _sum(self, series: Count, now_ns: int) -> sdk.NumberDataPoint | None:
        with self._tallies.lock:
            value = series.value
        since_ns = series.born_ns
        if self._delta:
            told = self._told_counts.get(series)
            if value == told:
                return None
            self._told_counts[series] = value
            value -= told or 0
            since_ns = self._last_ns or since_ns
        return sdk.NumberDataPoint(dict(series.labels), since_ns, now_ns, value)

    def _spread(self, series: Spread, now_ns: int) -> sdk.HistogramDataPoint | None:
        with self._tallies.lock:
            buckets, total = series.buckets.copy(), series.total
            low, high = series.low, series.high
            if self._delta:
                series.low, series.high = float("inf"), float("-inf")
        since_ns = series.born_ns
        if self._delta:
            told, told_total = self._told_spreads.get(series, ([0] * len(buckets), 0))
            self._told_spreads[series] = (buckets, total)
            buckets = [new - old for new, old in zip(buckets, told, strict=True)]
            total -= told_total
            since_ns = self._last_ns or since_ns
        count = sum(buckets)
        if not count:
            return None
        return sdk.HistogramDataPoint(
            attributes=dict(series.labels),
            start_time_unix_nano=since_ns,
            time_unix_nano=now_ns,
            count=count,
            sum=total,
            bucket_counts=tuple(buckets),
            explicit_bounds=series.bounds,
            min=low,
            max=high,
        )


class PulledReader(PrometheusMetricReader):
    """Fills `registry` when it is asked for the Prometheus text."""

    def __init__(self, tallies: Tallies, registry: CollectorRegistry) -> None:
        self._collection = Collection(tallies)
        super().__init__(scope_info_enabled=False, registry=registry)

    def _receive_metrics(
        self, metrics_data: sdk.MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        super()._receive_metrics(self._collection.added_to(metrics_data), timeout_millis, **kwargs)


class PushedReader(sdk.PeriodicExportingMetricReader):
    """Hands everything to `exporter` every `interval_ms`, from a thread of its own."""

    def __init__(
        self,
        exporter: sdk.MetricExporter,
        tallies: Tallies,
        *,
        delta: bool,
        interval_ms: float,
        timeout_ms: float,
    ) -> None:
        # First of all: the thread that the SDK's constructor starts comes for it.
        self._collection = Collection(tallies, delta=delta)
        super().__init__(exporter, interval_ms, timeout_ms)

    def _receive_metrics(
        self, metrics_data: sdk.MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        super()._receive_metrics(self._collection.added_to(metrics_data), timeout_millis, **kwargs)
