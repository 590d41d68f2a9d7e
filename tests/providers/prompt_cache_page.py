"""Writes the reference page of prompt caches and prices, from the tables.

After a change of a table: .venv/bin/python -m tests.providers.prompt_cache_page
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.providers import prompt_cache_anthropic, prompt_cache_openai, prompt_cache_other
from gateway.providers.price_tables import PERCENT, PRICED_OTHERWISE, PRICES
from gateway.providers.prices import PER_USD, price
from gateway.providers.prompt_cache import MarkerForm
from gateway.providers.prompt_cache_rules import cache_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.providers.prices import Rates
    from gateway.providers.prompt_cache import CacheRules

PAGE = Path(__file__).parents[2] / "docs/reference/prompt-cache.md"

INTRO = """\
# Prompt caches: rules and prices

Made from the tables in [gateway/providers](../../gateway/providers) by
`python -m tests.providers.prompt_cache_page`. A model that isn't listed for its provider and API has
no rules and no price: it gets no markers (`unknown-model`), and no cost is stated for it. Nothing is
sent to a host that isn't the provider's, unless the config names the provider. Nor is anything to a
deployment of OpenAI's models at Azure of which nobody says whether it is standard or provisioned: its
name proves nothing.

Model ids are listed by family. A snapshot's date, `-latest`, a region or ARN (Bedrock), an author and
a variant (OpenRouter) don't change the family.

## Rules

| Column | Means |
| --- | --- |
| marker | The member that marks a boundary; `none`: the provider caches by itself |
| marks | That one request may have, at all levels and with the automatic one |
| on | Where a marker may stand, beside system and user messages |
| minimum | Tokens below which a prefix is neither written nor read |
| look-back | Positions at which an earlier entry is looked for; in brackets those of implicit mode |
| read, write | Prices as multiples of an uncached token's, by lifetime |
| hint | What keeps a prefix on one machine, and how many requests a minute one value may have |
| prewarm | How a prefix is written without an answer |
| bound | Thinking may be bound to all that stands before it, so that no text may be rewritten |
"""

_HEAD = (
    "| Models | API | marker | marks | on | minimum | look-back | read | write | hint | prewarm |"
    " bound | Source |\n" + "| --- " * 13 + "|"
)


class Line(NamedTuple):
    """What is said of some models and APIs of one provider."""

    models: tuple[str, ...]
    apis: tuple[str, ...]
    rules: CacheRules


def _stands_on(rules: CacheRules) -> str:
    places = {"tools": rules.marks_tools, "assistant": rules.marks_assistant}
    if not rules.takes_markers:
        return "-"
    extra = [name for name, allowed in places.items() if allowed]
    return ", ".join([*extra, *(["top level"] if rules.automatic else [])]) or "-"


def _line(line: Line) -> str:
    rules = line.rules
    back = str(rules.look_back) if rules.look_back else "-"
    if rules.runs_count_once:
        back += ", runs once"
    if rules.implicit_look_back:
        back += f" ({rules.implicit_look_back})"
    hint = f"`{rules.hint}`" if rules.hint else "-"
    cells = (
        ", ".join(f"`{model}`" for model in line.models),
        ", ".join(line.apis),
        "none" if rules.form is MarkerForm.NONE else f"`{rules.form}`",
        str(rules.max_marks or "-"),
        _stands_on(rules),
        str(rules.minimum_tokens or "-"),
        back,
        f"{rules.read:.4g}",
        ", ".join(f"{each.wire} {each.write:g}" for each in rules.lifetimes) or "-",
        f"{hint}, {rules.hint_rpm}/min" if rules.hint_rpm else hint,
        f"`{rules.prewarm}`" if rules.prewarm else "-",
        "yes" if rules.binds_thinking else "no",
        f"{rules.source.reason}: {rules.source.source}",
    )
    return "| " + " | ".join(cells) + " |"


_CLAUDE = tuple(prompt_cache_anthropic.MODELS)
_GPT = (*prompt_cache_openai.BREAKPOINTS, *prompt_cache_openai.AUTOMATIC)
_SHOWN: dict[str, tuple[tuple[str, str, str, tuple[str, ...]], ...]] = {
    # Title -> provider, deployment, how an id is spelled there, APIs.
    "anthropic": (("anthropic", "", "{}", ("anthropic_messages", "openai_chat")),),
    "openai": (("openai", "", "{}", ("openai_chat", "openai_responses")),),
    "azure, standard deployments": (
        ("azure", "standard", "{}", ("openai_chat", "openai_responses", "anthropic_messages")),
    ),
    "azure, provisioned deployments": (
        ("azure", "provisioned", "{}", ("openai_chat", "openai_responses")),
    ),
    "openrouter": (
        ("openrouter", "", "anthropic/{}", ("openai_chat", "anthropic_messages")),
        ("openrouter", "", "openai/{}", ("openai_chat", "openai_responses")),
    ),
    "bedrock (not served yet)": (
        ("bedrock", "", "anthropic.{}", ("bedrock_converse", "anthropic_messages")),
    ),
}


def lines() -> Iterator[tuple[str, list[Line]]]:
    """Every provider's lines; models and APIs of which the same is said share one."""
    for title, groups in _SHOWN.items():
        by_rules: dict[CacheRules, dict[str, list[str]]] = {}
        for provider, deployment, spelled, apis in groups:
            for model in (*_CLAUDE, *_GPT):
                for api in apis:
                    found = cache_rules(provider, api, spelled.format(model), deployment=deployment)
                    if found is not None:
                        by_rules.setdefault(found, {}).setdefault(model, []).append(api)
        yield title, list(_lines(by_rules))
    served = {"vllm", "sglang", "llamacpp"}
    by_title: dict[str, list[Line]] = {}
    for pattern, apis, rules in prompt_cache_other.rows():
        title = rules.provider if rules.provider in served else f"{rules.provider} (not served yet)"
        by_title.setdefault(title, []).append(Line((pattern.replace("|", "\\|"),), apis, rules))
    yield from by_title.items()


