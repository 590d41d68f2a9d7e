"""The spans of `spans.py`, recorded with OpenTelemetry.

Status, as the HTTP conventions say: a server span is an error from 500 on ("4xx ... span status
MUST be left unset"), a client span from 400 on, and "a deliberate cancellation SHOULD NOT be
treated as an error". Parents are passed by hand, not through context variables: a response may
end in another task than it began in.
"""

# ruff: noqa: D102 - the methods are documented in spans.py

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, SpanKind, StatusCode

from gateway.core.model import Reason
from gateway.telemetry import semconv, spans
from gateway.telemetry.text import plain, without_query
from gateway.telemetry.trace_context import remote_parent, trace_headers, under

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.trace import Span, SpanContext, Tracer

    from gateway.core.model import Result, Usage

_PATH_LIMIT = 1024


class _Recorded:
    """What every recorded span has: the span until its end, its identity for ever."""

    __slots__ = ("_context", "_error", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._context = span.get_span_context()
        self._error: str | None = None

    def error(self, type_: str) -> None:
        """The first error is the one that is told; what follows is its consequence."""
        if self._error is None:
            self._error = type_

    def _fail(self, type_: str) -> None:
        self._span.set_attribute(semconv.ERROR_TYPE, plain(type_))
        self._span.set_status(StatusCode.ERROR)

    def _close(self) -> None:
        if self._error is not None:
            self._fail(self._error)
        self._span.end()
        # The SDK warns about every call on an ended span; this one swallows them.
        self._span = INVALID_SPAN


class RecordedAttempt(_Recorded, spans.AttemptSpan):
    """An HTTP client span."""

    __slots__ = ()

    def status(self, code: int) -> None:
        self._span.set_attribute(semconv.HTTP_STATUS, code)
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
        _set_cache(self._span, result, reason, key_hex8)
        self._close()


class RecordedStore(_Recorded, spans.StoreSpan):
    """The root span of a cache write."""

    __slots__ = ()

    def end(self, outcome: str) -> None:
        self._span.set_attribute(semconv.CACHE_STORE_OUTCOME, outcome)
        self._close()


class RecordedInference(_Recorded, spans.InferenceSpan):
    """A client span for a model call."""

    __slots__ = ("_names", "_tracer")

    def __init__(self, span: Span, tracer: Tracer, names: Mapping[str, str]) -> None:
        super().__init__(span)
        self._tracer = tracer
        self._names = names

    def attempt(self, method: str, url: str, resend_count: int = 0) -> spans.AttemptSpan:
        return _attempt(self._tracer, self._context, method, url, resend_count)

    def http(self, status: int) -> None:
        if status >= 400:
            self.error(str(status))

    def first_chunk(self, seconds: float) -> None:
        self._span.set_attribute(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, seconds)

    def usage(self, usage: Usage) -> None:
        self._span.set_attribute(semconv.GEN_AI_USAGE_INPUT, usage.input)
        self._span.set_attribute(semconv.GEN_AI_USAGE_OUTPUT, usage.output)
        # Zero may mean "none" or "the provider does not say": claim neither.
        if usage.cache_read:
            self._span.set_attribute(semconv.GEN_AI_USAGE_CACHE_READ, usage.cache_read)
        if written := usage.cache_write_5m + usage.cache_write_1h:
            name = semconv.GEN_AI_USAGE_CACHE_WRITE
            self._span.set_attribute(self._names.get(name, name), written)

    def response(self, response_id: str, model: str, finish_reasons: Sequence[str]) -> None:
        if response_id:
            self._span.set_attribute(semconv.GEN_AI_RESPONSE_ID, plain(response_id))
        if model:
            self._span.set_attribute(semconv.GEN_AI_RESPONSE_MODEL, plain(model))
        if finish_reasons:
            self._span.set_attribute(
                semconv.GEN_AI_RESPONSE_FINISH_REASONS, [plain(f) for f in finish_reasons]
            )

    def end(self) -> None:
        self._close()


class RecordedServer(_Recorded, spans.ServerSpan):
    """The server span of a request."""

    __slots__ = ("_status", "_tracer", "trace_id")

    def __init__(self, span: Span, tracer: Tracer) -> None:
        super().__init__(span)
        self._tracer = tracer
        self._status: int | None = None
        self.trace_id = f"{self._context.trace_id:032x}"

    def attempt(self, method: str, url: str, resend_count: int = 0) -> spans.AttemptSpan:
        return _attempt(self._tracer, self._context, method, url, resend_count)

    def identify(self, request_id: str, upstream: str | None) -> None:
        self._span.set_attribute(semconv.REQUEST_ID, plain(request_id))
        if upstream is not None:
            self._span.set_attribute(semconv.UPSTREAM_NAME, plain(upstream))

    def set_status(self, code: int) -> None:
        self._status = code
        self._span.set_attribute(semconv.HTTP_STATUS, code)

    def cache(self, result: Result, reason: Reason, key_hex8: str | None = None) -> None:
        _set_cache(self._span, result, reason, key_hex8)

    def stored(self, reason: Reason) -> None:
        if not self._span.is_recording():
            # A call that others share, or a revalidation, outlives the request that began it.
            return
        self._span.set_attribute(semconv.CACHE_STORED, reason is Reason.STORED)
        self._span.set_attribute(semconv.CACHE_STORE_REASON, reason.value)

    def saved(self, usage: Usage) -> None:
        self._span.set_attribute(semconv.CACHE_SAVED_TOKENS, usage.input + usage.output)

    def collapsed(self, leader: spans.InferenceSpan) -> None:
        self._span.set_attribute(semconv.CACHE_COLLAPSED, True)
        if isinstance(leader, RecordedInference):
            self._span.add_link(leader._context)  # noqa: SLF001 - its own kind

    def aborted(self, side: str) -> None:
        self._span.set_attribute(semconv.STREAM_ABORTED, side)

    def end(self) -> None:
        status = self._status
        if status is not None and status >= 500:
            self.error(str(status))
        elif status is not None and status >= 400:
            self._error = None
        self._close()


class RecordedSpans(spans.Spans):
    """Opens spans on one tracer; `names` renames attributes for an older generation."""

    __slots__ = ("_names", "_tracer")

    def __init__(self, tracer: Tracer, names: Mapping[str, str]) -> None:
        self._tracer = tracer
        self._names = names

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
        attributes: dict[str, spans.AttributeValue] = {
            semconv.URL_PATH: plain(without_query(path), _PATH_LIMIT),
            semconv.URL_SCHEME: scheme,
        }
        name = _set_method(attributes, method)
        if route is not None:
            attributes[semconv.HTTP_ROUTE] = route
            name = f"{name} {route}"
        _set_address(attributes, host, port)
        remote = remote_parent(headers)
        span = self._tracer.start_span(name, under(remote), SpanKind.SERVER, attributes)
        return RecordedServer(span, self._tracer)

    def lookup(self, parent: spans.ServerSpan) -> spans.LookupSpan:
        if not isinstance(parent, RecordedServer):
            return spans.NULL_LOOKUP
        context = under(parent._context)  # noqa: SLF001 - its own kind
        return RecordedLookup(self._tracer.start_span(semconv.SPAN_LOOKUP, context))

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
            return spans.NULL_INFERENCE
        told: dict[str, spans.AttributeValue] = {
            semconv.GEN_AI_OPERATION: operation,
            semconv.GEN_AI_PROVIDER: provider,
        }
        name = operation
        if model:
            told[semconv.GEN_AI_REQUEST_MODEL] = plain(model)
            name = f"{operation} {plain(model)}"
        if stream:
            told[semconv.GEN_AI_REQUEST_STREAM] = True
        _set_address(told, host, port)
        for key in attributes.keys() & semconv.REQUEST_ATTRIBUTES:
            value = attributes[key]
            told[key] = plain(value) if isinstance(value, str) else value
        context = under(parent._context)  # noqa: SLF001 - its own kind
        span = self._tracer.start_span(name, context, SpanKind.CLIENT, told)
        return RecordedInference(span, self._tracer, self._names)

    def store(self, link: spans.ServerSpan) -> spans.StoreSpan:
        if not isinstance(link, RecordedServer) or not link._context.trace_flags.sampled:  # noqa: SLF001 - its own kind
            return spans.NULL_STORE
        links = (Link(link._context),)  # noqa: SLF001 - its own kind
        return RecordedStore(
            self._tracer.start_span(semconv.SPAN_STORE, Context(), SpanKind.INTERNAL, links=links)
        )


def _attempt(
    tracer: Tracer, parent: SpanContext, method: str, url: str, resend_count: int
) -> spans.AttemptSpan:
    target = plain(without_query(url), _PATH_LIMIT)
    attributes: dict[str, spans.AttributeValue] = {semconv.URL_FULL: target}
    name = _set_method(attributes, method)
    try:
        parts = urlsplit(target)
        _set_address(attributes, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme))
    except ValueError:
        pass  # a port that is no number: the URL itself is told, that is enough
    if resend_count:
        attributes[semconv.HTTP_RESEND_COUNT] = resend_count
    return RecordedAttempt(tracer.start_span(name, under(parent), SpanKind.CLIENT, attributes))


_DEFAULT_PORTS = {"http": 80, "https": 443}


def _set_method(attributes: dict[str, spans.AttributeValue], method: str) -> str:
    """The method for a span name; an unknown one is `HTTP` there and `_OTHER` as attribute."""
    if method in semconv.METHODS:
        attributes[semconv.HTTP_METHOD] = method
        return method
    attributes[semconv.HTTP_METHOD] = semconv.METHOD_OTHER
    attributes[semconv.HTTP_METHOD_ORIGINAL] = plain(method)
    return "HTTP"


def _set_address(
    attributes: dict[str, spans.AttributeValue], host: str | None, port: int | None
) -> None:
    if host:
        attributes[semconv.SERVER_ADDRESS] = plain(host)
        if port:
            attributes[semconv.SERVER_PORT] = port


def _set_cache(
    span: Span, result: Result | None, reason: Reason | None, key_hex8: str | None
) -> None:
    if result is not None:
        span.set_attribute(semconv.CACHE_RESULT, result.value)
    if reason is not None:
        span.set_attribute(semconv.CACHE_REASON, reason.value)
    if key_hex8 is not None:
        # Cut here too: a whole identity on a span would let its reader probe the cache.
        span.set_attribute(semconv.CACHE_KEY, key_hex8[:8])
