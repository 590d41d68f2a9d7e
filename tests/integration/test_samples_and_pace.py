"""Several answers per key, and streams replayed at their own pace, through the whole gateway."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from gateway.app import start
from gateway.config import load
from gateway.lab.stub_provider import StubProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUESTION: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Pick a number."}],
}


class World:
    def __init__(self, url: str, stub: StubProvider, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.stub = stub
        self.session = session

    async def ask(self, body: dict[str, Any], **headers: str) -> tuple[str, dict[str, Any]]:
        told = {"authorization": "Bearer sk-1"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        async with self.session.post(self.url, json=body, headers=told) as response:
            raw = await response.read()
            return response.headers.get("x-gateway-cache", ""), orjson.loads(raw)


@asynccontextmanager
async def world(settings: dict[str, str] | None = None, gap_s: float = 0.0) -> AsyncIterator[World]:
    async with StubProvider(gap_s=gap_s) as stub, aiohttp.ClientSession() as session:
        environ = {
            "GATEWAY_UPSTREAMS__OPENAI__BASE_URL": stub.v1_url,
            "GATEWAY_UPSTREAMS__OPENAI__PROVIDER": "openai",
            "GATEWAY_SERVER__PORT": "0",
            "GATEWAY_SERVER__PROBE_PORT": "0",
            "GATEWAY_SERVER__DRAIN_IDLE_S": "0",
            "GATEWAY_STORE__URL": "memory://",
            **(settings or {}),
        }
        gateway = await start(load(None, environ), environ)
        try:
            yield World(f"{gateway.api_url}/v1/chat/completions", stub, session)
        finally:
            await gateway.stop()


@pytest.mark.parametrize(
    ("settings", "headers"),
    [({"GATEWAY_CACHE__SAMPLES": "3"}, {}), ({}, {"x_gateway_cache_samples": "3"})],
    ids=["configured", "asked for"],
)
async def test_the_first_n_calls_fetch_and_later_ones_get_one_of_the_n(
    settings: dict[str, str], headers: dict[str, str]
) -> None:
    async with world(settings) as w:
        results = [(await w.ask(QUESTION, **headers))[0] for _ in range(12)]
        assert ["miss"] * 3 + ["hit"] * 9 == results
        assert w.stub.total_calls == 3


async def test_each_of_the_n_answers_is_served_sooner_or_later() -> None:
    async with world({"GATEWAY_CACHE__SAMPLES": "2"}) as w:
        # The stub's answers are a function of the question, so tell the two by their age.
        await w.ask(QUESTION)
        await asyncio.sleep(1.1)
        await w.ask(QUESTION)
        ages: set[str] = set()
        for _ in range(64):
            told = {"authorization": "Bearer sk-1"}
            async with w.session.post(w.url, json=QUESTION, headers=told) as response:
                ages.add(response.headers["Age"])
        assert len(ages) >= 2


async def test_no_cache_replaces_one_of_the_samples_and_only_if_cached_takes_what_there_is() -> (
    None
):
    async with world({"GATEWAY_CACHE__SAMPLES": "2"}) as w:
        refused, error = await w.ask(QUESTION, cache_control="only-if-cached")
        assert (refused, error["error"]["code"]) == ("", "gateway_not_in_cache")
        assert (await w.ask(QUESTION))[0] == "miss"
        assert (await w.ask(QUESTION, cache_control="only-if-cached"))[0] == "hit"
        assert (await w.ask(QUESTION))[0] == "miss"
        assert (await w.ask(QUESTION, cache_control="no-cache"))[0] == "miss"
        assert (await w.ask(QUESTION))[0] == "hit"
        assert w.stub.total_calls == 3


@pytest.mark.parametrize("count", ["0", "-1", "many", "", "1"])
async def test_a_count_that_makes_no_sense_is_one(count: str) -> None:
    async with world() as w:
        results = [(await w.ask(QUESTION, x_gateway_cache_samples=count))[0] for _ in range(3)]
        assert ["miss", "hit", "hit"] == results


async def test_a_stream_is_replayed_at_once_or_at_its_own_pace() -> None:
    body = {**QUESTION, "stream": True}
    async with world(gap_s=0.05) as w:

        async def stream(**headers: str) -> tuple[float, bytes]:
            told = {"authorization": "Bearer sk-1"} | {
                name.replace("_", "-"): value for name, value in headers.items()
            }
            began = time.perf_counter()
            async with w.session.post(w.url, json=body, headers=told) as response:
                raw = await response.read()
                return time.perf_counter() - began, raw

        original_s, _ = await stream()
        instant_s, at_once = await stream()
        paced_s, slowly = await stream(x_gateway_replay="original")
        told_s, _ = await stream(x_gateway_replay="instant")
        print(f"original {original_s:.3f} s, instant {instant_s:.3f} s, paced {paced_s:.3f} s")
        assert w.stub.total_calls == 1
        assert instant_s < original_s / 3
        assert told_s < original_s / 3
        # Each gap is cut to whole milliseconds.
        assert original_s * 0.7 < paced_s < original_s * 1.5 + 0.5
        assert at_once.count(b"\n\n") == slowly.count(b"\n\n")


async def test_line_ends_fold_only_where_the_operator_says_so() -> None:
    unix = {**QUESTION, "messages": [{"role": "user", "content": "a  \nb"}]}
    windows = {**QUESTION, "messages": [{"role": "user", "content": "a\r\nb"}]}
    async with world() as w:
        assert ["miss", "miss"] == [(await w.ask(unix))[0], (await w.ask(windows))[0]]
    async with world({"GATEWAY_CACHE__FOLD_TEXT": "true"}) as w:
        assert ["miss", "hit"] == [(await w.ask(unix))[0], (await w.ask(windows))[0]]
        # What is forwarded stays as it was sent.
        assert w.stub.received[-1].json()["messages"][0]["content"] == "a  \nb"
