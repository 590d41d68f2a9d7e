"""What one call, or one answer served without a call, means in the ledger: lines and their amounts.

Rule 1: integers only (tokens, picodollars, microseconds): sums are exact in whatever order and over
however many gateways.
Rule 2: what is paid hangs on calls, each counted once, whoever waited for it. What is saved hangs on
causes: paid + saved is what the same answers would have cost without any cache.
Rule 3: a call of our own (warm-up, refresh, revalidation) would not have been made without us: all
that it costs is taken from what we save, and what it reads saves nothing.
Rule 4: what is not known (usage, a price) is counted as not known, never as nothing.
"""

from __future__ import annotations

from enum import StrEnum
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.causes import Cause
from gateway.core.days import day_of
from gateway.core.money import Gain, bill, gain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gateway.core.model import Usage
    from gateway.core.records import CallRecord
    from gateway.providers.prices import Price

OTHER = "_other"
"""Models and scopes beyond those that are told apart."""

MOST_TOKENS = 100_000_000
"""Of one call. Who states more has miscounted: its usage is unknown, and no sum is spoiled."""

_LONGEST_NAME = 128


class LedgerCause(StrEnum):
    """Why money was spent, or who spared it."""

    REQUEST = "request"
    """Paid: a client asked for it."""
    REVALIDATE = "revalidate"
    """Paid, our own: the successor of an answer that was served stale."""
    WARM_UP = "warm_up"
    """Paid, our own: a prompt that the config names."""
    REFRESH = "refresh"
    """Paid, our own: a prefix read again before its provider forgets it."""
    REPLICA = "replica"
    """Our own: prefixes that a new replica of a pool is given."""
    RESPONSE_HIT = "response_hit"
    """Saved: an answer that nobody paid again (hit, stale, collapsed)."""
    OURS = "ours"
    """Saved by markers of ours: discount on what was read, less the premium on what was written."""
    CLIENT = "client"
    """Likewise by the client's own markers: not our doing."""
    AUTOMATIC = "automatic"
    """Likewise by the provider itself: not our doing."""
    ENGINE = "engine"
    """Of a self-hosted engine: tokens that its prefix cache had, and seconds of computing."""


OWN = frozenset(
    {LedgerCause.REVALIDATE, LedgerCause.WARM_UP, LedgerCause.REFRESH, LedgerCause.REPLICA}
)
"""Calls of our own."""
PAID = OWN | {LedgerCause.REQUEST}
"""Causes whose lines count calls; the others' count what these calls read, or needed none."""

_PURPOSES = {
    "request": LedgerCause.REQUEST,
    "revalidate": LedgerCause.REVALIDATE,
    "start": LedgerCause.WARM_UP,
    "interval": LedgerCause.WARM_UP,
    "refresh": LedgerCause.REFRESH,
    "replica": LedgerCause.REPLICA,
}
_CAUSES = {
    Cause.OURS: LedgerCause.OURS,
    Cause.CLIENT: LedgerCause.CLIENT,
    Cause.AUTOMATIC: LedgerCause.AUTOMATIC,
}


class Line(NamedTuple):
    """What amounts are kept under."""

    day: str
    """In UTC: `2026-11-22`."""
    provider: str
    model: str
    scope: str
    """The first 8 hex digits of the keyed hash of who asked; empty for a call of our own."""
    cause: str
    """A `LedgerCause`; text, so that a later version's can be read."""


class Amounts(NamedTuple):
    """What is added up. All integers; a new one goes to the end."""

    times: int = 0
    """Calls of a model; of `response_hit`: answers; of the other saved causes: calls that read or
    wrote for this cause."""
    failed: int = 0
    """Of these, answered with an error: nothing is charged."""
    unknown: int = 0
    """Of these, without usage: their answers broke off, or didn't say. What they cost is not known."""
    unpriced: int = 0
    """Of these, with usage and without a known price."""
    unpriced_tokens: int = 0
    """All tokens of those."""
    uncached: int = 0
    read: int = 0
    write_5m: int = 0
    write_1h: int = 0
    output: int = 0
    paid_pd: int = 0
    """Picodollars."""
    spared_pd: int = 0
    premium_pd: int = 0
    """What writing cost more than not keeping it."""
    spared_us: int = 0
    """Microseconds of an engine's computing."""

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.uncached + self.read + self.write_5m + self.write_1h + self.output


