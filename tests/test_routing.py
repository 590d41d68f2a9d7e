"""Requests on their way through a pool whose replicas answer byte by byte as told."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from gateway.core.route import Branch
from gateway.routing import Routing
from tests.helpers.echoing import echoing
from tests.helpers.gateway_here import gateway_here
from tests.helpers.redis_servers import free_port
from tests.helpers.scripted_upstream import (
    LAST_CHUNK,
    ScriptedUpstream,
    chunk,
    response,
    stream_head,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.app import RunningGateway

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
ANSWER = json.dumps(
    {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
    }
).encode()


@dataclass
class Pair:
    """Two replicas, of which the first has by far the greater weight."""

    gateway: RunningGateway
    first: ScriptedUpstream
    second: ScriptedUpstream
    client: aiohttp.ClientSession

    def url(self, path: str) -> str:
        return f"{self.gateway.api_url}/u/gpu/v1/{path}"

    def in_flight(self) -> list[int]:
        told = self.gateway._assembled.routing.told()["gpu"]
        return [each["in_flight"] for each in told.values()]


@asynccontextmanager
async def pair(*, first_is_there: bool = True, **upstream: Any) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(ScriptedUpstream())
        second = await stack.enter_async_context(ScriptedUpstream())
        url = first.url if first_is_there else f"http://127.0.0.1:{free_port()}"
        backends = [
            {"url": f"{url}/v1", "name": "first", "weight": 1000},
            {"url": f"{second.url}/v1", "name": "second"},
        ]
        pool = {
            "engine": "openai",
            "backends": backends,
            "health": {"interval_s": 0, "eject_after": 0, "outliers": False},
            "routing": {"policy": "round_robin"},
            **upstream,
        }
        gateway = await stack.enter_async_context(
            gateway_here(first.url, upstreams={"gpu": pool}, cache={"when": "off"})
        )
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Pair(gateway, first, second, client)


async def upload() -> AsyncIterator[bytes]:
    for _ in range(4):
        yield b"x" * 1000


async def test_an_upload_that_comes_in_pieces_goes_on_where_nothing_of_it_was_taken() -> None:
    async with pair(first_is_there=False) as p:
        p.second.otherwise(response(b"{}"))
        async with p.client.post(p.url("audio/transcriptions"), data=upload()) as answer:
            assert answer.status == 200
            assert answer.headers["x-gateway-backend"] == "second"
            assert answer.headers["x-gateway-affinity"] == Branch.MOVED_HEALTH
        assert (await p.second.request(0)).body == b"x" * 4000
        assert p.in_flight() == [0, 0]


async def test_an_upload_in_pieces_is_not_sent_again_once_it_was_read() -> None:
    async with pair() as p:
        p.first.otherwise(then_close=True)
        p.second.otherwise(response(b"{}"))
        async with p.client.post(p.url("audio/transcriptions"), data=upload()) as answer:
            assert answer.status == 502
        assert p.second.seen == []
        assert p.in_flight() == [0, 0]


@pytest.mark.parametrize("status", ["429 Too Many", "502 Bad", "503 Away", "504 Late"])
async def test_what_a_replica_can_not_take_now_another_may(status: str) -> None:
    async with pair() as p:
        p.first.otherwise(response(b'{"error":{}}', status=status))
        p.second.otherwise(response(ANSWER))
        async with p.client.post(p.url("chat/completions"), json=CHAT) as answer:
            assert (answer.status, await answer.read()) == (200, ANSWER)
            assert answer.headers["x-gateway-backend"] == "second"
        assert p.in_flight() == [0, 0]


@pytest.mark.parametrize("status", ["400 Bad", "401 Who", "404 What", "422 Odd", "500 Oh"])
async def test_what_a_replica_says_of_the_request_itself_is_handed_on(status: str) -> None:
    async with pair() as p:
        p.first.otherwise(response(b'{"error":{}}', status=status))
        async with p.client.post(p.url("chat/completions"), json=CHAT) as answer:
            assert answer.status == int(status[:3])
            assert answer.headers["x-gateway-backend"] == "first"
        assert p.second.seen == []
        backend = p.gateway._assembled.pools["gpu"]["first"]
        assert backend.failures == 0


async def test_a_client_that_leaves_is_in_flight_nowhere_and_retried_nowhere() -> None:
    async with pair() as p:
        p.first.answer(stream_head(), chunk(b"data: {}\n\n"), (asyncio.Event(), b""))
        asked = {**CHAT, "stream": True}
        async with p.client.post(p.url("chat/completions"), json=asked) as answer:
            await answer.content.readany()
            assert p.in_flight() == [1, 0]
        seen = await p.first.request(0)
        async with asyncio.timeout(5):
            await seen.hung_up.wait()
            while any(p.in_flight()):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
        assert p.second.seen == []


async def test_a_stream_s_head_is_no_answer_yet() -> None:
    async with pair() as p:
        p.first.otherwise(stream_head(), then_close=True)
        p.second.otherwise(stream_head(), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
        asked = {**CHAT, "stream": True}
        async with p.client.post(p.url("chat/completions"), json=asked) as answer:
            assert answer.headers["x-gateway-backend"] == "second"
            assert await answer.read() == b"data: [DONE]\n\n"
        assert p.in_flight() == [0, 0]


async def test_what_a_replica_says_in_our_name_is_not_believed() -> None:
    async with pair() as p:
        ours = {"x-gateway-backend": "somebody", "x-gateway-affinity": "love"}
        p.first.otherwise(response(ANSWER, headers=ours))
        async with p.client.post(p.url("chat/completions"), json=CHAT) as answer:
            assert answer.headers.getall("x-gateway-backend") == ["first"]
            assert answer.headers.getall("x-gateway-affinity") == ["spread"]


async def test_a_compressed_request_is_placed_somewhere_and_passes_through() -> None:
    async with pair() as p:
        p.first.otherwise(response(ANSWER))
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        body = b"\x1f\x8b not really"
        url = p.url("chat/completions")
        async with p.client.post(url, data=body, headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers["x-gateway-affinity"] == "spread"
        assert (await p.first.request(0)).body == body


async def test_a_websocket_goes_through_a_pool_and_counts_while_it_is_open() -> None:
    async with echoing() as base:
        pool = {
            "engine": "openai",
            "backends": [{"url": f"{base}/v1", "name": "one"}],
            "health": {"interval_s": 0},
        }
        async with gateway_here(base, upstreams={"gpu": pool}) as gateway:
            url = f"{gateway.api_url.replace('http', 'ws', 1)}/u/gpu/v1/realtime"
            routing = gateway._assembled.routing
            async with connect(url, proxy=None) as connection:
                assert connection.response is not None
                assert connection.response.headers["x-gateway-backend"] == "one"
                await connection.send("hello")
                assert await connection.recv() == "hello"
                assert routing.told()["gpu"]["one"]["in_flight"] == 1
            async with asyncio.timeout(5):
                while routing.told()["gpu"]["one"]["in_flight"]:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0)


async def test_an_endpoint_without_replicas_is_called_as_ever() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.otherwise(response(ANSWER))
        async with gateway_here(upstream.url) as gateway, aiohttp.ClientSession() as client:
            url = f"{gateway.api_url}/v1/chat/completions"
            async with client.post(url, json=CHAT) as answer:
                assert answer.status == 200
                assert "x-gateway-backend" not in answer.headers
            assert repr(gateway._assembled.routing) == "<Routing to 0 pools, 0 failures>"


async def test_of_many_long_ones_few_are_held_as_what_they_were_read_as(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, most, read = 0, 0, Routing._read_beside

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal held, most
        held, most = held + 1, max(most, held + 1)
        try:
            return await read(*args, **options)
        finally:
            held -= 1

    monkeypatch.setattr(Routing, "_read_beside", counted)
    async with pair() as p:
        routing = p.gateway._assembled.routing
        bodies = [
            json.dumps({**CHAT, "messages": [{"role": "user", "content": f"{n}" * 600_000}]})
            for n in range(8)
        ]
        ways = await asyncio.gather(
            *(routing.alone("openai_chat", each.encode()) for each in bodies)
        )

    assert (held, most) == (0, 2)
    assert all(each.wish.trail.prints for each in ways)
