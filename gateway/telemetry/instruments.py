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
from gateway.telemetry.bounds import bounds
from gateway.telemetry.buckets import HTTP_SECONDS, LAG_SECONDS, OWN_SECONDS
from gateway.telemetry.cache_tallies import CacheTallies
from gateway.telemetry.config_gauges import CONFIG_SERIES, ConfigTold, observe_config
from gateway.telemetry.engine_gauges import engine_series, observe_engines
from gateway.telemetry.http_calls import HttpCalls
from gateway.telemetry.metrics import ROUTES, Metrics, ProvenNames
from gateway.telemetry.model_calls import ModelCalls
from gateway.telemetry.process_gauges import observe_process
from gateway.telemetry.prompt_cache import PromptCacheTallies
from gateway.telemetry.route import RouteTallies
from gateway.telemetry.route_gauges import observe_pools, pool_series
from gateway.telemetry.route_sharing import SHARING_SERIES, observe_sharing
from gateway.telemetry.scopes import ScopeTallies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.metrics import MeterProvider
    from prometheus_client import CollectorRegistry

    from gateway.core.model import Reason, Result, Usage
    from gateway.core.records import RequestRecord
    from gateway.telemetry.bounds import Bounds
    from gateway.telemetry.model_calls import Names
    from gateway.telemetry.tallies import Count, Histogram, Spread, Tallies

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


