"""What is counted of providers' prompt caches: plans, tokens by cause, money, warming.

`PromptCacheMetrics` counts nothing; `PromptCacheTallies` counts. The rules are those of `metrics.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry import semconv as s
from gateway.telemetry.buckets import PLAN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.core.causes import Cause, Share
    from gateway.core.miss import Miss
    from gateway.core.plan import PlanReason
    from gateway.core.steadiness import Compared
    from gateway.telemetry.metrics import ProvenNames
    from gateway.telemetry.tallies import Tallies


class PromptCacheMetrics:
    """Counts nothing."""

    __slots__ = ()

    def planned(
        self,
        reason: PlanReason,
        provider: str,
        model: str,
        seconds: float,
        rewrites: Iterable[str] = (),
    ) -> None:
        """One request was planned, in so much time of our own."""

    def marked(self, reason: PlanReason, injected: int, kept: int) -> None:
        """So many markers of ours stand in a planned request, and so many of the client's own."""

    def refused(self, provider: str, model: str) -> None:
        """A provider refused what we added; the client's own bytes were sent."""

    def answered(self, shares: Mapping[Cause, Share], provider: str, model: str) -> None:
        """What an answer says was read and written, by who caused it."""

    def paid(
        self,
        total_usd: float,
        spared_usd: Mapping[Cause, float],
        premium_usd: Mapping[Cause, float],
        *,
        provider: str,
        model: str,
    ) -> None:
        """What an answer cost, what reading spared and what writing cost more, by cause."""

    def warmed(self, why: str, outcome: str) -> None:
        """A prefix was sent for its own sake: `start`, `interval` or `refresh`, and how it went:
        `ok`, the status, or a short, fixed word.
        """

    def compared(self, outcome: Compared, provider: str) -> None:
        """What was sent was compared with the turn before, or could not be."""

    def drifted(self, provider: str, change: str) -> None:
        """It was not the same, through us: by what was done to it."""

    def missed(self, miss: Miss, provider: str, model: str) -> None:
        """An answer read less from the provider's cache than it could have."""


NULL_PROMPT_CACHE = PromptCacheMetrics()


