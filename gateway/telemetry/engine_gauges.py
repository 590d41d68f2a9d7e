"""What engines tell of themselves, as metrics: read when somebody collects, never counted here.

What an engine doesn't tell has no series; neither has the load of one that can't be read now, because
a figure that stands still looks like an engine at rest.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import CallbackOptions, Observation

from gateway.telemetry import semconv as s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from opentelemetry.metrics import Meter

    Told = dict[str, dict[str, Any]]


_FIGURES = 7


def engine_series(most: int) -> int:
    """As many as there can be, with so many engines that have labels."""
    return most * _FIGURES


def observe_engines(meter: Meter, told: Callable[[], Told], most: int) -> None:
    """So many engines get a label of their own, of each pool as many. `told` gives what `gateway.upstream.engines.Engines.told` gives."""

    def gauge(name: str, unit: str, what: str, of: Callable[[dict[str, Any]], Any]) -> None:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return _observed((labels, of(engine)) for labels, engine in _fresh(told(), most))

        meter.create_observable_gauge(name, [observe], unit, what)

    def requests(_: CallbackOptions) -> Iterable[Observation]:
        return _observed(
            ({**labels, s.L_STATE: state}, engine[state])
            for labels, engine in _fresh(told(), most)
            for state in ("running", "waiting")
        )

    def up(_: CallbackOptions) -> Iterable[Observation]:
        return _observed(
            (labels, 0 if _failing(engine) else 1) for labels, engine in _labelled(told(), most)
        )

    def restarts(_: CallbackOptions) -> Iterable[Observation]:
        return _observed((labels, engine["restarts"]) for labels, engine in _labelled(told(), most))

    meter.create_observable_gauge(
        s.M_ENGINE_UP, [up], "", "Whether the engine's metrics could be read last time."
    )
    meter.create_observable_gauge(
        s.M_ENGINE_REQUESTS, [requests], "{request}", "Requests in the engine, by state."
    )
    gauge(
        s.M_ENGINE_KV_USAGE, "1", "Part of the engine's KV cache in use.", lambda e: e["kv_usage"]
    )
    gauge(
        s.M_ENGINE_CAPACITY,
        "{token}",
        "Prompt tokens that the engine's KV cache has room for.",
        lambda e: e.get("capacity_tokens"),
    )
    gauge(
        s.M_ENGINE_PREFIX_HITS,
        "1",
        "Part of the prompt tokens of the last interval that the engine had.",
        lambda e: e["prefix_hit_share"]["interval"],
    )
    meter.create_observable_counter(
        s.M_ENGINE_RESTARTS, [restarts], "{restart}", "Times that the engine's counters began anew."
    )


def _failing(engine: dict[str, Any]) -> bool:
    return engine["failing_s"] is not None or engine["age_s"] is None


def _labelled(told: Told, most: int) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Each engine with its labels; of very many the first ones, of each pool as many."""
    seen: Counter[str] = Counter()
    pools = {engine.get("upstream") or name for name, engine in told.items()}
    each_gets, left = max(1, most // max(1, len(pools))), most
    for name, engine in sorted(told.items()):
        upstream, backend = engine.get("upstream") or name, engine.get("backend")
        seen[upstream] += 1
        if seen[upstream] <= each_gets and left:
            left -= 1
            yield {s.L_UPSTREAM: upstream, **({s.L_BACKEND: backend} if backend else {})}, engine


def _fresh(told: Told, most: int) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    for labels, engine in _labelled(told, most):
        if not _failing(engine):
            yield labels, engine


def _observed(values: Iterable[tuple[dict[str, str], float | None]]) -> list[Observation]:
    return [Observation(value, labels) for labels, value in values if value is not None]
