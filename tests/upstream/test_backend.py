"""One replica: when it is trusted, left alone, tried again, and known to have begun anew."""

from __future__ import annotations

import aiohttp
import pytest

from gateway.config.pools import Health
from gateway.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from gateway.upstream.backend import REFUSED, Backend, Change, State, failure_of
from tests.helpers.pools import NAMES, URLS, StandingClock, endpoint_of

Told = list[Change]


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def backend(clock: StandingClock, told: Told) -> Backend:
    return made(clock, told)


def made(clock: StandingClock, told: Told, **health: object) -> Backend:
    endpoint = endpoint_of({"engine": "vllm", "backends": [URLS[0]]})
    return Backend(
        NAMES[0],
        endpoint,
        Health.model_validate(health),
        clock,
        tell=lambda _, change: told.append(change),
    )


def fails(backend: Backend, clock: StandingClock, times: int = 3, why: str = "timeout") -> None:
    for _ in range(times):
        backend.failed(why, clock.now)


# -- requests ------------------------------------------------------------------------------------


def test_a_replica_is_ready_until_three_requests_in_a_row_failed(
    backend: Backend, clock: StandingClock, told: Told
) -> None:
    fails(backend, clock, 2)
    backend.succeeded(clock.now)
    fails(backend, clock, 2)
    assert (backend.ready, told) == (True, [])
    fails(backend, clock, 1)
    assert (backend.ready, backend.state, told) == (False, State.EJECTED, [Change.EJECTED])
    assert backend.ejected_for_s == 10.0


def test_it_is_left_alone_twice_as_long_each_time_until_the_most(
    backend: Backend, clock: StandingClock
) -> None:
    fails(backend, clock)
    spells = []
    for _ in range(8):
        spells.append(backend.ejected_for_s)
        clock.passes(backend.ejected_for_s)
        assert backend.state is State.TRIAL
        fails(backend, clock, 1)
    assert spells == [10, 20, 40, 80, 160, 300, 300, 300]


def test_one_request_at_a_time_is_let_through_to_try_it(
    backend: Backend, clock: StandingClock, told: Told
) -> None:
    backend.in_flight = 2  # streams that began before
    fails(backend, clock)
    clock.passes(9.9)
    assert not backend.ready
    clock.passes(0.1)
    assert backend.ready
    backend.in_flight += 1  # the trial
    assert [backend.ready, backend.ready] == [False, False]
    backend.in_flight -= 1  # its client went away: nothing is known, so another may try
    assert backend.ready
    backend.in_flight -= 2
    assert backend.ready
    backend.in_flight += 1
    assert not backend.ready
    backend.succeeded(clock.now)
    assert (backend.ready, backend.state) == (True, State.READY)
    assert told == [Change.EJECTED, Change.RECOVERED]


def test_what_was_sent_before_it_was_left_alone_decides_nothing(
    backend: Backend, clock: StandingClock, told: Told
) -> None:
    fails(backend, clock)
    clock.passes(1)
    backend.succeeded(clock.now)
    fails(backend, clock, 5)
    assert (backend.state, backend.ejected_for_s, told) == (State.EJECTED, 9.0, [Change.EJECTED])


def test_a_good_while_after_its_recovery_the_doubling_begins_anew(
    backend: Backend, clock: StandingClock
) -> None:
    def recovers() -> None:
        clock.passes(backend.ejected_for_s)
        backend.succeeded(clock.now)

    fails(backend, clock)
    recovers()
    clock.passes(299)
    fails(backend, clock)
    assert backend.ejected_for_s == 20
    recovers()
    clock.passes(301)
    fails(backend, clock)
    assert backend.ejected_for_s == 10


def test_who_breaks_off_each_answer_is_left_alone_though_each_began_well(
    backend: Backend, clock: StandingClock, told: Told
) -> None:
    for _ in range(3):
        assert backend.ready
        backend.succeeded(clock())
        backend.broke_off("broken", clock())
    assert backend.state is State.EJECTED
    assert backend.told()["failures_in_a_row"] == 3
    clock.now += 10.0
    backend.succeeded(clock())
    assert backend.ready
    backend.broke_off("broken", clock())
    assert backend.ejected_for_s == pytest.approx(20.0)


def test_an_answer_that_ends_forgives_those_that_broke_off(
    backend: Backend, clock: StandingClock
) -> None:
    for _ in range(5):
        for _ in range(2):
            backend.succeeded(clock())
            backend.broke_off("broken", clock())
        backend.succeeded(clock())
        backend.ended()
    assert backend.ready


def test_requests_eject_nobody_where_the_config_says_so(clock: StandingClock, told: Told) -> None:
    backend = made(clock, told, eject_after=0)
    fails(backend, clock, 1000)
    assert (backend.ready, told) == (True, [])


# -- probes --------------------------------------------------------------------------------------


