"""SIGTERM with 200 streams open: nothing breaks, everybody is told, and it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import openai
import orjson
import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from tests.helpers.balancer import Balancer
from tests.helpers.echoing import echoing
from tests.helpers.gateway_here import gateway_here, settings
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.raw_client import Broken, RawClient, fetch
from tests.helpers.scripted_upstream import ScriptedUpstream, response, serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHAT = "/v1/chat/completions"
STREAMS = 200
KEPT = 20
PIECES = 5
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class World(NamedTuple):
    gateway: GatewayProcess
    gate: asyncio.Event
    """The streams go on when it is set."""


def event(content: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    shape = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + orjson.dumps({**shape, "choices": [choice]}) + b"\n\n"


@asynccontextmanager
async def world(**server: float) -> AsyncIterator[World]:
    gate = asyncio.Event()

    async def chat(request: web.Request) -> web.StreamResponse:
        asked = orjson.loads(await request.read())
        if not asked.get("stream"):
            return web.json_response(ANSWER)
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await out.prepare(request)
        await out.write(event(asked["messages"][0]["content"]))
        await gate.wait()
        for number in range(PIECES):
            await out.write(event(str(number)))
            await asyncio.sleep(0.01)
        await out.write(event("", "stop") + b"data: [DONE]\n\n")
        return out

    app = web.Application()
    app.router.add_post(CHAT, chat)
    async with serve_app(app) as base:
        log = {"level": "info", "format": "json"}
        tree = settings(base, server={"drain_timeout_s": 30, "drain_idle_s": 5, **server}, log=log)
        async with GatewayProcess(tree) as gateway:
            yield World(gateway, gate)


def asked(number: int, *, stream: bool) -> bytes:
    messages = [{"role": "user", "content": f"question {number}"}]
    return orjson.dumps({"model": "m", "messages": messages, "stream": stream, "temperature": 0})


async def opened(client: RawClient, number: int) -> AsyncIterator[bytes]:
    """A stream whose first piece is here."""
    await client.ask("POST", CHAT, asked(number, stream=True))
    head = await client.head()
    assert head.status == 200
    pieces = client.pieces(head)
    assert f"question {number}".encode() in await anext(pieces)
    return pieces


async def readiness(gateway: GatewayProcess) -> tuple[int, str]:
    answer = await fetch(gateway.probe_url, "GET", "/readyz", None, [("Connection", "close")])
    return answer.status, orjson.loads(answer.body)["status"]


def signalled(gateway: GatewayProcess, number: signal.Signals) -> None:
    assert gateway.pid is not None
    os.kill(gateway.pid, number)


async def until_draining(gateway: GatewayProcess) -> float:
    """Seconds until the probe says so; each look takes some milliseconds."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.timeout(5):
        while await readiness(gateway) != (503, "draining"):
            pass
    return clock() - began


async def test_nothing_breaks_and_everybody_is_told() -> None:
    async with world() as there, AsyncExitStack() as stack:
        gateway = there.gateway
        clients = [
            await stack.enter_async_context(RawClient(gateway.api_url)) for _ in range(STREAMS)
        ]
        streams = await asyncio.gather(*(opened(each, n) for n, each in enumerate(clients)))
        kept = [await stack.enter_async_context(RawClient(gateway.api_url)) for _ in range(KEPT)]
        for number, each in enumerate(kept):
            await each.ask("POST", CHAT, asked(1000 + number, stream=False))
            assert (await each.response()).head.get("connection") == ""

        signalled(gateway, signal.SIGTERM)
        assert await until_draining(gateway) < 2

        for path in (CHAT, "/v1/messages"):
            refused = await fetch(gateway.api_url, "POST", path, b"x" * 100_000)
            assert (refused.status, refused.head.get("connection")) == (503, "close")
            assert refused.head.get("retry-after") == "1"
            assert b"error" in refused.body
        # Who kept its connection is answered, however late it asks, and told that this was the last.
        for number, each in enumerate(kept):
            # Every second one from the cache: those answers are written by other code.
            await each.ask("POST", CHAT, asked((1000, 2000)[number % 2] + number, stream=False))
            answer = await each.response()
            assert answer.head.get("x-gateway-cache") == ("hit", "miss")[number % 2]
            assert (answer.status, answer.head.get("connection")) == (200, "close")
            assert await each.ended() == b""
        assert gateway.returncode is None

        there.gate.set()
        whole = [b"".join([piece async for piece in each]) for each in streams]
        rest = b"".join(event(str(number)) for number in range(PIECES))
        assert set(whole) == {rest + event("", "stop") + b"data: [DONE]\n\n"}
        # The heads of the streams had said nothing of an end: their connections wait for a last request.
        await clients[0].ask("POST", CHAT, asked(1, stream=False))
        assert (await clients[0].response()).head.get("connection") == "close"
        for each in clients:
            each.hang_up()
        assert await gateway.stop() == 0


