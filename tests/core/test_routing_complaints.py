"""What people complain about in routers of the field, and what ours does there.

Each test is named by the number that the complaint has in the survey that this was built from.
"""

from __future__ import annotations

from collections import Counter

from gateway.core.mirror import STEP_BYTES
from gateway.core.route import Branch, Candidate, RouteSettings, RouteTicket, Wish
from gateway.core.route_records import RecordKind, RouteRecord
from tests.helpers.routed import RATE, STEP, Pool, trail


def where(pool: Pool, prompts: list[str]) -> Counter[str]:
    """Where a burst of prompts goes, none of which is answered in between."""
    return Counter(pool.send(words).backend for words in prompts)


def test_complaint_01_a_miss_goes_to_the_shortest_wait_whatever_the_caches_hold() -> None:
    pool = Pool(2)
    big = pool.send("a b c d e f g h")  # holds most, and waits
    small = pool.send("x")
    pool.answer(small)
    assert small.backend != big.backend
    assert pool.send("new").backend == small.backend


def test_complaint_02_at_low_concurrency_misses_go_round() -> None:
    pool = Pool(4)
    gone = Counter(pool.ask(f"m{n}", then_s=5.0, dice=0.0).backend for n in range(40))
    assert set(gone) == set(pool.names)
    assert max(gone.values()) <= 12


def test_complaint_02_who_was_timed_a_little_faster_is_not_given_everything() -> None:
    pool = Pool(4)
    gone: Counter[str] = Counter()
    for n in range(200):
        ticket = pool.send(f"m{n}")
        gone[ticket.backend] += 1
        took = 1.0 + 0.05 * pool.names.index(ticket.backend)
        pool.affinity.begun(ticket, pool.now + took)
        pool.affinity.learn(ticket, STEP, 0)
        pool.affinity.over(ticket, pool.now + took)
        pool.now += 5.0
    assert max(gone.values()) <= 65


def test_complaint_03_load_counts_from_sending_not_from_the_answers_head() -> None:
    pool = Pool(4)
    assert set(where(pool, ["w", "x", "y", "z"]).values()) == {1}


def test_complaint_04_every_request_is_counted_whoever_sends_it() -> None:
    pool = Pool(2)
    placement = pool.place("a b c")
    pool.affinity.sent(placement, "b1", pool.now, streamed=False)
    assert pool.affinity.told(pool.now)["b1"]["pending_s"] == 3.0
    assert pool.place("x").order[0] == "b0"


def test_complaint_05_a_busy_pool_keeps_its_conversations_where_they_are() -> None:
    pool = Pool(2)
    home = pool.ask("long a b c d").backend
    other = next(name for name in pool.names if name != home)
    for n in range(12):  # one home is 6 s longer in the queue, the prefix is worth 5
        pool.affinity.sent(pool.place(f"q{n}"), home if n % 4 else other, pool.now)
    assert pool.place("long a b c d e").order[0] == home


def test_complaint_06_pending_work_counts_not_the_number_of_requests() -> None:
    pool = Pool(2)
    placement = pool.place(trail("big", size=20 * STEP))
    pool.affinity.sent(placement, "b0", pool.now)
    for n in range(5):
        pool.affinity.sent(pool.place(f"s{n}"), "b1", pool.now)
    assert pool.place("new", b0=1, b1=5).order[0] == "b1"


def test_complaint_07_nothing_but_the_end_of_a_request_takes_it_from_the_count() -> None:
    pool = Pool(2)
    ticket = pool.send("a b c d")
    for name in pool.names:
        pool.affinity.joined(name)  # probes find it there, again and again
    assert pool.affinity.told(pool.now)[ticket.backend]["pending_s"] == 4.0
    pool.affinity.over(ticket, pool.now, failed=True)
    pool.affinity.over(ticket, pool.now, failed=True)
    assert pool.affinity.told(pool.now)[ticket.backend]["pending_s"] == 0.0


def test_complaint_08_a_saturated_home_is_left() -> None:
    pool = Pool(2)
    home = pool.ask("c a", session=7).backend
    placement = pool.place(trail("flood", size=60 * STEP))
    pool.affinity.sent(placement, home, pool.now)
    moved = pool.place("c a b", session=7)
    assert moved.branch is Branch.MOVED_LOAD
    assert moved.order[0] != home


def test_complaint_09_a_system_prompt_that_all_share_is_no_monopoly() -> None:
    pool = Pool(4)
    system = "tools rules "
    for n in range(8):
        pool.ask(system + f"first{n}")
    burst = where(pool, [system + f"u{n} v{n} w{n}" for n in range(16)])
    assert set(burst) == set(pool.names)
    assert max(burst.values()) <= 5


