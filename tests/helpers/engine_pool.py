"""Engines in the test's own loop with a gateway before them, and a client of it: nothing is a process,
so that a test sees what an engine is doing, and acts at that moment.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from gateway.lab.engine_server import NAME_HEADER, EngineServer
from tests.helpers.gateway_here import gateway_here

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.app import RunningGateway

DEADLINE_S = 30.0


class Pool:
    """A gateway before engines, and a client."""

    def __init__(
        self, gateway: RunningGateway, engines: list[EngineServer], session: aiohttp.ClientSession
    ) -> None:
        self.gateway = gateway
        self.engines = engines
        self._session = session

    def busy(self) -> EngineServer:
        """The engine that is at work."""
        return next(each for each in self.engines if each.work.running)

    async def ask(
        self, body: dict[str, Any], path: str = "chat/completions", **headers: str
    ) -> Said:
        """What it was answered. `aiohttp.ClientError` if the answer breaks off."""
        sent = {"authorization": "Bearer sk-one", **headers}
        url = f"{self.gateway.api_url}/v1/{path}"
        async with self._session.post(url, json=body, headers=sent) as response:
            raw = await response.read()
            assert response.status == 200, raw
            if body.get("stream"):
                assert raw.endswith(b"data: [DONE]\n\n"), raw[-200:]
            told = {} if body.get("stream") else await response.json()
            return Said(response.headers[NAME_HEADER], response.headers["x-gateway-affinity"], told)

    async def backends(self) -> dict[str, dict[str, Any]]:
        """What the admin port says of each."""
        async with self._session.get(f"{self.gateway.admin_url}/admin/backends") as response:
            told = await response.json()
        return {each["name"]: each for each in told["upstreams"]["openai"]["backends"]}

    async def gauge(self, name: str, backend: str) -> float:
        """A metric about this replica."""
        async with self._session.get(f"{self.gateway.probe_url}/metrics") as response:
            page = await response.text()
        for line in page.splitlines():
            if line.startswith(f"{name}{{") and f'backend="{backend}"' in line:
                return float(line.split()[-1])
        raise LookupError(f"{name} of {backend} is not told")


class Said:
    """One answer."""

    def __init__(self, engine: str, branch: str, told: dict[str, Any]) -> None:
        self.engine = engine
        self.branch = branch
        self._told = told

    def __repr__(self) -> str:
        return f"<{self.engine} by {self.branch}, {self.cached} cached>"

    @property
    def text(self) -> str:
        return str(self._told["choices"][0]["message"]["content"])

    @property
    def cached(self) -> int:
        usage = self._told.get("usage") or {}
        return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))


@asynccontextmanager
async def pool(
    number: int = 4,
    *,
    routing: dict[str, Any] | None = None,
    health: dict[str, Any] | None = None,
    metrics_interval_s: float = 0.0,
    **settings: Any,
) -> AsyncIterator[Pool]:
    """So many engines, fast ones unless `settings` (of `EngineServer`) say otherwise."""
    kind = settings.get("engine", "vllm")
    given = {"prefill_rate": 1e6, "decode_s": 0.0, **settings}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(DEADLINE_S))
        engines = [
            await stack.enter_async_context(EngineServer(name=f"e{i}", **given))
            for i in range(number)
        ]
        upstream = {
            "engine": kind,
            "backends": [{"name": each.name, "url": each.v1_url} for each in engines],
            "health": {"interval_s": 0.05, **(health or {})},
            "metrics_interval_s": metrics_interval_s,
            "routing": {"warm_tokens": 0, **(routing or {})},
        }
        gateway = await stack.enter_async_context(
            gateway_here("http://127.0.0.1:9", upstreams={"openai": upstream})
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Pool(gateway, engines, session)


def words(name: str, tokens: int) -> str:
    """Text that nobody else has: `name` in every word of it."""
    return " ".join(f"{name}{i}" for i in range(tokens * 4 // (len(name) + 4)))


def chat(*said: str, system: str = "", **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    opening = [{"role": "system", "content": system}] if system else []
    return {"model": "simulated", "messages": [*opening, *messages], "max_tokens": 8, **more}


async def until(met: Callable[[], bool]) -> None:
    while not met():  # noqa: ASYNC110 - the engine has no condition to wait on
        await asyncio.sleep(0.002)
