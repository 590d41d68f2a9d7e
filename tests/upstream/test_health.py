"""Probes against real servers: who is well, who isn't, and what a probe costs nobody."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from multidict import CIMultiDict

from gateway.telemetry.spans import NULL_ATTEMPT
from gateway.upstream.backend import State
from gateway.upstream.choice import Choice
from gateway.upstream.client import UpstreamClient
from gateway.upstream.health import Probes, probe_url
from gateway.upstream.replicas import Replicas
from tests.helpers.pools import StandingClock, config_of
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call

TIMEOUT_S = 0.2


class Server:
    """Answers what it is told to, or nothing until its gate opens."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.hangs = False
        self.gate = asyncio.Event()
        self.asked: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.hangs:
            await self.gate.wait()
        return web.Response(status=self.status, body=self.body)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.handle)
        return app


@asynccontextmanager
async def probed(
    url_of: Callable[[str], str] = lambda url: f"{url}/v1", engine: str = "vllm", **health: Any
) -> AsyncIterator[tuple[Server, Replicas, Probes]]:
    server, client = Server(), UpstreamClient()
    await client.start()

    def ask(endpoint: Endpoint, url: str) -> Call:
        return client.call("GET", url, CIMultiDict(), None, endpoint, lambda _: NULL_ATTEMPT)

    async with serve_app(server.app()) as url:
        config = config_of(
            {
                "engine": engine,
                "backends": [url_of(url)],
                "health": {"timeout_s": TIMEOUT_S, **health},
            }
        )
        endpoint = Choice(config).endpoints["pool"]
        pool = Replicas("pool", config.upstreams["pool"], endpoint, StandingClock())
        try:
            yield server, pool, Probes(pool, ask)
        finally:
            server.gate.set()
            await client.close()


@pytest.mark.parametrize(
    ("base", "engine", "path", "url"),
    [
        ("http://h:1/v1", "vllm", None, "http://h:1/health"),
        ("http://h:1/v1", "sglang", None, "http://h:1/health"),
        ("http://h:1/a/v1", "llamacpp", None, "http://h:1/a/health"),
        ("http://h:1", "vllm", None, "http://h:1/health"),
        ("http://h:1/v1", "openai", None, "http://h:1/v1/models"),
        ("http://h:1/v1", "openai", "/ping?x=1", "http://h:1/ping?x=1"),
        ("http://h:1/a/v1", "vllm", "/", "http://h:1/"),
    ],
)
def test_each_engine_is_asked_where_it_answers(
    base: str, engine: str, path: str | None, url: str
) -> None:
    assert probe_url(base, engine, path) == url


@pytest.mark.parametrize(
    ("status", "engine", "path", "well"),
    [
        (200, "vllm", None, True),
        (204, "vllm", None, True),
        (401, "vllm", None, True),
        (403, "openai", None, True),
        (429, "sglang", None, True),
        (503, "llamacpp", None, False),  # it loads its model
        (500, "vllm", None, False),
        (404, "vllm", None, False),
        (404, "openai", None, True),
        (404, "openai", "/ping", False),
    ],
)
async def test_a_status_says_whether_it_is_well(
    status: int, engine: str, path: str | None, well: bool
) -> None:
    async with probed(engine=engine, path=path, unhealthy_after=1) as (server, pool, probes):
        server.status = status
        await probes.ask_all()
        (backend,) = pool
        assert (backend.healthy, backend.failure) == (well, "" if well else f"status {status}")


async def test_silence_is_a_failure_after_its_deadline() -> None:
    async with probed(unhealthy_after=1) as (server, pool, probes):
        server.hangs = True
        began = asyncio.get_running_loop().time()
        await probes.ask_all()
        took = asyncio.get_running_loop().time() - began
        (backend,) = pool
        assert (backend.healthy, backend.failure) == (False, "timeout")
        assert TIMEOUT_S <= took < 5


async def test_a_server_that_is_gone_and_comes_back_began_anew() -> None:
    emptied: list[str] = []
    # Nobody listens on the port that a server has just given up.
    async with serve_app(web.Application()) as gone:
        pass
    async with probed(unhealthy_after=1, healthy_after=1) as (server, pool, probes):
        pool.on_emptied = lambda backend: emptied.append(backend.name)
        (backend,) = pool
        there = backend.endpoint
        backend.endpoint = pool.add("gone", f"{gone}/v1").endpoint
        pool.remove("gone")
        await probes.ask_all()
        assert (backend.state, backend.failure) == (State.UNHEALTHY, "refused")
        backend.endpoint = there
        await probes.ask_all()
        assert (emptied, server.asked) == ([backend.name], ["/health"])
        assert backend.state is State.WARMING


async def test_one_connection_serves_probe_after_probe_and_no_flood_is_read_to_its_end() -> None:
    async with probed() as (server, pool, probes):
        for _ in range(5):
            await probes.ask_all()
        server.body = b"x" * 10_000_000
        await probes.ask_all()
        (backend,) = pool
        assert (backend.healthy, len(server.asked)) == (True, 6)


async def test_one_that_hangs_keeps_no_other_from_being_probed() -> None:
    async with probed(unhealthy_after=1) as (server, pool, probes):
        (well,) = pool
        async with serve_app(Server().app()) as other:
            hung = pool.add("hung", f"{other}/v1")
            server.hangs = True
            await probes.ask_all()
            assert (well.healthy, hung.healthy) == (False, True)
        assert (well.in_flight, hung.in_flight) == (0, 0)