def of_call(call: CallRecord, price: Price | None) -> list[tuple[Line, Amounts]]:
    """The lines of one call; the first is its own, the others are of what it read and wrote.
    `price` is that of its provider, model and terms, if one is known.
    """
    cause = _PURPOSES[call.purpose]
    line = Line(day_of(call.at), call.provider, _name(call.model), call.scope, cause.value)
    usage = call.usage
    if call.failed:
        return [(line, Amounts(1, failed=1))]
    if usage is None or _absurd(usage):
        return [(line, Amounts(1, unknown=1))]
    if call.engine:
        return [(line, _tokens_of(usage)), *_of_engine(call, usage, line)]
    if price is None:
        paid = _without_price(_tokens_of(usage))
    else:
        paid = _tokens_of(usage, paid_pd=bill(usage, price).total)
    if cause in OWN:
        return [(line, paid)]
    return [(line, paid), *_gains(call, usage, price, line)]


def _gains(
    call: CallRecord, usage: Usage, price: Price | None, line: Line
) -> list[tuple[Line, Amounts]]:
    found = []
    for who, share in call.shares.items():
        if not any(share):
            continue
        brought = Gain(0, 0) if price is None else gain(share, price.at(usage.input))
        told = Amounts(1, 0, 0, 0, 0, 0, *share, 0, 0, *brought)
        if price is None:
            told = _without_price(told)
        found.append((Line(*line[:-1], _CAUSES[who].value), told))
    return found


def _of_engine(call: CallRecord, usage: Usage, line: Line) -> list[tuple[Line, Amounts]]:
    if not usage.cache_read:
        return []
    told = Amounts(1, read=usage.cache_read)
    if call.prefill_s is None:
        # How fast it computes is not known: tokens then, and no time.
        told = _without_price(told)
    else:
        told = told._replace(spared_us=round(max(0.0, call.prefill_s) * 1e6))
    return [(line._replace(cause=LedgerCause.ENGINE.value), told)]


def of_hit(
    *,
    at: float,
    provider: str,
    model: str,
    scope: str,
    usage: Usage | None,
    price: Price | None,
    engine: bool = False,
    instead: bool = True,
) -> tuple[Line, Amounts]:
    """The line of an answer that was served without a call of its own: what the answer's recorded
    `usage` cost at `price` was not paid again. Nobody bills an `engine`'s tokens. `instead` False:
    it stands for a call that failed, which would have cost nothing, so nothing is saved.
    """
    line = Line(day_of(at), provider, _name(model), scope, LedgerCause.RESPONSE_HIT.value)
    if not instead:
        return line, Amounts(1) if usage is None or _absurd(usage) else _tokens_of(usage)
    if usage is None or _absurd(usage):
        return line, Amounts(1, unknown=1)
    if engine:
        return line, _tokens_of(usage)
    if price is None:
        return line, _without_price(_tokens_of(usage))
    return line, _tokens_of(usage, spared_pd=bill(usage, price).total)


def added(one: Amounts, other: Amounts) -> Amounts:
    """Both together."""
    return Amounts._make(map(add, one, other))


def folded(rows: Iterable[tuple[Line, Amounts]], by: Collection[str]) -> list[tuple[Line, Amounts]]:
    """Sums of the lines that only differ in what is neither asked for in `by` nor `day` or `cause`;
    those members are empty. What `gateway.core.savings` makes of it by these names is the same.
    """
    sums: dict[Line, Amounts] = {}
    fold(sums, rows, by)
    return list(sums.items())


def fold(
    sums: dict[Line, Amounts], rows: Iterable[tuple[Line, Amounts]], by: Collection[str]
) -> None:
    """Add more lines to what `folded` gives by these names."""
    provider, model, scope = "provider" in by, "model" in by, "scope" in by
    for line, amounts in rows:
        place = Line(
            line.day,
            line.provider if provider else "",
            line.model if model else "",
            line.scope if scope else "",
            line.cause,
        )
        before = sums.get(place)
        sums[place] = amounts if before is None else added(before, amounts)


def _tokens_of(usage: Usage, paid_pd: int = 0, spared_pd: int = 0) -> Amounts:
    # (In their order: one that names its members takes three times as long.)
    return Amounts(
        *(1, 0, 0, 0, 0, usage.uncached_input),
        *(usage.cache_read, usage.cache_write_5m, usage.cache_write_1h, usage.output),
        *(paid_pd, spared_pd),
    )


def _without_price(told: Amounts) -> Amounts:
    return told._replace(unpriced=1, unpriced_tokens=told.tokens)


def _absurd(usage: Usage) -> bool:
    return usage.input + usage.output > MOST_TOKENS


def _name(model: str) -> str:
    """What an answer calls its model is anybody's text."""
    short = model[:_LONGEST_NAME]
    return short if short.isprintable() else "".join(c if c.isprintable() else "?" for c in short)
