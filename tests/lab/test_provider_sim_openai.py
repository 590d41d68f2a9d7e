"""The simulated OpenAI, asked by the official SDK: breakpoints, implicit and automatic caching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

from gateway.lab.provider_sim import ProviderSim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openai.types.chat.completion_create_params import PromptCacheOptions

NEW = "gpt-6-sol"
OLD = "gpt-5.1"
LONG = "The house rules, word by word. " * 200
"""1,550 tokens, more than the minimum of 1,024."""
MARK: Any = {"mode": "explicit"}
EXPLICIT: PromptCacheOptions = {"mode": "explicit"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sim(clock: Clock) -> AsyncIterator[ProviderSim]:
    async with ProviderSim(provider="openai", clock=clock) as running:
        yield running


@pytest.fixture
async def client(sim: ProviderSim) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=sim.v1_url, api_key="a", max_retries=0) as made:
        yield made


def ask(question: str = "One?", *, marked: bool = False, **more: Any) -> Any:
    part = {"type": "text", "text": LONG}
    if marked:
        part["prompt_cache_breakpoint"] = MARK
    messages = [{"role": "developer", "content": [part]}, {"role": "user", "content": question}]
    return {"model": NEW, "messages": messages, **more}


def told(usage: Any) -> tuple[int, int, int | None]:
    """All of the prompt, read, written; nothing for the latter where writes are not billed."""
    details = usage.prompt_tokens_details
    return usage.prompt_tokens, details.cached_tokens, details.cache_write_tokens


async def test_without_a_mark_a_changed_tail_reads_the_end_of_the_first_messages_only(
    client: openai.AsyncOpenAI,
) -> None:
    first = await client.chat.completions.create(**ask("One?"))
    same = await client.chat.completions.create(**ask("One?"))
    other = await client.chat.completions.create(**ask("Two?"))

    assert told(first.usage) == (1551, 0, 1551)
    assert told(same.usage) == (1551, 1551, 0)
    # Nothing was written at the end of the developer message: no fallback to part of a prefix.
    assert told(other.usage) == (1551, 0, 1551)


async def test_a_mark_on_what_is_shared_is_read_behind_any_tail(
    client: openai.AsyncOpenAI, clock: Clock
) -> None:
    one = ask("One?", marked=True, prompt_cache_options=EXPLICIT)
    two = ask("Two?", marked=True, prompt_cache_options=EXPLICIT)
    first = await client.chat.completions.create(**one)
    clock.now += 1799
    other = await client.chat.completions.create(**two)
    clock.now += 1801
    late = await client.chat.completions.create(**two)

    assert [told(each.usage) for each in (first, other, late)] == [
        (1551, 0, 1550),
        (1551, 1550, 0),
        (1551, 0, 1550),
    ]


async def test_explicit_mode_without_a_mark_caches_nothing(client: openai.AsyncOpenAI) -> None:
    asked = ask(prompt_cache_options=EXPLICIT)
    await client.chat.completions.create(**asked)
    again = await client.chat.completions.create(**asked)

    assert told(again.usage) == (1551, 0, 0)


async def test_marks_beyond_four_are_dropped_without_a_word(
    sim: ProviderSim, client: openai.AsyncOpenAI
) -> None:
    parts = [{"type": "text", "text": LONG, "prompt_cache_breakpoint": MARK} for _ in range(6)]
    asked: Any = {"model": NEW, "messages": [{"role": "user", "content": parts}]}
    await client.chat.completions.create(**asked, prompt_cache_options=EXPLICIT)
    asked["messages"][0]["content"] = parts[:2]
    early = await client.chat.completions.create(**asked, prompt_cache_options=EXPLICIT)

    assert told(early.usage)[1] == 0
    assert not sim.refused


async def test_another_key_is_another_cache(client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(**ask(prompt_cache_key="one"))
    other = await client.chat.completions.create(**ask(prompt_cache_key="two"))
    same = await client.chat.completions.create(**ask(prompt_cache_key="one"))

    assert (told(other.usage)[1], told(same.usage)[1]) == (0, 1551)


async def test_a_stream_tells_its_usage_only_when_asked(client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(**ask())
    options = {"include_usage": True}
    told_of = await client.chat.completions.create(**ask(stream=True, stream_options=options))
    last = [chunk async for chunk in told_of][-1]
    silent = await client.chat.completions.create(**ask(stream=True))

    assert told(last.usage) == (1551, 1551, 0)
    assert [chunk.usage async for chunk in silent if chunk.usage] == []


async def test_an_older_model_caches_by_itself_in_steps_of_128_and_bills_no_write(
    client: openai.AsyncOpenAI,
) -> None:
    first = await client.chat.completions.create(**{**ask("One?"), "model": OLD})
    other = await client.chat.completions.create(**{**ask("Two?"), "model": OLD})

    assert told(first.usage) == (1551, 0, None)
    assert told(other.usage) == (1551, 1536, None)


async def test_more_than_fifteen_a_minute_meet_a_cold_machine(
    client: openai.AsyncOpenAI, clock: Clock
) -> None:
    asked = {**ask(prompt_cache_key="busy"), "model": OLD}
    answers = [await client.chat.completions.create(**asked) for _ in range(16)]
    clock.now += 60
    later = await client.chat.completions.create(**asked)
    read = [told(each.usage)[1] for each in answers]

    assert read == [0, *[1536] * 14, 0]
    assert told(later.usage)[1] == 1536


@pytest.mark.parametrize("stream", [False, True])
async def test_responses_tell_both_counts_and_can_be_warmed(
    client: openai.AsyncOpenAI, stream: bool
) -> None:
    marked = {"type": "input_text", "text": LONG, "prompt_cache_breakpoint": MARK}
    asked: Any = {
        "model": NEW,
        "input": [
            {"role": "developer", "content": [marked]},
            {"role": "user", "content": "One?"},
        ],
    }
    warmed = await client.responses.create(
        **asked, extra_body={"prompt_cache_options": {"mode": "explicit", "prewarm": True}}
    )
    options = {"prompt_cache_options": {"mode": "explicit"}}
    if stream:
        events = await client.responses.create(**asked, stream=True, extra_body=options)
        used = [event async for event in events][-1].response
    else:
        used = await client.responses.create(**asked, extra_body=options)

    assert warmed.output == []
    assert warmed.usage is not None
    assert used.usage is not None
    assert warmed.usage.input_tokens_details.model_dump(exclude_none=True) == {
        "cache_write_tokens": 1550,
        "cached_tokens": 0,
    }
    assert (used.usage.input_tokens, used.usage.input_tokens_details.cached_tokens) == (1551, 1550)
    assert used.output


async def test_another_providers_path_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.post("/messages", body={}, cast_to=object)
