"""What a model's tokens cost, and where no price is known."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.providers.price_tables import PERCENT, PRICES
from gateway.providers.prices import PER_USD, Rates, picodollars, price
from tests.providers import prompt_cache_page

# Dollars for a million tokens, of a prompt of so many: input, read, 5m, 1h, output. From the
# providers' pages and their announcements, not from the table.
KNOWN: dict[str, tuple[str, str, int, tuple[float, ...]]] = {
    "Fable 5.2": ("anthropic", "claude-fable-5-2", 1, (8, 0.2, 10, 16, 40)),
    "Fable 5.1": ("anthropic", "claude-fable-5-1", 1, (10, 0.25, 12.5, 20, 50)),
    "Mythos 5.1": ("anthropic", "claude-mythos-5-1", 1, (10, 0.25, 12.5, 20, 50)),
    "Opus 5.5": ("anthropic", "claude-opus-5-5", 1, (4, 0.2, 5, 8, 20)),
    "Opus 5, dated": ("anthropic", "claude-opus-5-20260724", 1, (5, 0.5, 6.25, 10, 25)),
    "Sonnet 5.5": ("anthropic", "claude-sonnet-5-5", 1, (2, 0.1, 2.5, 4, 10)),
    "Sonnet 5": ("anthropic", "claude-sonnet-5", 1, (2, 0.2, 2.5, 4, 10)),
    "Sonnet 4.6": ("anthropic", "claude-sonnet-4-6", 1, (3, 0.3, 3.75, 6, 15)),
    "Haiku 5.5": ("anthropic", "claude-haiku-5-5", 100_000, (0.1, 0.01, 0.125, 0.2, 0.5)),
    "Haiku 5.5, long": ("anthropic", "claude-haiku-5-5", 100_001, (0.5, 0.05, 0.625, 1, 2.5)),
    "Haiku 4.5": ("anthropic", "claude-haiku-4-5", 1_000_000, (1, 0.1, 1.25, 2, 5)),
    "an alias": ("anthropic", "claude-opus-4-0", 1, (15, 1.5, 18.75, 30, 75)),
    "GPT-6.1 Sol": ("openai", "gpt-6.1-sol", 272_000, (2, 0.1, 2.5, 2.5, 10)),
    "GPT-6.1 Sol, long": ("openai", "gpt-6.1-sol", 272_001, (4, 0.2, 5, 5, 15)),
    "GPT-6 Luna": ("openai", "gpt-6-luna", 1, (0.1, 0.01, 0.125, 0.125, 0.5)),
    "GPT-5.6 Sol": ("openai", "gpt-5.6-sol", 1, (4, 0.4, 5, 5, 20)),
    "GPT-4o, which has no price for writing": ("openai", "gpt-4o", 1, (2.5, 1.25, 2.5, 2.5, 10)),
    "GPT-5.2 Pro, which has none for reading": ("openai", "gpt-5.2-pro", 1, (21, 21, 21, 21, 168)),
    "at OpenRouter": ("openrouter", "anthropic/claude-opus-5.5", 1, (4, 0.2, 5, 8, 20)),
    "with a variant that only chooses who answers": (
        "openrouter",
        "openai/gpt-5.1:nitro",
        1,
        (1.25, 0.125, 1.25, 1.25, 10),
    ),
}


def rates(provider: str, model: str, tokens: int = 1, *terms: str) -> Rates:
    found = price(provider, "openai_chat", model, terms)
    assert found is not None
    return found.at(tokens)


@pytest.mark.parametrize(("provider", "model", "tokens", "usd"), KNOWN.values(), ids=KNOWN)
def test_what_a_token_costs(provider: str, model: str, tokens: int, usd: tuple[float, ...]) -> None:
    found = rates(provider, model, tokens)
    told = (found.input, found.read, found.write_5m, found.write_1h, found.output)
    assert tuple(round(each * 1_000_000) for each in usd) == told


NOT_KNOWN = {
    "a model that doesn't exist": ("anthropic", "claude-sonnet-4-7"),
    "a name that only begins like one": ("anthropic", "claude-sonnet-4-5-foo"),
    "a generation to come": ("openai", "gpt-7"),
    "a kind that isn't listed": ("openai", "gpt-6.1-luna"),
    "a model tuned by a customer": ("openai", "ft:gpt-4.1-mini-2025-04-14:acme::9aBc"),
    "a snapshot with a price of its own": ("openai", "gpt-4o-2024-05-13"),
    "a free variant": ("openrouter", "anthropic/claude-sonnet-4.5:free"),
    "a batch": ("openrouter", "anthropic/claude-sonnet-4.5:batch"),
    "another's model": ("openai", "claude-opus-5"),
    "a deployment": ("azure", "gpt-5.1"),
    "an engine of one's own": ("vllm", "gpt-5.1"),
    "a region": ("bedrock", "us.anthropic.claude-opus-5"),
    "nobody": ("unknown", "gpt-5.1"),
    "nothing": ("openai", ""),
}


@pytest.mark.parametrize(("provider", "model"), NOT_KNOWN.values(), ids=NOT_KNOWN)
def test_what_is_not_known_has_no_price(provider: str, model: str) -> None:
    assert price(provider, "openai_chat", model) is None


def test_terms_change_every_rate_or_leave_no_price() -> None:
    half = rates("openai", "gpt-6-sol", 1, "flex")
    assert Rates(1_000_000, 100_000, 1_250_000, 1_250_000, 5_000_000) == half
    long = rates("openai", "gpt-6-sol", 300_000, "flex")
    assert (2_000_000, 7_500_000) == (long.input, long.output)
    assert rates("openai", "gpt-6-sol", 1, "default") == rates("openai", "gpt-6-sol")
    american = rates("anthropic", "claude-opus-5", 1, "standard", "us")
    assert (5_500_000, 550_000) == (american.input, american.read)
    batch = rates("anthropic", "claude-opus-5", 1, "batch", "us")
    assert 2_750_000 == batch.input
    for terms in (["priority"], ["default", "priority"], [""]):
        assert price("openai", "openai_chat", "gpt-6-sol", terms) is None
    routed = "openai/gpt-6-sol"
    assert rates("openrouter", routed, 1, "default") == rates("openrouter", routed)
    assert price("openrouter", "openai_chat", routed, ["flex"]) is None


ALL = [(provider, model) for provider, table in PRICES.items() for model in table]


@pytest.mark.parametrize(("provider", "model"), ALL, ids=lambda name: name)
def test_every_row_is_whole_in_picodollars_under_every_term(provider: str, model: str) -> None:
    listed = PRICES[provider][model]
    for text in listed.row.split():
        if text != "-":
            assert float(text) * 1_000_000 == pytest.approx(picodollars(text), abs=1e-9)
    percents: set[Any] = {100, *PERCENT.get(provider, {}).values()}
    tiers = [(100, 100), (listed.long_input, listed.long_output)]
    spent, *_, output = (picodollars(t) for t in listed.row.split() if t != "-")
    for percent in percents:
        for of_input, of_output in tiers:
            assert spent * of_input * percent % 10_000 == 0
            assert output * of_output * percent % 10_000 == 0
    assert bool(listed.above) == (listed.long_input != 100)


@pytest.mark.parametrize(
    ("text", "expected"), [("0.005", 5000), ("12.5", 12_500_000), ("3", 3_000_000), ("0", 0)]
)
def test_dollars_for_a_million_are_picodollars_for_one(text: str, expected: int) -> None:
    assert expected == picodollars(text)
    assert PER_USD == 1_000_000 * picodollars("1")


def test_the_reference_page_is_made_from_the_tables() -> None:
    assert prompt_cache_page.rendered() == prompt_cache_page.PAGE.read_text(encoding="utf-8"), (
        "run .venv/bin/python -m tests.providers.prompt_cache_page"
    )
