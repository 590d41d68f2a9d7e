"""One pool's router: whom it names, what it counts, and that nothing in it can fail a request."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.cache import Clock
from gateway.core.affinity import Affinity
from gateway.core.model import Answer, Finish, Form, Usage
from gateway.core.route import Branch, Wish
from gateway.core.route_records import RecordKind, RouteRecord, decode, encode
from gateway.core.trail import Trail
from gateway.errors import UpstreamUnreachable
from gateway.journey import Journey
from gateway.router import Router
from tests.helpers.pools import NAMES, StandingClock, pool_of

TRAIL = Trail(tuple(range(1, 11)), tuple(range(200, 2200, 200)))


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


def router_of(clock: StandingClock, count: int = 3, **settings: Any) -> Router:
    replicas = pool_of(clock, count, **settings)
    affinity = Affinity(replicas.settings)
    for each in replicas:
        affinity.joined(each.name)
    return Router(replicas, affinity, Clock(now=clock, monotonic=clock), lambda: 0.5)


def chat(trail: Trail = TRAIL, session: int = 0) -> Journey:
    return Journey(api="openai_chat", wish=Wish(trail, session), streams=True)


def answered(cached: int, *, response_id: str = "") -> Answer:
    usage = Usage(uncached_input=2000 - cached, cache_read=cached, output=5)
    return Answer(Form.BODY, b"{}", Finish.COMPLETE, usage=usage, response_id=response_id)


def went(router: Router, journey: Journey, answer: Answer | None = None) -> str:
    """It goes to the best, which answers."""
    route = router.route(journey)
    backend = route.order[0]
    journey.went(backend.name, route.branch)
    router.sent(journey, route, backend)
    router.begun(journey)
    backend.in_flight -= 1
    router.learn(journey, answer)
    return backend.name


def test_a_prompt_goes_where_its_beginning_went(clock: StandingClock) -> None:
    router = router_of(clock)
    home = went(router, chat(), answered(0))
    longer = Trail((*TRAIL.prints, 77), (*TRAIL.ends, 2300))
    route = router.route(chat(longer))
    assert (route.order[0].name, route.branch) == (home, Branch.EXTENDED)
    assert len(route.order) == 3


def test_what_has_no_prompt_goes_to_whom_has_least_to_do_for_its_weight(
    clock: StandingClock,
) -> None:
    router = router_of(clock)
    for name, busy in zip(NAMES, (3, 1, 2), strict=False):
        router.replicas[name].in_flight = busy
    assert [each.name for each in router.route(Journey()).order] == [NAMES[1], NAMES[2], NAMES[0]]
    router.replicas[NAMES[0]].weight = 4.0
    assert router.route(Journey()).order[0].name == NAMES[0]
    assert router.route(Journey()).branch is Branch.SPREAD


def test_without_replicas_the_client_hears_that_there_are_none(clock: StandingClock) -> None:
    router = router_of(clock)
    for name in NAMES[:3]:
        router.replicas.drain(name)
    with pytest.raises(UpstreamUnreachable, match="'pool' has no replica"):
        router.route(chat())


def test_a_decision_that_fails_costs_its_advice_and_is_logged_once_a_minute(
    clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = router_of(clock)

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    for name in ("place", "sent", "begun", "learn", "over", "heard", "told"):
        monkeypatch.setattr(router.affinity, name, broken)
    with capture_logs() as logs:
        chosen = [went(router, chat(), answered(0)) for _ in range(9)]
        clock.passes(61)
        router.heard(RouteRecord(RecordKind.PLACED, 1, 1, NAMES[0], clock.now, TRAIL))
    assert {name: chosen.count(name) for name in NAMES[:3]} == dict.fromkeys(NAMES[:3], 3)
    assert [each["event"] for each in logs] == ["routing failed"] * 2
    assert set(router.told()) == set(NAMES[:3])


def test_an_engine_that_never_tells_its_cached_tokens_is_named_once_with_the_flag(
    clock: StandingClock,
) -> None:
    router = router_of(clock)
    with capture_logs() as logs:
        for _ in range(40):
            went(router, chat(), answered(0))
    [line] = [each for each in logs if "cached" in each["event"]]
    assert line["upstream"] == "pool"
    assert "--enable-prompt-tokens-details" in line["mend"]
    assert sum(each["reported_tokens"] for each in router.told().values()) == 0


def test_nothing_cached_is_only_believed_of_who_has_told_before(clock: StandingClock) -> None:
    router = router_of(clock)
    home = went(router, chat(), answered(0))
    # vLLM leaves 0 out, and says nothing at all without its flag: this is no word that it is gone.
    assert went(router, chat(), answered(0)) == home
    assert router.told()[home]["mirror_tokens"] == 2000
    went(router, chat(), answered(1990))
    assert router.told()[home]["mirror_tokens"] == 2000
    assert went(router, chat(), answered(0)) == home
    assert router.told()[home]["reported_tokens"] == 1990


def test_what_one_api_tells_says_nothing_of_another(clock: StandingClock) -> None:
    router = router_of(clock)
    home = went(router, chat(), answered(1990))
    other = Journey(api="anthropic_messages", wish=Wish(TRAIL), streams=True)
    went(router, other, answered(0))
    assert router.told()[home]["reported_tokens"] == 1990
    assert router.told()[home]["mirror_tokens"] == 2000


def test_a_request_that_never_began_to_answer_left_nothing_there(clock: StandingClock) -> None:
    router = router_of(clock)
    journey = chat()
    route = router.route(journey)
    router.sent(journey, route, route.order[0])
    assert router.told()[route.order[0].name]["mirror_tokens"] == 2000
    router.over(journey)
    assert router.told()[route.order[0].name]["mirror_tokens"] == 0
    router.over(journey)


def test_who_made_a_response_is_remembered_and_asked_for_what_continues_it(
    clock: StandingClock,
) -> None:
    router = router_of(clock)
    journey = chat()
    journey.api = "openai_responses"
    home = went(router, journey, answered(0, response_id="resp_1"))
    assert router.owner("resp_1") == home
    assert router.owner("resp_2") == ""
    other = Trail((99,), (500,))
    for name in NAMES[:3]:
        router.replicas[name].in_flight = 0 if name != home else 5
    follows = Journey(api="openai_responses", wish=Wish(other), owner=home)
    route = router.route(follows)
    assert (route.order[0].name, route.branch) == (home, Branch.HOME)
    assert {each.name for each in route.order} == set(NAMES[:3])
    router.replicas.drain(home)
    route = router.route(follows)
    assert route.order[0].name != home
    assert route.branch is Branch.MOVED_HEALTH


def test_responses_that_are_remembered_are_bounded(
    clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.router._MOST_OWNERS", 3)
    router = router_of(clock)
    for n in range(10):
        journey = chat()
        journey.api = "openai_responses"
        went(router, journey, answered(0, response_id=f"resp_{n}"))
    assert [bool(router.owner(f"resp_{n}")) for n in range(10)] == [False] * 7 + [True] * 3


def test_other_gateways_are_told_of_each_step_and_heard(clock: StandingClock) -> None:
    one, other = router_of(clock), router_of(clock)
    told: list[RouteRecord] = []
    one.tell, one.gateway = told.append, 7
    journey = chat(session=5)
    home = went(one, journey, answered(0))
    kinds = [RecordKind.PLACED, RecordKind.BEGUN, RecordKind.OVER]
    assert [record.kind for record in told] == kinds
    assert {(r.gateway, r.number, r.backend, r.at) for r in told} == {(7, 1, home, clock.now)}
    assert (told[0].trail, told[0].session, told[0].uncached) == (TRAIL, 5, 2000)
    for record in told:
        other.heard(record)
    route = other.route(chat(session=5))
    assert (route.order[0].name, route.branch) == (home, Branch.HOME)


def test_who_made_a_response_is_known_to_other_gateways(clock: StandingClock) -> None:
    one, other = router_of(clock), router_of(clock)
    told: list[RouteRecord] = []
    one.tell, one.gateway = told.append, 7
    journey = chat()
    journey.api = "openai_responses"
    home = went(one, journey, answered(0, response_id="resp_1"))
    # As it goes over the wire.
    for record in (decode(encode(each)) for each in told):
        assert record is not None
        other.heard(record)
    assert other.owner("resp_1") == home
    assert other.owner("resp_2") == ""
    # Of what nobody can continue nothing is told.
    told.clear()
    went(one, chat(), answered(0, response_id="chatcmpl-1"))
    assert RecordKind.MADE not in {record.kind for record in told}


def test_a_rehearsal_says_the_same_as_the_request_and_changes_nothing(
    clock: StandingClock,
) -> None:
    router = router_of(clock)
    home = went(router, chat(), answered(0))
    before = router.told()
    for _ in range(5):
        told = router.rehearsed(chat())
        assert (told["backend"], told["affinity"]) == (home, "extended")
        assert (told["tokens"], told["held_tokens"]) == (2000, 2000)
    assert router.told() == before
    for name in NAMES[:3]:
        router.replicas.drain(name)
    assert router.rehearsed(chat())["backend"] is None


def test_round_robin_takes_turns_and_a_rehearsal_takes_none(clock: StandingClock) -> None:
    router = router_of(clock, routing={"policy": "round_robin"})
    chosen = []
    for _ in range(6):
        expected = router.rehearsed(chat())["backend"]
        chosen.append(went(router, chat(), answered(0)))
        assert chosen[-1] == expected
    assert sorted(chosen) == sorted([*NAMES[:3], *NAMES[:3]])


def test_a_prompt_for_one_replica_goes_there_whatever_is_known(clock: StandingClock) -> None:
    router = router_of(clock)
    home = went(router, chat(), answered(0))
    other = next(each for each in router.replicas if each.name != home)
    other.draining = True
    journey = chat()
    journey.only = other
    assert went(router, journey, answered(0)) == other.name
    assert router.told()[other.name]["mirror_tokens"] == 2000
