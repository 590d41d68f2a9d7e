"""Answers that nobody paid again, waiting to be written to the ledger: `Hits`, counted by kind.

An answer that is served a thousand times a minute is priced once and added up once: the same sum, at
a quarter of the work for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.core.ledger import Amounts, Line, of_hit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.model import Usage
    from gateway.providers.prices import Price

MOST = 1000
"""Kinds that are remembered, priced; they are forgotten together."""

_DAY_S = 86_400


class Hit(NamedTuple):
    """What hits of one kind have in common."""

    provider: str
    api: str
    model: str
    scope: str
    """As in `Line`."""
    usage: Usage | None
    """Of the answer, as it was recorded; likewise its `terms`."""
    terms: tuple[str, ...]
    instead: bool
    """Of a call that would be paid (a failure is not)."""
    engine: bool
    """Nobody bills it."""


class _Kind:
    __slots__ = ("amounts", "line", "saved_pd", "times")

    def __init__(self, line: Line, amounts: Amounts, saved_pd: int | None) -> None:
        self.line = line
        self.amounts = amounts
        self.saved_pd = saved_pd
        self.times = 0


class Hits:
    """How often each kind came since they were last taken."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[int, Hit], _Kind] = {}

    def __repr__(self) -> str:
        return f"<Hits {len(self._kinds)} kinds>"

    @property
    def is_full(self) -> bool:
        """What it has is to be taken before another one is added."""
        return len(self._kinds) >= MOST

    def add(self, hit: Hit, at: float, price: Callable[[], Price | None]) -> int | None:
        """One more, at this moment; `price` is asked about a new kind. Returns what it saved, in
        picodollars; None where nobody knows, or bills.
        """
        key = int(at) // _DAY_S, hit
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _priced(hit, at, price)
        kind.times += 1
        return kind.saved_pd

    def take(self) -> list[tuple[Line, Amounts]]:
        """Lines and amounts of all that came; they wait no longer."""
        taken = []
        for kind in self._kinds.values():
            if kind.times:
                taken.append((kind.line, Amounts._make(each * kind.times for each in kind.amounts)))
                kind.times = 0
        if self.is_full:
            self._kinds.clear()
        return taken


def _priced(hit: Hit, at: float, price: Callable[[], Price | None]) -> _Kind:
    line, amounts = of_hit(
        at=at,
        provider=hit.provider,
        model=hit.model,
        scope=hit.scope,
        usage=hit.usage,
        price=None if hit.engine else price(),
        engine=hit.engine,
        instead=hit.instead,
    )
    unknown = hit.engine or amounts.unknown or amounts.unpriced
    return _Kind(line, amounts, None if unknown else amounts.spared_pd)
