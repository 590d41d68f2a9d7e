"""What the planner does with traffic, judged by a simulated provider's bill."""

from __future__ import annotations

import pytest

from gateway.core.model import Usage
from gateway.core.plan import Mark, Markers, PlanReason
from gateway.core.planner import CachePlanner
from gateway.core.prefix import chain
from tests.helpers.prompts import (
    Provider,
    answered,
    block,
    prompt,
    returned,
    rules,
    said,
    system,
    tools,
)


def conversation(number: int, turns: int) -> list[list]:  # type: ignore[type-arg]
    """The requests of an agent's conversation: each has all of the one before."""
    blocks = [tools(1, 2000), system(2, 1500), said(100 + number, 100)]
    requests = [list(blocks)]
    for turn in range(turns - 1):
        one = 10_000 + 100 * number + turn
        blocks += [answered(one, 80), returned(one + 5_000, 700)]
        requests.append(list(blocks))
    return requests


def test_each_turn_of_an_agent_reads_all_that_the_one_before_had() -> None:
    provider = Provider()
    for turn, blocks in enumerate(conversation(1, 8)):
        ticket, usage = provider.ask(blocks, 20.0 * turn)
        if turn:
            assert usage.cache_read == ticket.tokens[-3]
            assert not usage.uncached_input


def test_the_next_conversation_reads_what_all_of_them_share() -> None:
    provider = Provider()
    for turn, blocks in enumerate(conversation(1, 3)):
        provider.ask(blocks, 20.0 * turn)

    _, usage = provider.ask(conversation(2, 1)[0], 100.0)

    assert usage.cache_read == 3500


def test_one_shot_questions_without_anything_in_common_cost_not_a_token_more() -> None:
    provider = Provider()
    for number in range(200):
        provider.ask([said(number, 1500)], 3.0 * number)

    assert provider.spent == provider.asked


def test_questions_below_one_system_prompt_soon_read_it_and_never_pay_for_their_tails() -> None:
    provider = Provider()
    bills = [
        provider.ask([system(1, 2000), said(10 + number, 100)], 3.0 * number)[1]
        for number in range(100)
    ]

    assert all(usage.cache_read == 2000 for usage in bills[5:])
    assert all(not usage.cache_write_5m for usage in bills[45:])
    assert provider.spent < 0.2 * provider.asked


def test_system_prompts_that_nobody_shares_are_not_written_for_long() -> None:
    provider = Provider()
    for number in range(400):
        provider.ask([system(number, 2000), said(1000 + number, 100)], 20.0 * number)

    assert provider.spent <= 1.01 * provider.asked


def test_a_text_that_requests_share_in_part_is_split_where_they_part() -> None:
    provider = Provider()
    shared = [system(n, 256, until=1000 * (n + 1)) for n in range(8)]
    answers = [
        provider.ask([*shared, system(100 + user, 128), said(500 + user, 60)], 10.0 * user)
        for user in range(20)
    ]

    bills = [usage for _, usage in answers]
    assert bills[-1].cache_read == 2048
    total = sum(usage.input for usage in bills)
    assert sum(usage.cache_read for usage in bills) >= 0.8 * total
    assert answers[-1][0].plan.marks == (Mark(7, 300),)


def test_a_text_that_the_client_marked_is_not_split() -> None:
    provider = Provider()
    shared = [system(n, 256, until=1000 * (n + 1)) for n in range(8)]
    for user in range(10):
        own = [system(100 + user, 128)._replace(client_ttl_s=300), said(500 + user, 60)]
        ticket, _ = provider.ask([*shared, *own], 10.0 * user)
        assert not any(ticket.prompt.blocks[m.block].until for m in ticket.plan.marks)


