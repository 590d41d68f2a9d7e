"""Exporters over HTTP. Loads protobuf and an HTTP client: imported only where something is pushed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http import Compression

if TYPE_CHECKING:
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

    from gateway.telemetry.otlp_options import Options


def span_exporter(options: Options) -> SpanExporter:
    """Sends spans."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    return OTLPSpanExporter(**_arguments(options))


def metric_exporter(options: Options) -> MetricExporter:
    """Sends metrics."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter,
    )

    return OTLPMetricExporter(**_arguments(options))


def log_exporter(options: Options) -> LogRecordExporter:
    """Sends events."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # noqa: PLC0415
        OTLPLogExporter,
    )

    return OTLPLogExporter(**_arguments(options))


def _arguments(options: Options) -> dict[str, Any]:
    return {
        "endpoint": options.endpoint,
        "certificate_file": options.certificate,
        "client_key_file": options.client_key,
        "client_certificate_file": options.client_certificate,
        "headers": options.headers,
        "timeout": options.timeout_s,
        "compression": Compression(options.compression),
    }