class Instruments(Metrics):
    """Counts in `tallies`, which readers of `provider` hand on; its Prometheus reader fills
    `registry`.
    """

    __slots__ = (
        *("_aborted", "_cache", "_calls", "_ended", "_few_models", "_http"),
        *("_http_calls", "_inflight", "_lag", "_limits", "_lock", "_lookups"),
        *("_meter", "_models", "_overhead", "_prompt_cache", "_registry", "_rendering"),
        *("_requests", "_route", "_routes", "_scopes", "_tallies"),
    )

    enabled = True

    def __init__(
        self,
        tallies: Tallies,
        provider: MeterProvider,
        registry: CollectorRegistry,
        version: str,
        routes: Iterable[str] = ROUTES,
        *,
        genai_names: Names = "latest",
        limits: Bounds | None = None,
    ) -> None:
        def seconds(name: str, what: str, buckets: tuple[float, ...], room: int = 4) -> Histogram:
            return tallies.histogram(name, "s", what, buckets, room)

        self._registry = registry
        self._routes = frozenset(routes)
        self._tallies = tallies
        self._limits = limits = limits or bounds()
        self._models = ProvenNames(limits.models)
        self._few_models = ProvenNames(limits.histogram_models)
        self._inflight = 0
        self._rendering = threading.Lock()
        self._lock = tallies.lock
        self._requests = tallies.counter(s.M_REQUESTS, "{request}", "Requests that ended.")
        self._lookups = tallies.counter(
            s.M_LOOKUPS, "{request}", "Requests by what the cache did, and why."
        )
        self._cache = CacheTallies(tallies, self._models)
        self._overhead = seconds(
            s.M_OVERHEAD, "Time that the gateway itself added to a request.", OWN_SECONDS
        )
        self._aborted = tallies.counter(
            s.M_STREAM_ABORTED, "{response}", "Responses that ended early, by who went away.", 2
        )
        self._http = seconds(
            s.M_HTTP_SERVER_DURATION, "Time to answer a request, to its last byte.", HTTP_SECONDS, 6
        )
        self._calls = ModelCalls(tallies, self._models, self._few_models, genai_names)
        self._prompt_cache = PromptCacheTallies(tallies, self._models)
        self._route = RouteTallies(tallies)
        self._lag = seconds(s.M_LOOP_LAG, "How late the event loop is.", LAG_SECONDS, 1).at({})
        self._http_calls = HttpCalls(tallies)
        self._scopes = ScopeTallies(tallies)
        self._ended: dict[tuple[str | int | None, ...], _Ended] = {}
        # What is read when it is collected costs no request anything, and stays with the SDK.
        self._meter = meter = provider.get_meter(s.SCOPE, version)
        meter.create_observable_up_down_counter(
            s.M_INFLIGHT, [self._observe_inflight], "{request}", "Requests being answered now."
        )
        build = {s.L_VERSION: version, s.L_PYTHON: platform.python_version()}
        meter.create_observable_gauge(
            s.M_BUILD_INFO, [lambda _: (Observation(1, build),)], "", "What is running; always 1."
        )
        observe_process(meter)

    @property
    def prompt_cache(self) -> PromptCacheTallies:
        return self._prompt_cache

    @property
    def route(self) -> RouteTallies:
        return self._route

    def request(self, record: RequestRecord) -> None:
        route, result, status, model = record.route, record.result, record.status, record.model
        self._scopes.requested(record.scope, result, status)
        told = (
            *(route, result, record.reason, status, record.provider, model),
            *(record.method, record.scheme, record.error),
        )
        ended = self._ended.get(told)
        if ended is None:
            ended = self._kind_of_request(*told)
            if (
                (route is None or route in self._routes)
                and record.method in s.METHODS
                and self._models.settled(model)
            ):
                _remember(self._ended, told, ended)
        with self._lock:
            ended.requests.value += 1
            if ended.lookups is not None:
                ended.lookups.value += 1
            ended.overhead.record(record.overhead_s)
            ended.http.record(record.duration_s)

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

    def lookup(self, seconds: float, result: Result, reason: Reason) -> None:  # noqa: ARG002
        self._cache.lookup(seconds, result)

    def stored(self, outcome: str, seconds: float | None = None, size_bytes: int = 0) -> None:
        self._cache.stored(outcome, seconds, size_bytes)

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
        self._calls.ended(
            *(provider, model, operation, error, duration_s, first_chunk_s),
            *(usage, reasoning_tokens, arrived_ms),
        )

    def saved(self, usage: Usage, provider: str, model: str | None) -> None:
        self._cache.saved(usage, provider, model)

    def spared(self, usd: float, provider: str, model: str | None) -> None:
        self._cache.spared(usd, provider, model)

    def called(  # noqa: PLR0917
        self, method: str, host: str, port: int | None, status: int, error: str, seconds: float
    ) -> None:
        self._http_calls.called(method, host, port, status, error, seconds)

    def lagged(self, seconds: float) -> None:
        with self._lock:
            self._lag.record(seconds)

    def inflight(self, change: int) -> None:
        self._inflight += change

    def aborted(self, side: str) -> None:
        series = self._aborted.at({s.L_SIDE: side})
        with self._lock:
            series.value += 1

    def store_unavailable(self, operation: str) -> None:
        self._cache.store_unavailable(operation)

    def watch_engines(self, told: Callable[[], dict[str, dict[str, Any]]]) -> None:
        most = self._limits.backends
        self._tallies.reserve(engine_series(most))
        observe_engines(self._meter, told, most)

    def watch_pools(self, told: Callable[[], dict[str, dict[str, dict[str, Any]]]]) -> None:
        most = self._limits.backends
        self._tallies.reserve(pool_series(most))
        observe_pools(self._meter, told, most)

    def watch_sharing(self, told: Callable[[], dict[str, dict[str, Any]]]) -> None:
        self._tallies.reserve(SHARING_SERIES)
        observe_sharing(self._meter, told)

    def watch_flights(self, told: Callable[[], int]) -> None:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return (Observation(told()),)

        self._meter.create_observable_up_down_counter(
            s.M_FLIGHT_WAITERS, [observe], "{request}", "Requests that wait for another's call."
        )

    def watch_config(self, told: Callable[[], ConfigTold]) -> None:
        self._tallies.reserve(CONFIG_SERIES)
        observe_config(self._meter, told)

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
