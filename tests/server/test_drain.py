"""The end of serving, seen from its own side; tests/test_app.py sees it from the clients'."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from aiohttp import web

from gateway.server.drain import Drain


class Connection:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True

    force_close = close


class Request:
    def __init__(self) -> None:
        self.protocol = Connection()


class Server:
    def __init__(self, *connections: Connection) -> None:
        self.connections = list(connections)


def request() -> tuple[web.BaseRequest, Connection]:
    made = Request()
    return cast("web.BaseRequest", made), made.protocol


def server(*connections: Connection) -> web.Server:
    return cast("web.Server", Server(*connections))


async def test_it_waits_for_the_last_one_and_lets_the_idle_go() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    waiting = iter(gates)

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        await next(waiting).wait()
        return web.Response()

    drain = Drain(handler)
    (first, one), (second, two) = request(), request()
    answers = [asyncio.create_task(drain.handle(r)) for r in (first, second)]
    await asyncio.sleep(0)
    assert repr(drain) == "<Drain 2 busy>"
    idle = Connection()
    draining = asyncio.create_task(drain.drain(server(one, two, idle), 5))
    gates[0].set()
    assert (await answers[0]).keep_alive is False
    assert (idle.closed, one.closed, two.closed) == (True, True, False)
    assert not draining.done()
    assert repr(drain) == "<Drain 1 busy, draining>"
    gates[1].set()
    assert await asyncio.wait_for(draining, 1) is True
    assert two.closed


async def test_it_says_when_some_did_not_end_in_time() -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    drain = Drain(handler)
    asked, connection = request()
    answer = asyncio.create_task(drain.handle(asked))
    await asyncio.sleep(0)
    assert await drain.drain(server(connection), 0.01) is False
    assert not connection.closed
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer
    assert await drain.drain(server(connection), 0.01) is True


async def test_with_nothing_to_wait_for_it_is_done_at_once() -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    drain = Drain(handler)
    asked, connection = request()
    assert (await drain.handle(asked)).keep_alive is None
    assert not connection.closed
    assert await drain.drain(server(), 5) is True
