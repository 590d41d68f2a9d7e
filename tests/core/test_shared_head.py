"""What everybody's prompts begin with, counted by conversations."""

from __future__ import annotations

import pytest

from gateway.core.shared_head import FEWEST, SharedHead
from tests.helpers.routed import trail


def say(shared: SharedHead, words: str, *, is_open: bool = False, answered: bool = True) -> None:
    prompt = trail(words, is_open=is_open)
    shared.note(prompt)
    shared.asked(prompt, 0)
    if answered:
        shared.answered(prompt)


def depth(shared: SharedHead, words: str, replicas: int = 8) -> int:
    return shared.depth(trail(words).prints, replicas)


def test_five_conversations_make_a_beginning_shared_and_four_dont() -> None:
    shared = SharedHead()
    for n in range(FEWEST - 1):
        say(shared, f"sys tools u{n}")
    assert depth(shared, "sys tools x") == 0
    say(shared, "sys tools last")
    assert depth(shared, "sys tools x") == 2
    assert depth(shared, "sys other") == 1


@pytest.mark.parametrize("is_open", [False, True])
def test_turns_of_one_conversation_count_once(is_open: bool) -> None:
    shared = SharedHead()
    words = "sys tools u"
    for n in range(50):
        say(shared, words, is_open=is_open)
        words += f" t{n}"
    assert depth(shared, words) == 0


def test_an_end_is_used_up_by_the_first_that_goes_on_from_it() -> None:
    shared = SharedHead()
    say(shared, "sys a")
    for n in range(FEWEST):
        say(shared, f"sys a u{n}")
    assert depth(shared, "sys a x") == 2


def test_nobody_goes_on_from_an_answer_that_isnt_there_yet() -> None:
    shared = SharedHead()
    for _ in range(FEWEST):
        say(shared, "same prompt", answered=False)
    assert depth(shared, "same prompt") == 2


def test_known_by_name_is_known() -> None:
    shared = SharedHead()
    for n in range(20):
        shared.note(trail(f"sys u{n}"), is_known=True)
    assert depth(shared, "sys u1") == 0


@pytest.mark.parametrize(("replicas", "expected"), [(2, 0), (3, 0), (4, 1), (16, 1)])
def test_what_half_a_replicas_share_says_binds_nobody(replicas: int, expected: int) -> None:
    shared = SharedHead()
    for n in range(100):
        say(shared, f"team u{n}" if n % 8 == 0 else f"own{n}")
    assert depth(shared, "team x", replicas) == expected  # 13 of 100


def test_what_is_no_longer_said_is_no_longer_shared() -> None:
    shared = SharedHead(most_conversations=20)
    for n in range(10):
        say(shared, f"old u{n}")
    for n in range(20):
        say(shared, f"own{n} x")
    assert depth(shared, "old x") == 0


def test_ends_that_everybody_shares_belong_to_nobody() -> None:
    shared = SharedHead()
    prompt = trail("sys")
    shared.note(prompt)
    shared.asked(prompt, 1)
    shared.answered(prompt)
    assert len(shared) == 1  # the step of the conversation, and no end of it


def test_it_tells_what_is_shared_where_they_part() -> None:
    shared = SharedHead()
    for n in range(6):
        say(shared, f"sys tools {'a' if n < 4 else 'b'} u{n}")
    say(shared, "alone")
    found = {trail(words).prints[-1]: words for words in ("sys", "sys tools", "sys tools a")}
    found[trail("sys tools b").prints[-1]] = "sys tools b"
    told = [(found.get(each), count) for each, count, _ in shared.prefixes(10)]
    # (Of six, four go on alike: what all six share is only a part of that.)
    assert sorted(told) == [("sys tools a", 4), ("sys tools b", 2)]
    assert shared.conversations == 7
    assert len(shared.prefixes(1)) == 1
    assert SharedHead().prefixes(10) == []
