"""Exporters over gRPC, for `warmgate[grpc]`: importing this raises ImportError without it.

gRPC brings threads and megabytes of its own: imported only where a variable asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

    from gateway.telemetry.otlp_options import Options

_COMPRESSIONS = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


def span_exporter(options: Options) -> SpanExporter:
    """Sends spans. Raises OSError for certificates that can't be read."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    return OTLPSpanExporter(**_arguments(options))


def metric_exporter(options: Options) -> MetricExporter:
    """Sends metrics. Raises as above."""
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter,
    )

    return OTLPMetricExporter(**_arguments(options))


def log_exporter(options: Options) -> LogRecordExporter:
    """Sends events. Raises as above."""
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import (  # noqa: PLC0415
        OTLPLogExporter,
    )

    return OTLPLogExporter(**_arguments(options))


def _arguments(options: Options) -> dict[str, Any]:
    return {
        "endpoint": options.endpoint,
        "insecure": options.insecure,
        "credentials": None if options.insecure else _credentials(options),
        "headers": tuple((name.lower(), value) for name, value in options.headers.items()),
        "timeout": options.timeout_s,
        "compression": _COMPRESSIONS[options.compression],
    }


def _credentials(options: Options) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        _read(options.certificate), _read(options.client_key), _read(options.client_certificate)
    )


def _read(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
