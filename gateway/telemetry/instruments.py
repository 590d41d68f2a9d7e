"""The metrics of `metrics.py`, kept in tallies and readable as Prometheus text.

A request is counted a dozen times, so a method finds its series with one look into a dict of its
own. Its keys are what it was told, and only where that is bounded: whatever a client made up is
found the long way every time, and remembered nowhere.
"""

# ruff: noqa: D102 - the methods are documented in metrics.py

from __future__ import annotations

import platform
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from opentelemetry.metrics import CallbackOptions, Observation
from prometheus_client import generate_latest

from gateway.telemetry import semconv as s
from gateway.telemetry.engine_gauges import observe_engines
from gateway.telemetry.metrics import ROUTES, Metrics, ModelNames
from gateway.telemetry.prompt_cache import PromptCacheTallies
from gateway.telemetry.route import RouteTallies
from gateway.telemetry.route_gauges import observe_pools
from gateway.telemetry.route_sharing import observe_sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import MeterProvider
    from prometheus_client import CollectorRegistry

    from gateway.core.model import Reason, Result, Usage
    from gateway.telemetry.tallies import Count, Counter, Histogram, Spread, Tallies

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


_REMEMBERED = 4096
"""How many answers to "which series?" each method keeps; all are thrown away beyond that."""

_K = TypeVar("_K")
_V = TypeVar("_V")


class _Ended(NamedTuple):
    """The series of one kind of request."""

    requests: Count
    lookups: Count | None
    overhead: Spread
    http: Spread


class _Called(NamedTuple):
    """The series of one kind of model call."""

    chunk: Spread
    duration: Spread
    input: Count
    output: Count
    cache_read: Count
    cache_write: Count


