"""Prompts kept warm through a whole gateway: the first client's request reads what nobody had asked
for, with the configured credential and no other.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from gateway.cache import Clock
from gateway.lab.provider_sim import ProviderSim
from gateway.lab.stub_provider import StubProvider
from tests.helpers.doorway import CHAT, MESSAGES, doorway

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.doorway import Doorway

SYSTEM = "You answer questions about the harbour, its ships and its tides. " * 200
DEADLINE_S = 10.0


def question(text: str, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": text}]
    body = {"model": "claude-sonnet-4-5", "max_tokens": 50, "system": SYSTEM, "messages": said}
    return {**body, **more}


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not met():  # noqa: ASYNC110 - the gateway's own state, of which nobody is told
            await asyncio.sleep(0.01)


async def ready(door: Doorway) -> bool:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{door.gateway.probe_url}/readyz") as response,
    ):
        return response.status == 200


async def configured(stub: StubProvider) -> dict[str, Any]:
    """The upstream `anthropic` at the stub, with a key of its own."""
    return {"anthropic": {"base_url": stub.v1_url, "provider": "anthropic", "api_key": "sk-ours"}}


async def test_the_first_question_reads_a_prompt_that_was_warmed(tmp_path: Path) -> None:
    file = tmp_path / "support.json"
    file.write_bytes(orjson.dumps(question("placeholder")))
    warm = [{"upstream": "anthropic", "path": MESSAGES, "file": str(file)}]
    async with ProviderSim() as stub:
        upstreams = await configured(stub)
        async with doorway(stub=ProviderSim(), upstreams=upstreams, warm=warm) as door:
            await until(lambda: door.gateway.readiness.status == "ready")
            assert await ready(door)
            told = await door.ask(MESSAGES, question("Which ship leaves first?"))
            page = await door.metrics()
        sent = [each.json() for each in stub.received]
        keys = [each.header("x-api-key") for each in stub.received]

    assert sent[0]["max_tokens"] == 0
    assert "cache_control" in sent[0]["system"][-1]
    assert keys == ["sk-ours", "sk-ours"]
    assert told.document["usage"]["cache_read_input_tokens"] > 1024
    assert 'gateway_warm_requests_total{outcome="ok",reason="start"} 1.0' in page


async def test_a_warm_up_never_shows_in_the_response_cache() -> None:
    warm = [{"upstream": "anthropic", "path": MESSAGES, "body": question("Which?")}]
    async with ProviderSim() as stub:
        upstreams = await configured(stub)
        async with doorway(stub=ProviderSim(), upstreams=upstreams, warm=warm) as door:
            await until(lambda: door.gateway.readiness.status == "ready")
            told = await door.ask(MESSAGES, question("Which?"))

    assert told.cache == "miss"
    assert told.document["content"]


async def test_a_provider_that_is_away_delays_readiness_no_longer_than_allowed() -> None:
    upstreams = {
        "anthropic": {
            "base_url": "http://192.0.2.1/v1",
            "provider": "anthropic",
            "api_key": "sk-ours",
            "connect_timeout_s": 60,
        }
    }
    warm = [{"upstream": "anthropic", "path": MESSAGES, "body": question("Which?")}]
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with doorway(
        upstreams=upstreams, warm=warm, prompt_cache={"warm_timeout_s": 0.3}
    ) as door:
        assert door.gateway.readiness.status == "starting"
        await until(lambda: door.gateway.readiness.status == "ready")
        assert loop.time() - began < 5.0


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("llamacpp", "qwen", {"n_predict": 0}),
        ("vllm", "llama", {"max_tokens": 1}),
        ("openai", "gpt-4.1", {"max_completion_tokens": 1}),
    ],
)
async def test_each_server_is_asked_in_its_own_form(
    provider: str, model: str, expected: dict[str, Any]
) -> None:
    lead = {"role": "system", "content": SYSTEM}
    body: dict[str, Any] = {"model": model, "stream": True}
    body["messages"] = [lead, {"role": "user", "content": "Hi"}]
    async with StubProvider() as stub:
        upstreams = {"own": {"base_url": stub.v1_url, "provider": provider, "api_key": "sk-ours"}}
        warm = [{"upstream": "own", "path": CHAT, "body": body}]
        async with doorway(upstreams=upstreams, warm=warm) as door:
            await until(lambda: door.gateway.readiness.status == "ready")
            asked = {**body, "messages": [lead, {"role": "user", "content": "A"}]}
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{door.gateway.api_url}/u/own{CHAT}", json=asked) as response,
            ):
                assert response.status == 200
        sent = [each.json() for each in stub.received]

    assert sent[0].items() >= expected.items()
    assert "stream" not in sent[0]
    # Those who ask later do so under the same key, if there is one.
    assert sent[0].get("prompt_cache_key") == sent[1].get("prompt_cache_key")
    assert ("prompt_cache_key" in sent[0]) == (provider == "openai")


async def test_with_an_engine_of_ones_own_no_credential_is_made_up() -> None:
    body = {"model": "llama", "messages": [{"role": "user", "content": "Hi"}]}
    async with StubProvider() as stub:
        upstreams = {"own": {"base_url": stub.v1_url, "provider": "vllm"}}
        warm = [{"upstream": "own", "path": CHAT, "body": body}]
        async with doorway(upstreams=upstreams, warm=warm) as door:
            await until(lambda: door.gateway.readiness.status == "ready")
        received = stub.received[0]

    assert received.header("authorization") is None
    assert received.header("x-api-key") is None


def _more_than(stub: StubProvider, calls: int) -> bool:
    return stub.total_calls > calls


class Hands:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_hot_prefix_outlives_its_lifetime_and_the_next_request_reads_it() -> None:
    hands = Hands()
    stub = ProviderSim(clock=hands)
    async with stub:
        sections: dict[str, Any] = {
            "upstreams": await configured(stub),
            "prompt_cache": {"refresh": {"when": "all"}},
        }
        clock = Clock(now=hands, monotonic=hands)
        async with doorway(stub=ProviderSim(), clock=clock, **sections) as door:
            lead = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
            for number in range(4):
                told = await door.ask(MESSAGES, question(f"Which ship, {number}?", system=lead))
                assert told.status == 200
                hands.now += 60.0
            # Each time fifteen seconds before the lifetime's end.
            for calls, pause_s in ((4, 225.0), (5, 285.0)):
                hands.now += pause_s
                door.gateway.wake()
                await until(partial(_more_than, stub, calls))
            hands.now += 100.0
            last = await door.ask(MESSAGES, question("And the last?", system=lead))
            page = await door.metrics()
        refreshes = [each.json() for each in stub.received if b'"max_tokens":0' in each.body]

    assert len(refreshes) == 2
    # Ten minutes after the one before it; an entry lives for five.
    assert last.document["usage"]["cache_read_input_tokens"] > 1024
    assert 'gateway_warm_requests_total{outcome="ok",reason="refresh"} 2.0' in page
    assert "Which ship" not in str(refreshes)
    assert {each.header("x-api-key") for each in stub.received} == {"sk-ours"}
