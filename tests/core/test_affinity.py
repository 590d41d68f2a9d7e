"""Where requests go: homes, costs, moves, health, repeats, and what is learnt."""

from __future__ import annotations

import pytest

from gateway.core.elsewhere import FOREIGN_S
from gateway.core.homes import RETURN_S
from gateway.core.route import Branch, Candidate, RoutePolicy, RouteSettings, Wish
from gateway.core.route_records import RecordKind, RouteRecord
from gateway.core.strangers import WINDOW
from gateway.core.trail import Trail
from tests.helpers.routed import RATE, STEP, Pool, trail


def load(pool: Pool, name: str, seconds: float) -> None:
    """Let it have so much to compute."""
    prompt = trail(f"load{name}{pool.now}{seconds}", size=int(seconds * RATE))
    pool.affinity.sent(pool.place(prompt), name, pool.now)


def other(pool: Pool, name: str) -> str:
    return next(each for each in pool.names if each != name)


def record(
    kind: RecordKind, number: int, backend: str, words: str = "", uncached: int = 0
) -> RouteRecord:
    return RouteRecord(kind, 1, number, backend, 0.0, trail(words), 0, uncached)


# --- homes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_open", [False, True])
def test_one_conversation_alone_stays_where_it_is(is_open: bool) -> None:
    pool = Pool(2)
    words = "hello there"
    homes = set()
    for turn in range(60):
        whole = trail(words, is_open=is_open)
        ticket = pool.ask(whole, then_s=40.0, dice=turn / 60)
        homes.add(ticket.backend)
        assert turn == 0 or ticket.placement.branch is Branch.EXTENDED
        assert ticket.placement.head == 0
        words += f" t{turn}"
    assert len(homes) == 1


def test_one_conversation_that_goes_back_again_and_again_is_computed_once_a_replica() -> None:
    pool = Pool(2)
    tickets = [pool.ask(f"sys doc more u{n}", then_s=40.0, dice=n / 40) for n in range(40)]
    assert sum(not each.expected for each in tickets) == len({each.backend for each in tickets})
    assert len({each.backend for each in tickets[:4]}) == 1


def test_the_same_prompt_again_after_its_answer_is_the_same_conversation() -> None:
    pool = Pool(2)
    tickets = [pool.ask("a b c", then_s=1.0, dice=n / 20) for n in range(20)]
    assert len({each.backend for each in tickets}) == 1
    assert tickets[-1].placement.head == 0


def test_a_hot_prompt_is_copied_once_its_home_cant_carry_it() -> None:
    pool = Pool(2)
    home = pool.ask("hot a b c").backend
    tickets = [pool.send("hot a b c") for _ in range(4)]
    assert {each.backend for each in tickets} == {home}
    load(pool, home, 29.0)
    assert pool.send("hot a b c").backend != home
    pool.now += 100.0
    assert pool.place("hot a b c").held == 4


def test_many_clients_with_one_prompt_at_once_share_it_and_are_spread() -> None:
    pool = Pool(4)
    gone = {pool.send("hot a", dice=n / 40).backend for n in range(40)}
    assert gone == set(pool.names)


def test_a_named_conversation_lives_where_its_name_is_known() -> None:
    pool = Pool(4)
    home = pool.ask("a b", session=5, then_s=60.0).backend
    pool.ask("x y", then_s=60.0)
    placement = pool.place("other words", session=5)
    assert (placement.order[0], placement.branch) == (home, Branch.HOME)


def test_a_new_name_on_a_known_prompt_goes_where_that_is_held() -> None:
    pool = Pool(4)
    home = pool.ask("a b c", session=5, then_s=60.0).backend
    placement = pool.place("a b c d", session=6)
    assert (placement.order[0], placement.branch) == (home, Branch.EXTENDED)


def test_who_shares_part_of_a_prompt_goes_where_it_is_held() -> None:
    pool = Pool(4)
    home = pool.ask("doc1 doc2 doc3 q1", then_s=60.0).backend
    placement = pool.place("doc1 doc2 doc3 q2", dice=0.5)
    assert (placement.order[0], placement.branch, placement.held) == (home, Branch.EXTENDED, 3)


