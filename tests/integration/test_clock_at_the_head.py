"""The story of a clock at the head of the system prompt, before a simulated provider: nothing is read,
the admin port and the trace say why and what it costs, and what they advise makes reads resume.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import openai
import orjson
import pytest

from gateway.app import RunningGateway, start
from gateway.cache import Clock
from gateway.config import Config
from gateway.lab.provider_sim import ProviderSim
from tests.helpers.caching import WORDS, Time
from tests.helpers.doorway import CHAT, MESSAGES
from tests.helpers.gateway_here import gateway_here, settings
from tests.helpers.otlp_collector import otlp_collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from gateway.core.model import Usage

RULES = WORDS * 150
MODELS = {MESSAGES: "claude-sonnet-4-5", CHAT: "gpt-6-sol"}
FORMS = {"a string": False, "the second of two texts": True}
# `gpt-6-sol` thinks by itself unless it is told not to, but says nothing of it in this API.
REQUESTS = 10

pytestmark = pytest.mark.filterwarnings("ignore:The model 'claude-sonnet-4-5' is deprecated")


def clocked(number: int) -> str:
    """The time at the head, and what is always the same behind it."""
    now = datetime(2026, 11, 22, 10, 0, tzinfo=UTC) + timedelta(seconds=37 * number)
    return f"Current time: {now:%Y-%m-%dT%H:%M:%SZ}\n{RULES}"


def request(path: str, number: int, *, in_list: bool) -> dict[str, Any]:
    """The turn of this number of a conversation, all of whose turns have a clock of their own."""
    held: Any = clocked(number)
    if in_list:
        held = [{"type": "text", "text": text} for text in ("You are helpful.", held)]
    said: list[dict[str, Any]] = [{"role": "user", "content": "Which ship leaves first?"}]
    for past in range(number):
        said += [
            {"role": "assistant", "content": f"Ship {past}. {WORDS * 4}"},
            {"role": "user", "content": f"And after {past}? {WORDS * 4}"},
        ]
    if path == MESSAGES:
        return {"model": MODELS[path], "max_tokens": 64, "system": held, "messages": said}
    lead = {"role": "developer", "content": held}
    return {"model": MODELS[path], "messages": [lead, *said]}


async def talk(gateway: RunningGateway, path: str, time: Time, *, in_list: bool) -> None:
    """A client's conversation with its SDK."""
    async with AsyncExitStack() as stack:
        url, key = gateway.api_url, "sk-1"
        ask: Callable[..., Awaitable[Any]]
        if path == MESSAGES:
            claude = anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0)
            ask = (await stack.enter_async_context(claude)).messages.create
        else:
            gpt = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
            ask = (await stack.enter_async_context(gpt)).chat.completions.create
        for number in range(REQUESTS):
            time.now += 37.0
            await ask(**request(path, number, in_list=in_list))
            await gateway.background.idle()


async def explained(gateway: RunningGateway, path: str, *, in_list: bool) -> Any:
    body = {"route": path, "body": request(path, REQUESTS, in_list=in_list)}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gateway.admin_url}/admin/explain", json=body) as answer,
    ):
        assert answer.status == 200
        return orjson.loads(await answer.read())


@asynccontextmanager
async def provider() -> AsyncIterator[tuple[ProviderSim, Time, Clock]]:
    time = Time()
    async with ProviderSim(clock=time, remember=100) as sim:
        yield sim, time, Clock(now=time, monotonic=time)


def shares(usages: Sequence[Usage]) -> list[float]:
    return [used.cache_read / used.input for used in usages]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", MODELS)
async def test_each_rewrite_that_is_advised_makes_reads_resume(path: str, form: str) -> None:
    in_list = FORMS[form]
    async with provider() as (sim, time, clock):
        async with gateway_here(sim.url, clock, cache={"when": "off"}) as gateway:
            await talk(gateway, path, time, in_list=in_list)
            told = await explained(gateway, path, in_list=in_list)
        (finding,) = told["volatile"]
        behind = finding["tokens_behind"]
        assert max(shares(sim.usages)) < 0.05
        # All of the rules and the conversation, each time.
        assert finding["kind"] == "timestamp"
        lead = "$.system" if path == MESSAGES else "$.messages[0].content"
        assert finding["path"] == (f"{lead}[1].text" if in_list else lead)
        assert (finding["requests_seen"], finding["changes_seen"]) == (REQUESTS, REQUESTS - 1)
        assert behind > len(RULES) / 5
        per_day = finding["requests_per_day"]
        assert finding["tokens_lost_per_day"] > 0.5 * per_day * len(RULES) / 4
        assert finding["rewrites"] == ["round-time", "move-volatile"]

        for rewrite in finding["rewrites"]:
            sim.usages.clear()
            time.now += 7200.0
            sections: dict[str, Any] = {
                "cache": {"when": "off"},
                "prompt_cache": {"rewrites": [rewrite]},
            }
            async with gateway_here(sim.url, clock, **sections) as gateway:
                await talk(gateway, path, time, in_list=in_list)
                told = await explained(gateway, path, in_list=in_list)
            read = shares(sim.usages)
            print(f"{path}, {form}, {rewrite}:", *(f"{each:.0%}" for each in read))
            assert not sim.refused
            assert read[0] < 0.05
            assert min(read[2:]) > 0.8
            assert all(each["rewritten_already"] for each in told["volatile"])
            assert not any(each["tokens_lost_per_day"] for each in told["volatile"])


@pytest.mark.parametrize("path", MODELS)
async def test_the_trace_of_each_request_names_the_clock_and_what_it_costs(path: str) -> None:
    async with provider() as (sim, time, clock), otlp_collector() as collector:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        tree = settings(sim.url, telemetry={"traces": "on"}, cache={"when": "off"})
        gateway = await start(Config.model_validate(tree), environ, clock)
        try:
            await talk(gateway, path, time, in_list=False)
            told = await explained(gateway, path, in_list=False)
            await collector.wait_for(lambda c: len(c.named(f"POST {path}")) == REQUESTS)
        finally:
            await gateway.stop()
    (finding,) = told["volatile"]
    *_, last = collector.named(f"POST {path}")
    said = {
        name.removeprefix("gateway.prompt.volatile."): value
        for name, value in last.attributes.items()
        if name.startswith("gateway.prompt.volatile.")
    }
    assert said["path"] == finding["path"]
    assert said["kind"] == finding["kind"] == "timestamp"
    assert said["lost.tokens_per_day"] == pytest.approx(finding["tokens_lost_per_day"], rel=0.2)
    assert "2026-11-22T10" not in repr(collector.spans)
