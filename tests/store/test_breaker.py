from __future__ import annotations

from gateway.store.breaker import Breaker


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock) -> Breaker:
    breaker = Breaker(clock, failures=3, span_s=0.0625, open_s=1.0)
    for _ in range(3):
        breaker.failed()
    clock.now += 0.0625
    assert breaker.failed() is True
    return breaker


def test_it_stays_closed_when_many_fail_in_the_same_instant() -> None:
    breaker = Breaker(Clock(), failures=3, span_s=0.05)
    assert [breaker.failed() for _ in range(64)] == [False] * 64
    assert breaker.enter()


def test_it_stays_closed_when_few_fail_over_a_long_time() -> None:
    clock = Clock()
    breaker = Breaker(clock, failures=3, span_s=0.05)
    breaker.failed()
    clock.now += 10
    assert breaker.failed() is False
    assert breaker.enter()


def test_a_success_in_between_starts_the_count_anew() -> None:
    clock = Clock()
    breaker = Breaker(clock, failures=3, span_s=0.05)
    for _ in range(10):
        breaker.failed()
        breaker.failed()
        clock.now += 1
        assert breaker.succeeded() is False
    assert not breaker.is_open


def test_an_open_breaker_lets_one_probe_through_after_its_pause() -> None:
    clock = Clock()
    breaker = broken(clock)
    assert breaker.enter() is False
    clock.now += 0.9375
    assert breaker.enter() is False
    clock.now += 0.0625
    assert [breaker.enter() for _ in range(3)] == [True, False, False]


def test_a_probe_that_fails_prolongs_the_pause_without_news() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 1
    assert breaker.enter()
    assert breaker.failed() is False
    assert breaker.enter() is False
    clock.now += 1
    assert breaker.enter() is True


def test_a_probe_that_succeeds_closes_it() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 1
    assert breaker.enter()
    assert breaker.succeeded() is True
    assert [breaker.enter() for _ in range(3)] == [True, True, True]
    assert repr(breaker) == "<Breaker closed, 0 failures in a row>"


def test_a_probe_whose_caller_went_away_makes_room_for_the_next() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 1
    assert breaker.enter()
    breaker.abandoned()
    assert breaker.enter() is True
