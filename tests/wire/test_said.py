"""Prompts and answers in the message schemas of the GenAI conventions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.wire.said import MOST_BYTES, answered, asked

# What each kind of part needs, and of what type, by the schemas of the conventions; `None` may be said
# for what can be null. Any other kind needs its type alone (GenericPart).
PARTS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "text": {"content": str},
    "reasoning": {"content": str},
    "tool_call": {"name": str},
    "tool_call_response": {"response": object},
    "blob": {"modality": str, "content": str, "mime_type": (str, type(None))},
    "uri": {"modality": str, "uri": str, "mime_type": (str, type(None))},
    "file": {"modality": str, "file_id": str},
}


def held(messages: list[dict[str, Any]]) -> None:
    """Messages that are as the schema of input and output messages has them."""
    for message in messages:
        assert isinstance(message["role"], str)
        parts_held(message["parts"])


def parts_held(parts: list[dict[str, Any]]) -> None:
    for part in parts:
        assert isinstance(part["type"], str)
        for name, kind in PARTS.get(part["type"], {}).items():
            assert isinstance(part[name], kind), (part, name)


def said(api: str, **request: Any) -> tuple[list[Any], list[Any], list[Any]]:
    system, messages, tools = asked(api, json.dumps({"model": "m", **request}).encode())
    parts_held(system)
    held(messages)
    for tool in tools:
        assert isinstance(tool["type"], str)
        assert isinstance(tool["name"], str)
    return system, messages, tools


def text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
LOOKED = {"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": 1}}
SCHEMA = {"type": "object", "properties": {"at": {"type": "integer"}}}
DEFINED = {"type": "function", "name": "look", "description": "Looks.", "parameters": SCHEMA}
IMAGE = "data:image/png;base64,AAAA"


def test_a_chat_with_tools_and_images() -> None:
    system, messages, tools = said(
        "openai_chat",
        messages=[
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is it?"},
                    {"type": "image_url", "image_url": {"url": IMAGE}},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    {"type": "file", "file": {"file_id": "f1"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                ],
            },
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        ],
        tools=[
            {
                "type": "function",
                "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA},
            }
        ],
    )
    assert system == []
    assert messages == [
        {"role": "system", "parts": [text("be brief")]},
        {
            "role": "user",
            "parts": [
                text("what is it?"),
                {"type": "blob", "modality": "image", "mime_type": "image/png", "content": ""},
                {"type": "uri", "modality": "image", "mime_type": None, "uri": "https://x/y.png"},
                {"type": "file", "modality": "document", "file_id": "f1"},
                {"type": "blob", "modality": "audio", "mime_type": None, "content": ""},
            ],
        },
        {"role": "assistant", "parts": [LOOKED]},
        {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": "c1", "response": "a cat"}],
        },
    ]
    assert tools == [DEFINED]


def test_messages_with_system_thinking_and_results() -> None:
    system, messages, tools = said(
        "anthropic_messages",
        system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": "what is it?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "content": [
                            {"type": "text", "text": "a "},
                            {"type": "text", "text": "cat"},
                        ],
                    },
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    },
                    {"type": "search_result", "title": "private"},
                ],
            },
        ],
        tools=[
            {"name": "look", "description": "Looks.", "input_schema": SCHEMA},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
    )
    assert system == [text("be brief")]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["parts"] == [{"type": "reasoning", "content": "hm"}, LOOKED]
    assert messages[2]["parts"] == [
        {"type": "tool_call_response", "id": "c1", "response": "a cat"},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": ""},
        {"type": "search_result"},
    ]
    assert tools == [DEFINED, {"type": "web_search_20250305", "name": "web_search"}]


def test_responses_with_instructions_items_and_a_bare_text() -> None:
    assert said("openai_responses", input="hello", instructions="be brief")[:2] == (
        [text("be brief")],
        [{"role": "user", "parts": [text("hello")]}],
    )
    _, messages, tools = said(
        "openai_responses",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "look"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": 1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
            {"type": "item_reference", "id": "x"},
        ],
        tools=[{"type": "function", "name": "look", "description": "Looks.", "parameters": SCHEMA}],
    )
    assert messages == [
        {"role": "user", "parts": [text("look")]},
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}]},
        {"role": "assistant", "parts": [LOOKED]},
        {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": "c1", "response": "a cat"}],
        },
        {"role": "assistant", "parts": [{"type": "item_reference"}]},
    ]
    assert tools == [DEFINED]


@pytest.mark.parametrize(
    ("api", "document", "parts", "finish"),
    [
        (
            "openai_chat",
            {
                "choices": [
                    {
                        "message": {"role": "assistant", "content": "hi", "tool_calls": [CALL]},
                        "finish_reason": "tool_calls",
                    }
                ]
            },
            [text("hi"), LOOKED],
            "tool_calls",
        ),
        (
            "openai_completions",
            {"choices": [{"text": "hi", "finish_reason": "length"}]},
            [text("hi")],
            "length",
        ),
        (
            "openai_responses",
            {
                "status": "completed",
                "output": [
                    {
                        "type": "message",
                        "role": "assistant",
                        "content": [{"type": "output_text", "text": "hi"}],
                    },
                    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{"},
                ],
            },
            [text("hi"), {**LOOKED, "arguments": "{"}],
            "completed",
        ),
        (
            "anthropic_messages",
            {"content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"},
            [text("hi")],
            "end_turn",
        ),
    ],
)
def test_an_answer_is_one_message_with_its_finish_reason(
    api: str, document: dict[str, Any], parts: list[dict[str, Any]], finish: str
) -> None:
    messages = answered(api, json.dumps(document).encode())
    held(messages)
    assert messages == [{"role": "assistant", "parts": parts, "finish_reason": finish}]


def test_each_choice_is_a_message() -> None:
    choices = [{"message": {"content": word}, "finish_reason": "stop"} for word in ("a", "b")]
    messages = answered("openai_chat", json.dumps({"choices": choices}).encode())
    assert [message["parts"] for message in messages] == [[text("a")], [text("b")]]


@pytest.mark.parametrize("odd", [b"", b"[]", b"{", b'"x"', b'{"messages": 1, "tools": {}}'])
def test_what_is_nothing_of_the_kind_says_nothing(odd: bytes) -> None:
    for api in ("openai_chat", "openai_responses", "anthropic_messages", "openai_embeddings"):
        assert asked(api, odd) == ([], [], [])


@pytest.mark.parametrize("api", ["openai_chat", "openai_responses", "anthropic_messages"])
@pytest.mark.parametrize(
    "value", [None, 1, "x", [], [None], [1, "x", {}], {}, {"type": 7}, [{"type": None, "text": 5}]]
)
def test_members_of_any_shape_are_no_fault(api: str, value: object) -> None:
    request = dict.fromkeys(("system", "instructions", "input", "messages", "tools"), value)
    said(api, **request)
    said(api, messages=[{"role": value, "content": value, "tool_calls": value}])
    said(api, input=[{"type": value, "content": value, "summary": value, "output": value}])
    document = {"content": value, "choices": value, "output": value, "status": value}
    held(answered(api, json.dumps(document).encode()))


def test_what_is_too_long_is_not_looked_into() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x" * MOST_BYTES}]}).encode()
    assert asked("openai_chat", body) == ([], [], [])
