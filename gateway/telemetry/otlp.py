"""Samplers, queues and exporters, as the standard OTEL_* variables ask for them.

The variables are read from the mapping that we are given, not from the process, so that a config
means the same wherever it is loaded. A faulty value is told once and replaced by its default:
telemetry that can't be configured is no reason not to serve.

Loads protobuf and an HTTP client, so it is imported only where something is pushed.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.util.re import parse_env_headers

from gateway.telemetry.span_queue import SpanQueue
from gateway.telemetry.tally_export import PushedReader
from gateway.telemetry.trace_context import Draw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.telemetry.signals import Signal
    from gateway.telemetry.span_queue import Lost
    from gateway.telemetry.tallies import Tallies

_log = logging.getLogger(__name__)

_ENDPOINT = "http://localhost:4318"
_QUEUE = 2048
_BATCH = 512
_VALUE_LENGTH = 1024


def draw(environ: Mapping[str, str]) -> Draw:
    """OTEL_TRACES_SAMPLER and its argument; default `parentbased_always_on`."""
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    if name.removeprefix("parentbased_") not in ("always_on", "always_off", "traceidratio"):
        _log.warning("OTEL_TRACES_SAMPLER: unknown, taking parentbased_always_on")
        name = "parentbased_always_on"
    ratio = 0.0 if name.endswith("always_off") else 1.0
    if name.endswith("traceidratio"):
        ratio = _number(environ, "OTEL_TRACES_SAMPLER_ARG", 1.0)
        if not 0.0 <= ratio <= 1.0:
            _log.warning("OTEL_TRACES_SAMPLER_ARG: not between 0 and 1, taking 1")
            ratio = 1.0
    return Draw(ratio, parent_based=name.startswith("parentbased_"))


def span_limits(environ: Mapping[str, str]) -> SpanLimits:
    """Bounds on a span; with the queue's they bound the memory of all waiting spans."""
    length = _number(environ, "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", _VALUE_LENGTH)
    length = _number(environ, "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", length)
    return SpanLimits(
        max_span_attributes=64,
        max_attributes=64,
        max_span_attribute_length=max(1, int(length)),
        max_attribute_length=max(1, int(length)),
    )


def span_queue(environ: Mapping[str, str], lost: Lost) -> SpanQueue:
    """Spans wait in a bounded queue for a thread that sends them; when it is full they are lost."""
    _check_protocol(environ, "TRACES")
    queue = max(1, int(_number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE)))
    batch = max(1, int(_number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH)))
    exporter = OTLPSpanExporter(
        endpoint=_endpoint(environ, "TRACES"),
        certificate_file=_option(environ, "TRACES", "CERTIFICATE"),
        client_key_file=_option(environ, "TRACES", "CLIENT_KEY"),
        client_certificate_file=_option(environ, "TRACES", "CLIENT_CERTIFICATE"),
        headers=_headers(environ, "TRACES"),
        timeout=_timeout_s(environ, "TRACES"),
        compression=_compression(environ, "TRACES"),
    )
    return SpanQueue(
        exporter,
        lost,
        size=queue,
        batch=batch,
        delay_ms=max(1.0, _number(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000)),
    )


def metric_reader(environ: Mapping[str, str], tallies: Tallies) -> PushedReader:
    """Pushes the metrics every OTEL_METRIC_EXPORT_INTERVAL (60,000 ms), from its own thread."""
    _check_protocol(environ, "METRICS")
    delta = _wants_delta(environ)
    exporter = OTLPMetricExporter(
        endpoint=_endpoint(environ, "METRICS"),
        certificate_file=_option(environ, "METRICS", "CERTIFICATE"),
        client_key_file=_option(environ, "METRICS", "CLIENT_KEY"),
        client_certificate_file=_option(environ, "METRICS", "CLIENT_CERTIFICATE"),
        headers=_headers(environ, "METRICS"),
        timeout=_timeout_s(environ, "METRICS"),
        compression=_compression(environ, "METRICS"),
    )
    return PushedReader(
        exporter,
        tallies,
        delta=delta,
        interval_ms=max(10.0, _number(environ, "OTEL_METRIC_EXPORT_INTERVAL", 60_000)),
        timeout_ms=_number(environ, "OTEL_METRIC_EXPORT_TIMEOUT", 30_000),
    )


def _wants_delta(environ: Mapping[str, str]) -> bool:
    """OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE for sums and histograms.

    `lowmemory` is `delta` for those that are counted as things happen, and all of ours are.
    """
    name = environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().lower()
    if name not in ("", "cumulative", "delta", "lowmemory"):
        _log.warning(
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE: unknown, taking cumulative"
        )
    form = environ.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "").strip()
    if form.lower() not in ("", "explicit_bucket_histogram"):
        _log.warning(
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION: only"
            " explicit_bucket_histogram is known here, using that"
        )
    return name in ("delta", "lowmemory")


def _option(environ: Mapping[str, str], signal: Signal, name: str) -> str | None:
    """The signal's own variable, else the one for all signals."""
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
        if value := environ.get(variable, "").strip():
            return value
    return None


def _endpoint(environ: Mapping[str, str], signal: Signal) -> str:
    if own := environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "").strip():
        return own  # "used as-is without any modification" (OTLP exporter specification)
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or _ENDPOINT
    return f"{base.removesuffix('/')}/v1/{signal.lower()}"


def _headers(environ: Mapping[str, str], signal: Signal) -> dict[str, str]:
    return dict(parse_env_headers(_option(environ, signal, "HEADERS") or "", liberal=True))


def _timeout_s(environ: Mapping[str, str], signal: Signal) -> float:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):
        if environ.get(variable, "").strip():
            return max(0.1, _number(environ, variable, 10.0))
    return 10.0


def _compression(environ: Mapping[str, str], signal: Signal) -> Compression:
    name = (_option(environ, signal, "COMPRESSION") or "none").lower()
    try:
        return Compression(name)
    except ValueError:
        _log.warning("OTEL_EXPORTER_OTLP_COMPRESSION: unknown, sending uncompressed")
        return Compression.NoCompression


def _check_protocol(environ: Mapping[str, str], signal: Signal) -> None:
    protocol = _option(environ, signal, "PROTOCOL")
    if protocol not in (None, "http/protobuf"):
        _log.warning("OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is known here, using that")


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        _log.warning("%s: not a number, taking %s", name, default)
        return default
    return number
