"""R1 to R9: what the peer survey saw in other gateways when it ran them. None of it happens here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.helpers.doorway import CHAT, chat, doorway


@pytest.mark.parametrize("provider", ["vllm", "openai", "unknown"])
async def test_r1_a_parameter_that_no_table_knows_is_never_answered_with_the_base_answer(
    provider: str,
) -> None:
    """R1: `guided_json`, `chat_template_kwargs`, `min_p`, `repetition_penalty` were not in the key."""
    variants = [
        chat(),
        chat(guided_json={"type": "object"}),
        chat(chat_template_kwargs={"enable_thinking": False}),
        chat(min_p=0.1),
        chat(repetition_penalty=1.1),
        chat(min_p=0.1, repetition_penalty=1.1),
    ]
    async with doorway(provider) as door:
        assert set(await door.caches(CHAT, *variants)) == {"miss"}
        assert set(await door.caches(CHAT, *variants)) == {"hit"}
        texts = [
            (await door.ask(CHAT, each)).document["choices"][0]["message"]["content"]
            for each in variants
        ]
        assert len(set(texts)) == len(variants)


async def test_r2_no_member_of_a_body_and_no_unknown_header_is_left_out_of_the_key() -> None:
    """R2: `extra_body`, `extra_headers`, `structured_outputs`, `top_a`, `provider`, `api_base` and
    `metadata` were ignored.
    """
    members: dict[str, Any] = {
        "extra_body": {"a": 1},
        "extra_headers": {"x": "1"},
        "structured_outputs": {"json": {}},
        "top_a": 0.5,
        "provider": {"order": ["a"]},
        "api_base": "http://elsewhere.test",
        "metadata": {"a": "b"},
        "response_format": {"type": "json_object"},
        "top_k": 3,
        "thinking": {"type": "enabled"},
        "n": 2,
        "system": "s",
    }
    variants = [chat(), *(chat(**{name: value}) for name, value in members.items())]
    async with doorway("unknown") as door:
        assert await door.caches(CHAT, *variants) == ["miss"] * len(variants)
        assert await door.caches(CHAT, *variants) == ["hit"] * len(variants)
        assert (await door.ask(CHAT, chat(), x_new_switch="1")).cache == "miss"
        assert (await door.ask(CHAT, chat(), x_new_switch="2")).cache == "miss"
        assert (await door.ask(f"{CHAT}?api-version=2", chat())).cache == "miss"


async def test_r3_spellings_of_one_request_share_their_answer() -> None:
    """R3: member order, `0` and `0.0`, a string and its one text part, and `user` all missed."""
    text = "hi"
    part = [{"type": "text", "text": text}]
    asked = [
        chat(text, temperature=0),
        {"temperature": 0, **chat(text)},
        chat(text, temperature=0.0),
        {**chat(temperature=0), "messages": [{"content": text, "role": "user"}]},
        {**chat(temperature=0), "messages": [{"role": "user", "content": part}]},
        chat(text, temperature=0, user="u-1"),
        chat(text, temperature=0, stream=False),
        chat(text, temperature=0, n=1),
    ]
    async with doorway() as door:
        assert await door.caches(CHAT, *asked) == ["miss"] + ["hit"] * (len(asked) - 1)
        assert door.calls == 1


@pytest.mark.parametrize("length", [5, 41])
async def test_r4_a_long_conversation_is_cached_like_a_short_one(length: int) -> None:
    """R4: requests of more than four messages were never cached."""
    messages = [
        {"role": "assistant" if n % 2 else "user", "content": f"turn {n}"} for n in range(length)
    ]
    async with doorway() as door:
        body = {"model": "gpt-4o", "messages": messages}
        assert await door.caches(CHAT, body, body) == ["miss", "hit"]


async def test_r5_cache_control_of_the_request_is_obeyed() -> None:
    """R5: `Cache-Control: no-cache` was served a hit anyway."""
    async with doorway() as door:
        await door.ask(CHAT, chat())
        assert (await door.ask(CHAT, chat())).cache == "hit"
        told = await door.ask(CHAT, chat(), cache_control="no-cache")
        assert (told.cache, door.calls) == ("miss", 2)
        assert "fwd=request" in told.headers["cache-status"]
        assert (await door.ask(CHAT, chat("x"), cache_control="no-store")).cache == "miss"
        assert (await door.ask(CHAT, chat("x"))).cache == "miss"


async def test_r6_a_stream_is_replayed_chunk_by_chunk_with_a_fresh_id_and_marked_as_a_hit() -> None:
    """R6: three chunks collapsed into one, with the original's id, and no header said so."""
    async with doorway() as door:
        first = await door.ask(CHAT, chat(stream=True))
        again = await door.ask(CHAT, chat(stream=True))
        assert [first.cache, again.cache] == ["miss", "hit"]
        assert again.headers["cache-status"].startswith("gateway; hit")
        deltas = [
            [choice["delta"] for event in told.events for choice in event["choices"]]
            for told in (first, again)
        ]
        assert deltas[0] == deltas[1]
        assert len(deltas[0]) > 3
        ids = [{event["id"] for event in told.events} for told in (first, again)]
        assert [len(each) for each in ids] == [1, 1]
        assert ids[0] != ids[1]


async def test_r7_concurrent_identical_requests_all_get_one_meaning_and_leave_one_entry() -> None:
    """R7: ten at once made five calls. What holds already: nobody's answer is mixed or lost."""
    async with doorway() as door:
        told = await asyncio.gather(*(door.ask(CHAT, chat(temperature=0)) for _ in range(10)))
        assert {each.status for each in told} == {200}
        texts = {each.document["choices"][0]["message"]["content"] for each in told}
        assert len(texts) == 1
        before = door.calls
        assert (await door.ask(CHAT, chat(temperature=0))).cache == "hit"
        assert door.calls == before


async def test_r7_concurrent_identical_requests_make_one_call() -> None:
    """R7: ten at once made five calls."""
    async with doorway() as door:
        door.stub.latency_s = 0.2
        await asyncio.gather(*(door.ask(CHAT, chat(temperature=0)) for _ in range(10)))
        assert door.calls == 1


async def test_r8_whoever_wants_only_deterministic_requests_cached_can_say_so() -> None:
    """R8: `temperature: 1.2` was cached like 0, and nothing could be done about it."""
    async with doorway(cache={"when": "deterministic"}) as door:
        assert await door.caches(CHAT, chat(temperature=1.2), chat(temperature=1.2)) == ["pass"] * 2
        assert await door.caches(CHAT, chat(), chat()) == ["pass"] * 2
        assert await door.caches(CHAT, chat(temperature=0), chat(temperature=0)) == ["miss", "hit"]
        assert await door.caches(CHAT, chat(seed=1), chat(seed=1)) == ["miss", "hit"]
    # And whoever wants variety kept gets several answers before one comes again.
    async with doorway(cache={"samples": 3}) as door:
        assert await door.caches(CHAT, *[chat(temperature=1.2)] * 4) == ["miss"] * 3 + ["hit"]


async def test_r9_the_header_tells_what_the_cache_did_and_the_config_turns_it_off() -> None:
    """R9: the status was always DISABLED, and the switch was compiled in."""
    async with doorway() as door:
        assert await door.caches(CHAT, chat(), chat()) == ["miss", "hit"]
    async with doorway(cache={"when": "off"}) as door:
        told = [await door.ask(CHAT, chat()) for _ in range(2)]
        assert [each.cache for each in told] == ["pass", "pass"]
        assert all("detail=cache-off" in each.headers["cache-status"] for each in told)