class Instruments(Metrics):
    """Counts in `tallies`, which readers of `provider` hand on; its Prometheus reader fills
    `registry`.
    """

    __slots__ = (
        *("_aborted", "_called", "_chunk", "_ended", "_entry_size", "_http", "_inference"),
        *("_inflight", "_lock", "_looked", "_lookup", "_lookups", "_meter", "_models"),
        *(
            "_outcomes",
            "_overhead",
            "_prompt_cache",
            "_registry",
            "_rendering",
            "_requests",
            "_route",
            "_routes",
        ),
        *("_saved", "_store"),
        *("_stores", "_tokens", "_unavailable", "_usage"),
    )

    enabled = True

    def __init__(
        self,
        tallies: Tallies,
        provider: MeterProvider,
        registry: CollectorRegistry,
        version: str,
        routes: Iterable[str] = ROUTES,
    ) -> None:
        def seconds(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            return tallies.histogram(name, "s", what, buckets)

        def tokens(name: str, what: str) -> Counter:
            return tallies.counter(name, "{token}", what)

        self._registry = registry
        self._routes = frozenset(routes)
        self._models = ModelNames()
        self._inflight = 0
        self._rendering = threading.Lock()
        self._lock = tallies.lock
        self._requests = tallies.counter(s.M_REQUESTS, "{request}", "Requests that ended.")
        self._lookups = tallies.counter(
            s.M_LOOKUPS, "{request}", "Requests by what the cache did, and why."
        )
        self._lookup = seconds(s.M_LOOKUP_DURATION, "Time to look into the cache.", OWN_SECONDS)
        self._stores = tallies.counter(
            s.M_STORE_OPERATIONS, "{answer}", "Answers by whether they were stored, or why not."
        )
        self._store = seconds(s.M_STORE_DURATION, "Time to write an entry.", OWN_SECONDS)
        self._entry_size = tallies.histogram(
            s.M_STORE_ENTRY_SIZE, "By", "Size of the entries written.", ENTRY_BYTES
        )
        self._saved = tokens(s.M_SAVED_TOKENS, "Tokens of answers served from the cache.")
        self._overhead = seconds(
            s.M_OVERHEAD, "Time that the gateway itself added to a request.", OWN_SECONDS
        )
        self._aborted = tallies.counter(
            s.M_STREAM_ABORTED, "{response}", "Responses that ended early, by who went away."
        )
        self._unavailable = tallies.counter(
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
        self._prompt_cache = PromptCacheTallies(tallies, self._models)
        self._route = RouteTallies(tallies)
        self._ended: dict[tuple[str | int | None, ...], _Ended] = {}
        self._called: dict[tuple[str | None, ...], _Called] = {}
        self._looked: dict[tuple[Result, Reason], Spread] = {}
        self._outcomes: dict[str, tuple[Count, Spread, Spread]] = {}
        self._tokens: dict[tuple[str, str | None], tuple[Count, Count]] = {}
        # What is read when it is collected costs no request anything, and stays with the SDK.
        self._meter = meter = provider.get_meter(s.SCOPE, version)
        meter.create_observable_up_down_counter(
            s.M_INFLIGHT, [self._observe_inflight], "{request}", "Requests being answered now."
        )
        build = {s.L_VERSION: version, s.L_PYTHON: platform.python_version()}
        meter.create_observable_gauge(
            s.M_BUILD_INFO, [lambda _: (Observation(1, build),)], "", "What is running; always 1."
        )

    @property
    def prompt_cache(self) -> PromptCacheTallies:
        return self._prompt_cache

    @property
    def route(self) -> RouteTallies:
        return self._route

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
        told = (route, result, reason, status, provider, model, method, scheme, error)
        ended = self._ended.get(told)
        if ended is None:
            ended = self._kind_of_request(*told)
            if (
                (route is None or route in self._routes)
                and method in s.METHODS
                and self._models.settled(model)
            ):
                _remember(self._ended, told, ended)
        with self._lock:
            ended.requests.value += 1
            if ended.lookups is not None:
                ended.lookups.value += 1
            if overhead_s is not None:
                ended.overhead.record(overhead_s)
            ended.http.record(duration_s)

    def _kind_of_request(  # noqa: PLR0917 - the key of its dict, taken apart
        self,
        route: str | None,
        result: Result | None,
        reason: Reason | None,
        status: int,
        provider: str | None,
        model: str | None,
        method: str,
        scheme: str,
        error: str | None,
    ) -> _Ended:
        route = route if route in self._routes else s.OTHER
        word = result.value if result is not None else "none"
        http: dict[str, str | int] = {
            s.HTTP_METHOD: method if method in s.METHODS else s.METHOD_OTHER,
            s.HTTP_ROUTE: route,
            s.HTTP_STATUS: status,
            s.URL_SCHEME: scheme,
        }
        if error is not None or status >= 500:
            http[s.ERROR_TYPE] = error or str(status)
        lookups = None
        if result is not None and reason is not None:
            lookups = self._lookups.at(
                {
                    s.L_RESULT: word,
                    s.L_REASON: reason.value,
                    s.L_PROVIDER: provider or "",
                    s.L_MODEL: self._models.label(model, proven=status < 400),
                }
            )
        kind = {s.L_ROUTE: route, s.L_RESULT: word, s.L_STATUS_CLASS: f"{status // 100}xx"}
        return _Ended(
            self._requests.at(kind),
            lookups,
            self._overhead.at({s.L_RESULT: word}),
            self._http.at(http),
        )

    def lookup(self, seconds: float, result: Result, reason: Reason) -> None:
        series = self._looked.get((result, reason))
        if series is None:
            series = self._lookup.at({s.L_RESULT: result.value, s.L_REASON: reason.value})
            _remember(self._looked, (result, reason), series)
        with self._lock:
            series.record(seconds)

    def stored(self, outcome: str, seconds: float | None = None, size_bytes: int = 0) -> None:
        series = self._outcomes.get(outcome)
        if series is None:
            labels = {s.L_OUTCOME: str(outcome)}
            series = (self._stores.at(labels), self._store.at(labels), self._entry_size.at({}))
            _remember(self._outcomes, outcome, series)
        count, duration, size = series
        with self._lock:
            count.value += 1
            if seconds is not None:
                duration.record(seconds)
                size.record(size_bytes)

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
        told = (provider, model, operation, error)
        called = self._called.get(told)
        if called is None:
            called = self._kind_of_call(*told)
            if self._models.settled(model):
                _remember(self._called, told, called)
        with self._lock:
            if first_chunk_s is not None:
                called.chunk.record(first_chunk_s)
            called.duration.record(duration_s)
            if usage is not None:
                called.input.value += max(0, usage.input)
                called.output.value += max(0, usage.output)
                called.cache_read.value += max(0, usage.cache_read)
                called.cache_write.value += max(0, usage.cache_write_5m + usage.cache_write_1h)

    def _kind_of_call(
        self, provider: str, model: str | None, operation: str, error: str | None
    ) -> _Called:
        labels = {s.GEN_AI_OPERATION: operation, s.GEN_AI_PROVIDER: provider}
        if name := self._models.label(model, proven=error is None):
            labels[s.GEN_AI_REQUEST_MODEL] = name
        # "The recorded value SHOULD match the token count returned by the provider, or 0 if the
        # response was not received or did not contain token usage."
        counted = {**labels, s.GEN_AI_TOKEN_MODALITY: "unknown"}
        failed = {s.ERROR_TYPE: error} if error is not None else {}
        return _Called(
            self._chunk.at(labels),
            self._inference.at(labels | failed),
            *(counter.at(counted) for counter in self._usage),
        )

    def saved(self, usage: Usage, provider: str, model: str | None) -> None:
        told = (provider, model)
        series = self._tokens.get(told)
        if series is None:
            labels = {
                s.L_PROVIDER: provider,
                s.L_MODEL: self._models.label(model, proven=True),
            }
            series = (
                self._saved.at({**labels, s.L_DIRECTION: "input"}),
                self._saved.at({**labels, s.L_DIRECTION: "output"}),
            )
            if self._models.settled(model):
                _remember(self._tokens, told, series)
        prompt, answer = series
        with self._lock:
            prompt.value += max(0, usage.input)
            answer.value += max(0, usage.output)

    def inflight(self, change: int) -> None:
        self._inflight += change

    def aborted(self, side: str) -> None:
        series = self._aborted.at({s.L_SIDE: side})
        with self._lock:
            series.value += 1

    def store_unavailable(self, operation: str) -> None:
        series = self._unavailable.at({s.L_OPERATION: operation})
        with self._lock:
            series.value += 1

    def watch_engines(self, told: Callable[[], dict[str, dict[str, Any]]]) -> None:
        observe_engines(self._meter, told)

    def watch_pools(self, told: Callable[[], dict[str, dict[str, dict[str, Any]]]]) -> None:
        observe_pools(self._meter, told)

    def watch_sharing(self, told: Callable[[], dict[str, dict[str, Any]]]) -> None:
        observe_sharing(self._meter, told)

    def render(self) -> bytes:
        # The reader hands its data over through one queue: two scrapes at once would each print
        # the other's series as well.
        with self._rendering:
            return generate_latest(self._registry)

    def _observe_inflight(self, _: CallbackOptions) -> Iterable[Observation]:
        return (Observation(self._inflight),)


def _remember(answers: dict[_K, _V], key: _K, value: _V) -> None:
    if len(answers) >= _REMEMBERED:
        answers.clear()
    answers[key] = value
