"""The optimum, against trying every way of placing markers."""

from __future__ import annotations

import random
from copy import copy
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest

from gateway.core.prefix import chain
from gateway.lab.cache_policies import POLICIES
from gateway.lab.cache_replay import tokens_of
from gateway.lab.cache_sim import CacheSim, MarksRefused
from gateway.lab.optimum import Optimum
from gateway.lab.optimum_block import Seen
from tests.helpers.cache_shapes import ANTHROPIC, FIVE, OPENAI, block, prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.model import Usage
    from gateway.core.prefix import PrefixBlock
    from gateway.providers.prompt_cache import CacheRules

Traffic = list[tuple[float, float, "list[PrefixBlock]"]]
"""When, seconds until the first byte, blocks."""


def charged(usage: Usage, rules: CacheRules) -> float:
    long = rules.lifetimes[-1].write
    return (
        usage.uncached_input
        + rules.read * usage.cache_read
        + rules.lifetimes[0].write * usage.cache_write_5m
        + long * usage.cache_write_1h
    )


def asked(
    sim: CacheSim,
    rules: CacheRules,
    request: tuple[float, float, list[PrefixBlock]],
    marks: Sequence[tuple[int, int]],
    mode: str = "",
) -> float:
    at, takes, blocks = request
    usage = sim.request(
        at,
        "s",
        chain(prompt(blocks)),
        tokens_of(blocks, exact=True),
        blocks=blocks,
        marks=marks,
        mode=mode,
        first_byte_at=at + takes,
    )
    return charged(usage, rules)


def every_marking(rules: CacheRules, count: int) -> list[list[tuple[int, int]]]:
    lifetimes = [life.ttl_s for life in rules.lifetimes]
    found = []
    for choice in product([0, *lifetimes], repeat=count):
        marks = [(index, ttl_s) for index, ttl_s in enumerate(choice) if ttl_s]
        order = [ttl_s for _, ttl_s in marks]
        if len(marks) <= rules.max_marks and order == sorted(order, reverse=True):
            found.append(marks)
    return found


def copied(sim: CacheSim) -> CacheSim:
    found = CacheSim(sim.rules)
    found._entries = {key: copy(entry) for key, entry in sim._entries.items()}
    return found


def by_trying(rules: CacheRules, traffic: Traffic) -> float:
    """The least of all ways: exponential, for a handful of requests of a few blocks."""
    mode = "explicit" if rules.implicit else ""
    beam: list[tuple[float, CacheSim]] = [(0.0, CacheSim(rules))]
    for request in traffic:
        following: dict[object, tuple[float, CacheSim]] = {}
        for spent, sim in beam:
            for marks in every_marking(rules, len(request[2])):
                after = copied(sim)
                try:
                    cost = spent + asked(after, rules, request, marks, mode)
                except MarksRefused:
                    continue
                state = frozenset(
                    (key, e.ttl_s, e.used, e.readable) for key, e in after._entries.items()
                )
                if state not in following or cost < following[state][0]:
                    following[state] = (cost, after)
        beam = list(following.values())
    return min(cost for cost, _ in beam)


def reckoned(rules: CacheRules, traffic: Traffic) -> tuple[float, bool]:
    optimum = Optimum(rules)
    for at, takes, blocks in traffic:
        tokens = tokens_of(blocks, exact=True)
        seen = Seen(at, at + takes, 1.0)
        optimum.add(seen, "s", chain(prompt(blocks)), tokens, [b.can_mark for b in blocks])
    return optimum.cost()


def seeds(fast: int, slow: int) -> list[object]:
    """Trying everything takes seconds for a seed: most of them are left to the slow tests."""
    return [pytest.param(n, marks=[pytest.mark.slow] if n >= fast else []) for n in range(slow)]


GAPS = (10.0, 200.0, 290.0, 310.0, 700.0, 1900.0, 3500.0, 3700.0)


def growing(dice: random.Random, requests: int, most: int) -> Traffic:
    """One conversation: each prompt begins with the one before."""
    at = 0.0
    blocks: list[PrefixBlock] = []
    found: Traffic = []
    for number in range(requests):
        for more in range(dice.randint(0 if number else 1, 2 if number else most)):
            if len(blocks) < most:
                size = dice.choice([1, 20, 100, 400, 1000]) if blocks else 150
                blocks.append(block(f"{number}.{more}", size))
        found.append((at, 1.0, list(blocks)))
        at += dice.choice(GAPS)
    return found


