"""Token counts of both providers in four exclusive buckets."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Usage
from gateway.core.usage import (
    from_anthropic,
    from_converse,
    from_gemini,
    from_openai,
    from_responses,
)

OPENAI: dict[str, tuple[Any, Usage | None]] = {
    "without details": (
        {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
        Usage(uncached_input=11, output=3),
    ),
    "cached tokens are part of the prompt": (
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
        },
        Usage(uncached_input=86, cache_read=1920, output=300),
    ),
    "so are written ones": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 50},
        },
        Usage(uncached_input=20, cache_read=30, cache_write_5m=50, output=1),
    ),
    "details that are null": (
        {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": None},
        Usage(uncached_input=5, output=1),
    ),
    "no more was cached than there is": (
        {
            "prompt_tokens": 5,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 9},
        },
        Usage(cache_read=5, output=1),
    ),
    "nor written than is left": (
        {
            "prompt_tokens": 5,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 9},
        },
        Usage(cache_read=3, cache_write_5m=2, output=1),
    ),
    "parts below zero, null, text or beyond any prompt are not there": (
        {
            "prompt_tokens": 5,
            "completion_tokens": 1,
            "prompt_tokens_details": {
                "cached_tokens": -3,
                "cache_write_tokens": None,
                "cache_creation_tokens": "4",
                "cache_creation_input_tokens": 2**63,
            },
        },
        Usage(uncached_input=5, output=1),
    ),
    "a prompt beyond any prompt": ({"prompt_tokens": 2**41, "completion_tokens": 1}, None),
    "thoughts inside of the answer": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 7,
            "total_tokens": 17,
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
        Usage(uncached_input=10, output=7),
    ),
    "thoughts beside the answer, at xAI": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 7,
            "total_tokens": 22,
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
        Usage(uncached_input=10, output=12),
    ),
    "nothing": (None, None),
    "no prompt": ({"completion_tokens": 1}, None),
    "no output": ({"prompt_tokens": 1}, None),
    "a count that is text": ({"prompt_tokens": "1", "completion_tokens": 1}, None),
    "a count below zero": ({"prompt_tokens": -1, "completion_tokens": 1}, None),
    "a count that is a truth value": ({"prompt_tokens": True, "completion_tokens": 1}, None),
}

ANTHROPIC: dict[str, tuple[Any, Usage | None]] = {
    "without a cache": (
        {"input_tokens": 11, "output_tokens": 3},
        Usage(uncached_input=11, output=3),
    ),
    "what was read and written comes on top": (
        {
            "input_tokens": 50,
            "cache_creation_input_tokens": 456,
            "cache_read_input_tokens": 18000,
            "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 393,
        },
        Usage(uncached_input=50, cache_read=18000, cache_write_5m=456, output=393),
    ),
    "writes for five minutes and for an hour": (
        {
            "input_tokens": 1,
            "cache_creation_input_tokens": 300,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            "output_tokens": 1,
        },
        Usage(uncached_input=1, cache_write_5m=100, cache_write_1h=200, output=1),
    ),
    "writes that are not split are of the default, five minutes": (
        {"input_tokens": 1, "cache_creation_input_tokens": 300, "output_tokens": 1},
        Usage(uncached_input=1, cache_write_5m=300, output=1),
    ),
    "a split that says more than the total": (
        {
            "input_tokens": 1,
            "cache_creation_input_tokens": 10,
            "cache_creation": {"ephemeral_1h_input_tokens": 99},
            "output_tokens": 1,
        },
        Usage(uncached_input=1, cache_write_1h=10, output=1),
    ),
    "counts that are null": (
        {
            "input_tokens": 4,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
            "cache_creation": None,
            "output_tokens": 2,
        },
        Usage(uncached_input=4, output=2),
    ),
    "nothing": (None, None),
    "a list": ([], None),
    "no input": ({"output_tokens": 1}, None),
    "no output": ({"input_tokens": 1}, None),
    "a count with a fraction": ({"input_tokens": 1.5, "output_tokens": 1}, None),
}


@pytest.mark.parametrize(("stated", "expected"), OPENAI.values(), ids=OPENAI)
def test_openai_counts_inclusively(stated: Any, expected: Usage | None) -> None:
    assert expected == from_openai(stated)


# Who speaks OpenAI's chat format, and states what was cached in a way of its own.
OTHERS: dict[str, tuple[Any, Usage | None]] = {
    "DeepSeek": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "total_tokens": 105,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
        },
        Usage(uncached_input=36, cache_read=64, output=5),
    ),
    "DeepSeek, which states the same in both ways": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 64},
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
        },
        Usage(uncached_input=36, cache_read=64, output=5),
    ),
    "Qwen, nested": (
        {
            "prompt_tokens": 1544,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 1494},
        },
        Usage(uncached_input=50, cache_write_5m=1494, output=5),
    ),
    "Qwen, not nested": (
        {
            "prompt_tokens": 1544,
            "completion_tokens": 5,
            "cache_creation_input_tokens": 1494,
            "prompt_tokens_details": {"cached_tokens": 10},
        },
        Usage(uncached_input=40, cache_read=10, cache_write_5m=1494, output=5),
    ),
    "by lifetime, the sum left out": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "prompt_tokens_details": {
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 30,
                    "ephemeral_1h_input_tokens": 50,
                },
            },
        },
        Usage(uncached_input=20, cache_write_5m=30, cache_write_1h=50, output=5),
    ),
    "Moonshot, beside the details": (
        {"prompt_tokens": 100, "completion_tokens": 5, "cached_tokens": 80},
        Usage(uncached_input=20, cache_read=80, output=5),
    ),
    "LiteLLM": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_creation_tokens": 30},
        },
        Usage(uncached_input=10, cache_read=60, cache_write_5m=30, output=5),
    ),
}


@pytest.mark.parametrize(("stated", "expected"), OTHERS.values(), ids=OTHERS)
def test_others_state_what_was_cached_under_names_of_their_own(
    stated: Any, expected: Usage | None
) -> None:
    assert expected == from_openai(stated)


PLAIN = {"prompt_tokens": 30, "completion_tokens": 5}
CACHED = {**PLAIN, "prompt_tokens_details": {"cached_tokens": 20}}
TIMINGS: dict[str, tuple[Any, Any, Usage | None]] = {
    "instead of usage": (
        None,
        {"cache_n": 20, "prompt_n": 10, "predicted_n": 5, "prompt_ms": 1.5},
        Usage(uncached_input=10, cache_read=20, output=5),
    ),
    "beside a usage that says nothing of the cache": (
        PLAIN,
        {"cache_n": 20, "prompt_n": 10, "predicted_n": 5},
        Usage(uncached_input=10, cache_read=20, output=5),
    ),
    "beside a usage that does": (
        CACHED,
        {"cache_n": 20, "prompt_n": 10, "predicted_n": 5},
        Usage(uncached_input=10, cache_read=20, output=5),
    ),
    "of another prompt than the usage": (
        PLAIN,
        {"cache_n": 2000, "prompt_n": 10, "predicted_n": 5},
        Usage(uncached_input=30, output=5),
    ),
    "without a cache": (
        None,
        {"prompt_n": 10, "predicted_n": 5},
        Usage(uncached_input=10, output=5),
    ),
    "without a prompt": (None, {"cache_n": 20, "predicted_n": 5}, None),
    "below zero": (None, {"cache_n": -1, "prompt_n": -2, "predicted_n": 5}, None),
    "a list": (None, [1], None),
}


@pytest.mark.parametrize(("stated", "timings", "expected"), TIMINGS.values(), ids=TIMINGS)
def test_llama_cpp_tells_its_cache_in_the_timings(
    stated: Any, timings: Any, expected: Usage | None
) -> None:
    assert expected == from_openai(stated, timings)


RESPONSES_NAMES = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "prompt_tokens_details": "input_tokens_details",
    "completion_tokens_details": "output_tokens_details",
}


@pytest.mark.parametrize(("stated", "expected"), OPENAI.values(), ids=OPENAI)
def test_responses_count_like_chat_under_other_names(stated: Any, expected: Usage | None) -> None:
    named = stated and {RESPONSES_NAMES.get(name, name): n for name, n in stated.items()}

    assert expected == from_responses(named)


@pytest.mark.parametrize(("stated", "expected"), ANTHROPIC.values(), ids=ANTHROPIC)
def test_anthropic_counts_exclusively(stated: Any, expected: Usage | None) -> None:
    assert expected == from_anthropic(stated)


def prompt(uncached: Any, written: Any = None, read: Any = None, **others: Any) -> dict[str, Any]:
    return {
        "input_tokens": uncached,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        **others,
    }


HOUR = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 456}

STREAMS: dict[str, tuple[list[Any], Usage | None]] = {
    "the end restates what the start said": (
        [
            prompt(50, 456, 18000, output_tokens=1, cache_creation=HOUR),
            prompt(50, 456, 18000, output_tokens=393),
        ],
        Usage(50, 18000, 0, 456, 393),
    ),
    "the end states the answer alone": (
        [prompt(50, 456, 18000, output_tokens=1, cache_creation=HOUR), {"output_tokens": 393}],
        Usage(50, 18000, 0, 456, 393),
    ),
    "server tools made the prompt longer": (
        [
            prompt(50, 456, 18000, output_tokens=1, cache_creation=HOUR),
            prompt(2679, 700, 19000, output_tokens=510),
        ],
        Usage(2679, 19000, 244, 456, 510),
    ),
    "an end of zeros takes nothing back": (
        [prompt(50, 0, 18000, output_tokens=1), prompt(0, 0, 0, output_tokens=7)],
        Usage(50, 18000, output=7),
    ),
    "the cache is only told at the end, and the start counted all of it as new": (
        [prompt(100, 0, 0, output_tokens=1), prompt(20, 0, 80, output_tokens=7)],
        Usage(20, 80, output=7),
    ),
    "the start states nothing": (
        [prompt(0, output_tokens=0), prompt(20, 10, 80, output_tokens=7)],
        Usage(20, 80, 10, output=7),
    ),
    "DashScope counts inclusively, and tells the cache at the end": (
        [
            {"input_tokens": 3602, "output_tokens": 0},
            {
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 3604,
                "prompt_tokens_details": {"cached_tokens": 3604},
                "output_tokens": 878,
            },
        ],
        Usage(cache_read=3602, output=878),
    ),
    "a compaction is charged beside the totals": (
        [
            prompt(23000, 0, 0, output_tokens=1),
            {
                "output_tokens": 1000,
                "iterations": [
                    {"type": "compaction", **prompt(180000, 5, 7, output_tokens=3500)},
                    {"type": "message", **prompt(23000, 0, 0, output_tokens=1000)},
                ],
            },
        ],
        Usage(203000, 7, 5, output=4500),
    ),
    "an advisor is another model, with another price": (
        [
            prompt(
                10,
                output_tokens=2,
                iterations=[
                    {"type": "advisor_message", "model": "m", **prompt(99, output_tokens=9)},
                    {"type": "compaction", "input_tokens": "many"},
                    7,
                ],
            )
        ],
        Usage(10, output=2),
    ),
    "iterations that are no list": (
        [prompt(10, output_tokens=2, iterations=3)],
        Usage(10, output=2),
    ),
    "an end that is nonsense": (
        [prompt(10, output_tokens=2), prompt(-5, -5, "x")],
        Usage(10, output=2),
    ),
    "no end": ([prompt(10, output_tokens=2), None], Usage(10, output=2)),
    "no start": ([None, {"output_tokens": 7}], None),
    "nothing": ([], None),
}


@pytest.mark.parametrize(("stated", "expected"), STREAMS.values(), ids=STREAMS)
def test_the_events_of_a_stream_restate_usage_and_never_add_to_it(
    stated: list[Any], expected: Usage | None
) -> None:
    assert expected == from_anthropic(*stated)


CONVERSE: dict[str, tuple[Any, Usage | None]] = {
    "without a cache": ({"inputTokens": 9, "outputTokens": 2}, Usage(9, output=2)),
    "what was read and written comes on top": (
        {
            "inputTokens": 9,
            "outputTokens": 2,
            "totalTokens": 411,
            "cacheReadInputTokens": 300,
            "cacheWriteInputTokens": 100,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 60}, {"ttl": "5m", "inputTokens": 40}],
        },
        Usage(9, 300, 40, 60, 2),
    ),
    "details that make no sense": (
        {
            "inputTokens": 9,
            "outputTokens": 2,
            "cacheReadInputTokens": -1,
            "cacheWriteInputTokens": 100,
            "cacheDetails": [7, {"ttl": "1h", "inputTokens": 900}, {"ttl": "1h"}],
        },
        Usage(9, 0, 0, 100, 2),
    ),
    "details that are no list": (
        {"inputTokens": 9, "outputTokens": 2, "cacheDetails": {"ttl": "1h"}},
        Usage(9, output=2),
    ),
    "no output": ({"inputTokens": 9}, None),
    "nothing": (None, None),
}


@pytest.mark.parametrize(("stated", "expected"), CONVERSE.values(), ids=CONVERSE)
def test_bedrock_counts_exclusively(stated: Any, expected: Usage | None) -> None:
    assert expected == from_converse(stated)


GEMINI: dict[str, tuple[Any, Usage | None]] = {
    "without a cache": (
        {"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 11},
        Usage(9, output=2),
    ),
    "cached is part of the prompt, thoughts stand beside the answer": (
        {
            "promptTokenCount": 5000,
            "cachedContentTokenCount": 4096,
            "candidatesTokenCount": 20,
            "thoughtsTokenCount": 80,
            "toolUsePromptTokenCount": 6,
        },
        Usage(910, 4096, output=100),
    ),
    "an answer that is all cut away": ({"promptTokenCount": 9}, Usage(9)),
    "more cached than there is": (
        {"promptTokenCount": 9, "cachedContentTokenCount": 99, "candidatesTokenCount": None},
        Usage(0, 9),
    ),
    "no prompt": ({"candidatesTokenCount": 2}, None),
    "nothing": ([], None),
}


@pytest.mark.parametrize(("stated", "expected"), GEMINI.values(), ids=GEMINI)
def test_gemini_counts_inclusively(stated: Any, expected: Usage | None) -> None:
    assert expected == from_gemini(stated)


COUNT = st.integers(0, 10**9)


@given(COUNT, COUNT, COUNT, COUNT)
def test_the_buckets_of_openai_sum_up_to_the_prompt(
    rest: int, read: int, written: int, output: int
) -> None:
    details = {"cached_tokens": read, "cache_write_tokens": written}
    prompt = rest + read + written
    usage = from_openai(
        {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "prompt_tokens_details": details,
        }
    )
    assert usage is not None
    assert (prompt, output) == (usage.input, usage.output)


@given(COUNT, COUNT, COUNT, COUNT)
def test_the_buckets_of_anthropic_sum_up_to_the_prompt(
    rest: int, read: int, short: int, long: int
) -> None:
    usage = from_anthropic(
        {
            "input_tokens": rest,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": short + long,
            "cache_creation": {
                "ephemeral_5m_input_tokens": short,
                "ephemeral_1h_input_tokens": long,
            },
            "output_tokens": 0,
        }
    )
    assert Usage(rest, read, short, long) == usage
    assert usage is not None
    assert usage.input == rest + read + short + long


NAMES = [
    *("prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens"),
    *("input_tokens", "output_tokens", "cache_creation", "cache_read_input_tokens"),
    *("cache_creation_input_tokens", "ephemeral_1h_input_tokens", "iterations", "total_tokens"),
    *("inputTokens", "outputTokens", "cacheWriteInputTokens", "cacheDetails", "ttl", "type"),
    *("promptTokenCount", "cachedContentTokenCount", "cache_n", "prompt_n", "predicted_n"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
        )
    ),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_whatever_a_server_states_nothing_raises_or_goes_below_zero(stated: Any, late: Any) -> None:
    for usage in (
        from_openai(stated, late),
        from_anthropic(stated, late),
        from_responses(stated),
        from_converse(stated),
        from_gemini(stated),
    ):
        if usage is not None:
            assert min(astuple(usage)) >= 0
