"""Recorded traffic, as a replay takes it: calls in the order of their times."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.prefix import PrefixBlock

Document: TypeAlias = dict[str, Any]


class TraceError(ValueError):
    """A trace that can't be read. Its message names the file, the line and the field."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request. It has a body, or, of traces that keep only hashes, blocks."""

    at: float
    """Seconds since the trace began."""
    begins_s: float
    """From then until the first byte of the answer."""
    ends_s: float
    """From then until its last."""
    route: str = ""
    body: Document | None = None
    """Messages are shared between the calls of a conversation: not to be changed."""
    blocks: tuple[PrefixBlock, ...] = ()
    scope: str = "default"
    """Whose cache: one workspace or organisation."""
    seed: int = 0
    """Of hash-only prompts: of the model, where one trace has several."""
    conversation: str = ""
    """Of hash-only prompts: whose it is, where the trace says it."""
    answer_tokens: int = 0
    """Where the trace says them."""


@dataclass(frozen=True, slots=True)
class Trace:
    """All calls of one file."""

    name: str
    calls: Sequence[Call]
    exact_tokens: bool = False
    """Blocks say their tokens: `size` is four times as many."""
    notes: Sequence[str] = field(default_factory=tuple)
    """What was drawn or made up, for the report."""


class Times:
    """Times that a trace doesn't have, drawn by a seed: when conversations start, how long answers
    take, how long tools and people do. The same seed draws the same, however much is read.
    """

    def __init__(self, seed: int, rate_per_hour: float, arrivals: Sequence[float] = ()) -> None:
        self._seed = seed
        self._rate = rate_per_hour
        self._arrivals = arrivals

    def starts(self, count: int) -> list[float]:
        """So many arrivals in seconds: a Poisson process, or drawn from those recorded."""
        dice = self._dice("starts")
        if self._arrivals:
            # A thinned record keeps its bursts and its span.
            known = self._arrivals
            if count <= len(known):
                return sorted(dice.sample(list(known), count))
            span = known[-1] - known[0] + 1.0
            return [known[i % len(known)] + span * (i // len(known)) for i in range(count)]
        at, found = 0.0, []
        for _ in range(count):
            at += dice.expovariate(self._rate / 3600)
            found.append(at)
        return found

    def spread(self, count: int, span_s: float) -> list[float]:
        """So many starts, evenly likely over a span, in no order."""
        dice = self._dice("spread")
        return [dice.uniform(0, span_s) for _ in range(count)]

    def of_conversation(self, number: int) -> Pace:
        """The times within one conversation."""
        return Pace(self._dice(f"conversation {number}"))

    def _dice(self, purpose: str) -> random.Random:
        return random.Random(f"{self._seed}: {purpose}")  # noqa: S311 - to be repeated, not to hide


class Pace:
    """The times within one conversation, one draw after the other."""

    _THOUGHT_MEDIAN = 3.0  # ln of 20 s
    _TOOL_MEDIAN = -0.7  # ln of 0.5 s

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def answer(self, output_bytes: int) -> tuple[float, float]:
        """Seconds until an answer begins and ends."""
        begins = self._dice.uniform(0.6, 2.5)
        return begins, begins + output_bytes / 4 / 60

    def pause(self, *, human: bool) -> float:
        """Seconds from an answer's end to the next request: a tool (median 0.5 s), or a person
        reading and typing (median 20 s; one in 300 takes more than five minutes).
        """
        if human:
            return self._dice.lognormvariate(self._THOUGHT_MEDIAN, 1.0)
        return self._dice.lognormvariate(self._TOOL_MEDIAN, 1.0)