def forking(dice: random.Random, requests: int, most: int) -> Traffic:
    """Prompts that share their first blocks, some of them at the same time."""
    at, found = 0.0, []
    for _ in range(requests):
        names = "".join(dice.choice("ab") for _ in range(dice.randint(1, most)))
        blocks = [
            block(names[: i + 1], 40 + 60 * (i + 1), can_mark=names[: i + 1] != "ab")
            for i in range(len(names))
        ]
        found.append((at, dice.choice([1.0, 30.0]), blocks))
        at += dice.choice((0.0, 5.0, *GAPS))
    return found


@pytest.mark.parametrize("rules", [ANTHROPIC, OPENAI], ids=["anthropic", "openai"])
@pytest.mark.parametrize("seed", seeds(8, 25))
def test_no_marks_cost_less_than_the_bound(rules: CacheRules, seed: int) -> None:
    traffic = forking(random.Random(seed), 4, 3)
    cost, _ = reckoned(rules, traffic)
    best = by_trying(rules, traffic)
    assert cost <= best * (1 + 1e-9)


@pytest.mark.parametrize("seed", seeds(4, 25))
def test_a_growing_conversation_is_solved_exactly(seed: int) -> None:
    traffic = growing(random.Random(seed), 4, 4)
    cost, exact = reckoned(ANTHROPIC, traffic)
    assert exact
    assert cost == pytest.approx(by_trying(ANTHROPIC, traffic), rel=1e-9)


@pytest.mark.parametrize("seed", seeds(4, 10))
def test_a_growing_conversation_is_solved_exactly_with_one_lifetime(seed: int) -> None:
    traffic = growing(random.Random(seed), 5, 4)
    cost, exact = reckoned(OPENAI, traffic)
    assert exact
    assert cost == pytest.approx(by_trying(OPENAI, traffic), rel=1e-9)


def test_one_shots_are_exact_and_cost_what_they_cost_without_a_cache() -> None:
    traffic = [(i * 10.0, 1.0, [block(f"x{i}", 500)]) for i in range(5)]
    assert reckoned(ANTHROPIC, traffic) == (2500.0, True)


def test_a_shared_prefix_is_a_bound() -> None:
    shared = block("s", 1000)
    traffic = [(i * 10.0, 1.0, [shared, block(f"x{i}", 100)]) for i in range(5)]
    cost, exact = reckoned(ANTHROPIC, traffic)
    assert not exact
    assert cost == pytest.approx(1000 * (1.25 + 4 * 0.1) + 500)


def test_what_takes_no_marker_is_shared_only_with_what_follows_it() -> None:
    shared = block("s", 1000, can_mark=False)
    traffic = [(i * 10.0, 1.0, [shared, block(f"x{i}", 100)]) for i in range(5)]
    assert reckoned(ANTHROPIC, traffic) == (5500.0, True)


def test_a_long_pause_costs_an_hour_mark_on_the_growth() -> None:
    first, second = block("a", 5000), block("b", 100)
    traffic = [(0.0, 1.0, [first]), (10.0, 1.0, [first, second]), (2000.0, 1.0, [first, second])]
    cost, exact = reckoned(ANTHROPIC, traffic)
    assert exact
    assert cost == pytest.approx(1.25 * 5000 + (500 + 200) + 510)


def test_prices_may_differ_from_request_to_request() -> None:
    optimum = Optimum(ANTHROPIC)
    blocks = [block("a", 1000)]
    for at, price in ((0.0, 2.0), (10.0, 4.0)):
        optimum.add(Seen(at, at + 1, price), "s", chain(prompt(blocks)), [1000], [True])
    cost, exact = optimum.cost()
    assert exact
    assert cost == pytest.approx(1000 * (2.5 + 0.4))


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "automatic"])
@pytest.mark.parametrize("seed", range(10))
def test_no_fixed_policy_is_below_the_optimum(policy: str, seed: int) -> None:
    dice = random.Random(seed)
    for rules in (ANTHROPIC, replace(ANTHROPIC, look_back=3), OPENAI):
        for traffic in (growing(dice, 12, 30), forking(dice, 30, 6)):
            sim = CacheSim(rules)
            spent = 0.0
            for request in traffic:
                marking = POLICIES[policy](prompt(request[2]), rules)
                spent += asked(sim, rules, request, marking.marks, marking.mode)
            assert reckoned(rules, traffic)[0] <= spent * (1 + 1e-9)


def test_overlapping_requests_of_a_conversation_are_bounded() -> None:
    first, second = block("a", 1000), block("b", 1000)
    traffic = [(0.0, 20.0, [first]), (5.0, 1.0, [first, second]), (FIVE, 1.0, [first, second])]
    cost, exact = reckoned(ANTHROPIC, traffic)
    assert not exact
    assert cost <= by_trying(ANTHROPIC, traffic)