def test_complaint_10_nobody_queues_at_the_holder_for_longer_than_it_saves() -> None:
    pool = Pool(2)
    holder = pool.ask("doc").backend
    tickets = [pool.send(f"doc q{n}") for n in range(30)]
    at_holder = sum(ticket.backend == holder for ticket in tickets)
    assert 0 < at_holder < 30
    wait = pool.affinity.told(pool.now)
    waits = [wait[name]["pending_s"] for name in pool.names]
    assert max(waits) - min(waits) <= 7.0 * STEP / RATE + 1.0


def test_complaint_11_one_large_common_prefix_is_copied_not_queued_for() -> None:
    pool = Pool(4)
    common = " ".join(f"p{n}" for n in range(12)) + " "
    for n in range(10):
        pool.ask(common + f"u{n}")
    burst = where(pool, [common + f"x{n} y{n}" for n in range(40)])
    assert set(burst) == set(pool.names)


def test_complaint_12_a_burst_at_equal_costs_is_spread() -> None:
    pool = Pool(8)
    assert set(where(pool, [f"n{n}" for n in range(16)]).values()) == {2}


def test_complaint_13_locality_does_not_cost_balance() -> None:
    pool = Pool(4)
    words = {n: f"sys c{n}" for n in range(24)}
    sent: Counter[str] = Counter()
    for turn in range(6):
        tickets = [pool.send(prompt) for prompt in words.values()]
        for n, ticket in enumerate(tickets):
            sent[ticket.backend] += ticket.uncached
            words[n] += f" t{turn}"
        pool.now += 10.0
        for ticket in tickets:
            pool.affinity.begun(ticket, pool.now)
            pool.affinity.over(ticket, pool.now)
    mean = sum(sent.values()) / 4
    assert max(sent.values()) <= 1.3 * mean


def test_complaint_14_balance_is_on_by_default() -> None:
    settings = RouteSettings()
    assert 0.0 < settings.break_s < 60.0
    assert 0.0 < settings.new_break_s < 60.0


def test_complaint_15_ties_never_break_a_conversation() -> None:
    pool = Pool(4)
    prompt = "hello"
    home = pool.ask(prompt, then_s=30.0).backend
    for turn in range(20):
        prompt += f" t{turn}"
        assert pool.ask(prompt, then_s=30.0, dice=turn / 20).backend == home


def test_complaint_16_two_gateways_find_the_same_replica_unasked() -> None:
    one, two = Pool(8, shares=False), Pool(8, shares=False)
    for n in range(40):
        first = one.ask(f"c{n} a", then_s=10.0).backend
        assert two.ask(f"c{n} a b", then_s=10.0).backend == first


def test_complaint_17_sixteen_gateways_do_not_all_choose_the_same_one() -> None:
    gateways = [Pool(8, shares=False) for _ in range(16)]
    chosen = Counter(gateway.send(f"conversation{n}").backend for n, gateway in enumerate(gateways))
    assert max(chosen.values()) <= 6


def test_complaint_18_a_turn_through_another_gateway_stays_where_the_cache_is() -> None:
    gateways = [Pool(8, shares=False) for _ in range(8)]
    hits = 0
    for n in range(20):
        prompt = f"c{n} x"
        homes = set()
        for turn in range(8):
            homes.add(gateways[(n + turn) % 8].ask(prompt, then_s=10.0).backend)
            prompt += f" t{turn}"
        hits += len(homes) == 1
    assert hits == 20


def test_complaint_19_who_hears_from_the_middle_on_knows_the_whole_of_what_it_hears() -> None:
    booting = Pool(4)
    prompt = trail("sys a b c d e f g")
    told = RouteRecord(RecordKind.PLACED, 7, 1, "b2", 0.0, prompt, 0, STEP)
    booting.affinity.heard(told, booting.now)
    assert booting.held("b2") == prompt.tokens
    placement = booting.place("sys a b c d e f g h")
    assert (placement.order[0], placement.held) == ("b2", len(prompt.prints))
    # And what it never heard of is nobody's: it is not thought to be anywhere.
    assert booting.place("other prompt").held == 0


def test_complaint_20_memory_is_bounded_however_many_prompts_differ() -> None:
    steps = 200
    pool = Pool(2, mirror_bytes=2 * steps * STEP_BYTES, cache_tokens=0)
    for n in range(300):
        pool.ask(f"a{n} b c d")
    told = pool.affinity.told(pool.now)
    assert all(each["mirror_steps"] <= steps for each in told.values())


