"""Which of a llama.cpp server's slots a prompt should take."""

from __future__ import annotations

import pytest

from gateway.core.slot_mirror import SlotMirror
from tests.helpers.routed import trail


def take(slots: SlotMirror, words: str, stamp: int, *, done: bool = True) -> int:
    prompt = trail(words)
    slot = slots.slot_for(prompt.prints)
    slots.touch(prompt, slots.look(prompt.prints), stamp, slot)
    if done:
        slots.done(stamp)
    return slot


def test_a_prompt_goes_on_in_its_own_slot() -> None:
    slots = SlotMirror(3, 1000)
    first, second = take(slots, "a b", 1), take(slots, "x y", 2)
    assert first != second
    assert take(slots, "a b c", 3) == first
    assert slots.look(trail("a b c d").prints) == 3


def test_a_stranger_with_the_same_head_takes_an_empty_slot_not_a_known_prompt() -> None:
    slots = SlotMirror(2, 1000)
    first = take(slots, "head a b c d", 1)
    assert take(slots, "head x", 2) != first
    assert slots.look(trail("head a b c d e").prints) == 5


def test_without_an_empty_slot_the_one_unused_for_longest_is_taken() -> None:
    slots = SlotMirror(2, 1000)
    oldest = take(slots, "a", 1)
    take(slots, "b", 2)
    assert take(slots, "c", 3) == oldest
    assert slots.look(trail("a").prints) == 0


def test_a_slot_that_computes_is_left_alone_while_another_is_free() -> None:
    slots = SlotMirror(2, 1000)
    busy = take(slots, "a b", 1, done=False)
    assert take(slots, "a b c", 2) != busy
    slots.done(1)
    assert take(slots, "a b", 3) in (0, 1)


def test_where_all_compute_one_waits_for_the_slot_that_knows_most() -> None:
    slots = SlotMirror(2, 1000)
    take(slots, "a b", 1, done=False)
    known = take(slots, "x y", 2, done=False)
    assert slots.slot_for(trail("x y z").prints) == known


def test_what_gives_way_was_used_when_it_was_used() -> None:
    slots = SlotMirror(2, 1000)
    take(slots, "a", 5)
    assert slots.loses(trail("x"), 0) == 0
    take(slots, "b", 6)
    assert slots.loses(trail("x"), 0) == 5
    take(slots, "x", 7)
    assert slots.loses(trail("y"), 0) == 6


def test_a_failure_forgetting_and_a_restart_empty_slots() -> None:
    slots = SlotMirror(2, 1000)
    take(slots, "a b c", 1)
    take(slots, "x y", 2)
    slots.undo(trail("a b c").prints, 1, 1)
    assert slots.look(trail("a b c").prints) == 1
    slots.forget_until(1)
    assert (slots.look(trail("a").prints), slots.look(trail("x y").prints)) == (0, 2)
    assert slots.tokens == 2000
    slots.clear()
    assert (slots.tokens, len(slots)) == (0, 0)


@pytest.mark.parametrize("slots", [-1, 0, 1])
def test_there_is_at_least_one_slot(slots: int) -> None:
    assert SlotMirror(slots, 10).slots == 1


def test_memory_bounds_what_a_slot_is_known_to_hold() -> None:
    slots = SlotMirror(2, 4)
    take(slots, "a b c d e", 1)
    assert slots.look(trail("a b c d e").prints) == 2
