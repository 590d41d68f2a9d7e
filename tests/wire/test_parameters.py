"""What is read of a request for its span: numbers and short words, and nothing that is a prompt's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.wire.parameters import MOST_BYTES, parameters

CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("openai_chat", {"temperature": 0.5, "seed": 7, "n": 2}, {"choices": 2, "seed": 7}),
    ("openai_chat", {"n": 1}, {}),
    ("openai_chat", {"max_tokens": 5, "max_completion_tokens": 9}, {"max_tokens": 9}),
    ("openai_chat", {"reasoning_effort": "low", "service_tier": "flex"}, {"service_tier": "flex"}),
    ("openai_chat", {"response_format": {"type": "json_schema"}}, {"output": "json"}),
    ("openai_chat", {"response_format": {"type": "odd"}}, {}),
    ("openai_completions", {"max_tokens": 3, "top_p": 0.1}, {"max_tokens": 3, "top_p": 0.1}),
    ("openai_responses", {"reasoning": {"effort": "high"}}, {"reasoning_level": "high"}),
    ("openai_responses", {"text": {"format": {"type": "text"}}}, {"output": "text"}),
    ("openai_responses", {"conversation": "conv_1"}, {"conversation": "conv_1"}),
    ("openai_responses", {"conversation": {"id": "conv_2"}}, {"conversation": "conv_2"}),
    ("openai_responses", {"previous_response_id": "r"}, {"previous_response": "r"}),
    ("anthropic_messages", {"max_tokens": 9, "top_k": 4}, {"max_tokens": 9, "top_k": 4}),
    ("anthropic_messages", {"output_config": {"effort": "max"}}, {"reasoning_level": "max"}),
    ("openai_embeddings", {"temperature": 1}, {}),
]


@pytest.mark.parametrize(("api", "asked", "wanted"), CASES)
def test_what_is_asked_for_is_found(
    api: str, asked: dict[str, Any], wanted: dict[str, Any]
) -> None:
    found = parameters(api, json.dumps({"model": "m", **asked}).encode())
    assert found.items() >= wanted.items()
    assert len(found) <= len(asked)
    if not wanted:
        assert found == {}


@pytest.mark.parametrize(
    "odd",
    [
        {"temperature": "hot", "seed": True, "top_p": None, "max_tokens": [1]},
        {"service_tier": "", "reasoning_effort": {"x": 1}, "response_format": "json_object"},
        {"service_tier": "x" * 257},
        {"stop": ["secret"], "messages": [{"role": "user", "content": "secret"}], "user": "me"},
    ],
)
def test_what_has_another_shape_or_is_text_is_left_out(odd: dict[str, Any]) -> None:
    assert parameters("openai_chat", json.dumps(odd).encode()) == {}


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff", b"null", b'{"seed": NaN}'])
def test_what_is_no_object_has_none(body: bytes) -> None:
    assert parameters("openai_chat", body) == {}


def test_a_body_that_is_too_long_is_not_looked_into() -> None:
    long = json.dumps({"seed": 1, "x": "y" * MOST_BYTES}).encode()
    assert parameters("openai_chat", long) == {}
    assert parameters("openai_chat", long.replace(b"y" * 100, b"", 1)) == {"seed": 1}
