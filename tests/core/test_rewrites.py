"""Which rewrites may be made, and why not."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway.config.kinds import Rewrite as Configured
from gateway.core.rewrites import Case, Hindrance, Rewrite, allowed, mending, told
from gateway.core.volatile import Kind
from gateway.providers.prompt_cache_rules import cache_rules

EVERY = frozenset(Rewrite)
STRIP = frozenset({Rewrite.STRIP_BILLING})
API = "anthropic_messages"


def case(
    provider: str = "openrouter", model: str = "anthropic/claude-sonnet-4.5", **more: bool
) -> Case:
    return Case(EVERY, provider, cache_rules(provider, API, model), **more)


def test_the_config_lists_just_the_rewrites_that_there_are() -> None:
    assert get_args(Configured) == tuple(each.value for each in Rewrite)


def test_all_that_is_wanted_is_made_where_nothing_is_bound() -> None:
    may, hindrance = allowed(case(), thinks=False)
    assert (may, hindrance) == (EVERY - {Rewrite.ROUND_HOUR}, None)


def test_the_billing_header_stays_towards_anthropic() -> None:
    may, _ = allowed(case("anthropic", "claude-sonnet-4-5"), thinks=False)
    assert Rewrite.STRIP_BILLING not in may
    assert Rewrite.SORT_TOOLS in may


@pytest.mark.parametrize(
    ("the_case", "thinks", "hindrance"),
    [
        (case(no_transform=True), False, Hindrance.NO_TRANSFORM),
        (case(signed=True), False, Hindrance.SIGNED),
        (case(model="somebody/else"), False, Hindrance.UNKNOWN_MODEL),
        (case("anthropic", "claude-opus-5-5"), False, Hindrance.BINDS_THINKING),
        (case("anthropic", "claude-fable-5-1"), False, Hindrance.BINDS_THINKING),
        (case(), True, Hindrance.THINKS),
    ],
)
def test_nothing_is_made_where_something_speaks_against_it(
    the_case: Case, thinks: bool, hindrance: Hindrance
) -> None:
    assert allowed(the_case, thinks=thinks) == (frozenset(), hindrance)


def test_the_billing_header_goes_from_requests_that_think_only_on_engines_of_ones_own() -> None:
    may, hindrance = allowed(case("vllm", "qwen"), thinks=True)
    assert (may, hindrance) == (STRIP, Hindrance.THINKS)
    assert allowed(case("vllm", "qwen", no_transform=True), thinks=True)[0] == frozenset()


def test_nothing_wanted_is_nothing_hindered() -> None:
    nothing = Case(frozenset(), "anthropic", None, no_transform=True)
    assert allowed(nothing, thinks=True) == (frozenset(), None)


def test_the_header_lists_them_in_one_order() -> None:
    assert told(frozenset({Rewrite.MOVE_VOLATILE, Rewrite.STRIP_BILLING})) == (
        "strip-billing, move-volatile"
    )


@pytest.mark.parametrize(
    ("kind", "value", "provider", "rewrites"),
    [
        (Kind.TIMESTAMP, "2026-11-22T10:00Z", "vllm", ["round-time", "move-volatile"]),
        (Kind.TIMESTAMP, "10:00 PM", "vllm", ["round-hour", "move-volatile"]),
        (Kind.UUID, "d703a1a9-aaaa", "vllm", ["move-volatile"]),
        (Kind.BILLING_HEADER, "x", "vllm", ["strip-billing"]),
        (Kind.BILLING_HEADER, "x", "anthropic", []),
        (Kind.GIT, "main", "vllm", []),
    ],
)
def test_what_mends_a_value_depends_on_its_kind(
    kind: Kind, value: str, provider: str, rewrites: list[str]
) -> None:
    assert [each.value for each in mending(kind, value, provider)] == rewrites
