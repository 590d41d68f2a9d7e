"""Tallies: what they tell is what the SDK's own instruments would have told."""

from __future__ import annotations

import random
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    MetricsData,
    Sum,
)
from opentelemetry.sdk.resources import Resource

from gateway.telemetry.tallies import OVERFLOW, Tallies
from gateway.telemetry.tally_export import Collection

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from opentelemetry.sdk.metrics.export import Metric

BOUNDS = (0.001, 0.01, 0.1, 1.0)
DELTA: dict[type, AggregationTemporality] = {
    sdk.Counter: AggregationTemporality.DELTA,
    sdk.Histogram: AggregationTemporality.DELTA,
}


def told(metrics: Iterable[Metric]) -> dict[str, Any]:
    """All that a metric says but the times; its points by their labels."""
    found: dict[str, Any] = {}
    for metric in metrics:
        assert isinstance(metric.data, (Sum, Histogram))
        points = {}
        for point in metric.data.data_points:
            values = dict(vars(point))
            del values["start_time_unix_nano"], values["time_unix_nano"]
            if isinstance(point, HistogramDataPoint):
                values["sum"] = round(point.sum, 6)
            points[tuple(sorted(values.pop("attributes").items()))] = values
        kind = type(metric.data).__name__, metric.data.aggregation_temporality
        found[metric.name] = (metric.description, metric.unit, *kind, points)
    return found


def metrics_of(data: MetricsData | None) -> list[Metric]:
    return [
        metric
        for of_resource in (data.resource_metrics if data else ())
        for scope in of_resource.scope_metrics
        for metric in scope.metrics
    ]


@pytest.mark.parametrize("delta", [False, True])
def test_readers_get_what_the_sdk_would_have_collected(delta: bool) -> None:
    reader = InMemoryMetricReader(DELTA if delta else None)
    provider = MeterProvider([reader], Resource({}), AlwaysOffExemplarFilter())
    meter = provider.get_meter("warmgate")
    counter = meter.create_counter("tokens", "{token}", "Some.")
    histogram = meter.create_histogram(
        "duration", "s", "How long.", explicit_bucket_boundaries_advisory=BOUNDS
    )
    tallies = Tallies()
    sums = tallies.counter("tokens", "{token}", "Some.")
    spreads = tallies.histogram("duration", "s", "How long.", BOUNDS)
    # Another reader in between takes nothing away from this one.
    pulled, collection = Collection(tallies), Collection(tallies, delta=delta)
    draw = random.Random(6)
    for _ in range(6):
        for _ in range(draw.choice((0, 3, 40))):
            labels: dict[str, str | int] = {"model": draw.choice("ab"), "status": 200}
            amount = draw.randrange(1, 100)
            seconds = draw.choice((0.0, 0.001, 0.0011, draw.random(), draw.random() * 50))
            counter.add(amount, labels)
            histogram.record(seconds, labels)
            one, spread = sums.at(labels), spreads.at(labels)
            with tallies.lock:
                one.value += amount
                spread.record(seconds)
        pulled.metrics()
        assert told(collection.metrics()) == told(metrics_of(reader.get_metrics_data()))
    provider.shutdown()


def test_times_of_a_delta_follow_on_each_other_and_of_a_total_stay() -> None:
    tallies = Tallies()
    series = tallies.counter("n", "1", "Some.").at({})
    totals, deltas = Collection(tallies), Collection(tallies, delta=True)
    spans: list[list[tuple[int | None, int]]] = [[], []]
    for _ in range(3):
        with tallies.lock:
            series.value += 1
        for collection, seen in zip((totals, deltas), spans, strict=True):
            [metric] = collection.metrics()
            [point] = metric.data.data_points
            seen.append((point.start_time_unix_nano, point.time_unix_nano))
    assert [begin for begin, _ in spans[0]] == [series.born_ns] * 3
    assert spans[1][0][0] == series.born_ns
    assert [begin for begin, _ in spans[1][1:]] == [end for _, end in spans[1][:-1]]


