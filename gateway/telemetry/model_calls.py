"""What is counted of model calls, in one or two generations of the GenAI conventions' names."""

from __future__ import annotations

from collections import Counter as Frequencies
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from gateway.telemetry import semconv as s
from gateway.telemetry.buckets import GEN_AI_SECONDS, GEN_AI_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.model import Usage
    from gateway.telemetry.metrics import ProvenNames
    from gateway.telemetry.tallies import Count, Counter, Histogram, Spread, Tallies

Names = Literal["latest", "v1_41", "both"]

_REMEMBERED = 4096


class _Spreads(NamedTuple):
    """The histograms of one generation."""

    duration: Histogram
    first_chunk: Histogram
    per_chunk: Histogram
    tokens: tuple[Histogram, Histogram]
    """Of prompts, and of answers. (Up to v1.41 one histogram, with a label.)"""


class _Series(NamedTuple):
    """Their series of one kind of call."""

    duration: Spread
    first_chunk: Spread
    per_chunk: Spread
    input: Spread
    output: Spread


class _Called(NamedTuple):
    """All series of one kind of call."""

    spreads: tuple[_Series, ...]
    counts: tuple[Count, ...]
    """Tokens of the prompt, the answer, read, written, thought; none without the latest names."""


class ModelCalls:
    """The series of model calls."""

    def __init__(
        self, tallies: Tallies, models: ProvenNames, few_models: ProvenNames, names: Names
    ) -> None:
        """`few_models` are those that have series of their own in histograms."""
        self._lock = tallies.lock
        self._models = models
        self._few_models = few_models
        self._generations: list[_Spreads] = []
        self._counters: tuple[Counter, ...] = ()
        if names != "v1_41":
            self._generations.append(_latest(tallies))
            self._counters = tuple(
                tallies.counter(name, "{token}", what)
                for name, what in (
                    (s.M_USAGE_INPUT, "Prompt tokens used, cached ones included."),
                    (s.M_USAGE_OUTPUT, "Answer tokens used, reasoning included."),
                    (s.M_USAGE_CACHE_READ, "Prompt tokens read from the provider's cache."),
                    (s.M_USAGE_CACHE_WRITE, "Prompt tokens written to the provider's cache."),
                    (s.M_USAGE_REASONING, "Answer tokens that were thoughts."),
                )
            )
        if names != "latest":
            self._generations.append(_v1_41(tallies))
        self._called: dict[tuple[str | None, ...], _Called] = {}

    def ended(  # noqa: PLR0917 - told by `Instruments.inference` alone
        self,
        provider: str,
        model: str | None,
        operation: str,
        error: str | None,
        duration_s: float,
        first_chunk_s: float | None,
        usage: Usage | None,
        reasoning_tokens: int,
        arrived_ms: Sequence[int],
    ) -> None:
        """See `Metrics.inference`."""
        told = (provider, model, operation, error)
        called = self._called.get(told)
        if called is None:
            called = self._kind_of_call(provider, model, operation, error)
            if self._models.settled(model) and (error is None or self._few_models.settled(model)):
                if len(self._called) >= _REMEMBERED:
                    self._called.clear()
                self._called[told] = called
        # Most chunks of a stream come at one of few distances: so counting them costs little.
        gaps = Frequencies([late - early for early, late in pairwise(arrived_ms)])
        with self._lock:
            for series in called.spreads:
                series.duration.record(duration_s)
                if first_chunk_s is not None:
                    series.first_chunk.record(first_chunk_s)
                for gap_ms, times in gaps.items():
                    series.per_chunk.record(gap_ms / 1000, times)
                if usage is not None:
                    series.input.record(usage.input)
                    series.output.record(usage.output)
            if usage is not None and called.counts:
                prompt, answer, read, written, thought = called.counts
                prompt.value += max(0, usage.input)
                answer.value += max(0, usage.output)
                read.value += max(0, usage.cache_read)
                written.value += max(0, usage.cache_write_5m + usage.cache_write_1h)
                thought.value += max(0, reasoning_tokens)

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
        if name:
            labels[s.GEN_AI_REQUEST_MODEL] = self._few_models.label(model, proven=error is None)
        return _Called(
            tuple(_series_of(each, labels, failed) for each in self._generations),
            tuple(counter.at(counted) for counter in self._counters),
        )


def _series_of(spreads: _Spreads, labels: dict[str, str], failed: dict[str, str]) -> _Series:
    prompt, answer = spreads.tokens
    typed = prompt is answer
    return _Series(
        spreads.duration.at(labels | failed),
        spreads.first_chunk.at(labels),
        spreads.per_chunk.at(labels),
        prompt.at({**labels, s.GEN_AI_TOKEN_TYPE: "input"} if typed else labels),
        answer.at({**labels, s.GEN_AI_TOKEN_TYPE: "output"} if typed else labels),
    )


def _seconds(
    tallies: Tallies, names: tuple[str, str, str]
) -> tuple[Histogram, Histogram, Histogram]:
    duration, first_chunk, per_chunk = names
    return (
        tallies.histogram(
            duration, "s", "Time of a model call, to its last byte.", GEN_AI_SECONDS, 3
        ),
        tallies.histogram(
            first_chunk, "s", "Time to the first chunk of a stream.", GEN_AI_SECONDS, 2
        ),
        tallies.histogram(
            per_chunk, "s", "Time from one chunk of a stream to the next.", GEN_AI_SECONDS, 1
        ),
    )


def _latest(tallies: Tallies) -> _Spreads:
    names = (s.M_INFERENCE_DURATION, s.M_TIME_TO_FIRST_CHUNK, s.M_TIME_PER_CHUNK)
    tokens = (
        tallies.histogram(
            s.M_OPERATION_INPUT, "{token}", "Prompt tokens of one call.", GEN_AI_TOKENS, 1
        ),
        tallies.histogram(
            s.M_OPERATION_OUTPUT, "{token}", "Answer tokens of one call.", GEN_AI_TOKENS, 1
        ),
    )
    return _Spreads(*_seconds(tallies, names), tokens)


def _v1_41(tallies: Tallies) -> _Spreads:
    names = (s.M_V1_41_DURATION, s.M_V1_41_TIME_TO_FIRST_CHUNK, s.M_V1_41_TIME_PER_CHUNK)
    tokens = tallies.histogram(
        s.M_V1_41_TOKEN_USAGE, "{token}", "Tokens of one call, by type.", GEN_AI_TOKENS, 2
    )
    return _Spreads(*_seconds(tallies, names), (tokens, tokens))
