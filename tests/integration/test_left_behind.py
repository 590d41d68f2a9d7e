"""Failing requests leave nothing that only the garbage collector could find: it comes by rarely, and
what they held is as large as their bodies.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import RawClient, request
from tests.helpers.scripted_upstream import ScriptedUpstream, response, stream_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.app import RunningGateway

CHAT = "/v1/chat/completions"
CUT = response(b" " * 100)[:-50]


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def left_behind() -> list[str]:
    """The kinds of the gateway's own objects, and of frames in it, that nothing refers to any more
    but each other.
    """
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    frames = [each.f_code for each in gc.garbage if hasattr(each, "f_code")]
    ours = [type(each).__name__ for each in gc.garbage if type(each).__module__[:8] == "gateway."]
    return ours + [code.co_qualname for code in frames if "/gateway/" in code.co_filename]


@pytest.mark.usefixtures("collector_off")
@pytest.mark.parametrize("coalesce", ["deterministic", "off"])
@pytest.mark.parametrize("path", [CHAT, "/v1/bench"])
@pytest.mark.parametrize("case", ["answers", "refuses", "breaks off", "says nothing"])
async def test_a_failed_request_leaves_nothing_behind(case: str, path: str, coalesce: str) -> None:
    said, closes = {
        "answers": (response(b"{}"), False),
        "refuses": (response(b"{}", status="500 No"), False),
        "breaks off": (CUT, True),
        "says nothing": (b"", True),
    }[case]
    async with ScriptedUpstream() as upstream:
        upstream.otherwise(said, then_close=closes)
        async with gateway_here(upstream.url, cache={"coalesce": coalesce}) as gateway:
            for number in range(3):
                async with RawClient(gateway.api_url) as client:
                    await client.send(request("POST", path, _question(number)))
                    await client.head()
                    if case == "breaks off":
                        await client.ended()
            await at_rest(gateway)
            assert left_behind() == []


@pytest.mark.usefixtures("collector_off")
@pytest.mark.parametrize("coalesce", ["deterministic", "off"])
async def test_a_client_that_leaves_leaves_nothing_behind(coalesce: str) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.otherwise(stream_head(), (asyncio.Event(), b""))
        async with gateway_here(upstream.url, cache={"coalesce": coalesce}) as gateway:
            for number in range(3):
                async with RawClient(gateway.api_url) as client:
                    await client.send(request("POST", CHAT, _question(number)))
                    await client.head()
                    client.hang_up()
                seen = await upstream.request(number)
                await asyncio.wait_for(seen.hung_up.wait(), 5)
            await at_rest(gateway)
            assert left_behind() == []


async def at_rest(gateway: RunningGateway) -> None:
    """Return when no request is under way any more, and nothing that one has begun."""
    async with asyncio.timeout(5):
        pool = gateway._client.pool
        assert pool is not None
        while gateway._drain.busy or pool.busy:  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0)
        await gateway._calls.idle()
        await gateway.background.idle()
    # The loop has yet to tell some connections that they are gone.
    for _ in range(5):
        await asyncio.sleep(0)


def _question(number: int) -> bytes:
    body = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": f"{number}"}]}
    return orjson.dumps(body)