def test_a_delta_reader_hears_nothing_twice_and_of_nothing_that_stood_still() -> None:
    tallies = Tallies()
    series = tallies.counter("n", "1", "Some.").at({})
    spread = tallies.histogram("s", "s", "Some.", BOUNDS).at({})
    collection = Collection(tallies, delta=True)
    with tallies.lock:
        series.value += 5
        spread.record(0.5)
    assert {metric.name for metric in collection.metrics()} == {"n", "s"}
    assert collection.metrics() == []


def test_below_zero_counts_as_zero() -> None:
    spread = Tallies().histogram("s", "s", "Some.", BOUNDS).at({})
    spread.record(-1e-9)
    assert (spread.buckets, spread.total, spread.low) == ([1, 0, 0, 0, 0], 0, 0)


def test_what_there_is_no_room_for_is_counted_in_one_more_series() -> None:
    tallies = Tallies(series=100)
    family = tallies.counter("n", "1", "Some.", room=10)
    spare = 100 - 11
    first = family.at({"n": 0})
    for n in range(1, 10 + spare + 50):
        family.at({"n": n}).value += 1
    assert family.at({"n": 0}) is first
    assert len(family.all()) == 10 + spare + 1
    assert (family.all()[-1].labels, family.all()[-1].value) == (OVERFLOW, 50)


def test_histograms_leave_half_of_what_is_shared_to_counters() -> None:
    tallies = Tallies(series=220)
    wide = tallies.histogram("s", "s", "Some.", BOUNDS, room=1)
    narrow = tallies.counter("n", "1", "Some.", room=1)
    shared = tallies.spare.left
    for n in range(1000):
        wide.at({"n": n})
    assert shared // 2 <= tallies.spare.left < shared // 2 + len(BOUNDS) + 3
    for n in range(1000):
        narrow.at({"n": n})
    assert tallies.spare.left == 0


def test_nobody_takes_the_room_of_another() -> None:
    tallies = Tallies(series=100)
    hungry = tallies.counter("n", "1", "Some.", room=1)
    late = tallies.histogram("s", "s", "Some.", BOUNDS, room=2)
    for n in range(1000):
        hungry.at({"n": n})
    assert tallies.spare.left == 0
    own = [late.at({"n": n}) for n in range(2)]
    assert [each.labels for each in own] == [{"n": 0}, {"n": 1}]
    assert late.at({"n": 2}).labels == OVERFLOW
    # As Prometheus counts: one for each bucket, and three more.
    assert len(hungry.all()) + len(late.all()) * (len(BOUNDS) + 3) <= 100


def test_what_is_reserved_is_nobodys() -> None:
    tallies = Tallies(series=20)
    tallies.reserve(15)
    family = tallies.counter("n", "1", "Some.", room=1)
    assert [family.at({"n": n}).labels != OVERFLOW for n in range(6)] == [True] * 4 + [False] * 2


def test_sums_belong_to_their_buckets_while_others_count() -> None:
    """Every observation is 1, so a sum that is not its count is a torn one."""
    tallies = Tallies()
    spread = tallies.histogram("s", "s", "Some.", BOUNDS).at({})
    collection = Collection(tallies, delta=True)
    wanted, writers = 20_000, 2

    def count() -> None:
        for _ in range(wanted):
            with tallies.lock:
                spread.record(1)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count) for _ in range(writers)]
        for thread in threads:
            thread.start()
        seen = 0
        alive = True
        while alive:
            alive = any(thread.is_alive() for thread in threads)  # else once more, for the rest
            for metric in collection.metrics():
                [point] = metric.data.data_points
                assert isinstance(point, HistogramDataPoint)
                assert point.sum == point.count == point.bucket_counts[3]
                seen += point.count
    finally:
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join(10)
    assert seen == wanted * writers
