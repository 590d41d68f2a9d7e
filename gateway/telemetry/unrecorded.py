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
    """The span of a request that nobody will see. `context` is its caller's, if it has one."""

    __slots__ = ("_context", "trace_id")

    def __init__(self, trace_id: int, context: SpanContext | None) -> None:
        self._context = context
        self.trace_id = f"{trace_id:032x}"

    def attempt(self, method: str, url: str, resend_count: int = 0) -> spans.AttemptSpan:
        return UnrecordedAttempt(self)

    def headers(self) -> dict[str, str]:
        """Trace context to pass on: the caller's own, or that of a trace which is not sampled."""
        if self._context is not None:
            return trace_headers(self._context)
        # A span id of its own is asked for by the recommendation; nobody can look for it.
        return {"traceparent": f"00-{self.trace_id}-{random.getrandbits(64) or 1:016x}-00"}


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
