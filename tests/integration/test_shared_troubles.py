"""What can go wrong where one call answers many: slow, odd, greedy and vanishing ones on either side."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web

from gateway import asking, cache, flight, lasting
from gateway.budget import Budget
from gateway.lab.stub_provider import StubProvider
from tests.helpers.doorway import CHAT, EMBEDDINGS, MESSAGES, Doorway, Told, chat, doorway
from tests.helpers.raw_client import RawClient, request
from tests.integration.test_coalescing import SAME, aboard, content, together
from tests.integration.test_stale import SIE, SWR, TTL_S, Failing, Later

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

DEADLINE_S = 20.0
SAVED = "gateway_cache_saved_tokens_total"
STREAM = chat(**SAME, stream=True)


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else orjson.dumps(data)) + b"\n\n"


def said(text: str | None, finish: str | None = None, **more: Any) -> bytes:
    delta = {"content": text} if text else {}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "chatcmpl-abc123def", "object": "chat.completion.chunk", "created": 1}
    return event({**chunk, "model": "gpt-4o", "choices": choices, **more})


USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
END = said(None, "stop") + said(None, choices=[], usage=USAGE) + event(b"[DONE]")


def long_stream(parts: int, part_bytes: int) -> list[bytes]:
    return [*[said("x" * part_bytes)] * parts, END]


class Parts(StubProvider):
    """Sends these bytes part by part when `go` is set, whatever is asked."""

    def __init__(self, parts: Callable[[], Iterable[bytes]] | list[bytes], **head: str) -> None:
        super().__init__()
        self.parts = parts
        self.head = {"content-type": "text/event-stream", **head}
        self.status = 200
        self.go = asyncio.Event()
        self.go.set()
        self.gone = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._send)
        return app

    async def _send(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.calls[request.path] += 1
        await self.go.wait()
        out = web.StreamResponse(status=self.status, headers=self.head)
        try:
            await out.prepare(request)
            for part in self.parts() if callable(self.parts) else self.parts:
                await out.write(part)
            await out.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
            raise
        return out


@asynccontextmanager
async def silent_client(door: Doorway, body: dict[str, Any]) -> AsyncIterator[RawClient]:
    """One that asks and reads nothing, unless told to."""
    async with RawClient(door.gateway.api_url) as client:
        pairs = [("Authorization", "Bearer sk-1"), ("Content-Type", "application/json")]
        await client.send(request("POST", CHAT, orjson.dumps(body), pairs))
        yield client


@pytest.fixture
def budgets(monkeypatch: pytest.MonkeyPatch) -> list[Budget]:
    """Those of the gateways that the test starts."""
    made: list[Budget] = []

    def make(limit_bytes: int) -> Budget:
        made.append(Budget(limit_bytes))
        return made[-1]

    monkeypatch.setattr(lasting, "Budget", make)
    return made


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not met():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.002)


async def test_who_wants_a_younger_answer_keeps_nobody_from_the_one_there_is() -> None:
    later, stub = Later(), Parts([said("old"), END])
    async with doorway(stub=stub, clock=later.clock) as door:
        await door.ask(CHAT, STREAM)
        later.offset_s = 50
        stub.go.clear()
        (asking_anew,) = await together(door, door.ask(CHAT, STREAM, cache_control="max-age=9"))
        async with asyncio.timeout(DEADLINE_S):
            assert (await door.ask(CHAT, STREAM)).cache == "hit"
        stub.go.set()
        assert (await asking_anew).cache == "miss"


async def test_who_forbids_to_ask_waits_for_nobody_and_asks_nobody() -> None:
    stub = Parts([said("x"), END])
    stub.go.clear()
    async with doorway(stub=stub) as door:
        (leader,) = await together(door, door.ask(CHAT, chat(**SAME)))
        async with asyncio.timeout(DEADLINE_S):
            told = await door.ask(CHAT, STREAM, cache_control="only-if-cached")
        assert (told.status, door.calls) == (504, 1)
        stub.go.set()
        await leader


async def test_what_is_not_known_to_be_complete_is_made_into_no_other_form() -> None:
    def sent(kind: str, **data: Any) -> bytes:
        return b"event: " + kind.encode() + b"\n" + event({"type": kind, **data})

    message: dict[str, Any] = {"id": "msg_01abcdef", "type": "message", "role": "assistant"}
    message |= {"model": "c", "content": [], "stop_reason": None, "stop_sequence": None}
    message["usage"] = {"input_tokens": 5, "output_tokens": 1}
    text = {"type": "text", "text": "hello"}
    stub = Parts(
        [
            sent("message_start", message=message),
            sent("content_block_start", index=0, content_block=text),
            sent("content_block_stop", index=0),
            sent("message_stop"),
        ]
    )
    stub.go.clear()
    body = {**chat(**SAME), "max_tokens": 9}
    async with doorway(stub=stub, provider="anthropic") as door:
        tasks = await together(
            door, door.ask(MESSAGES, {**body, "stream": True}), door.ask(MESSAGES, body)
        )
        stub.go.set()
        told = await asyncio.gather(*tasks)
        assert [each.cache for each in told] == ["miss", "miss"]
        assert door.calls == 2


async def test_a_failure_that_others_share_says_nothing_of_the_credential_that_got_it() -> None:
    private = {"set-cookie": "__cf_bm=1", "openai-organization": "org-a", "retry-after": "3"}
    stub = Parts([], **private)
    stub.head["content-type"] = "application/json"
    vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
    stub.parts = [orjson.dumps({"object": "list", "model": "e", "data": [vector], "usage": {}})]
    async with doorway(stub=stub, cache={"scope": "shared"}) as door:
        for key in ("sk-1", "sk-2"):
            await door.ask(EMBEDDINGS, {"model": "e", "input": f"proof of {key}"}, key=key)
        stub.status, stub.parts = 503, [b'{"error":{"message":"busy"}}']
        stub.go.clear()
        before = door.calls
        asked = [door.ask(CHAT, chat(**SAME), key=key) for key in ("sk-1", "sk-1", "sk-2")]
        tasks = await together(door, *asked)
        stub.go.set()
        first, same, other = await asyncio.gather(*tasks)
        assert door.calls == before + 1
        assert first.headers["set-cookie"] == "__cf_bm=1"
        assert same.headers["openai-organization"] == "org-a"
        assert "set-cookie" not in same.headers
        assert not {"set-cookie", "openai-organization"} & {n.lower() for n in other.headers}
        assert (other.headers["retry-after"], other.document["error"]["message"]) == ("3", "busy")


async def test_a_compressed_failure_is_not_given_to_who_can_not_read_it() -> None:
    stub = Parts([gzip.compress(b'{"error":{}}')])
    stub.head |= {"content-type": "application/json", "content-encoding": "gzip"}
    stub.status = 429
    stub.go.clear()
    async with doorway(stub=stub) as door:
        codings = ("gzip, br", "gzip;q=1.0", "identity")
        tasks = await together(
            door, *(door.ask(CHAT, chat(**SAME), accept_encoding=each) for each in codings)
        )
        stub.go.set()
        told = await asyncio.gather(*tasks)
        assert [each.cache for each in told] == ["miss", "collapsed", "miss"]


async def test_a_leader_that_does_not_read_holds_back_nobody_who_waits_for_the_whole() -> None:
    stub = Parts(long_stream(200, 100_000))
    stub.go.clear()
    async with doorway(stub=stub, cache={"max_entry_bytes": 64 << 20}) as door:
        async with silent_client(door, STREAM):
            await aboard(door, 1)
            waiting = asyncio.create_task(door.ask(CHAT, chat(**SAME)))
            await aboard(door, 2)
            stub.go.set()
            async with asyncio.timeout(DEADLINE_S):
                told = await waiting
        assert (told.status, told.cache) == (200, "collapsed")
        assert len(content(told)) == 20_000_000


async def test_one_that_does_not_read_what_can_not_be_held_loses_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flight, "PATIENCE_S", 0.2)
    stub = Parts(long_stream(200, 100_000))
    stub.go.clear()
    async with doorway(stub=stub, cache={"max_entry_bytes": 1 << 20}) as door:
        leader = asyncio.create_task(door.ask(CHAT, STREAM))
        await aboard(door, 1)
        async with silent_client(door, STREAM) as slow:
            await aboard(door, 2)
            stub.go.set()
            async with asyncio.timeout(DEADLINE_S):
                assert len(content(await leader)) == 20_000_000
            assert door.calls == 1
            # What it gets does not end like a whole answer.
            got = await slow.ended()
            assert b"[DONE]" not in got
            assert not got.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("coalesce", ["all", "off"])
async def test_an_answer_whose_client_leaves_while_it_is_read_is_kept_and_held_no_longer(
    coalesce: str, budgets: list[Budget], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()
    judged = cache.judged

    def slowly(*told: Any) -> Any:
        loop.call_soon_threadsafe(began.set)
        go.wait(DEADLINE_S)
        return judged(*told)

    monkeypatch.setattr(asking, "judged", slowly)
    async with doorway(stub=Parts(long_stream(400, 1000)), cache={"coalesce": coalesce}) as door:
        async with silent_client(door, STREAM):
            async with asyncio.timeout(DEADLINE_S):
                await began.wait()
            assert budgets[0].used_bytes > 400_000
        # A client that has hung up: its connection is seen to be closed before the reading ends.
        await until(lambda: not door.gateway._drain.busy or coalesce == "off")
        await asyncio.sleep(0.05)
        go.set()
        await until(lambda: not door.gateway._drain.busy)
        await door.gateway._calls.idle()
        await door.gateway.background.idle()
        assert budgets[0].used_bytes == 0
        assert (await door.ask(CHAT, STREAM)).cache == "hit"
        assert door.calls == 1


async def test_a_revalidation_that_can_not_be_kept_is_given_up(budgets: list[Budget]) -> None:
    later, stub = Later(), Parts([said("x"), END])
    short = {**SWR, "max_entry_bytes": 1 << 16}
    async with doorway(stub=stub, clock=later.clock, cache=short) as door:
        await door.ask(CHAT, STREAM)
        later.offset_s = TTL_S + 1
        stub.parts = lambda: itertools.repeat(said("y" * 1000))
        assert (await door.ask(CHAT, STREAM)).cache == "stale"
        async with asyncio.timeout(DEADLINE_S):
            await stub.gone.wait()
            await door.gateway._calls.idle()
        assert budgets[0].used_bytes == 0


async def test_who_leaves_early_was_not_served_and_saves_nothing() -> None:
    # More than the buffers of a socket hold: what they took was sent, whoever reads it.
    stub = Parts(long_stream(250, 100_000))
    stub.go.clear()
    async with doorway(stub=stub, cache={"max_entry_bytes": 64 << 20}) as door:
        leader = asyncio.create_task(door.ask(CHAT, STREAM))
        await aboard(door, 1)
        async with silent_client(door, STREAM):
            await aboard(door, 2)
            stub.go.set()
            await leader
        await aboard(door, 0)
        page = await door.metrics()
        assert not [line for line in page.splitlines() if line.startswith(SAVED)]
        assert 'gateway_stream_aborted_total{side="client"} 1.0' in page


async def test_calls_that_fail_count_as_failed_whoever_hears_of_it() -> None:
    later, stub = Later(), Failing()
    async with doorway(stub=stub, clock=later.clock, cache=SIE) as door:
        for body in (chat(**SAME), chat()):
            await door.ask(CHAT, body)
        later.offset_s = TTL_S + 1
        stub.status = 503
        for body in (chat(**SAME), chat()):
            assert (await door.ask(CHAT, body)).cache == "stale"
        counted = [
            line
            for line in (await door.metrics()).splitlines()
            if line.startswith("gen_ai_client_inference_duration_seconds_count")
        ]
        assert len(counted) == 2
        assert [line.rpartition(" ")[2] for line in counted if 'error_type="503"' in line] == [
            "2.0"
        ]


async def test_the_younger_of_two_answers_is_served_though_the_older_is_at_hand() -> None:
    stub = Parts([said("old"), said(None, "stop"), event(b"[DONE]")])
    async with doorway(stub=stub) as door:
        # Without usage it can't be a document: it lies apart, and room is left for another.
        for expected in ("miss", "hit", "hit"):
            told = await door.ask(CHAT, STREAM)
            assert (told.cache, content(told)) == (expected, "old")
        stub.parts = [said("new"), END]
        assert (await door.ask(CHAT, STREAM, cache_control="no-cache")).cache == "miss"
        told = await door.ask(CHAT, STREAM)
        assert (told.cache, content(told)) == ("hit", "new")


async def test_a_long_hit_is_counted_until_its_client_has_it(budgets: list[Budget]) -> None:
    size = 16 << 20
    stub = Parts(long_stream(16, 1 << 20))
    sections: dict[str, Any] = {
        "cache": {"max_entry_bytes": 64 << 20},
        "store": {"memory_bytes": 512 << 20},
        "server": {"memory_budget_bytes": 120 << 20},
    }
    async with doorway(stub=stub, **sections) as door:
        assert (await door.ask(CHAT, STREAM)).cache == "miss"
        await until(lambda: budgets[0].used_bytes == 0)
        async with silent_client(door, STREAM):
            await until(lambda: budgets[0].used_bytes >= size)
            assert (await door.ask(CHAT, STREAM)).cache == "hit"
            # A crowd of those who don't read is refused before memory is gone.
            budgets[0].limit_bytes = 30 << 20
            refused = await door.ask(CHAT, STREAM)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        await until(lambda: budgets[0].used_bytes == 0)


async def test_what_waits_to_be_written_is_counted_and_bounded(
    budgets: list[Budget], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, loop = asyncio.Event(), asyncio.get_running_loop()
    from gateway.store.memory import MemoryStore  # noqa: PLC0415 - patched here only

    put = MemoryStore.put

    async def slowly(self: MemoryStore, key: bytes, blob: bytes, ttl_s: float) -> None:
        await go.wait()
        await put(self, key, blob, ttl_s)

    monkeypatch.setattr(MemoryStore, "put", slowly)
    answered: list[Told] = []
    async with doorway(stub=Parts(long_stream(10, 100_000))) as door:

        async def ask(text: str) -> None:
            answered.append(await door.ask(CHAT, chat(text, **SAME, stream=True)))

        tasks = [loop.create_task(ask("first"))]
        await until(lambda: door.calls == 1 and not door.gateway._calls._tasks)
        assert budgets[0].used_bytes > 1_000_000
        budgets[0].limit_bytes = budgets[0].used_bytes + 3_000_000
        tasks.append(loop.create_task(ask("second")))
        await until(lambda: door.calls == 2 and not door.gateway._calls._tasks)
        go.set()
        await asyncio.gather(*tasks)
        assert [each.status for each in answered] == [200, 200]
        assert budgets[0].used_bytes == 0
        assert (await door.ask(CHAT, chat("first", **SAME, stream=True))).cache == "hit"


async def test_who_comes_after_a_purge_joins_no_call_from_before_it() -> None:
    stub = Parts([said("x"), END])
    stub.go.clear()
    async with doorway(stub=stub) as door:
        (before,) = await together(door, door.ask(CHAT, STREAM))
        await door.gateway._generations.purge(["*"])
        after = [asyncio.create_task(door.ask(CHAT, STREAM)) for _ in range(2)]
        await aboard(door, 3)
        stub.go.set()
        told = await asyncio.gather(before, *after)
        assert sorted(each.cache for each in told) == ["collapsed", "miss", "miss"]
        assert door.calls == 2


async def test_requests_that_come_in_one_piece_are_answered_one_after_the_other() -> None:
    stub = Parts([said("hello"), END])
    stub.go.clear()
    async with doorway(stub=stub) as door, RawClient(door.gateway.api_url) as client:
        (leader,) = await together(door, door.ask(CHAT, STREAM))
        pairs = [("Authorization", "Bearer sk-1"), ("Content-Type", "application/json")]
        await client.send(request("POST", CHAT, orjson.dumps(STREAM), pairs) * 3)
        await aboard(door, 2)
        stub.go.set()
        told = [await client.response() for _ in range(3)]
        assert told[0].head.get("x-gateway-cache") == "collapsed"
        ids = {orjson.loads(each.body.split(b"\n\n")[0][6:])["id"] for each in told}
        assert len(ids) == 3
        assert len({each.head.get("x-gateway-request-id") for each in told}) == 3
        assert all(each.body.endswith(b"data: [DONE]\n\n") for each in told)
        await leader
        assert door.calls == 1


async def test_a_gateway_that_stops_lets_all_aboard_finish_and_cuts_them_in_the_end() -> None:
    for in_time in (True, False):
        stub = Parts([said("hello"), END])
        stub.go.clear()
        async with doorway(stub=stub, server={"drain_timeout_s": 20 if in_time else 0.1}) as door:
            bodies = (STREAM, STREAM, chat(**SAME))
            tasks = await together(door, *(door.ask(CHAT, body) for body in bodies))
            stopping = asyncio.create_task(door.gateway.stop())
            if in_time:
                await until(lambda: door.gateway._drain.begun)
                stub.go.set()
            async with asyncio.timeout(DEADLINE_S):
                await stopping
                told = await asyncio.gather(*tasks, return_exceptions=True)
            if in_time:
                assert [isinstance(each, Told) and each.cache for each in told] == [
                    *("miss", "collapsed", "collapsed")
                ]
            else:
                assert not any(isinstance(each, Told) for each in told)
            stub.go.set()
