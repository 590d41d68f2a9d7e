"""Identical requests at the same time, through a whole gateway: one call, and everybody's answer."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from gateway.core import sse
from gateway.lab.stub_openai import completion, reply, usage
from gateway.lab.stub_provider import StubProvider
from tests.helpers.doorway import (
    CHAT,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    Doorway,
    Told,
    chat,
    doorway,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


DEADLINE_S = 20.0


class Held(StubProvider):
    """Answers every chat when `go` says so: a document, or a stream whose parts wait for `next`."""

    def __init__(self, status: int = 200) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.parts = asyncio.Semaphore(0)
        self.status = status
        self.cut_after: int | None = None
        self.asked = asyncio.Condition()
        self.gone = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self.asked:
            await self.asked.wait_for(met)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        self.calls[request.path] += 1
        number = self.total_calls
        async with self.asked:
            self.asked.notify_all()
        try:
            return await self._answer(request, body, number)
        except (asyncio.CancelledError, ConnectionError):
            self.gone += 1
            async with self.asked:
                self.asked.notify_all()
            raise

    async def _answer(
        self, request: web.Request, body: dict[str, Any], number: int
    ) -> web.StreamResponse:
        await self.go.wait()
        if self.status != 200:
            error = {"error": {"message": f"no, {number}", "type": "x", "code": None}}
            headers = {"retry-after": "7", "x-call": str(number)}
            return web.json_response(error, status=self.status, headers=headers)
        words = " ".join(f"word{n}-of-{number}" for n in range(40))
        message = {"role": "assistant", "content": words, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        sent = reply(completion("gpt-4o", [choice], usage(9, 40)), body)
        if sent.body:
            return web.Response(body=sent.body, headers={"content-type": sent.content_type})
        out = web.StreamResponse(headers={"content-type": sent.content_type})
        await out.prepare(request)
        for place, event in enumerate(sent.events):
            await self.parts.acquire()
            if self.cut_after == place:
                assert request.transport is not None
                request.transport.close()
                break
            await out.write(event)
        return out

    def all_parts(self) -> None:
        for _ in range(100):
            self.parts.release()


@asynccontextmanager
async def held(status: int = 200, **sections: Any) -> AsyncIterator[tuple[Held, Doorway]]:
    stub = Held(status)
    async with doorway(stub=stub, **sections) as door:
        yield stub, door


SAME: dict[str, Any] = {"temperature": 0}


def content(told: Told) -> str:
    if told.raw.startswith(b"data:"):
        return "".join(
            c["delta"].get("content") or "" for e in told.events for c in e.get("choices", ())
        )
    text: str = told.document["choices"][0]["message"]["content"]
    return text


def answer_id(told: Told) -> str:
    found: str = told.events[0]["id"] if told.raw.startswith(b"data:") else told.document["id"]
    return found


async def aboard(door: Doorway, count: int) -> None:
    """Wait until so many requests are being answered, and have come as far as they can."""
    async with asyncio.timeout(DEADLINE_S):
        while door.gateway._drain.busy != count:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0)


async def together(door: Doorway, *asking: Awaitable[Told]) -> list[asyncio.Future[Told]]:
    """Start them one after the other, each when the one before it is there."""
    started: list[asyncio.Future[Told]] = []
    for count, each in enumerate(asking, 1):
        started.append(asyncio.ensure_future(each))
        await aboard(door, count)
    return started


@pytest.mark.parametrize("leader_streams", [True, False])
@pytest.mark.parametrize("follower_streams", [True, False])
async def test_each_gets_the_one_answer_in_the_form_it_asked_for_with_an_id_of_its_own(
    leader_streams: bool, follower_streams: bool
) -> None:
    first = chat(**SAME, stream=True) if leader_streams else chat(**SAME)
    other = chat(**SAME, stream=True) if follower_streams else chat(**SAME)
    async with held() as (stub, door):
        tasks = await together(
            door, door.ask(CHAT, first), door.ask(CHAT, other), door.ask(CHAT, other)
        )
        stub.go.set()
        stub.all_parts()
        told = await asyncio.gather(*tasks)
        assert [each.cache for each in told] == ["miss", "collapsed", "collapsed"]
        assert {each.status for each in told} == {200}
        assert len({content(each) for each in told}) == 1
        assert len({answer_id(each) for each in told}) == 3
        assert stub.total_calls == 1
        assert "gateway; fwd=miss; collapsed" in told[1].headers["cache-status"]
        for each in told[1:]:
            assert each.raw.startswith(b"data:") == follower_streams
            assert b'"usage"' not in each.raw or not follower_streams
        # And what was shared is in the cache now.
        assert (await door.ask(CHAT, other)).cache == "hit"
        assert stub.total_calls == 1


async def test_usage_comes_in_the_streams_of_those_who_asked_for_it_only() -> None:
    asks = chat(**SAME, stream=True, stream_options={"include_usage": True})
    silent = chat(**SAME, stream=True)
    for order in ((asks, silent), (silent, asks)):
        async with held() as (stub, door):
            tasks = await together(door, *(door.ask(CHAT, each) for each in order))
            stub.go.set()
            stub.all_parts()
            told = await asyncio.gather(*tasks)
            assert stub.total_calls == 1
            for body, each in zip(order, told, strict=True):
                spent = [e["usage"] for e in each.events if e.get("usage")]
                assert len(spent) == (1 if body is asks else 0)
                assert (b'"usage"' in each.raw) == (body is asks)


async def test_a_follower_sees_each_event_as_it_comes_and_a_late_one_what_has_passed() -> None:
    async with held() as (stub, door), aiohttp.ClientSession() as session:
        url = f"{door.gateway.api_url}{CHAT}"
        body = orjson.dumps(chat(**SAME, stream=True))
        headers = {"authorization": "Bearer sk-1", "content-type": "application/json"}

        async def opened() -> aiohttp.ClientResponse:
            return await session.post(url, data=body, headers=headers)

        async def events(response: aiohttp.ClientResponse, count: int) -> bytes:
            got = b""
            async with asyncio.timeout(DEADLINE_S):
                while got.count(b"\n\n") < count:
                    got += await response.content.readany()
            return got

        stub.go.set()
        stub.parts.release()
        leader = await opened()
        assert (await events(leader, 1)).count(b"data:") == 1
        follower = await opened()
        assert follower.headers["x-gateway-cache"] == "collapsed"
        assert (await events(follower, 1)).count(b"data:") == 1
        stub.parts.release()
        assert (await events(leader, 1)).count(b"data:") == 1
        assert (await events(follower, 1)).count(b"data:") == 1
        late = await opened()
        assert (await events(late, 2)).count(b"data:") == 2
        # The first one leaves; the others get the rest.
        leader.close()
        stub.all_parts()
        rest = [await each.read() for each in (follower, late)]
        assert all(each.endswith(b"data: [DONE]\n\n") for each in rest)
        assert (stub.total_calls, stub.gone) == (1, 0)
        await door.gateway.background.idle()
        assert (await door.ask(CHAT, chat(**SAME))).cache == "hit"


async def test_the_call_ends_when_the_last_of_them_has_gone() -> None:
    async with held() as (stub, door):
        body = chat(**SAME)
        tasks = await together(door, door.ask(CHAT, body), door.ask(CHAT, body))
        await stub.until(lambda: stub.total_calls == 1)
        tasks[0].cancel()
        await aboard(door, 1)
        assert stub.gone == 0
        tasks[1].cancel()
        await stub.until(lambda: stub.gone == 1)
        await aboard(door, 0)
        stub.go.set()
        assert (await door.ask(CHAT, body)).cache == "miss"
        assert stub.total_calls == 2


@pytest.mark.parametrize("status", [429, 500, 400])
async def test_a_failure_is_shared_with_its_headers_and_not_kept(status: int) -> None:
    async with held(status) as (stub, door):
        bodies = [chat(**SAME), chat(**SAME), chat(**SAME, stream=True)]
        tasks = await together(door, *(door.ask(CHAT, body) for body in bodies))
        stub.go.set()
        told = await asyncio.gather(*tasks)
        assert {each.status for each in told} == {status}
        assert {each.document["error"]["message"] for each in told} == {"no, 1"}
        assert {each.headers["retry-after"] for each in told} == {"7"}
        assert [each.cache for each in told] == ["miss", "collapsed", "collapsed"]
        assert (await door.ask(CHAT, chat(**SAME))).cache == "miss"
        assert stub.total_calls == 2


async def test_a_stream_that_breaks_off_breaks_off_for_all() -> None:
    async with held() as (stub, door):
        stub.cut_after = 2
        streams = chat(**SAME, stream=True)
        tasks = await together(
            door, door.ask(CHAT, streams), door.ask(CHAT, streams), door.ask(CHAT, chat(**SAME))
        )
        stub.go.set()
        stub.all_parts()
        told = await asyncio.gather(*tasks)
        # The streams were under way; the document was not, and is told in the API's own words.
        assert [each.status for each in told] == [0, 0, 502]
        assert told[2].document["error"]["code"] == "gateway_upstream_broken"
        stub.cut_after = None
        assert (await door.ask(CHAT, streams)).cache == "miss"


async def test_an_upstream_that_is_not_there_is_told_to_all_in_their_own_words() -> None:
    async with doorway(
        upstreams={"openai": {"base_url": "http://127.0.0.1:9/v1", "provider": "openai"}}
    ) as door:
        told = await asyncio.gather(*(door.ask(CHAT, chat(**SAME)) for _ in range(5)))
        assert {each.status for each in told} == {502}
        codes = {each.document["error"]["code"] for each in told}
        assert codes == {"gateway_upstream_unreachable"}


async def calls_of(door: Doorway, stub: Held, *asking: Awaitable[Told]) -> int:
    tasks = await together(door, *asking)
    stub.go.set()
    stub.all_parts()
    await asyncio.gather(*tasks)
    return stub.total_calls


async def test_only_deterministic_requests_share_unless_all_may() -> None:
    hot = chat(temperature=1)
    async with held() as (stub, door):
        assert await calls_of(door, stub, *(door.ask(CHAT, hot) for _ in range(3))) == 3
    async with held() as (stub, door):
        seeded = chat(temperature=1, seed=7)
        assert await calls_of(door, stub, *(door.ask(CHAT, seeded) for _ in range(3))) == 1
    async with held(cache={"coalesce": "all"}) as (stub, door):
        assert await calls_of(door, stub, *(door.ask(CHAT, hot) for _ in range(3))) == 1
    async with held(cache={"coalesce": "off"}) as (stub, door):
        assert await calls_of(door, stub, *(door.ask(CHAT, chat(**SAME)) for _ in range(3))) == 3
    routes = [{"path": CHAT, "cache": {"coalesce": "off"}}]
    async with held(routes=routes) as (stub, door):
        assert await calls_of(door, stub, *(door.ask(CHAT, chat(**SAME)) for _ in range(3))) == 3


@pytest.mark.parametrize("directive", ["no-cache", "no-store", "max-age=0"])
async def test_who_insists_on_a_call_of_its_own_gets_one(directive: str) -> None:
    async with held() as (stub, door):
        body = chat(**SAME)
        asking = [door.ask(CHAT, body), *(door.ask(CHAT, body, cache_control=directive),) * 1]
        assert await calls_of(door, stub, *asking) == 2


async def test_with_several_samples_so_many_calls_are_made_and_the_rest_share() -> None:
    async with held(cache={"samples": 3}) as (stub, door):
        body = chat(**SAME)
        tasks = await together(door, *(door.ask(CHAT, body) for _ in range(8)))
        stub.go.set()
        told = await asyncio.gather(*tasks)
        assert stub.total_calls == 3
        assert len({content(each) for each in told}) == 3
        assert [each.cache for each in told[:3]] == ["miss"] * 3


async def test_two_credentials_never_share_a_call_in_credential_scope() -> None:
    async with held() as (stub, door):
        body = chat(**SAME)
        asking = [door.ask(CHAT, body, key=f"sk-{n}") for n in (1, 2)]
        assert await calls_of(door, stub, *asking) == 2


async def test_in_shared_scope_only_accepted_credentials_share_and_a_refusal_is_ones_own() -> None:
    async with held(cache={"scope": "shared"}) as (stub, door):
        body = chat(**SAME)
        stub.go.set()
        for key in ("sk-1", "sk-2"):
            await door.ask(CHAT, chat(f"proof of {key}"), key=key)
        stub.go.clear()
        before = stub.total_calls
        asking = [door.ask(CHAT, body, key=key) for key in ("sk-1", "sk-2", "sk-new")]
        assert await calls_of(door, stub, *asking) == before + 2
        # What is said to one credential only is asked again by the other.
        stub.status = 429
        stub.go.clear()
        tasks = await together(
            door, *(door.ask(CHAT, chat("x", **SAME), key=key) for key in ("sk-1", "sk-2", "sk-1"))
        )
        stub.go.set()
        told = await asyncio.gather(*tasks)
        assert [each.status for each in told] == [429] * 3
        said = [each.document["error"]["message"] for each in told]
        assert said[0] == said[2] != said[1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (EMBEDDINGS, {"model": "text-embedding-3-small", "input": "a"}),
        (
            MESSAGES,
            {
                "model": "claude-sonnet-4-5",
                "max_tokens": 50,
                "temperature": 0,
                "messages": [{"role": "user", "content": "hi"}],
            },
        ),
        (RESPONSES, {"model": "gpt-4o", "input": "hi", "temperature": 0, "store": False}),
    ],
)
@pytest.mark.parametrize("streams", [(False, False), (True, True), (True, False), (False, True)])
async def test_every_api_shares(
    path: str, body: dict[str, Any], streams: tuple[bool, bool]
) -> None:
    if path == EMBEDDINGS and any(streams):
        pytest.skip("embeddings have no streams")
    stub = StubProvider(latency_s=0.3)
    async with doorway(stub=stub) as door:
        asked = [{**body, "stream": True} if s else body for s in streams]
        told = await asyncio.gather(*(door.ask(path, each) for each in asked))
        assert stub.total_calls == 1
        assert sorted(each.cache for each in told) == ["collapsed", "miss"]
        ids = [_ids(each) for each in told]
        if path != EMBEDDINGS:
            assert ids[0].isdisjoint(ids[1])


def _ids(told: Told) -> set[str]:
    """The answer's own id, wherever it is said."""
    documents = [told.document] if told.raw.startswith(b"{") else told.events
    holders = [
        each for d in documents for each in (d, d.get("response") or {}, d.get("message") or {})
    ]
    return {h["id"] for h in holders if str(h.get("id", "")).startswith(("resp_", "msg_"))} | {
        d["response_id"] for d in documents if "response_id" in d
    }


