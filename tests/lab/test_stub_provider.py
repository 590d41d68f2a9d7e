"""The stub as a server: what it counts, remembers and notices."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import orjson

from gateway.lab.stub_provider import StubProvider

DEADLINE_S = 10.0


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


async def test_it_counts_calls_and_remembers_the_latest_as_they_came() -> None:
    raw = b'{ "model":"gpt-4o", "messages":[{"role":"user","content":"h\\u0069"}] }'
    async with StubProvider(remember=2) as stub, aiohttp.ClientSession() as session:
        for _ in range(3):
            url = f"{stub.v1_url}/chat/completions?x=1"
            async with session.post(url, data=raw, headers={"X-Mixed-Case": "1"}) as answer:
                assert answer.status == 200
        async with session.get(f"{stub.url}/stub/calls") as answer:
            told = orjson.loads(await answer.read())
        assert told["calls"] == {"/v1/chat/completions": 3}
        assert stub.total_calls == 3
        assert len(stub.received) == 2
        latest = stub.received[-1]
        assert latest.body == raw
        assert latest.path == "/v1/chat/completions?x=1"
        assert ("X-Mixed-Case", "1") in latest.headers
        assert latest.header("x-mixed-case") == "1"
        assert repr(stub) == f"<StubProvider {stub.url}, 3 calls>"


async def test_it_takes_its_time() -> None:
    async with (
        StubProvider(latency_s=0.05, gap_s=0.002) as stub,
        aiohttp.ClientSession() as session,
    ):
        begun = time.perf_counter()
        url = f"{stub.v1_url}/chat/completions"
        async with session.post(url, json=ask("hi", stream=True)) as answer:
            assert time.perf_counter() - begun >= 0.05
            events = (await answer.read()).split(b"\n\n")
        assert time.perf_counter() - begun >= 0.05 + 0.002 * (len(events) - 2)


async def test_it_notices_who_hangs_up() -> None:
    async with StubProvider(gap_s=DEADLINE_S) as stub, aiohttp.ClientSession() as session:
        url = f"{stub.v1_url}/chat/completions"
        async with session.post(url, json=ask("hi", stream=True)) as answer:
            await answer.content.readuntil(b"\n\n")
            answer.close()
        await asyncio.wait_for(stub.hang_up.wait(), DEADLINE_S)
        assert stub.hung_up == 1


async def test_unknown_paths_and_bad_json_are_errors_in_the_apis_shape() -> None:
    async with StubProvider() as stub, aiohttp.ClientSession() as session:
        async with session.get(f"{stub.v1_url}/nothing") as answer:
            assert answer.status == 404
            assert "error" in orjson.loads(await answer.read())
        headers = {"anthropic-version": "2023-06-01"}
        async with session.post(f"{stub.v1_url}/messages", data=b"{", headers=headers) as answer:
            assert answer.status == 400
            told = orjson.loads(await answer.read())
            assert told["error"]["type"] == "invalid_request_error"
            assert answer.headers["request-id"] == told["request_id"]
