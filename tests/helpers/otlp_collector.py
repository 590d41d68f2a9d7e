"""An OTLP/HTTP receiver that keeps what it gets, decoded, for tests to look at."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1 import trace_pb2

KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}
STATUSES = {0: "UNSET", 1: "OK", 2: "ERROR"}


@dataclass(frozen=True)
class Span:
    """One span as it arrived; ids in hex, `parent_id` empty for a root."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    status: str
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    events: tuple[tuple[str, dict[str, Any]], ...]
    start_ns: int
    end_ns: int
    resource: dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One log record as it arrived."""

    name: str
    severity: int
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass
class Collector:
    """What arrived so far. `endpoint` is the value for OTEL_EXPORTER_OTLP_ENDPOINT."""

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    """Metric name -> its latest data (the protobuf message)."""
    events: list[Event] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def named(self, name: str) -> list[Span]:
        """The spans of this name, in order of arrival."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        """The only span of this name."""
        [span] = self.named(name)
        return span

    def took_spans(self, message: ExportTraceServiceRequest) -> None:
        """These arrived."""
        self.spans.extend(
            _span(span, _values(group.resource.attributes))
            for group in message.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        )

    def took_metrics(self, message: ExportMetricsServiceRequest) -> None:
        """These arrived."""
        for group in message.resource_metrics:
            for scope in group.scope_metrics:
                self.metrics.update({m.name: m for m in scope.metrics})

    def took_logs(self, message: ExportLogsServiceRequest) -> None:
        """These arrived."""
        self.events.extend(
            Event(
                record.event_name,
                record.severity_number,
                record.trace_id.hex(),
                record.span_id.hex(),
                _values(record.attributes),
            )
            for group in message.resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        )

    async def wait_for(
        self, predicate: Callable[[Collector], object], timeout_s: float = 5.0
    ) -> None:
        """Until the predicate holds; TimeoutError after `timeout_s` seconds."""
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(lambda: bool(predicate(self)))


@asynccontextmanager
async def otlp_collector() -> AsyncIterator[Collector]:
    """A collector on a free port of the loopback."""
    collector = Collector()

    async def traces(request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        async with collector.changed:
            collector.headers.append(dict(request.headers))
            collector.took_spans(message)
            collector.changed.notify_all()
        return _answer(ExportTraceServiceResponse().SerializeToString())

    async def metrics(request: web.Request) -> web.Response:
        message = ExportMetricsServiceRequest.FromString(await request.read())
        async with collector.changed:
            collector.took_metrics(message)
            collector.changed.notify_all()
        return _answer(ExportMetricsServiceResponse().SerializeToString())

    async def logs(request: web.Request) -> web.Response:
        message = ExportLogsServiceRequest.FromString(await request.read())
        async with collector.changed:
            collector.took_logs(message)
            collector.changed.notify_all()
        return _answer(ExportLogsServiceResponse().SerializeToString())

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", traces)
    app.router.add_post("/v1/metrics", metrics)
    app.router.add_post("/v1/logs", logs)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    collector.endpoint = f"http://{host}:{port}"
    try:
        yield collector
    finally:
        await runner.cleanup()


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/x-protobuf")


def _span(span: trace_pb2.Span, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        status=STATUSES[span.status.code],
        attributes=_values(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        events=tuple((event.name, _values(event.attributes)) for event in span.events),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        resource=resource,
    )


def _values(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _values(value.kvlist_value.values)
    return getattr(value, kind) if kind else None