@pytest.mark.slow
async def test_a_thousand_at_once_make_one_call_and_nobody_waits_long_after_the_first() -> None:
    """Half of them stream. A follower's first byte comes soon after the leader's."""
    count = 1000
    async with held() as (stub, door):
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"authorization": "Bearer sk-1", "content-type": "application/json"}
        url = f"{door.gateway.api_url}{CHAT}"
        first_byte: dict[int, float] = {}
        answers: dict[int, bytes] = {}
        half = asyncio.Event()

        async def ask(number: int, session: aiohttp.ClientSession) -> None:
            body = chat(**SAME, stream=True) if number % 2 == 0 else chat(**SAME)
            async with session.post(url, data=orjson.dumps(body), headers=headers) as response:
                got = await response.content.readany()
                first_byte[number] = time.perf_counter()
                if len(first_byte) == count // 2:
                    half.set()
                answers[number] = got + await response.read()
                assert response.status == 200

        async with aiohttp.ClientSession(connector=connector) as session:
            tasks = [asyncio.create_task(ask(0, session))]
            await aboard(door, 1)
            tasks += [asyncio.create_task(ask(n, session)) for n in range(1, count)]
            await aboard(door, count)
            stub.go.set()
            stub.parts.release()
            async with asyncio.timeout(DEADLINE_S):
                await half.wait()
            stub.all_parts()
            async with asyncio.timeout(60):
                await asyncio.gather(*tasks)
        assert stub.total_calls == 1
        texts = {content(Told(200, {}, raw)) for raw in answers.values()}
        assert len(texts) == 1
        assert len({answer_id(Told(200, {}, raw)) for raw in answers.values()}) == count
        late_ms = [
            (at - first_byte[0]) * 1000 for number, at in first_byte.items() if number % 2 == 0
        ]
        print(f"followers after the leader: median {statistics.median(late_ms):.1f} ms")
        assert statistics.median(late_ms) <= 50
        for raw in answers.values():
            assert not raw.startswith(b"data:") or sse.parse(raw)[-1].data == "[DONE]"
