"""The spans of `spans.py`, recorded with OpenTelemetry.

Status, as the HTTP conventions say: a server span is an error from 500 on ("4xx ... span status
MUST be left unset"), a client span from 400 on, and "a deliberate cancellation SHOULD NOT be
treated as an error". Parents are passed by hand, not through context variables: a response may
end in another task than it began in.
"""

# ruff: noqa: D102 - the methods are documented in spans.py

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags

from gateway.core.model import Reason
from gateway.telemetry import semconv, spans
from gateway.telemetry.attributes import (
    asked_for,
    set_address,
    set_cache,
    set_method,
    set_plan,
    set_prompt_cache,
)
from gateway.telemetry.content import NO_CONTENT
from gateway.telemetry.recorded import (
    PATH_LIMIT,
    Recorded,
    RecordedLookup,
    RecordedPlan,
    RecordedRoute,
    RecordedStore,
    open_attempt,
)
from gateway.telemetry.text import plain, without_query
from gateway.telemetry.trace_context import remote_parent, under
from gateway.telemetry.unrecorded import UNSAMPLED, UnrecordedInference, UnrecordedServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.trace import Span, Tracer

    from gateway.core.miss import CacheOutcome
    from gateway.core.model import Result, Usage
    from gateway.telemetry.attributes import Told
    from gateway.telemetry.content import Capture
    from gateway.telemetry.span_queue import SpanQueue
    from gateway.telemetry.trace_context import ChosenIds, Draw

_NO_PARENT = Context()