def test_three_failed_probes_make_it_unhealthy_and_two_good_ones_well(
    backend: Backend, told: Told
) -> None:
    seen = []
    for why in ("timeout", "timeout", None, "timeout", "timeout", "status 503", None, None):
        backend.probed(why)
        seen.append(backend.ready)
    assert seen == [True, True, True, True, True, False, False, True]
    assert told == [Change.UNHEALTHY, Change.HEALTHY]


def test_a_probe_touches_no_count_of_requests(backend: Backend) -> None:
    backend.in_flight = 7
    for why in ("timeout", None) * 10:
        backend.probed(why)
    assert (backend.in_flight, backend.failures) == (7, 0)


def test_a_good_probe_does_not_end_what_failed_requests_began(
    backend: Backend, clock: StandingClock
) -> None:
    fails(backend, clock)
    for _ in range(10):
        backend.probed(None)
    assert backend.state is State.EJECTED


# -- an empty cache ------------------------------------------------------------------------------


def test_who_refused_a_connection_and_answers_again_began_anew(
    backend: Backend, clock: StandingClock, told: Told
) -> None:
    backend.probed(REFUSED)
    backend.probed(None)
    backend.probed(None)
    assert told == [Change.BEGAN_ANEW]
    backend.failed(REFUSED, clock.now)
    backend.succeeded(clock.now)
    assert told == [Change.BEGAN_ANEW] * 2


def test_who_only_was_silent_still_holds_its_cache(backend: Backend, told: Told) -> None:
    for why in ("timeout", "timeout", "timeout", None, None):
        backend.probed(why)
    assert told == [Change.UNHEALTHY, Change.HEALTHY]


def test_who_was_restarted_is_well_before_it_is_told_to_be_empty(
    backend: Backend, told: Told
) -> None:
    for why in (REFUSED, REFUSED, REFUSED, None, None):
        backend.probed(why)
    assert told == [Change.UNHEALTHY, Change.HEALTHY, Change.BEGAN_ANEW]


def test_another_process_does_not_serve_the_time_of_the_one_before(
    backend: Backend, clock: StandingClock
) -> None:
    fails(backend, clock, why=REFUSED)
    backend.probed(None)
    assert backend.ready
    # But one that falls again and again is left alone for longer and longer.
    fails(backend, clock, why=REFUSED)
    assert backend.ejected_for_s == 20


def test_who_was_only_named_must_answer_once(backend: Backend, told: Told) -> None:
    backend.unproven()
    assert (backend.ready, backend.state) == (False, State.UNHEALTHY)
    backend.probed(REFUSED)
    backend.probed(None)
    assert (backend.ready, told) == (True, [Change.BEGAN_ANEW])


def test_warming_ends_when_it_is_said_or_when_its_time_is_over(
    backend: Backend, clock: StandingClock
) -> None:
    backend.warming(clock.now + 10)
    assert (backend.ready, backend.state) == (False, State.WARMING)
    backend.warmed()
    assert backend.ready
    backend.warming(clock.now + 10)
    clock.passes(10)
    assert backend.ready


# -- words ---------------------------------------------------------------------------------------


def unreachable(cause: Exception) -> UpstreamUnreachable:
    error = UpstreamUnreachable("it can't be reached")
    error.__cause__ = cause
    return error


def connector_error(cause: OSError) -> aiohttp.ClientConnectorError:
    error = aiohttp.ClientConnectorError.__new__(aiohttp.ClientConnectorError)
    error._os_error = cause
    return error


@pytest.mark.parametrize(
    ("problem", "word"),
    [
        (unreachable(connector_error(ConnectionRefusedError())), REFUSED),
        (unreachable(connector_error(OSError("no route to host"))), "unreachable"),
        (unreachable(aiohttp.ConnectionTimeoutError()), "unreachable"),
        (UpstreamTimeout("silent"), "timeout"),
        (TimeoutError(), "timeout"),
        (UpstreamBroken("reset"), "broken"),
        (ValueError("odd"), "ValueError"),
    ],
)
def test_a_failure_has_a_short_word(problem: BaseException, word: str) -> None:
    assert failure_of(problem) == word


def test_it_tells_what_it_is(backend: Backend, clock: StandingClock) -> None:
    backend.in_flight = 2
    backend.succeeded(clock.now)
    fails(backend, clock)
    assert backend.told() == {
        "name": NAMES[0],
        "url": URLS[0],
        "weight": 1.0,
        "source": "config",
        "state": "ejected",
        "leaving": False,
        "in_flight": 2,
        "recent": {"requests": 4, "failed": 3},
        "failures_in_a_row": 3,
        "last_failure": "timeout",
        "ejected_for_s": 10.0,
    }
    assert repr(backend) == f"<Backend {NAMES[0]} ejected, 2 in flight>"
