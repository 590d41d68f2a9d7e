"""What a provider takes before marking it takes after: ten thousand requests of every shape, for
each API, in conversations of four and more.

The judge is the simulated provider, which reads requests apart from how the gateway does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pytest
from hypothesis import given, settings

from gateway.core.plan import Mark, Markers, Plan, PlanReason
from gateway.core.planner import CachePlanner
from gateway.lab import sim_anthropic_rules, sim_openai_rules, sim_prompt
from gateway.lab.sim_cache import Caches
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.marking import marked
from gateway.wire.prompt_blocks import cache_prompt
from tests.helpers import prompt_bodies
from tests.helpers.dice import Dice
from tests.properties.conftest import EXAMPLES, many, seeds

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.lab.sim_prompt import Rendered

pytestmark = pytest.mark.timeout(600)


class Wire(NamedTuple):
    """One API, as thrown, judged and rendered."""

    provider: str
    name: str
    throw: Callable[[Dice], list[Any]]
    refusal: Callable[[Any], Any]
    rendered: Callable[[Any], Rendered]


WIRES = (
    Wire(
        "anthropic",
        "anthropic_messages",
        prompt_bodies.anthropic,
        lambda body: sim_anthropic_rules.refusal(body, blank_text=True),
        sim_prompt.anthropic,
    ),
    Wire(
        "openai",
        "openai_chat",
        prompt_bodies.openai_chat,
        lambda body: sim_openai_rules.refusal("chat", body),
        lambda body: sim_prompt.openai("chat", body),
    ),
    Wire(
        "openai",
        "openai_responses",
        prompt_bodies.openai_responses,
        lambda body: sim_openai_rules.refusal("responses", body),
        lambda body: sim_prompt.openai("responses", body),
    ),
)
conversations = settings(many, max_examples=max(100, EXAMPLES // 4))
every_wire = pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])


@every_wire
@conversations
@given(seed=seeds)
def test_what_was_accepted_before_marking_is_accepted_after_it(wire: Wire, seed: int) -> None:
    """In every mode, turn after turn, learning from the usage that the simulated cache tells."""
    dice = Dice(seed)
    talks = [wire.throw(dice)]
    # Another conversation with the same head, and the first one over again.
    talks += [talks[0]] if dice.yes() else [wire.throw(dice)]
    planners = {markers: (CachePlanner(), Caches()) for markers in Markers}
    now = 0.0
    for body in (turn for talk in talks for turn in talk):
        if wire.refusal(body) is not None:
            continue
        now += dice.one((1.0, 20.0, 400.0))
        raw = prompt_bodies.spelled(dice, body)
        for markers, (planner, caches) in planners.items():
            sent = _sent(wire, raw, markers, planner, caches, now)
            assert wire.refusal(sent) is None, (markers, sent)


def _sent(
    wire: Wire, raw: bytes, markers: Markers, planner: CachePlanner, caches: Caches, now: float
) -> Any:
    """The request as it is forwarded, after the planner has learned from its answer."""
    body = orjson.loads(raw)
    rules = cache_rules(wire.provider, wire.name, body["model"])
    prompt = cache_prompt(wire.name, body, rules)
    ticket = planner.plan(b"all", prompt, rules, markers, now)
    forwarded = raw
    if ticket.plan.changes:
        assert rules is not None
        forwarded = marked(raw, prompt, ticket.plan, rules)
    assert markers is not Markers.OFF or forwarded == raw
    sent = orjson.loads(forwarded)
    before, after = wire.rendered(body), wire.rendered(sent)
    if not ticket.plan.splits and not any(prompt.blocks[m.block].until for m in ticket.plan.marks):
        assert before.chain == after.chain, "more than markers was changed"
    usage = caches.bill(
        wire.provider,
        wire.name,
        body["model"],
        after,
        scope="",
        key="",
        now=now,
        first_byte_at=now + 0.5,
    )
    planner.begun(ticket, now + 0.5)
    planner.learn(ticket, usage, now + 0.6)
    return sent


@every_wire
@many
@given(seed=seeds)
def test_every_block_that_can_be_marked_is_accepted_marked(wire: Wire, seed: int) -> None:
    """Whatever a planner may choose one day: a marker on each block by itself, without others."""
    dice = Dice(seed)
    body = dice.one(wire.throw(dice))
    raw = prompt_bodies.spelled(dice, body)
    rules = cache_rules(wire.provider, wire.name, body["model"])
    if wire.refusal(body) is not None or rules is None or not rules.takes_markers:
        return
    prompt = cache_prompt(wire.name, body, rules)
    for index, block in enumerate(prompt.blocks):
        if block.can_mark:
            lifetime = rules.lifetimes[0].ttl_s
            plan = Plan(PlanReason.PLACED, (Mark(index, lifetime),), strips=True)
            sent = orjson.loads(marked(raw, prompt, plan, rules))
            sent.pop("cache_control", None)
            assert wire.refusal(sent) is None, (block, sent)


@pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])
def test_most_of_what_is_thrown_is_legal_and_some_of_it_is_marked(wire: Wire) -> None:
    """Else the properties above would say nothing."""
    thrown = legal = changed = 0
    planner = CachePlanner()
    for seed in range(300):
        dice = Dice(seed)
        for now, body in enumerate(wire.throw(dice)):
            thrown += 1
            if wire.refusal(body) is not None:
                continue
            legal += 1
            rules = cache_rules(wire.provider, wire.name, body["model"])
            prompt = cache_prompt(wire.name, body, rules)
            plan = planner.plan(b"", prompt, rules, Markers.AUTO, 1000.0 * seed + now).plan
            changed += plan.changes

    assert legal > 0.7 * thrown
    assert changed > 0.05 * legal
