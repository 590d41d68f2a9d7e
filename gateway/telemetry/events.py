"""Events over OTLP logs: a bounded queue and a thread of its own. Only where content is wanted so.

Loads the SDK's logs, so it is imported only then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)

from gateway.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.resources import Resource

_WAITING = 256
"""Events that wait at most: each is as large as a prompt and its answer, cut. What comes then is lost."""
_BATCH = 64


class LoggedEvents:
    """As `content.Events`."""

    def __init__(
        self, exporter: LogRecordExporter, resource: Resource, version: str, delay_ms: float
    ) -> None:
        # As of `SpanQueue`: one is written by the loop's thread, the other by the sender's.
        self._came = 0
        self._sending = _Sending(exporter)
        self._provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(
                self._sending,
                schedule_delay_millis=delay_ms,
                max_export_batch_size=_BATCH,
                max_queue_size=_WAITING,
            )
        )
        self._logger = self._provider.get_logger(semconv.SCOPE, version)

    def emit(self, name: str, told: Mapping[str, Any], context: Context) -> None:
        """Tell it, in the trace of `context`, if there is room."""
        if self._came - self._sending.taken >= _WAITING:
            return
        self._came += 1
        self._logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                context=context,
                severity_number=SeverityNumber.DEBUG,
                event_name=name,
                attributes=dict(told),
            )
        )

    def close(self) -> None:
        """Send what waits, and stop."""
        self._provider.shutdown()


class _Sending(LogRecordExporter):
    """An exporter that tells how many events it took: the SDK's queue warns about each that finds it
    full, and that costs more than the event.
    """

    def __init__(self, exporter: LogRecordExporter) -> None:
        self._exporter = exporter
        self.taken = 0

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.taken += len(batch)
        return self._exporter.export(batch)

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call] # the SDK's has no types

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
