"""Replicas added, drained, deleted and killed under sixty-four clients: nobody's request is lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import orjson
from aiohttp import web

from tests.helpers.gateway_here import gateway_here

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLIENTS = 64
DEADLINE_S = 60
ROUND = 200
"""Answers between two of the operator's doings."""


class Replica:
    """Streams a few words, and counts whom it was asked by."""

    def __init__(self) -> None:
        self.asked = 0
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_get("/health", self._well)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True).start()
        self.url = "http://{}:{}/v1".format(*self._runner.addresses[0][:2])

    async def stop(self) -> None:
        """Nothing listens any more; what it is answering, it answers."""
        if self._runner is not None:
            for site in tuple(self._runner.sites):
                await site.stop()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _well(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.asked += 1
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for number in range(3):
            word = {"choices": [{"index": 0, "delta": {"content": f"{number} "}}]}
            await stream.write(b"data: " + orjson.dumps(word) + b"\n\n")
        await stream.write(b"data: [DONE]\n\n")
        await stream.write_eof()
        return stream


@asynccontextmanager
async def replicas(count: int) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        made = [Replica() for _ in range(count)]
        for each in made:
            await each.start()
            stack.push_async_callback(each.close)
        yield made


class Crowd:
    """Clients that ask one question after the other until they are told to stop."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.answered: dict[str, int] = {}
        self.lost: list[str] = []
        self.asking = True
        self._session = session
        self._url = url
        self._more = asyncio.Condition()

    async def client(self, number: int) -> None:
        turn = 0
        while self.asking:
            turn += 1
            said = [{"role": "user", "content": f"client {number}, question {turn}"}]
            body = {"model": "m", "stream": True, "messages": said}
            async with self._session.post(self._url, json=body) as answer:
                text = await answer.read()
                name = answer.headers.get("x-gateway-backend", "")
            if answer.status != 200 or not text.endswith(b"data: [DONE]\n\n"):
                self.lost.append(f"{answer.status} {text[-200:]!r}")
            async with self._more:
                self.answered[name] = self.answered.get(name, 0) + 1
                self._more.notify_all()

    async def round(self) -> dict[str, int]:
        """The answers of the time in which so many came, by replica."""
        before = dict(self.answered)
        goal = sum(before.values()) + ROUND
        async with self._more:
            await self._more.wait_for(lambda: sum(self.answered.values()) >= goal)
        return {name: self.answered[name] - before.get(name, 0) for name in self.answered}


async def test_nothing_that_an_operator_does_loses_a_request() -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        replicas(4) as (one, two, three, four),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        AsyncExitStack() as stack,
    ):
        pool = {
            "engine": "vllm",
            "backends": [
                {"name": "one", "url": one.url},
                {"name": "two", "url": two.url},
                {"name": "three", "url": three.url},
            ],
            "health": {"interval_s": 0.05, "timeout_s": 5},
            "routing": {"policy": "least_pending"},
        }
        gateway = await stack.enter_async_context(
            gateway_here(one.url, upstreams={"vllm": pool}, cache={"when": "off"})
        )
        admin = f"{gateway.admin_url}/admin/backends/vllm"

        async def operate(method: str, path: str, body: object = None) -> int:
            async with session.request(method, f"{admin}/{path}", json=body) as answer:
                return answer.status

        crowd = Crowd(session, f"{gateway.api_url}/u/vllm/v1/chat/completions")
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(crowd.client(number))
            first = await crowd.round()
            assert set(first) == {"one", "two", "three"}

            assert await operate("POST", "one/drain", {}) == 200
            await crowd.round()
            drained = one.asked
            await crowd.round()
            assert one.asked == drained

            assert await operate("PUT", "four", {"url": four.url}) == 201
            while "four" not in await crowd.round():
                """Its first probe is on the way."""

            assert await operate("POST", "one/undrain", {}) == 200
            assert (await crowd.round())["one"] > 0

            assert await operate("DELETE", "two") in {200, 202}
            await crowd.round()
            deleted = two.asked
            await crowd.round()
            assert two.asked == deleted

            # Killed: connections are refused from now on, and kept ones end.
            await three.stop()
            await three.close()
            await crowd.round()
            assert (await crowd.round()).get("three", 0) == 0

            # And started again, on the same port.
            port = int(three.url.rpartition(":")[2].partition("/")[0])
            await three.start(port)
            while not (await crowd.round()).get("three"):
                """Its probes are on the way."""
            crowd.asking = False
        assert crowd.lost == []
        assert sum(crowd.answered.values()) > 9 * ROUND
