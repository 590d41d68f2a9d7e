"""The probe port: constant-time answers, and metrics."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from gateway import config
from gateway.core.model import Reason, Result
from gateway.server.probes import Check, Readiness, probe_app
from gateway.telemetry.metrics import NULL_METRICS, Metrics
from gateway.telemetry.setup import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def probes(
    readiness: Readiness, metrics: Metrics = NULL_METRICS
) -> AsyncIterator[ClientSession]:
    async with (
        TestServer(probe_app(readiness, metrics)) as server,
        ClientSession(server.make_url("/")) as session,
    ):
        yield session


async def test_liveness_holds_in_every_state_and_readiness_only_when_ready() -> None:
    readiness = Readiness()
    async with probes(readiness) as client:

        async def ask() -> tuple[int, int, str]:
            async with client.get("/livez") as live, client.get("/readyz") as ready:
                return live.status, ready.status, (await ready.json())["status"]

        assert await ask() == (200, 503, "starting")
        readiness.ready()
        assert await ask() == (200, 200, "ready")
        checks = {"store": Check(ok=False, required=False)}
        readiness.watch(lambda: checks)
        assert await ask() == (200, 200, "ready")
        checks["upstreams"] = Check(ok=False, required=True)
        assert await ask() == (200, 503, "failing")
        checks["upstreams"] = Check(ok=True, required=True)
        assert await ask() == (200, 200, "ready")
        readiness.drain()
        assert await ask() == (200, 503, "draining")
        readiness.ready()
        assert await ask() == (200, 503, "draining")
    assert repr(readiness) == "<Readiness draining>"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_verbose_lists_the_checks(path: str) -> None:
    readiness = Readiness()
    readiness.ready()
    readiness.watch(lambda: {"store": Check(ok=False, required=False)})
    async with probes(readiness) as client, client.get(path + "?verbose") as response:
        body = await response.json()
        assert response.headers["Cache-Control"] == "no-store"
    assert body["checks"] == {"store": {"ok": False, "required": False}}


async def test_metrics_are_prometheus_text() -> None:
    telemetry = Telemetry.start(config.Telemetry(traces="off"), {}, "1")
    telemetry.metrics.lookup(0.001, Result.HIT, Reason.EXACT)
    async with probes(Readiness(), telemetry.metrics) as client:
        async with client.get("/metrics") as response:
            text = await response.text()
            kind = response.headers["Content-Type"]
        async with client.head("/metrics") as head:
            assert (head.status, await head.read()) == (200, b"")
            assert int(head.headers["Content-Length"]) > 100
    await asyncio.to_thread(telemetry.close, 2)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE gateway_cache_lookup_duration_seconds histogram" in text
    assert "gateway_build_info{" in text


async def test_a_slow_scrape_does_not_hold_up_the_probes() -> None:
    class Slow(Metrics):
        enabled = True
        entered, released = threading.Event(), threading.Event()

        def render(self) -> bytes:
            self.entered.set()
            assert self.released.wait(5)
            return b"# slow\n"

    slow = Slow()
    async with probes(Readiness(), slow) as client:

        async def scrape() -> bytes:
            async with client.get("/metrics") as response:
                return await response.read()

        scrapes = [asyncio.create_task(scrape()) for _ in range(4)]
        assert await asyncio.to_thread(slow.entered.wait, 10)
        async with asyncio.timeout(5), client.get("/livez") as live:
            assert live.status == 200
        slow.released.set()
        assert set(await asyncio.gather(*scrapes)) == {b"# slow\n"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/livez", 200),
        ("HEAD", "/readyz", 503),
        ("GET", "/metrics", 404),  # metrics are off here
        ("GET", "/", 404),
        ("POST", "/livez", 404),
        ("GET", "/livez/more", 404),
        ("GET", "/v1/models", 404),
        ("PUT", "/anything", 404),
    ],
)
async def test_nothing_else_is_there(method: str, path: str, status: int) -> None:
    async with probes(Readiness()) as client, client.request(method, path) as response:
        assert response.status == status
        assert response.content_type == "application/json"
