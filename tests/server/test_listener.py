"""What never reached the handler, or escaped it, is answered in the shape of an API."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import orjson
from aiohttp import web
from structlog.testing import capture_logs

from gateway.server.listener import Listener
from tests.helpers.raw_client import RawClient, fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.server.listener import Handler


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    server = Listener(handler, handler, access_log=None, keepalive_timeout=5, max_line_size=1000)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def works(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=b"ok")


async def fails(_: web.BaseRequest) -> web.StreamResponse:
    raise LookupError("in a place that nobody thought of")


async def fails_late(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"begun")
    raise LookupError


async def test_its_settings_are_those_of_the_server() -> None:
    async with listening(works) as url:
        assert (await fetch(url, "GET", "/" + "a" * 900)).body == b"ok"
        assert (await fetch(url, "GET", "/" + "a" * 1100)).status == 400


async def test_what_is_no_http_is_told_to_the_sender_only() -> None:
    with capture_logs() as told:
        async with listening(works) as url, RawClient(url) as client:
            await client.send(b"GET / HTTP/1.1\r\nAuthorization Bearer sk-secret\r\n\r\n")
            answer = await client.response()
            assert await client.ended() == b""
    error = orjson.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (400, "gateway_bad_request")
    assert answer.head.get("x-gateway-request-id") == told[0]["request_id"]
    assert [(t["event"], t["log_level"], t["error"]) for t in told] == [
        ("not HTTP", "info", "BadHttpMessage")
    ]


async def test_an_escaped_exception_is_logged_and_told_without_its_words() -> None:
    with capture_logs() as told:
        async with listening(fails) as url:
            answer = await fetch(url, "POST", "/v1/x", b"{}")
    error = orjson.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (500, "gateway_internal_error")
    assert b"nobody" not in answer.body
    assert [(t["event"], t["log_level"]) for t in told] == [("request failed", "error")]
    assert isinstance(told[0]["exc_info"], LookupError)


async def test_what_has_begun_is_only_cut() -> None:
    async with listening(fails_late) as url, RawClient(url) as client:
        await client.ask("GET", "/")
        head = await client.head()
        async with asyncio.timeout(5):
            assert await client.received(head) == (b"begun", False)
