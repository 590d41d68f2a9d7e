"""What a gateway counts of real requests, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from gateway.lab.stub_provider import StubProvider
from gateway.telemetry.metrics import SCOPES
from tests.helpers.doorway import CHAT, MESSAGES, Doorway, chat, doorway
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

DEADLINE_S = 20


async def counted(door: Doorway, name: str, **labels: str) -> float:
    """The sum of the series of that name with these labels."""
    families = text_string_to_metric_families(await door.metrics())
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_what_a_hit_saved_is_what_its_answer_had_cost() -> None:
    async with doorway() as door:
        assert await door.caches(CHAT, chat(temperature=0), chat(temperature=0)) == ["miss", "hit"]
        cost = await counted(door, "gateway_inference_cost_total")
        assert cost > 0
        assert await counted(door, "gateway_cache_saved_cost_total", model="gpt-4o") == cost
        await door.ask(CHAT, chat(temperature=0))
        assert await counted(door, "gateway_cache_saved_cost_total") == 2 * cost


async def test_each_credential_has_a_label_that_does_not_show_it() -> None:
    async with doorway() as door:
        for key in ("sk-first", "sk-first", "sk-second"):
            await door.ask(CHAT, chat(temperature=0), key)
        page = await door.metrics()
        lines = [line for line in page.splitlines() if line.startswith("gateway_scope_requests")]
        told = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}
        assert sorted(told.values()) == [1, 1, 1]
        assert sum('outcome="hit"' in line for line in told) == 1
        assert len({line.partition('scope="')[2][:8] for line in told}) == 2
        assert "sk-first" not in page


async def test_a_refused_credential_has_no_label() -> None:
    async with doorway(stub=StubProvider(keys=["sk-good"])) as door:
        for n in range(5):
            assert (await door.ask(CHAT, chat(), f"sk-bad-{n}")).status == 401
        other = await counted(door, "gateway_scope_requests_total", scope="_other")
        assert other == await counted(door, "gateway_scope_requests_total", outcome="refused") == 5


class Gated(StubProvider):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    def app(self) -> web.Application:
        app = super().app()

        @web.middleware
        async def held(request: web.Request, handler: Any) -> web.StreamResponse:
            await self.go.wait()
            response: web.StreamResponse = await handler(request)
            return response

        app.middlewares.append(held)
        return app


async def test_those_who_wait_for_anothers_call_are_counted_while_they_do() -> None:
    stub = Gated()
    async with doorway(stub=stub) as door:
        asking = [asyncio.ensure_future(door.ask(CHAT, chat(temperature=0))) for _ in range(4)]
        async with asyncio.timeout(DEADLINE_S):
            while await counted(door, "gateway_flight_waiters") != 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the page is all there is to see it by
        assert await counted(door, "gateway_inflight") == 4
        stub.go.set()
        await asyncio.gather(*asking)
        assert await counted(door, "gateway_flight_waiters") == 0


async def test_markers_are_counted_as_ours_the_clients_and_none() -> None:
    text = "A long instruction that does not change. " * 800
    marked = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
    said = [{"role": "user", "content": "Hello."}]
    body = {"model": "claude-opus-4-8", "max_tokens": 9, "system": [marked], "messages": said}
    short = {"model": "claude-opus-4-8", "max_tokens": 9, "messages": said}
    async with doorway() as door:
        await door.ask(MESSAGES, body)
        await door.ask(MESSAGES, short)
        assert await counted(door, "gateway_markers_total", action="kept") == 1
        skipped = await counted(door, "gateway_markers_total", action="skipped", reason="too-short")
        assert skipped == 1


async def test_what_is_asked_of_upstreams_is_timed_by_address() -> None:
    async with doorway() as door:
        await door.ask(CHAT, chat())
        await door.ask(CHAT, {"model": 7})
        name = "http_client_request_duration_seconds_count"
        assert await counted(door, name, server_address="127.0.0.1") == 2
        assert await counted(door, name, http_response_status_code="200", error_type="") == 1


@asynccontextmanager
async def pooled() -> AsyncIterator[Doorway]:
    """A pool `gpu` of the replicas `a` and `b`."""
    async with StubProvider() as one, StubProvider() as other:
        backends = [{"url": one.v1_url, "name": "a"}, {"url": other.v1_url, "name": "b"}]
        pool = {"backends": backends, "engine": "openai"}
        async with doorway(upstreams={"gpu": pool}) as door:
            yield door


async def test_each_replica_of_a_pool_is_counted_and_has_a_state() -> None:
    async with pooled() as door:
        for n in range(8):
            assert (await door.ask("/u/gpu" + CHAT, chat(f"Question {n}?"))).status == 200
        assert await counted(door, "gateway_backend_requests_total", upstream="gpu") == 8
        assert await counted(door, "gateway_route_replicas", upstream="gpu", state="ready") == 2
        for name in "ab":
            assert await counted(door, "gateway_backend_state", backend=name, state="ready") == 1


async def test_the_process_tells_what_it_takes() -> None:
    async with doorway() as door:
        assert await counted(door, "process_cpu_seconds_total") > 0
        assert 1e7 < await counted(door, "process_resident_memory_bytes") < 1e11
        assert 3 < await counted(door, "process_open_fds") <= await counted(door, "process_max_fds")
        age_s = time.time() - await counted(door, "process_start_time_seconds")
        assert time.process_time() / 4 < age_s < 24 * 3600
        assert await counted(door, "python_gc_collections_total", generation="0") > 0


async def test_hundreds_of_models_keys_paths_and_methods_make_few_series() -> None:
    async with doorway() as door:
        for n in range(300):
            await door.ask(CHAT, chat(model=f"model-{n}"), f"sk-{n}")
            await door.ask(f"/v1/made/up/{n}", {})
        page = await door.metrics()
    series = [line for line in page.splitlines() if not line.startswith("#")]
    print(f"{len(series)} series after 300 models, keys and paths")
    assert len(series) < 2000
    assert sum(line.startswith("gateway_scope_requests") for line in series) <= SCOPES + 2
    # All counters have room; what has none are the least of the histograms.
    full = {line.partition("{")[0] for line in series if 'otel_metric_overflow="true"' in line}
    assert {name for name in full if "_client_inference_operation_" not in name} == set()


async def test_one_provider_has_one_name_whatever_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.upstream.choice.prompt_cache_provider", lambda _: "deepseek")
    async with (
        serve_app(StubProvider().app()) as base,
        doorway(upstreams={"openai": {"base_url": f"{base}/v1"}}) as door,
    ):
        asked = chat(temperature=0)
        assert await door.caches(CHAT, asked, asked) == ["miss", "hit"]
        page = await door.metrics()
        families = text_string_to_metric_families(page)
        told = {s.labels["provider"] for f in families for s in f.samples if "provider" in s.labels}
        assert told == {"deepseek"}
        assert "gateway_cache_saved_tokens_total{" in page
