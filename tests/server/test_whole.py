"""An answer of our own that is written in one piece: on the wire it is like any other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.budget import Budget
from gateway.server.whole import Counted, Whole, lines
from tests.helpers.raw_client import Broken, RawClient, fetch, request
from tests.server.test_body import served

if TYPE_CHECKING:
    from aiohttp import web

BODY = b'{"a":1}' * 100
LONG = bytes(range(256)) * 4000


async def whole(request: web.BaseRequest) -> web.StreamResponse:
    await request.read()
    body = BODY if request.path == "/" else LONG
    return Whole(body, lines({"Server": "warmgate", "Content-Type": "x/y"}), {"Age": "3"})


async def test_head_and_body_are_those_of_a_response() -> None:
    async with served(whole) as url:
        answer = await fetch(url, "POST", "/", body=b"x")
        assert answer.head.status_line == b"HTTP/1.1 200 OK"
        headers = dict(answer.head.pairs)
        assert headers["content-length"] == str(len(BODY)).encode()
        assert (headers["server"], headers["content-type"], headers["age"]) == (
            b"warmgate",
            b"x/y",
            b"3",
        )
        assert headers["date"].endswith(b"GMT")
        assert "connection" not in headers
        assert answer.body == BODY


async def test_a_connection_is_kept_and_ends_where_the_client_says_so() -> None:
    async with served(whole) as url, RawClient(url) as client:
        for _ in range(3):
            await client.send(request("POST", "/", b"x"))
            assert (await client.response()).body == BODY
        await client.send(request("POST", "/", b"x", [("Connection", "close")]))
        last = await client.response()
        assert dict(last.head.pairs)["connection"] == b"close"
        assert await client.ended() == b""


@pytest.mark.parametrize("keeps", [True, False])
async def test_http_1_0_is_answered_in_its_own_words(keeps: bool) -> None:
    lines = b"POST / HTTP/1.0\r\nContent-Length: 1\r\n"
    lines += b"Connection: keep-alive\r\n" if keeps else b""
    async with served(whole) as url, RawClient(url) as client:
        await client.send(lines + b"\r\nx")
        answer = await client.response()
        assert answer.head.status_line == b"HTTP/1.0 200 OK"
        said = dict(answer.head.pairs).get("connection")
        assert said == (b"keep-alive" if keeps else None)
        assert answer.body == BODY


async def test_what_is_long_comes_whole() -> None:
    async with served(whole) as url, RawClient(url) as client:
        for _ in range(2):
            await client.send(request("POST", "/long", b"x"))
            assert (await client.response()).body == LONG


async def test_what_it_holds_is_given_back_when_it_has_gone_out_and_when_it_can_not() -> None:
    budget = Budget(10 * len(LONG))
    held = asyncio.Event()
    go = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        share = budget.share()
        assert share.grow(len(LONG))
        held.set()
        if request.path == "/gone":
            await go.wait()
        return Counted(LONG, b"", {}, share)

    async with served(answer) as url:
        async with RawClient(url) as client:
            await client.send(request("POST", "/", b"x"))
            assert (await client.response()).body == LONG
        held.clear()
        async with RawClient(url) as client:
            await client.send(request("POST", "/gone", b"x"))
            await held.wait()
        go.set()
        async with asyncio.timeout(10):
            while budget.used_bytes:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.002)


async def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.whole.STALL_S", 0.2)
    budget = Budget(1 << 30)
    body = bytes(32 << 20)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        share = budget.share()
        assert share.grow(len(body))
        return Counted(body, b"", {}, share)

    async with served(answer) as url, RawClient(url) as client:
        await client.send(request("POST", "/", b"x"))
        async with asyncio.timeout(10):
            while not budget.used_bytes:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.002)
            while budget.used_bytes:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.002)
        with pytest.raises((Broken, ConnectionError)):
            await client.response()