class RecordedInference(Recorded, spans.InferenceSpan):
    """A client span for a model call."""

    __slots__ = ("_asked", "_capture", "_names", "_tracer", "captures")

    def __init__(  # noqa: PLR0917
        self,
        span: Span,
        asked: Told,
        told: Told,
        tracer: Tracer,
        names: Mapping[str, str],
        capture: Capture,
    ) -> None:
        """`asked` is what the span was made with."""
        super().__init__(span, told)
        self._asked = asked
        self._tracer = tracer
        self._names = names
        self._capture = capture
        self.captures = capture.wanted

    def attempt(self, method: str, url: str, resend_count: int = 0) -> spans.AttemptSpan:
        return open_attempt(self._tracer, self.parent(), method, url, resend_count)

    def http(self, status: int) -> None:
        if status >= 400:
            self.error(str(status))

    def first_chunk(self, seconds: float) -> None:
        self._told[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = seconds

    def usage(self, usage: Usage) -> None:
        self._told[semconv.GEN_AI_USAGE_INPUT] = usage.input
        self._told[semconv.GEN_AI_USAGE_OUTPUT] = usage.output
        # Zero may mean "none" or "the provider does not say": claim neither.
        if usage.cache_read:
            self._told[semconv.GEN_AI_USAGE_CACHE_READ] = usage.cache_read
        if written := usage.cache_write_5m + usage.cache_write_1h:
            name = semconv.GEN_AI_USAGE_CACHE_WRITE
            self._told[self._names.get(name, name)] = written

    def response(self, response_id: str, model: str, finish_reasons: Sequence[str]) -> None:
        if response_id:
            self._told[semconv.GEN_AI_RESPONSE_ID] = plain(response_id)
        if model:
            self._told[semconv.GEN_AI_RESPONSE_MODEL] = plain(model)
        if finish_reasons:
            self._told[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = [plain(f) for f in finish_reasons]

    def details(self, reasoning_tokens: int, service_tier: str, fingerprint: str) -> None:
        if reasoning_tokens:
            self._told[semconv.GEN_AI_USAGE_REASONING] = reasoning_tokens
        if service_tier:
            self._told[semconv.OPENAI_RESPONSE_TIER] = plain(service_tier)
        if fingerprint:
            self._told[semconv.OPENAI_RESPONSE_FINGERPRINT] = plain(fingerprint)

    def content(
        self,
        system: Sequence[object],
        messages: Sequence[object],
        tools: Sequence[object],
        output: Sequence[object],
    ) -> None:
        told = {**self._asked, **self._told}
        if self._error is not None:
            told[semconv.ERROR_TYPE] = plain(self._error)
        said = (system, messages, tools, output)
        self._told.update(self._capture.told(said, told, self.parent()))

    def end(self) -> None:
        self._close()


class RecordedServer(Recorded, spans.ServerSpan):
    """The server span of a request, or the root of a revalidation."""

    __slots__ = ("_status", "_tracer", "trace_id")

    recorded = True

    def __init__(self, span: Span, told: Told, tracer: Tracer) -> None:
        super().__init__(span, told)
        self._tracer = tracer
        self._status: int | None = None
        self.trace_id = f"{self.context.trace_id:032x}"

    def attempt(self, method: str, url: str, resend_count: int = 0) -> spans.AttemptSpan:
        return open_attempt(self._tracer, self.parent(), method, url, resend_count)

    def plan(self) -> spans.PlanSpan:
        return RecordedPlan(self._tracer.start_span(semconv.SPAN_PLAN, self.parent()), {})

    def route(self) -> spans.RouteSpan:
        return RecordedRoute(self._tracer.start_span(semconv.SPAN_ROUTE, self.parent()), {})

    def revalidation(self) -> spans.ServerSpan:
        span = self._tracer.start_span(
            semconv.SPAN_REVALIDATE, _NO_PARENT, SpanKind.INTERNAL, links=(Link(self.context),)
        )
        return RecordedServer(span, {}, self._tracer)

    def identify(self, request_id: str, upstream: str | None) -> None:
        self._told[semconv.REQUEST_ID] = plain(request_id)
        if upstream is not None:
            self._told[semconv.UPSTREAM_NAME] = plain(upstream)

    def set_status(self, code: int) -> None:
        self._status = code
        self._told[semconv.HTTP_STATUS] = code

    def cache(self, result: Result, reason: Reason, key_hex8: str | None = None) -> None:
        set_cache(self._told, result, reason, key_hex8)

    def stored(self, reason: Reason) -> None:
        self._told[semconv.CACHE_STORED] = reason is Reason.STORED
        self._told[semconv.CACHE_STORE_REASON] = reason.value

    def planned(
        self, reason: str, markers: int, expected_tokens: int, rewrites: Sequence[str]
    ) -> None:
        set_plan(self._told, reason, markers, expected_tokens, rewrites)

    def prompt_cache(self, outcome: CacheOutcome) -> None:
        set_prompt_cache(self._told, outcome)

    def rerouted(self, backend: str, reason: str) -> None:
        told = {semconv.ROUTE_BACKEND: plain(backend), semconv.ROUTE_RETRY_REASON: reason}
        self._span.add_event(semconv.EVENT_ROUTE_RETRY, told)

    def volatile(self, path: str, kind: str, tokens_behind: int, lost_per_day: int) -> None:
        told = (path, kind, tokens_behind, lost_per_day)
        self._told.update(zip(semconv.PROMPT_VOLATILE, told, strict=True))

    def drifted(self, change: str, path: str, block: int) -> None:
        self._told[semconv.PROMPT_CACHE_DRIFT] = change
        self._told[semconv.PROMPT_CACHE_DRIFT_PATH] = path
        self._told[semconv.PROMPT_CACHE_DRIFT_BLOCK] = block

    def saved(self, usage: Usage) -> None:
        self._told[semconv.CACHE_SAVED_TOKENS] = usage.input + usage.output

    def collapsed(self, leader: spans.InferenceSpan) -> None:
        self._told[semconv.CACHE_COLLAPSED] = True
        if isinstance(leader, RecordedInference):
            self._span.add_link(leader.context)

    def aborted(self, side: str) -> None:
        self._told[semconv.STREAM_ABORTED] = side

    def end(self) -> None:
        status = self._status
        if status is not None and status >= 500:
            self.error(str(status))
        elif status is not None and status >= 400:
            self._error = None
        self._close()


class RecordedSpans(spans.Spans):
    """Opens spans on one tracer; `names` renames attributes for an older generation.

    The tracer's provider records whatever is started, with `ids` and into `queue`. `draw` and
    `queue` are asked first, so that a request which is not sampled, or whose spans would find no
    room, costs next to nothing.
    """

    __slots__ = ("_capture", "_draw", "_ids", "_names", "_queue", "_tracer")

    def __init__(  # noqa: PLR0917
        self,
        tracer: Tracer,
        names: Mapping[str, str],
        draw: Draw,
        ids: ChosenIds,
        queue: SpanQueue,
        capture: Capture = NO_CONTENT,
    ) -> None:
        self._capture = capture
        self._tracer = tracer
        self._names = names
        self._draw = draw
        self._ids = ids
        self._queue = queue

    def server(
        self,
        *,
        method: str,
        route: str | None,
        path: str,
        scheme: str,
        host: str | None,
        port: int | None,
        headers: Mapping[str, str],
    ) -> spans.ServerSpan:
        remote = remote_parent(headers)
        trace_id = None
        if remote is None:
            trace_id = self._draw.root()
            if trace_id is None or self._queue.full():
                return UNSAMPLED
        elif not self._draw.child(remote):
            return UnrecordedServer(_unsampled(remote))
        elif self._queue.full():
            return UnrecordedServer(remote)
        told: Told = {
            semconv.URL_PATH: plain(without_query(path), PATH_LIMIT),
            semconv.URL_SCHEME: scheme,
        }
        name = set_method(told, method)
        if route is not None:
            told[semconv.HTTP_ROUTE] = route
            name = f"{name} {route}"
        set_address(told, host or asked_for(headers), port)
        if trace_id is not None:
            self._ids.choose(trace_id)
        span = self._tracer.start_span(name, under(remote), SpanKind.SERVER)
        return RecordedServer(span, told, self._tracer)

    def lookup(self, parent: spans.ServerSpan) -> spans.LookupSpan:
        if not isinstance(parent, RecordedServer):
            return spans.NULL_LOOKUP
        span = self._tracer.start_span(semconv.SPAN_LOOKUP, parent.parent())
        return RecordedLookup(span, {}, self._tracer)

    def inference(
        self,
        parent: spans.ServerSpan,
        *,
        operation: str,
        provider: str,
        model: str | None,
        host: str | None,
        port: int | None,
        stream: bool = False,
        attributes: Mapping[str, spans.AttributeValue] = spans.NO_ATTRIBUTES,
    ) -> spans.InferenceSpan:
        if not isinstance(parent, RecordedServer):
            if isinstance(parent, UnrecordedServer):
                return UnrecordedInference(parent)
            return spans.NULL_INFERENCE
        # "... SHOULD be provided at span creation time": these, so that samplers may go by them.
        asked: Told = {
            semconv.GEN_AI_OPERATION: operation,
            semconv.GEN_AI_PROVIDER: provider,
        }
        name = operation
        if model:
            asked[semconv.GEN_AI_REQUEST_MODEL] = plain(model)
            name = f"{operation} {plain(model)}"
        set_address(asked, host, port)
        told: Told = {}
        if stream:
            told[semconv.GEN_AI_REQUEST_STREAM] = True
        for key in attributes.keys() & semconv.REQUEST_ATTRIBUTES:
            value = attributes[key]
            told[key] = plain(value) if isinstance(value, str) else value
        span = self._tracer.start_span(name, parent.parent(), SpanKind.CLIENT, asked)
        return RecordedInference(span, asked, told, self._tracer, self._names, self._capture)

    def store(self, link: spans.ServerSpan) -> spans.StoreSpan:
        if not isinstance(link, RecordedServer):
            return spans.NULL_STORE
        span = self._tracer.start_span(
            semconv.SPAN_STORE, _NO_PARENT, SpanKind.INTERNAL, links=(Link(link.context),)
        )
        return RecordedStore(span, {}, self._tracer)


def _unsampled(context: SpanContext) -> SpanContext:
    """The caller's context, as one passes it on that is not sampled."""
    if not context.trace_flags.sampled:
        return context
    flags = TraceFlags(context.trace_flags & ~TraceFlags.SAMPLED)
    return SpanContext(
        context.trace_id, context.span_id, context.is_remote, flags, context.trace_state
    )