def test_a_prompt_of_no_steps_is_bound_by_nothing() -> None:
    pool = Pool(3)
    placement = pool.place(Trail())
    assert placement.branch is Branch.SPREAD
    assert sorted(placement.order) == pool.names
    ticket = pool.send(Trail())
    assert (ticket.expected, ticket.uncached) == (0, 0)
    pool.affinity.learn(ticket, 10, 5)
    pool.answer(ticket)


def test_a_prompt_of_one_step_has_a_home() -> None:
    pool = Pool(4)
    home = pool.ask("one", then_s=60.0).backend
    assert pool.place("one", dice=0.7).order[0] == home
    assert pool.place("one more", dice=0.7).order[0] == home


def test_without_candidates_there_is_no_order() -> None:
    assert Pool(2).place("a", among=[]).order == ()


# --- moves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "load_s", "moves"),
    [
        (1, 6.9, False),  # 7 seconds for each second that the move costs
        (1, 7.2, True),
        (2, 9.9, False),  # and 10 at most
        (2, 10.2, True),
        (9, 9.9, False),
        (9, 10.2, True),
    ],
)
def test_a_home_is_left_when_it_costs_more_than_the_move(
    steps: int, load_s: float, moves: bool
) -> None:
    pool = Pool(2)
    words = " ".join(f"w{n}" for n in range(steps))
    home = pool.ask(words, then_s=60.0).backend
    load(pool, home, load_s + steps)  # costs elsewhere: the steps, and the new one
    placement = pool.place(words + " new")
    assert placement.branch is (Branch.MOVED_LOAD if moves else Branch.EXTENDED)
    assert (placement.order[0] != home) is moves


def test_who_has_moved_lives_where_it_went() -> None:
    pool = Pool(2)
    home = pool.ask("a b", then_s=60.0).backend
    load(pool, home, 50.0)
    moved = pool.ask("a b c", then_s=200.0)
    assert moved.backend != home
    placement = pool.place("a b c d")
    assert (placement.order[0], placement.branch) == (moved.backend, Branch.EXTENDED)


def test_a_replica_that_hangs_gets_dearer_by_the_second() -> None:
    pool = Pool(2)
    home = pool.ask("a b c", then_s=60.0).backend
    hung = pool.send("a b c d")
    assert hung.backend == home
    pool.now += 8.0
    assert pool.place("a b c x").order[0] == home
    pool.now += 12.0
    assert pool.place("a b c x").order[0] != home
    assert pool.place("new").order[0] != home
    pool.affinity.over(hung, pool.now, failed=True)
    assert pool.affinity.told(pool.now)[home]["pending_s"] == 0.0


def test_a_replica_without_weight_is_given_nothing_new() -> None:
    pool = Pool(2)
    candidates = [Candidate("b0", 0.0), Candidate("b1")]
    load(pool, "b1", 30.0)
    for shares in (True, False):
        pool.affinity.shares = shares
        assert pool.affinity.place(Wish(trail("n")), candidates, 0.0, 0.0).order[0] == "b1"
    assert pool.affinity.place(Wish(trail("n")), candidates[:1], 0.0, 0.0).order == ("b0",)


def test_heavier_replicas_are_given_more() -> None:
    pool = Pool(2)
    candidates = [Candidate("b0", 1.0), Candidate("b1", 3.0)]
    gone = [0, 0]
    for n in range(40):  # a burst: none is answered in between
        placement = pool.affinity.place(Wish(trail(f"n{n}")), candidates, pool.now, 0.0)
        pool.affinity.sent(placement, placement.order[0], pool.now)
        gone[pool.names.index(placement.order[0])] += 1
    assert 26 <= gone[1] <= 34


# --- health ---------------------------------------------------------------------------------------


def test_a_home_that_cant_be_asked_is_left_and_returned_to_while_that_costs_nothing() -> None:
    pool = Pool(3)
    home = pool.ask("a b", session=1, then_s=60.0).backend
    rest = [name for name in pool.names if name != home]
    moved = pool.ask("a b c", session=1, among=rest)
    assert moved.placement.branch is Branch.MOVED_HEALTH
    assert moved.backend in rest
    assert pool.place("a b c d", session=1).order[0] == moved.backend  # all of it is held there
    load(pool, moved.backend, 5.0)
    back = pool.send("a b c d", session=1)
    assert (back.backend, back.placement.branch) == (home, Branch.HOME)


