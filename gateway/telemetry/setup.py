"""Builds what tells: spans and metrics from the config and OTEL_*, and stops it in bounded time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from gateway.telemetry import semconv
from gateway.telemetry.bounds import bounds
from gateway.telemetry.metrics import NULL_METRICS, ROUTES, Metrics
from gateway.telemetry.spans import NULL_SPANS, Spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.sdk.metrics.export import MetricReader

    from gateway import config
    from gateway.telemetry.content import Events
    from gateway.telemetry.span_queue import Lost
    from gateway.telemetry.tallies import Tallies

_NO_NAMES: Mapping[str, str] = {}


class Telemetry:
    """`spans` and `metrics` of this process; null objects where they are off.

    Nothing global is set: two of these can live in one process, and no library that we use
    starts to emit because of us.
    """

    def __init__(
        self,
        spans: Spans = NULL_SPANS,
        metrics: Metrics = NULL_METRICS,
        closers: Iterable[Callable[[], object]] = (),
    ) -> None:
        self.spans = spans
        self.metrics = metrics
        self._closers = tuple(closers)

    def __repr__(self) -> str:
        spans = "off" if self.spans is NULL_SPANS else "on"
        return f"<Telemetry spans {spans}, metrics {'on' if self.metrics.enabled else 'off'}>"

    @classmethod
    def start(
        cls,
        settings: config.Telemetry,
        environ: Mapping[str, str],
        version: str,
        routes: Iterable[str] = ROUTES,
    ) -> Telemetry:
        """Telemetry as asked for. Faulty OTEL_* values are logged, never raised.

        `routes` are the paths that may be a metric label. Starts a thread for each signal that
        is pushed; contacts nobody yet.
        """
        # Imported only when something is on, and what sends only when something is pushed: all
        # together takes 0.1 s and 8 MB.
        if settings.traces == "off" and not settings.metrics:
            return cls()
        from gateway.telemetry import signals  # noqa: PLC0415
        from gateway.telemetry.span_queue import Lost  # noqa: PLC0415
        from gateway.telemetry.tallies import Tallies  # noqa: PLC0415

        if signals.disabled(environ):
            return cls()
        closers: list[Callable[[], object]] = []
        tallies = Tallies(bounds(settings.max_series).series)
        spans: Spans = NULL_SPANS
        lost = Lost(tallies)
        wanted = settings.traces == "on" or (
            settings.traces == "auto" and signals.has_endpoint(environ, "TRACES")
        )
        if wanted and signals.wants_otlp(environ, "TRACES"):
            spans = _start_spans(settings, environ, version, lost, closers)
        metrics = NULL_METRICS
        if settings.metrics:
            metrics = _start_metrics(settings, environ, version, routes, tallies, closers)
        return cls(spans, metrics, closers)

    def close(self, timeout_s: float) -> None:
        """Send what waits and stop the threads; gives up after `timeout_s` seconds.

        Blocks for up to that long: call it in a thread. The SDK's own shutdown waits 30 s for a
        collector that takes connections and never answers, so each one runs in a daemon thread
        that is left behind when its time is up.
        """
        deadline = time.monotonic() + timeout_s
        closers, self._closers = self._closers, ()
        threads = [
            threading.Thread(target=closer, name="telemetry-close", daemon=True)
            for closer in closers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _start_spans(
    settings: config.Telemetry,
    environ: Mapping[str, str],
    version: str,
    lost: Lost,
    closers: list[Callable[[], object]],
) -> Spans:
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    from gateway.telemetry import content, otlp, signals  # noqa: PLC0415
    from gateway.telemetry.recorder import RecordedSpans  # noqa: PLC0415
    from gateway.telemetry.trace_context import ChosenIds  # noqa: PLC0415

    queue = otlp.span_queue(environ, lost)
    if queue is None:
        return NULL_SPANS
    ids = ChosenIds()
    on_spans, as_events = content.modes(environ)
    events = _start_events(environ, version, closers) if as_events else None
    provider = TracerProvider(
        # Whoever starts a span has drawn already (`Draw`): children and linked spans go with their
        # server span. A sampler would draw again for the store span, which has its own trace.
        sampler=ALWAYS_ON,
        resource=signals.resource(environ, version),
        id_generator=ids,
        shutdown_on_exit=False,
        span_limits=otlp.span_limits(environ, content=on_spans),
    )
    provider.add_span_processor(queue)
    closers.append(provider.shutdown)
    names = semconv.V1_41 if settings.genai_names == "v1_41" else _NO_NAMES
    tracer = provider.get_tracer(semconv.SCOPE, version)
    capture = content.Capture(on_spans=on_spans, events=events)
    return RecordedSpans(tracer, names, otlp.draw(environ), ids, queue, capture)


def _start_events(
    environ: Mapping[str, str], version: str, closers: list[Callable[[], object]]
) -> Events | None:
    from gateway.telemetry import otlp, signals  # noqa: PLC0415
    from gateway.telemetry.events import LoggedEvents  # noqa: PLC0415 - loads the SDK's logs

    sends = otlp.exporter(environ, "LOGS") if signals.wants_otlp(environ, "LOGS") else None
    if sends is None:
        return None
    delay_ms = otlp.events_delay_ms(environ)
    events = LoggedEvents(sends, signals.resource(environ, version), version, delay_ms)
    closers.append(events.close)
    return events


def _start_metrics(  # noqa: PLR0917
    settings: config.Telemetry,
    environ: Mapping[str, str],
    version: str,
    routes: Iterable[str],
    tallies: Tallies,
    closers: list[Callable[[], object]],
) -> Metrics:
    from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider  # noqa: PLC0415
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from gateway.telemetry import signals  # noqa: PLC0415
    from gateway.telemetry.instruments import Instruments  # noqa: PLC0415
    from gateway.telemetry.tally_export import PulledReader  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    readers: list[MetricReader] = [PulledReader(tallies, registry)]
    if signals.has_endpoint(environ, "METRICS") and signals.wants_otlp(environ, "METRICS"):
        from gateway.telemetry import otlp  # noqa: PLC0415 - only what is pushed needs it

        pushed = otlp.metric_reader(environ, tallies)
        readers += [pushed] if pushed is not None else []
    provider = MeterProvider(
        metric_readers=readers,
        resource=signals.resource(environ, version),
        exemplar_filter=AlwaysOffExemplarFilter(),
        shutdown_on_exit=False,
    )
    closers.append(provider.shutdown)
    return Instruments(
        tallies,
        provider,
        registry,
        version,
        routes,
        genai_names=settings.genai_names,
        limits=bounds(settings.max_series),
    )
