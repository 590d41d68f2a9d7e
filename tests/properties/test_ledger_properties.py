"""Paid + saved + others = what it would have cost without any cache, whatever is called and served."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.causes import Cause, Facts, Standing, shares
from gateway.core.ledger import OWN, Amounts, Line, added, of_call, of_hit
from gateway.core.ledger_cells import Cells
from gateway.core.model import Usage
from gateway.core.money import bill
from gateway.core.records import CallRecord
from gateway.core.savings import KEYS, summary
from gateway.providers.prices import Price, price

MODELS = (
    ("anthropic", "anthropic_messages", "claude-sonnet-4-5"),
    ("anthropic", "anthropic_messages", "claude-haiku-5-5"),
    ("openai", "openai_chat", "gpt-5.6-sol"),
    ("openai", "openai_chat", "gpt-4o"),
)
COUNTS = st.integers(0, 400_000)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 50_000))
FACTS = st.builds(
    Facts,
    st.lists(
        st.builds(
            Standing,
            st.integers(0, 500_000),
            st.sampled_from((300, 3600)),
            st.sampled_from((Cause.OURS, Cause.CLIENT)),
        ),
        max_size=4,
    ).map(lambda marks: tuple(sorted(marks))),
    st.booleans(),
    st.integers(0, 500_000),
)
PURPOSES = (
    "request",
    "request",
    "request",
    "revalidate",
    "start",
    "interval",
    "refresh",
    "replica",
)


@st.composite
def calls(draw: st.DrawFn) -> tuple[CallRecord, Price]:
    provider, api, model = draw(st.sampled_from(MODELS))
    usage = draw(USAGES)
    listed = price(provider, api, model)
    assert listed is not None
    call = CallRecord(
        at=1_795_305_600.0 + draw(st.integers(0, 3)) * 86_400,
        upstream=provider,
        provider=provider,
        api=api,
        model=model,
        scope=draw(st.sampled_from(("aaaaaaaa", "bbbbbbbb"))),
        purpose=draw(st.sampled_from(PURPOSES)),
        usage=usage,
        shares=shares(usage, draw(FACTS)),
    )
    return call, listed


def lines_of(call: CallRecord, listed: Price, *, hits: int) -> list[tuple[Line, Amounts]]:
    hit = of_hit(
        at=call.at,
        provider=call.provider,
        model=call.model,
        scope=call.scope,
        usage=call.usage,
        price=listed,
    )
    return [*of_call(call, listed), *[hit] * hits]


def without(call: CallRecord, listed: Price, *, hits: int) -> int:
    """By the definition: the answers to requests as if nothing were cached; nothing of ours; and each
    hit what its answer had cost.
    """
    assert call.usage is not None
    told = bill(call.usage, listed)
    return hits * told.total + (told.total_without_cache if call.purpose == "request" else 0)


def exact(row: dict[str, Any]) -> int:
    return sum(int(row[name]) for name in ("paid_pd", "saved_pd", "others_pd"))


@given(st.lists(st.tuples(calls(), st.integers(0, 3)), max_size=12))
def test_paid_and_saved_are_what_it_would_have_cost(
    traffic: list[tuple[tuple[CallRecord, Price], int]],
) -> None:
    rows = [line for (call, at), hits in traffic for line in lines_of(call, at, hits=hits)]
    expected = sum(without(call, at, hits=hits) for (call, at), hits in traffic)

    assert expected == exact(summary(rows)[0])
    for name in KEYS:
        assert expected == sum(map(exact, summary(rows, [name])))
    paid = sum(bill(call.usage, at).total for (call, at), _ in traffic if call.usage is not None)
    assert paid == int(summary(rows)[0]["paid_pd"])


@given(st.lists(calls(), max_size=12), st.integers(1, 4), st.integers(0, 6))
def test_however_it_is_spread_over_gateways_and_folded_the_sums_are_the_same(
    traffic: list[tuple[CallRecord, Price]], gateways: int, most: int
) -> None:
    cells = [Cells(models=most, scopes=most, lines=4 * most) for _ in range(gateways)]
    alone: dict[str, Amounts] = {}
    for number, (call, listed) in enumerate(traffic):
        lines = lines_of(call, listed, hits=number % 2)
        cells[number % gateways].add(lines)
        for line, amounts in lines:
            alone[line.cause] = added(alone.get(line.cause, Amounts()), amounts)

    together: dict[str, Amounts] = {}
    for each in cells:
        while len(each):
            for line, amounts in each.take(3).items():
                together[line.cause] = added(together.get(line.cause, Amounts()), amounts)

    assert alone == together


@given(calls())
def test_a_call_of_our_own_saves_as_much_less_as_it_costs(made: tuple[CallRecord, Price]) -> None:
    call, listed = made
    lines = of_call(call, listed)
    row = summary(lines)[0]

    if lines[0][0].cause in {cause.value for cause in OWN}:
        assert int(row["saved_pd"]) == -int(row["paid_pd"])
        assert len(lines) == 1
    else:
        assert exact(row) == without(call, listed, hits=0)
