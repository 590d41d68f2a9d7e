"""From a choice to markers: slots, look-back, lifetimes beside the client's."""

from __future__ import annotations

import pytest

from gateway.core.breakpoints import NOTHING, Choice
from gateway.core.placing import Ground, place, reaches
from gateway.core.plan import Mark
from tests.helpers.prompts import rules


def ground(
    count: int,
    *,
    client: tuple[Mark, ...] = (),
    slots: int = 4,
    read: int = -1,
    read_ttl_s: int = 300,
    inner: int = -1,
    floor: int = 0,
) -> Ground:
    places = list(range(1, count + 1))
    return Ground(client, slots, places, read, read_ttl_s, inner, floor, lambda _: True)


def test_shared_boundaries_inside_of_what_is_written_get_a_marker_for_nothing() -> None:
    marks = place(Choice(9, -1, 1.0, 1.0), [4, 2], ground(10), rules())
    assert marks == (Mark(2, 300), Mark(4, 300), Mark(9, 300))


def test_what_is_held_is_read_by_a_marker_of_its_own_where_it_is_out_of_sight() -> None:
    near = place(Choice(30, -1, 1.0, 1.0), [], ground(31, read=20), rules())
    far = place(Choice(30, -1, 1.0, 1.0), [], ground(31, read=5), rules())

    assert near == (Mark(30, 300),)
    assert far == (Mark(5, 300), Mark(30, 300))


def test_reading_needs_a_marker_though_nothing_is_written() -> None:
    assert place(NOTHING, [], ground(10, read=4), rules()) == (Mark(4, 300),)


def test_the_ends_of_what_is_written_go_before_all_else() -> None:
    marks = place(Choice(30, 20, 1.0, 1.0), [8, 9, 10], ground(31, slots=2, read=19), rules())
    assert marks == (Mark(20, 3600), Mark(30, 300))


def test_boundaries_too_short_for_an_entry_get_none() -> None:
    marks = place(Choice(9, -1, 1.0, 1.0), [2, 4], ground(10, floor=3), rules())
    assert marks == (Mark(4, 300), Mark(9, 300))


@pytest.mark.parametrize(
    ("client", "choice", "expected"),
    [
        pytest.param((Mark(9, 3600),), Choice(5, -1, 1.0, 1.0), 3600, id="before their hour"),
        pytest.param((Mark(2, 300),), Choice(-1, 5, 1.0, 1.0), 300, id="behind their five minutes"),
        pytest.param((Mark(2, 3600),), Choice(5, -1, 1.0, 1.0), 300, id="behind their hour"),
    ],
)
def test_lifetimes_stand_in_the_order_that_the_clients_leave(
    client: tuple[Mark, ...], choice: Choice, expected: int
) -> None:
    marks = place(choice, [], ground(10, client=client, slots=3), rules())
    assert marks == (Mark(5, expected),)


def test_without_slots_there_are_no_markers() -> None:
    assert place(Choice(9, -1, 1.0, 1.0), [4], ground(10, slots=0), rules()) == ()


@pytest.mark.parametrize(
    ("position", "marks", "found"),
    [(1, [19], True), (1, [20], False), (5, [3], False), (5, [4], True)],
)
def test_a_marker_looks_back_so_many_positions_itself_included(
    position: int, marks: list[int], found: bool
) -> None:
    places = list(range(1, 40))
    assert reaches(position, marks, places, 20) is found
