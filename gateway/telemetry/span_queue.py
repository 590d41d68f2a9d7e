"""The queue between requests and the thread that sends their spans: bounded, and cheap when full.

The SDK's own processor warns about each span that finds the queue full, which costs more than the
span. And whoever knows that it is full need not make spans at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from gateway.telemetry.semconv import M_SPANS_LOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from gateway.telemetry.tallies import Tallies


class Lost:
    """Counts spans that nobody got."""

    def __init__(self, tallies: Tallies) -> None:
        self._lock = tallies.lock
        self._series = tallies.counter(
            M_SPANS_LOST, "{span}", "Spans that were lost because nobody took them in time."
        ).at({})

    def add(self, spans: int) -> None:
        """So many more."""
        with self._lock:
            self._series.value += spans


class SpanQueue(BatchSpanProcessor):
    """At most `size` spans wait; those that come when it is full are lost, and counted."""

    def __init__(
        self, exporter: SpanExporter, lost: Lost, *, size: int, batch: int, delay_ms: float
    ) -> None:
        self._size = size
        self._lost = lost
        # One is written by the loop's thread, the other by the sender's: no lock is needed.
        self._came = 0
        self._sending = _Sending(exporter, lost)
        super().__init__(
            self._sending,
            max_queue_size=size,
            max_export_batch_size=min(batch, size),
            schedule_delay_millis=delay_ms,
        )

    def full(self) -> bool:
        """Whether a span that ends now is lost. Then counts one: ask before one is made."""
        if self._came - self._sending.taken < self._size:
            return False
        self._lost.add(1)
        return True

    def on_end(self, span: ReadableSpan) -> None:
        """As `SpanProcessor.on_end`."""
        if not self.full():
            self._came += 1
            super().on_end(span)


class _Sending(SpanExporter):
    """An exporter that tells how many spans it took, and counts what it could not send."""

    def __init__(self, exporter: SpanExporter, lost: Lost) -> None:
        self._exporter = exporter
        self._lost = lost
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self._lost.add(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
