"""What is told of a request, and of a call of a model, when it is over: data only.

A request may be answered without a call; a call may go on when its request is gone, and be nobody's
request at all (a refresh). So money that is paid hangs on calls, money that is saved by the response
cache on requests: each is counted once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.causes import Cause, Share
    from gateway.core.miss import CacheOutcome
    from gateway.core.model import Reason, Result, Usage
    from gateway.core.route import Branch


class Step(NamedTuple):
    """One thing that took time in a request. Seconds."""

    name: str
    """A short, fixed word: `lookup`, `plan`, `route`, `upstream`, `store`."""
    at_s: float
    """After the request's first byte."""
    took_s: float


class RequestRecord(NamedTuple):
    """One request, when it is over. No content, no credentials, no header values."""

    request_id: str
    at: float
    """When it came, in seconds since the epoch."""
    method: str
    path: str
    """Without its query."""
    route: str | None
    api: str | None
    """Wire API; None for what is passed through."""
    upstream: str | None
    provider: str | None
    model: str | None
    scope: str
    """The first 8 hex digits of the keyed hash of who asked; empty before that is known."""
    status: int
    result: Result | None
    reason: Reason | None
    stored: Reason | None
    key_hex8: str | None
    duration_s: float
    overhead_s: float
    first_byte_s: float | None
    """From the request's first byte to the first byte of its answer's body; None without one."""
    usage: Usage | None
    prompt_cache: CacheOutcome | None
    plan: str | None
    """As in `x-gateway-markers`."""
    rewrites: str | None
    backend: str | None
    branch: Branch | None
    trace_id: str | None
    aborted: str | None
    error: str | None
    paid_pd: int | None
    """Picodollars; None where nothing was paid or no price is known."""
    saved_pd: int | None
    """By the response cache, likewise."""
    steps: Sequence[Step] = ()
    """Behind the answer there may come one more: of `store`."""
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call of a model, when it is over, whoever waited for it."""

    at: float
    """When it ended, in seconds since the epoch."""
    upstream: str
    provider: str
    """Whose prices hold."""
    api: str
    model: str
    """As the answer names it, else as it was asked for."""
    scope: str
    """As in `RequestRecord`; empty for a call of our own."""
    purpose: str
    """`request`, or why we called: `start`, `interval`, `refresh`, `replica`, `revalidate`."""
    usage: Usage | None
    """None where the answer did not say, or broke off: what it cost is unknown."""
    shares: Mapping[Cause, Share]
    """Who caused what was read and written; adds up to the usage."""
    terms: tuple[str, ...] = ()
    """How it was served (`service_tier`, ...): prices depend on it."""
    engine: bool = False
    """A self-hosted engine: nobody bills tokens; what is saved is time."""
    prefill_s: float | None = None
    """Of an engine: estimated seconds of prefill that its prefix cache spared."""
    failed: bool = False
    """It was answered with an error, or never sent: nobody bills it."""