def test_who_was_away_for_long_has_settled() -> None:
    pool = Pool(3)
    home = pool.ask("a b c", session=1, then_s=60.0).backend
    rest = [name for name in pool.names if name != home]
    moved = pool.ask("a b c d", session=1, among=rest, then_s=RETURN_S + 1.0)
    load(pool, moved.backend, 2.0)
    assert pool.place("a b c d e", session=1).order[0] == moved.backend


def test_a_retry_takes_the_conversation_along_and_leaves_no_trace_where_it_failed() -> None:
    pool = Pool(2)
    placement = pool.place("a b c")
    first, second = placement.order
    failed = pool.affinity.sent(placement, first, pool.now)
    pool.affinity.over(failed, pool.now, failed=True)
    assert pool.held(first) == 0
    ticket = pool.affinity.sent(placement, second, pool.now)
    pool.answer(ticket)
    assert pool.place("a b c d").order[0] == second


def test_a_failure_takes_nothing_that_others_have_used_since() -> None:
    pool = Pool(1)
    failed = pool.send("a b c")
    pool.ask("a b x")
    pool.affinity.over(failed, pool.now, failed=True)
    assert pool.place("a b x").held == 3
    assert pool.place("a b c").held == 2


def test_a_replica_that_began_anew_holds_nothing_and_old_news_of_it_change_nothing() -> None:
    pool = Pool(2)
    ticket = pool.send("a b c")
    pool.affinity.emptied(ticket.backend)
    told = pool.affinity.told(pool.now)[ticket.backend]
    assert (told["mirror_steps"], told["pending_s"]) == (0, 0.0)
    pool.answer(ticket)
    assert pool.affinity.told(pool.now)[ticket.backend]["expected_tokens"] == 0
    assert pool.held(ticket.backend) == 0


# --- other gateways -------------------------------------------------------------------------------


def test_while_others_may_place_a_new_conversation_has_its_rendezvous_home() -> None:
    pool = Pool(4, shares=False)
    home = pool.place("c1 x").order[0]
    load(pool, home, 4.0)
    assert pool.place("c1 x").order[0] == home  # 5 seconds may be lost
    load(pool, home, 2.0)
    assert pool.place("c1 x").order[0] != home


def test_who_has_seen_that_nobody_else_places_goes_where_it_is_cheapest() -> None:
    pool = Pool(2, shares=False)
    for n in range(WINDOW):
        pool.ask(f"m{n}", then_s=1.0)
    home = pool.place("c1 x").order[0]
    load(pool, home, 0.5)
    assert pool.place("c1 x").order[0] != home


def test_who_sees_that_others_place_leaves_for_one_request_only() -> None:
    pool = Pool(2, shares=False)
    for n in range(5):
        ticket = pool.send(f"s{n} t u v", session=n + 10)
        pool.answer(ticket, cached=4 * STEP)  # another gateway had put it there
        pool.now += 20.0
    home = pool.ask("c1 x", then_s=60.0).backend
    load(pool, home, 30.0)
    moved = pool.send("c1 x y")
    assert (moved.backend, moved.placement.stays) == (other(pool, home), home)
    pool.now += 60.0
    assert pool.place("c1 x y z").order[0] == home


def test_what_others_place_is_held_there_waits_there_and_lives_there() -> None:
    pool = Pool(2)
    pool.affinity.heard(record(RecordKind.PLACED, 1, "b1", "a b c", 3000), pool.now)
    told = pool.affinity.told(pool.now)["b1"]
    assert (told["mirror_tokens"], told["pending_s"]) == (3000, 3.0)
    placement = pool.place("a b c d")
    assert (placement.order[0], placement.branch) == ("b1", Branch.EXTENDED)
    pool.affinity.heard(record(RecordKind.BEGUN, 1, "b1"), pool.now)
    assert pool.affinity.told(pool.now)["b1"]["pending_s"] == 0.0
    pool.affinity.heard(record(RecordKind.OVER, 1, "b1"), pool.now)
    assert len(pool.affinity._elsewhere) == 0


def test_what_others_never_end_is_let_go_of() -> None:
    pool = Pool(2)
    pool.affinity.heard(record(RecordKind.PLACED, 1, "b1", "a", 500_000), pool.now)
    pool.now += FOREIGN_S - 1.0
    assert pool.place("x").order[0] == "b0"
    assert pool.affinity.told(pool.now)["b1"]["pending_s"] > 300.0
    pool.now += 2.0
    pool.place("x")
    assert pool.affinity.told(pool.now)["b1"]["pending_s"] == 0.0


