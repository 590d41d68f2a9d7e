"""Events with content: what waits is bounded, and a collector that is away delays nobody."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource

from gateway.telemetry.events import LoggedEvents

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest
    from opentelemetry.sdk._logs import ReadableLogRecord


class Stuck(LogRecordExporter):
    """Takes a batch and holds on to it until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.took: list[int] = []

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.took.append(len(batch))
        self.released.wait(20)
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return timeout_millis > 0


def test_what_finds_the_queue_full_is_dropped_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = Stuck()
    events = LoggedEvents(exporter, Resource.create({}), "1", delay_ms=1)
    began = time.perf_counter()
    for _ in range(1000):
        events.emit("gen_ai.client.inference.operation.details", {"a": ["b"]}, Context())
    assert time.perf_counter() - began < 2
    assert caplog.records == []
    exporter.released.set()
    events.close()
    # 256 wait, and a batch is on its way.
    assert 256 <= sum(exporter.took) <= 256 + 64 * 2