def test_complaint_21_prompts_that_part_and_part_again_leave_no_scraps() -> None:
    pool = Pool(1, cache_tokens=50 * STEP)
    for n in range(500):
        pool.ask(f"a b{n % 7} c{n % 11} d{n}")
    told = pool.affinity.told(pool.now)["b0"]
    assert told["mirror_steps"] <= 50
    assert told["mirror_tokens"] == told["mirror_steps"] * STEP


def test_complaint_22_a_replica_that_left_leaves_nothing() -> None:
    pool = Pool(2)
    home = pool.ask("a b c", session=3).backend
    pool.affinity.left(home)
    assert set(pool.affinity.told(pool.now)) == set(pool.names) - {home}
    pool.affinity.joined(home)
    assert pool.held(home) == 0
    assert pool.place("a b c d", session=3).branch is Branch.MOVED_HEALTH


def test_complaint_23_the_same_prompts_again_and_again_take_no_more() -> None:
    pool = Pool(2)
    for _ in range(3):
        for n in range(10):
            pool.ask(f"a{n} b c", then_s=60.0)
    before = sum(pool.held(name) for name in pool.names)
    for _ in range(20):
        for n in range(10):
            pool.ask(f"a{n} b c", then_s=60.0)
    assert sum(pool.held(name) for name in pool.names) == before


def test_complaint_24_a_cache_that_was_emptied_unseen_is_found_out_by_one_report() -> None:
    pool = Pool(2)
    prompt = "a b c d"
    home = pool.ask(prompt, then_s=60.0).backend
    for n in range(6):  # others that live there, used before the conversation was
        pool.affinity.over(pool.affinity.sent(pool.place(f"o{n}"), home, pool.now), pool.now)
    pool.now += 60.0
    ticket = pool.send(prompt + " e")
    assert ticket.expected == 4 * STEP
    assert ticket.backend == home
    pool.answer(ticket, cached=0)
    assert pool.affinity.told(pool.now)[home]["capacity_tokens"] >= 500_000
    assert pool.ask(prompt + " e f").expected == 5 * STEP


def test_complaint_25_an_engine_that_holds_more_or_less_corrects_the_mirror() -> None:
    pool = Pool(1, cache_tokens=10 * STEP)
    for n in range(30):
        pool.ask(f"a{n} b")
    ticket = pool.send("a3 b c")  # evicted from the mirror, and still held: it offloads
    assert ticket.expected == 0
    pool.answer(ticket, cached=2 * STEP)
    capacity = pool.affinity.told(pool.now)["b0"]["capacity_tokens"]
    assert capacity == 12 * STEP
    shrinks = pool.send("a28 b d")  # and that one, used longer ago than three, isn't any more
    assert shrinks.expected == 2 * STEP
    pool.answer(shrinks, cached=0)
    assert pool.affinity.told(pool.now)["b0"]["capacity_tokens"] < capacity


def test_complaint_28_every_call_of_a_session_goes_to_the_same_replica() -> None:
    pool = Pool(4)
    homes = {pool.ask(f"call{n}", session=99, then_s=20.0).backend for n in range(100)}
    assert len(homes) == 1


def test_complaint_28_a_session_of_another_credential_is_another_session() -> None:
    pool = Pool(2)
    mine, theirs = 11, 12  # one name, hashed with whose it is
    home = pool.ask("a b c", session=mine, then_s=60.0).backend
    flood: RouteTicket = pool.affinity.sent(pool.place("f"), home, pool.now)
    assert (
        pool.affinity.place(
            Wish(trail("x y"), theirs), [Candidate(n) for n in pool.names], pool.now, 0.0
        ).order[0]
        != home
    )
    pool.affinity.over(flood, pool.now)


def test_complaint_31_an_engine_that_keeps_nothing_ends_what_is_thought_of_it() -> None:
    pool = Pool(2)
    ticket = pool.ask("a b c d", then_s=1.0)
    again = pool.send("a b c d e")
    assert again.backend == ticket.backend
    pool.answer(again, cached=0)
    assert pool.place("a b c d e f").held <= 5
    third = pool.send("a b c d e f")
    pool.answer(third, cached=0)
    told = pool.affinity.told(pool.now)
    assert sum(each["reported_tokens"] for each in told.values()) == 0
    assert pool.held(third.backend) <= 6 * STEP