def test_a_marked_text_of_many_pieces_is_looked_through_once() -> None:
    asked: list[int] = []

    class Counted(int):
        """The end of a piece, that counts how often it is looked at."""

        def __bool__(self) -> bool:
            asked.append(self)
            return int(self) != 0

        def __gt__(self, other: int) -> bool:
            asked.append(self)
            return int(self) > other

    count = 1000
    pieces = [system(n, 10)._replace(until=Counted(n + 1)) for n in range(count)]
    provider = Provider()
    provider.ask([*pieces, system(count, 10)._replace(client_ttl_s=300), said(1, 1)], 0.0)

    assert count <= len(asked) < 20 * count


def test_a_conversation_keeps_the_split_that_it_was_begun_with() -> None:
    provider = Provider()
    shared = [system(n, 256, until=1000 * (n + 1)) for n in range(8)]
    begun = [*shared, system(100, 128), said(500, 60)]
    provider.ask(begun, 0.0)
    for user in range(1, 6):
        provider.ask([*shared, system(100 + user, 128), said(500 + user, 60)], 10.0 * user)

    # It was begun before anybody could know, and goes on unsplit.
    ticket, _ = provider.ask([*begun, answered(900, 50), returned(901, 50)], 70.0)

    pieces = [m.block for m in ticket.plan.marks if ticket.prompt.blocks[m.block].until]
    assert not pieces
    assert not ticket.plan.splits


def test_a_long_conversation_survives_a_pause_for_little_more() -> None:
    """A pause of ten minutes now and then: an hour-long entry on a small turn keeps the rest."""
    provider = Provider()
    now = 0.0
    for number in range(3):
        for turn, blocks in enumerate(conversation(number, 40)):
            _, usage = provider.ask(blocks, now)
            now += 600.0 if turn % 8 == 7 else 15.0
    in_full = provider.ask(conversation(9, 40)[-1], now)[0].tokens[-1]
    blocks = conversation(2, 40)[-1] + [answered(77, 50), returned(78, 50)]

    _, usage = provider.ask(blocks, now + 1.0)

    assert usage.cache_read > 0.8 * in_full


def test_two_at_once_do_not_both_pay_for_writing_what_they_share() -> None:
    provider = Provider(takes_s=5.0)
    first = [system(1, 3000), said(2, 50)]
    second = [system(1, 3000), said(3, 50)]
    planner = provider.planner
    ticket = planner.plan(b"d", prompt(*first), provider.rules, Markers.AUTO, 0.0)
    other = planner.plan(b"d", prompt(*second), provider.rules, Markers.AUTO, 0.5)

    assert ticket.plan.marks
    assert Mark(0, 300) not in other.plan.marks


def test_the_clients_own_markers_stay_and_count() -> None:
    provider = Provider()
    for turn, blocks in enumerate(conversation(1, 6)):
        own = [*blocks]
        for at in (0, 1, len(own) - 1):
            own[at] = own[at]._replace(client_ttl_s=300)
        ticket, _ = provider.ask(own, 10.0 * turn)
        assert len(ticket.plan.marks) <= 1
        assert not {0, 1, len(own) - 1} & {mark.block for mark in ticket.plan.marks}


def test_lifetimes_never_grow_along_the_prompt_whatever_the_client_set() -> None:
    provider = Provider()
    now = 0.0
    for turn, blocks in enumerate(conversation(1, 30)):
        own = [*blocks]
        own[1] = own[1]._replace(client_ttl_s=3600 if turn % 2 else 300)
        ticket, _ = provider.ask(own, now)  # the simulator refuses a wrong order
        now += 700.0 if turn % 5 == 4 else 10.0
        lifetimes = [mark.ttl_s for mark in ticket.marks]
        assert lifetimes == sorted(lifetimes, reverse=True)


@pytest.mark.parametrize(
    ("markers", "marked", "reason"),
    [
        (Markers.OFF, False, PlanReason.OFF),
        (Markers.OFF, True, PlanReason.OFF),
        (Markers.RESPECT, True, PlanReason.CLIENT_MARKS),
        (Markers.RESPECT, False, PlanReason.PLACED),
    ],
)
def test_what_may_be_done_is_what_was_configured(
    markers: Markers, marked: bool, reason: PlanReason
) -> None:
    provider = Provider(markers=markers)
    own = conversation(1, 1)[0]
    if marked:
        own[1] = own[1]._replace(client_ttl_s=300)
    ticket, _ = provider.ask(own, 0.0)
    assert ticket.plan.reason is reason
    assert bool(ticket.plan.marks) == (reason is PlanReason.PLACED)


