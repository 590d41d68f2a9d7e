"""What is thought of each replica of a pool, as metrics: read when somebody collects.

So a replica that is gone has no series any more; and of a pool with very many the first ones have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.metrics import CallbackOptions, Observation

from gateway.telemetry import semconv as s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from opentelemetry.metrics import Meter

    Told = dict[str, dict[str, dict[str, Any]]]

MOST_BACKENDS = 128
"""Of one pool, that get a label of their own."""


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


def observe_pools(meter: Meter, told: Callable[[], Told]) -> None:
    """`told` gives what `gateway.routing.Routing.told` gives: by upstream and replica."""

    def observing(figure: _Figure) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value, labels)
                for labels, replica in _replicas(told())
                if (value := replica.get(figure.name)) is not None
            ]

        return observe

    for each in _GAUGES:
        meter.create_observable_gauge(each.metric, [observing(each)], each.unit, each.what)
    for each in _COUNTERS:
        meter.create_observable_counter(each.metric, [observing(each)], each.unit, each.what)


def _replicas(told: Told) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    for upstream, replicas in told.items():
        for name in sorted(replicas)[:MOST_BACKENDS]:
            yield {s.L_UPSTREAM: upstream, s.L_BACKEND: name}, replicas[name]
