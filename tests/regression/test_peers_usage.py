"""Items 21 to 24 of the peer survey, what users report: usage and cost, on hits and on misses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core import usage as tokens
from gateway.core.model import Usage
from tests.helpers.doorway import CHAT, EMBEDDINGS, MESSAGES, Canned, chat, doorway
from tests.helpers.openai_chat import choice, document

if TYPE_CHECKING:
    from tests.helpers.doorway import Doorway

OPENAI_USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 900},
}
ANTHROPIC_USAGE = {
    "input_tokens": 40,
    "cache_read_input_tokens": 900,
    "cache_creation_input_tokens": 60,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 50},
    "output_tokens": 50,
}
MESSAGE = {
    "id": "msg_01Aa1b2c3d4e5f6a",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5",
    "content": [{"type": "text", "text": "Yes."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": ANTHROPIC_USAGE,
}
BY_API: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    CHAT: (chat(), document(choice({"content": "Yes."}), usage=OPENAI_USAGE)),
    MESSAGES: ({**chat(max_tokens=99), "model": "claude-haiku-5-5"}, MESSAGE),
}


async def counted(door: Doorway, name: str, **labels: str) -> float:
    """The sum of a counter's lines with these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        float(line.rpartition(" ")[2])
        for line in (await door.metrics()).splitlines()
        if re.match(rf"{name}\{{", line) and all(each in line for each in wanted)
    )


@pytest.mark.parametrize("path", BY_API)
async def test_item_21_a_hit_states_the_usage_of_the_answer(path: str) -> None:
    """21, tensorzero#5267, #1791: hits reported no tokens, or none that were cached."""
    body, answer = BY_API[path]
    async with doorway(stub=Canned(answer)) as door:
        assert await door.caches(path, body, body) == ["miss", "hit"]
        assert (await door.ask(path, body)).document["usage"] == answer["usage"]
    inputs = {"model": "text-embedding-3-small", "input": ["one", "two"]}
    async with doorway() as door:
        first = (await door.ask(EMBEDDINGS, inputs)).document
        again = await door.ask(EMBEDDINGS, inputs)
        assert again.cache == "hit"
        # The very batch was paid for once, and says what it cost then.
        assert again.document["usage"] == first["usage"]


async def test_item_22_a_hit_says_that_it_is_one_and_costs_are_counted_apart() -> None:
    """22, litellm#14749, #8570: hits were billed like calls, and no header told of the hit."""
    body, answer = BY_API[CHAT]
    spent = "gen_ai_client_inference_usage_input_tokens_total"
    saved = "gateway_cache_saved_tokens_total"
    async with doorway(stub=Canned(answer)) as door:
        await door.ask(CHAT, body)
        assert (await counted(door, spent), await counted(door, saved)) == (1000, 0)
        for hits in (1, 2):
            told = await door.ask(CHAT, body)
            assert told.cache == "hit"
            assert re.fullmatch(r"gateway; hit; ttl=\d+", told.headers["cache-status"])
            assert told.headers["age"].isdigit()
            assert told.headers["x-gateway-request-id"].startswith("gw_")
            assert await counted(door, spent) == 1000
            assert await counted(door, saved, direction="input") == 1000 * hits
            assert await counted(door, saved, direction="output") == 50 * hits


def test_item_23_cached_tokens_are_in_one_bucket_and_no_other() -> None:
    """23, langwatch#7018: what was read from the provider's cache was billed twice, 11 times over."""
    openai = tokens.from_openai(OPENAI_USAGE)
    assert openai == Usage(uncached_input=100, cache_read=900, output=50)
    assert openai.input == 1000
    anthropic = tokens.from_anthropic(ANTHROPIC_USAGE)
    assert anthropic == Usage(
        uncached_input=40, cache_read=900, cache_write_5m=10, cache_write_1h=50, output=50
    )
    assert anthropic.input == 1000


@pytest.mark.parametrize("path", BY_API)
async def test_item_24_the_metrics_count_each_prompt_token_once(path: str) -> None:
    """24, llmgateway#1857, aider#5516, browser-use#5305, opencrabs#1636: the same double count. The
    prompt is all of it, in either API's way to count; the cached part is told beside, not on top.
    """
    body, answer = BY_API[path]
    async with doorway(stub=Canned(answer)) as door:
        await door.ask(path, body)
        name = "gen_ai_client_inference_usage_{}_tokens_total"
        assert await counted(door, name.format("input")) == 1000
        assert await counted(door, name.format("output")) == 50
        assert await counted(door, name.format("cache_read_input")) == 900
        written = 60 if path == MESSAGES else 0
        assert await counted(door, name.format("cache_write_input")) == written
