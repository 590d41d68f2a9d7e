"""Trace context: who called us, who we say is calling, and what is kept.

Only `traceparent` and `tracestate` are read or sent; baggage never passes. Parsed here because
the SDK's propagator logs headers that it dislikes, values included, for every request.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST = 512
"""Bound on either trace header, in characters, as in the W3C recommendation."""
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE_MEMBER = re.compile(
    r"[ \t]*([a-z0-9][_0-9a-z\-*/]{0,255}(?:@[a-z][_0-9a-z\-*/]{0,13})?)"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])[ \t]*"
)


def under(parent: SpanContext | None) -> Context:
    """A context with this parent alone; an empty one makes a root, whatever is current."""
    if parent is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(parent), Context())


def remote_parent(headers: Mapping[str, str]) -> SpanContext | None:
    """The caller's span; None without a valid `traceparent` (an invalid one is ignored)."""
    header = headers.get("traceparent")
    if header is None or len(header) > _LONGEST:
        return None
    match = _TRACEPARENT.fullmatch(header.strip(" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more):
        return None
    context = SpanContext(
        trace_id=int(trace_id, 16),
        span_id=int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=_trace_state(headers.get("tracestate")),
    )
    return context if context.is_valid else None


def _trace_state(header: str | None) -> TraceState:
    """The caller's vendor state; empty when absent or invalid, as the recommendation asks."""
    if not header or len(header) > _LONGEST:
        return TraceState()
    pairs: dict[str, str] = {}
    for member in header.split(","):
        if not member.strip(" \t"):
            continue
        match = _STATE_MEMBER.fullmatch(member)
        if match is None or match.group(1) in pairs or len(pairs) == 32:
            return TraceState()
        pairs[match.group(1)] = match.group(2)
    return TraceState(list(pairs.items()))


def trace_headers(context: SpanContext) -> dict[str, str]:
    """The headers that make the receiver's span a child of this one."""
    headers = {
        "traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}"
        f"-{context.trace_flags & TraceFlags.SAMPLED:02x}"
    }
    if context.trace_state:
        headers["tracestate"] = context.trace_state.to_header()
    return headers


class ChosenIds(RandomIdGenerator):
    """Random ids, but for the trace of the next root span, which may be chosen.

    That is what lets a trace be drawn before anything is built. For one thread.
    """

    def __init__(self) -> None:
        self._chosen: int | None = None

    def choose(self, trace_id: int) -> None:
        """The root span that is started next gets this one."""
        self._chosen = trace_id

    def generate_trace_id(self) -> int:
        """As `IdGenerator.generate_trace_id`."""
        chosen, self._chosen = self._chosen, None
        return super().generate_trace_id() if chosen is None else chosen


class Draw:
    """Which traces are kept: this share of them, or with `parent_based` those whose caller's are.

    The SDK's samplers in one comparison, because it is made for every request.
    """

    def __init__(self, ratio: float, *, parent_based: bool) -> None:
        self._bound = TraceIdRatioBased(ratio).bound
        self._parent_based = parent_based

    def root(self) -> int | None:
        """The id of a new trace, or None when it is not kept."""
        low = random.getrandbits(64)
        if low >= self._bound:
            return None
        return random.getrandbits(64) << 64 | low or 1

    def child(self, caller: SpanContext) -> bool:
        """Whether our part of the caller's trace is kept."""
        if self._parent_based:
            return caller.trace_flags.sampled
        return caller.trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound
