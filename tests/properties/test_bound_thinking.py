"""Models that bind thinking to all before it: whatever is learned, forgotten or planned by another
replica, what stands before a thinking block is the same on every turn.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from gateway.core.plan import Markers
from gateway.core.planner import CachePlanner
from gateway.lab import sim_anthropic_rules, sim_prompt, sim_thinking
from gateway.lab.sim_cache import Caches
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.marking import marked
from gateway.wire.prompt_blocks import cache_prompt
from tests.helpers.dice import Dice
from tests.properties.conftest import EXAMPLES, many, seeds

pytestmark = pytest.mark.timeout(600)

MODELS = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1", "claude-haiku-5-5")
API = "anthropic_messages"
SECRET = b"of the test"
SHARED = "".join(f"Rule {n}: the harbour's book says what to do.\n" for n in range(120))
TAILS = tuple(f"You speak to {name}.\n" * 20 for name in ("Ada", "Bob", "Cid"))
TOOLS = tuple({"name": name, "input_schema": {"type": "object"}} for name in "ba")


class Replicas:
    """Gateways that share nothing, before one provider."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._planners = [CachePlanner(), CachePlanner()]
        self._caches = Caches()
        self._now = 0.0

    def send(self, body: Any) -> Any:
        """The request as one of them forwards it; it learns from the answer."""
        self._now += self._dice.one((1.0, 30.0, 290.0, 1000.0))
        which = self._dice.up_to(1)
        if self._dice.yes(0.2):
            self._planners[which] = CachePlanner()
        planner = self._planners[which]
        raw = orjson.dumps(body)
        rules = cache_rules("anthropic", API, body["model"])
        prompt = cache_prompt(API, orjson.loads(raw), rules)
        markers = self._dice.one(tuple(Markers))
        ticket = planner.plan(b"all", prompt, rules, markers, self._now)
        if ticket.plan.changes:
            assert rules is not None
            raw = marked(raw, prompt, ticket.plan, rules)
        sent = orjson.loads(raw)
        usage = self._caches.bill(
            "anthropic",
            API,
            body["model"],
            sim_prompt.anthropic(sent),
            scope="",
            key="",
            now=self._now,
            first_byte_at=self._now,
        )
        planner.begun(ticket, self._now)
        planner.learn(ticket, usage, self._now)
        return sent


def opened(dice: Dice, model: str) -> Any:
    """A conversation's first request."""
    system: Any = SHARED + dice.one(TAILS)
    if dice.yes(0.3):
        system = [{"type": "text", "text": SHARED}, {"type": "text", "text": dice.one(TAILS)}]
    body: Any = {"model": model, "max_tokens": 2000, "system": system}
    if dice.yes():
        body["tools"] = list(TOOLS)
    question: Any = dice.one(("Hm?", "Why? " * 300))
    if dice.yes(0.3):
        question = [{"type": "text", "text": question}]
    return {**body, "messages": [{"role": "user", "content": question}]}


# Each is a dozen requests.
@settings(many, max_examples=max(100, EXAMPLES // 4))
@given(seed=seeds)
def test_what_stands_before_a_thinking_block_is_the_same_on_every_turn(seed: int) -> None:
    dice = Dice(seed)
    model = dice.one(MODELS)
    assert sim_anthropic_rules.binds_thinking(model)
    replicas = Replicas(dice)
    talks = [opened(dice, model) for _ in range(2 + dice.up_to(2))]
    for turn in range(3):
        for talk in talks:
            thinks = dice.yes(0.6)
            asked = {**talk, "thinking": {"type": "adaptive"}} if thinks else talk
            sent = replicas.send(asked)
            assert not sim_thinking.misfits(SECRET, sent, binds=True), (turn, sent)
            said = [{"type": "text", "text": f"Answer {turn}."}]
            if thinks:
                signature = sim_thinking.sign(SECRET, sent, binds=True)
                said.insert(0, {"type": "thinking", "thinking": "Hm.", "signature": signature})
            talk["messages"] += [
                {"role": "assistant", "content": said},
                {"role": "user", "content": dice.one(("And?", "But why? " * 200))},
            ]
