"""Medians and spreads of what was timed."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.benchcmd.asker import Timed


class Spread(NamedTuple):
    """Of several values: the middle one, the middle half of them, the ends."""

    median: float
    q1: float
    q3: float
    least: float
    most: float


def spread(values: Iterable[float | None]) -> Spread | None:
    """Of what there is; None of nothing."""
    there = sorted(value for value in values if value is not None)
    if not there:
        return None
    if len(there) == 1:
        return Spread(*there * 5)
    q1, middle, q3 = quantiles(there, n=4, method="inclusive")
    return Spread(middle, q1, q3, there[0], there[-1])


@dataclass(slots=True)
class Row:
    """One kind of request of a case, asked several times."""

    name: str
    timed: list[Timed] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    refused: str = ""
    """The server won't have such requests: why."""
    wall_s: float = 0.0
    """How long they took together, where several were under way at once."""

    @property
    def ttft_s(self) -> float | None:
        """The median."""
        return median(each.ttft_s for each in self.timed) if self.timed else None

    @property
    def tokens_per_s_together(self) -> float | None:
        """Of all its answers at once."""
        made = sum(each.output_tokens for each in self.timed)
        return made / self.wall_s if self.wall_s and made else None


@dataclass(slots=True)
class Case:
    """What one case found."""

    name: str
    title: str
    rows: list[Row]
    ratios: dict[str, float] = field(default_factory=dict)
    """What it is about: how many times faster one row's first token is than another's."""

    def row(self, name: str) -> Row | None:
        """By name."""
        return next((row for row in self.rows if row.name == name), None)


def told(row: Row, *, tells_cached: bool) -> dict[str, Any]:
    """A row as plain JSON values, null where a thing isn't known.

    With `tells_cached`, an answer that says nothing of cached tokens had none.
    """
    prompt = spread(each.prompt_tokens for each in row.timed)
    cached = spread(
        0 if each.cached_tokens is None and tells_cached else each.cached_tokens
        for each in row.timed
    )
    output = spread(each.output_tokens for each in row.timed)
    share = cached.median / prompt.median if cached and prompt and prompt.median else None
    return {
        "requests": len(row.timed),
        "failed": len(row.failures),
        "refused": row.refused or None,
        "ttft_s": _spread_told(spread(each.ttft_s for each in row.timed)),
        "seconds": _spread_told(spread(each.seconds for each in row.timed)),
        "tokens_per_s": _spread_told(spread(each.tokens_per_s for each in row.timed)),
        "tokens_per_s_together": _rounded(row.tokens_per_s_together),
        "prompt_tokens": prompt and round(prompt.median),
        "cached_tokens": None if cached is None else round(cached.median),
        "cached_share": _rounded(share),
        "output_tokens": output and round(output.median),
    }


def _spread_told(of: Spread | None) -> dict[str, float] | None:
    if of is None:
        return None
    names = ("median", "q1", "q3", "min", "max")
    return {name: round(value, 6) for name, value in zip(names, of, strict=True)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
