"""Which prompt-cache rules hold for which provider, wire API and model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.providers import (
    prompt_cache_anthropic,
    prompt_cache_openai,
    prompt_cache_other,
    prompt_cache_rules,
)
from gateway.providers.model_names import Family, family
from gateway.providers.price_tables import PRICES
from gateway.providers.prices import price
from gateway.providers.prompt_cache import CacheRules, MarkerForm
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.providers.registry import PROVIDERS, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES, CHAT, RESPONSES = "anthropic_messages", "openai_chat", "openai_responses"

# --- ids and families -----------------------------------------------------------------------------

FAMILIES: dict[str, tuple[str, str, Family | None]] = {
    "an alias of Claude": (
        "anthropic",
        "claude-sonnet-4-5",
        Family("anthropic", "claude-sonnet-4-5"),
    ),
    "a snapshot of Claude": (
        "anthropic",
        "claude-sonnet-4-5-20250929",
        Family("anthropic", "claude-sonnet-4-5"),
    ),
    "a snapshot as Google spells it": (
        "anthropic",
        "claude-haiku-4-5@20251001",
        Family("anthropic", "claude-haiku-4-5"),
    ),
    "the latest": (
        "anthropic",
        "claude-3-5-haiku-latest",
        Family("anthropic", "claude-3-5-haiku"),
    ),
    "a generation without a minor": (
        "anthropic",
        "claude-sonnet-4-20250514",
        Family("anthropic", "claude-sonnet-4"),
    ),
    "its alias": ("anthropic", "claude-opus-4-0", Family("anthropic", "claude-opus-4")),
    "not Claude's": ("anthropic", "gpt-5", None),
    "spelled in capitals": ("anthropic", "Claude-Opus-5", None),
    "a GPT": ("openai", "gpt-6.1-sol", Family("openai", "gpt-6.1-sol")),
    "a snapshot of a GPT": ("openai", "gpt-4o-2024-08-06", Family("openai", "gpt-4o")),
    "the latest GPT": ("openai", "gpt-5-chat-latest", Family("openai", "gpt-5-chat")),
    "tuned": (
        "openai",
        "ft:gpt-4o-mini-2024-07-18:acme::9aBc",
        Family("openai", "gpt-4o-mini", "ft"),
    ),
    "half tuned": ("openai", "ft:gpt-4o-mini", None),
    "routed": (
        "openrouter",
        "anthropic/claude-sonnet-4.5",
        Family("anthropic", "claude-sonnet-4-5"),
    ),
    "routed by speed": (
        "openrouter",
        "anthropic/claude-opus-5.5:nitro",
        Family("anthropic", "claude-opus-5-5"),
    ),
    "routed for free": (
        "openrouter",
        "anthropic/claude-opus-5.5:free",
        Family("anthropic", "claude-opus-5-5", "free"),
    ),
    "routed to a GPT": (
        "openrouter",
        "openai/gpt-5.6-sol-2026-07-01",
        Family("openai", "gpt-5.6-sol"),
    ),
    "routed to another": ("openrouter", "z-ai/glm-5.3", Family("z-ai", "glm-5.3")),
    "without an author": ("openrouter", "claude-opus-5", None),
    "Bedrock's": (
        "bedrock",
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        Family("anthropic", "claude-sonnet-4-5"),
    ),
    "a region of Bedrock's": (
        "bedrock",
        "us.anthropic.claude-opus-5",
        Family("anthropic", "claude-opus-5"),
    ),
    "all regions": (
        "bedrock",
        "global.anthropic.claude-opus-4-6-v1:0",
        Family("anthropic", "claude-opus-4-6"),
    ),
    "an inference profile": (
        "bedrock",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5",
        Family("anthropic", "claude-opus-5"),
    ),
    "a profile that somebody named": (
        "bedrock",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab12",
        None,
    ),
    "another author's at Bedrock": ("bedrock", "amazon.nova-pro-v1:0", None),
    "an engine's": ("vllm", "anything at all", Family("vllm", "anything at all")),
    "empty": ("anthropic", "", None),
}


@pytest.mark.parametrize(("provider", "model", "expected"), FAMILIES.values(), ids=FAMILIES)
def test_an_id_names_a_family(provider: str, model: str, expected: Family | None) -> None:
    assert expected == family(provider, CHAT, model)


def test_a_deployment_is_claude_s_by_its_api() -> None:
    assert Family("anthropic", "claude-opus-5") == family("azure", MESSAGES, "claude-opus-5")
    assert Family("openai", "claude-opus-5") == family("azure", CHAT, "claude-opus-5")


# --- what the rules say ---------------------------------------------------------------------------


def found(provider: str, api: str, model: str, **more: Any) -> CacheRules:
    rules = cache_rules(provider, api, model, **more)
    assert rules is not None
    return rules


# From the providers' pages: minimum, price of reading, is thinking bound?
CLAUDE: dict[str, tuple[int, float, bool]] = {
    "claude-fable-5-2": (2048, 0.025, True),
    "claude-mythos-5-2": (2048, 0.025, True),
    "claude-fable-5-1": (512, 0.025, True),
    "claude-mythos-5-1": (512, 0.025, True),
    "claude-opus-5-5": (512, 0.05, True),
    "claude-sonnet-5-5": (512, 0.05, True),
    "claude-haiku-5-5": (512, 0.1, True),
    "claude-fable-5": (512, 0.1, False),
    "claude-mythos-5": (512, 0.1, False),
    "claude-opus-5": (512, 0.1, False),
    "claude-opus-4-8": (1024, 0.1, False),
    "claude-sonnet-5": (1024, 0.1, False),
    "claude-sonnet-4-6": (1024, 0.1, False),
    "claude-sonnet-4-5": (1024, 0.1, False),
    "claude-opus-4-1": (1024, 0.1, False),
    "claude-opus-4": (1024, 0.1, False),
    "claude-sonnet-4": (1024, 0.1, False),
    "claude-mythos-preview": (2048, 0.1, False),
    "claude-opus-4-7": (2048, 0.1, False),
    "claude-3-5-haiku": (2048, 0.1, False),
    "claude-opus-4-6": (4096, 0.1, False),
    "claude-opus-4-5": (4096, 0.1, False),
    "claude-haiku-4-5": (4096, 0.1, False),
}


@pytest.mark.parametrize("model", CLAUDE)
def test_claude_on_anthropic_s_api(model: str) -> None:
    rules = found("anthropic", MESSAGES, model)
    assert CLAUDE[model] == (rules.minimum_tokens, rules.read, rules.binds_thinking)
    assert (MarkerForm.CACHE_CONTROL, 4, 20) == (rules.form, rules.max_marks, rules.look_back)
    assert [(300, "5m", 1.25), (3600, "1h", 2.0)] == [
        (each.ttl_s, each.wire, each.write) for each in rules.lifetimes
    ]
    assert rules.runs_count_once
    assert rules.automatic
    assert rules.marks_tools
    assert rules.marks_assistant
    assert not rules.implicit
    assert rules.prewarm == "max_tokens=0"
    assert not rules.hint
    assert rules == cache_rules("anthropic", MESSAGES, f"{model}-20260101")


def test_no_claude_is_left_out_of_the_cases() -> None:
    assert CLAUDE.keys() == prompt_cache_anthropic.MODELS.keys()


def test_anthropic_s_endpoint_for_openai_s_clients_takes_no_markers() -> None:
    rules = found("anthropic", CHAT, "claude-opus-5")
    assert not rules.takes_markers
    assert rules.read == 1


def test_others_count_runs_block_by_block() -> None:
    for provider, api, model in (
        ("openrouter", MESSAGES, "anthropic/claude-opus-5"),
        ("azure", MESSAGES, "claude-opus-5"),
        ("bedrock", MESSAGES, "anthropic.claude-opus-5"),
    ):
        assert not found(provider, api, model).runs_count_once


def test_openrouter_knows_no_markers_on_the_tools_of_a_chat() -> None:
    assert not found("openrouter", CHAT, "anthropic/claude-opus-5").marks_tools
    assert found("openrouter", MESSAGES, "anthropic/claude-opus-5").marks_tools


BEDROCK: dict[str, tuple[int, bool, bool]] = {
    # Minimum, an hour?, automatic where the body is Anthropic's?
    "claude-opus-5": (512, True, True),
    "claude-fable-5": (512, True, True),
    "claude-mythos-5": (512, False, True),
    "claude-sonnet-5": (1024, False, True),
    "claude-opus-4-8": (1024, False, True),
    "claude-sonnet-4-6": (1024, False, False),
    "claude-sonnet-4-5": (4096, True, False),
    "claude-opus-4-7": (4096, False, True),
    "claude-opus-4-6": (4096, False, False),
    "claude-opus-5-5": (4096, False, True),
    "claude-haiku-5-5": (4096, False, True),
    "claude-fable-5-2": (4096, False, True),
}


@pytest.mark.parametrize("model", BEDROCK)
def test_claude_at_bedrock(model: str) -> None:
    minimum, hour, automatic = BEDROCK[model]
    rules = found("bedrock", "bedrock_converse", f"eu.anthropic.{model}")
    assert (MarkerForm.CACHE_POINT, minimum) == (rules.form, rules.minimum_tokens)
    assert hour is (3600 in {each.ttl_s for each in rules.lifetimes})
    assert not rules.automatic
    body = found("bedrock", MESSAGES, f"eu.anthropic.{model}")
    assert (MarkerForm.CACHE_CONTROL, automatic) == (body.form, body.automatic)


@pytest.mark.parametrize("api", [CHAT, RESPONSES])
@pytest.mark.parametrize("model", prompt_cache_openai.BREAKPOINTS)
def test_gpt_from_5_6_on(api: str, model: str) -> None:
    rules = found("openai", api, model)
    assert (MarkerForm.BREAKPOINT, 1024, 4) == (rules.form, rules.minimum_tokens, rules.max_marks)
    [lifetime] = rules.lifetimes
    assert (1800, "30m", 1.25) == (lifetime.ttl_s, lifetime.wire, lifetime.write)
    assert rules.read == (0.05 if model in {"gpt-6.1-sol", "gpt-6.1-terra"} else 0.1)
    assert rules.implicit
    assert (0, 20) == (rules.look_back, rules.implicit_look_back)
    assert not rules.marks_tools
    assert not rules.marks_assistant
    assert not rules.hint
    assert rules.prewarm == ("prewarm" if api == RESPONSES else "")


OLDER = {
    "gpt-5.5": 0.1,
    "gpt-5": 0.1,
    "gpt-5.1-codex-max": 0.1,
    "gpt-4.1-nano": 0.25,
    "o4-mini": 0.25,
    "gpt-4o": 0.5,
    "gpt-5.5-pro": 1.0,
    "ft:gpt-4o-mini-2024-07-18:acme::9aBc": 0.5,
}


@pytest.mark.parametrize("model", OLDER)
def test_gpt_before_5_6(model: str) -> None:
    rules = found("openai", CHAT, model)
    assert not rules.takes_markers
    assert not rules.implicit
    assert OLDER[model] == rules.read
    assert ("prompt_cache_key", 15) == (rules.hint, rules.hint_rpm)
    assert all(each.write == 1 for each in rules.lifetimes)


def test_a_deployment_gets_what_the_operator_says_it_is() -> None:
    silent = found("azure", CHAT, "gpt-6-sol")
    assert (MarkerForm.NONE, "", "") == (silent.form, silent.hint, silent.prewarm)
    assert found("azure", CHAT, "gpt-4o").hint == ""
    standard = found("azure", CHAT, "gpt-6-sol", deployment="standard")
    assert (MarkerForm.BREAKPOINT, "") == (standard.form, standard.hint)
    assert found("azure", CHAT, "gpt-4o", deployment="standard").hint == "prompt_cache_key"
    provisioned = found("azure", CHAT, "gpt-6-sol", deployment="provisioned")
    assert not provisioned.takes_markers
    assert provisioned.hint == "prompt_cache_key"
    assert [1.0] == [each.write for each in provisioned.lifetimes]
    assert cache_rules("azure", CHAT, "our-chatbot", deployment="standard") is None


ENGINES = [
    ("vllm", CHAT, "cache_salt", ""),
    ("vllm", "openai_completions", "cache_salt", ""),
    ("vllm", MESSAGES, "", ""),
    ("sglang", CHAT, "", ""),
    ("llamacpp", MESSAGES, "", "n_predict=0"),
]


@pytest.mark.parametrize(("provider", "api", "hint", "prewarm"), ENGINES)
def test_engines_cache_any_model_by_themselves_for_nothing(
    provider: str, api: str, hint: str, prewarm: str
) -> None:
    rules = found(provider, api, "/models/Some-Model.gguf")
    assert not rules.takes_markers
    assert (0, False) == (rules.read, rules.binds_thinking)
    assert (hint, prewarm) == (rules.hint, rules.prewarm)
    assert cache_rules(provider, "openai_embeddings", "x") is None


NOT_SERVED = [
    ("xai", CHAT, "grok-4.7", "x-grok-conv-id", 0.25),
    ("xai", RESPONSES, "grok-4.7", "prompt_cache_key", 0.25),
    ("deepseek", CHAT, "deepseek-v4-pro", "", 0.022 / 0.66),
    ("gemini", "gemini", "gemini-2.5-flash", "", 0.1),
    ("mistral", CHAT, "mistral-large-4", "prompt_cache_key", 0.1),
    ("groq", CHAT, "openai/gpt-oss-120b", "", 0.5),
    ("together", CHAT, "any/model", "", 1.0),
    ("fireworks", CHAT, "any/model", "x-session-affinity", 0.5),
    ("moonshot", CHAT, "kimi-k3", "", 0.1),
    ("zai", CHAT, "glm-5.3", "", 0.26 / 1.4),
    ("minimax", MESSAGES, "MiniMax-M3", "", 1.0),
    ("qwen", CHAT, "qwen3-coder-plus", "", 0.1),
]


@pytest.mark.parametrize(("provider", "api", "model", "hint", "read"), NOT_SERVED)
def test_what_others_document(provider: str, api: str, model: str, hint: str, read: float) -> None:
    rules = found(provider, api, model)
    assert (provider, hint, read) == (rules.provider, rules.hint, rules.read)
    assert rules.takes_markers is (provider == "qwen")


# --- nothing is guessed, nothing is sent elsewhere ------------------------------------------------

UNKNOWN = {
    "a Claude to come": ("anthropic", MESSAGES, "claude-opus-6"),
    "a name that only begins like one": ("anthropic", MESSAGES, "claude-sonnet-4-5-foo"),
    "a GPT to come": ("openai", CHAT, "gpt-7-sol"),
    "a kind that isn't listed": ("openai", CHAT, "gpt-6-realtime"),
    "the open one": ("openai", CHAT, "gpt-oss-120b"),
    "an API that doesn't cache": ("openai", "openai_embeddings", "text-embedding-3-small"),
    "a text completion": ("openai", "openai_completions", "gpt-5.1"),
    "an API that isn't there": ("anthropic", RESPONSES, "claude-opus-5"),
    "routed to an API that isn't": ("openrouter", RESPONSES, "anthropic/claude-opus-5"),
    "routed to others": ("openrouter", CHAT, "deepseek/deepseek-v4-pro"),
    "Claude at OpenAI": ("openai", CHAT, "claude-opus-5"),
    "GPT at Anthropic": ("anthropic", MESSAGES, "gpt-6-sol"),
    "a Qwen that isn't listed": ("qwen", CHAT, "qwen4-max"),
    "a Gemini that isn't listed": ("gemini", "gemini", "gemini-5"),
    "nobody": ("unknown", MESSAGES, "claude-opus-5"),
    "nobody's API": ("", "", ""),
}


@pytest.mark.parametrize(("provider", "api", "model"), UNKNOWN.values(), ids=UNKNOWN)
def test_of_what_is_not_known_there_are_no_rules(provider: str, api: str, model: str) -> None:
    assert cache_rules(provider, api, model) is None


ELSEWHERE = [
    "api.anthropic.com.example.com",
    "example.com",
    "localhost",
    "127.0.0.1",
    "proxy.internal",
    "xapi.openai.com",
    "chatgpt.com",
]


@pytest.mark.parametrize("host", ELSEWHERE)
def test_a_host_that_is_not_on_a_list_gets_nothing(host: str) -> None:
    provider = resolve(None, host)
    assert not any(each.serves(host) for each in PROVIDERS.values())
    for api, model in ((MESSAGES, "claude-opus-5"), (CHAT, "gpt-6-sol"), (CHAT, "gpt-4o")):
        assert cache_rules(provider.name, api, model) is None


@pytest.mark.parametrize("name", PROVIDERS)
def test_rules_are_those_of_the_provider_that_they_were_asked_for(name: str) -> None:
    for api in PROVIDERS[name].apis:
        for model in ("claude-opus-5", "gpt-6-sol", "gpt-4o", "anthropic/claude-opus-5"):
            known = cache_rules(name, api, model)
            assert known is None or known.provider == name


# --- every row ------------------------------------------------------------------------------------


def every_rule() -> Iterator[CacheRules]:
    for model in prompt_cache_anthropic.MODELS:
        for provider, api, spelled in (
            ("anthropic", MESSAGES, model),
            ("azure", MESSAGES, model),
            ("bedrock", "bedrock_converse", f"anthropic.{model}"),
            ("openrouter", CHAT, f"anthropic/{model}"),
        ):
            yield found(provider, api, spelled)
    for model in (*prompt_cache_openai.BREAKPOINTS, *prompt_cache_openai.AUTOMATIC):
        for deployment in ("", "standard", "provisioned"):
            yield found("azure", CHAT, model, deployment=deployment)
        yield found("openai", CHAT, model)
        yield found("openrouter", CHAT, f"openai/{model}")
    yield from (rules for _, _, rules in prompt_cache_other.rows())


def test_every_row_makes_sense_and_says_who_says_so() -> None:
    for rules in every_rule():
        assert rules.source.reason
        assert rules.source.source
        assert 0 <= rules.read <= 1
        ttls = [each.ttl_s for each in rules.lifetimes]
        assert sorted(set(ttls)) == ttls
        assert all(each.write >= 1 for each in rules.lifetimes)
        assert (rules.form is MarkerForm.NONE) is (rules.max_marks == 0)
        assert rules.lifetimes or not rules.takes_markers
        assert rules.hint or not rules.hint_rpm


@pytest.mark.parametrize(
    ("provider", "model"),
    [(p, m) for p in ("anthropic", "openai") for m in PRICES[p] if "embedding" not in m],
)
def test_multipliers_and_prices_say_the_same(provider: str, model: str) -> None:
    rules = found(provider, MESSAGES if provider == "anthropic" else CHAT, model)
    listed = price(provider, CHAT, model)
    assert listed is not None
    for rates in (listed.rates, listed.long_rates or listed.rates):
        assert rates.read == pytest.approx(rules.read * rates.input)
        if rules.takes_markers:
            written = [rates.write_5m, rates.write_1h][: len(rules.lifetimes)]
            expected = [each.write * rates.input for each in rules.lifetimes]
            assert written == pytest.approx(expected)


@pytest.mark.parametrize(
    ("provider", "api", "model"),
    [
        ("vllm", CHAT, "{}"),
        ("xai", CHAT, "grok-{}"),
        ("openrouter", CHAT, "anthropic/claude-sonnet-4.5:{}"),
        ("openai", CHAT, "ft:gpt-4o:{}::x"),
    ],
)
def test_a_name_of_any_length_is_not_remembered(provider: str, api: str, model: str) -> None:
    assert cache_rules(provider, api, model.format("x" * 30)) is not None
    before = prompt_cache_rules._rules.cache_info().currsize
    assert cache_rules(provider, api, model.format("x" * 1000)) is None
    assert prompt_cache_rules._rules.cache_info().currsize == before
