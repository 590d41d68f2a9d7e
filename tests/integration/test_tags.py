"""Tags on requests, and what a purge does to answers that are on their way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.core.purges import ALL
from tests.helpers.chat_answers import HELLO as ANSWER
from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import RawClient, fetch
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from gateway.app import RunningGateway
    from tests.helpers.raw_client import Response

CHAT = "/v1/chat/completions"
TAGS = "x-gateway-cache-tags"
QUESTION = orjson.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]})


async def ask(gateway: RunningGateway, *tags: str, told: tuple[str, str] | None = None) -> Response:
    headers = [*((TAGS, tag) for tag in tags), *((told,) if told else ())]
    got = await fetch(gateway.api_url, "POST", CHAT, QUESTION, headers)
    await gateway.background.idle()
    return got


async def test_tags_stay_here_and_are_no_part_of_the_question() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(ANSWER))
        assert (await ask(gateway, "a")).head.get("x-gateway-cache") == "miss"
        seen = await upstream.request(0)
        assert TAGS not in {name.lower() for name in seen.headers()}
        for tags in ((), ("b",), ("not a tag",)):
            assert (await ask(gateway, *tags)).head.get("x-gateway-cache") == "hit"
        # The answer keeps the tags of the request that fetched it.
        await gateway._generations.purge(["tag:b"])
        assert (await ask(gateway)).head.get("x-gateway-cache") == "hit"
        await gateway._generations.purge(["tag:a"])
        again = await ask(gateway)
        assert again.head.get("x-gateway-cache") == "miss"
        assert "detail=purged" in again.head.get("cache-status")


@pytest.mark.parametrize("tags", ["two words", ",".join(f"t{n}" for n in range(17)), "x" * 129])
async def test_an_answer_whose_tags_can_t_be_kept_is_not_stored(tags: str) -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(ANSWER))
        for _ in range(2):
            got = await ask(gateway, tags)
            assert (got.status, got.head.get("x-gateway-cache")) == (200, "miss")


async def test_an_answer_that_was_asked_for_before_a_purge_is_not_served_after_it() -> None:
    gate = asyncio.Event()
    head, body = response(ANSWER).split(b"\r\n\r\n", 1)
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.answer(head + b"\r\n\r\n", (gate, body))
        upstream.otherwise(response(ANSWER))
        async with RawClient(gateway.api_url) as client:
            await client.ask("POST", CHAT, QUESTION, [(TAGS, "a")])
            await upstream.request(0)
            await gateway._generations.purge(["tag:a"])
            gate.set()
            got = await client.response("POST")
            assert (got.status, got.body) == (200, ANSWER)
        await gateway.background.idle()
        assert (await ask(gateway, "a")).head.get("x-gateway-cache") == "miss"
        # What was asked for after the purge is kept, under the same tag.
        assert (await ask(gateway, "a")).head.get("x-gateway-cache") == "hit"


async def test_the_inputs_of_a_batch_carry_its_tags() -> None:
    vectors = [{"object": "embedding", "index": n, "embedding": [0.5]} for n in range(2)]
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    answer = {"object": "list", "data": vectors, "model": "m", "usage": usage}
    body = orjson.dumps({"model": "m", "input": ["one", "two"]})
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(orjson.dumps(answer)))

        async def inputs() -> str:
            got = await fetch(gateway.api_url, "POST", "/v1/embeddings", body, [(TAGS, "a")])
            await gateway.background.idle()
            return got.head.get("x-gateway-cache-inputs")

        assert [await inputs(), await inputs()] == ["hit=0, miss=2", "hit=2, miss=0"]
        await gateway._generations.purge(["tag:a"])
        assert [await inputs(), await inputs()] == ["hit=0, miss=2", "hit=2, miss=0"]


async def test_what_was_purged_is_not_served_stale_either() -> None:
    cache = {"ttl_s": 0.05, "stale_if_error_s": 600.0, "stale_while_revalidate_s": 600.0}
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url, cache=cache) as gateway:
        upstream.answer(response(ANSWER))
        upstream.otherwise(response(b"{}", status="503 Service Unavailable"))
        assert (await ask(gateway, "a")).status == 200
        async with asyncio.timeout(5):
            while (await ask(gateway)).head.get("x-gateway-cache") != "stale":
                """Its lifetime is that of the gateway's own clock."""
        await gateway._generations.purge([ALL])
        assert (await ask(gateway)).status == 503


async def test_only_if_cached_says_that_it_was_purged() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(ANSWER))
        await ask(gateway, "a")
        await gateway._generations.purge(["tag:a"])
        got = await ask(gateway, told=("Cache-Control", "only-if-cached"))
        assert (got.status, b"(purged)" in got.body) == (504, True)