def test_stripping_puts_our_markers_in_the_place_of_the_clients() -> None:
    planner = CachePlanner()
    blocks = [each._replace(client_ttl_s=300) for each in conversation(1, 2)[-1]]
    ticket = planner.plan(b"d", prompt(*blocks[:4]), rules(), Markers.STRIP, 0.0)
    assert ticket.plan.strips
    assert len(ticket.marks) <= 4


def test_markers_that_are_never_read_are_withdrawn() -> None:
    """A provider that says it reads nothing, whatever is marked."""
    planner = CachePlanner()
    known = rules()
    reasons = []
    for turn, blocks in enumerate(conversation(1, 40)):
        ticket = planner.plan(b"d", prompt(*blocks), known, Markers.AUTO, 20.0 * turn)
        planner.begun(ticket, 20.0 * turn + 1)
        wrote = ticket.tokens[-1] if ticket.plan.marks else 0
        usage = Usage(ticket.tokens[-1] - wrote, 0, wrote)
        planner.learn(ticket, usage, 20.0 * turn + 2)
        reasons.append(ticket.plan.reason)

    assert PlanReason.WITHDRAWN in reasons[:12]
    assert reasons[12:].count(PlanReason.PLACED) <= 5


def test_tokens_are_estimated_by_what_answers_said_of_this_model() -> None:
    planner = CachePlanner()
    for number in range(5):
        ticket = planner.plan(
            b"d", prompt(said(number, 3000)), rules(), Markers.AUTO, float(number)
        )
        planner.learn(ticket, Usage(uncached_input=4000), number + 0.5)

    ticket = planner.plan(b"d", prompt(said(99, 3000)), rules(), Markers.AUTO, 9.0)

    assert ticket.tokens[-1] == pytest.approx(4000, rel=0.01)


def learned_of(planner: CachePlanner, number: int, usage: Usage) -> bool:
    """Ask for an agent's prompt of 2,000 tokens; was it marked at its end?"""
    blocks = [tools(1, 1500), said(10 * number, 400), returned(10 * number + 1, 100)]
    ticket = planner.plan(b"d", prompt(*blocks), rules(), Markers.AUTO, 400.0 * number)
    planner.begun(ticket, 400.0 * number + 1)
    planner.learn(ticket, usage, 400.0 * number + 2)
    return any(mark.block == len(blocks) - 1 for mark in ticket.plan.marks)


def test_one_answer_that_kept_nothing_does_not_make_prompts_too_short_for_good() -> None:
    planner = CachePlanner()
    assert learned_of(planner, 0, Usage(uncached_input=2000))
    assert learned_of(planner, 1, Usage(cache_write_5m=2000))
    assert learned_of(planner, 2, Usage(uncached_input=2000))
    assert learned_of(planner, 3, Usage(uncached_input=2000))
    assert learned_of(planner, 4, Usage(cache_write_5m=2000))


def test_a_minimum_that_no_document_says_is_learned_and_unlearned() -> None:
    planner = CachePlanner()
    for number in range(3):
        assert learned_of(planner, number, Usage(uncached_input=2000))
    assert not learned_of(planner, 3, Usage(uncached_input=2000))
    # It was read all the same, by a marker that somebody else placed.
    learned_of(planner, 4, Usage(uncached_input=500, cache_read=1500))
    assert learned_of(planner, 5, Usage(cache_write_5m=2000))


def test_a_failed_answer_leaves_no_entry_behind() -> None:
    provider = Provider()
    blocks = conversation(1, 2)
    ticket, _ = provider.ask(blocks[0], 0.0, answers=False)
    assert ticket.written

    ticket, usage = provider.ask(blocks[1], 5.0)

    assert ticket.read == -1
    assert not usage.cache_read


