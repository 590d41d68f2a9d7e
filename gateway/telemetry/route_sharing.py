"""What gateways tell each other of where they placed requests, as metrics: read when somebody collects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import CallbackOptions, Observation

from gateway.telemetry import semconv as s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import Meter

    Told = dict[str, dict[str, Any]]

_OUTCOMES = ("told", "heard", "dropped", "ignored")
_MOST_POOLS = 10
SHARING_SERIES = _MOST_POOLS * (len(_OUTCOMES) + 2)
"""As many as there can be."""


def observe_sharing(meter: Meter, told: Callable[[], Told]) -> None:
    """`told` gives what `gateway.placements.Placements.told` gives, by pool."""

    def records(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(figures[outcome], {s.L_UPSTREAM: pool, s.L_OUTCOME: outcome})
            for pool, figures in _first(told())
            for outcome in _OUTCOMES
        ]

    def shared(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(int(figures["shares"]), {s.L_UPSTREAM: pool})
            for pool, figures in _first(told())
        ]

    def lag(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(figures["lag_s"], {s.L_UPSTREAM: pool})
            for pool, figures in _first(told())
            if figures["lag_s"] is not None
        ]

    meter.create_observable_counter(
        s.M_ROUTE_RECORDS,
        [records],
        "{record}",
        "Records of placements that were told, heard, dropped before they could be told, or ignored.",
    )
    meter.create_observable_gauge(
        s.M_ROUTE_SHARED, [shared], "", "Whether gateways hear of each other's placements."
    )
    meter.create_observable_gauge(
        s.M_ROUTE_LAG, [lag], "s", "From telling a placement until the others have it, lately."
    )


def _first(told: Told) -> list[tuple[str, dict[str, Any]]]:
    return sorted(told.items())[:_MOST_POOLS]
