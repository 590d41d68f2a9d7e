"""A prompt that was warmed is read by the first client that asks with its official SDK and marks
nothing, with each simulated provider's own form of warming.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from gateway.lab.provider_sim import ProviderSim
from tests.helpers.caching import WORDS
from tests.helpers.doorway import CHAT, MESSAGES, RESPONSES
from tests.helpers.gateway_here import gateway_here

if TYPE_CHECKING:
    from collections.abc import Awaitable

SYSTEM = WORDS * 150
DEADLINE_S = 10.0
PLACEHOLDER = "placeholder"

pytestmark = pytest.mark.filterwarnings("ignore:The model 'claude-sonnet-4-5' is deprecated")


def asked(path: str, model: str, question: str) -> dict[str, Any]:
    said = [{"role": "user", "content": question}]
    if path == MESSAGES:
        return {"model": model, "max_tokens": 64, "system": SYSTEM, "messages": said}
    if path == CHAT:
        return {"model": model, "messages": [{"role": "developer", "content": SYSTEM}, *said]}
    lead = {"role": "developer", "content": [{"type": "input_text", "text": SYSTEM}]}
    return {"model": model, "input": [lead, *said]}


async def ask(url: str, path: str, body: dict[str, Any]) -> None:
    if path == MESSAGES:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as claude:
            await claude.messages.create(**body)
        return
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as gpt:
        create = gpt.chat.completions.create if path == CHAT else gpt.responses.create
        answer: Awaitable[Any] = create(**body)
        await answer


FORMS = [
    (MESSAGES, "claude-sonnet-4-5", ("max_tokens", 0)),
    (MESSAGES, "claude-opus-5-5", ("max_tokens", 0)),
    (CHAT, "gpt-6-sol", ("max_completion_tokens", 1)),
    (RESPONSES, "gpt-6-sol", ("prompt_cache_options", {"prewarm": True})),
]


@pytest.mark.parametrize(("path", "model", "form"), FORMS)
async def test_the_first_clients_question_reads_what_was_warmed(
    path: str, model: str, form: tuple[str, Any]
) -> None:
    warmed = asked(path, model, PLACEHOLDER)
    async with ProviderSim() as sim:
        upstreams = {
            name: {"base_url": sim.v1_url, "provider": name, "api_key": "sk-ours"}
            for name in ("openai", "anthropic")
        }
        upstream = "anthropic" if path == MESSAGES else "openai"
        warm = [{"upstream": upstream, "path": path, "body": warmed}]
        async with gateway_here(sim.url, upstreams=upstreams, warm=warm) as gateway:
            async with asyncio.timeout(DEADLINE_S):
                while gateway.readiness.status != "ready":  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0.01)
            await ask(gateway.api_url, path, asked(path, model, "Which ship leaves first?"))
        first, *others = [each.json() for each in sim.received]
        warming, reading = sim.usages

    assert not sim.refused
    assert len(others) == 1
    assert first[form[0]] == form[1]
    wrote = warming.cache_write_5m + warming.cache_write_1h
    assert wrote > 2000
    assert reading.cache_read == pytest.approx(wrote, abs=5)