def test_of_what_was_placed_long_ago_only_the_cache_is_believed() -> None:
    pool = Pool(2)
    pool.affinity.heard(record(RecordKind.PLACED, 1, "b1", "a b", 2000), pool.now, FOREIGN_S)
    told = pool.affinity.told(pool.now)["b1"]
    assert (told["mirror_tokens"], told["pending_s"]) == (2000, 0.0)
    assert pool.place("a b c").order[0] == "b1"


def test_a_record_of_an_unknown_replica_or_told_twice_changes_nothing() -> None:
    pool = Pool(2)
    pool.affinity.heard(record(RecordKind.PLACED, 1, "nobody", "a", 1000), pool.now)
    assert set(pool.affinity.told()) == {"b0", "b1"}
    for _ in range(2):
        pool.affinity.heard(record(RecordKind.PLACED, 2, "b1", "a", 1000), pool.now)
    assert pool.affinity.told(pool.now)["b1"]["pending_s"] == 1.0


# --- what is learnt -------------------------------------------------------------------------------


def test_the_rate_is_learnt_from_what_found_nothing_in_front() -> None:
    pool = Pool(1)
    for n in range(40):
        ticket = pool.send(f"n{n}")
        pool.affinity.begun(ticket, pool.now + 0.25)  # four times as fast as thought
        pool.affinity.learn(ticket, STEP, 0)
        pool.affinity.over(ticket, pool.now + 1.0)
        pool.now += 5.0
    assert pool.affinity.told()["b0"]["rate"] == pytest.approx(4 * RATE, rel=0.1)


def test_nothing_is_learnt_from_answers_that_come_whole() -> None:
    pool = Pool(1)
    ticket = pool.affinity.sent(pool.place("a"), "b0", 0.0, streamed=False)
    pool.affinity.begun(ticket, 60.0)
    pool.affinity.over(ticket, 60.0)
    assert pool.affinity.told()["b0"]["rate"] == 0.0


def test_an_unobserved_replica_is_thought_as_fast_as_the_others_by_weight() -> None:
    pool = Pool(2)
    for n in range(40):
        ticket = pool.affinity.sent(pool.place(f"n{n}"), "b0", pool.now)
        pool.affinity.begun(ticket, pool.now + 0.1)
        pool.affinity.learn(ticket, STEP, 0)
        pool.affinity.over(ticket, pool.now + 0.1)
        pool.now += 5.0
    pool.affinity.sent(pool.place(trail("big", size=40 * STEP)), "b1", pool.now)
    assert pool.affinity.told(pool.now)["b1"]["pending_s"] == pytest.approx(4.0, rel=0.15)


def test_trails_and_engines_may_count_tokens_differently() -> None:
    pool = Pool(1, cache_tokens=10 * STEP)
    for n in range(20):
        ticket = pool.send(f"n{n}")
        pool.affinity.learn(ticket, 2 * STEP, 0)  # twice as many as thought: half fits
        pool.affinity.over(ticket, pool.now)
    assert pool.held("b0") == 5 * STEP


def test_an_engine_that_reports_nothing_teaches_nothing() -> None:
    pool = Pool(1)
    ticket = pool.send("a b")
    pool.affinity.learn(ticket, None, None)
    told = pool.affinity.told()["b0"]
    assert (told["expected_tokens"], told["reported_tokens"]) == (0, 0)


def test_what_was_not_computed_yet_is_no_evidence_that_it_was_evicted() -> None:
    pool = Pool(1)
    pool.send("a b c")
    second = pool.send("a b c d")  # both at once: the engine computes the head twice
    pool.affinity.learn(second, 4 * STEP, 0)
    assert pool.held("b0") == 4 * STEP


def test_round_robin_goes_round_by_weight() -> None:
    pool = Pool(3, policy=RoutePolicy.ROUND_ROBIN)
    assert [pool.ask("same").backend for _ in range(6)] == ["b0", "b1", "b2"] * 2
    candidates = [Candidate("b0", 1.0), Candidate("b1", 2.0)]
    gone = [pool.affinity.place(Wish(Trail()), candidates, 0.0, 0.0).order[0] for _ in range(9)]
    assert gone.count("b1") == 6