def _lines(by_rules: dict[CacheRules, dict[str, list[str]]]) -> Iterator[Line]:
    for rules, models in by_rules.items():
        by_apis: dict[tuple[str, ...], list[str]] = {}
        for model, apis in models.items():
            by_apis.setdefault(tuple(apis), []).append(model)
        yield from (Line(tuple(each), apis, rules) for apis, each in by_apis.items())


PRICE_INTRO = """
## Prices

Dollars for a million tokens. Where a list has no price for writing or reading, such a token costs
what any input does; without one for an hour, what five minutes cost. *Long*: what a longer prompt (read and written tokens included) costs instead,
for every token of it. Azure's prices are a contract's, Bedrock's a region's, DeepSeek's an hour's:
they are not listed, and no cost is stated for them.
"""

_PRICE_HEAD = (
    "| Model | input | write 5m, 30m | write 1h | read | output | long: beyond |"
    " input | write 5m, 30m | write 1h | read | output | Source |\n" + "| --- " * 13 + "|"
)


def _dollars(picodollars: int) -> str:
    return f"{picodollars * 1_000_000 / PER_USD:.6f}".rstrip("0").rstrip(".")


def _row(rates: Rates | None) -> tuple[str, ...]:
    if rates is None:
        return ("",) * 5
    return tuple(
        map(_dollars, (rates.input, rates.write_5m, rates.write_1h, rates.read, rates.output))
    )


def _prices(provider: str) -> Iterator[str]:
    for model, listed in PRICES[provider].items():
        author = "anthropic" if model.startswith("claude") else "openai"
        spelled = f"{author}/{model}" if provider == "openrouter" else model
        found = price(provider, "openai_chat", spelled)
        assert found is not None, spelled
        beyond = f"{found.above:,}" if found.above else ""
        said = f"{listed.source.reason}: {listed.source.source}"
        cells = (f"`{spelled}`", *_row(found.rates), beyond, *_row(found.long_rates), said)
        yield "| " + " | ".join(cells) + " |"


def rendered() -> str:
    """The page as it should be."""
    out = [INTRO.rstrip("\n")]
    for title, each in lines():
        out += [f"\n### {title}\n", _HEAD, *map(_line, each)]
    out.append(PRICE_INTRO.rstrip("\n"))
    for provider in PRICES:
        out += [f"\n### Prices at {provider}\n", _PRICE_HEAD, *_prices(provider)]
        if terms := PERCENT.get(provider):
            told = ", ".join(f"`{name}` {percent} %" for name, percent in terms.items())
            out.append(f"\nTerms that an answer may state: {told}. Any other leaves no price.")
    snapshots = ", ".join(f"`{name}`" for name in sorted(PRICED_OTHERWISE))
    out.append(f"\nSnapshots whose price is not their family's, and so not stated: {snapshots}.")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
