"""The queue of spans: what it takes, what it loses, and that it says so without a word too many."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from gateway.telemetry.span_queue import Lost, SpanQueue
from gateway.telemetry.tallies import Tallies
from gateway.telemetry.tally_export import Collection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SPAN = ReadableSpan("span", SpanContext(1, 2, False, TraceFlags(TraceFlags.SAMPLED)))


class Gate(SpanExporter):
    """An exporter that waits until it may answer, and with what."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.answers = threading.Semaphore(0)
        self.answer: Callable[[], SpanExportResult] = lambda: SpanExportResult.SUCCESS
        self.got = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.began.release()
        assert self.answers.acquire(timeout=10)
        result = self.answer()
        self.got += len(spans)
        return result


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def tallies() -> Tallies:
    return Tallies()


@pytest.fixture
def queue(gate: Gate, tallies: Tallies) -> Iterator[SpanQueue]:
    queue = SpanQueue(gate, Lost(tallies), size=8, batch=4, delay_ms=60_000)
    yield queue
    for _ in range(10):
        gate.answers.release()
    queue.shutdown()  # type: ignore[no-untyped-call]


def lost(tallies: Tallies) -> int:
    [metric] = Collection(tallies).metrics()
    [point] = metric.data.data_points
    return point.value  # type: ignore[union-attr, return-value]


def test_a_full_queue_counts_what_it_loses_and_logs_nothing(
    queue: SpanQueue, gate: Gate, tallies: Tallies, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(4):
        queue.on_end(SPAN)
    assert gate.began.acquire(timeout=10)  # four are on their way, so eight more find room
    for _ in range(8 + 5):
        queue.on_end(SPAN)
    assert queue.full()
    assert lost(tallies) == 6  # five spans, and one that was not made for want of room
    gate.answers.release()
    assert gate.began.acquire(timeout=10)
    assert not queue.full()
    assert caplog.records == []


@pytest.mark.parametrize("how", ["refused", "raised"])
def test_what_a_collector_does_not_take_is_counted_as_lost(
    queue: SpanQueue, gate: Gate, tallies: Tallies, how: str
) -> None:
    def answer() -> SpanExportResult:
        if how == "raised":
            raise ConnectionError("gone")
        return SpanExportResult.FAILURE

    gate.answer = answer
    for _ in range(4):
        queue.on_end(SPAN)
    gate.answers.release()
    queue.shutdown()  # type: ignore[no-untyped-call]
    assert lost(tallies) == 4


def test_what_waits_is_sent_at_the_end(queue: SpanQueue, gate: Gate, tallies: Tallies) -> None:
    for _ in range(3):
        queue.on_end(SPAN)
    gate.answers.release()
    queue.shutdown()  # type: ignore[no-untyped-call]
    assert (gate.got, lost(tallies)) == (3, 0)
