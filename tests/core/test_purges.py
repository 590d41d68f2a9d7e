from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import purges
from gateway.core.purges import ALL, KEY, MODEL, TAG, Mark, Marks
from tests.helpers.entries import entry

if TYPE_CHECKING:
    from gateway.core.model import Entry

NAMES = [ALL, *(kind + name for kind in (TAG, MODEL, KEY) for name in "abc"), TAG, MODEL, KEY]

marks = st.builds(Mark, st.integers(0, 9), st.integers(0, 9).map(float))
some_marks = st.dictionaries(st.sampled_from(NAMES), marks)
some_entries = st.builds(
    lambda tags, model, key, generation, stored_at: entry(
        tags=tags, model=model, key_hex8=key, generation=generation, stored_at=float(stored_at)
    ),
    st.lists(st.sampled_from("abc"), unique=True, max_size=2).map(tuple),
    *(st.sampled_from("abc"), st.sampled_from("abc")),
    *(st.integers(0, 9), st.integers(0, 9)),
)


def known(*parts: dict[str, Mark], most: int = 100) -> Marks:
    whole = Marks(most)
    for part in parts:
        whole.join(part, 0)
    return whole


@pytest.mark.parametrize(
    ("name", "dies"),
    [
        (ALL, True),
        ("tag:red", True),
        ("tag:blue", True),
        ("tag:green", False),
        (TAG, True),
        ("model:gpt-5.2", True),
        ("model:gpt-5", False),
        ("key:0011aabb", True),
        ("key:0011aabc", False),
    ],
)
def test_a_mark_kills_the_entries_of_its_name_and_no_others(name: str, dies: bool) -> None:
    given = entry(tags=("blue", "red"), key_hex8="0011aabb", generation=4)
    assert known({name: Mark(5)}).kill(given) is dies
    assert not known({name: Mark(4)}).kill(given)
    assert known({name: Mark(0, given.stored_at + 1)}).kill(given) is dies
    assert not known({name: Mark(0, given.stored_at)}).kill(given)


def test_an_entry_without_tags_does_not_die_with_all_tags() -> None:
    assert not known({TAG: Mark(5)}).kill(entry())


@given(some_marks, some_marks, some_marks, some_entries)
def test_the_order_in_which_marks_are_learned_does_not_matter(
    one: dict[str, Mark],
    two: dict[str, Mark],
    three: dict[str, Mark],
    given: Entry,
) -> None:
    first, second = known(one, two, three), known(three, one, two, one)
    assert first.all() == second.all()
    assert first.sequence == second.sequence
    assert first.kill(given) is second.kill(given)


@given(some_marks, some_marks, some_entries, st.integers(1, 6))
def test_forgetting_names_never_brings_an_entry_back(
    one: dict[str, Mark], two: dict[str, Mark], given: Entry, most: int
) -> None:
    if known(one, two).kill(given):
        assert known(one, two, most=most).kill(given)


@given(some_marks, st.integers(1, 6))
def test_what_is_remembered_is_bounded(one: dict[str, Mark], most: int) -> None:
    assert len(known(one, most=most)) <= most + 4


@given(some_marks, some_marks, some_entries)
def test_what_somebody_lacks_is_what_makes_them_equal(
    mine: dict[str, Mark], theirs: dict[str, Mark], given: Entry
) -> None:
    told = known(theirs, known(mine).lacking(theirs))
    assert told.kill(given) is known(mine, theirs).kill(given)
    assert not known(mine).lacking(told.all())


def test_the_oldest_names_are_forgotten_first() -> None:
    many = {f"tag:{n}": Mark(n) for n in range(1, 13)}
    kept = purges.folded(many, 8)
    assert kept == {TAG: Mark(6), **{f"tag:{n}": Mark(n) for n in range(7, 13)}}


def test_a_purge_of_everything_leaves_nothing_else_to_remember() -> None:
    assert purges.folded({f"tag:{n}": Mark(n) for n in range(9)} | {ALL: Mark(9)}, 3) == {
        ALL: Mark(9)
    }


def test_a_sequence_rises_even_when_the_clock_does_not() -> None:
    assert purges.following(0, 1.5, 0) == 1_500_000
    assert purges.following(0, 1.5, 1023) == 1_500_000
    assert purges.following(1_500_000, 1.5, 0) == 1_500_001
    assert purges.following(9_000_000, 1.5, 5) == 9_000_006


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ()),
        ([""], ()),
        (["b, a ,, b"], ("a", "b")),
        (["team:red", "doc/42.v1"], ("doc/42.v1", "team:red")),
        (["x" * 128], ("x" * 128,)),
        (["x" * 129], None),
        (["two words"], None),
        (["caf\u00e9"], None),
        ([",".join(f"t{n}" for n in range(16))], tuple(sorted(f"t{n}" for n in range(16)))),
        ([",".join(f"t{n}" for n in range(17))], None),
    ],
)
def test_tags_are_few_short_and_plain_or_none_at_all(
    lines: list[str], expected: tuple[str, ...] | None
) -> None:
    assert purges.tags(lines) == expected
