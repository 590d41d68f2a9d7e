"""Our prices are those of genai-prices, but for the differences in docs/decisions/0011-prices.md."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, NamedTuple

import pytest
from genai_prices import Usage, calc_price

from gateway.providers.price_tables import PRICES
from gateway.providers.prices import price

if TYPE_CHECKING:
    from decimal import Decimal

THEIR_NAMES = {"moonshot": "moonshotai"}
MISSING_THERE = {("anthropic", "claude-mythos-5-1")}
# Of OpenRouter's Claude they have one price for an hour; the others are charged like five minutes.
HOURS_THERE = {"claude-haiku-5-5"}


class Row(NamedTuple):
    """Picodollars for a token."""

    input: int
    read: int
    write_5m: int
    write_1h: int
    output: int


def spelled(provider: str, model: str) -> str:
    """The id of a family, as its provider spells it."""
    if provider != "openrouter":
        return model
    if model.startswith("claude"):
        return "anthropic/" + re.sub(r"-(\d)-(\d)$", r"-\1.\2", model)
    return f"openai/{model}"


def theirs(provider: str, model: str, tokens: int) -> Row:
    """What a token of each kind costs by genai-prices, in a prompt of so many."""

    def each(**kinds: int) -> Decimal:
        with warnings.catch_warnings():
            # It warns of what a model has no price for, and charges it as input: as we do.
            warnings.simplefilter("ignore")
            found = calc_price(
                Usage(input_tokens=tokens, **kinds),
                model_ref=model,
                provider_id=THEIR_NAMES.get(provider, provider),
            )
        return found.output_price if "output_tokens" in kinds else found.input_price

    amounts = (
        each(),
        each(cache_read_tokens=tokens),
        each(cache_write_tokens=tokens),
        each(cache_write_tokens=tokens, cache_write_1h_tokens=tokens),
        each(output_tokens=tokens),
    )
    picodollars = [amount * 10**12 / tokens for amount in amounts]
    assert all(number == int(number) for number in picodollars)
    return Row(*map(int, picodollars))


LISTED = [(provider, model) for provider, table in PRICES.items() for model in table]


@pytest.mark.parametrize(("provider", "model"), LISTED, ids=lambda name: name)
@pytest.mark.parametrize("tokens", [1000, 272_000, 1_000_000])
def test_our_prices_are_those_of_the_maintained_list(
    provider: str, model: str, tokens: int
) -> None:
    name = spelled(provider, model)
    ours = price(provider, "", name)
    assert ours is not None
    rates = ours.at(tokens)
    row = Row(rates.input, rates.read, rates.write_5m, rates.write_1h, rates.output)
    if (provider, model) in MISSING_THERE:
        with pytest.raises(LookupError):
            theirs(provider, name, tokens)
        return
    expected = theirs(provider, name, tokens)
    if provider == "openrouter" and model not in HOURS_THERE:
        assert expected.write_1h == expected.write_5m
        expected = expected._replace(write_1h=row.write_1h)
    assert expected == row
