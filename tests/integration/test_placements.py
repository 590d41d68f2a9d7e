"""Gateways as processes of their own, in front of the same replicas: they know what the others placed."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.lab.engine_server import EngineServer
from tests.helpers.gateway_process import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.helpers.redis_servers import RedisServer

PATIENT_S = 20.0
CONVERSATIONS = 8


class Street:
    """Engines, the settings of gateways in front of them, and a client."""

    def __init__(self, settings: dict[str, Any], client: aiohttp.ClientSession) -> None:
        self.settings = settings
        self.client = client

    async def chat(self, gateway: GatewayProcess, said: list[str]) -> tuple[str, str]:
        """Where it went, and why."""
        roles = ("user", "assistant")
        messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]
        body = {"model": "simulated", "max_tokens": 4, "messages": messages}
        url = f"{gateway.api_url}/u/gpu/v1/chat/completions"
        async with self.client.post(url, json=body) as answer:
            assert answer.status == 200
            await answer.read()
            return answer.headers["x-gateway-backend"], answer.headers["x-gateway-affinity"]

    async def responds(self, gateway: GatewayProcess, **asked: str) -> tuple[str, str, str]:
        """To a question: the response's id, where it was made, and why."""
        body = {"model": "simulated", "store": True, **asked}
        url = f"{gateway.api_url}/u/gpu/v1/responses"
        async with self.client.post(url, json=body) as answer:
            assert answer.status == 200
            made = (await answer.json())["id"]
            return made, answer.headers["x-gateway-backend"], answer.headers["x-gateway-affinity"]

    async def turns(self, gateway: GatewayProcess, turn: int) -> list[tuple[str, str]]:
        """That turn of all conversations."""
        return [
            await self.chat(gateway, [text for t in range(turn) for text in _turn(each, t)][:-1])
            for each in range(CONVERSATIONS)
        ]

    async def records(self, gateway: GatewayProcess, outcome: str) -> float:
        async with self.client.get(f"{gateway.probe_url}/metrics") as answer:
            page = await answer.text()
        found = re.search(rf'gateway_route_records_total{{outcome="{outcome}".*?}} (\S+)', page)
        return float(found[1]) if found else 0.0

    async def until_heard(self, gateway: GatewayProcess, count: int) -> None:
        """Placed, begun, over: three records of each request."""
        await self.until_records(gateway, "heard", 3 * count)

    async def until_records(self, gateway: GatewayProcess, outcome: str, count: int) -> None:
        """So many of them."""
        async with asyncio.timeout(PATIENT_S):
            while await self.records(gateway, outcome) < count:  # noqa: ASYNC110 - its metrics tell
                await asyncio.sleep(0.02)


def _turn(conversation: int, turn: int) -> tuple[str, str]:
    return (
        f"Question {turn} of {conversation}? " * 40,
        f"Answer {turn} to {conversation}. " * 40,
    )


@asynccontextmanager
async def street(store: str) -> AsyncIterator[Street]:
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(
                EngineServer(name=f"e{n}", engine="vllm", prefill_rate=1e6, decode_s=0.0)
            )
            for n in range(4)
        ]
        pool = {
            "engine": "vllm",
            "backends": [{"url": each.v1_url, "name": each.name} for each in engines],
            "health": {"interval_s": 0},
        }
        settings = {
            "store": {"url": store},
            "upstreams": {"gpu": pool},
            "cache": {"when": "off"},
        }
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Street(settings, client)


@pytest.mark.slow
async def test_turns_that_come_through_another_gateway_go_where_the_conversation_lives(
    redis_server: RedisServer,
) -> None:
    async with (
        street(redis_server.url) as s,
        GatewayProcess(s.settings) as one,
        GatewayProcess(s.settings) as other,
    ):
        first = await s.turns(one, 1)
        assert {why for _, why in first} == {"new"}
        assert len({home for home, _ in first}) == 4
        await s.until_heard(other, CONVERSATIONS)
        homes = [home for home, _ in first]
        assert await s.turns(other, 2) == [(home, "extended") for home in homes]
        await s.until_heard(one, CONVERSATIONS)
        assert await s.turns(one, 3) == [(home, "extended") for home in homes]
        # One is lost without a word, and its successor knows.
        await one.kill()
        async with GatewayProcess(s.settings) as successor:
            assert await s.turns(successor, 4) == [(home, "extended") for home in homes]
        # Without Redis each goes on with what it knows.
        await asyncio.to_thread(redis_server.kill)
        assert len(await s.turns(other, 5)) == CONVERSATIONS


@pytest.mark.slow
async def test_with_sqlite_a_gateway_that_is_started_anew_knows_where_conversations_live(
    tmp_path: Path,
) -> None:
    async with street(f"sqlite:///{tmp_path / 'cache.sqlite'}") as s:
        async with GatewayProcess(s.settings) as gateway:
            homes = [home for home, _ in await s.turns(gateway, 1)]
        async with GatewayProcess(s.settings) as gateway:
            assert await s.turns(gateway, 2) == [(home, "extended") for home in homes]


@pytest.mark.slow
async def test_what_continues_a_response_goes_to_who_made_it_through_any_gateway(
    redis_server: RedisServer,
) -> None:
    async with street(redis_server.url) as s, GatewayProcess(s.settings) as one:
        made = [await s.responds(one, input=_turn(n, 0)[0]) for n in range(CONVERSATIONS)]
        assert len({home for _, home, _ in made}) > 1
        async with GatewayProcess(s.settings) as other:
            # (Placed, begun, over, and made.)
            await s.until_records(other, "heard", 4 * CONVERSATIONS)
            more = [
                await s.responds(other, input="And?", previous_response_id=each)
                for each, *_ in made
            ]
            assert [each[1:] for each in more] == [(home, "home") for _, home, _ in made]


@pytest.mark.slow
async def test_with_sqlite_who_made_a_response_is_known_after_a_restart(tmp_path: Path) -> None:
    async with street(f"sqlite:///{tmp_path / 'cache.sqlite'}") as s:
        async with GatewayProcess(s.settings) as gateway:
            made = [await s.responds(gateway, input=_turn(n, 0)[0]) for n in range(CONVERSATIONS)]
        assert len({home for _, home, _ in made}) > 1
        async with GatewayProcess(s.settings) as gateway:
            more = [
                await s.responds(gateway, input="And?", previous_response_id=each)
                for each, *_ in made
            ]
            assert [each[1:] for each in more] == [(home, "home") for _, home, _ in made]
