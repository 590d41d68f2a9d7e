"""What users of other routers complain of, asked of this one over HTTP: a gateway, and engines that say
themselves who answered. Each name says what must not happen again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.engine_pool import chat, pool, until, words

if TYPE_CHECKING:
    from collections.abc import Callable

CHEAPEST = {"new_break_s": 0, "prefill_tokens_per_s": 5000}
"""New conversations go where it costs least, as they do where no other gateway places any."""


# --- 3 and 4: load that is counted late, or not at all --------------------------------------------


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
async def test_complaint_03_a_burst_of_slow_prompts_with_one_token_of_answer_goes_to_all_engines(
    engine: str,
) -> None:
    """sglang#27547, smg#1714: load counted after the response's head, all went to worker 0."""
    async with pool(engine=engine, prefill_rate=5000.0, routing=CHEAPEST) as here:
        answers = await asyncio.gather(
            *(
                here.ask(chat(words(f"burst{i}x", 500), max_tokens=1, stream=i % 2 == 0))
                for i in range(16)
            )
        )

    shares = Counter(each.engine for each in answers)
    assert len(shares) == 4
    assert max(shares.values()) <= 6


@pytest.mark.parametrize(
    "path", ["chat/completions", "completions", "responses"], ids=["chat", "text", "responses"]
)
async def test_complaint_04_load_counts_whatever_api_is_asked(path: str) -> None:
    """sglang#15473: one of two protocols knew no load, and all of it went to the first worker."""
    bodies: dict[str, Callable[[str], dict[str, Any]]] = {
        "chat/completions": chat,
        "completions": lambda text: {"model": "simulated", "prompt": text, "max_tokens": 1},
        "responses": lambda text: {"model": "simulated", "input": text, "max_output_tokens": 1},
    }
    async with pool(prefill_rate=5000.0, routing=CHEAPEST) as here:
        answers = await asyncio.gather(
            *(here.ask(bodies[path](words(f"mine{i}x", 500)), path) for i in range(16))
        )

    shares = Counter(each.engine for each in answers)
    assert len(shares) == 4
    assert max(shares.values()) <= 6


# --- 7: probes that reset what is in flight -------------------------------------------------------


async def test_complaint_07_probes_leave_alone_what_is_in_flight() -> None:
    """vllm router#197: each health check reset the counters that the choice went by."""
    async with pool(2, decode_s=0.05) as here:
        long = asyncio.ensure_future(here.ask(chat("A long one?", max_tokens=40, stream=True)))
        await until(lambda: any(each.work.running for each in here.engines))
        busy = next(each for each in here.engines if each.work.running)
        seen = busy.calls["/health"]
        await until(lambda: busy.calls["/health"] >= seen + 6)
        during = {name: each["in_flight"] for name, each in (await here.backends()).items()}
        await long
        after = {name: each["in_flight"] for name, each in (await here.backends()).items()}

    assert during == {each.name: int(each is busy) for each in here.engines}
    assert set(after.values()) == {0}


# --- 24: an engine that forgot everything ---------------------------------------------------------


async def test_complaint_24_an_engine_that_cleared_its_cache_is_no_longer_thought_to_hold_it() -> (
    None
):
    """aibrix#2287: the index went on routing to what was gone."""
    async with pool(2) as here:
        head = words("head", 3000)
        first = [await here.ask(chat(f"Question {i}?", system=head)) for i in range(3)]
        home = first[-1].engine
        engine = next(each for each in here.engines if each.name == home)
        engine.reset_cache()
        corrected = await here.ask(chat("Question 2?", first[-1].text, "And?", system=head))
        thought = await here.gauge("gateway_route_mirror", home)
        again = await here.ask(
            chat("Question 2?", first[-1].text, "And?", corrected.text, "So?", system=head)
        )

    assert corrected.cached == 0
    assert corrected.engine == home
    # What it computed since is all that it is thought to hold.
    assert thought <= 1.1 * engine.work.cache.tokens
    assert again.engine == home
    assert again.cached > 2500


