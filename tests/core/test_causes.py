"""Who caused what was read and written: each token once, and ours only what we changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.blocks import Section
from gateway.core.causes import Cause, Facts, Share, Standing, facts, shares
from gateway.core.model import Usage
from gateway.core.plan import Mark, Plan, PlanReason
from gateway.core.prefix import CachePrompt, Kind, PrefixBlock
from gateway.providers.prompt_cache_rules import cache_rules

OURS, CLIENT, AUTOMATIC = Cause.OURS, Cause.CLIENT, Cause.AUTOMATIC
NONE = Share()


def ours(tokens: int, ttl_s: int = 300) -> Standing:
    return Standing(tokens, ttl_s, OURS)


def client(tokens: int, ttl_s: int = 300) -> Standing:
    return Standing(tokens, ttl_s, CLIENT)


def of(*marks: Standing, automatic: bool = False, prompt: int = 10_000) -> Facts:
    return Facts(marks, automatic, prompt)


def usage(read: int = 0, short: int = 0, long: int = 0, prompt: int = 10_000) -> Usage:
    return Usage(prompt - read - short - long, read, short, long, 7)


CASES: dict[str, tuple[Usage, Facts, dict[Cause, Share]]] = {
    "nothing was read or written": (usage(), of(ours(4000)), {}),
    # --- reads
    "a read that ends at our mark": (usage(4000), of(ours(4000)), {OURS: Share(4000)}),
    "near our mark, whose place is an estimate": (
        usage(4100),
        of(ours(4000)),
        {OURS: Share(4100)},
    ),
    "at the client's": (usage(4000), of(client(4000)), {CLIENT: Share(4000)}),
    "where both stand, ours changed nothing": (
        usage(4000),
        of(ours(4000), client(4000)),
        {CLIENT: Share(4000)},
    ),
    "found looking back from our mark": (
        usage(4000),
        of(ours(9000)),
        {OURS: Share(4000)},
    ),
    "found looking back from the client's": (
        usage(4000),
        of(client(9000), ours(1000)),
        {CLIENT: Share(4000)},
    ),
    "at our mark, and the client's beyond it found nothing": (
        usage(4000),
        of(ours(4000), client(9000)),
        {OURS: Share(4000)},
    ),
    "at our mark, where the client's would have read a part": (
        usage(4000),
        of(client(1000), ours(4000)),
        {CLIENT: Share(1000), OURS: Share(3000)},
    ),
    "looking back from ours, where the client's would have read a part": (
        usage(4000),
        of(client(1000), ours(9000)),
        {CLIENT: Share(1000), OURS: Share(3000)},
    ),
    "by the provider alone": (usage(4000), of(automatic=True), {AUTOMATIC: Share(4000)}),
    "by the provider, which would have found it anyway": (
        usage(4000),
        of(ours(1000), automatic=True),
        {AUTOMATIC: Share(4000)},
    ),
    "at our mark, where the provider would have found nothing": (
        usage(4000),
        of(ours(4000), automatic=True),
        {OURS: Share(4000)},
    ),
    "though nobody asked": (usage(4000), of(), {AUTOMATIC: Share(4000)}),
    "beyond every mark": (usage(9900), of(ours(100)), {AUTOMATIC: Share(9900)}),
    # --- writes
    "our mark writes up to itself": (usage(0, 9000), of(ours(9000)), {OURS: Share(0, 9000)}),
    "the client's writes up to itself, ours on the way is free": (
        usage(1000, 8000),
        of(ours(4000), client(9000)),
        {CLIENT: Share(1000, 8000)},
    ),
    "ours beyond the client's writes the rest": (
        usage(0, 9000),
        of(client(4000), ours(9000)),
        {CLIENT: Share(0, 4000), OURS: Share(0, 5000)},
    ),
    "what the client's had written is read, ours writes": (
        usage(4000, 5000),
        of(client(4000), ours(9000)),
        {CLIENT: Share(4000), OURS: Share(0, 5000)},
    ),
    "the provider writes the end": (
        usage(0, 9990),
        of(automatic=True),
        {AUTOMATIC: Share(0, 9990)},
    ),
    "the provider would have written the end anyway": (
        usage(0, 9990),
        of(ours(4000), automatic=True),
        {AUTOMATIC: Share(0, 9990)},
    ),
    "the client's first, then the provider": (
        usage(0, 9990),
        of(client(4000), automatic=True),
        {CLIENT: Share(0, 4000), AUTOMATIC: Share(0, 5990)},
    ),
    "though nobody asked for it": (usage(0, 500), of(), {AUTOMATIC: Share(0, 500)}),
    "a server tool writes beyond the client's mark": (
        usage(0, 6000),
        of(client(4000)),
        {CLIENT: Share(0, 6000)},
    ),
    "an hour that only we asked for, before the client's mark": (
        usage(0, 5000, 4000),
        of(ours(4000, 3600), client(9000)),
        {OURS: Share(0, 0, 4000), CLIENT: Share(0, 5000)},
    ),
    "an hour of the client's, then five minutes of ours": (
        usage(0, 5000, 4000),
        of(client(4000, 3600), ours(9000)),
        {CLIENT: Share(0, 0, 4000), OURS: Share(0, 5000)},
    ),
    "an hour of both": (
        usage(0, 3000, 6000),
        of(client(4000, 3600), ours(6000, 3600), ours(9000)),
        {CLIENT: Share(0, 0, 4000), OURS: Share(0, 3000, 2000)},
    ),
    # --- estimates
    "places are scaled to the prompt's true length": (
        usage(4000, 5000),
        of(client(2000), ours(4500), prompt=5000),
        {CLIENT: Share(4000), OURS: Share(0, 5000)},
    ),
    "an empty estimate": (
        usage(4000),
        of(ours(0), prompt=0),
        {AUTOMATIC: Share(4000)},
    ),
}


@pytest.mark.parametrize(("spent", "said", "expected"), CASES.values(), ids=CASES)
def test_who_caused_it(spent: Usage, said: Facts, expected: dict[Cause, Share]) -> None:
    assert {cause: expected.get(cause, NONE) for cause in Cause} == shares(spent, said)


COUNT = st.integers(0, 10**6)
MARKS = st.builds(
    Standing, COUNT, st.sampled_from([300, 1800, 3600]), st.sampled_from([OURS, CLIENT])
)


@given(
    st.builds(Usage, COUNT, COUNT, COUNT, COUNT, COUNT),
    st.builds(Facts, st.lists(MARKS, max_size=6).map(tuple), st.booleans(), COUNT),
)
def test_shares_add_up_to_the_usage_and_none_is_below_zero(spent: Usage, said: Facts) -> None:
    found = shares(spent, said)
    assert set(Cause) == found.keys()
    assert all(count >= 0 for share in found.values() for count in share)
    total = [sum(counts) for counts in zip(*found.values(), strict=True)]
    assert [spent.cache_read, spent.cache_write_5m, spent.cache_write_1h] == total


@given(
    st.builds(Usage, COUNT, COUNT, COUNT, COUNT, COUNT),
    st.builds(
        Facts,
        st.lists(MARKS.map(lambda mark: mark._replace(cause=CLIENT)), max_size=6).map(tuple),
        st.booleans(),
        COUNT,
    ),
)
def test_without_a_mark_of_ours_nothing_is_ours(spent: Usage, said: Facts) -> None:
    assert NONE == shares(spent, said)[OURS]


# --- what a request said --------------------------------------------------------------------------


def block(name: str, ttl_s: int = 0) -> PrefixBlock:
    return PrefixBlock(
        Section.MESSAGES, Kind.TEXT, "user", ("messages", name), 100, 1, client_ttl_s=ttl_s
    )


def asked(*ttls: int, automatic: int = 0, mode: str = "") -> CachePrompt:
    blocks = tuple(block(str(index), ttl) for index, ttl in enumerate(ttls))
    return CachePrompt(
        "anthropic_messages", "m", blocks, 1, 2, automatic_ttl_s=automatic, client_mode=mode
    )


PLACED = Plan(PlanReason.PLACED, marks=(Mark(1, 300),))
LEFT = Plan(PlanReason.CLIENT_MARKS)
TOKENS = [10, 20, 30]
CLAUDE = cache_rules("anthropic", "anthropic_messages", "claude-opus-5")
GPT = cache_rules("openai", "openai_chat", "gpt-6-sol")
OLDER_GPT = cache_rules("openai", "openai_chat", "gpt-4o")

SAID: dict[str, tuple[Facts, Facts]] = {
    "ours beside the client's": (
        facts(asked(0, 0, 3600), PLACED, TOKENS, CLAUDE),
        of(ours(20), client(30, 3600), prompt=30),
    ),
    "the client's top-level mark stands at the end": (
        facts(asked(0, 0, 0, automatic=300), PLACED, TOKENS, CLAUDE),
        of(ours(20), client(30), prompt=30),
    ),
    "the client's are taken out": (
        facts(
            asked(300, 0, 0, automatic=300),
            Plan(PlanReason.PLACED, marks=(Mark(1, 300),), strips=True),
            TOKENS,
            CLAUDE,
        ),
        of(ours(20), prompt=30),
    ),
    "implicit mode": (
        facts(asked(0, 0, 0), PLACED, TOKENS, GPT),
        of(ours(20), automatic=True, prompt=30),
    ),
    "explicit mode, by us": (
        facts(
            asked(0, 0, 0),
            Plan(PlanReason.PLACED, marks=(Mark(1, 1800),), mode="explicit"),
            TOKENS,
            GPT,
        ),
        of(ours(20, 1800), prompt=30),
    ),
    "explicit mode, by the client": (
        facts(asked(0, 1800, 0, mode="explicit"), LEFT, TOKENS, GPT),
        of(client(20, 1800), prompt=30),
    ),
    "a provider that takes no markers doesn't heed the client's": (
        facts(asked(300, 0, 0), LEFT, TOKENS, OLDER_GPT),
        of(automatic=True, prompt=30),
    ),
    "a provider that we don't know is taken to heed the client": (
        facts(asked(300, 0, 0), LEFT, TOKENS, None),
        of(client(10), prompt=30),
    ),
    "no prompt": (facts(asked(), LEFT, [], CLAUDE), of(prompt=0)),
}


@pytest.mark.parametrize(("found", "expected"), SAID.values(), ids=SAID)
def test_what_a_request_said_about_caching(found: Facts, expected: Facts) -> None:
    assert expected == found
