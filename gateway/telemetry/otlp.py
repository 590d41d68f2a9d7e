"""Samplers, queues and what sends them, as the standard OTEL_* variables ask for them.

Imported only where something is pushed.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import SpanLimits

from gateway.telemetry.content import MOST_JSON
from gateway.telemetry.otlp_options import GRPC, number, options
from gateway.telemetry.span_queue import SpanQueue
from gateway.telemetry.tally_export import PushedReader
from gateway.telemetry.trace_context import Draw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.telemetry.signals import Signal
    from gateway.telemetry.span_queue import Lost
    from gateway.telemetry.tallies import Tallies

_log = logging.getLogger(__name__)

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
        ratio = number(environ, "OTEL_TRACES_SAMPLER_ARG", 1.0)
        if not 0.0 <= ratio <= 1.0:
            _log.warning("OTEL_TRACES_SAMPLER_ARG: not between 0 and 1, taking 1")
            ratio = 1.0
    return Draw(ratio, parent_based=name.startswith("parentbased_"))


def span_limits(environ: Mapping[str, str], *, content: bool = False) -> SpanLimits:
    """Bounds on a span; with the queue's they bound the memory of all waiting spans. `content`:
    attributes that are JSON of prompts and answers fit, unless a variable says otherwise.
    """
    # (All other attributes are cut where they are made.)
    most = MOST_JSON if content else _VALUE_LENGTH
    length = number(environ, "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", most)
    length = number(environ, "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", length)
    return SpanLimits(
        max_span_attributes=64,
        max_attributes=64,
        max_span_attribute_length=max(1, int(length)),
        max_attribute_length=max(1, int(length)),
    )


_MAKES = {"TRACES": "span_exporter", "METRICS": "metric_exporter", "LOGS": "log_exporter"}


def exporter(environ: Mapping[str, str], signal: Signal) -> Any:
    """What sends this signal, by the protocol that is asked for; None where nothing can: it is
    logged why.
    """
    asked = options(environ, signal)
    try:
        # gRPC is megabytes, and not always there.
        name = "otlp_grpc" if asked.protocol == GRPC else "otlp_http"
        protocol = import_module(f"gateway.telemetry.{name}")
        return getattr(protocol, _MAKES[signal])(asked)
    except ImportError:
        # Not over HTTP instead: what listens where gRPC is spoken would not understand it.
        _log.error(
            "OTEL_EXPORTER_OTLP_PROTOCOL: grpc needs the extra `grpc` (pip install"
            " 'warmgate[grpc]'); %s are not sent. http/protobuf needs nothing more",
            signal.lower(),
        )
    except (OSError, ValueError) as problem:
        _log.error("OTEL_EXPORTER_OTLP_*: %s can't be sent: %s", signal.lower(), problem)
    return None


def span_queue(environ: Mapping[str, str], lost: Lost) -> SpanQueue | None:
    """Spans wait in a bounded queue for a thread that sends them; when it is full they are lost.
    None where nothing can send them.
    """
    sends = exporter(environ, "TRACES")
    if sends is None:
        return None
    queue = max(1, int(number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE)))
    batch = max(1, int(number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH)))
    return SpanQueue(
        sends,
        lost,
        size=queue,
        batch=batch,
        delay_ms=max(1.0, number(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000)),
    )


def metric_reader(environ: Mapping[str, str], tallies: Tallies) -> PushedReader | None:
    """Pushes the metrics every OTEL_METRIC_EXPORT_INTERVAL (60,000 ms), from its own thread. None
    where nothing can send them.
    """
    sends = exporter(environ, "METRICS")
    if sends is None:
        return None
    return PushedReader(
        sends,
        tallies,
        delta=_wants_delta(environ),
        interval_ms=max(10.0, number(environ, "OTEL_METRIC_EXPORT_INTERVAL", 60_000)),
        timeout_ms=number(environ, "OTEL_METRIC_EXPORT_TIMEOUT", 30_000),
    )


def events_delay_ms(environ: Mapping[str, str]) -> float:
    """OTEL_BLRP_SCHEDULE_DELAY (1,000 ms): how long events wait for others."""
    return max(1.0, number(environ, "OTEL_BLRP_SCHEDULE_DELAY", 1000))


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
