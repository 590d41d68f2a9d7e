"""What is counted of the response cache: looks, writes, and what hits spared.

The rules are those of `metrics.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry import semconv as s
from gateway.telemetry.buckets import ENTRY_BYTES, OWN_SECONDS

if TYPE_CHECKING:
    from gateway.core.model import Result, Usage
    from gateway.telemetry.metrics import ProvenNames
    from gateway.telemetry.tallies import Count, Spread, Tallies


class CacheTallies:
    """Counts in `tallies`; the methods are those of `Metrics`."""

    __slots__ = (
        *("_costs", "_lock", "_looked", "_lookup", "_models", "_outcomes", "_saved", "_saved_cost"),
        *("_size", "_store", "_stores", "_tokens", "_unavailable", "_written"),
    )

    def __init__(self, tallies: Tallies, models: ProvenNames) -> None:
        """Make the families."""
        self._lock = tallies.lock
        self._models = models
        self._lookup = tallies.histogram(
            s.M_LOOKUP_DURATION, "s", "Time to look into the cache.", OWN_SECONDS
        )
        self._stores = tallies.counter(
            s.M_STORE_OPERATIONS,
            "{answer}",
            "Answers by whether they were stored, or why not.",
            room=24,
        )
        self._store = tallies.histogram(
            s.M_STORE_DURATION, "s", "Time to write an entry.", OWN_SECONDS
        )
        self._size = tallies.histogram(
            s.M_STORE_ENTRY_SIZE, "By", "Size of the entries written.", ENTRY_BYTES, room=1
        ).at({})
        self._saved = tallies.counter(
            s.M_SAVED_TOKENS, "{token}", "Tokens of answers served from the cache."
        )
        self._saved_cost = tallies.counter(
            s.M_SAVED_COST, "{USD}", "What answers served from the cache had cost."
        )
        self._unavailable = tallies.counter(
            s.M_STORE_UNAVAILABLE,
            "{operation}",
            "Store operations that got no answer in time.",
            room=3,
        )
        self._looked: dict[Result, Spread] = {}
        # Their keys are words of ours.
        self._outcomes: dict[str, Count] = {}
        self._written: dict[str, Spread] = {}
        self._tokens: dict[tuple[str, str | None], tuple[Count, Count]] = {}
        self._costs: dict[tuple[str, str | None], Count] = {}

    def lookup(self, seconds: float, result: Result) -> None:
        """See `Metrics.lookup`; by its reason too it would be a histogram for each."""
        series = self._looked.get(result)
        if series is None:
            series = self._looked[result] = self._lookup.at({s.L_RESULT: result.value})
        with self._lock:
            series.record(seconds)

    def stored(self, outcome: str, seconds: float | None, size_bytes: int) -> None:
        """See `Metrics.stored`."""
        count = self._outcomes.get(outcome)
        if count is None:
            count = self._outcomes[outcome] = self._stores.at({s.L_OUTCOME: str(outcome)})
        duration = None
        if seconds is not None:
            duration = self._written.get(outcome)
            if duration is None:
                duration = self._written[outcome] = self._store.at({s.L_OUTCOME: str(outcome)})
        with self._lock:
            count.value += 1
            if duration is not None and seconds is not None:
                duration.record(seconds)
                self._size.record(size_bytes)

    def saved(self, usage: Usage, provider: str, model: str | None) -> None:
        """See `Metrics.saved`."""
        told = (provider, model)
        series = self._tokens.get(told)
        if series is None:
            labels = {s.L_PROVIDER: provider, s.L_MODEL: self._models.label(model, proven=True)}
            series = (
                self._saved.at({**labels, s.L_DIRECTION: "input"}),
                self._saved.at({**labels, s.L_DIRECTION: "output"}),
            )
            if self._models.settled(model):
                self._tokens[told] = series
        prompt, answer = series
        with self._lock:
            prompt.value += max(0, usage.input)
            answer.value += max(0, usage.output)

    def spared(self, usd: float, provider: str, model: str | None) -> None:
        """See `Metrics.spared`."""
        told = (provider, model)
        series = self._costs.get(told)
        if series is None:
            name = self._models.label(model, proven=True)
            series = self._saved_cost.at({s.L_PROVIDER: provider, s.L_MODEL: name})
            if self._models.settled(model):
                self._costs[told] = series
        with self._lock:
            series.value += max(0.0, usd)

    def store_unavailable(self, operation: str) -> None:
        """See `Metrics.store_unavailable`."""
        series = self._unavailable.at({s.L_OPERATION: operation})
        with self._lock:
            series.value += 1
