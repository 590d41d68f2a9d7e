"""The replicas of a pool: who may be asked, who comes and goes, and who hears of it."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.route import RoutePolicy
from gateway.upstream.backend import REFUSED, Source, State
from gateway.upstream.replicas import MOST, Replicas, Unfit
from tests.helpers.pools import NAMES, URLS, StandingClock, config_of, endpoint_of, pool_of

if TYPE_CHECKING:
    from gateway.upstream.backend import Backend

DNS = "http://vllm.models:8000/v1"


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def pool(clock: StandingClock) -> Replicas:
    return pool_of(clock)


class Heard:
    """Which hook was called for whom."""

    def __init__(self, pool: Replicas) -> None:
        self.calls: list[tuple[str, str]] = []
        for name in ("joined", "left", "unhealthy", "recovered", "emptied"):
            setattr(pool, f"on_{name}", self._hook(name))

    def _hook(self, what: str) -> object:
        return lambda backend: self.calls.append((what, backend.name))


def usable(pool: Replicas) -> list[str]:
    return [each.name for each in pool.usable()]


def eject(pool: Replicas, *names: str) -> None:
    for name in names:
        for _ in range(3):
            pool[name].failed("timeout", pool._monotonic())


def test_it_has_what_the_config_says(clock: StandingClock) -> None:
    routing = {"policy": "session", "break_s": 3, "keep_factor": 2, "cache_tokens": 5}
    pool = pool_of(clock, 2, routing=routing)
    assert (pool.engine, pool.endpoint.pool, len(pool)) == ("vllm", True, 2)
    assert pool.settings.policy is RoutePolicy.SESSION
    assert (pool.settings.break_s, pool.settings.keep_factor) == (3, 2)
    assert (pool.settings.cache_tokens, pool.settings.new_break_s) == (5, 5)
    assert [each.endpoint.base_url for each in pool] == list(URLS[:2])
    assert {each.endpoint.identity for each in pool} == {pool.endpoint.identity}
    assert not any(each.endpoint.pool for each in pool)
    assert repr(pool) == "<Replicas pool: 2 of 2 ready, 0 in flight>"


# -- who may be asked ----------------------------------------------------------------------------


def test_the_ready_ones_may_be_asked(pool: Replicas) -> None:
    eject(pool, NAMES[0])
    assert usable(pool) == [NAMES[1], NAMES[2]]
    pool.drain(NAMES[1])
    assert usable(pool) == [NAMES[2]]


def test_where_nobody_is_ready_whoever_is_not_draining_is_tried(pool: Replicas) -> None:
    eject(pool, *NAMES[:2])
    for _ in range(3):
        pool[NAMES[2]].probed("timeout")
    assert usable(pool) == list(NAMES[:3])
    pool.drain(NAMES[0])
    assert usable(pool) == [NAMES[1], NAMES[2]]


def test_one_that_is_only_cold_comes_before_those_that_are_ill(
    pool: Replicas, clock: StandingClock
) -> None:
    eject(pool, *NAMES[:2])
    pool[NAMES[2]].warming(clock.now + 10)
    assert usable(pool) == [NAMES[2]]


def test_where_all_are_draining_nobody_is_asked(pool: Replicas) -> None:
    for name in NAMES[:3]:
        pool.drain(name)
    assert usable(pool) == []


def test_asking_who_may_be_asked_takes_microseconds_for_each(clock: StandingClock) -> None:
    pool = pool_of(clock, 1)
    for number in range(511):
        pool.add(None, f"http://10.1.{number // 256}.{number % 256}:8000/v1")
        pool[f"10.1.{number // 256}.{number % 256}:8000"].probed(None)
    took = []
    for _ in range(21):
        began = time.perf_counter()
        found = len(pool.usable())
        took.append(time.perf_counter() - began)
        assert found == 512
    # About 0.1 ms; a shared machine gets ten times as much.
    assert sorted(took)[10] < 0.001


def test_retries_have_a_budget(pool: Replicas, clock: StandingClock) -> None:
    assert [pool.may_retry(clock.now) for _ in range(5)] == [True, True, True, False, False]
    for _ in range(50):
        pool.asked(clock.now)
    assert sum(pool.may_retry(clock.now) for _ in range(50)) == 7


# -- at run time ---------------------------------------------------------------------------------


def test_one_that_is_added_gets_requests_when_it_has_answered_and_is_warm(
    pool: Replicas,
) -> None:
    heard = Heard(pool)
    added = pool.add("new", URLS[3], 2.0)
    assert (added.source, added.weight, pool.nudge.is_set()) == (Source.ADMIN, 2.0, True)
    assert ("new" in usable(pool), heard.calls) == (False, [("joined", "new")])
    added.probed(None)
    assert (added.state, heard.calls[-1]) == (State.WARMING, ("emptied", "new"))
    added.warmed()
    assert "new" in usable(pool)


def test_without_probes_it_is_taken_at_its_word(clock: StandingClock) -> None:
    pool = pool_of(clock, health={"interval_s": 0})
    heard = Heard(pool)
    added = pool.add("new", URLS[3])
    assert heard.calls == [("joined", "new"), ("emptied", "new")]
    states = [added.state]
    clock.passes(10)
    assert [*states, added.state] == [State.WARMING, State.READY]


@pytest.mark.parametrize("routing", [{"warm_timeout_s": 0}, {"warm_tokens": 0}])
def test_warming_can_be_turned_off(clock: StandingClock, routing: dict[str, float]) -> None:
    pool = pool_of(clock, routing=routing)
    heard = Heard(pool)
    pool.restarted(NAMES[0])
    assert (pool[NAMES[0]].state, heard.calls) == (State.READY, [("emptied", NAMES[0])])


def test_where_nobody_warms_nobody_waits_for_it(pool: Replicas) -> None:
    pool.restarted(NAMES[0])
    assert pool[NAMES[0]].state is State.READY


def test_a_restart_that_probes_saw_empties_the_cache(pool: Replicas) -> None:
    heard = Heard(pool)
    for why in (REFUSED, REFUSED, REFUSED, None, None):
        pool[NAMES[0]].probed(why)
    assert [what for what, _ in heard.calls] == ["unhealthy", "recovered", "emptied"]
    assert pool[NAMES[0]].state is State.WARMING


def test_who_listens_and_fails_keeps_nobody_from_being_asked(pool: Replicas) -> None:
    def explodes(_: Backend) -> None:
        raise RuntimeError("a mistake of ours")

    pool.on_emptied = pool.on_joined = pool.on_left = explodes
    pool.restarted(NAMES[0])
    pool.add("new", URLS[3])
    pool.remove("new")
    assert usable(pool) == list(NAMES[:3])


def test_adding_one_that_is_there_changes_its_weight_and_ends_its_draining(
    pool: Replicas,
) -> None:
    pool.drain(NAMES[0])
    again = pool.add(NAMES[0], URLS[0], 3.0)
    assert again is pool[NAMES[0]]
    assert (again.weight, again.ready, len(pool)) == (3.0, True, 3)


@pytest.mark.parametrize(
    ("name", "url", "complaint"),
    [
        (NAMES[0], URLS[4], r"url: 10\.0\.0\.1:8000 is http://10\.0\.0\.1:8000/v1"),
        ("other", URLS[0], r"url: is the address of 10\.0\.0\.1:8000"),
        ("other", "http://10.0.0.1:8000/v1/", "url: is the address of"),
    ],
)
def test_what_contradicts_those_that_are_there_is_refused(
    pool: Replicas, name: str, url: str, complaint: str
) -> None:
    with pytest.raises(Unfit, match=complaint):
        pool.add(name, url)


def test_a_pool_that_delegates_keeps_its_one_address(clock: StandingClock) -> None:
    pool = pool_of(clock, 1, routing={"policy": "delegate"})
    with pytest.raises(Unfit, match="url: with policy delegate"):
        pool.add(None, URLS[1])


def test_a_pool_has_no_more_replicas_than_can_be_chosen_from(clock: StandingClock) -> None:
    pool = pool_of(clock, 0, dns=DNS)
    pool.resolved({f"gpu-{number}": f"http://gpu-{number}/v1" for number in range(MOST)})
    with pytest.raises(Unfit, match="name: the pool has"):
        pool.add(None, "http://one-more/v1")


def test_who_is_removed_ends_what_it_has_and_then_is_gone(pool: Replicas) -> None:
    heard = Heard(pool)
    closed: list[str] = []
    pool.on_forgotten = lambda endpoint: closed.append(endpoint.base_url)
    leaver = pool[NAMES[0]]
    leaver.in_flight = 2
    pool.remove(NAMES[0])
    pool.sweep()
    assert (NAMES[0] in pool, NAMES[0] in usable(pool), heard.calls) == (True, False, [])
    leaver.in_flight = 0
    pool.sweep()
    assert (NAMES[0] in pool, heard.calls) == (False, [("left", NAMES[0])])
    assert closed == [URLS[0]]


def test_who_is_removed_can_be_called_back(pool: Replicas) -> None:
    pool[NAMES[0]].in_flight = 1
    pool.remove(NAMES[0])
    pool.undrain(NAMES[0])
    pool[NAMES[0]].in_flight = 0
    pool.sweep()
    assert NAMES[0] in usable(pool)


def test_removed_at_once_it_is_forgotten_though_its_requests_run_on(pool: Replicas) -> None:
    leaver = pool[NAMES[0]]
    leaver.in_flight = 2
    pool.remove(NAMES[0], at_once=True)
    assert (NAMES[0] in pool, leaver.in_flight) == (False, 2)


def test_draining_only_waits(pool: Replicas) -> None:
    pool.drain(NAMES[0])
    pool.sweep()
    assert (NAMES[0] in pool, pool[NAMES[0]].state) == (True, State.DRAINING)
    pool.undrain(NAMES[0])
    assert pool[NAMES[0]].ready


@pytest.mark.parametrize("act", ["drain", "undrain", "remove"])
def test_who_is_not_there_is_a_key_error(pool: Replicas, act: str) -> None:
    with pytest.raises(KeyError):
        getattr(pool, act)("nobody")


# -- DNS -----------------------------------------------------------------------------------------


def found(*numbers: int) -> dict[str, str]:
    return {NAMES[number]: URLS[number] for number in numbers}


@pytest.fixture
def named(clock: StandingClock) -> Replicas:
    return pool_of(clock, 0, dns=DNS)


def test_the_first_answer_is_believed_to_have_been_there_before(named: Replicas) -> None:
    heard = Heard(named)
    named.resolved(found(0, 1))
    assert usable(named) == list(NAMES[:2])
    assert heard.calls == [("joined", NAMES[0]), ("joined", NAMES[1])]
    assert {each.source for each in named} == {Source.DNS}


def test_later_ones_must_answer_first(named: Replicas) -> None:
    named.resolved(found(0))
    named.resolved(found(0, 1))
    assert usable(named) == [NAMES[0]]
    named[NAMES[1]].probed(None)
    assert usable(named) == list(NAMES[:2])


def test_they_are_addressed_by_the_name_and_not_by_the_number(named: Replicas) -> None:
    named.resolved(found(0))
    endpoint = named[NAMES[0]].endpoint
    assert (endpoint.base_url, endpoint.authority) == (URLS[0], "vllm.models:8000")


def test_an_address_that_is_gone_ends_what_it_has(named: Replicas) -> None:
    named.resolved(found(0, 1, 2))
    named[NAMES[0]].in_flight = 1
    named.resolved(found(2))
    assert ([each.name for each in named], usable(named)) == ([NAMES[0], NAMES[2]], [NAMES[2]])
    named[NAMES[0]].in_flight = 0
    named.sweep()
    assert [each.name for each in named] == [NAMES[2]]


def test_an_address_that_comes_back_meanwhile_is_used_on(named: Replicas) -> None:
    named.resolved(found(0, 1))
    named[NAMES[0]].in_flight = 1
    named.resolved(found(1))
    named.resolved(found(0, 1))
    assert usable(named) == list(NAMES[:2])


def test_a_failure_takes_nobody_away(named: Replicas) -> None:
    named.resolved(found(0, 1))
    for _ in range(100):
        named.unresolved("timeout")
    assert usable(named) == list(NAMES[:2])
    assert named.told()["dns"] == {"url": DNS, "failure": "timeout"}


def test_three_empty_answers_take_away_only_who_fails_its_probes_too(named: Replicas) -> None:
    named.resolved(found(0, 1))
    for _ in range(3):
        named[NAMES[0]].probed("refused")
    for _ in range(2):
        named.unresolved("no addresses", is_empty=True)
    named.unresolved("timeout")  # a failure is no third
    for _ in range(2):
        named.unresolved("no addresses", is_empty=True)
    assert len(named) == 2
    named.unresolved("no addresses", is_empty=True)
    assert [each.name for each in named] == [NAMES[1]]
    named.resolved(found(1))
    assert named.told()["dns"]["failure"] is None


def test_what_an_operator_removed_dns_does_not_bring_back(named: Replicas) -> None:
    named.resolved(found(0, 1))
    named.remove(NAMES[0])
    named.resolved(found(0, 1))
    assert NAMES[0] not in named
    named.resolved(found(1))  # the pod is gone
    named.resolved(found(0, 1))  # and another has its address
    assert NAMES[0] in named


def test_what_an_operator_removed_he_can_bring_back(named: Replicas) -> None:
    named.resolved(found(0, 1))
    named.remove(NAMES[0])
    named.add(NAMES[0], URLS[0])
    assert NAMES[0] in named


def test_what_the_config_lists_dns_takes_for_its_own_neither_way(clock: StandingClock) -> None:
    pool = pool_of(clock, 2, dns=DNS)
    pool.resolved(found(0, 4))
    pool.resolved(found(5))
    assert {each.name for each in pool} == {NAMES[0], NAMES[1], NAMES[5]}
    assert pool[NAMES[0]].source is Source.CONFIG


def test_more_addresses_than_can_be_used_are_cut_in_order(named: Replicas) -> None:
    urls = {f"h{number:05}": f"http://h{number:05}/v1" for number in range(MOST + 10)}
    named.resolved(urls)
    named.resolved(urls)
    assert [each.name for each in named] == sorted(urls)[:MOST]


def test_whatever_happens_the_books_agree(clock: StandingClock) -> None:
    """No order of events leaves a replica both gone and known, or counts below nothing."""
    for seed in range(200):
        dice = random.Random(seed)
        pool = pool_of(clock, 2, dns=DNS)
        heard = Heard(pool)
        names = {each.name for each in pool}
        for _ in range(60):
            clock.passes(dice.choice((0, 0.5, 5, 40)))
            here = [each.name for each in pool]
            match dice.randrange(8):
                case 0:
                    pool.resolved(found(*dice.sample(range(8), dice.randint(1, 5))))
                case 1:
                    pool.unresolved("no addresses", is_empty=dice.random() < 0.7)
                case 2 if here:
                    pool.remove(dice.choice(here), at_once=dice.random() < 0.3)
                case 3 if here:
                    pool.drain(dice.choice(here))
                case 4 if here:
                    pool.undrain(dice.choice(here))
                case 5 if here:
                    pool[dice.choice(here)].probed(dice.choice((None, None, "timeout", REFUSED)))
                case 6 if here:
                    one = pool[dice.choice(here)]
                    one.failed(dice.choice(("timeout", REFUSED)), clock.now)
                case 7 if here:
                    one = pool[dice.choice(here)]
                    one.in_flight = dice.randint(0, 2)
                    one.succeeded(clock.now)
            pool.sweep()
            may = pool.usable()
            assert all(pool[each.name] is each and not each.draining for each in may)
            assert bool(may) == any(not each.draining for each in pool)
        for what, name in heard.calls:
            if what == "joined":
                assert name not in names
                names.add(name)
            elif what == "left":
                names.remove(name)
        assert names == {each.name for each in pool}


# --- another config ------------------------------------------------------------------------------


def turned(pool: Replicas, before: dict[str, Any], after: dict[str, Any]) -> None:
    one, two = config_of(before), config_of(after)
    pool.changed(one.upstreams["pool"], two.upstreams["pool"], endpoint_of(after))


def test_another_config_has_who_is_listed_and_leaves_the_rest_as_operators_left_it(
    clock: StandingClock,
) -> None:
    before = {"engine": "vllm", "backends": list(URLS[:3])}
    after = {
        "engine": "vllm",
        "backends": [URLS[0], {"url": URLS[1], "weight": 3}, URLS[3]],
        "api_key": "sk-new",
        "health": {"eject_after": 9},
    }
    pool = pool_of(clock, 3)
    pool.drain(NAMES[0])
    pool.add("extra", URLS[5])
    pool[NAMES[2]].in_flight = 1
    joined: list[str] = []
    pool.on_joined = lambda backend: joined.append(backend.name)

    turned(pool, before, after)

    assert [each.name for each in pool] == [*NAMES[:3], "extra", NAMES[3]]
    assert joined == [NAMES[3]]
    assert pool[NAMES[0]].draining
    assert pool[NAMES[1]].weight == 3
    assert pool[NAMES[2]].leaving
    assert {each.endpoint.api_key for each in pool} == {"sk-new"}
    pool[NAMES[2]].in_flight = 0
    pool.sweep()
    assert NAMES[2] not in pool


def test_a_replica_that_is_somewhere_else_now_is_another_one(clock: StandingClock) -> None:
    def at(url: str) -> dict[str, Any]:
        return {"engine": "vllm", "backends": [{"name": "a", "url": url}]}

    config = config_of(at(URLS[0]))
    pool = Replicas("pool", config.upstreams["pool"], endpoint_of(at(URLS[0])), clock)
    first = pool["a"]

    turned(pool, at(URLS[0]), at(URLS[1]))

    assert pool["a"] is not first
    assert pool["a"].endpoint.base_url == URLS[1]


def test_a_replica_that_is_listed_under_another_name_is_not_there_twice(
    clock: StandingClock,
) -> None:
    def named(name: str) -> dict[str, Any]:
        return {"engine": "vllm", "backends": [{"name": name, "url": URLS[0]}]}

    config = config_of(named("a"))
    pool = Replicas("pool", config.upstreams["pool"], endpoint_of(named("a")), clock)

    turned(pool, named("a"), named("b"))

    assert [each.name for each in pool] == ["b"]


def test_one_that_comes_back_while_it_leaves_stays(clock: StandingClock) -> None:
    both = {"engine": "vllm", "backends": list(URLS[:2])}
    one = {"engine": "vllm", "backends": list(URLS[:1])}
    pool = pool_of(clock, 2)
    second = pool[NAMES[1]]
    second.in_flight = 1

    turned(pool, both, one)
    turned(pool, one, both)

    assert pool[NAMES[1]] is second
    assert (second.draining, second.leaving) == (False, False)
