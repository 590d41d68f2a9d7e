"""/readyz follows what can be asked: engines that go and come, and a Redis that is away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import fetch
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from gateway.app import RunningGateway

HEALTH = {"interval_s": 0.05, "timeout_s": 1, "unhealthy_after": 2, "healthy_after": 1}
DEADLINE_S = 10
OK = response(b"{}")
DOWN = response(b"{}", status="503 Loading")


def pool(*replicas: ScriptedUpstream) -> dict[str, Any]:
    urls = [{"name": str(n), "url": f"{each.url}/v1"} for n, each in enumerate(replicas)]
    return {"engine": "vllm", "backends": urls, "health": HEALTH, "metrics_interval_s": 0}


async def probed(gateway: RunningGateway, query: str = "") -> tuple[int, dict[str, Any]]:
    answer = await fetch(gateway.probe_url, "GET", f"/readyz{query}")
    return answer.status, orjson.loads(answer.body)


async def until(gateway: RunningGateway, status: int, word: str) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_S):
        while (await probed(gateway))[0] != status:
            pass
    assert (await fetch(gateway.probe_url, "GET", "/livez")).status == 200
    code, told = await probed(gateway, "?verbose")
    assert (code, told["status"]) == (status, word)
    checks: dict[str, Any] = told["checks"]
    return checks


async def test_a_gateway_whose_engines_are_all_gone_is_not_ready_until_one_is_back() -> None:
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        one.otherwise(OK)
        two.otherwise(OK)
        # The two that are built in are as nobody has set them: they don't count.
        tree = {"engines": pool(one, two), "openai": {}, "anthropic": {}}
        async with gateway_here("http://127.0.0.1:1", upstreams=tree) as here:
            await until(here, 200, "ready")
            one.otherwise(DOWN)
            two.otherwise(DOWN, then_close=True)
            checks = await until(here, 503, "failing")
            assert checks["upstreams"] == {"ok": False, "required": True}
            assert checks["pool engines"] == {"ok": False, "required": False}
            one.otherwise(OK)
            checks = await until(here, 200, "ready")
            assert checks["pool engines"]["ok"]


async def test_a_gateway_without_its_redis_is_ready() -> None:
    store = {"url": "redis://127.0.0.1:1/0"}
    async with gateway_here("http://127.0.0.1:1", store=store) as here:
        assert await probed(here) == (200, {"status": "ready"})
