"""The cache as the proxy uses it, through the whole gateway."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

import orjson
import pytest

from gateway.store.memory import MemoryStore
from gateway.store.tiered import TieredStore
from tests.helpers.chat_answers import HELLO as ANSWER
from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import fetch
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CHAT = "/v1/chat/completions"
QUESTION = orjson.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]})


@pytest.mark.parametrize("samples", ["1", "3"])
async def test_what_memory_can_answer_is_not_asked_of_the_store_behind_it(
    tmp_path: Path, samples: str
) -> None:
    store = {"url": f"sqlite:///{tmp_path}/entries.db"}
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url, store=store) as gateway:
        upstream.otherwise(response(ANSWER))
        tiers = gateway._store
        assert isinstance(tiers, TieredStore)
        asked: list[int] = []
        behind = tiers.back.get

        async def counted(keys: Sequence[bytes]) -> list[bytes | None]:
            asked.append(len(keys))
            return await behind(keys)

        tiers.back.get = counted  # type: ignore[method-assign]
        told = [("x-gateway-cache-samples", samples)]
        for _ in range(int(samples)):
            got = await fetch(gateway.api_url, "POST", CHAT, QUESTION, told)
            assert got.head.get("x-gateway-cache") == "miss"
            await gateway.background.idle()
        asked.clear()
        for _ in range(3):
            got = await fetch(gateway.api_url, "POST", CHAT, QUESTION, told)
            assert got.head.get("x-gateway-cache") == "hit"
        assert asked == []


async def test_an_embedding_is_fetched_once_however_many_samples_are_kept() -> None:
    vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    answer = {"object": "list", "data": [vector], "model": "m", "usage": usage}
    body = orjson.dumps({"model": "m", "input": "hi"})
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, cache={"samples": 3}) as gateway,
    ):
        upstream.otherwise(response(orjson.dumps(answer)))
        for expected in ("miss", "hit", "hit"):
            got = await fetch(gateway.api_url, "POST", "/v1/embeddings", body)
            await gateway.background.idle()
            assert got.head.get("x-gateway-cache") == expected


async def test_a_batch_of_the_largest_size_is_stored_whole(tmp_path: Path) -> None:
    store = {"url": f"sqlite:///{tmp_path}/entries.db", "memory_bytes": 0}
    vectors = [{"object": "embedding", "index": n, "embedding": [0.5]} for n in range(2048)]
    usage = {"prompt_tokens": 2048, "total_tokens": 2048}
    answer = {"object": "list", "data": vectors, "model": "m", "usage": usage}
    body = orjson.dumps({"model": "m", "input": [f"text {n}" for n in range(2048)]})
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url, store=store) as gateway:
        upstream.answer(response(orjson.dumps(answer)))
        await fetch(gateway.api_url, "POST", "/v1/embeddings", body)
        await gateway.background.idle()
        async with asyncio.timeout(10):
            # A lookup of so many may take longer than the store's deadline on a busy machine.
            while True:
                told = [("cache-control", "only-if-cached")]
                got = await fetch(gateway.api_url, "POST", "/v1/embeddings", body, told)
                if got.status == 200:
                    break
        assert got.head.get("x-gateway-cache-inputs") == "hit=2048, miss=0"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, QUESTION),
        ("/v1/embeddings", orjson.dumps({"model": "m", "input": ["one", "two"]})),
    ],
)
async def test_a_lookup_that_fails_in_a_way_nobody_thought_of_is_a_miss(
    path: str, body: bytes
) -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(b"{}"))

        def broken(keys: Sequence[bytes]) -> NoReturn:
            raise RecursionError(len(keys))

        assert isinstance(gateway._store, MemoryStore)
        gateway._store.get = gateway._store.peek = broken  # type: ignore[assignment,method-assign]
        got = await fetch(gateway.api_url, "POST", path, body)
        assert (got.status, got.head.get("x-gateway-cache")) == (200, "miss")
        assert "detail=unreadable" in got.head.get("cache-status")
