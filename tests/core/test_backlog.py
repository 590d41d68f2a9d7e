"""What waits at a replica, what is late, and how fast it computes."""

from __future__ import annotations

import pytest

from gateway.core.backlog import GRACE_S, MOST_GRACE_S, MOST_PENDING, Backlog, Pace, Patience

RATE = 100.0


def test_what_is_sent_waits_in_line_and_is_worked_off_as_time_goes_by() -> None:
    backlog = Backlog()
    backlog.sent("a", 300, 10.0, RATE)
    backlog.sent("b", 200, 11.0, RATE)
    assert [backlog.wait(now) for now in (11.0, 12.0, 13.5)] == [4.0, 3.0, 1.5]


def test_an_early_first_byte_shortens_the_line_and_a_late_one_lengthens_it() -> None:
    backlog = Backlog()
    backlog.sent("a", 300, 0.0, RATE)
    backlog.sent("b", 200, 0.0, RATE)
    assert backlog.begun("a", 1.0, RATE) == -2.0
    assert backlog.wait(1.0) == 2.0
    assert backlog.begun("b", 7.0, RATE) == 4.0
    assert backlog.wait(7.0) == 0.0


def test_one_that_doesnt_answer_costs_more_with_every_second() -> None:
    backlog = Backlog()
    backlog.sent("a", 100, 0.0, RATE)
    assert backlog.wait(1.0 + GRACE_S) == 0.0
    assert backlog.wait(11.0) == 10.0 - GRACE_S
    assert backlog.wait(11.0, 4.0) == 6.0
    backlog.gone("a", 11.0, RATE)
    assert backlog.wait(11.0) == 0.0


def test_what_is_behind_a_late_one_is_awaited_from_when_that_came() -> None:
    backlog = Backlog()
    backlog.sent("a", 100, 0.0, RATE)
    backlog.sent("b", 100, 0.0, RATE)
    backlog.begun("a", 10.0, RATE)
    assert backlog.due_at == 11.0
    backlog.gone("b", 10.5, RATE)
    assert backlog.due_at == float("inf")


def test_one_that_was_overtaken_says_nothing_of_those_that_come_after() -> None:
    backlog = Backlog()
    backlog.sent("stuck", 100, 0.0, RATE)
    backlog.sent("b", 100, 0.0, RATE)
    backlog.begun("b", 2.0, RATE)
    assert backlog.wait(500.0) == 0.0
    assert len(backlog) == 1


def test_an_answer_that_comes_whole_is_never_late_and_lengthens_nothing() -> None:
    backlog = Backlog()
    backlog.sent("whole", 100, 0.0, RATE, tells=False)
    assert backlog.wait(60.0) == 0.0
    backlog.sent("b", 500, 60.0, RATE)
    backlog.begun("whole", 61.0, RATE)
    assert backlog.wait(61.0) == 4.0


def test_answers_that_come_whole_are_not_counted_while_they_are_written() -> None:
    backlog = Backlog()
    backlog.sent("own", 100, 0.0, RATE)
    for key in range(5):
        backlog.sent(key, 100, 0.0, RATE, tells=False)
    backlog.sent("b", 100, 50.0, RATE)
    backlog.begun("own", 50.0, RATE)
    assert backlog.wait(50.0) == 1.0


def test_what_is_not_watched_is_computed_when_one_behind_it_begins() -> None:
    backlog = Backlog()
    backlog.sent("other", 900, 0.0, RATE, watched=False)
    backlog.sent("own", 100, 0.0, RATE)
    backlog.begun("own", 1.0, RATE)
    assert (backlog.wait(1.0), len(backlog)) == (0.0, 0)


def test_what_is_not_watched_corrects_the_line_when_it_begins() -> None:
    backlog = Backlog()
    backlog.sent("other", 100, 0.0, RATE, watched=False)
    backlog.sent("own", 100, 0.0, RATE)
    assert backlog.begun("other", 5.0, RATE) is None
    assert backlog.wait(5.0) == 1.0


def test_calls_for_what_is_not_pending_change_nothing() -> None:
    backlog = Backlog()
    backlog.sent("a", 100, 0.0, RATE)
    backlog.begun("x", 0.5, RATE)
    backlog.gone("x", 0.5, RATE)
    assert backlog.wait(0.0) == 1.0


def test_so_many_are_pending_at_most() -> None:
    backlog = Backlog()
    for key in range(MOST_PENDING + 50):
        backlog.sent(key, 1, 0.0, RATE)
    assert len(backlog) == MOST_PENDING


def test_patience_grows_with_how_late_answers_usually_are_up_to_a_bound() -> None:
    patience = Patience()
    assert patience.seconds == GRACE_S
    patience.saw(None)
    patience.saw(-3.0)
    assert patience.seconds == GRACE_S
    for _ in range(200):
        patience.saw(2.0)
    assert patience.seconds == pytest.approx(GRACE_S + 4.0, rel=0.01)
    for _ in range(200):
        patience.saw(1000.0)
    assert patience.seconds == MOST_GRACE_S


def test_a_rate_is_approached_from_what_was_thought_before() -> None:
    pace = Pace()
    assert pace.rate == 0.0
    pace.saw(1000, 0.5, 1000.0, is_sure=True)
    assert 1000.0 < pace.rate < 1500.0
    for _ in range(63):
        pace.saw(1000, 0.5, 1000.0, is_sure=True)
    assert pace.rate == pytest.approx(2000.0, rel=0.04)


@pytest.mark.parametrize(("slow", "is_sure", "expected"), [(5, True, 2000.0), (5, False, 200.0)])
def test_what_waited_for_unseen_others_is_not_taken_for_slowness(
    slow: int, is_sure: bool, expected: float
) -> None:
    pace = Pace()
    for n in range(64):
        seconds = 5.0 if n % 8 < slow else 0.5
        pace.saw(1000, seconds, 2000.0 if is_sure else 200.0, is_sure=is_sure)
    assert pace.rate == pytest.approx(expected, rel=0.05)


def test_a_replica_that_became_slower_is_found_slower() -> None:
    pace = Pace()
    for _ in range(64):
        pace.saw(1000, 0.5, 1000.0, is_sure=True)
    for _ in range(64):
        pace.saw(1000, 4.0, 1000.0, is_sure=True)
    assert pace.rate == pytest.approx(250.0, rel=0.25)


@pytest.mark.parametrize(("tokens", "seconds"), [(0, 1.0), (63, 1.0), (1000, -1.0)])
def test_what_can_tell_nothing_of_the_rate_is_left_out(tokens: int, seconds: float) -> None:
    pace = Pace()
    pace.saw(tokens, seconds, 100.0, is_sure=True)
    assert pace.rate == 0.0
