"""Which credentials an upstream has accepted or refused lately."""

from __future__ import annotations

import pytest

from gateway.acceptance import REFUSALS, Acceptance


class Timer:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_was_never_seen_is_not_proven() -> None:
    assert not Acceptance(10, Timer()).proven(b"a")


@pytest.mark.parametrize("status", [200, 201, 299])
def test_a_success_proves_one_credential_and_no_other(status: int) -> None:
    acceptance = Acceptance(10, Timer())
    acceptance.learn(b"a", status)
    assert acceptance.proven(b"a")
    assert not acceptance.proven(b"b")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_takes_it_back_until_the_next_success(status: int) -> None:
    acceptance = Acceptance(10, Timer())
    acceptance.learn(b"a", 200)
    acceptance.learn(b"a", status)
    assert not acceptance.proven(b"a")
    acceptance.learn(b"a", 200)
    assert acceptance.proven(b"a")


@pytest.mark.parametrize("status", [101, 302, 400, 404, 429, 500, 529])
def test_anything_else_says_nothing_about_the_credential(status: int) -> None:
    acceptance = Acceptance(10, Timer())
    acceptance.learn(b"a", status)
    assert not acceptance.proven(b"a")
    acceptance.learn(b"a", 200)
    acceptance.learn(b"a", status)
    assert acceptance.proven(b"a")


def test_where_a_success_proves_nothing_only_a_refusal_counts() -> None:
    acceptance = Acceptance(60, lambda: 0.0)
    acceptance.learn(b"a", 200)
    acceptance.learn_refusal(b"a")
    assert not acceptance.proven(b"a")
    assert REFUSALS == {401, 403}


def test_both_are_forgotten_after_their_time() -> None:
    timer = Timer()
    acceptance = Acceptance(10, timer)
    acceptance.learn(b"a", 200)
    timer.now = 9.9
    assert acceptance.proven(b"a")
    timer.now = 10.1
    assert not acceptance.proven(b"a")
    # A success in between begins a new time.
    acceptance.learn(b"a", 200)
    timer.now = 18.0
    acceptance.learn(b"a", 200)
    timer.now = 25.0
    assert acceptance.proven(b"a")


def test_the_memory_is_bounded() -> None:
    acceptance = Acceptance(10, Timer(), entries=3)
    for number in range(10):
        acceptance.learn(bytes([number]), 200)
    assert sum(acceptance.proven(bytes([number])) for number in range(10)) == 3
