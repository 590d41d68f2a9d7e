"""The metrics of `metrics.py`, kept with OpenTelemetry and readable as Prometheus text."""

# ruff: noqa: D102 - the methods are documented in metrics.py

from __future__ import annotations

import platform
import threading
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Observation
from prometheus_client import generate_latest

from gateway.telemetry import semconv as s
from gateway.telemetry.metrics import ROUTES, Metrics, ModelNames

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import Counter, Histogram, MeterProvider
    from prometheus_client import CollectorRegistry

    from gateway.core.model import Reason, Result, Usage

# The stable convention's buckets end at 10 s; answers of models take minutes, hits a millisecond.
HTTP_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
GEN_AI_SECONDS = tuple(0.01 * 2**n for n in range(14))
OWN_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
ENTRY_BYTES = tuple(float(256 * 4**n) for n in range(10))


class Instruments(Metrics):
    """Counts on one meter provider; `registry` is the one that its Prometheus reader fills."""

    __slots__ = (
        *("_aborted", "_chunk", "_entry_size", "_http", "_inference", "_inflight", "_lock"),
        *("_lookup", "_lookups", "_models", "_overhead", "_registry", "_requests", "_routes"),
        *("_saved", "_store", "_stores", "_unavailable", "_usage"),
    )

    enabled = True

    def __init__(
        self,
        provider: MeterProvider,
        registry: CollectorRegistry,
        version: str,
        routes: Iterable[str] = ROUTES,
    ) -> None:
        meter = provider.get_meter(s.SCOPE, version)

        def seconds(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(
                name, "s", what, explicit_bucket_boundaries_advisory=buckets
            )

        def tokens(name: str, what: str) -> Counter:
            return meter.create_counter(name, "{token}", what)

        self._registry = registry
        self._routes = frozenset(routes)
        self._models = ModelNames()
        self._inflight = 0
        self._lock = threading.Lock()
        self._requests = meter.create_counter(s.M_REQUESTS, "{request}", "Requests that ended.")
        self._lookups = meter.create_counter(
            s.M_LOOKUPS, "{request}", "Requests by what the cache did, and why."
        )
        self._lookup = seconds(s.M_LOOKUP_DURATION, "Time to look into the cache.", OWN_SECONDS)
        self._stores = meter.create_counter(
            s.M_STORE_OPERATIONS, "{answer}", "Answers by whether they were stored, or why not."
        )
        self._store = seconds(s.M_STORE_DURATION, "Time to write an entry.", OWN_SECONDS)
        self._entry_size = meter.create_histogram(
            s.M_STORE_ENTRY_SIZE,
            "By",
            "Size of the entries written.",
            explicit_bucket_boundaries_advisory=ENTRY_BYTES,
        )
        self._saved = tokens(s.M_SAVED_TOKENS, "Tokens of answers served from the cache.")
        self._overhead = seconds(
            s.M_OVERHEAD, "Time that the gateway itself added to a request.", OWN_SECONDS
        )
        self._aborted = meter.create_counter(
            s.M_STREAM_ABORTED, "{response}", "Responses that ended early, by who went away."
        )
        self._unavailable = meter.create_counter(
            s.M_STORE_UNAVAILABLE, "{operation}", "Store operations that got no answer in time."
        )
        self._http = seconds(
            s.M_HTTP_SERVER_DURATION, "Time to answer a request, to its last byte.", HTTP_SECONDS
        )
        self._inference = seconds(
            s.M_INFERENCE_DURATION, "Time of a model call, to its last byte.", GEN_AI_SECONDS
        )
        self._chunk = seconds(
            s.M_TIME_TO_FIRST_CHUNK, "Time to the first chunk of a stream.", GEN_AI_SECONDS
        )
        self._usage = (
            tokens(s.M_USAGE_INPUT, "Prompt tokens used, cached ones included."),
            tokens(s.M_USAGE_OUTPUT, "Answer tokens used, reasoning included."),
            tokens(s.M_USAGE_CACHE_READ, "Prompt tokens read from the provider's cache."),
            tokens(s.M_USAGE_CACHE_WRITE, "Prompt tokens written to the provider's cache."),
        )
        meter.create_observable_up_down_counter(
            s.M_INFLIGHT, [self._observe_inflight], "{request}", "Requests being answered now."
        )
        build = {s.L_VERSION: version, s.L_PYTHON: platform.python_version()}
        meter.create_observable_gauge(
            s.M_BUILD_INFO, [lambda _: (Observation(1, build),)], "", "What is running; always 1."
        )

    def request(
        self,
        *,
        route: str | None,
        result: Result | None,
        reason: Reason | None,
        status: int,
        provider: str | None,
        model: str | None,
        duration_s: float,
        overhead_s: float | None = None,
        method: str = "POST",
        scheme: str = "http",
        error: str | None = None,
    ) -> None:
        route = route if route in self._routes else s.OTHER
        word = result.value if result is not None else "none"
        self._requests.add(
            1, {s.L_ROUTE: route, s.L_RESULT: word, s.L_STATUS_CLASS: f"{status // 100}xx"}
        )
        if result is not None and reason is not None:
            self._lookups.add(
                1,
                {
                    s.L_RESULT: word,
                    s.L_REASON: reason.value,
                    s.L_PROVIDER: provider or "",
                    s.L_MODEL: self._models.label(model, proven=status < 400),
                },
            )
        if overhead_s is not None:
            self._overhead.record(max(0.0, overhead_s), {s.L_RESULT: word})
        http: dict[str, str | int] = {
            s.HTTP_METHOD: method if method in s.METHODS else s.METHOD_OTHER,
            s.HTTP_ROUTE: route,
            s.HTTP_STATUS: status,
            s.URL_SCHEME: scheme,
        }
        if error is not None or status >= 500:
            http[s.ERROR_TYPE] = error or str(status)
        self._http.record(max(0.0, duration_s), http)

    def lookup(self, seconds: float, result: Result, reason: Reason) -> None:
        self._lookup.record(max(0.0, seconds), {s.L_RESULT: result.value, s.L_REASON: reason.value})

    def stored(self, outcome: str, seconds: float | None = None, size_bytes: int = 0) -> None:
        labels = {s.L_OUTCOME: str(outcome)}
        self._stores.add(1, labels)
        if seconds is not None:
            self._store.record(max(0.0, seconds), labels)
            self._entry_size.record(size_bytes)

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
    ) -> None:
        labels: dict[str, str] = {s.GEN_AI_OPERATION: operation, s.GEN_AI_PROVIDER: provider}
        if name := self._models.label(model, proven=error is None):
            labels[s.GEN_AI_REQUEST_MODEL] = name
        if first_chunk_s is not None:
            self._chunk.record(max(0.0, first_chunk_s), labels)
        # "The recorded value SHOULD match the token count returned by the provider, or 0 if the
        # response was not received or did not contain token usage."
        counted = {**labels, s.GEN_AI_TOKEN_MODALITY: "unknown"}
        read, written = 0, 0
        prompt, answer = 0, 0
        if usage is not None:
            prompt, answer = usage.input, usage.output
            read, written = usage.cache_read, usage.cache_write_5m + usage.cache_write_1h
        for counter, amount in zip(self._usage, (prompt, answer, read, written), strict=True):
            counter.add(max(0, amount), counted)
        failed = {s.ERROR_TYPE: error} if error is not None else {}
        self._inference.record(max(0.0, duration_s), labels | failed)

    def saved(self, usage: Usage, provider: str, model: str | None) -> None:
        labels = {
            s.L_PROVIDER: provider,
            s.L_MODEL: self._models.label(model, proven=True),
        }
        self._saved.add(max(0, usage.input), {**labels, s.L_DIRECTION: "input"})
        self._saved.add(max(0, usage.output), {**labels, s.L_DIRECTION: "output"})

    def inflight(self, change: int) -> None:
        self._inflight += change

    def aborted(self, side: str) -> None:
        self._aborted.add(1, {s.L_SIDE: side})

    def store_unavailable(self, operation: str) -> None:
        self._unavailable.add(1, {s.L_OPERATION: operation})

    def render(self) -> bytes:
        # The reader hands its data over through one queue: two scrapes at once would each print
        # the other's series as well.
        with self._lock:
            return generate_latest(self._registry)

    def _observe_inflight(self, _: CallbackOptions) -> Iterable[Observation]:
        return (Observation(self._inflight),)
