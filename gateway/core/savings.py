"""What the ledger's lines come to: sums by day, model, scope, cause or provider, in plain values.

Rule 1: `saved` is what we brought: answers that nobody paid again, and what our own markers brought
less what calls of our own cost. What clients' markers and providers by themselves spared stands
apart, as `others`.
Rule 2: without = paid + saved + others, in each row and in each sum of rows.
Rule 3: an amount of which nothing is known is None; one of which a part is not known is a lower
bound (what was saved an upper one, where calls of our own are not known), and how much is not known
stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.ledger import OWN, PAID, Amounts, LedgerCause, Line, added
from gateway.core.money import usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KEYS = ("day", "provider", "model", "scope", "cause")
"""What lines can be summed by: the members of `Line`."""

_PAID = frozenset(each.value for each in PAID)
_OWN = frozenset(each.value for each in OWN)
_BUCKETS = ("uncached", "read", "write_5m", "write_1h", "output")


def summary(rows: Iterable[tuple[Line, Amounts]], by: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One row for each combination of the members of `Line` that `by` names, in their order; one
    row in all without any. Raises ValueError for a name that isn't one.

    A row: the members of `by`; `calls` of models, of these `failed_calls`; `answers` served without
    one; `tokens` that were billed, by bucket; `spared_tokens` by cause; `paid_usd`; `saved_usd` and
    its parts in `saved_by`; `others_usd` and its parts; `without_usd`, what it would have cost;
    `share` = saved / without; `paid_pd`, `saved_pd`, `others_pd`: the same exactly, picodollars as
    text; `engine_s`; `unknown`: what is in none of these amounts.
    """
    for name in by:
        if name not in KEYS:
            raise ValueError(f"{name!r} is none of {', '.join(KEYS)}")
    groups: dict[tuple[str, ...], dict[str, Amounts]] = {}
    for line, amounts in rows:
        group = groups.setdefault(tuple(getattr(line, name) for name in by), {})
        before = group.get(line.cause)
        group[line.cause] = amounts if before is None else added(before, amounts)
    if not groups and not by:
        groups[()] = {}
    return [
        {**dict(zip(by, key, strict=True)), **_row(groups[key])}
        for key in sorted(groups, key=lambda key: _order(by, key))
    ]


def told(
    rows: Sequence[tuple[Line, Amounts]], since: str, until: str, by: Sequence[str]
) -> dict[str, Any]:
    """The period, its total, and rows by what was asked for."""
    return {
        "since": since,
        "until": until,
        "by": list(by),
        "total": summary(rows)[0],
        "rows": summary(rows, by) if by else [],
    }


def _order(by: Sequence[str], key: tuple[str, ...]) -> tuple[object, ...]:
    """Causes as `LedgerCause` lists them, all else by name."""
    causes = [each.value for each in LedgerCause]
    return tuple(
        (causes.index(value) if value in causes else len(causes), value)
        if name == "cause"
        else (0, value)
        for name, value in zip(by, key, strict=True)
    )


def _row(group: dict[str, Amounts]) -> dict[str, Any]:
    none = Amounts()
    paid = _sum(each for cause, each in group.items() if cause in _PAID)
    renewed = group.get(LedgerCause.REVALIDATE.value, none)
    own = _sum(each for cause, each in group.items() if cause in _OWN)
    warming = own.paid_pd - renewed.paid_pd
    hits, ours, client, automatic, engine = (
        group.get(cause.value, none)
        for cause in (
            LedgerCause.RESPONSE_HIT,
            LedgerCause.OURS,
            LedgerCause.CLIENT,
            LedgerCause.AUTOMATIC,
            LedgerCause.ENGINE,
        )
    )
    by_us = hits.spared_pd + _net(ours) - own.paid_pd
    by_others = _net(client) + _net(automatic)
    without = paid.paid_pd + by_us + by_others
    no_paid, no_others = _silent(paid), _silent(client, automatic)
    no_saved = _silent(hits, ours, own)
    nothing = no_paid or no_saved or no_others

    def told(picodollars: int, silent: bool) -> float | None:
        return None if silent else usd(picodollars)

    return {
        "calls": paid.times,
        "failed_calls": paid.failed,
        "answers": hits.times,
        "tokens": {name: getattr(paid, name) for name in _BUCKETS},
        "spared_tokens": {
            "response_hit": hits.tokens,
            "ours": ours.read,
            "client": client.read,
            "automatic": automatic.read,
            "engine": engine.read,
        },
        "paid_usd": told(paid.paid_pd, no_paid),
        "saved_usd": told(by_us, no_saved),
        "saved_by": {
            "response_hit": told(hits.spared_pd - renewed.paid_pd, no_saved),
            "served": told(hits.spared_pd, no_saved),
            "revalidated": told(-renewed.paid_pd, no_saved),
            "ours": told(_net(ours) - warming, no_saved),
            "read": told(ours.spared_pd, no_saved),
            "written": told(-ours.premium_pd, no_saved),
            "kept_warm": told(-warming, no_saved),
        },
        "others_usd": told(by_others, no_others),
        "others_by": {
            "client": told(_net(client), no_others),
            "automatic": told(_net(automatic), no_others),
        },
        "without_usd": told(without, nothing),
        "share": None if nothing or without <= 0 else by_us / without,
        "paid_pd": str(paid.paid_pd),
        "saved_pd": str(by_us),
        "others_pd": str(by_others),
        "engine_s": engine.spared_us / 1e6,
        "unknown": {
            "calls": paid.unknown,
            "own_calls": own.unknown + own.unpriced,
            "answers": hits.unknown,
            "unpriced_calls": paid.unpriced,
            "unpriced_answers": hits.unpriced,
            "unpriced_tokens": paid.unpriced_tokens + hits.unpriced_tokens,
            "untimed_tokens": engine.unpriced_tokens,
        },
    }


def _net(amounts: Amounts) -> int:
    return amounts.spared_pd - amounts.premium_pd


def _silent(*each: Amounts) -> bool:
    """Is there something of which an amount is wanted, and not one of them known?"""
    asked = [(one.times - one.failed, one.unknown + one.unpriced) for one in each]
    return any(unknown for _, unknown in asked) and all(all_ == unknown for all_, unknown in asked)


def _sum(each: Iterable[Amounts]) -> Amounts:
    total = Amounts()
    for amounts in each:
        total = added(total, amounts)
    return total
