"""When a response has begun: not with its head, but with the first byte of its body, or its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict

from gateway.config import Config
from gateway.errors import UpstreamBroken
from gateway.telemetry.spans import AttemptSpan
from gateway.upstream.choice import Choice
from gateway.upstream.client import UpstreamClient
from tests.helpers.scripted_upstream import LAST_CHUNK, ScriptedUpstream, chunk, stream_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.upstream.client import Call


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    made = UpstreamClient()
    await made.start()
    yield made
    await made.close()


def call(client: UpstreamClient, base: str) -> Call:
    config = Config.model_validate({"upstreams": {"it": {"base_url": f"{base}/v1"}}})
    endpoint = Choice(config).endpoints["it"]
    headers: CIMultiDict[str] = CIMultiDict()
    return client.call("GET", f"{base}/v1/x", headers, None, endpoint, lambda _: AttemptSpan())


async def test_it_waits_for_the_first_byte_and_takes_nothing(client: UpstreamClient) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), (gate, chunk(b"one")), chunk(b"two"), LAST_CHUNK)
        async with asyncio.timeout(10), call(client, upstream.url) as response:
            begun = asyncio.ensure_future(response.begun())
            done, _ = await asyncio.wait({begun}, timeout=0.05)
            assert not done
            gate.set()
            await begun
            await response.begun()
            assert await response.content.read() == b"onetwo"


async def test_a_body_of_nothing_has_begun_with_its_end(client: UpstreamClient) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), LAST_CHUNK)
        async with asyncio.timeout(10), call(client, upstream.url) as response:
            await response.begun()
            assert await response.content.read() == b""


async def test_what_breaks_off_before_it_has_begun_is_raised(client: UpstreamClient) -> None:
    gate = asyncio.Event()

    async def ask(base: str) -> None:
        async with asyncio.timeout(10), call(client, base) as response:
            gate.set()
            await response.begun()

    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), (gate, b""), then_close=True)
        with pytest.raises(UpstreamBroken):
            await ask(upstream.url)
