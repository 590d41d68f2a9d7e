"""What is counted, as `proxy.py` tells it; here in the form that does nothing.

Rule 1: a method never raises and never waits.
Rule 2: every label is bounded: known routes, enums, configured providers, models that an upstream
answered for. What a client made up is `_other`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.telemetry.bounds import bounds
from gateway.telemetry.prompt_cache import NULL_PROMPT_CACHE
from gateway.telemetry.route import NULL_ROUTE
from gateway.telemetry.semconv import OTHER
from gateway.telemetry.text import SHORT, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.model import Reason, Result, Usage
    from gateway.core.records import RequestRecord
    from gateway.telemetry.config_gauges import ConfigTold
    from gateway.telemetry.prompt_cache import PromptCacheMetrics
    from gateway.telemetry.route import RouteMetrics

ROUTES = frozenset(
    (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/messages/batches",
        "/v1/messages/count_tokens",
        "/v1/models",
        "/v1/files",
        "/v1/batches",
        "/v1/responses",
        "/v1/realtime",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
    )
)
"""Routes that get a label of their own; any other is `_other`."""

SCOPES = 100
"""How many credentials get a label of their own."""


class ProvenNames:
    """The names that may be labels: the first `limit` that an upstream answered for.

    A name counts as proven once a request for it succeeded; before that, and beyond the limit,
    it is `_other`, so nobody can fill the table with names of their own.
    """

    def __init__(self, limit: int = bounds().models) -> None:
        self._limit = limit
        self._known: dict[str, str] = {}

    def label(self, model: str | None, *, proven: bool) -> str:
        """The label for a name; empty when the request names none."""
        if not model:
            return ""
        known = self._known.get(model)
        if known is not None:
            return known
        if not proven or len(self._known) >= self._limit or len(model) > SHORT:
            return OTHER
        # A lone surrogate in a label would make the whole page unencodable.
        return self._known.setdefault(model, plain(model))

    def settled(self, model: str | None) -> bool:
        """Whether the label of a name will never be another one. Few names are settled."""
        return not model or model in self._known


class Metrics:
    """Counts nothing. Durations are seconds, sizes bytes."""

    __slots__ = ()

    enabled = False

    @property
    def prompt_cache(self) -> PromptCacheMetrics:
        """What is counted of providers' prompt caches."""
        return NULL_PROMPT_CACHE

    @property
    def route(self) -> RouteMetrics:
        """What is counted of pools."""
        return NULL_ROUTE

    def request(self, record: RequestRecord) -> None:
        """One request has ended."""

    def called(  # noqa: PLR0917 - told at each call's end, so as cheaply as can be
        self, method: str, host: str, port: int | None, status: int, error: str, seconds: float
    ) -> None:
        """An HTTP request of ours has ended: `status` 0 without an answer, `error` a short, fixed
        word, or empty.
        """

    def lookup(self, seconds: float, result: Result, reason: Reason) -> None:
        """One look into the cache took so long."""

    def stored(self, outcome: str, seconds: float | None = None, size_bytes: int = 0) -> None:
        """An answer was stored or not: `outcome` is a `Reason` or `failed`; `seconds` and
        `size_bytes` only where a store was really asked.
        """

    def inference(
        self,
        *,
        provider: str,
        model: str | None,
        operation: str,
        duration_s: float,
        first_chunk_s: float | None = None,
        usage: Usage | None = None,
        error: str | None = None,
        reasoning_tokens: int = 0,
        arrived_ms: Sequence[int] = (),
    ) -> None:
        """One model call has ended. `reasoning_tokens` are a part of the answer's; `arrived_ms` is
        when each chunk of a stream came, by any clock.
        """

    def saved(self, usage: Usage, provider: str, model: str | None) -> None:
        """A hit: the tokens that nobody paid."""

    def spared(self, usd: float, provider: str, model: str | None) -> None:
        """A hit: what its answer had cost, where there is a price."""

    def lagged(self, seconds: float) -> None:
        """The event loop came so late to something."""

    def inflight(self, change: int) -> None:
        """A request began (+1) or ended (-1)."""

    def aborted(self, side: str) -> None:
        """A response ended early because `client` or `upstream` went away."""

    def store_unavailable(self, operation: str) -> None:
        """The store did not answer: `get`, `put` or `delete`."""

    def watch_engines(self, told: Callable[[], dict[str, dict[str, Any]]]) -> None:
        """Show what `told` says of engines (`gateway.upstream.engines`) whenever somebody looks."""

    def watch_pools(self, told: Callable[[], dict[str, dict[str, dict[str, Any]]]]) -> None:
        """Show what `told` says of replicas (`gateway.routing`) whenever somebody looks."""

    def watch_sharing(self, told: Callable[[], dict[str, dict[str, Any]]]) -> None:
        """Show what `told` says of what gateways tell each other (`gateway.placements`), likewise."""

    def watch_flights(self, told: Callable[[], int]) -> None:
        """Show how many requests wait for a call that another one makes, likewise."""

    def watch_config(self, told: Callable[[], ConfigTold]) -> None:
        """Show what became of configs that were read again (`gateway.reloading`), likewise."""

    def render(self) -> bytes:
        """The Prometheus text (version 0.0.4). Takes milliseconds: call it in a thread."""
        return b""


NULL_METRICS = Metrics()
