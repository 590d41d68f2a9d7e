"""Conversations of all kinds through a planner whose rewriter is broken on some turns: each break is
found, and nothing else. The truth comes from the bodies that were sent, compared without us.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings

from gateway.core.rewrites import Rewrite
from gateway.core.volatile_traffic import VolatileTraffic
from gateway.wire.rewriting import Rewriter, Rewritten
from tests.helpers import prompt_bodies, rewriting
from tests.helpers.bare import bare
from tests.helpers.dice import Dice
from tests.helpers.proved import proved
from tests.properties.conftest import EXAMPLES, many, seeds

if TYPE_CHECKING:
    from gateway.core.canonical import Json
    from gateway.core.rewrites import Case
    from gateway.wire.rewriting import Asker

pytestmark = pytest.mark.timeout(600)
# Each is a gateway's planner and a dozen requests.
some = settings(many, max_examples=min(EXAMPLES, 200))

MODELS = {
    "anthropic_messages": "claude-sonnet-4-5",
    "openai_chat": "gpt-6-sol",
    "openai_responses": "gpt-5.6-sol",
}


class Broken(Rewriter):
    """Changes something within what was sent before, on those turns that the dice choose."""

    def __init__(self, dice: Dice, share: float) -> None:
        super().__init__(VolatileTraffic())
        self._dice = dice
        self._share = share

    def rewrite(
        self, body: bytes, document: Json, case: Case, asker: Asker, now: float
    ) -> Rewritten:
        assert isinstance(document, dict)
        if not self._dice.yes(self._share):
            return Rewritten(body)
        changed: Any = orjson.loads(body)
        said = changed.get("messages", changed.get("input"))
        marked = f"({self._dice.up_to(2)})"
        ways = [lambda: said.insert(0, {"role": "user", "content": marked})]
        if changed.get("tools"):
            ways += [changed["tools"].reverse, changed["tools"].pop]
        if len(said) > 1:
            ways.append(lambda: said.__delitem__(0))
        self._dice.one(ways)()
        return Rewritten(orjson.dumps(changed), frozenset({Rewrite.SORT_TOOLS}))


def said_in(body: bytes) -> Any:
    return bare(orjson.loads(body))


def grew(earlier: Any, later: Any) -> bool:
    """Does it begin with the earlier one, as a provider reads it? Tools that are only loaded when the
    model looks for them are no part of it.
    """
    name = "input" if "input" in earlier else "messages"
    rest = []
    for each in (earlier, later):
        tools = [tool for tool in each.get("tools") or () if not tool.get("defer_loading")]
        rest.append({**each, name: None, "tools": tools})
    return rest[0] == rest[1] and later[name][: len(earlier[name])] == earlier[name]


async def run(seed: int, share: float) -> None:
    dice = Dice(seed)
    api = dice.one(tuple(MODELS))
    breaks = Broken(Dice(seed + 1), share)
    async with proved(breaks, prompt_cache={"rewrites": ["sort-tools"]}) as there:
        for _ in range(2):
            body = rewriting.request(dice, api, dice.up_to(2**30))
            body["model"] = MODELS[api]
            before: Any = None
            for turn in range(2 + dice.up_to(4)):
                if turn:
                    body = rewriting.gone_on(body, api, f"{dice.text()} {turn}")
                there.now += dice.one((1.0, 100.0))
                told = len(there.drifts)
                planned = await there.send(prompt_bodies.spelled(dice, body), api)
                sent = said_in(planned.body)
                drifted = len(there.drifts) > told
                if before is not None:
                    assert drifted is not grew(before, sent), (before, sent)
                else:
                    assert not drifted
                before = sent
        assert there.compared().get("skipped", 0) == 0


@some
@given(seed=seeds)
def test_every_break_is_found_and_nothing_else(seed: int) -> None:
    asyncio.run(run(seed, 0.3))


@some
@given(seed=seeds)
def test_without_a_break_there_is_none(seed: int) -> None:
    asyncio.run(run(seed, 0.0))
