"""The price lists: dollars for a million tokens, with source and date. Read 2026-11-22.

Rows are spelled as the providers spell them: input, write for 5 minutes, write for 1 hour, read,
output; `-` where there is no such price: see `prices.Rates`. A test holds them to genai-prices,
which is maintained.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.providers.base import Rule

_DOCS = "platform.claude.com/docs/en/build-with-claude/prompt-caching (2026-09)"
_THIRD = "claudit 1.9.2, PromptFuel 1.0.23 (2026-10), not the author's own; genai-prices 0.2.3"
_FABLE_5_2 = "docs.apiyi.com (2026-11-09), not the author's own; genai-prices 0.2.3"
_PACKAGE = "genai-prices 0.2.3, anthropic and openai (2026-11)"
_OPENAI = "openai.com/api/pricing (2026-11); genai-prices 0.2.3"
_LONG = "BerriAI/litellm discussion 39633 (2026-09); genai-prices 0.2.3"
_ROUTED = "openrouter.ai/docs: the provider's own price; genai-prices 0.2.3 has no 1h write"


class Listed(NamedTuple):
    """One line of a price list."""

    row: str
    source: Rule
    above: int = 0
    """Longer prompts (in tokens, read and written ones included) cost `long_input` percent for all
    input and `long_output` percent for output; 0 for no such limit."""
    long_input: int = 100
    long_output: int = 100


def _claude(row: str, source: str) -> Listed:
    return Listed(row, Rule("writes at 1.25 and 2 times input", source))


_OPUS = _claude("5    6.25  10 0.50 25", _DOCS)
_SONNET = _claude("3    3.75   6 0.30 15", _DOCS)
_OPUS_4 = _claude("15   18.75 30 1.50 75", _PACKAGE)
_FABLE_5 = _claude("10   12.50 20 1.00 50", _DOCS)
_FABLE_5_1 = _claude("10   12.50 20 0.25 50", f"{_DOCS}; claudit 1.9.2")
_FABLE_5_2_ROW = _claude("8    10    16 0.20 40", _FABLE_5_2)

_CLAUDE = {
    "claude-fable-5-2": _FABLE_5_2_ROW,
    "claude-mythos-5-2": _FABLE_5_2_ROW,
    "claude-fable-5-1": _FABLE_5_1,
    "claude-mythos-5-1": _FABLE_5_1,
    "claude-fable-5": _FABLE_5,
    "claude-opus-5-5": _claude("4    5      8 0.20 20", _THIRD),
    "claude-opus-5": _OPUS,
    "claude-opus-4-8": _OPUS,
    "claude-opus-4-7": _OPUS,
    "claude-opus-4-6": _OPUS,
    "claude-opus-4-5": _OPUS,
    "claude-opus-4-1": _OPUS_4,
    "claude-opus-4": _OPUS_4,
    "claude-sonnet-5-5": _claude("2    2.50   4 0.10 10", _THIRD),
    "claude-sonnet-5": _claude("2    2.50   4 0.20 10", _DOCS),
    "claude-sonnet-4-6": _SONNET,
    # The long context of these was a beta, with a header of its own: long prompts cost more.
    "claude-sonnet-4-5": _SONNET._replace(above=200_000, long_input=200, long_output=150),
    "claude-sonnet-4": _SONNET,
    "claude-haiku-5-5": Listed(
        "0.10 0.125 0.20 0.01 0.50",
        Rule("beyond 100,000 tokens five times as much for every token", _THIRD),
        above=100_000,
        long_input=500,
        long_output=500,
    ),
    "claude-haiku-4-5": _claude("1    1.25   2 0.10 5", _DOCS),
    "claude-3-5-haiku": _claude("0.80 1      1.60 0.08 4", _PACKAGE),
}


def _gpt(row: str, source: str = _OPENAI) -> Listed:
    """Until GPT-5.5, and short: writing costs what any input does, and is not told apart."""
    return Listed(row, Rule("no write price", source))


def _long(row: str, source: str) -> Listed:
    return Listed(
        row,
        Rule("beyond 272,000 tokens twice for input, 1.5 times for output", source),
        above=272_000,
        long_input=200,
        long_output=150,
    )


_SOL_6 = "codexometer 0.18.4, docs.litellm.ai (2026-09-22), not the author's own"

_GPT = {
    "gpt-4o": _gpt("2.50 - - 1.25 10"),
    "gpt-4o-mini": _gpt("0.15 - - 0.075 0.60"),
    "gpt-4.1": _gpt("2 - - 0.50 8"),
    "gpt-4.1-mini": _gpt("0.40 - - 0.10 1.60"),
    "gpt-4.1-nano": _gpt("0.10 - - 0.025 0.40"),
    "o1": _gpt("15 - - 7.50 60"),
    "o1-pro": _gpt("150 - - - 600"),
    "o1-mini": _gpt("1.10 - - 0.55 4.40"),
    "o3": _gpt("2 - - 0.50 8"),
    "o3-pro": _gpt("20 - - - 80"),
    "o3-mini": _gpt("1.10 - - 0.55 4.40"),
    "o4-mini": _gpt("1.10 - - 0.275 4.40"),
    **dict.fromkeys(
        ("gpt-5", "gpt-5-codex", "gpt-5-chat", "gpt-5.1", "gpt-5.1-codex", "gpt-5.1-codex-max"),
        _gpt("1.25 - - 0.125 10"),
    ),
    "gpt-5-mini": _gpt("0.25 - - 0.025 2"),
    "gpt-5.1-codex-mini": _gpt("0.25 - - 0.025 2"),
    "gpt-5-nano": _gpt("0.05 - - 0.005 0.40"),
    "gpt-5-pro": _gpt("15 - - - 120"),
    **dict.fromkeys(
        ("gpt-5.2", "gpt-5.2-codex", "gpt-5.2-chat", "gpt-5.3", "gpt-5.3-codex"),
        _gpt("1.75 - - 0.175 14"),
    ),
    "gpt-5.2-pro": _gpt("21 - - - 168"),
    "gpt-5.4": _long("2.50 - - 0.25 15", _PACKAGE),
    "gpt-5.4-mini": _gpt("0.75 - - 0.075 4.50"),
    "gpt-5.4-nano": _gpt("0.20 - - 0.02 1.25"),
    "gpt-5.4-pro": _long("30 - - - 180", _PACKAGE),
    "gpt-5.5": _long("5 - - 0.50 30", _PACKAGE),
    "gpt-5.5-pro": _long("30 - - - 180", _PACKAGE),
    "gpt-5.6": _long("4 5 - 0.40 20", f"an alias of gpt-5.6-sol: {_PACKAGE}"),
    "gpt-5.6-sol": _long("4 5 - 0.40 20", "BerriAI/litellm discussion 42523; genai-prices 0.2.3"),
    "gpt-5.6-terra": _long(
        "2 2.50 - 0.20 12", "PromptFuel 1.0.19 (2026-07-30); genai-prices 0.2.3"
    ),
    "gpt-5.6-luna": _long(
        "0.20 0.25 - 0.02 1.20", "PromptFuel 1.0.19 (2026-07-30); genai-prices 0.2.3"
    ),
    "gpt-6-astra": _long("10 12.50 - 1.00 50", _LONG),
    "gpt-6-sol": _long("2 2.50 - 0.20 10", f"{_SOL_6}; genai-prices 0.2.3"),
    "gpt-6-luna": _long("0.10 0.125 - 0.01 0.50", f"{_SOL_6}; genai-prices 0.2.3"),
    "gpt-6.1-sol": _long(
        "2 2.50 - 0.10 10", "docs.apiyi.com (2026-09-29), not the author's own; genai-prices 0.2.3"
    ),
    "gpt-6.1-terra": _long("1 1.25 - 0.05 5", _PACKAGE),
    "text-embedding-3-small": _gpt("0.02 - - - 0"),
    "text-embedding-3-large": _gpt("0.13 - - - 0"),
    "text-embedding-ada-002": _gpt("0.10 - - - 0"),
}

_ROUTED_CLAUDE = {
    name: listed._replace(source=Rule(listed.source.reason, _ROUTED))
    for name, listed in _CLAUDE.items()
    # It doesn't list these, or lists a price of its own.
    if name
    not in {"claude-fable-5-2", "claude-mythos-5-2", "claude-mythos-5-1", "claude-3-5-haiku"}
}
_ROUTED_GPT = {
    name: _GPT[name]._replace(source=Rule(_GPT[name].source.reason, _ROUTED))
    for name in (
        *("gpt-5", "gpt-5-mini", "gpt-5.1", "gpt-5.2", "gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano"),
        *("gpt-5.5", "gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna"),
        *("gpt-6-astra", "gpt-6-sol", "gpt-6-luna", "gpt-6.1-sol", "gpt-6.1-terra"),
    )
}

_KIMI = "platform.moonshot.ai by Leechael/pi-provider-kimi-code (2026-10); genai-prices 0.2.3"

PRICES: dict[str, dict[str, Listed]] = {
    "anthropic": _CLAUDE,
    "openai": _GPT,
    "openrouter": {**_ROUTED_CLAUDE, **_ROUTED_GPT},
    "moonshot": {
        "kimi-k3": Listed("3 3 6 0.30 15", Rule("writes are billed since 2026-10", _KIMI)),
        "kimi-k3.1-pro": Listed("2 2 4 0.20 10", Rule("writes are billed since 2026-10", _KIMI)),
    },
    "zai": {
        "glm-5.3": Listed(
            "1.40 - - 0.26 4.40", Rule("no write price", "openrouter.ai; genai-prices 0.2.3")
        )
    },
}
"""Provider -> family -> its line. DeepSeek's depend on the hour of the day and are left out, as are
Azure's, which are a contract's, and Bedrock's, which are a region's."""

PRICED_OTHERWISE = frozenset({"gpt-4o-2024-05-13"})
"""Snapshots with a price other than their family's."""

PERCENT: dict[str, dict[str, int]] = {
    # `auto` stands in a request; the answer says what it became.
    "openai": {"default": 100, "flex": 50, "batch": 50},
    "openrouter": {"default": 100, "standard": 100},
    "anthropic": {"standard": 100, "batch": 50, "global": 100, "not_available": 100, "us": 110},
}
"""Terms with a documented factor. Any other (`priority`, `fast`, ...) leaves no price."""