async def test_a_second_signal_cuts_so_that_clients_see_it() -> None:
    async with world(drain_timeout_s=300) as there, RawClient(there.gateway.api_url) as client:
        pieces = await opened(client, 1)
        signalled(there.gateway, signal.SIGINT)
        await until_draining(there.gateway)
        clock = asyncio.get_running_loop().time
        began = clock()
        signalled(there.gateway, signal.SIGTERM)
        with pytest.raises(Broken):
            await anext(pieces)
        assert await there.gateway.stop() == 0
        assert clock() - began < 3


async def test_what_runs_too_long_is_cut_at_the_deadline() -> None:
    async with world(drain_timeout_s=0.5) as there, RawClient(there.gateway.api_url) as client:
        pieces = await opened(client, 1)
        signalled(there.gateway, signal.SIGTERM)
        with pytest.raises(Broken):
            await anext(pieces)
        assert await there.gateway.stop() == 0
        # Not by its client, who was there.
        assert '"aborted":"gateway"' in there.gateway.output()


async def test_a_tunnel_goes_on_until_the_deadline_and_is_cut_then() -> None:
    async with echoing() as base:
        log = {"level": "info", "format": "json"}
        tree = settings(base, server={"drain_timeout_s": 1}, log=log)
        async with GatewayProcess(tree) as gateway:
            url = f"ws{gateway.api_url.removeprefix('http')}/v1/realtime"
            async with connect(url) as tunnel:
                signalled(gateway, signal.SIGTERM)
                await until_draining(gateway)
                await tunnel.send("still there")
                assert await tunnel.recv() == "still there"
                with pytest.raises(ConnectionClosedError):
                    await asyncio.wait_for(tunnel.recv(), 5)
                assert tunnel.close_code == 1006
            assert await gateway.stop() == 0
            assert '"aborted":"gateway"' in gateway.output()


async def test_who_reads_slowly_has_its_whole_answer() -> None:
    size = 4_000_000
    async with ScriptedUpstream() as upstream:
        upstream.answer(response(b"x" * size))
        async with (
            GatewayProcess(settings(upstream.url, server={"drain_timeout_s": 30})) as gateway,
            RawClient(gateway.api_url, receive_buffer=4096) as client,
        ):
            await client.ask("POST", "/v1/files", b"{}")
            pieces = client.pieces(await client.head())
            got = len(await anext(pieces))
            signalled(gateway, signal.SIGTERM)
            await until_draining(gateway)
            async for piece in pieces:
                got += len(piece)
            assert got == size
            client.hang_up()
            assert await gateway.stop() == 0


async def test_an_sdk_that_is_refused_asks_again_and_is_answered_elsewhere() -> None:
    async with ScriptedUpstream() as upstream, Balancer() as balancer:
        upstream.otherwise(response(orjson.dumps(ANSWER)))
        async with gateway_here(upstream.url) as leaving, gateway_here(upstream.url) as staying:
            leaving._drain.begin()
            balancer.endpoints = [leaving.api_url, staying.api_url]
            async with openai.AsyncOpenAI(base_url=f"{balancer.url}/v1", api_key="sk-1") as client:
                answer = await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "question"}]
                )
            assert answer.choices[0].message.content == "yes"
        assert (len(upstream.seen), balancer.connections) == (1, 2)


async def test_after_a_second_signal_nothing_of_our_own_is_waited_for_either() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with ScriptedUpstream() as upstream:
        upstream.otherwise(response(b"{}"))
        collector = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = collector.sockets[0].getsockname()[1]
        tree = settings(upstream.url, telemetry={"traces": "on"})
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        async with GatewayProcess(tree, told) as gateway:
            await fetch(gateway.api_url, "POST", CHAT, asked(1, stream=False))
            # The span of that can't be told: its collector says nothing.
            signalled(gateway, signal.SIGTERM)
            await until_draining(gateway)
            signalled(gateway, signal.SIGTERM)
            clock = asyncio.get_running_loop().time
            began = clock()
            assert await gateway.stop() == 1
            assert clock() - began < 4
            assert "a second signal" in gateway.output()
        collector.close()
        await collector.wait_closed()
