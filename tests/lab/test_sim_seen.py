"""Which earlier prompt a new one is likest to, held against trying all of them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.lab.sim_seen import Compared, Likest, Piece, Seen, Wanted

ALL = Wanted(0, 1, 0.0)


def pieces(labels: str) -> list[Piece]:
    """One for each letter, of so many bytes as its place in the alphabet says; `.` has none."""
    return [
        Piece(label, 0 if label == "." else ord(label) - ord("a") + 1, index)
        for index, label in enumerate(labels)
    ]


def seen(*prompts: str) -> Seen:
    found = Seen()
    for at, prompt in enumerate(prompts):
        found.add(pieces(prompt), float(at), float(at))
    return found


def compared(known: Seen, prompt: str, wanted: Wanted = ALL, now: float = 100.0) -> Compared:
    return known.compare(pieces(prompt), now, wanted)


def test_what_goes_on_where_another_ended_is_like_none() -> None:
    assert compared(seen("abc"), "abcd") == Compared(3, None)
    assert compared(seen("abcd"), "abc") == Compared(3, None)


def test_a_change_with_the_same_behind_it_is_found_with_its_place() -> None:
    found = compared(seen("abcdef"), "axcdef")
    assert found.likest == Likest(1, 3 + 4 + 5 + 6, tuple("abcdef"))


def test_what_was_taken_out_makes_what_stood_behind_it_the_change() -> None:
    found = compared(seen("abcdef"), "acdef").likest
    assert found is not None
    assert (found.at, found.size) == (1, 3 + 4 + 5 + 6)


def test_a_piece_counts_as_often_as_both_have_it() -> None:
    found = compared(seen("abgg"), "axggg").likest
    assert found is not None
    assert found.size == 14


def test_what_has_no_size_can_be_the_change_but_is_not_counted() -> None:
    found = compared(seen(".bc"), "abc").likest
    assert found is not None
    assert (found.at, found.size) == (0, 5)


def test_what_was_read_does_not_count() -> None:
    found = compared(seen("abcdef"), "axcdef", Wanted(4, 1, 0.0)).likest
    assert found is not None
    assert (found.at, found.size) == (1, 5 + 6)


@pytest.mark.parametrize(("wanted", "is_found"), [((0, 5, 0.0), True), ((0, 6, 0.0), False)])
def test_less_than_is_wanted_is_nothing(wanted: tuple[int, int, float], is_found: bool) -> None:
    assert (compared(seen("ab.e"), "ac.e", Wanted(*wanted)).likest is not None) is is_found


def test_a_small_part_of_a_long_rest_is_nothing() -> None:
    known, new = seen("abe"), "azezz"
    assert compared(known, new, Wanted(0, 1, 0.05)).likest is not None
    assert compared(known, new, Wanted(0, 1, 0.25)).likest is None


def test_who_has_not_been_answered_counts_for_nothing() -> None:
    known = Seen()
    known.add(pieces("abcdef"), 1.0, 3.0)
    assert compared(known, "axcdef", now=2.0) == Compared(0, None)
    assert compared(known, "axcdef", now=3.0).likest is not None


def test_of_two_alike_the_one_that_parts_later_and_then_the_later_one_is_told() -> None:
    assert compared(seen("dcyf", "dxcf"), "dczf").likest == Likest(2, 6, tuple("dcyf"))
    assert compared(seen("abxf", "abyf"), "abzf").likest == Likest(2, 6, tuple("abyf"))


def test_what_goes_on_from_a_whole_prompt_was_changed_from_none_that_parts_before_its_end() -> None:
    assert compared(seen("xbcdef", "ab"), "abcdef").likest is None
    assert compared(seen("abxdef", "ab"), "abcdef").likest is not None


def brute(prompts: list[str], new: str, wanted: Wanted) -> tuple[int, int]:
    """Bytes that recur in the one with most in common, and the place where it parts."""
    best = (0, 0, 0)
    floor = max((len(old) for old in prompts if new.startswith(old)), default=0)
    for old in prompts:
        at = 0
        while at < min(len(old), len(new)) and old[at] == new[at]:
            at += 1
        if at < floor:
            continue
        rest = pieces(new)[max(at, wanted.behind) :]
        both = Counter(p.label for p in rest) & Counter(old[at:])
        size = sum(p.size * n for p in set(map(_bare, rest)) if (n := both[p.label]))
        if size >= max(1, wanted.least) and size >= wanted.part * sum(p.size for p in rest):
            best = max(best, (sum(p.size for p in pieces(new)[:at]) + size, at, size))
    return best[2], best[1]


def _bare(piece: Piece) -> Piece:
    return piece._replace(block=0)


@pytest.mark.parametrize("seed", range(20))
def test_of_many_prompts_the_likest_is_the_one_that_trying_all_finds(seed: int) -> None:
    dice = random.Random(seed)
    prompts: list[str] = []
    for _ in range(60):
        old = dice.choice(prompts)[: dice.randrange(8)] if prompts and dice.random() < 0.7 else ""
        prompts.append(old + "".join(dice.choices("abcdefgh", k=dice.randrange(1, 8))))
    known = seen(*prompts)
    for _ in range(30):
        new = dice.choice(prompts)[: dice.randrange(8)] + "".join(dice.choices("abcdefgh", k=6))
        wanted = Wanted(dice.randrange(4), dice.randrange(20), dice.choice([0.0, 0.25, 0.5]))
        found = compared(known, new, wanted).likest
        told = (found.size, found.at) if found is not None else (0, 0)
        assert told == brute(prompts, new, wanted)
