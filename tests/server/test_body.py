"""A request body: whole within a bound, in pieces, invited, and not waited for forever."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from gateway.budget import Budget
from gateway.errors import BadRequest, BodyTooLarge, GatewayError, Overloaded
from gateway.server import body
from tests.helpers.raw_client import RawClient, fetch
from tests.helpers.scripted_upstream import chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    runner = web.ServerRunner(
        web.Server(handler, access_log=None, auto_decompress=False, lingering_time=0),
        shutdown_timeout=0.1,
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


MIB = 1 << 20


def reading(limit: int = 1000, silence_s: float = 5.0) -> Handler:
    """Answers with the body that it read, or with the name of our error."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return web.Response(body=await body.read(request, limit, silence_s=silence_s))
        except GatewayError as problem:
            name = f"{type(problem).__name__}: {problem.message}"
            return web.Response(status=problem.status, text=name)

    return handle


def chunked(*parts: bytes) -> bytes:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(map(chunk, parts))


async def test_a_body_is_read_whole_however_it_comes() -> None:
    async with served(reading()) as url, RawClient(url) as client:
        for whole in (b"", b"x", b"\x00\xff" * 500):
            await client.ask("POST", "/", whole)
            assert (await client.response()).body == whole
            await client.send(chunked(whole[:7] or b"-", whole[7:] or b"-") + b"0\r\n\r\n")
            assert (await client.response()).body == (whole[:7] or b"-") + (whole[7:] or b"-")
        # In two parts that do not come together.
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        await asyncio.sleep(0)
        await client.send(b"cd")
        assert (await client.response()).body == b"abcd"


async def test_no_body_at_all_is_an_empty_one() -> None:
    async with served(reading()) as url:
        assert (await fetch(url, "POST", "/")).body == b""


async def test_the_limit_itself_is_allowed() -> None:
    async with served(reading(limit=10)) as url:
        assert (await fetch(url, "POST", "/", b"x" * 10)).status == 200
        assert (await fetch(url, "POST", "/", b"x" * 11)).status == 413


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n",
        chunked(b"x" * 600, b"x" * 401),
        chunked(b"x" * 5000),
        chunked(b"x" * 5000) + b"0\r\n\r\n",
    ],
)
async def test_too_much_is_refused_without_waiting_for_the_rest(sent: bytes) -> None:
    async with served(reading()) as url, RawClient(url) as client:
        await client.send(sent)
        answer = await client.response()
        assert answer.status == 413
        assert b"1000 bytes" in answer.body
        assert b"server.body_limit_bytes" in answer.body


def test_a_large_limit_is_told_in_mebibytes() -> None:
    assert "64 MiB" in body._too_large(64 * 2**20, "x").message
    assert isinstance(body._too_large(1, "x"), BodyTooLarge)


async def test_a_body_that_stops_arriving_is_not_waited_for_forever() -> None:
    async with served(reading(silence_s=0.1)) as url, RawClient(url) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        answer = await client.response()
        assert answer.status == BadRequest.status
        assert b"stopped arriving for 0.1 s" in answer.body


async def test_pieces_come_as_they_arrive() -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        async for piece in body.pieces(request):
            got.put_nowait(piece)
        return web.Response(body=b"done")

    async with served(handle) as url, RawClient(url) as client:
        await client.send(chunked(b"one"))
        assert await asyncio.wait_for(got.get(), 5) == b"one"
        await client.send(chunk(b"two"))
        assert await asyncio.wait_for(got.get(), 5) == b"two"
        await client.send(b"0\r\n\r\n")
        assert (await client.response()).body == b"done"
        assert got.empty()


@pytest.mark.parametrize("word", ["100-continue", "100-Continue"])
async def test_a_client_that_waits_is_invited_once(word: str) -> None:
    async with served(reading()) as url, RawClient(url) as client:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nExpect: {word}\r\nContent-Length: 2\r\n\r\n"
        await client.send(head.encode())
        assert (await client.head()).status_line == b"HTTP/1.1 100 Continue"
        await client.send(b"ok")
        answer = await client.response()
        assert (answer.body, answer.interim) == (b"ok", [])


@pytest.mark.parametrize("head", ["HTTP/1.0\r\nExpect: 100-continue", "HTTP/1.1\r\nExpect: tea"])
async def test_nobody_else_is_invited(head: str) -> None:
    async with served(reading()) as url, RawClient(url) as client:
        await client.send(f"POST / {head}\r\nHost: x\r\nContent-Length: 2\r\n\r\n".encode())
        await client.send(b"ok")
        answer = await client.response()
        assert (answer.body, answer.interim) == (b"ok", [])


def sharing(budget: Budget, silence_s: float = 5.0) -> tuple[Handler, asyncio.Queue[int]]:
    """Answers with the body's length, holding it in a share; and what was held each time."""
    held: asyncio.Queue[int] = asyncio.Queue()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        with budget.share() as share:
            try:
                whole = await body.read(request, 10 * MIB, share, silence_s=silence_s)
                return web.Response(text=str(len(whole)))
            except GatewayError as problem:
                return web.Response(status=problem.status, text=problem.message)
            finally:
                held.put_nowait(share.held_bytes)

    return handle, held


async def test_a_share_grows_by_what_is_held_and_is_given_back() -> None:
    budget = Budget(5 * MIB)
    handle, held = sharing(budget)
    async with served(handle) as url, RawClient(url) as client:
        for whole in (b"", b"x", b"x" * (2 * MIB)):
            await client.ask("POST", "/", whole)
            assert int((await client.response()).body) == len(whole)
            assert await held.get() == len(whole)
            await client.send(chunked(whole + b"y") + b"0\r\n\r\n")
            assert int((await client.response()).body) == len(whole) + 1
            assert await held.get() == len(whole) + 1
    assert (budget.used_bytes, budget.refusals) == (0, 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n",
        chunked(b"x" * 60, b"x" * 41),
    ],
)
async def test_a_body_without_room_is_refused_before_its_rest_has_come(sent: bytes) -> None:
    budget = Budget(1000)
    assert budget.take(900)
    handle, held = sharing(budget)
    async with served(handle) as url, RawClient(url) as client:
        await client.send(sent)
        answer = await client.response()
        assert answer.status == Overloaded.status == 503
        assert b"server.memory_budget_bytes" in answer.body
        assert await held.get() <= 100
    assert budget.used_bytes == 900


async def test_a_body_that_can_never_fit_is_told_so_instead_of_to_try_again() -> None:
    handle, _ = sharing(Budget(1000))
    async with served(handle) as url, RawClient(url) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
        answer = await client.response()
        assert answer.status == BodyTooLarge.status
        assert b"raise server.memory_budget_bytes" in answer.body


async def test_a_body_that_is_only_announced_takes_a_mebibyte_at_most() -> None:
    budget = Budget(100 * MIB)
    handle, held = sharing(budget, silence_s=0.1)
    async with served(handle) as url, RawClient(url) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        assert (await client.response()).status == BadRequest.status
        assert await held.get() == MIB
