"""The end of serving, seen on the wire; tests/test_app.py sees it of the whole app."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from gateway.server.drain import Drain
from gateway.server.listener import Listener
from gateway.server.probes import Readiness
from tests.helpers.raw_client import RawClient, fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Door(NamedTuple):
    url: str
    drain: Drain
    listener: Listener
    gate: asyncio.Event


@asynccontextmanager
async def door(*, delay_s: float = 0.0, idle_s: float = 60.0) -> AsyncIterator[Door]:
    """`/slow` waits for the gate, `/stream` after its first piece."""
    gate = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/slow":
            await gate.wait()
        if request.path != "/stream":
            return web.Response(body=b"fine")
        out = web.StreamResponse()
        await out.prepare(request)
        await out.write(b"one")
        await gate.wait()
        await out.write(b"two")
        return out

    async def refuse(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=503)

    listener = Listener(answer, refuse, access_log=None, keepalive_timeout=30)
    runner = web.ServerRunner(listener, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    drain = Drain(listener, Readiness(), delay_s=delay_s, idle_s=idle_s)
    try:
        yield Door(f"http://127.0.0.1:{runner.addresses[0][1]}", drain, listener, gate)
    finally:
        gate.set()
        await runner.cleanup()


async def refused(door: Door) -> None:
    """Until who connects anew is refused."""
    async with asyncio.timeout(5):
        while (await fetch(door.url, "GET", "/")).status != 503:
            pass


async def until_busy(drain: Drain, number: int) -> None:
    async with asyncio.timeout(5):
        while drain.busy != number:  # noqa: ASYNC110 - what the other side has sent can only be polled
            await asyncio.sleep(0)


async def test_with_nobody_there_it_is_done_at_once() -> None:
    async with door() as there:
        assert await asyncio.wait_for(there.drain.drain(60), 1) is True
        assert repr(there.drain) == "<Drain 0 busy, draining>"


async def test_a_kept_connection_is_answered_once_more_and_told_that_it_closes() -> None:
    async with door() as there, RawClient(there.url) as client:
        await client.ask("GET", "/")
        assert (await client.response()).head.get("connection") == ""
        draining = asyncio.create_task(there.drain.drain(60))
        await refused(there)
        assert not draining.done()
        await client.ask("GET", "/")
        answer = await client.response()
        assert (answer.status, answer.head.get("connection")) == (200, "close")
        assert await client.ended() == b""
        assert await asyncio.wait_for(draining, 1) is True


async def test_who_connected_before_and_asks_later_is_answered() -> None:
    async with door() as there, RawClient(there.url) as client:
        async with asyncio.timeout(5):
            while not there.drain.connections:  # noqa: ASYNC110 - same
                await asyncio.sleep(0)
        draining = asyncio.create_task(there.drain.drain(60))
        await refused(there)
        await client.ask("GET", "/")
        assert (await client.response()).status == 200
        assert await asyncio.wait_for(draining, 1) is True


async def test_a_head_that_was_out_before_is_kept_to_and_its_connection_used_once_more() -> None:
    async with door() as there, RawClient(there.url) as client:
        await client.ask("GET", "/stream")
        pieces = client.pieces(head := await client.head())
        assert head.get("connection") == ""
        assert await anext(pieces) == b"one"
        draining = asyncio.create_task(there.drain.drain(60))
        await refused(there)
        there.gate.set()
        assert [piece async for piece in pieces] == [b"two"]
        await client.ask("GET", "/")
        assert (await client.response()).head.get("connection") == "close"
        assert await asyncio.wait_for(draining, 1) is True


async def test_an_answer_that_had_not_begun_says_that_it_is_the_last() -> None:
    async with door() as there, RawClient(there.url) as client:
        await client.ask("GET", "/slow")
        await until_busy(there.drain, 1)
        draining = asyncio.create_task(there.drain.drain(60))
        await refused(there)
        there.gate.set()
        assert (await client.response()).head.get("connection") == "close"
        assert await asyncio.wait_for(draining, 1) is True


async def test_who_uses_its_connection_no_more_is_let_go_after_a_while_and_not_before() -> None:
    async with door(idle_s=0.5) as there, RawClient(there.url) as client:
        await client.ask("GET", "/")
        await client.response()
        clock = asyncio.get_running_loop().time
        began = clock()
        assert await asyncio.wait_for(there.drain.drain(60), 5) is True
        assert clock() - began >= 0.5
        assert await client.ended() == b""


async def test_a_head_that_comes_in_pieces_is_no_silence() -> None:
    async with door(idle_s=0.6) as there, RawClient(there.url) as client:
        await client.ask("GET", "/")
        await client.response()
        draining = asyncio.create_task(there.drain.drain(60))
        await refused(there)
        for piece in (b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"X-A: b\r\n", b"X-B: c\r\n", b"\r\n"):
            # (Together longer than what a silent one is given.)
            await asyncio.sleep(0.25)
            await client.send(piece)
        assert (await client.response()).status == 200
        assert await asyncio.wait_for(draining, 1) is True


async def test_a_newcomer_that_takes_its_time_is_refused_in_words_too() -> None:
    async with door(idle_s=0) as there, RawClient(there.url) as busy:
        await busy.ask("GET", "/slow")
        await until_busy(there.drain, 1)
        draining = asyncio.create_task(there.drain.drain(60))
        await refused(there)
        clock = asyncio.get_running_loop().time
        async with RawClient(there.url) as slow:
            until = clock() + 0.1
            while clock() < until:
                # Each end makes it look around.
                await refused(there)
            await slow.ask("GET", "/")
            assert (await slow.response()).status == 503
        there.gate.set()
        assert await asyncio.wait_for(draining, 1) is True


async def test_newcomers_that_ask_nothing_keep_nobody_from_going() -> None:
    async with door() as there, RawClient(there.url) as busy:
        await busy.ask("GET", "/slow")
        await until_busy(there.drain, 1)
        draining = asyncio.create_task(there.drain.drain(60))
        await refused(there)
        async with RawClient(there.url):
            there.gate.set()
            assert await asyncio.wait_for(draining, 1) is True


async def test_during_the_delay_newcomers_are_served_and_told_to_go() -> None:
    async with door(delay_s=0.3) as there:
        clock = asyncio.get_running_loop().time
        began = clock()
        draining = asyncio.create_task(there.drain.drain(60))
        await asyncio.sleep(0)
        answer = await fetch(there.url, "GET", "/")
        assert (answer.status, answer.head.get("connection")) == (200, "close")
        assert await asyncio.wait_for(draining, 5) is True
        assert clock() - began >= 0.3


async def test_it_says_when_some_did_not_end_in_time() -> None:
    async with door() as there, RawClient(there.url) as client:
        await client.ask("GET", "/slow")
        await until_busy(there.drain, 1)
        assert await asyncio.wait_for(there.drain.drain(0.01), 5) is False
        assert repr(there.drain) == "<Drain 1 busy, draining>"


async def test_a_cut_ends_the_waiting_and_the_delay() -> None:
    async with door(delay_s=60) as there, RawClient(there.url) as client:
        await client.ask("GET", "/slow")
        await until_busy(there.drain, 1)
        draining = asyncio.create_task(there.drain.drain(60))
        await asyncio.sleep(0)
        there.drain.cut()
        assert await asyncio.wait_for(draining, 1) is False
