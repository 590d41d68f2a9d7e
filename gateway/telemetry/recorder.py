"""The spans of `spans.py`, recorded with OpenTelemetry.

Status, as the HTTP conventions say: a server span is an error from 500 on ("4xx ... span status
MUST be left unset"), a client span from 400 on, and "a deliberate cancellation SHOULD NOT be
treated as an error". Parents are passed by hand, not through context variables: a response may
end in another task than it began in. Attributes wait in a dict of ours until the end: the SDK
takes two locks and checks a dozen types for each that it is told by itself.
"""

# ruff: noqa: D102 - the methods are documented in spans.py

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
)

from gateway.core.model import Reason
from gateway.telemetry import semconv, spans
from gateway.telemetry.attributes import asked_for, set_address, set_cache, set_method
from gateway.telemetry.text import plain, without_query
from gateway.telemetry.trace_context import remote_parent, trace_headers, under
from gateway.telemetry.unrecorded import UNSAMPLED, UnrecordedInference, UnrecordedServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.trace import Span, Tracer

    from gateway.core.model import Result, Usage
    from gateway.core.route import Branch
    from gateway.telemetry.attributes import Told
    from gateway.telemetry.span_queue import SpanQueue
    from gateway.telemetry.trace_context import ChosenIds, Draw

_PATH_LIMIT = 1024
_NO_PARENT = Context()


class _Recorded:
    """What every recorded span has: the span until its end, its identity for ever."""

    __slots__ = ("_as_parent", "_context", "_error", "_span", "_told")

    def __init__(self, span: Span, told: Told) -> None:
        self._span = span
        self._context = span.get_span_context()
        self._as_parent: Context | None = None
        self._error: str | None = None
        self._told = told

    def parent(self) -> Context:
        """What makes a new span a child of this one."""
        if self._as_parent is None:
            self._as_parent = under(self._context)
        return self._as_parent

    def routed(self, backend: str, branch: Branch) -> None:
        """See `spans`: of servers and attempts."""
        told = (plain(backend), branch.value)
        self._told.update(zip((semconv.ROUTE_BACKEND, semconv.ROUTE_BRANCH), told, strict=True))

    def error(self, type_: str) -> None:
        """The first error is the one that is told; what follows is its consequence."""
        if self._error is None:
            self._error = type_

    def _close(self) -> None:
        span = self._span
        # The SDK warns about every call on an ended span; this one swallows them. A call that
        # others share, or a revalidation, outlives the request that began it.
        self._span = INVALID_SPAN
        if self._error is not None:
            self._told[semconv.ERROR_TYPE] = plain(self._error)
            span.set_status(StatusCode.ERROR)
        if self._told:
            span.set_attributes(self._told)
        span.end()


class RecordedAttempt(_Recorded, spans.AttemptSpan):
    """An HTTP client span."""

    __slots__ = ()

    def status(self, code: int) -> None:
        self._told[semconv.HTTP_STATUS] = code
        if code >= 400:
            self.error(str(code))

    def traceparent(self) -> dict[str, str]:
        return trace_headers(self._context)

    def end(self) -> None:
        self._close()


class RecordedLookup(_Recorded, spans.LookupSpan):
    """An internal span around a cache lookup."""

    __slots__ = ()

    def end(
        self,
        result: Result | None = None,
        reason: Reason | None = None,
        key_hex8: str | None = None,
    ) -> None:
        set_cache(self._told, result, reason, key_hex8)
        self._close()


class RecordedStore(_Recorded, spans.StoreSpan):
    """The root span of a cache write."""

    __slots__ = ()

    def end(self, outcome: str) -> None:
        self._told[semconv.CACHE_STORE_OUTCOME] = outcome
        self._close()


