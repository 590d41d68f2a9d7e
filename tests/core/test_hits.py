"""Hits are counted by kind: the same sums as one by one, and each kind is priced once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.hits import MOST, Hit, Hits
from gateway.core.ledger import Amounts, Line, added, of_hit
from gateway.core.model import Usage
from gateway.providers.prices import price

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.providers.prices import Price

DAY = 86_400.0
LISTED = price("openai", "openai_chat", "gpt-4o", ())
assert LISTED is not None

KINDS = st.builds(
    Hit,
    provider=st.sampled_from(["openai", "vllm"]),
    api=st.just("openai_chat"),
    model=st.sampled_from(["gpt-4o", "nobody knows"]),
    scope=st.sampled_from(["", "0a1b2c3d"]),
    usage=st.none() | st.builds(Usage, *(st.integers(0, 3) for _ in range(5))),
    terms=st.just(()),
    instead=st.booleans(),
    engine=st.booleans(),
)


def listed(hit: Hit) -> Price | None:
    return LISTED if hit.model == "gpt-4o" else None


def summed(lines: Iterable[tuple[Line, Amounts]]) -> dict[Line, Amounts]:
    sums: dict[Line, Amounts] = {}
    for line, amounts in lines:
        sums[line] = added(sums.get(line, Amounts()), amounts)
    return sums


@given(st.lists(st.tuples(KINDS, st.floats(0, 3 * DAY), st.booleans()), max_size=60))
def test_the_sums_are_those_of_each_alone(came: list[tuple[Hit, float, bool]]) -> None:
    hits = Hits()
    taken, alone = [], []
    for hit, at, takes in came:
        saved = hits.add(hit, at, lambda hit=hit: listed(hit))  # type: ignore[misc]
        line, amounts = of_hit(
            at=at,
            provider=hit.provider,
            model=hit.model,
            scope=hit.scope,
            usage=hit.usage,
            price=None if hit.engine else listed(hit),
            engine=hit.engine,
            instead=hit.instead,
        )
        alone.append((line, amounts))
        silent = hit.engine or amounts.unknown or amounts.unpriced
        assert saved == (None if silent else amounts.spared_pd)
        taken += hits.take() if takes else []
    taken += hits.take()
    assert summed(taken) == summed(alone)
    assert hits.take() == []


def test_each_kind_is_priced_once_a_day_and_all_are_forgotten_when_there_are_many() -> None:
    asked = []

    def told() -> Price | None:
        asked.append(1)
        return LISTED

    hits = Hits()
    hit = Hit("openai", "openai_chat", "gpt-4o", "", Usage(1, 0, 0, 0, 1), (), True, False)
    for at in (0.0, 1.0, DAY - 1, DAY, DAY + 1):
        hits.add(hit, at, told)
        hits.take()
    assert len(asked) == 2
    for number in range(MOST):
        assert not hits.is_full or number >= MOST - 2
        hits.add(hit._replace(scope=f"{number:08x}"), 0.0, told)
    assert hits.is_full
    assert len(hits.take()) == MOST
    assert not hits.is_full
    assert hits.take() == []


def test_a_price_that_cannot_be_told_counts_nothing() -> None:
    def broken() -> Price | None:
        raise LookupError("no such table")

    hits = Hits()
    hit = Hit("openai", "openai_chat", "gpt-4o", "", None, (), True, False)
    with pytest.raises(LookupError):
        hits.add(hit, 0.0, broken)
    assert hits.take() == []
