"""Engines that are read again and again: counters, restarts, and every way of not answering."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from multidict import CIMultiDict

from gateway.config import Config
from gateway.config.kinds import ENGINES as CONFIGURABLE
from gateway.providers.base import ENGINES
from gateway.providers.engine_metrics import ENGINE_METRICS
from gateway.telemetry.spans import NULL_ATTEMPT
from gateway.upstream.choice import Choice
from gateway.upstream.client import Call, UpstreamClient
from gateway.upstream.engines import PAGE_BYTES, Engine, Engines, metrics_url
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.upstream.choice import Endpoint

TEXT = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}


def page(queried: int, hit: int, running: int = 1) -> bytes:
    """What a vLLM says."""
    return response(
        f"vllm:num_requests_running {running}.0\nvllm:num_requests_waiting 2.0\n"
        f"vllm:kv_cache_usage_perc 0.5\nvllm:prompt_tokens_total {queried}\n"
        f"vllm:prefix_cache_queries_total {queried}\nvllm:prefix_cache_hits_total {hit}\n".encode(),
        headers=TEXT,
    )


class Scene:
    """One watched engine, and a clock that stands still until it is set."""

    def __init__(self, upstream: ScriptedUpstream, engines: Engines) -> None:
        self.upstream = upstream
        self.engines = engines
        self.now = 1000.0
        self.began_anew: list[str] = []
        engines.on_restart = lambda engine: self.began_anew.append(engine.endpoint.name)

    @property
    def engine(self) -> Engine:
        return self.engines["gpu"]

    @property
    def told(self) -> dict[str, Any]:
        return self.engines.told()["gpu"]

    async def read(self, *pieces: Any, after_s: float = 5.0) -> dict[str, Any]:
        """What is told once this page was read."""
        self.now += after_s
        self.upstream.answer(*pieces)
        await self.engines.read(self.engine)
        return self.told


@asynccontextmanager
async def watched(
    provider: str = "vllm", *, deadline_s: float = 5.0, **settings: Any
) -> AsyncIterator[Scene]:
    client = UpstreamClient()
    await client.start()

    def ask(endpoint: Endpoint, url: str) -> Call:
        return client.call("GET", url, CIMultiDict(), None, endpoint, lambda _: NULL_ATTEMPT)

    try:
        async with ScriptedUpstream() as upstream:
            gpu = {"base_url": f"{upstream.url}/v1", "provider": provider}
            config = Config.model_validate(
                {"upstreams": {"gpu": {"metrics_interval_s": 5, **gpu, **settings}}}
            )
            endpoints = Choice(config).endpoints.values()
            scene: Scene | None = None
            engines = Engines(
                endpoints, ask, lambda: scene.now if scene else 0.0, deadline_s=deadline_s
            )
            scene = Scene(upstream, engines)
            try:
                yield scene
            finally:
                await engines.close(0.0)
    finally:
        await client.close()


async def test_an_engine_that_was_never_read_tells_nothing() -> None:
    async with watched() as scene:
        assert scene.told == {
            "engine": "vllm",
            "running": None,
            "waiting": None,
            "kv_usage": None,
            "prefix_hit_share": {"interval": None, "total": None},
            "restarts": 0,
            "age_s": None,
            "failing_s": None,
            "failure": None,
        }


async def test_shares_are_of_the_last_interval_and_in_total() -> None:
    async with watched() as scene:
        first = await scene.read(page(1000, 100))
        second = await scene.read(page(2000, 900, running=7))
        scene.now += 3
        third = scene.told
        request = scene.upstream.seen[0].request_line

    assert request == b"GET /metrics HTTP/1.1"
    assert first["prefix_hit_share"] == {"interval": None, "total": 0.1}
    assert second["prefix_hit_share"] == {"interval": 0.8, "total": 0.45}
    assert (second["running"], second["waiting"], second["kv_usage"]) == (7, 2, 0.5)
    assert (second["age_s"], third["age_s"]) == (0.0, 3.0)
    assert scene.upstream.connections == 1


async def test_counters_that_went_down_are_a_restart() -> None:
    async with watched() as scene:
        await scene.read(page(1000, 900))
        anew = await scene.read(page(200, 20))
        after = await scene.read(page(300, 70))

    assert scene.began_anew == ["gpu"]
    assert (anew["restarts"], after["restarts"]) == (1, 1)
    # Of what was counted before nothing is left.
    assert anew["prefix_hit_share"] == {"interval": 0.1, "total": 0.1}
    assert after["prefix_hit_share"] == {"interval": 0.5, "total": 0.2333}


NOT_FOUND = response(b"{}", status="404 Not Found")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (NOT_FOUND, "status 404"),
        (response(b"", status="307 Temporary Redirect"), "status 307"),
        (response(b"<html>Hello</html>"), "no_metrics"),
        (response(b""), "no_metrics"),
        (response(b"sglang:num_running_reqs 3\n"), "no_metrics"),
        (response(b"#" * (PAGE_BYTES + 1)), "too_long"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nvllm:num", "upstream_broken"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "upstream_broken"),
    ],
    ids=["404", "redirect", "html", "empty", "another engine", "long", "cut", "no HTTP"],
)
async def test_an_engine_that_cannot_be_read_fails_since_then_and_keeps_its_state(
    answer: bytes, why: str
) -> None:
    async with watched() as scene:
        await scene.read(page(1000, 100))
        scene.upstream.otherwise(answer, then_close=True)
        scene.now += 5
        await scene.engines.read(scene.engine)
        scene.now += 5
        await scene.engines.read(scene.engine)
        failing = scene.told
        back = await scene.read(page(1100, 150))

    assert failing["failure"].endswith(why)
    assert (failing["failing_s"], failing["age_s"], failing["running"]) == (5.0, 10.0, 1)
    assert (back["failing_s"], back["failure"], back["age_s"]) == (None, None, 0.0)
    # Over the gap: nothing was lost.
    assert back["prefix_hit_share"]["interval"] == 0.5


async def test_an_engine_that_hangs_has_its_deadline() -> None:
    async with watched(deadline_s=0.1) as scene:
        never = asyncio.Event()
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
        silent = await scene.read((never, b""))
        halfway = await scene.read(head, (never, b""))
        await asyncio.wait_for(scene.upstream.seen[1].hung_up.wait(), 5)

    assert (silent["failure"], halfway["failure"]) == ("timeout", "timeout")
    assert halfway["failing_s"] == 5.0


async def test_an_engine_that_is_not_there_is_said_to_be_unreachable() -> None:
    async with watched() as scene:
        scene.engine.url = "http://127.0.0.1:1/metrics"
        await scene.engines.read(scene.engine)

        assert "unreachable" in scene.told["failure"]


async def test_it_reads_in_the_background_until_it_is_closed() -> None:
    async with watched(metrics_interval_s=0.1) as scene:
        scene.upstream.otherwise(page(10, 5))
        scene.engines.start()
        await scene.upstream.request(2)
        await scene.engines.close(5.0)
        seen = len(scene.upstream.seen)
        assert scene.told["prefix_hit_share"]["total"] == 0.5
        assert len(scene.upstream.seen) == seen
        assert repr(scene.engines) == "<Engines 1 watched, 0 failing>"


async def test_closing_does_not_wait_for_an_engine_that_hangs() -> None:
    async with watched() as scene:
        scene.upstream.otherwise((asyncio.Event(), b""))
        scene.engines.start()
        await scene.upstream.request(0)
        async with asyncio.timeout(2):
            await scene.engines.close(0.0)


async def test_only_engines_that_are_to_be_read_are_watched() -> None:
    async with watched(metrics_interval_s=0) as scene:
        assert list(scene.engines) == []
        assert scene.engines.told() == {}
    async with watched("llamacpp") as scene:
        claude = replace(
            scene.engine.endpoint, provider=Choice(Config()).endpoints["anthropic"].provider
        )
        assert list(Engines([claude], scene.engines._ask, lambda: 0.0)) == []


def test_the_config_lets_the_engines_be_read_whose_metrics_are_known() -> None:
    assert set(CONFIGURABLE) == set(ENGINE_METRICS) == ENGINES
    for provider in ENGINE_METRICS:
        gpu = {"base_url": "http://gpu/v1", "provider": provider, "metrics_interval_s": 5}
        config = Config.model_validate({"upstreams": {"gpu": gpu}})
        assert Choice(config).endpoints["gpu"].metrics_interval_s == 5


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://gpu:8000/v1", "http://gpu:8000/metrics"),
        ("http://gpu:8000", "http://gpu:8000/metrics"),
        ("https://host/llm/v1", "https://host/llm/metrics"),
        ("http://gpu:8000/v1beta", "http://gpu:8000/v1beta/metrics"),
    ],
)
def test_metrics_lie_beside_the_api(base_url: str, url: str) -> None:
    assert metrics_url(base_url) == url
