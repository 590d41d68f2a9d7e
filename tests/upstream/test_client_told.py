"""What is told of each HTTP request when it is over: once, and whatever became of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import pytest
from multidict import CIMultiDict

from gateway.config import Config
from gateway.errors import UpstreamBroken, UpstreamUnreachable
from gateway.telemetry.spans import NULL_ATTEMPT
from gateway.upstream.choice import Choice
from gateway.upstream.client import UpstreamClient
from tests.helpers.redis_servers import free_port
from tests.helpers.scripted_upstream import ScriptedUpstream, chunk, response, stream_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.upstream.client import Call

DEADLINE_S = 10


class Ended(NamedTuple):
    method: str
    host: str
    port: int | None
    status: int
    error: str
    seconds: float


class Ears:
    def __init__(self) -> None:
        self.heard: list[Ended] = []

    def __call__(self, *told: object) -> None:
        self.heard.append(Ended(*told))  # type: ignore[arg-type]


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
async def client(ears: Ears) -> AsyncIterator[UpstreamClient]:
    made = UpstreamClient(ears)
    await made.start()
    yield made
    await made.close()


def call(client: UpstreamClient, base: str, method: str = "POST") -> Call:
    config = Config.model_validate({"upstreams": {"it": {"base_url": f"{base}/v1"}}})
    to = Choice(config).endpoints["it"]
    body = None if method == "GET" else b"{}"
    return client.call(method, f"{base}/v1/x", CIMultiDict(), body, to, lambda _: NULL_ATTEMPT)


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_an_answer_is_told_with_its_status_after_its_last_byte(
    client: UpstreamClient, ears: Ears, status: int
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(response(b"{}", status=f"{status} So"))
        async with call(client, upstream.url) as answer:
            assert ears.heard == []
            await answer.content.read()
        port = int(upstream.url.rpartition(":")[2])
    (told,) = ears.heard
    assert told[:5] == ("POST", "127.0.0.1", port, status, "")
    assert 0 < told.seconds < DEADLINE_S


async def test_the_time_is_that_to_the_last_byte(client: UpstreamClient, ears: Ears) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), chunk(b"1"), (0.2, chunk(b"2")), chunk(b""))
        async with call(client, upstream.url) as answer:
            await answer.content.read()
    assert 0.15 < ears.heard[0].seconds < DEADLINE_S


async def test_each_attempt_that_found_nobody_is_told_without_a_status(
    client: UpstreamClient, ears: Ears
) -> None:
    with pytest.raises(UpstreamUnreachable):
        async with call(client, f"http://127.0.0.1:{free_port()}", "GET"):
            pass
    assert [told[:1] + told[3:5] for told in ears.heard] == [("GET", 0, "ClientConnectorError")] * 2


async def test_one_that_breaks_off_is_told_with_its_status_and_what_failed(
    client: UpstreamClient, ears: Ears
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer(stream_head(), chunk(b"1"), then_close=True)
        with pytest.raises(UpstreamBroken):
            async with call(client, upstream.url) as answer:
                await answer.content.read()
    (told,) = ears.heard
    assert told.status == 200
    assert told.error


async def test_that_a_client_went_away_is_no_failure_of_the_call(
    client: UpstreamClient, ears: Ears
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.answer((asyncio.Event(), b""))

        async def ask() -> None:
            async with call(client, upstream.url):
                pass

        task = asyncio.create_task(ask())
        await upstream.request(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (told,) = ears.heard
    assert (told.status, told.error) == (0, "")
