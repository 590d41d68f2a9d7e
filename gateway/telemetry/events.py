"""Events over OTLP logs: a bounded queue and a thread of its own. Only where content is wanted so.

Loads the SDK's logs, so it is imported only then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

from gateway.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.resources import Resource

_WAITING = 256
"""Events that wait at most: each is as large as a prompt and its answer, cut. The oldest are lost."""
_BATCH = 64


class LoggedEvents:
    """As `content.Events`."""

    def __init__(
        self, exporter: LogRecordExporter, resource: Resource, version: str, delay_ms: float
    ) -> None:
        self._provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(
                exporter,
                schedule_delay_millis=delay_ms,
                max_export_batch_size=_BATCH,
                max_queue_size=_WAITING,
            )
        )
        self._logger = self._provider.get_logger(semconv.SCOPE, version)

    def emit(self, name: str, told: Mapping[str, Any], context: Context) -> None:
        """Tell it, in the trace of `context`."""
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
