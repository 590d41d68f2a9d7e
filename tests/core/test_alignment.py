"""Gaps between two texts: complete, in order, and found in little time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.alignment import Gap, gaps, shared_end, shared_start

LINES = st.lists(st.sampled_from(["a", "b", "c", "d", "e", ""]), max_size=12)


def test_a_changed_line_between_equal_ones_is_one_gap() -> None:
    assert [Gap(1, 2, 1, 2)] == gaps(["a", "x", "b"], ["a", "y", "b"])


def test_two_changes_with_something_equal_between_are_two_gaps() -> None:
    assert [Gap(0, 1, 0, 1), Gap(2, 3, 2, 4)] == gaps(["1", "m", "2"], ["3", "m", "4", "5"])


def test_what_came_and_what_went_are_gaps_with_an_empty_side() -> None:
    assert [Gap(1, 1, 1, 2)] == gaps(["a", "b"], ["a", "x", "b"])
    assert [Gap(1, 2, 1, 1)] == gaps(["a", "x", "b"], ["a", "b"])


def test_equal_texts_have_no_gap() -> None:
    assert [] == gaps(["a"], ["a"])
    assert [] == gaps([], [])


@given(LINES, LINES)
def test_outside_the_gaps_both_sides_are_equal(left: list[str], right: list[str]) -> None:
    left_at = right_at = 0
    for gap in gaps(left, right):
        assert left[left_at : gap.left_start] == right[right_at : gap.right_start]
        assert gap.left_start < gap.left_end or gap.right_start < gap.right_end
        left_at, right_at = gap.left_end, gap.right_end
    assert left[left_at:] == right[right_at:]


@given(LINES)
def test_a_sequence_has_no_gap_towards_itself(lines: list[str]) -> None:
    assert [] == gaps(lines, lines)


@given(st.text("ab"), st.text("ab"))
def test_shared_ends_are_what_comparing_each_character_says(left: str, right: str) -> None:
    start = shared_start(left, right)
    assert left[:start] == right[:start]
    assert start == min(len(left), len(right)) or left[start] != right[start]
    limit = min(len(left), len(right)) - start
    end = shared_end(left, right, limit)
    assert left[len(left) - end :] == right[len(right) - end :]
    assert end == limit or left[-end - 1] != right[-end - 1]


def test_long_texts_without_any_anchor_take_little_time() -> None:
    assert [Gap(0, 100_001, 0, 100_001)] == gaps(
        ["x", *["a", "b"] * 50_000], [*["b", "a"] * 50_000, "y"]
    )
