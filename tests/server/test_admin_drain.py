"""Draining through the admin port: as a signal would, but nothing ends."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson
from structlog.testing import capture_logs

from gateway.errors import ShuttingDown
from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import RawClient, fetch
from tests.helpers.scripted_upstream import ScriptedUpstream, response

PATH = "/v1/models"


async def drain(admin_url: str | None, body: Any, status: int) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{admin_url}/admin/drain", json=body) as answer,
    ):
        assert answer.status == status
        return orjson.loads(await answer.read())


async def test_it_drains_and_goes_on_for_who_is_there() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(b"[]"))
        async with RawClient(gateway.api_url) as client:
            await client.ask("GET", PATH)
            assert (await client.response()).status == 200

            begun = {"state": "draining", "requests": 0, "connections": 1}
            assert await drain(gateway.admin_url, {}, 200) == begun

            ready = await fetch(gateway.probe_url, "GET", "/readyz")
            assert (ready.status, orjson.loads(ready.body)["status"]) == (503, "draining")
            assert (await fetch(gateway.probe_url, "GET", "/livez")).status == 200
            refused = await fetch(gateway.api_url, "POST", "/v1/messages", b"{}")
            assert (refused.status, refused.head.get("connection")) == (503, "close")
            assert refused.head.get("retry-after") == "1"
            assert refused.head.get("x-should-retry") == "true"
            error = orjson.loads(refused.body)["error"]
            assert (error["type"], ShuttingDown.code) == ("overloaded_error", "gateway_draining")
            await client.ask("GET", PATH)
            assert (await client.response()).head.get("connection") == "close"
            assert await client.ended() == b""
        told = await drain(gateway.admin_url, {}, 200)
        assert (told["state"], told["requests"]) == ("draining", 0)
        assert len(upstream.seen) == 2


async def test_a_refusal_is_told_as_what_it_is() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        await drain(gateway.admin_url, {}, 200)
        with capture_logs() as told:
            assert (await fetch(gateway.api_url, "GET", PATH)).status == 503
            async with asyncio.timeout(5):
                while not any(line.get("status") == 503 for line in told):  # noqa: ASYNC110 - polled
                    await asyncio.sleep(0)
        (line,) = [line for line in told if line.get("status") == 503]
        assert line["error"] == "gateway_draining"
    assert upstream.seen == []


async def test_who_says_more_than_it_knows_drains_nothing() -> None:
    async with gateway_here("http://127.0.0.1:1") as gateway:
        told = await drain(gateway.admin_url, {"force": True}, 400)
        assert told["error"]["message"] == "unknown member 'force'"
        assert (await fetch(gateway.probe_url, "GET", "/readyz")).status == 200
