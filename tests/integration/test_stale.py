"""Answers beyond their lifetime: while their successor is asked for, and where the upstream fails."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from gateway.cache import Clock
from gateway.lab.stub_provider import StubProvider
from tests.helpers.doorway import CHAT, EMBEDDINGS, MESSAGES, Doorway, chat, doorway
from tests.helpers.redis_servers import RedisServer, binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TTL_S = 100
SWR = {"ttl_s": TTL_S, "stale_while_revalidate_s": 50}
SIE = {"ttl_s": TTL_S, "stale_if_error_s": 50}


class Later:
    """A clock that tests put forward."""

    def __init__(self) -> None:
        self.offset_s = 0.0
        self.clock = Clock(now=lambda: time.time() + self.offset_s, monotonic=time.monotonic)


class Failing(StubProvider):
    """Fails with `status` while it is set, or without a word."""

    status: int | None = None
    hangs_up = False

    def app(self) -> web.Application:
        app = super().app()
        app.middlewares.append(self._fail)
        return app

    @web.middleware
    async def _fail(
        self, request: web.Request, handler: Callable[[web.Request], Any]
    ) -> web.StreamResponse:
        if self.hangs_up:
            assert request.transport is not None
            request.transport.abort()
        if self.status is not None:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        answered: web.StreamResponse = await handler(request)
        return answered


async def landed(door: Doorway) -> None:
    """Wait until what was asked for behind a response has come and is stored."""
    async with asyncio.timeout(10):
        await door.gateway._calls.idle()
        await door.gateway.background.idle()


@pytest.mark.parametrize("streams", [False, True])
async def test_a_stale_answer_comes_at_once_and_its_successor_is_asked_for_once(
    streams: bool,
) -> None:
    later = Later()
    async with doorway(clock=later.clock, cache=SWR) as door:
        body = chat(stream=True) if streams else chat()
        first = await door.ask(CHAT, body)
        later.offset_s = TTL_S + 20
        door.stub.latency_s = 0.2
        told = await asyncio.gather(*(door.ask(CHAT, body) for _ in range(5)))
        assert [each.cache for each in told] == ["stale"] * 5
        status = told[0].headers["cache-status"]
        assert status.startswith("gateway; hit; ttl=-2")
        assert status.endswith("; detail=stale-while-revalidate")
        assert int(told[0].headers["age"]) >= TTL_S + 20
        assert told[0].raw != first.raw
        await landed(door)
        assert door.calls == 2
        fresh = await door.ask(CHAT, body)
        assert (fresh.cache, door.calls) == ("hit", 2)
        assert int(fresh.headers["age"]) <= 1


async def test_the_successor_is_asked_for_with_the_requesters_own_credential() -> None:
    later = Later()
    async with doorway(clock=later.clock, cache={**SWR, "scope": "shared"}) as door:
        for key in ("sk-1", "sk-2"):
            await door.ask(CHAT, chat(), key=key)
        later.offset_s = TTL_S + 1
        await door.ask(CHAT, chat("proof"), key="sk-2")
        told = await door.ask(CHAT, chat(), key="sk-2")
        assert told.cache == "stale"
        await landed(door)
        assert door.stub.received[-1].header("authorization") == "Bearer sk-2"


async def test_beyond_the_window_it_is_a_miss_and_before_it_a_hit() -> None:
    later = Later()
    async with doorway(clock=later.clock, cache=SWR) as door:
        await door.ask(CHAT, chat())
        later.offset_s = TTL_S - 5
        assert (await door.ask(CHAT, chat())).cache == "hit"
        later.offset_s = TTL_S + 55
        assert (await door.ask(CHAT, chat())).cache == "miss"


@pytest.mark.parametrize(
    "directive", ["no-cache", "no-store", "max-age=500", "min-fresh=1", "stale-while-revalidate=0"]
)
async def test_a_client_that_wants_nothing_stale_gets_nothing_stale(directive: str) -> None:
    later = Later()
    async with doorway(clock=later.clock, cache=SWR) as door:
        await door.ask(CHAT, chat())
        later.offset_s = TTL_S + 5
        assert (await door.ask(CHAT, chat(), cache_control=directive)).cache == "miss"
        assert door.calls == 2


async def test_a_revalidation_that_fails_leaves_the_stale_answer_where_it_is() -> None:
    later, stub = Later(), Failing()
    async with doorway(stub=stub, clock=later.clock, cache=SWR) as door:
        await door.ask(CHAT, chat())
        later.offset_s = TTL_S + 5
        stub.status = 500
        for expected in (2, 3):
            assert (await door.ask(CHAT, chat())).cache == "stale"
            await landed(door)
            assert door.calls == expected
        stub.status = None
        assert (await door.ask(CHAT, chat())).cache == "stale"
        await landed(door)
        assert (await door.ask(CHAT, chat())).cache == "hit"


@pytest.mark.parametrize("path", [CHAT, MESSAGES, EMBEDDINGS])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
async def test_where_the_upstream_fails_the_stale_answer_stands_for_it(
    status: int, path: str
) -> None:
    later, stub = Later(), Failing()
    body = {
        CHAT: chat(temperature=0),
        MESSAGES: {**chat(), "max_tokens": 9},
        EMBEDDINGS: {"model": "e", "input": "a"},
    }[path]
    async with doorway(stub=stub, clock=later.clock, cache=SIE) as door:
        await door.ask(path, body)
        later.offset_s = TTL_S + 5
        stub.status = status
        told = await asyncio.gather(*(door.ask(path, body) for _ in range(3)))
        assert [(each.status, each.cache) for each in told] == [(200, "stale")] * 3
        for each in told:
            assert f"gateway; fwd=stale; fwd-status={status}; " in each.headers["cache-status"]
            assert each.headers["cache-status"].endswith("detail=stale-if-error")
        stub.status = None
        assert (await door.ask(path, body)).cache == "miss"


@pytest.mark.parametrize("status", [400, 401, 404, 429])
async def test_what_the_upstream_says_to_the_client_is_not_papered_over(status: int) -> None:
    later, stub = Later(), Failing()
    async with doorway(stub=stub, clock=later.clock, cache=SIE) as door:
        await door.ask(CHAT, chat())
        later.offset_s = TTL_S + 5
        stub.status = status
        assert (await door.ask(CHAT, chat())).status == status


async def test_an_upstream_that_hangs_up_is_stood_for_too() -> None:
    later, stub = Later(), Failing()
    async with doorway(stub=stub, clock=later.clock, cache=SIE) as door:
        await door.ask(CHAT, chat())
        later.offset_s = TTL_S + 5
        stub.hangs_up = True
        told = await door.ask(CHAT, chat())
        assert (told.status, told.cache) == (200, "stale")
        assert "fwd-status" not in told.headers["cache-status"]
        assert "gateway; fwd=stale; ttl=-" in told.headers["cache-status"]
        # The call that failed would have cost nothing.
        page = await door.metrics()
        assert "gateway_inference_cost_total{" in page
        assert "gateway_cache_saved_cost_total{" not in page


async def test_the_page_says_what_a_revalidation_cost_too() -> None:
    later = Later()
    async with doorway(clock=later.clock, cache=SWR) as door:
        await door.ask(CHAT, chat())
        later.offset_s = TTL_S + 5
        assert (await door.ask(CHAT, chat())).cache == "stale"
        await landed(door)
        assert door.calls == 2
        async with door._session.get(f"{door.gateway.admin_url}/admin/page/summary") as response:
            total = (await response.json())["total"]
        page = await door.metrics()
        (line,) = (x for x in page.splitlines() if x.startswith("gateway_inference_cost_total{"))
        assert total["paid_pd"] == round(float(line.rpartition(" ")[2]) * 1e12) > 0
        assert [total[name] for name in ("unpriced", "unknown", "unbilled")] == [0, 0, 0]


async def test_a_route_may_say_otherwise() -> None:
    later = Later()
    routes = [{"path": CHAT, "model": "gpt-4o", "cache": {"stale_while_revalidate_s": 0}}]
    async with doorway(clock=later.clock, cache=SWR, routes=routes) as door:
        other = {**chat(), "model": "gpt-4o-mini"}
        for body in (chat(), other):
            await door.ask(CHAT, body)
        later.offset_s = TTL_S + 5
        assert await door.caches(CHAT, chat(), other) == ["miss", "stale"]


@pytest.fixture
def redis() -> Iterator[str]:
    executable = binary("valkey")
    assert executable is not None
    server = RedisServer(executable)
    server.start()
    try:
        yield server.url
    finally:
        server.close()


@pytest.mark.redis
async def test_another_replicas_successor_is_seen_although_memory_holds_the_stale_one(
    redis: str,
) -> None:
    later = Later()
    async with StubProvider() as stub:
        shared: dict[str, Any] = {
            "clock": later.clock,
            "cache": SWR,
            "store": {"url": redis, "deadline_ms": 2000},
            "upstreams": {"openai": {"base_url": stub.v1_url, "provider": "openai"}},
        }
        async with doorway(**shared) as one, doorway(**shared) as two:
            await _replaced_by_one_and_seen_by_two(one, two, later)


async def _replaced_by_one_and_seen_by_two(one: Doorway, two: Doorway, later: Later) -> None:
    await one.ask(CHAT, chat())
    assert (await two.ask(CHAT, chat())).cache == "hit"
    later.offset_s = TTL_S + 5
    assert (await one.ask(CHAT, chat())).cache == "stale"
    await landed(one)
    assert (await two.ask(CHAT, chat())).cache == "hit"