def test_least_pending_goes_where_least_waits() -> None:
    pool = Pool(3, policy=RoutePolicy.LEAST_PENDING)
    load(pool, "b0", 2.0)
    load(pool, "b1", 1.0)
    placement = pool.place("a")
    assert (placement.order[0], placement.branch) == ("b2", Branch.SPREAD)
    assert pool.place("a", among=["b0", "b1"]).order[0] == "b1"
    assert pool.place("a", among=["b2", "b1"], b2=3).order[0] == "b2"


def test_by_session_nothing_but_health_moves_a_conversation() -> None:
    pool = Pool(3, policy=RoutePolicy.SESSION)
    first = pool.ask("a b", session=4)
    assert first.placement.branch is Branch.NEW
    load(pool, first.backend, 500.0)
    again = pool.place("x", session=4)
    assert (again.order[0], again.branch) == (first.backend, Branch.HOME)
    rest = [name for name in pool.names if name != first.backend]
    assert pool.place("x", session=4, among=rest).branch is Branch.MOVED_HEALTH
    unnamed = pool.ask("c d")
    assert pool.place("c d e").order[0] == unnamed.backend
    assert pool.place("c d e").branch is Branch.EXTENDED


def test_a_delegate_is_given_what_there_is_in_the_order_given() -> None:
    pool = Pool(2, policy=RoutePolicy.DELEGATE)
    load(pool, "b1", 9.0)
    placement = pool.place("a", among=["b1", "b0"])
    assert (placement.order, placement.branch) == (("b1", "b0"), Branch.SPREAD)


# --- slots ----------------------------------------------------------------------------------------


def test_a_replica_with_slots_says_where_a_prompt_should_be_computed() -> None:
    pool = Pool(1)
    pool.affinity.joined("b0", slots=2)
    first = pool.ask("a b c")
    second = pool.ask("x y")
    assert {first.slot, second.slot} == {0, 1}
    placement = pool.place("a b c d")
    assert (placement.slot, placement.held) == (first.slot, 3)
    assert pool.place("new").slot == first.slot  # unused for longest


def test_unknown_sizes_and_rates_are_no_obstacle() -> None:
    pool = Pool(2, cache_tokens=0)
    pool.affinity = type(pool.affinity)(RouteSettings())
    home = pool.ask("a b c", then_s=60.0).backend
    assert pool.place("a b c d").order[0] == home


def test_who_keeps_one_prompt_in_a_slot_loses_the_oldest_of_all_to_a_new_one() -> None:
    pool = Pool(2)
    for name in ("b0", "b1"):
        pool.affinity.joined(name, slots=3)
    for round_ in range(3):
        went = [pool.ask(f"r{round_}p{n} x", then_s=1.0, dice=0.0).backend for n in range(6)]
        assert sorted(went) == ["b0"] * 3 + ["b1"] * 3


def test_who_joins_late_or_comes_back_gets_its_share_and_not_all_that_is_new() -> None:
    pool = Pool(3)
    pool.affinity.shares = True
    early = [Candidate("b0"), Candidate("b1")]

    def new(candidates: list[Candidate], n: int) -> str:
        placement = pool.affinity.place(Wish(trail(f"c{n} x")), candidates, pool.now, n % 7 / 7)
        ticket = pool.affinity.sent(placement, placement.order[0], pool.now)
        pool.affinity.begun(ticket, pool.now + 0.1)
        pool.affinity.over(ticket, pool.now + 0.2)
        pool.now += 1.0
        return placement.order[0]

    for n in range(60):
        new(early, n)
    went = [new([*early, Candidate("b2")], 60 + n) for n in range(30)]
    assert went.count("b2") == pytest.approx(10, abs=2)
    for n in range(30):
        new(early, 100 + n)
    back = [new([*early, Candidate("b2")], 200 + n) for n in range(30)]
    assert back.count("b2") == pytest.approx(10, abs=2)


def test_who_has_a_crowd_in_flight_comes_last_among_equals() -> None:
    pool = Pool(3)
    pool.affinity.shares = True
    candidates = [Candidate("b0", 1.0, 9), Candidate("b1", 1.0, 1), Candidate("b2", 1.0, 1)]
    for name in ("b1", "b2"):
        pool.ask(f"busy {name}", then_s=1.0)
    went = {
        pool.affinity.place(Wish(trail(f"n{n}")), candidates, pool.now, n / 9).order[0]
        for n in range(9)
    }
    assert "b0" not in went
