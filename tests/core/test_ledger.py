from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.causes import Cause, Share
from gateway.core.ledger import (
    MOST_TOKENS,
    Amounts,
    LedgerCause,
    Line,
    added,
    fold,
    folded,
    of_call,
    of_hit,
)
from gateway.core.model import Usage
from gateway.core.records import CallRecord
from gateway.core.savings import KEYS, summary
from gateway.providers.prices import Price, price

AT = 1_795_305_600.0
MODEL = "claude-sonnet-4-5"
USAGE = Usage(uncached_input=10, cache_read=40_000, cache_write_5m=1000, output=500)
LISTED = price("anthropic", "anthropic_messages", MODEL)
CALL = CallRecord(
    at=AT,
    upstream="anthropic",
    provider="anthropic",
    api="anthropic_messages",
    model=MODEL,
    scope="1a2b3c4d",
    purpose="request",
    usage=USAGE,
    shares={Cause.OURS: Share(40_000, 1000, 0), Cause.CLIENT: Share(), Cause.AUTOMATIC: Share()},
)


def line(cause: LedgerCause, **other: str) -> Line:
    told = Line("2026-11-22", "anthropic", MODEL, "1a2b3c4d", cause.value)
    return told._replace(**other)


@pytest.mark.parametrize("listed", [LISTED, None])
def test_an_answer_that_stands_for_a_failed_call_saves_nothing(listed: Price | None) -> None:
    hit = of_hit(
        at=AT, provider="anthropic", model=MODEL, scope="", usage=USAGE, price=listed, instead=False
    )
    tokens = Amounts(1, uncached=10, read=40_000, write_5m=1000, output=500)
    assert hit == (line(LedgerCause.RESPONSE_HIT, scope=""), tokens)


def test_a_request_is_paid_and_what_it_read_for_our_marks_is_saved() -> None:
    assert LISTED is not None
    assert of_call(CALL, LISTED) == [
        (
            line(LedgerCause.REQUEST),
            Amounts(
                1,
                uncached=10,
                read=40_000,
                write_5m=1000,
                output=500,
                paid_pd=10 * 3_000_000 + 40_000 * 300_000 + 1000 * 3_750_000 + 500 * 15_000_000,
            ),
        ),
        (
            line(LedgerCause.OURS),
            Amounts(
                1, read=40_000, write_5m=1000, spared_pd=40_000 * 2_700_000, premium_pd=750_000_000
            ),
        ),
    ]


@pytest.mark.parametrize(
    ("purpose", "cause"),
    [
        ("revalidate", LedgerCause.REVALIDATE),
        ("start", LedgerCause.WARM_UP),
        ("interval", LedgerCause.WARM_UP),
        ("refresh", LedgerCause.REFRESH),
        ("replica", LedgerCause.REPLICA),
    ],
)
def test_a_call_of_our_own_is_paid_and_saves_nothing_itself(
    purpose: str, cause: LedgerCause
) -> None:
    (only,) = of_call(replace(CALL, purpose=purpose), LISTED)

    assert only[0].cause == cause.value
    assert only[1].paid_pd > 0


def test_without_a_price_tokens_are_counted_and_dollars_are_not() -> None:
    paid, ours = of_call(CALL, None)

    assert paid[1].paid_pd == 0
    assert (paid[1].unpriced, paid[1].unpriced_tokens) == (1, 41_510)
    assert (ours[1].unpriced, ours[1].unpriced_tokens, ours[1].spared_pd) == (1, 41_000, 0)


def test_an_error_costs_nothing_and_an_answer_that_broke_off_nobody_knows_what() -> None:
    assert of_call(replace(CALL, usage=None, failed=True), LISTED) == [
        (line(LedgerCause.REQUEST), Amounts(1, failed=1))
    ]
    assert of_call(replace(CALL, usage=None), LISTED) == [
        (line(LedgerCause.REQUEST), Amounts(1, unknown=1))
    ]


def test_who_states_more_tokens_than_there_can_be_spoils_no_sum() -> None:
    absurd = replace(CALL, usage=Usage(uncached_input=MOST_TOKENS, output=1))

    assert of_call(absurd, LISTED)[0][1] == Amounts(1, unknown=1)
    hit = of_hit(at=AT, provider="openai", model="m", scope="", usage=absurd.usage, price=LISTED)
    assert hit[1] == Amounts(1, unknown=1)


def test_an_engine_bills_nothing_and_its_prefix_hits_are_tokens_and_time() -> None:
    engine = replace(CALL, provider="vllm", engine=True, prefill_s=1.25)

    paid, hits = of_call(engine, None)

    assert (paid[1].paid_pd, paid[1].unpriced, paid[1].read) == (0, 0, 40_000)
    assert hits == (
        line(LedgerCause.ENGINE, provider="vllm"),
        Amounts(1, read=40_000, spared_us=1_250_000),
    )
    untimed = of_call(replace(engine, prefill_s=None), None)[1][1]
    assert (untimed.unpriced_tokens, untimed.spared_us) == (40_000, 0)


def test_a_hit_saves_what_its_answer_had_cost() -> None:
    assert LISTED is not None
    hit = of_hit(
        at=AT, provider="anthropic", model=MODEL, scope="1a2b3c4d", usage=USAGE, price=LISTED
    )

    assert hit[0] == line(LedgerCause.RESPONSE_HIT)
    assert hit[1].spared_pd == of_call(CALL, LISTED)[0][1].paid_pd
    assert hit[1].tokens == 41_510


def test_names_from_answers_are_short_and_printable() -> None:
    odd = of_call(replace(CALL, model="x\x1f\n" + "y" * 500), None)[0][0].model

    assert odd.isprintable()
    assert len(odd) == 128


def test_amounts_add_up_member_by_member() -> None:
    one = Amounts(*range(1, len(Amounts._fields) + 1))

    assert added(one, Amounts()) == one
    assert added(one, one) == Amounts(*(2 * each for each in one))


AMOUNT = st.integers(-(2**70), 2**70)
LINES = st.builds(
    Line,
    day=st.sampled_from(("2026-11-21", "2026-11-22")),
    provider=st.sampled_from(("openai", "")),
    model=st.sampled_from(("m", "")),
    scope=st.sampled_from(("s", "t")),
    cause=st.sampled_from((*(each.value for each in LedgerCause), "of a later version")),
)
ROWS = st.lists(
    st.tuples(LINES, st.lists(AMOUNT, min_size=14, max_size=14).map(Amounts._make)), max_size=30
)


@given(ROWS, st.lists(st.sampled_from(KEYS), unique=True), st.integers(0, 30))
def test_what_is_told_of_folded_lines_is_what_is_told_of_the_lines(
    rows: list[tuple[Line, Amounts]], by: list[str], cut: int
) -> None:
    once = folded(rows, by)

    assert summary(once, by) == summary(rows, by)
    assert summary(once) == summary(rows)
    # No line more than rows are asked for, by day and cause.
    told = summary(rows, [*(each for each in KEYS if each in by or each in ("day", "cause"))])
    assert len(once) == len(told)
    # In portions, in whatever order.
    portions: dict[Line, Amounts] = {}
    for some in (rows[cut:], rows[:cut]):
        fold(portions, some, by)
    assert portions == dict(once)
