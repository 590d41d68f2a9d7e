"""Spans of a request that is not traced: all that is left of them is the context they pass on.

A sampler that keeps one request in a hundred must not cost the other ninety-nine anything.
"""

# ruff: noqa: ARG002, D102 - they ignore what they are told; documented in spans.py

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from gateway.telemetry import spans
from gateway.telemetry.trace_context import trace_headers

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext


class UnrecordedServer(spans.ServerSpan):
    """The span of a request that nobody will see. `caller` is its caller's, as it is passed on."""

    __slots__ = ("_caller", "trace_id")

    def __init__(self, caller: SpanContext | None = None) -> None:
        self._caller = caller
        self.trace_id = f"{caller.trace_id:032x}" if caller is not None else None

    def attempt(self, method: str, url: str, resend_count: int = 0) -> spans.AttemptSpan:
        return UnrecordedAttempt(self)

    def headers(self) -> dict[str, str]:
        """Trace context to pass on: the caller's, or that of a trace which is not sampled, so that
        whoever is called does not draw for itself.
        """
        if self._caller is not None:
            return trace_headers(self._caller)
        trace_id, span_id = random.getrandbits(128) or 1, random.getrandbits(64) or 1
        return {"traceparent": f"00-{trace_id:032x}-{span_id:016x}-00"}


class UnrecordedInference(spans.InferenceSpan):
    """A model call of such a request."""

    __slots__ = ("_server",)

    def __init__(self, server: UnrecordedServer) -> None:
        self._server = server

    def attempt(self, method: str, url: str, resend_count: int = 0) -> spans.AttemptSpan:
        return UnrecordedAttempt(self._server)


class UnrecordedAttempt(spans.AttemptSpan):
    """An HTTP request of such a request."""

    __slots__ = ("_server",)

    def __init__(self, server: UnrecordedServer) -> None:
        self._server = server

    def traceparent(self) -> dict[str, str]:
        return self._server.headers()


UNSAMPLED = UnrecordedServer()
"""The span of all requests that begin a trace which is not kept."""
