from __future__ import annotations

from typing import Any

import pytest

from gateway.core.ledger import Amounts, LedgerCause, Line
from gateway.core.savings import KEYS, summary, told

USD = 10**12


def line(cause: LedgerCause, model: str = "m", day: str = "2026-11-22") -> Line:
    return Line(day, "anthropic", model, "" if cause is LedgerCause.REFRESH else "s", cause.value)


ROWS = [
    (line(LedgerCause.REQUEST), Amounts(10, failed=1, read=900, output=50, paid_pd=7 * USD)),
    (line(LedgerCause.REFRESH), Amounts(2, read=300, paid_pd=1 * USD)),
    (line(LedgerCause.REVALIDATE), Amounts(1, output=9, paid_pd=1 * USD)),
    (line(LedgerCause.RESPONSE_HIT), Amounts(4, uncached=100, output=20, spared_pd=3 * USD)),
    (line(LedgerCause.OURS), Amounts(9, read=700, spared_pd=6 * USD, premium_pd=2 * USD)),
    (line(LedgerCause.CLIENT), Amounts(1, read=100, spared_pd=1 * USD, premium_pd=3 * USD)),
    (line(LedgerCause.AUTOMATIC), Amounts(1, read=100, spared_pd=5 * USD)),
]


def only(*rows: tuple[Line, Amounts]) -> dict[str, Any]:
    (row,) = summary(rows)
    return row


def test_the_formula_holds() -> None:
    row = only(*ROWS)

    assert (row["calls"], row["failed_calls"], row["answers"]) == (13, 1, 4)
    assert row["paid_usd"] == 9.0
    assert row["saved_by"] == {
        "response_hit": 2.0,
        "served": 3.0,
        "revalidated": -1.0,
        "ours": 3.0,
        "read": 6.0,
        "written": -2.0,
        "kept_warm": -1.0,
    }
    assert row["saved_usd"] == 5.0
    assert row["others_by"] == {"client": -2.0, "automatic": 5.0}
    assert row["without_usd"] == 9.0 + 5.0 + 3.0
    assert row["share"] == 5.0 / 17.0
    assert row["tokens"] == {
        "uncached": 0,
        "read": 1200,
        "write_5m": 0,
        "write_1h": 0,
        "output": 59,
    }
    assert row["spared_tokens"]["response_hit"] == 120
    assert row["paid_pd"] == str(9 * USD)


@pytest.mark.parametrize("name", KEYS)
def test_rows_by_whatever_add_up_to_the_total(name: str) -> None:
    more = [(each._replace(model="n", day="2026-11-21"), amounts) for each, amounts in ROWS]
    rows = summary([*ROWS, *more], [name])

    for amount in ("paid_pd", "saved_pd", "others_pd"):
        assert sum(int(row[amount]) for row in rows) == 2 * int(only(*ROWS)[amount])


def test_causes_stand_in_their_order_and_days_in_theirs() -> None:
    causes = [row["cause"] for row in summary(reversed(ROWS), ["cause"])]
    assert causes == [
        "request",
        "revalidate",
        "refresh",
        "response_hit",
        "ours",
        "client",
        "automatic",
    ]
    days = [(line(LedgerCause.REQUEST, day=d), Amounts(1)) for d in ("2026-11-22", "2026-11-03")]
    assert [row["day"] for row in summary(days, ["day"])] == ["2026-11-03", "2026-11-22"]


def test_where_nothing_is_known_amounts_are_unknown() -> None:
    row = only((line(LedgerCause.REQUEST), Amounts(2, unpriced=2, unpriced_tokens=700)))

    assert (row["paid_usd"], row["saved_usd"], row["without_usd"]) == (None, 0.0, None)
    assert row["unknown"]["unpriced_calls"] == 2
    assert row["unknown"]["unpriced_tokens"] == 700


def test_each_amount_is_unknown_by_itself() -> None:
    hit = line(LedgerCause.RESPONSE_HIT)
    calls = only(
        (line(LedgerCause.REQUEST), Amounts(100, unknown=100)), (hit, Amounts(1, spared_pd=USD))
    )
    assert (calls["paid_usd"], calls["saved_usd"], calls["share"]) == (None, 1.0, None)

    answers = only(
        (line(LedgerCause.REQUEST), Amounts(1, paid_pd=USD)), (hit, Amounts(100, unpriced=100))
    )
    assert (answers["paid_usd"], answers["saved_usd"], answers["share"]) == (1.0, None, None)

    # What failed costs nothing, and makes nothing known.
    failed = only((line(LedgerCause.REQUEST), Amounts(100, failed=1, unpriced=99)))
    assert failed["paid_usd"] is None

    ours = only(
        (hit, Amounts(1, spared_pd=USD)), (line(LedgerCause.REVALIDATE), Amounts(10, unknown=10))
    )
    assert (ours["saved_usd"], ours["unknown"]["own_calls"]) == (1.0, 10)


def test_where_a_part_is_known_it_is_a_lower_bound_and_what_lacks_stands_beside() -> None:
    part = Amounts(3, unknown=1, unpriced=1, unpriced_tokens=5, paid_pd=USD)
    row = only((line(LedgerCause.REQUEST), part))

    assert row["paid_usd"] == 1.0
    assert (row["unknown"]["calls"], row["unknown"]["unpriced_calls"]) == (1, 1)


def test_nothing_at_all_is_nothing_and_not_unknown() -> None:
    row = only()

    assert (row["paid_usd"], row["saved_usd"], row["share"]) == (0.0, 0.0, None)
    assert told([], "2026-11-01", "2026-11-02", ["cause"])["rows"] == []


def test_a_name_that_lines_do_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="'colour' is none of day, provider"):
        summary(ROWS, ["colour"])
