from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response

from gateway.core import sse
from gateway.core.model import Form
from gateway.lab.stub_responses import responses
from gateway.providers.openai_responses import RESPONSES
from gateway.wire.openai_responses import OpenAIResponses

TOOLS = [
    {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}},
    {"type": "custom", "name": "run"},
]
SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}}


def ask(**changes: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "input": "hello there", **changes}


def bare(value: Any) -> Any:
    if isinstance(value, dict):
        odd = {"id", "call_id", "created_at", "completed_at"}
        return {name: bare(member) for name, member in value.items() if name not in odd}
    return list(map(bare, value)) if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, ["message"]),
        ({"max_output_tokens": 4}, ["message"]),
        ({"input": "[refuse]"}, ["message"]),
        ({"input": "[filter]"}, ["message"]),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, ["message"]),
        (
            {"text": {"format": {"type": "json_schema", "name": "it", "schema": SCHEMA}}},
            ["message"],
        ),
        ({"input": "weather", "tools": TOOLS}, ["function_call"]),
        ({"input": "weather in two", "tools": TOOLS}, ["function_call", "custom_tool_call"]),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, ["reasoning", "message"]),
        ({"reasoning": {"effort": "low"}}, ["reasoning", "message"]),
    ],
)
def test_a_stream_of_a_response_adds_up_to_its_body(
    changes: dict[str, Any], kinds: list[str]
) -> None:
    whole = orjson.loads(responses(ask(**changes)).body)
    Response.model_validate(whole)
    assert kinds == [item["type"] for item in whole["output"]]
    recorded = b"".join(responses(ask(**changes, stream=True)).events)
    events = [orjson.loads(event.data) for event in sse.parse(recorded)]
    assert list(range(len(events))) == [event["sequence_number"] for event in events]
    assert bare(whole) == bare(events[-1]["response"])
    assert set(Form) == OpenAIResponses().read_stream(recorded, RESPONSES).forms


def test_a_stream_can_end_in_an_error() -> None:
    events = responses(ask(input="[error in stream]", stream=True)).events

    assert events[-1].startswith(b"event: error\n")
    assert 500 == responses(ask(input="[error in stream]")).status
    assert 429 == responses(ask(input="[error 429]")).status
