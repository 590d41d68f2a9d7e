"""The gateway as a process: it announces itself, gets ready, serves, and ends on SIGTERM."""

from __future__ import annotations

import aiohttp
import pytest

from gateway.lab.stub_provider import StubProvider
from tests.helpers.gateway_process import GatewayProcess


async def test_it_serves_and_ends_cleanly() -> None:
    async with StubProvider() as stub:
        upstream = {"base_url": stub.v1_url, "provider": "openai"}
        async with GatewayProcess({"upstreams": {"openai": upstream}}) as gateway:
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
            url = f"{gateway.api_url}/v1/chat/completions"
            async with aiohttp.ClientSession() as session:
                for expected in ("miss", "hit"):
                    async with session.post(url, json=body) as answer:
                        assert answer.status == 200
                        assert answer.headers["x-gateway-cache"] == expected
            assert stub.total_calls == 1
            assert await gateway.stop() == 0


async def test_a_start_that_fails_shows_what_it_printed() -> None:
    gateway = GatewayProcess("server: {port: -1}")
    with pytest.raises(AssertionError, match=r"status 2:(?s:.*)server\.port"):
        await gateway.start()


async def test_it_can_be_killed() -> None:
    async with GatewayProcess() as gateway:
        await gateway.kill()
        assert gateway.returncode == -9
