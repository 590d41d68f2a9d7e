"""The simulated engine: what its cache holds, and how long its queue is."""

from __future__ import annotations

import pytest

from gateway.lab.engine_sim import BlockLru, EngineSim, Prompt, Taken


def prompt(*blocks: str, size: int = 10) -> Prompt:
    """Blocks by name; what comes before one is part of what it is."""
    prints = tuple(hash(blocks[: end + 1]) for end in range(len(blocks)))
    return Prompt(prints, (size,) * len(blocks), size * len(blocks))


def test_a_prompt_is_held_as_far_as_it_begins_alike() -> None:
    cache = BlockLru(1000)
    cache.use(prompt("head", "a", "b"))
    assert cache.held(prompt("head", "a", "b", "c")) == 30
    assert cache.held(prompt("head", "a", "x", "b")) == 20
    assert cache.held(prompt("a", "head")) == 0
    assert cache.tokens == 30


def test_the_least_recently_used_leaves_and_of_one_prompt_the_tail_first() -> None:
    cache = BlockLru(40)
    cache.use(prompt("head", "a", "b"))
    cache.use(prompt("head", "c", "d"))
    # Five blocks of 10: of the older prompt the last one went, and neither its head nor its middle.
    assert cache.tokens == 40
    assert cache.held(prompt("head", "a", "b")) == 20
    assert cache.held(prompt("head", "c", "d")) == 30


def test_a_prompt_that_is_longer_than_the_cache_leaves_its_beginning_there() -> None:
    cache = BlockLru(35)
    cache.use(prompt("a", "b", "c", "d", "e"))
    assert cache.held(prompt("a", "b", "c", "d", "e")) == 30
    assert cache.tokens == 30


def test_what_is_held_costs_no_time_and_prompts_wait_for_each_other() -> None:
    engine = EngineSim(BlockLru(1000), rate=10.0)
    assert engine.take(prompt("a", "b"), 0.0) == Taken(0, 2.0)
    # It waits for the first one, then computes one block.
    assert engine.take(prompt("a", "c"), 0.5) == Taken(10, 3.0)
    assert engine.wait(1.0) == pytest.approx(2.0)
    assert engine.wait(9.0) == 0.0
    assert engine.take(prompt("a", "c"), 9.0) == Taken(20, 9.0)
    assert engine.computed == 30


def test_engines_that_share_a_cache_hold_what_any_of_them_computed() -> None:
    cache = BlockLru(1000)
    first, second = (EngineSim(cache, rate=10.0) for _ in range(2))
    first.take(prompt("a", "b"), 0.0)
    assert second.take(prompt("a", "b", "c"), 0.0) == Taken(20, 1.0)
