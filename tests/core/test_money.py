"""What an answer cost, and what the same tokens would have cost without a cache: to the picodollar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.causes import Cause, Facts, Share, Standing, shares
from gateway.core.model import Usage
from gateway.core.money import Gain, bill, gain, usd
from gateway.providers.price_tables import PRICES
from gateway.providers.prices import Price, price


def known(provider: str, model: str) -> Price:
    found = price(provider, "openai_chat", model)
    assert found is not None
    return found


# Provider, model, usage, dollars paid for the prompt, for the answer, for the prompt without a cache.
BILLS: dict[str, tuple[str, str, Usage, float, float, float]] = {
    "everything at once": (
        "anthropic",
        "claude-opus-5",
        Usage(1_000_000, 2_000_000, 4_000_000, 8_000_000, 16_000_000),
        5 + 1 + 25 + 80,
        400,
        75,
    ),
    "nothing cached": ("anthropic", "claude-opus-5", Usage(1000, output=10), 0.005, 0.00025, 0.005),
    "a read at a fortieth": (
        "anthropic",
        "claude-fable-5-1",
        Usage(0, 1_000_000),
        0.25,
        0,
        10,
    ),
    "a write that isn't read yet costs more than none": (
        "anthropic",
        "claude-opus-5",
        Usage(0, 0, 1_000_000),
        6.25,
        0,
        5,
    ),
    "an hour costs twice": ("anthropic", "claude-opus-5", Usage(0, 0, 0, 1_000_000), 10, 0, 5),
    "Haiku 5.5 at its limit": (
        "anthropic",
        "claude-haiku-5-5",
        Usage(10_000, 80_000, 5_000, 5_000, 1_000_000),
        0.001 + 0.0008 + 0.000625 + 0.001,
        0.5,
        0.01,
    ),
    "read and written tokens lengthen the prompt, and every token costs more": (
        "anthropic",
        "claude-haiku-5-5",
        Usage(10_001, 80_000, 5_000, 5_000, 1_000_000),
        0.0050005 + 0.004 + 0.003125 + 0.005,
        2.5,
        0.0500005,
    ),
    "GPT at its limit": (
        "openai",
        "gpt-6.1-sol",
        Usage(72_000, 100_000, 100_000, output=1_000_000),
        0.144 + 0.01 + 0.25,
        10,
        0.544,
    ),
    "GPT beyond it": (
        "openai",
        "gpt-6.1-sol",
        Usage(72_001, 100_000, 100_000, output=1_000_000),
        0.288004 + 0.02 + 0.5,
        15,
        1.088004,
    ),
    "a model without a price for writing": (
        "openai",
        "gpt-4o",
        Usage(0, 1_000_000, 1_000_000),
        1.25 + 2.5,
        0,
        5,
    ),
}


@pytest.mark.parametrize(
    ("provider", "model", "usage", "prompt", "answer", "without"), BILLS.values(), ids=BILLS
)
def test_what_an_answer_costs(
    provider: str, model: str, usage: Usage, prompt: float, answer: float, without: float
) -> None:
    found = bill(usage, known(provider, model))
    # The dollars of the table are exact in picodollars; those of a float's sum nearly so.
    assert round(prompt * 10**12) == found.input
    assert round(answer * 10**12) == found.output
    assert round(without * 10**12) == found.input_without_cache
    assert found.total == found.input + found.output
    assert found.total_without_cache == found.input_without_cache + found.output
    assert found.saved == found.total_without_cache - found.total
    assert usd(found.total) == pytest.approx(prompt + answer, rel=1e-12)


def test_dollars_are_made_once_at_the_edge() -> None:
    assert usd(1) == 1e-12
    assert usd(0) == 0
    assert usd(-2_500_000_000_000) == -2.5


COUNT = st.integers(0, 10**6)
MARKS = st.builds(Standing, COUNT, st.sampled_from([300, 3600]), st.sampled_from([*Cause][:2]))
LISTED = st.sampled_from(
    [(provider, model) for provider in ("anthropic", "openai") for model in PRICES[provider]]
)


@given(
    st.builds(Usage, COUNT, COUNT, COUNT, COUNT, COUNT),
    st.builds(Facts, st.lists(MARKS, max_size=5).map(tuple), st.booleans(), COUNT),
    LISTED,
)
def test_what_each_cause_saved_adds_up_to_what_was_saved(
    usage: Usage, said: Facts, listed: tuple[str, str]
) -> None:
    at = known(*listed)
    rates = at.at(usage.input)
    gains = [gain(share, rates) for share in shares(usage, said).values()]
    assert bill(usage, at).saved == sum(each.net for each in gains)


GAINS = {
    "a write that isn't read is a loss": (Share(write_5m=1_000_000), Gain(0, 1_250_000_000_000)),
    "a read, and a write for an hour": (
        Share(read=1_000_000, write_1h=100_000),
        Gain(4_500_000_000_000, 500_000_000_000),
    ),
    "nothing": (Share(), Gain(0, 0)),
}


@pytest.mark.parametrize(("share", "expected"), GAINS.values(), ids=GAINS)
def test_what_a_cause_brought(share: Share, expected: Gain) -> None:
    found = gain(share, known("anthropic", "claude-opus-5").at(1))
    assert expected == found
    assert expected.spared - expected.premium == found.net