class RecordedInference(_Recorded, spans.InferenceSpan):
    """A client span for a model call."""

    __slots__ = ("_names", "_tracer")

    def __init__(self, span: Span, told: Told, tracer: Tracer, names: Mapping[str, str]) -> None:
        super().__init__(span, told)
        self._tracer = tracer
        self._names = names

    def attempt(self, method: str, url: str, resend_count: int = 0) -> spans.AttemptSpan:
        return _attempt(self._tracer, self.parent(), method, url, resend_count)

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

    def end(self) -> None:
        self._close()


class RecordedServer(_Recorded, spans.ServerSpan):
    """The server span of a request."""

    __slots__ = ("_status", "_tracer", "trace_id")

    def __init__(self, span: Span, told: Told, tracer: Tracer) -> None:
        super().__init__(span, told)
        self._tracer = tracer
        self._status: int | None = None
        self.trace_id = f"{self._context.trace_id:032x}"

    def attempt(self, method: str, url: str, resend_count: int = 0) -> spans.AttemptSpan:
        return _attempt(self._tracer, self.parent(), method, url, resend_count)

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
        self._told[semconv.PROMPT_CACHE_REASON] = reason
        self._told[semconv.PROMPT_CACHE_MARKERS] = markers
        if expected_tokens:
            self._told[semconv.PROMPT_CACHE_EXPECTED] = expected_tokens
        if rewrites:
            self._told[semconv.PROMPT_CACHE_REWRITES] = list(rewrites)

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
            self._span.add_link(leader._context)  # noqa: SLF001 - its own kind

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

    __slots__ = ("_draw", "_ids", "_names", "_queue", "_tracer")

    def __init__(
        self,
        tracer: Tracer,
        names: Mapping[str, str],
        draw: Draw,
        ids: ChosenIds,
        queue: SpanQueue,
    ) -> None:
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
            semconv.URL_PATH: plain(without_query(path), _PATH_LIMIT),
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
        return RecordedLookup(self._tracer.start_span(semconv.SPAN_LOOKUP, parent.parent()), {})

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
        told: Told = {
            semconv.GEN_AI_OPERATION: operation,
            semconv.GEN_AI_PROVIDER: provider,
        }
        name = operation
        if model:
            told[semconv.GEN_AI_REQUEST_MODEL] = plain(model)
            name = f"{operation} {plain(model)}"
        if stream:
            told[semconv.GEN_AI_REQUEST_STREAM] = True
        set_address(told, host, port)
        for key in attributes.keys() & semconv.REQUEST_ATTRIBUTES:
            value = attributes[key]
            told[key] = plain(value) if isinstance(value, str) else value
        span = self._tracer.start_span(name, parent.parent(), SpanKind.CLIENT)
        return RecordedInference(span, told, self._tracer, self._names)

    def store(self, link: spans.ServerSpan) -> spans.StoreSpan:
        if not isinstance(link, RecordedServer):
            return spans.NULL_STORE
        links = (Link(link._context),)  # noqa: SLF001 - its own kind
        span = self._tracer.start_span(
            semconv.SPAN_STORE, _NO_PARENT, SpanKind.INTERNAL, links=links
        )
        return RecordedStore(span, {})


def _attempt(
    tracer: Tracer, parent: Context, method: str, url: str, resend_count: int
) -> spans.AttemptSpan:
    target = plain(without_query(url), _PATH_LIMIT)
    told: Told = {semconv.URL_FULL: target}
    name = set_method(told, method)
    try:
        parts = urlsplit(target)
        set_address(told, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme))
    except ValueError:
        pass  # a port that is no number: the URL itself is told, that is enough
    if resend_count:
        told[semconv.HTTP_RESEND_COUNT] = resend_count
    return RecordedAttempt(tracer.start_span(name, parent, SpanKind.CLIENT), told)


def _unsampled(context: SpanContext) -> SpanContext:
    """The caller's context, as one passes it on that is not sampled."""
    if not context.trace_flags.sampled:
        return context
    flags = TraceFlags(context.trace_flags & ~TraceFlags.SAMPLED)
    return SpanContext(
        context.trace_id, context.span_id, context.is_remote, flags, context.trace_state
    )


_DEFAULT_PORTS = {"http": 80, "https": 443}
