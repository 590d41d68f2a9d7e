"""Unguessable bytes by the page."""

from __future__ import annotations

from gateway.randomness import Randomness


def test_as_many_as_are_wanted_and_never_the_same() -> None:
    random = Randomness()
    taken = [random(16) for _ in range(2000)]
    assert {len(each) for each in taken} == {16}
    assert len(set(taken)) == 2000


def test_more_than_a_page_and_none() -> None:
    random = Randomness()
    random(4000)
    assert len(random(200)) == 200
    assert len(random(10_000)) == 10_000
    assert random(0) == b""
