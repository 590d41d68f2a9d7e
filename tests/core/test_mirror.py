"""What a replica's cache is thought to hold, and what that takes in memory."""

from __future__ import annotations

import random
import tracemalloc

from gateway.core.mirror import STEP_BYTES, Mirror
from gateway.core.trail import Trail
from tests.helpers.routed import trail


def mirror_of(*prompts: str, capacity: int = 0, most_steps: int = 1000) -> Mirror:
    found = Mirror(capacity, most_steps)
    for stamp, words in enumerate(prompts, 1):
        prompt = trail(words, size=100)
        found.touch(prompt, found.look(prompt.prints), stamp)
    return found


def held(mirror: Mirror, words: str) -> int:
    return mirror.look(trail(words).prints)


def test_a_prompt_is_held_as_far_as_it_begins_alike() -> None:
    mirror = mirror_of("a b c d")
    assert [held(mirror, words) for words in ("a b c d e", "a b x", "x", "", "a")] == [
        4,
        2,
        0,
        0,
        1,
    ]


def test_a_wrong_guess_costs_probes_not_truth() -> None:
    mirror = mirror_of("a b c d")
    prints = trail("a b c d e f").prints
    assert {mirror.look(prints, guess) for guess in range(12)} == {4}


def test_what_was_used_least_recently_goes_first_tails_before_heads() -> None:
    mirror = mirror_of("a b c", "x y", capacity=400)
    assert (held(mirror, "a b c"), held(mirror, "x y")) == (2, 2)
    assert mirror.tokens == 400


def test_what_is_used_again_stays() -> None:
    mirror = mirror_of("a b", "x y", "a b", "n", capacity=400)
    assert (held(mirror, "a b"), held(mirror, "x y"), held(mirror, "n")) == (2, 1, 1)


def test_a_prompt_larger_than_the_cache_keeps_its_head() -> None:
    mirror = mirror_of("a b c d e f", capacity=300)
    assert held(mirror, "a b c d e f") == 3


def test_steps_bound_it_where_tokens_dont() -> None:
    mirror = mirror_of("a b c", "x y z", most_steps=4)
    assert len(mirror) == 4
    assert held(mirror, "x y z") == 3


def test_forgetting_takes_what_was_last_used_no_later() -> None:
    mirror = mirror_of("a b", "x y", "a n")
    mirror.forget_until(2)
    assert (held(mirror, "a b"), held(mirror, "x y"), held(mirror, "a n")) == (1, 0, 2)
    assert mirror.tokens == 200


def test_undoing_takes_what_only_the_failed_request_brought() -> None:
    mirror = mirror_of("a b", "a b c d")
    mirror.undo(trail("a b c d").prints, 2, 2)
    assert held(mirror, "a b c d") == 2
    assert mirror.tokens == 200
    mirror.undo(trail("a b").prints, 0, 2)  # b and a were used by that request, too
    assert len(mirror) == 0


def test_undoing_leaves_what_another_request_has_used() -> None:
    mirror = mirror_of("a b c", "a b")
    mirror.undo(trail("a b c").prints, 0, 1)
    assert held(mirror, "a b c") == 2


def test_stamps_tell_when_each_step_was_last_used() -> None:
    mirror = mirror_of("a b c", "a b", "a")
    assert mirror.stamps(trail("a b c").prints, 3) == (3, 2, 1)


def test_sizes_may_change_and_be_nothing() -> None:
    mirror = Mirror(0, 10)
    mirror.touch(Trail((1, 2), (100, 100)), 0, 1)
    mirror.touch(Trail((1, 2), (50, 80)), 2, 2)
    assert mirror.tokens == 80
    mirror.clear()
    assert (mirror.tokens, len(mirror)) == (0, 0)


def test_a_step_takes_no_more_memory_than_is_reckoned() -> None:
    dice = random.Random(1)
    most = 20_000
    ends = tuple(range(500, 50_500, 500))
    tracemalloc.start()
    mirror = Mirror(0, most)
    before = tracemalloc.get_traced_memory()[0]
    for stamp in range(1, 2 * most // 100):
        mirror.touch(Trail(tuple(dice.getrandbits(64) for _ in range(100)), ends), 0, stamp)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(mirror) == most
    assert 0.5 * STEP_BYTES < taken / most <= STEP_BYTES