class PromptCacheTallies(PromptCacheMetrics):
    """Counts in `tallies`. Model names are those that an upstream answered for."""

    __slots__ = (
        *("_compared", "_cost", "_drifts", "_lock", "_lost", "_markers", "_misses", "_models"),
        *(
            "_plans",
            "_premium",
            "_refusals",
            "_rewrites",
            "_seconds",
            "_spared",
            "_tokens",
            "_warm",
        ),
    )

    def __init__(self, tallies: Tallies, models: ProvenNames) -> None:
        """Make the families."""
        self._lock = tallies.lock
        self._models = models
        self._plans = tallies.counter(
            s.M_PROMPT_CACHE_PLANS, "{request}", "Requests by what was planned for them, and why."
        )
        self._seconds = tallies.histogram(
            s.M_PROMPT_CACHE_PLAN_DURATION, "s", "Time to plan a request.", PLAN_SECONDS, room=1
        )
        self._markers = tallies.counter(
            s.M_MARKERS, "{marker}", "Markers in planned requests; skipped: requests without ours."
        )
        self._rewrites = tallies.counter(
            s.M_PROMPT_CACHE_REWRITES,
            "{request}",
            "Requests that were rewritten, by rewrite.",
            room=6,
        )
        self._refusals = tallies.counter(
            s.M_PROMPT_CACHE_REFUSALS, "{request}", "Requests that were refused for what we added."
        )
        self._tokens = tallies.counter(
            s.M_PROMPT_CACHE_TOKENS, "{token}", "Prompt tokens read and written, by who caused it."
        )
        self._misses = tallies.counter(
            s.M_PROMPT_CACHE_MISSES,
            "{request}",
            "Requests that read less from a prompt cache than they could have, by why.",
        )
        self._lost = tallies.counter(
            s.M_PROMPT_CACHE_LOST, "{token}", "Prompt tokens that they could have read, by why not."
        )
        self._cost = tallies.counter(
            s.M_INFERENCE_COST, "{USD}", "What answers cost, where there is a price."
        )
        self._spared = tallies.counter(
            s.M_PROMPT_CACHE_SPARED, "{USD}", "What reading from prompt caches spared."
        )
        self._premium = tallies.counter(
            s.M_PROMPT_CACHE_PREMIUM, "{USD}", "What writing to prompt caches cost more."
        )
        self._warm = tallies.counter(
            s.M_WARM_REQUESTS, "{request}", "Requests sent to keep a prompt cache warm."
        )
        self._compared = tallies.counter(
            s.M_PROMPT_CACHE_COMPARED, "{request}", "Requests compared with their turn before."
        )
        self._drifts = tallies.counter(
            s.M_PROMPT_CACHE_DRIFT,
            "{request}",
            "Requests whose prefix we sent otherwise than before.",
        )

    def planned(
        self,
        reason: PlanReason,
        provider: str,
        model: str,
        seconds: float,
        rewrites: Iterable[str] = (),
    ) -> None:
        """See the base."""
        labels = {**self._whose(provider, model, proven=False), s.L_REASON: reason.value}
        plans, spent = self._plans.at(labels), self._seconds.at({})
        made = [self._rewrites.at({s.L_REWRITE: rewrite}) for rewrite in rewrites]
        with self._lock:
            plans.value += 1
            spent.record(seconds)
            for each in made:
                each.value += 1

    def marked(self, reason: PlanReason, injected: int, kept: int) -> None:
        """See the base."""
        for action, number in (
            ("injected", injected),
            ("kept", kept),
            ("skipped", int(not injected)),
        ):
            if number:
                series = self._markers.at({s.L_ACTION: action, s.L_REASON: reason.value})
                with self._lock:
                    series.value += number

    def refused(self, provider: str, model: str) -> None:
        """See the base."""
        series = self._refusals.at(self._whose(provider, model, proven=False))
        with self._lock:
            series.value += 1

    def answered(self, shares: Mapping[Cause, Share], provider: str, model: str) -> None:
        """See the base."""
        labels = self._whose(provider, model, proven=True)
        for cause, share in shares.items():
            for operation, tokens in (
                ("read", share.read),
                ("write", share.write_5m + share.write_1h),
            ):
                if tokens <= 0:
                    continue
                told = {**labels, s.L_OPERATION: operation, s.L_CAUSE: cause.value}
                series = self._tokens.at(told)
                with self._lock:
                    series.value += tokens

    def paid(
        self,
        total_usd: float,
        spared_usd: Mapping[Cause, float],
        premium_usd: Mapping[Cause, float],
        *,
        provider: str,
        model: str,
    ) -> None:
        """See the base."""
        labels = self._whose(provider, model, proven=True)
        total = self._cost.at(labels)
        with self._lock:
            total.value += total_usd
        for family, by_cause in ((self._spared, spared_usd), (self._premium, premium_usd)):
            for cause, amount in by_cause.items():
                if amount <= 0:
                    continue
                series = family.at({**labels, s.L_CAUSE: cause.value})
                with self._lock:
                    series.value += amount

    def warmed(self, why: str, outcome: str) -> None:
        """See the base."""
        series = self._warm.at({s.L_REASON: why, s.L_OUTCOME: outcome})
        with self._lock:
            series.value += 1

    def compared(self, outcome: Compared, provider: str) -> None:
        """See the base."""
        series = self._compared.at({s.L_PROVIDER: provider, s.L_OUTCOME: outcome.value})
        with self._lock:
            series.value += 1

    def drifted(self, provider: str, change: str) -> None:
        """See the base."""
        series = self._drifts.at({s.L_PROVIDER: provider, s.L_CHANGE: change})
        with self._lock:
            series.value += 1

    def missed(self, miss: Miss, provider: str, model: str) -> None:
        """See the base."""
        labels = {**self._whose(provider, model, proven=True), s.L_CAUSE: miss.cause.value}
        lost = self._lost.at(labels) if miss.lost_tokens else None
        # (What changed is one of some thirty words; where is told on spans only.)
        misses = self._misses.at({**labels, s.L_KIND: miss.kind} if miss.kind else labels)
        with self._lock:
            misses.value += 1
            if lost is not None:
                lost.value += miss.lost_tokens

    def _whose(self, provider: str, model: str, *, proven: bool) -> dict[str, str]:
        return {s.L_PROVIDER: provider, s.L_MODEL: self._models.label(model, proven=proven)}
