"""Engines that are read again and again: counters, restarts, and every way of not answering."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
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
from gateway.upstream.engine_pages import PAGE_BYTES, beside_api
from gateway.upstream.engines import Engines
from gateway.upstream.pools import Pools
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from gateway.upstream.choice import Endpoint
    from gateway.upstream.engine import Engine
    from gateway.upstream.replicas import Replicas

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

    def __init__(
        self, upstream: ScriptedUpstream, engines: Engines, ask: Callable[[Endpoint, str], Call]
    ) -> None:
        self.upstream = upstream
        self.ask = ask
        self.engines = engines
        self.now = 1000.0
        self.began_anew: list[str] = []
        self.sizes: list[tuple[str, int, int]] = []
        engines.on_restart = lambda engine: self.began_anew.append(engine.name)
        engines.on_sized = lambda engine: self.sizes.append((engine.name, *engine.size))

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
            scene = Scene(upstream, engines, ask)
            try:
                yield scene
            finally:
                await engines.close(0.0)
    finally:
        await client.close()


async def test_an_engine_that_was_never_read_tells_nothing() -> None:
    async with watched() as scene:
        assert scene.told == {
            "upstream": "gpu",
            "backend": None,
            "engine": "vllm",
            "running": None,
            "waiting": None,
            "kv_usage": None,
            "capacity_tokens": None,
            "slots": None,
            "awake": None,
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
        scene.engine.endpoint = replace(scene.engine.endpoint, base_url="http://127.0.0.1:1/v1")
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
        assert list(Engines([claude], scene.ask, lambda: 0.0)) == []


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
    assert beside_api(base_url, "metrics") == url


# -- how large it is -------------------------------------------------------------------------------

INFO = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="%d",engine="%d"} 1.0\n'


def told(text: str) -> bytes:
    return response(f"vllm:num_requests_running 0\n{text}".encode(), headers=TEXT)


async def test_the_size_of_its_cache_is_told_once_it_is_known_and_when_it_changes() -> None:
    async with watched() as scene:
        await scene.read(told(""))
        await scene.read(told(INFO % (1000, 0)))
        await scene.read(told(INFO % (1000, 0)))
        of_two = await scene.read(told(INFO % (1000, 0) + INFO % (1000, 1)))

    assert scene.sizes == [("gpu", 16_000, 0), ("gpu", 32_000, 0)]
    assert of_two["capacity_tokens"] == 32_000


async def test_sglangs_size_is_that_of_all_its_ranks_that_share_nothing() -> None:
    ranks = "".join(
        f'sglang:max_total_num_tokens{{dp_rank="{dp}",tp_rank="{tp}"}} 5000\n'
        for dp in range(2)
        for tp in range(2)
    )
    async with watched("sglang") as scene:
        await scene.read(response(f"sglang:num_running_reqs 1\n{ranks}".encode()))

    assert scene.sizes == [("gpu", 10_000, 0)]


async def test_an_engine_that_is_put_to_sleep_has_lost_its_cache() -> None:
    def sleeps(awake: int) -> bytes:
        return told(f'vllm:engine_sleep_state{{engine="0",sleep_state="awake"}} {awake}\n')

    async with watched() as scene:
        for awake in (1, 1, 0, 0):
            await scene.read(sleeps(awake))
        state = await scene.read(sleeps(1))

    assert scene.began_anew == ["gpu"]
    assert (state["restarts"], state["awake"]) == (0, True)


async def test_a_younger_process_is_a_restart_though_its_counters_went_on() -> None:
    def since(started: float, asked: int) -> bytes:
        return told(
            f"process_start_time_seconds {started}\nvllm:prefix_cache_queries_total {asked}\n"
        )

    async with watched() as scene:
        await scene.read(since(1.7e9, 0))
        await scene.read(since(1.7e9 + 0.5, 10))
        assert scene.began_anew == []
        await scene.read(since(1.7e9 + 30, 500))

    assert scene.began_anew == ["gpu"]


# -- llama.cpp -------------------------------------------------------------------------------------

LLAMA = response(
    b"llamacpp:prompt_tokens_total 10\nllamacpp:requests_processing 1\nllamacpp:requests_deferred 2\n"
)
SLOTS = response(
    b'[{"id":0,"n_ctx":4096,"is_processing":true},{"id":1,"n_ctx":4096,"is_processing":false}]'
)
PROPS = response(b'{"default_generation_settings":{"n_ctx":2048},"total_slots":3}')
OFF = response(b"{}", status="501 Not Implemented")


async def paths(scene: Scene) -> list[str]:
    return [seen.request_line.split()[1].decode() for seen in scene.upstream.seen]


async def test_llamacpps_slots_are_read_once_and_again_after_a_restart() -> None:
    async with watched("llamacpp") as scene:
        scene.upstream.answer(LLAMA)
        first = await scene.read(SLOTS)
        second = await scene.read(LLAMA)
        scene.upstream.answer(response(b"llamacpp:prompt_tokens_total 0\n"))
        third = await scene.read(SLOTS)
        asked = await paths(scene)

    assert asked == ["/metrics", "/slots", "/metrics", "/metrics", "/slots"]
    assert scene.sizes == [("gpu", 8192, 2)]
    for state in (first, second, third):
        assert (state["slots"], state["capacity_tokens"]) == (2, 8192)
    assert (second["running"], second["waiting"]) == (1, 2)
    assert scene.began_anew == ["gpu"]


async def test_where_slots_are_not_told_the_properties_are_asked() -> None:
    async with watched("llamacpp") as scene:
        scene.upstream.answer(LLAMA)
        scene.upstream.answer(OFF)
        await scene.read(PROPS)

    assert scene.sizes == [("gpu", 6144, 3)]


async def test_where_metrics_are_off_the_slots_say_what_runs() -> None:
    async with watched("llamacpp") as scene:
        scene.upstream.answer(OFF)
        state = await scene.read(SLOTS)

    assert (state["running"], state["waiting"], state["slots"]) == (1, None, 2)
    assert state["failure"] is None


async def test_where_nothing_is_told_it_fails_for_what_the_metrics_answered() -> None:
    async with watched("llamacpp") as scene:
        scene.upstream.answer(OFF)
        scene.upstream.answer(response(b"<html>"))
        state = await scene.read(response(b"[]"))

    assert state["failure"] == "status 501"


async def test_slots_that_are_not_told_spoil_nothing_else() -> None:
    async with watched("llamacpp") as scene:
        scene.upstream.answer(LLAMA)
        scene.upstream.answer(NOT_FOUND)
        state = await scene.read(response(b'{"total_slots":"many"}'))

    assert (state["running"], state["slots"], state["failure"]) == (1, None, None)
    assert scene.sizes == []


# -- pools -----------------------------------------------------------------------------------------


class Pool(Scene):
    """A pool whose replicas all are one upstream."""

    replicas: Replicas

    def join(self, name: str) -> None:
        # Each replica has an address of its own: on the loopback there are many.
        at = self.upstream.url.replace("127.0.0.1", f"127.0.0.{len(self.replicas) + 2}")
        self.replicas.add(name, f"{at}/v1")


@asynccontextmanager
async def pooled(**settings: Any) -> AsyncIterator[Pool]:
    client = UpstreamClient()
    await client.start()

    def ask(endpoint: Endpoint, url: str) -> Call:
        # Wherever it is said to be, it is asked where the upstream listens.
        where = upstream.url + url.partition("://")[2].partition("/")[2].join(("/", ""))
        return client.call("GET", where, CIMultiDict(), None, endpoint, lambda _: NULL_ATTEMPT)

    try:
        async with ScriptedUpstream() as upstream:
            upstream.otherwise(told(INFO % (100, 0)))
            backends = [{"url": f"{upstream.url}/v1", "name": "a"}]
            gpu = {"engine": "vllm", "backends": backends, "health": {"interval_s": 0}, **settings}
            config = Config.model_validate({"upstreams": {"gpu": gpu}})
            endpoints = Choice(config).endpoints
            pools = Pools(config.upstreams, endpoints, ask, lambda: 0.0)
            engines = Engines(endpoints.values(), ask, lambda: 0.0, pools=pools)
            scene = Pool(upstream, engines, ask)
            scene.replicas = pools["gpu"]
            try:
                yield scene
            finally:
                await engines.close(0.0)
                await pools.close(0.0)
    finally:
        await client.close()


def test_a_pools_engines_are_read_every_five_seconds_unless_the_config_says_otherwise() -> None:
    def interval(**settings: Any) -> float:
        gpu = {"backends": ["http://gpu:1/v1", "http://gpu:2/v1"], **settings}
        return (
            Choice(Config.model_validate({"upstreams": {"gpu": gpu}}))
            .endpoints["gpu"]
            .metrics_interval_s
        )

    assert interval(engine="vllm") == interval(engine="llamacpp") == 5.0
    assert interval(engine="sglang", metrics_interval_s=0) == 0.0
    assert interval(engine="openai") == 0.0
    one = {"gpu": {"base_url": "http://gpu/v1", "engine": "vllm"}}
    alone = Choice(Config.model_validate({"upstreams": one})).endpoints["gpu"]
    assert alone.metrics_interval_s == 0.0


async def test_each_replica_of_a_pool_is_read_and_told_by_its_name() -> None:
    async with pooled() as scene:
        scene.join("b")
        scene.engines._look(scene.replicas)
        for engine in scene.engines:
            await scene.engines.read(engine)
        known = scene.engines.told()

    assert scene.sizes == [("gpu/a", 1600, 0), ("gpu/b", 1600, 0)]
    assert {name: (each["upstream"], each["backend"]) for name, each in known.items()} == {
        "gpu/a": ("gpu", "a"),
        "gpu/b": ("gpu", "b"),
    }


async def test_who_joins_is_watched_and_who_left_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.engines._LOOK_S", 0.01)
    sized = asyncio.Queue[str]()
    async with asyncio.timeout(10), pooled(metrics_interval_s=60) as scene:
        scene.engines.on_sized = lambda engine: sized.put_nowait(engine.name)
        scene.engines.start()
        assert await sized.get() == "gpu/a"
        scene.join("b")
        assert await sized.get() == "gpu/b"
        (task,) = [each.task for each in scene.engines if each.backend == "b"]
        assert task is not None
        scene.replicas.remove("b", at_once=True)
        await asyncio.wait([task])
        assert [each.name for each in scene.engines] == ["gpu/a"]
        # Of that name, but another process: its size is news.
        scene.join("b")
        assert await sized.get() == "gpu/b"


async def test_a_hook_that_fails_stops_nothing() -> None:
    def fails(_: Engine) -> None:
        raise RuntimeError

    async with watched() as scene:
        scene.engines.on_sized = scene.engines.on_restart = fails
        await scene.read(told(INFO % (10, 0) + "vllm:prompt_tokens_total 5\n"))
        state = await scene.read(told(INFO % (10, 0) + "vllm:prompt_tokens_total 1\n"))

    assert (state["restarts"], state["failure"]) == (1, None)


# --- another config ------------------------------------------------------------------------------


def engines_of(**upstreams: Any) -> Mapping[str, Endpoint]:
    return Choice(Config.model_validate({"upstreams": upstreams})).endpoints


async def test_an_engine_that_another_config_has_too_is_known_as_before() -> None:
    async with watched() as scene:
        await scene.read(response(page(100, 50)))
        engine, url = scene.engine, f"{scene.upstream.url}/v1"
        gpu = {"base_url": url, "provider": "vllm", "metrics_interval_s": 7, "api_key": "sk-new"}
        other = {"base_url": "http://127.0.0.1:1/v1", "provider": "vllm", "metrics_interval_s": 5}

        scene.engines.turn(engines_of(gpu=gpu, other=other).values(), {})

        assert scene.engine is engine
        assert (engine.interval_s, engine.endpoint.api_key) == (7.0, "sk-new")
        assert scene.told["running"] == 1
        assert {each.name for each in scene.engines} == {"gpu", "other"}
        task = scene.engines["other"].task
        assert task is not None

        elsewhere = {**gpu, "base_url": "http://127.0.0.1:2/v1"}
        scene.engines.turn(engines_of(gpu=elsewhere).values(), {})

        assert scene.engine is not engine
        assert scene.told["running"] is None
        assert [each.name for each in scene.engines] == ["gpu"]
        with suppress(asyncio.CancelledError):
            await task
        assert task.done()


async def test_the_replicas_of_a_pool_that_is_another_one_are_read_anew() -> None:
    async with pooled() as scene, pooled() as other:
        engine = scene.engines["gpu/a"]
        there = {"gpu": scene.replicas}

        scene.engines.turn([scene.replicas.endpoint], there)
        assert scene.engines["gpu/a"] is engine

        scene.engines.turn([other.replicas.endpoint], {"gpu": other.replicas})
        assert scene.engines["gpu/a"] is not engine

        scene.engines.turn([], {})
        assert list(scene.engines) == []
        assert not scene.engines
