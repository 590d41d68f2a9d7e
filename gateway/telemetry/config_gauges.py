"""What became of configs that were read again, as metrics: read when somebody collects."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.metrics import CallbackOptions, Observation

from gateway.telemetry import semconv as s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.metrics import Meter


CONFIG_SERIES = 5
"""As many as there are."""


class ConfigTold(NamedTuple):
    """What there is to tell."""

    reloads: Mapping[str, int]
    """By outcome, each that there is: how often."""
    refused: bool
    """What was read last could not be used: what held before holds."""
    waiting: int
    """Settings that differ from what was read last, until a restart."""


def observe_config(meter: Meter, told: Callable[[], ConfigTold]) -> None:
    """`told` may be called from any thread."""

    def reloads(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(n, {s.L_OUTCOME: name}) for name, n in told().reloads.items()]

    def refused(_: CallbackOptions) -> Iterable[Observation]:
        return (Observation(int(told().refused)),)

    def waiting(_: CallbackOptions) -> Iterable[Observation]:
        return (Observation(told().waiting),)

    meter.create_observable_counter(
        s.M_CONFIG_RELOADS, [reloads], "{reload}", "Times that the config was read again."
    )
    meter.create_observable_gauge(
        s.M_CONFIG_REFUSED, [refused], "", "Whether the config that was read last can't be used."
    )
    meter.create_observable_gauge(
        s.M_CONFIG_WAITING, [waiting], "{setting}", "Settings that wait for a restart."
    )
