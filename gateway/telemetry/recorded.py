"""The spans below a request's own, recorded with OpenTelemetry: what the recorder opens for each step.

Attributes wait in a dict of ours until the end: the SDK takes two locks and checks a dozen types for
each that it is told by itself.
"""

# ruff: noqa: D102 - the methods are documented in spans.py

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.trace import INVALID_SPAN, SpanKind, StatusCode

from gateway.telemetry import semconv, spans
from gateway.telemetry.attributes import set_address, set_cache, set_method, set_plan
from gateway.telemetry.text import plain, without_query
from gateway.telemetry.trace_context import trace_headers, under

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from gateway.core.model import Reason, Result
    from gateway.core.route import Branch
    from gateway.telemetry.attributes import Told

PATH_LIMIT = 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Recorded:
    """What every recorded span has: the span until its end, its identity for ever."""

    __slots__ = ("_as_parent", "_error", "_span", "_told", "context")

    def __init__(self, span: Span, told: Told) -> None:
        self._span = span
        self.context = span.get_span_context()
        self._as_parent: Context | None = None
        self._error: str | None = None
        self._told = told

    def parent(self) -> Context:
        """What makes a new span a child of this one."""
        if self._as_parent is None:
            self._as_parent = under(self.context)
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


class RecordedAttempt(Recorded, spans.AttemptSpan):
    """An HTTP client span."""

    __slots__ = ()

    def status(self, code: int) -> None:
        self._told[semconv.HTTP_STATUS] = code
        if code >= 400:
            self.error(str(code))

    def traceparent(self) -> dict[str, str]:
        return trace_headers(self.context)

    def end(self) -> None:
        self._close()


class RecordedCommand(Recorded, spans.CommandSpan):
    """A database client span."""

    __slots__ = ()

    def end(self, error: str | None = None) -> None:
        if error is not None:
            self.error(error)
        self._close()


class _OfStore(Recorded):
    """A span under which a store is asked."""

    __slots__ = ("_tracer",)

    def __init__(self, span: Span, told: Told, tracer: Tracer) -> None:
        super().__init__(span, told)
        self._tracer = tracer

    def command(self, name: str, count: int, host: str, port: int) -> spans.CommandSpan:
        told: Told = {semconv.DB_SYSTEM: semconv.DB_REDIS, semconv.DB_OPERATION: name}
        if count > 1:
            told[semconv.DB_BATCH_SIZE] = count
        set_address(told, host, port)
        return RecordedCommand(self._tracer.start_span(name, self.parent(), SpanKind.CLIENT), told)


class RecordedLookup(_OfStore, spans.LookupSpan):
    """An internal span around a cache lookup."""

    __slots__ = ()

    recorded = True

    def end(
        self,
        result: Result | None = None,
        reason: Reason | None = None,
        key_hex8: str | None = None,
    ) -> None:
        set_cache(self._told, result, reason, key_hex8)
        self._close()


class RecordedStore(_OfStore, spans.StoreSpan):
    """The root span of a cache write."""

    __slots__ = ()

    recorded = True

    def end(self, outcome: str) -> None:
        self._told[semconv.CACHE_STORE_OUTCOME] = outcome
        self._close()


class RecordedPlan(Recorded, spans.PlanSpan):
    """An internal span around planning."""

    __slots__ = ()

    def planned(
        self, reason: str, markers: int, expected_tokens: int, rewrites: Sequence[str]
    ) -> None:
        set_plan(self._told, reason, markers, expected_tokens, rewrites)

    def end(self) -> None:
        self._close()


class RecordedRoute(Recorded, spans.RouteSpan):
    """An internal span around the choice of a replica."""

    __slots__ = ()

    def chosen(self, policy: str, backend: str, branch: Branch, wait_s: float) -> None:
        self.routed(backend, branch)
        self._told[semconv.ROUTE_POLICY] = policy
        self._told[semconv.ROUTE_WAIT] = wait_s

    def end(self) -> None:
        self._close()


def open_attempt(
    tracer: Tracer, parent: Context, method: str, url: str, resend_count: int
) -> spans.AttemptSpan:
    """The span of one HTTP request."""
    target = plain(without_query(url), PATH_LIMIT)
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
