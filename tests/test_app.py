"""The whole app: what a start needs and undoes, and what a stop lets finish."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.app import start
from gateway.config import Config
from tests.helpers.echoing import echoing
from tests.helpers.gateway_here import settings
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.raw_client import Broken, RawClient, fetch
from tests.helpers.scripted_upstream import (
    LAST_CHUNK,
    ScriptedUpstream,
    chunk,
    response,
    stream_head,
)

if TYPE_CHECKING:
    from gateway.app import RunningGateway

PASSED = "/v1/responses"


async def started(base: str, drain_timeout_s: float = 5) -> RunningGateway:
    tree = settings(base, server={"drain_timeout_s": drain_timeout_s})
    return await start(Config.model_validate(tree), environ={})


async def is_open(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


async def until_refused(url: str) -> None:
    """Until who connects anew is told to go elsewhere."""
    async with asyncio.timeout(5):
        while (await fetch(url, "GET", "/")).status != 503:
            pass


async def readiness(probe_url: str) -> tuple[int, str]:
    answer = await fetch(probe_url, "GET", "/readyz", None, [("Connection", "close")])
    return answer.status, orjson.loads(answer.body)["status"]


async def test_a_stop_lets_a_stream_finish_and_takes_nothing_new() -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), chunk(b"one"), (gate, chunk(b"two")), LAST_CHUNK)
        gateway = await started(upstream.url)
        assert await readiness(gateway.probe_url) == (200, "ready")
        async with RawClient(gateway.api_url) as busy, RawClient(gateway.api_url) as idle:
            upstream.otherwise(response(b"[]"))
            await busy.ask("POST", PASSED, b"{}")
            pieces = busy.pieces(await busy.head())
            assert await anext(pieces) == b"one"
            await idle.ask("GET", "/v1/models")
            assert (await idle.response()).status == 200

            stopping = asyncio.create_task(gateway.stop())
            await until_refused(gateway.api_url)
            assert await readiness(gateway.probe_url) == (503, "draining")
            # Who has nothing running is let go at once, not left with a deaf connection.
            assert await idle.ended() == b""
            assert not stopping.done()
            gate.set()
            assert [piece async for piece in pieces] == [b"two"]
            assert await busy.ended() == b""
        began = time.monotonic()
        await asyncio.wait_for(stopping, 5)
        assert time.monotonic() - began < 1
        assert not await is_open(gateway.probe_url)


async def test_the_last_answer_of_a_connection_says_that_it_closes() -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream() as upstream:
        gateway = await started(upstream.url)
        async with RawClient(gateway.api_url) as client:
            upstream.answer((gate, b""), then_close=True)
            await client.ask("POST", PASSED, b"{}")
            await upstream.request(0)
            stopping = asyncio.create_task(gateway.stop())
            await until_refused(gateway.api_url)
            gate.set()
            answer = await client.response()
            assert (answer.status, answer.head.get("connection")) == (502, "close")
            assert await client.ended() == b""
        await asyncio.wait_for(stopping, 5)


async def test_an_upload_that_runs_while_we_drain_arrives_whole() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.otherwise(response(b"{}"))
        for path in ("/v1/files", "/v1/chat/completions"):
            number = len(upstream.seen)
            gateway = await started(upstream.url)
            async with RawClient(gateway.api_url) as client:
                await client.send(
                    f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf".encode()
                )
                async with asyncio.timeout(5):
                    while "1 busy" not in repr(gateway._drain):  # noqa: ASYNC110 - same
                        await asyncio.sleep(0)
                stopping = asyncio.create_task(gateway.stop())
                await until_refused(gateway.api_url)
                await client.send(b"done")
                assert (await client.response()).status == 200
            await asyncio.wait_for(stopping, 5)
            assert upstream.seen[number].body == b"halfdone"


async def test_a_tunnel_goes_on_while_we_drain_and_ends_with_it() -> None:
    async with echoing() as base:
        gateway = await started(base, drain_timeout_s=0.5)
        url = gateway.api_url.replace("http://", "ws://") + "/v1/realtime"
        async with connect(url, proxy=None) as client:
            await client.send("before")
            assert await client.recv() == "before"
            stopping = asyncio.create_task(gateway.stop())
            await until_refused(gateway.api_url)
            await client.send("meanwhile")
            assert await asyncio.wait_for(client.recv(), 5) == "meanwhile"
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(client.recv(), 5)
        await asyncio.wait_for(stopping, 5)


async def test_what_does_not_end_in_time_is_cut() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), chunk(b"one"), (asyncio.Event(), b""))
        gateway = await started(upstream.url, drain_timeout_s=0.2)
        async with RawClient(gateway.api_url) as client:
            await client.ask("POST", PASSED, b"{}")
            pieces = client.pieces(await client.head())
            assert await anext(pieces) == b"one"
            began = time.monotonic()
            await asyncio.wait_for(gateway.stop(), 5)
            assert time.monotonic() - began < 3
            with pytest.raises(Broken):
                await anext(pieces)
        seen = await upstream.request(0)
        await asyncio.wait_for(seen.hung_up.wait(), 1)


async def test_sigterm_lets_a_stream_finish() -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), chunk(b"one"), (gate, chunk(b"two")), LAST_CHUNK)
        tree = settings(upstream.url, server={"drain_timeout_s": 5})
        async with GatewayProcess(tree) as gateway, RawClient(gateway.api_url) as client:
            await client.ask("POST", PASSED, b"{}")
            pieces = client.pieces(await client.head())
            assert await anext(pieces) == b"one"
            stopping = asyncio.create_task(gateway.stop())
            await until_refused(gateway.api_url)
            gate.set()
            assert [piece async for piece in pieces] == [b"two"]
            assert await asyncio.wait_for(stopping, 10) == 0


@pytest.mark.parametrize("taken", ["port", "probe_port"])
async def test_a_start_that_finds_its_port_taken_leaves_nothing_behind(taken: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        tree = settings("http://127.0.0.1:1", server={taken: other.getsockname()[1]})
        tasks = asyncio.all_tasks()
        with pytest.raises(OSError, match="address already in use"):
            await start(Config.model_validate(tree), environ={})
        assert asyncio.all_tasks() == tasks


async def test_a_redis_that_is_away_keeps_nobody_from_serving() -> None:
    tree = settings("http://127.0.0.1:1", store={"url": "redis://127.0.0.1:1/0"})
    gateway = await start(Config.model_validate(tree), environ={})
    assert await readiness(gateway.probe_url) == (200, "ready")
    await gateway.stop()
