"""Embeddings input by input, with the official SDK through the whole gateway."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from openai import AsyncOpenAI

from gateway.app import start
from gateway.config import load
from gateway.lab.stub_provider import StubProvider
from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import fetch
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.app import RunningGateway
    from tests.helpers.raw_client import Response

MODEL = "text-embedding-3-small"


class World:
    def __init__(self, client: AsyncOpenAI, stub: StubProvider) -> None:
        self.client = client
        self.stub = stub

    async def embed(self, given: Any, **options: Any) -> tuple[dict[str, str], Any]:
        raw = await self.client.embeddings.with_raw_response.create(
            model=MODEL, input=given, **options
        )
        told = {
            name: raw.headers.get(name, "")
            for name in ("x-gateway-cache", "x-gateway-cache-inputs")
        }
        return told, raw.parse()

    @property
    def asked(self) -> list[Any]:
        """The inputs of each call that the provider got."""
        return [each.json()["input"] for each in self.stub.received]


@asynccontextmanager
async def world(store_url: str = "memory://") -> AsyncIterator[World]:
    async with StubProvider() as stub:
        environ = {
            "GATEWAY_UPSTREAMS__OPENAI__BASE_URL": stub.v1_url,
            "GATEWAY_UPSTREAMS__OPENAI__PROVIDER": "openai",
            "GATEWAY_SERVER__PORT": "0",
            "GATEWAY_SERVER__PROBE_PORT": "0",
            "GATEWAY_STORE__URL": store_url,
        }
        gateway = await start(load(None, environ), environ)
        client = AsyncOpenAI(api_key="sk-1", base_url=f"{gateway.api_url}/v1", max_retries=0)
        try:
            yield World(client, stub)
        finally:
            await client.close()
            await gateway.stop()


def texts(first: int, last: int) -> list[str]:
    return [f"text number {n}" for n in range(first, last)]


async def test_a_batch_of_100_with_90_known_asks_for_10_and_answers_in_order() -> None:
    async with world() as w, StubProvider() as direct:
        await w.embed(texts(0, 90))
        shuffled = texts(90, 95) + texts(0, 90)[::-1] + texts(95, 100)
        told, answer = await w.embed(shuffled)
        assert told == {"x-gateway-cache": "miss", "x-gateway-cache-inputs": "hit=90, miss=10"}
        assert w.asked[1:] == [texts(90, 95) + texts(95, 100)]
        straight = AsyncOpenAI(api_key="sk-1", base_url=direct.v1_url)
        expected = await straight.embeddings.create(model=MODEL, input=shuffled)
        await straight.close()
        assert [e.model_dump() for e in expected.data] == [e.model_dump() for e in answer.data]
        # What the provider counted for the ten that it was asked for.
        ten = await w.embed(texts(90, 95) + texts(95, 100))
        assert ten[0]["x-gateway-cache-inputs"] == "hit=10, miss=0"
        assert 0 < answer.usage.prompt_tokens < expected.usage.prompt_tokens


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_the_same_batch_again_is_the_same_object_and_costs_nothing(encoding: str) -> None:
    async with world() as w:
        told, first = await w.embed(texts(0, 5), encoding_format=encoding)
        again, second = await w.embed(texts(0, 5), encoding_format=encoding)
        assert told["x-gateway-cache-inputs"] == "hit=0, miss=5"
        assert again == {"x-gateway-cache": "hit", "x-gateway-cache-inputs": "hit=5, miss=0"}
        assert [e.embedding for e in first.data] == [e.embedding for e in second.data]
        assert (first.usage, first.model) == (second.usage, second.model)
        assert w.stub.total_calls == 1


async def test_an_input_alone_and_in_a_batch_are_one_unit() -> None:
    async with world() as w:
        await w.embed(texts(0, 3))
        told, alone = await w.embed("text number 1")
        assert told == {"x-gateway-cache": "hit", "x-gateway-cache-inputs": "hit=1, miss=0"}
        assert [e.index for e in alone.data] == [0]
        told, _ = await w.embed(["something new"])
        assert told == {"x-gateway-cache": "miss", "x-gateway-cache-inputs": "hit=0, miss=1"}
        told, _ = await w.embed(["something new", "text number 2"])
        assert told == {"x-gateway-cache": "hit", "x-gateway-cache-inputs": "hit=2, miss=0"}


async def test_what_changes_the_vector_is_keyed() -> None:
    async with world() as w:
        await w.embed(texts(0, 2), encoding_format="float")
        for options in (
            {"encoding_format": "base64"},
            {"encoding_format": "float", "dimensions": 8},
            {"encoding_format": "float", "extra_headers": {"OpenAI-Beta": "x"}},
            {"encoding_format": "float", "extra_headers": {"Authorization": "Bearer sk-2"}},
        ):
            told, _ = await w.embed(texts(0, 2), **options)
            assert told["x-gateway-cache"] == "miss", options


async def test_directives_hold_for_batches_too() -> None:
    async with world() as w:
        only = {"extra_headers": {"Cache-Control": "only-if-cached"}}
        await w.embed(texts(0, 2))
        with pytest.raises(Exception, match="only-if-cached"):
            await w.embed(texts(0, 3), **only)
        assert (await w.embed(texts(0, 2), **only))[0]["x-gateway-cache"] == "hit"
        told, _ = await w.embed(texts(0, 3), extra_headers={"Cache-Control": "no-transform"})
        assert told["x-gateway-cache-inputs"] == "hit=0, miss=3"
        assert w.asked[-1] == texts(0, 3)
        told, _ = await w.embed(texts(0, 2), extra_headers={"Cache-Control": "no-cache"})
        assert told["x-gateway-cache"] == "miss"
        await w.embed(texts(5, 7), extra_headers={"Cache-Control": "no-store"})
        assert (await w.embed(texts(5, 7)))[0]["x-gateway-cache-inputs"] == "hit=0, miss=2"


async def test_an_error_of_the_provider_passes_through_and_is_not_kept() -> None:
    async with world() as w:
        await w.embed(texts(0, 2))
        with pytest.raises(Exception, match="429"):
            await w.embed([*texts(0, 2), "[error 429]"])
        told, _ = await w.embed([*texts(0, 2), "fine"])
        assert told["x-gateway-cache-inputs"] == "hit=2, miss=1"


async def test_batches_survive_in_a_sqlite_file(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/cache.sqlite"
    async with world(url) as w:
        await w.embed(texts(0, 20))
    async with world(url) as w:
        told, _ = await w.embed(texts(0, 20))
        # Another stub is another upstream, and so another identity.
        assert told["x-gateway-cache"] == "miss"
        assert (await w.embed(texts(0, 20)))[0]["x-gateway-cache"] == "hit"


def vectors(inputs: list[str]) -> bytes:
    data = [
        {"object": "embedding", "index": index, "embedding": [float(len(each)), 0.5]}
        for index, each in enumerate(inputs)
    ]
    usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
    return orjson.dumps({"object": "list", "data": data, "model": MODEL, "usage": usage})


async def embed_raw(gateway: RunningGateway, inputs: list[str]) -> Response:
    body = orjson.dumps({"model": MODEL, "input": inputs})
    return await fetch(gateway.api_url, "POST", "/v1/embeddings", body)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK", {"content-type": "text/plain"}),
        ("200 OK", {"content-encoding": "br"}),
        ("203 Changed", {}),
    ],
)
async def test_an_answer_to_a_part_that_can_not_be_read_never_stands_for_the_whole(
    status: str, headers: dict[str, str]
) -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.answer(response(vectors(["a", "b"])))
        await embed_raw(gateway, ["a", "b"])
        await gateway.background.idle()
        upstream.answer(response(vectors(["c"]), status=status, headers=headers))
        whole = vectors(["a", "b", "c"])
        upstream.answer(response(whole, status=status, headers=headers))
        got = await embed_raw(gateway, ["a", "b", "c"])
        assert got.body == whole
        assert got.head.get("x-gateway-cache-inputs") == "hit=0, miss=3"
        assert "detail=unreadable" in got.head.get("cache-status")


async def test_what_is_too_large_to_be_held_is_asked_for_once() -> None:
    limit = {"max_entry_bytes": 3000}
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url, cache=limit) as gateway:
        upstream.answer(response(vectors(["a"])))
        await embed_raw(gateway, ["a"])
        await gateway.background.idle()
        many = ["a", *(f"text {number}" for number in range(100))]
        upstream.answer(response(vectors(many)))
        assert (await embed_raw(gateway, many)).body == vectors(many)
        assert len(upstream.seen) == 2
