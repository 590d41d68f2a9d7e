"""What a pool's engines say of themselves reaches who decides: sizes, and caches that are empty."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import pytest

from gateway.lab.engine_server import EngineServer
from tests.helpers.gateway_here import gateway_here

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.app import RunningGateway
    from gateway.upstream.engine import Engine

TEXT = "You are a careful assistant of a large shop. " * 100
DEADLINE_S = 10.0


class Scene(NamedTuple):
    gateway: RunningGateway
    engine: EngineServer
    client: aiohttp.ClientSession

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = self.gateway._assembled.routing.told()["gpu"]["e0"]
        return told

    def watched(self) -> Engine:
        return self.gateway._assembled.engines["gpu/e0"]

    async def ask(self) -> None:
        body = {"model": "simulated", "messages": [{"role": "user", "content": TEXT}]}
        url = f"{self.gateway.api_url}/u/gpu/v1/chat/completions"
        async with self.client.post(url, json=body) as answer:
            assert answer.status == 200
            await answer.read()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """After however many pages."""
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():
                await self.gateway._assembled.engines.read(self.watched())


@asynccontextmanager
async def scene(engine: str, **settings: Any) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            EngineServer(name="e0", engine=engine, prefill_rate=1e6, decode_s=0.0)
        )
        pool = {
            "engine": engine,
            "backends": [{"url": server.v1_url, "name": "e0"}],
            "health": {"interval_s": 0},
            "metrics_interval_s": 60,
            "routing": {"warm_tokens": 0},
            **settings,
        }
        gateway = await stack.enter_async_context(
            gateway_here(server.url, upstreams={"gpu": pool}, cache={"when": "off"})
        )
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Scene(gateway, server, client)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp"])
async def test_how_much_a_replica_holds_is_read_from_it(engine: str) -> None:
    async with scene(engine) as pool:
        await pool.until(lambda: pool.watched().size != (0, 0))
        tokens, slots = pool.watched().size
        known = pool.told()["capacity_tokens"]
        async with pool.client.get(f"{pool.gateway.admin_url}/admin/stats") as answer:
            told = (await answer.json())["engines"]["gpu/e0"]

    assert tokens > 0
    assert (told["capacity_tokens"], told["slots"] or 0) == (tokens, slots)
    if engine == "llamacpp":
        assert slots > 0
    else:
        assert known == tokens


async def test_a_replica_whose_counters_began_anew_is_thought_to_be_empty() -> None:
    async with scene("vllm") as pool:
        await pool.ask()
        await pool.gateway._assembled.engines.read(pool.watched())
        held = pool.told()["mirror_tokens"]
        # Its port stays, and no request meets it while it is gone.
        await pool.engine.restart()
        await pool.until(lambda: pool.watched().restarts == 1)
        left = pool.told()["mirror_tokens"]

    assert held > 0
    assert left == 0


async def test_what_was_noticed_otherwise_is_not_dropped_again() -> None:
    async with scene("vllm") as pool:
        for _ in range(3):
            await pool.ask()
        await pool.gateway._assembled.engines.read(pool.watched())
        await pool.engine.restart()
        # A probe or a request has noticed, and the replica has been given something since.
        pool.gateway._assembled.pools["gpu"].restarted("e0")
        await pool.ask()
        held = pool.told()["mirror_tokens"]
        await pool.until(lambda: pool.watched().restarts == 1)
        left = pool.told()["mirror_tokens"]

    assert held > 0
    assert left == held
