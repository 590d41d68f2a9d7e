"""Every LLM call of the 200 recorded tau-bench conversations, through the gateway as a process.

2,454 calls, 2,446 of them different in meaning: trials of the same task may open with the same
words. So the first pass may already have up to eight hits; the passes after it have nothing else.
Each pass after the first one goes through a new process without a memory tier and with no secret
configured: what it serves it has from the file or from Redis, and nothing but what is kept there
tells it under which scope.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import pytest
import redis.asyncio

from tests.helpers.chat_answers import ChatAnswer, ask
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.recorded_stub import RecordedStub
from tests.helpers.taubench import Call, calls, flipped, renamed, shuffled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.helpers.redis_servers import RedisServer

CLIENTS = 16
PASS_S = 120.0

Body: TypeAlias = dict[str, Any]


@pytest.fixture(scope="module")
def recorded() -> RecordedStub:
    return RecordedStub((call.body, call.answer) for call in calls())


@pytest.fixture
async def stub(recorded: RecordedStub) -> AsyncIterator[tuple[RecordedStub, str]]:
    recorded.calls.clear()
    async with recorded.serve() as url:
        yield recorded, url


@dataclass
class Pass:
    """One way through all calls."""

    answers: list[ChatAnswer]
    seconds: float
    upstream_calls: int
    found: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.found = Counter(answer.cache for answer in self.answers)

    def __str__(self) -> str:
        found = ", ".join(f"{count} {cache}" for cache, count in sorted(self.found.items()))
        return f"{found}, {self.upstream_calls} upstream calls, {self.seconds:.1f} s"


async def send(api_url: str, bodies: list[Body], stub: RecordedStub) -> Pass:
    """Send all bodies, a few at a time; the answers in the same order."""
    stub.calls.clear()
    answers: list[ChatAnswer | None] = [None] * len(bodies)
    left = iter(enumerate(bodies))
    url = f"{api_url}/v1/chat/completions"
    began = time.perf_counter()

    async def client() -> None:
        for place, body in left:
            answers[place] = await ask(session, url, body)

    async with (
        aiohttp.ClientSession() as session,
        asyncio.timeout(PASS_S),
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(CLIENTS):
            tasks.create_task(client())
    seconds = time.perf_counter() - began
    return Pass([a for a in answers if a is not None], seconds, stub.total_calls)


def gateway(store_url: str, upstream_url: str, **store: Any) -> GatewayProcess:
    # As patient as a machine that everybody uses needs it: deadlines have tests of their own.
    settings = {"url": store_url, "deadline_ms": 2000, **store}
    upstream = {"base_url": upstream_url, "provider": "openai"}
    return GatewayProcess({"store": settings, "upstreams": {"openai": upstream}})


def as_asked(call: Call, place: int) -> Body:
    """The recorded request in one of three forms: a body, a stream, a stream with usage."""
    match place % 3:
        case 0:
            return call.body
        case 1:
            return {**call.body, "stream": True}
        case _:
            return {**call.body, "stream": True, "stream_options": {"include_usage": True}}


def check_answer(body: Body, answer: ChatAnswer, recorded: dict[str, Any]) -> bool:
    """It is the recorded one, in the form asked for. True when a tool-call id had to change."""
    changed = False
    assert answer.content == recorded["content"]
    own_ids = {c["id"] for m in body["messages"] for c in m.get("tool_calls") or ()}
    expected = recorded.get("tool_calls") or ()
    assert len(answer.tool_calls) == len(expected)
    for got, call in zip(answer.tool_calls, expected, strict=True):
        function = call["function"]
        assert (got.name, got.arguments) == (function["name"], function["arguments"])
        if answer.cache != "miss" and call["id"] in own_ids:
            # The only case where an id is not the original's: this history knows it already.
            assert got.id not in own_ids
            assert len(got.id) == len(call["id"])
            assert got.id.startswith("call_")
            changed = True
        else:
            assert got.id == call["id"]
    assert answer.finish_reason == ("tool_calls" if expected else "stop")
    asked = not body.get("stream") or body.get("stream_options") is not None
    assert (answer.usage is not None) == asked
    return changed


def check_pass(bodies: list[Body], done: Pass, first: Pass, stub: RecordedStub) -> int:
    """All answers are the recorded ones, and say what those of the first pass said. How many
    have a tool-call id of their own, because the recorded one occurs in the request's history.
    """
    changed = 0
    assert len(done.answers) == len(bodies)
    for body, answer, original in zip(bodies, done.answers, first.answers, strict=True):
        recorded = stub.answer(body)
        assert recorded is not None
        changed += check_answer(body, answer, recorded)
        assert answer.model == original.model
        if answer.usage is not None and original.usage is not None:
            assert answer.usage == original.usage
    ids = [answer.id for answer in done.answers]
    assert len(set(ids)) == len(ids), "an answer's id was used twice"
    return changed


async def send_three_times(
    kind: str, store_url: str, stub: RecordedStub, upstream_url: str
) -> None:
    assert len(calls()) == 2454
    assert len(stub) == 2446
    dice = random.Random(20261122)
    asked = [as_asked(call, place) for place, call in enumerate(calls())]
    guises = [flipped(shuffled(renamed(body, dice), dice)) for body in asked]

    async with gateway(store_url, upstream_url) as process:
        first = await send(process.api_url, asked, stub)
    print(f"\n{kind}, first pass: {first}")
    check_pass(asked, first, first, stub)
    assert first.upstream_calls == first.found["miss"] >= len(stub)
    # Some ask the same at the same time.
    assert sum(first.found[each] for each in ("miss", "hit", "collapsed")) == len(asked)

    known = {answer.id for answer in first.answers}
    # In 73 recordings the answer's id was used before; with other ids in the history it was not.
    for which, bodies, clashes in (("second", asked, 73), ("third", guises, 0)):
        async with gateway(store_url, upstream_url, memory_bytes=0) as process:
            done = await send(process.api_url, bodies, stub)
        print(f"{kind}, {which} pass: {done}")
        assert done.found == {"hit": len(bodies)}
        assert done.upstream_calls == 0
        assert check_pass(bodies, done, first, stub) == clashes
        assert known.isdisjoint(answer.id for answer in done.answers)


@pytest.mark.slow
@pytest.mark.timeout(3 * PASS_S)
async def test_conversations_sent_again_in_any_guise_come_from_a_sqlite_file(
    tmp_path: Path, stub: tuple[RecordedStub, str]
) -> None:
    await send_three_times("sqlite", f"sqlite:///{tmp_path}/cache.sqlite", *stub)


@pytest.mark.slow
@pytest.mark.timeout(3 * PASS_S)
async def test_conversations_sent_again_in_any_guise_come_from_redis(
    redis_server: RedisServer, stub: tuple[RecordedStub, str]
) -> None:
    await send_three_times(redis_server._executable.stem, redis_server.url, *stub)


async def test_replicas_that_nobody_configured_share_what_they_keep_in_redis(
    redis_server: RedisServer, stub: tuple[RecordedStub, str]
) -> None:
    recorded, upstream_url = stub
    some = [call.body for call in calls()[::400]]
    # Together, so that both find an empty Redis.
    one, other = gateway(redis_server.url, upstream_url), gateway(redis_server.url, upstream_url)
    async with AsyncExitStack() as running:
        async with asyncio.TaskGroup() as tasks:
            for replica in (one, other):
                tasks.create_task(running.enter_async_context(replica))
        entries = 0
        for asked, asker, repeater in ((some[::2], one, other), (some[1::2], other, one)):
            missed = await send(asker.api_url, asked, recorded)
            assert missed.found == {"miss": len(asked)}
            entries += len(asked)
            await stored(redis_server, entries)
            repeated = await send(repeater.api_url, asked, recorded)
            assert repeated.found == {"hit": len(asked)}
            assert repeated.upstream_calls == 0


async def stored(server: RedisServer, entries: int) -> None:
    """Until so many entries are in Redis, the secret beside them: writing is behind the answer."""
    client = redis.asyncio.from_url(server.url)
    async with asyncio.timeout(10):
        while await client.dbsize() < entries + 1:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.005)
    await client.aclose()