def test_an_unknown_model_and_one_without_markers_get_none_and_say_why() -> None:
    planner = CachePlanner()
    asked = prompt(system(1, 3000), said(2, 50))
    assert planner.plan(b"d", asked, None, Markers.AUTO, 0.0).plan.reason is (
        PlanReason.UNKNOWN_MODEL
    )
    old = rules("gpt-4o", "openai")
    assert planner.plan(b"d", asked, old, Markers.AUTO, 0.0).plan.reason is PlanReason.NO_MARKERS
    short = planner.plan(b"d", prompt(said(1, 100)), rules(), Markers.AUTO, 0.0)
    assert short.plan.reason is PlanReason.TOO_SHORT


def test_openais_one_shot_questions_are_spared_the_implicit_write() -> None:
    provider = Provider(rules("gpt-6-sol", "openai"))
    for number in range(50):
        ticket, usage = provider.ask([said(number, 1500)], 3.0 * number)
        assert ticket.plan.mode == "explicit"
        assert not usage.cache_write_5m


def test_openais_agents_are_left_in_implicit_mode() -> None:
    provider = Provider(rules("gpt-6-sol", "openai"))
    for turn, blocks in enumerate(conversation(1, 6)):
        own = [
            each._replace(can_mark=each.kind.value not in {"tool", "tool_use"}) for each in blocks
        ]
        ticket, usage = provider.ask(own, 20.0 * turn)
        assert not ticket.plan.mode
        assert ticket.plan.reason in {PlanReason.IMPLICIT, PlanReason.PLACED}
        if turn:
            assert usage.cache_read >= ticket.tokens[-3] - 1


def test_openais_agents_stay_in_implicit_mode_when_a_request_is_sent_again() -> None:
    provider = Provider(rules("gpt-6-sol", "openai"))
    for turn, blocks in enumerate(conversation(1, 4)):
        first, _ = provider.ask(blocks, 20.0 * turn)
        again, usage = provider.ask(blocks, 20.0 * turn + 5.0)
        assert (first.plan.mode, again.plan.mode) == ("", "")
        assert usage.cache_read == usage.input


def test_more_new_blocks_than_the_look_back_reaches_are_bridged() -> None:
    provider = Provider()
    blocks = [system(1, 3000), said(2, 50)]
    provider.ask(blocks, 0.0)
    blocks += [block(100 + n, 60, role="assistant" if n % 2 else "user") for n in range(45)]

    _, usage = provider.ask(blocks, 10.0)

    assert usage.cache_read == 3050


def test_domains_know_nothing_of_each_other() -> None:
    planner = CachePlanner()
    known = rules()
    begun, later = conversation(1, 2)
    ticket = planner.plan(b"one", prompt(*begun), known, Markers.AUTO, 0.0)
    planner.begun(ticket, 1.0)

    assert planner.plan(b"one", prompt(*later), known, Markers.AUTO, 5.0).read > 0
    assert planner.plan(b"two", prompt(*later), known, Markers.AUTO, 6.0).read == -1


def test_memory_stays_within_its_budget() -> None:
    planner = CachePlanner(budget_bytes=2_000_000)
    for number in range(3000):
        blocks = [said(10 * number + inner, 200) for inner in range(10)]
        domain = b"%d" % (number % 7)
        planner.plan(domain, prompt(*blocks), rules(), Markers.AUTO, float(number))
        assert planner.size_bytes <= 2_000_000


def test_the_same_traffic_is_planned_the_same() -> None:
    def plans() -> list[object]:
        provider = Provider()
        return [
            provider.ask(blocks, 11.0 * turn)[0].plan
            for number in range(3)
            for turn, blocks in enumerate(conversation(number, 10))
        ]

    assert plans() == plans()


def test_a_marker_changes_no_fingerprint() -> None:
    blocks = conversation(1, 3)[-1]
    marked = [each._replace(client_ttl_s=300) for each in blocks]
    assert chain(prompt(*blocks)) == chain(prompt(*marked))
