"""Token counts of both providers in four exclusive buckets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Usage
from gateway.core.usage import from_anthropic, from_openai, from_responses

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
    "more cached than there is never makes a negative count": (
        {
            "prompt_tokens": 5,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 9},
        },
        Usage(uncached_input=0, cache_read=9, output=1),
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


RESPONSES_NAMES = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "prompt_tokens_details": "input_tokens_details",
}


@pytest.mark.parametrize(("stated", "expected"), OPENAI.values(), ids=OPENAI)
def test_responses_count_like_chat_under_other_names(stated: Any, expected: Usage | None) -> None:
    named = stated and {RESPONSES_NAMES.get(name, name): n for name, n in stated.items()}

    assert expected == from_responses(named)


@pytest.mark.parametrize(("stated", "expected"), ANTHROPIC.values(), ids=ANTHROPIC)
def test_anthropic_counts_exclusively(stated: Any, expected: Usage | None) -> None:
    assert expected == from_anthropic(stated)


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


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "prompt_tokens",
                        "completion_tokens",
                        "prompt_tokens_details",
                        "cached_tokens",
                    ),
                    *("input_tokens", "output_tokens", "cache_creation", "cache_read_input_tokens"),
                ]
            ),
            inner,
        )
    ),
    max_leaves=8,
)


@given(VALUES)
def test_whatever_a_server_states_nothing_raises_or_goes_below_zero(stated: Any) -> None:
    for usage in (from_openai(stated), from_anthropic(stated), from_responses(stated)):
        if usage is not None:
            assert min(usage.uncached_input, usage.input, usage.output) >= 0