# --- 28 and 29: sessions --------------------------------------------------------------------------


async def test_complaint_28_all_calls_of_a_session_go_to_one_engine_whatever_they_ask() -> None:
    """litellm#38078: the same session id, and every call went elsewhere."""
    async with pool() as here:
        answers = [
            await here.ask(chat(words(f"call{i}x", 300)), **{"x-session-id": "s1"})
            for i in range(12)
        ]

    assert len({each.engine for each in answers}) == 1
    assert [each.branch for each in answers] == ["new", *["home"] * 11]


async def test_complaint_28_two_credentials_with_the_same_session_id_share_no_home() -> None:
    """litellm#36146: one pin for two API keys."""
    async with pool() as here:
        mine = [await here.ask(chat(f"{i}?"), **{"x-session-id": "s1"}) for i in range(2)]
        other = {"x-session-id": "s1", "authorization": "Bearer sk-two"}
        theirs = [await here.ask(chat(words(f"their{i}x", 200)), **other) for i in range(2)]

    assert [each.branch for each in mine] == ["new", "home"]
    assert [each.branch for each in theirs] == ["new", "home"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_complaint_29_a_conversation_without_any_session_hint_stays_where_it_is(
    streamed: bool,
) -> None:
    """nanobot#1645, QwenPaw#882: agents send no hint, and every framework patches in its own."""
    async with pool() as here:
        system = words("shared", 800)
        conversations = [[words(f"start{c}x", 400)] for c in range(8)]
        engines: list[list[str]] = [[] for _ in conversations]
        branches: list[Counter[str]] = [Counter() for _ in range(4)]
        for turn in range(4):
            for number, said in enumerate(conversations):
                answer = await here.ask(chat(*said, system=system, stream=streamed))
                engines[number].append(answer.engine)
                branches[turn][answer.branch] += 1
                spoken = f"Answer {turn}." if streamed else answer.text
                said += [spoken, f"Question {turn} of {number}?"]

    assert all(len(set(each)) == 1 for each in engines)
    assert [each["extended"] for each in branches[1:]] == [8, 8, 8]
    assert len({each[0] for each in engines}) == 4


# --- 30: llama.cpp's slots ------------------------------------------------------------------------


async def test_complaint_30_eleven_prompts_in_turn_find_their_slots_again() -> None:
    """llama.cpp#13606: 10 slots and 11 prompts in turn never hit. Two of 10 have room for all."""
    prompts = [words(f"agent{i}x", 600) for i in range(11)]
    async with pool(2, engine="llamacpp", slots=10, cache_tokens=20_000) as here:
        said = [[await here.ask(chat(p, f"{k}", "?")) for p in prompts] for k in range(3)]

    assert all(each.cached > 500 for each in [*said[1], *said[2]])


@pytest.mark.parametrize("pinned", [False, True])
async def test_complaint_30_pinned_slots_keep_conversations_with_one_system_prompt_apart(
    pinned: bool,
) -> None:
    """llama.cpp#22083: a slot taken at 10 % similarity overwrites one that held more."""
    system = words("shared", 400)
    async with pool(
        1,
        engine="llamacpp",
        slots=4,
        cache_tokens=20_000,
        routing={"pin_slots": pinned},
        metrics_interval_s=0.1,
    ) as here:
        # Read once, and by the next round what it said is known.
        calls = here.engines[0].calls
        await until(lambda: calls["/slots"] > 0 and calls["/metrics"] > 1)
        conversations = [[words(f"own{c}x", 1200)] for c in range(4)]
        cached: list[int] = []
        for turn in range(3):
            for number, said in enumerate(conversations):
                answer = await here.ask(chat(*said, system=system))
                said += [answer.text, f"Question {turn} of {number}?"]
                if turn:
                    cached.append(answer.cached)

    # Unpinned, the engine puts them all where a quarter of the prompt is the same.
    assert min(cached) > 1500 if pinned else max(cached) < 500
