"""What caches tell each other of how requests go on, and how much they risk together."""

from __future__ import annotations

import pytest

from gateway.core.experience import RISK_FLOOR, Experience, Told
from gateway.core.model import Usage
from gateway.core.plan import Markers
from gateway.core.planner import CachePlanner
from gateway.core.recurrence import Odds
from tests.helpers.prompts import answered, prompt, returned, rules, said, system, tools

PRIOR = Odds(0.5, 0.6, 0.6, 0.6)


def test_a_cache_does_not_hear_itself_as_others_experience() -> None:
    experience, told = Experience(), Told()
    for _ in range(5):
        for teller in experience.tellers("armed", told):
            teller.lost()

    assert experience.expected("armed", told, PRIOR) == PRIOR
    assert experience.of_others("armed", told).weight == 0.0


def test_a_new_cache_expects_what_others_have_seen() -> None:
    experience = Experience()
    for _ in range(4):
        told = Told()
        for _ in range(5):
            for teller in experience.tellers("armed", told):
                teller.lost()

    odds = experience.expected("armed", Told(), PRIOR)

    assert odds.five_minutes == pytest.approx(6 * 0.6 / 26)


def test_a_busy_cache_has_no_more_say_than_others() -> None:
    experience, told = Experience(), Told()
    for _ in range(100):
        for teller in experience.tellers("armed", told):
            teller.lost()

    assert experience.of_others("armed", Told()).weight == 8.0


def test_what_is_out_unproven_is_bounded() -> None:
    experience = Experience()
    assert experience.may_risk(1e9)
    experience.risk(RISK_FLOOR)
    assert not experience.may_risk(1.0)
    experience.asked(1_000_000)
    assert experience.may_risk(3000.0)
    assert not experience.may_risk(3001.0)
    experience.risk(-RISK_FLOOR)
    assert experience.may_risk(1e9)


def premiums(blocks_of: object, count: int, domains: int, apart_s: float) -> tuple[float, int]:
    """What markers cost on requests of which nothing ever comes again, and what was asked."""
    planner, known = CachePlanner(), rules()
    spent, asked = 0.0, 0
    for number in range(count):
        now = apart_s * number
        blocks = blocks_of(number)  # type: ignore[operator]
        domain = b"%d" % (number % domains)
        ticket = planner.plan(domain, prompt(*blocks), known, Markers.AUTO, now)
        total = sum(block.size for block in blocks) // 4
        long = max((m.block for m in ticket.plan.marks if m.ttl_s == 3600), default=-1)
        short = max((m.block for m in ticket.plan.marks), default=-1)
        hour = ticket.tokens[long] if long >= 0 else 0
        wrote = ticket.tokens[short] - hour if short >= 0 else 0
        spent += 0.25 * wrote + hour
        asked += total
        planner.begun(ticket, now)
        planner.learn(ticket, Usage(total - wrote - hour, 0, wrote, hour), now)
    return spent, asked


@pytest.mark.parametrize("domains", [1, 30, 400])
@pytest.mark.parametrize("apart_s", [0.05, 2.0, 1000.0])
def test_one_shots_of_any_number_of_clients_cost_one_percent_at_most(
    domains: int, apart_s: float
) -> None:
    def alone(number: int) -> list[object]:
        return [tools(10 * number, 4000), system(10 * number + 1, 2000), said(10 * number, 500)]

    spent, asked = premiums(alone, 400, domains, apart_s)

    assert spent <= 0.01 * asked


@pytest.mark.parametrize("domains", [1, 30])
@pytest.mark.parametrize("apart_s", [0.05, 2.0, 1000.0])
def test_examples_in_the_form_of_turns_are_no_conversation(domains: int, apart_s: float) -> None:
    def with_examples(number: int) -> list[object]:
        first = 100 * number
        examples = [
            turn(first + each, 500)._replace(kind=said(0, 1).kind)
            for each in range(4)
            for turn in (said, answered)
        ]
        return [system(first, 3000), *examples, said(first + 50, 500)]

    spent, asked = premiums(with_examples, 400, domains, apart_s)

    assert spent <= 0.01 * asked


def test_a_tools_result_is_marked_wherever_its_conversation_was_begun() -> None:
    planner, known = CachePlanner(), rules()
    for number in range(5):
        first = 10 * number
        blocks = [
            tools(1, 4000),
            said(first, 900),
            answered(first + 1, 50),
            returned(first + 2, 900),
        ]
        ticket = planner.plan(b"d", prompt(*blocks), known, Markers.AUTO, float(number))
        assert ticket.plan.marks
