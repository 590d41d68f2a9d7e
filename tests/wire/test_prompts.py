"""From request bodies to prompts: the provider's rendering order, with paths that lead back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.core import canonical
from gateway.core.blocks import Prompt, Section, tokens
from gateway.wire import prompts
from gateway.wire.base import NotUnderstood


def read(body: object, route: str | None = None) -> Prompt:
    return prompts.read(canonical.parse(orjson.dumps(body)), route)


def shown(prompt: Prompt) -> list[tuple[str, str, str, str]]:
    return [(b.section.value, b.path, b.role, b.text) for b in prompt.blocks]


def test_a_chat_renders_tools_then_system_then_messages() -> None:
    prompt = read(
        {
            "model": "gpt-5",
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "developer", "content": [{"type": "text", "text": "D"}]},
                {"role": "user", "content": "U"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": '{"a":1}'}}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "R"},
                {"role": "system", "content": "Later"},
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
        }
    )
    assert "openai_chat" == prompt.api
    assert [
        ("tools", "$.tools[0]", "", '{"type":"function","function":{"name":"f"}}'),
        ("system", "$.messages[0].content", "system", "S"),
        ("system", "$.messages[1].content[0].text", "developer", "D"),
        ("messages", "$.messages[2].content", "user", "U"),
        ("messages", "$.messages[3].tool_calls[0].function.arguments", "assistant", '{"a":1}'),
        ("messages", "$.messages[4].content", "tool", "R"),
        ("messages", "$.messages[5].content", "system", "Later"),
    ] == shown(prompt)


def test_messages_render_tools_then_system_then_messages_without_markers_and_ids() -> None:
    marker = {"cache_control": {"type": "ephemeral"}}
    prompt = read(
        {
            "model": "claude-sonnet-4-5",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "U", **marker}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "T", "signature": "s"},
                        {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": 2}},
                    ],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "R"}],
                },
            ],
            "system": [{"type": "text", "text": "S", **marker}],
            "tools": [{"name": "f", "input_schema": {"type": "object"}, **marker}],
        }
    )
    assert "anthropic_messages" == prompt.api
    assert [
        ("tools", "$.tools[0]", "", '{"name":"f","input_schema":{"type":"object"}}'),
        ("system", "$.system[0].text", "system", "S"),
        ("messages", "$.messages[0].content[0].text", "user", "U"),
        ("messages", "$.messages[1].content[0].thinking", "assistant", "T"),
        (
            "messages",
            "$.messages[1].content[1]",
            "assistant",
            '{"type":"tool_use","name":"f","input":{"b":1,"a":2}}',
        ),
        ("messages", "$.messages[2].content[0].content", "tool", "R"),
    ] == shown(prompt)
    assert [True, True, True, False, False, False] == [b.marked for b in prompt.blocks]


def test_responses_render_instructions_before_the_input() -> None:
    prompt = read(
        {
            "model": "gpt-5",
            "input": [
                {"role": "developer", "content": "D"},
                {"role": "user", "content": [{"type": "input_text", "text": "U"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "R"},
            ],
            "instructions": "I",
            "text": {"format": {"type": "json_schema", "schema": {}}},
        }
    )
    assert "openai_responses" == prompt.api
    assert [
        ("tools", "$.text.format", "", '{"type":"json_schema","schema":{}}'),
        ("system", "$.instructions", "system", "I"),
        ("system", "$.input[0].content", "developer", "D"),
        ("messages", "$.input[1].content[0].text", "user", "U"),
        ("messages", "$.input[2].arguments", "assistant", "{}"),
        ("messages", "$.input[3].output", "tool", "R"),
    ] == shown(prompt)


def test_a_completion_is_one_opening_message() -> None:
    prompt = read({"model": "m", "prompt": "Once"})
    assert [("messages", "$.prompt", "user", "Once")] == shown(prompt)
    assert prompt.blocks == prompt.opening()


def test_images_are_compared_but_not_shown() -> None:
    def image(data: str) -> dict[str, Any]:
        source = {"type": "base64", "data": data}
        return {"role": "user", "content": [{"type": "image", "source": source}]}

    one, other = (read({"messages": [image(data)], "system": "S"}) for data in ("AAAA", "AAAB"))
    assert one.blocks[1].text != other.blocks[1].text
    assert "AAA" not in one.blocks[1].text


def test_the_strings_of_a_tool_have_paths_of_their_own() -> None:
    schema = {"properties": {"x": {"description": "D", "enum": ["a"]}}}
    (tool,) = read({"messages": [], "tools": [{"name": "f", "input_schema": schema}]}).tools()
    assert (
        ("$.tools[0].name", "f"),
        ("$.tools[0].input_schema.properties.x.description", "D"),
        ("$.tools[0].input_schema.properties.x.enum[0]", "a"),
    ) == tool.texts()
    assert ("f", Section.TOOLS) == (tool.name, tool.section)


@pytest.mark.parametrize(
    ("route", "api"),
    [
        ("/v1/chat/completions", "openai_chat"),
        ("/openai/deployments/x/chat/completions?api-version=1", "openai_chat"),
        ("/v1/messages", "anthropic_messages"),
        ("https://api.openai.com/v1/responses", "openai_responses"),
        ("/v1/completions/", "openai_completions"),
    ],
)
def test_the_route_decides_if_it_is_known(route: str, api: str) -> None:
    assert api == read({"messages": []}, route).api
    assert prompts.has_prompt(route)


@pytest.mark.parametrize("body", [[], "x", {}, {"model": "text-embedding-3-small", "input": "x"}])
def test_what_has_no_prompt_is_not_understood(body: object) -> None:
    with pytest.raises(NotUnderstood):
        read(body)


def test_no_prompt_goes_to_embeddings() -> None:
    assert not prompts.has_prompt("/v1/embeddings")
    with pytest.raises(NotUnderstood):
        read({"input": "x"}, "/v1/embeddings")


def test_tokens_are_estimated_from_utf8_bytes() -> None:
    assert [0, 1, 1, 2, 2] == [tokens(text) for text in ("", "a", "abcd", "abcde", "äöü")]
