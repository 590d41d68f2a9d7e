"""How many of what gets a label of its own, so that all series together stay within their bound."""

from __future__ import annotations

from typing import NamedTuple

MAX_SERIES = 2000
"""In all, as Prometheus counts them, where the config says nothing else; it can't say less."""

# The process, what runs, what is in flight: read when somebody collects, and never more.
_OTHERS = 40


class Bounds(NamedTuple):
    """Of one process."""

    series: int
    """Of everything that grows with what is counted."""
    models: int
    histogram_models: int
    """In histograms each set of labels is some twenty series."""
    backends: int
    """Of all pools together."""


def bounds(max_series: int = MAX_SERIES) -> Bounds:
    """What goes with so many series in all."""
    return Bounds(
        series=max_series - _OTHERS,
        models=max_series // 50,
        histogram_models=max_series // 300,
        backends=max_series // 100,
    )
