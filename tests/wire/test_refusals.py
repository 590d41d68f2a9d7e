"""Whether a provider's refusal is about what we added."""

from __future__ import annotations

from gateway.core.blocks import Section
from gateway.core.plan import Mark, Plan, PlanReason
from gateway.core.prefix import CachePrompt, Kind, Path, PrefixBlock
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.refusals import names, names_of

CLAUDE = cache_rules("anthropic", "anthropic_messages", "claude-sonnet-4-5")
GPT = cache_rules("openai", "openai_chat", "gpt-5.6-sol")


def prompt(*paths: Path) -> CachePrompt:
    blocks = tuple(PrefixBlock(Section.SYSTEM, Kind.TEXT, "system", path, 100, 1) for path in paths)
    return CachePrompt("anthropic_messages", "m", blocks, 0, 0)


def test_a_marker_is_named_by_its_member() -> None:
    assert CLAUDE is not None
    assert GPT is not None
    plan = Plan(PlanReason.PLACED, marks=(Mark(0, 300),))

    assert names_of(plan, prompt(("system", 0)), CLAUDE) == (b"cache_control",)
    assert b"prompt_cache_breakpoint" in names_of(plan, prompt(("messages", 0, "content", 0)), GPT)


def test_a_bare_string_that_became_a_list_is_named_as_well() -> None:
    assert CLAUDE is not None
    plan = Plan(PlanReason.PLACED, marks=(Mark(0, 300),))

    assert names_of(plan, prompt(("system",)), CLAUDE) == (b"cache_control", b"system")


def test_texts_that_were_split_may_turn_out_to_be_signed() -> None:
    assert CLAUDE is not None
    plan = Plan(PlanReason.NOTHING_RECURS, splits=(0,))

    assert b"signature" in names_of(plan, prompt(("system", 0)), CLAUDE)


def test_only_a_refusal_that_names_one_of_them_counts() -> None:
    told = b'{"error":{"message":"tools.0.cache_control: Extra inputs are not permitted"}}'

    assert names(told, (b"cache_control",))
    assert not names(b"max_tokens: too large", (b"cache_control",))
    assert not names(told, ())
