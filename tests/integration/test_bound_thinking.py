"""A conversation whose thinking is bound to all before it, through two gateways that share a Redis, are
restarted and lose it: the provider refuses no turn, and what it reads grows with each.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import anthropic
import orjson
import pytest

from gateway.cache import Clock
from gateway.core.rewrites import NAMES
from gateway.lab.provider_sim import ProviderSim
from tests.helpers.bare import bare
from tests.helpers.caching import WORDS, Time, tool
from tests.helpers.gateway_here import gateway_here

if TYPE_CHECKING:
    from tests.helpers.redis_servers import RedisServer

MODEL = "claude-opus-5-5"
TURNS = 14
SYSTEM = f"Session began: 2026-11-22T10:00:00Z\nYour id: 1f0e6f3c-93f1-4d40-a5a8-0a4c2d1f7e55\n{WORDS * 90}"


class Replicas:
    """Gateways that share a store, and the clients of each."""

    def __init__(self, sim: ProviderSim, time: Time, store: str, rewrites: list[str]) -> None:
        self._sim = sim
        self._clock = Clock(now=time, monotonic=time)
        self._sections: dict[str, Any] = {
            "store": {"url": store},
            "prompt_cache": {"rewrites": rewrites},
        }
        self._stacks: list[AsyncExitStack] = []
        self.clients: list[anthropic.AsyncAnthropic] = []

    async def open(self) -> None:
        """One more."""
        stack = AsyncExitStack()
        gateway = await stack.enter_async_context(
            gateway_here(self._sim.url, self._clock, **self._sections)
        )
        made = anthropic.AsyncAnthropic(base_url=gateway.api_url, api_key="sk-1", max_retries=0)
        self.clients.append(await stack.enter_async_context(made))
        self._stacks.append(stack)

    async def restart(self, which: int) -> None:
        """It forgets all that it kept in memory."""
        await self._stacks.pop(which).aclose()
        self.clients.pop(which)
        await self.open()

    async def __aenter__(self) -> Self:
        for _ in range(2):
            await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        for stack in self._stacks:
            await stack.aclose()


async def turn(client: anthropic.AsyncAnthropic, body: Any, *, streams: bool) -> Any:
    """One answer of the model."""
    if not streams:
        return await client.messages.create(**body)
    async with client.messages.stream(**body) as stream:
        return await stream.get_final_message()


@pytest.mark.parametrize("rewrites", [[], list(NAMES)], ids=["as it comes", "every rewrite"])
async def test_no_turn_is_refused_and_reads_grow_whatever_becomes_of_the_gateways(
    redis_server: RedisServer, rewrites: list[str]
) -> None:
    time = Time()
    sim = ProviderSim(clock=time, remember=200)
    dice = random.Random(rewrites.__repr__())
    messages: list[dict[str, Any]] = []
    # Out of order, as what sorts tools would find them.
    tools = [tool("look"), tool("ask"), tool("berths")]
    asked: list[Any] = []
    used: list[int] = []
    thought = 0
    async with sim, Replicas(sim, time, redis_server.url, rewrites) as replicas:
        for number in range(TURNS):
            if number == 4:
                await replicas.restart(0)
            if number == 7:
                redis_server.kill()
            if number == 9:
                await replicas.restart(1)
            if number == 11:
                redis_server.start()  # empty
            said: Any = f"Turn {number}: {WORDS * dice.randint(2, 30)}"
            if dice.random() < 0.5:
                said = [{"type": "text", "text": said}, {"type": "text", "text": "And?"}]
            messages.append({"role": "user", "content": said})
            body = {
                "model": MODEL,
                "max_tokens": 4000,
                "system": SYSTEM,
                "tools": tools,
                "thinking": {"type": "adaptive"},
                "messages": messages,
            }
            asked.append(orjson.loads(orjson.dumps(body)))
            time.now += dice.choice((5.0, 40.0, 200.0))
            client = dice.choice(replicas.clients)
            answer = await turn(client, body, streams=dice.random() < 0.5)
            content = [block.model_dump(mode="json", exclude_none=True) for block in answer.content]
            thought += sum(block["type"] == "thinking" for block in content)
            messages.append({"role": "assistant", "content": content})
            used.append(answer.usage.cache_read_input_tokens)
        sent = [orjson.loads(each.body) for each in sim.received]

    assert not sim.refused
    # Each turn has a signature for the simulation to check in all later ones.
    assert thought == TURNS
    for forwarded, meant in zip(sent, asked, strict=True):
        forwarded.pop("stream", None)
        assert bare(forwarded) == bare(meant)
    assert used[0] == 0
    assert used[1] > 1000
    assert used == sorted(used)
    # All but what the last turn brought.
    last = sim.usages[-1]
    assert last.cache_read > 0.8 * last.input


async def test_a_changed_beginning_is_what_the_simulation_would_have_refused() -> None:
    time = Time()
    async with (
        ProviderSim(clock=time) as sim,
        anthropic.AsyncAnthropic(base_url=sim.url, api_key="sk-1", max_retries=0) as client,
    ):
        body: dict[str, Any] = {
            "model": MODEL,
            "max_tokens": 4000,
            "system": SYSTEM,
            "thinking": {"type": "adaptive"},
            "messages": [{"role": "user", "content": "Hm?"}],
        }
        answer = await client.messages.create(**body)
        content = [block.model_dump(mode="json", exclude_none=True) for block in answer.content]
        body["messages"] += [
            {"role": "assistant", "content": content},
            {"role": "user", "content": "And?"},
        ]
        split = [{"type": "text", "text": half} for half in (SYSTEM[:3000], SYSTEM[3000:])]
        with pytest.raises(anthropic.BadRequestError, match="bound to a different conversation"):
            await client.messages.create(**{**body, "system": split})
        await client.messages.create(**body)
