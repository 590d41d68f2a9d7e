"""Whether engines cache and say so: seen in their answers, whatever they were started with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from gateway.config import Config
from gateway.doctorcmd.finding import Verdict
from gateway.doctorcmd.look import examine
from gateway.lab.engine_server import EngineServer
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from gateway.doctorcmd.finding import Finding

SKIP = ("host", "gateway", "store", "otlp", "clock")


async def looked(url: str, engine: str) -> dict[str, Finding]:
    tree: dict[str, Any] = {"upstreams": {"m": {"base_url": url, "engine": engine}}}
    found = await examine(Config.model_validate(tree), {}, skip=SKIP, timeout_s=10.0)
    return {each.check.removeprefix("upstream.m."): each for each in found}


def serving(completions: Handler) -> web.Application:
    """An engine with one model, whose name is odd."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m\x1b[31m"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/completions", completions)
    return app


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
async def test_an_engine_that_tells_is_fine(engine: str) -> None:
    async with EngineServer(engine=engine, tells_cached=True, decode_s=0.0) as server:
        found = await looked(server.v1_url, engine)

    assert found["cached_tokens"].verdict is Verdict.OK
    assert found["metrics"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("engine", "flag"),
    [("vllm", "--enable-prompt-tokens-details"), ("sglang", "--enable-cache-report")],
)
async def test_an_engine_that_caches_and_hides_it_gets_the_flag_named(
    engine: str, flag: str
) -> None:
    async with EngineServer(engine=engine, tells_cached=False, decode_s=0.0) as server:
        found = await looked(server.v1_url, engine)

    assert found["cached_tokens"].verdict is Verdict.MEND
    assert "its answers do not say so" in found["cached_tokens"].said
    assert flag in found["cached_tokens"].mend


async def test_llamacpp_is_not_asked_for_a_slot() -> None:
    async with EngineServer(engine="llamacpp") as server:
        found = await looked(server.v1_url, "llamacpp")
        asked = set(server.calls)

    assert "cached_tokens" not in found
    assert not {path for path in asked if "completions" in path}


@pytest.mark.parametrize(
    ("told", "verdict", "word"),
    [
        ({"prompt_tokens": 500, "prompt_tokens_details": {"cached_tokens": 0}}, "mend", "nothing"),
        ({"prompt_tokens": 500}, "mend", "hides them, or caches nothing"),
        ({"prompt_tokens": 500, "prompt_tokens_details": "odd"}, "mend", "hides them"),
        ("odd", "look", "did not complete"),
        (None, "look", "did not complete"),
    ],
)
async def test_an_engine_without_metrics_is_judged_by_its_usage(
    told: Any, verdict: str, word: str
) -> None:
    async def completions(request: web.Request) -> web.Response:
        assert (await request.json())["max_tokens"] == 1
        if told is None:
            return web.json_response({"error": "this model makes embeddings"}, status=400)
        return web.json_response({"usage": told})

    async with serve_app(serving(completions)) as base:
        found = await looked(f"{base}/v1", "vllm")

    assert found["metrics"].verdict is Verdict.LOOK
    assert found["cached_tokens"].verdict.value == verdict
    assert word in found["cached_tokens"].said


@pytest.mark.parametrize(
    ("takes", "tells", "verdict", "word"),
    [
        (10_000, True, "ok", "told: 3168 of "),
        (10_000, False, "mend", "its answers do not say so"),
        (1_024, True, "look", "less than one of its blocks"),
    ],
)
async def test_blocks_longer_than_the_short_prompt_are_no_fault(
    takes: int, tells: bool, verdict: str, word: str
) -> None:
    """A hybrid model of vLLM: 1,056 tokens in a block, and usage tells only what was cached."""
    had: set[str] = set()
    hits = 0

    async def metrics(_: web.Request) -> web.Response:
        # Others are served as well, out of the cache.
        nonlocal hits
        hits += 1_056
        return web.Response(
            text=f"vllm:num_requests_running 1\nvllm:num_requests_waiting 0\n"
            f"vllm:prefix_cache_hits_total {hits}\nvllm:prefix_cache_queries_total {hits}\n"
        )

    async def completions(request: web.Request) -> web.Response:
        prompt = (await request.json())["prompt"]
        tokens = len(prompt.split())
        if tokens > takes:
            return web.json_response({"error": "maximum context length"}, status=400)
        usage: dict[str, Any] = {"prompt_tokens": tokens}
        cached = tokens // 1_056 * 1_056 if prompt in had else 0
        had.add(prompt)
        if cached and tells:
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        return web.json_response({"usage": usage})

    app = serving(completions)
    app.router.add_get("/metrics", metrics)
    async with serve_app(app) as base:
        found = await looked(f"{base}/v1", "vllm")

    assert found["metrics"].verdict is Verdict.OK
    assert found["cached_tokens"].verdict.value == verdict
    assert word in found["cached_tokens"].said
    assert len(had) <= 2


async def test_a_list_of_models_that_is_none_is_said() -> None:
    async def anything(_: web.Request) -> web.Response:
        return web.json_response([1, 2])

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", anything)
    async with serve_app(app) as base:
        found = await looked(f"{base}/v1", "sglang")

    assert "lists no model" in found["cached_tokens"].said
    assert found["metrics"].verdict is Verdict.LOOK
