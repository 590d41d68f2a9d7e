"""What is thought of each replica of a pool, as metrics: read when somebody collects.

So a replica that is gone has no series any more; and of very many the first ones have. How many a
pool has, and in which state, is told of all.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.metrics import CallbackOptions, Observation

from gateway.telemetry import semconv as s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from opentelemetry.metrics import Meter

    Told = dict[str, dict[str, dict[str, Any]]]

_MOST_POOLS = 10
_STATES = 6
_READY = "ready"


class _Figure(NamedTuple):
    metric: str
    unit: str
    what: str
    name: str
    """In what is told of a replica."""


_GAUGES = (
    _Figure(s.M_ROUTE_READY, "", "Whether the replica gets requests: 1 or 0.", "ready"),
    _Figure(s.M_ROUTE_IN_FLIGHT, "{request}", "Requests that a replica works on.", "in_flight"),
    _Figure(
        s.M_ROUTE_PENDING, "s", "Estimated time until it has computed what waits.", "pending_s"
    ),
    _Figure(
        s.M_ROUTE_MIRROR, "{token}", "Prompt tokens that it is thought to hold.", "mirror_tokens"
    ),
)
_COUNTERS = (
    _Figure(s.M_BACKEND_REQUESTS, "{request}", "Requests sent to a replica.", "requests"),
    _Figure(
        s.M_ROUTE_EXPECTED,
        "{token}",
        "Prompt tokens that replicas were thought to have cached.",
        "expected_tokens",
    ),
    _Figure(
        s.M_ROUTE_REPORTED,
        "{token}",
        "Prompt tokens that replicas said they had cached, of the same requests.",
        "reported_tokens",
    ),
)


def pool_series(most: int) -> int:
    """As many as there can be, with so many replicas that have labels: the state is one, too."""
    return most * (len(_GAUGES) + len(_COUNTERS) + 1) + _MOST_POOLS * _STATES


def observe_pools(meter: Meter, told: Callable[[], Told], most: int) -> None:
    """So many replicas get a label of their own, of each pool as many. `told` gives what `gateway.routing.Routing.told` gives: by upstream and replica."""

    def observing(figure: _Figure) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value, labels)
                for labels, replica in _replicas(told(), most)
                if (value := replica.get(figure.name)) is not None
            ]

        return observe

    def states(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(1, {**labels, s.L_STATE: state})
            for labels, replica in _replicas(told(), most)
            if (state := replica.get("state")) is not None
        ]

    def replicas(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(number, {s.L_UPSTREAM: upstream, s.L_STATE: state})
            for upstream, of_pool in sorted(told().items())[:_MOST_POOLS]
            for state, number in _by_state(of_pool).items()
        ]

    meter.create_observable_gauge(
        s.M_BACKEND_STATE, [states], "", "The state that a replica is in; always 1."
    )
    meter.create_observable_gauge(
        s.M_ROUTE_REPLICAS, [replicas], "{replica}", "Replicas of a pool, by their state."
    )
    for each in _GAUGES:
        meter.create_observable_gauge(each.metric, [observing(each)], each.unit, each.what)
    for each in _COUNTERS:
        meter.create_observable_counter(each.metric, [observing(each)], each.unit, each.what)


def _by_state(replicas: dict[str, dict[str, Any]]) -> Counter[str]:
    # That nobody is ready is a figure too, also of a pool without replicas.
    found = Counter({_READY: 0})
    found.update(str(each["state"]) for each in replicas.values() if each.get("state"))
    return found


def _replicas(told: Told, most: int) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    each_gets = max(1, most // max(1, len(told)))
    labelled = (
        (upstream, name, replicas[name])
        for upstream, replicas in sorted(told.items())
        for name in sorted(replicas)[:each_gets]
    )
    for upstream, name, replica in islice(labelled, most):
        yield {s.L_UPSTREAM: upstream, s.L_BACKEND: name}, replica
