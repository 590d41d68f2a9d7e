"""The same program gets the same answer whether the provider or the cache gives it.

What a program should get is asked of the provider itself, in each form, without a gateway: the
stub answers the same meaning with the same words. Each program then runs as a miss in one form
and as hits in both, read by the SDK's own accumulators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from tests.helpers.sdk_programs import (
    FORMS,
    PIXEL,
    TEXT,
    GetWeather,
    Program,
    SetAlarm,
    Solution,
    programs,
    without_ids,
)

if TYPE_CHECKING:
    from tests.conformance.conftest import Client, Sdk, World

# --- OpenAI ---------------------------------------------------------------------------------------


def chat(text: Any, /, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


TOOLS = [openai.pydantic_function_tool(GetWeather), openai.pydantic_function_tool(SetAlarm)]
LOOSE_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_outside",
            "description": "Tells the weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "no_parameters"}},
]
RESULTS = [
    {"role": "user", "content": "How is the weather in Oslo?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_Jx3Qe0aZtY7mWcVb9LkD2RfS",
                "type": "function",
                "function": {"name": "look_outside", "arguments": '{"city": "Oslo"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_Jx3Qe0aZtY7mWcVb9LkD2RfS", "content": "Rain."},
]
LEGACY = [{"name": "look_outside", "parameters": {"type": "object", "properties": {}}}]
SHOWN = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
]

OPENAI = (
    Program("words", chat(TEXT)),
    Program("words-plain", chat(TEXT, temperature=0), "plain"),
    Program("long", chat("[long 400] go on")),
    Program("seed", chat("Pick a number.", seed=7, temperature=1.0)),
    Program("several", chat("Say it in three ways.", n=3)),
    Program("several-plain", chat("Say it in two ways.", n=2), "plain"),
    Program("logprobs", chat("How sure?", logprobs=True, top_logprobs=2)),
    Program("logprobs-of-several", chat("How sure?", logprobs=True, n=2), "plain"),
    Program("stop", chat("Stop early.", stop=["e", "\n"])),
    Program("one-word", chat("Yes or no?", max_completion_tokens=4), "plain"),
    Program("tool", chat("How is the weather?", tools=TOOLS)),
    Program("tools-in-parallel", chat("The weather in three cities?", tools=TOOLS)),
    Program("one-tool", chat("weather in two", tools=TOOLS, parallel_tool_calls=False)),
    Program("loose-tools", chat("weather in four", tools=LOOSE_TOOLS), "plain"),
    Program("tools-of-several", chat("weather in two", tools=TOOLS, n=2)),
    Program(
        "tool-results", {"model": "gpt-4o", "messages": RESULTS, "tools": LOOSE_TOOLS}, "plain"
    ),
    Program("functions", chat("The weather?", functions=LEGACY), "plain"),
    Program("parsed", chat("Solve it.", response_format=Solution)),
    Program("parsed-several", chat("Solve it.", response_format=Solution, n=2)),
    Program("json", chat("Say JSON.", response_format={"type": "json_object"})),
    Program("image", chat(SHOWN)),
)


def completed(client: Client, program: Program, form: str, *, usage: bool = False) -> Any:
    """The completion as this program gets it."""
    asked = program.asked
    options = {"stream_options": {"include_usage": True}} if usage and form == "stream" else {}
    if program.style == "helper":
        if form == "body":
            return client.call(lambda c: c.chat.completions.parse(**asked))
        return client.within(
            lambda c: c.chat.completions.stream(**asked, **options),
            lambda stream: stream.get_final_completion(),
        )
    if form == "body":
        return client.call(lambda c: c.chat.completions.create(**asked))
    state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    for chunk in client.items(lambda c: c.chat.completions.create(**asked, **options, stream=True)):
        state.handle_chunk(chunk)
    # Not get_final_completion(): that raises for an answer that was cut off, as "one-word" is.
    return state.current_completion_snapshot


def call_ids(completion: Any) -> list[str]:
    """The ids of all tool calls."""
    calls = [call for choice in completion.choices for call in choice.message.tool_calls or ()]
    return [call.id for call in calls]


@pytest.mark.parametrize("recorded", FORMS)
@pytest.mark.parametrize("usage", [False, True], ids=["", "usage"])
@programs(*OPENAI)
def test_a_chat_completion_is_the_same_on_a_miss_and_on_hits_in_both_forms(
    world: World, sdk: Sdk, program: Program, recorded: str, usage: bool
) -> None:
    provider, client = sdk.openai(world.stub.v1_url), sdk.openai(f"{world.url}/v1")
    due = {form: completed(provider, program, form, usage=usage) for form in FORMS}
    before = world.calls

    first = completed(client, program, recorded, usage=usage)
    assert client.last["x-gateway-cache"] == "miss"
    assert without_ids(due[recorded]) == without_ids(first)
    seen = {first.id}
    for form in (recorded, *FORMS):
        again = completed(client, program, form, usage=usage)
        assert client.last["x-gateway-cache"] == "hit"
        assert without_ids(due[form]) == without_ids(again)
        assert call_ids(first) == call_ids(again)
        assert type(first.created) is type(again.created)
        assert again.id not in seen
        seen.add(again.id)
    assert world.calls == before + 1


# --- Anthropic ------------------------------------------------------------------------------------


def message(text: Any, /, **more: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": text}]
    return {"model": "claude-sonnet-5-5", "max_tokens": 1024, "messages": asked, **more}


CLAUDE_TOOLS = [
    {
        "name": "look_outside",
        "description": "Tells the weather.",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "number"}},
            "required": ["city", "days"],
        },
    },
    {"name": "no_input", "input_schema": {"type": "object", "properties": {}}},
]
CLAUDE_RESULTS = [
    {"role": "user", "content": "How is the weather in Oslo?"},
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I'll look."},
            {
                "type": "tool_use",
                "id": "toolu_01A09q90qw90lq917835lq9z",
                "name": "look_outside",
                "input": {"city": "Oslo", "days": 1.0},
            },
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_01A09q90qw90lq917835lq9z",
                "content": "Rain.",
            }
        ],
    },
]
CLAUDE_SHOWN = [
    {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
    },
    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
    {"type": "text", "text": "What are these?"},
]
ASKED_FOR = {
    "format": {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {"answer": {"type": "integer"}, "why": {"type": "string"}},
            "required": ["answer", "why"],
            "additionalProperties": False,
        },
    }
}
SYSTEM = [{"type": "text", "text": "You are brief.", "cache_control": {"type": "ephemeral"}}]

ANTHROPIC = (
    Program("words", message(TEXT)),
    Program("words-beta", message(TEXT, betas=["token-efficient-tools-2026-01-01"]), "beta"),
    Program("long", message("[long 400] go on")),
    Program("system", message("Be brief.", system=SYSTEM)),
    Program("stop", message("Stop early.", stop_sequences=["e"])),
    Program("one-word", message("Yes or no?", max_tokens=4)),
    Program("tool", message("How is the weather?", tools=CLAUDE_TOOLS)),
    Program("tools-in-parallel", message("The weather in three cities?", tools=CLAUDE_TOOLS)),
    Program(
        "no-input",
        message("Go.", tools=CLAUDE_TOOLS, tool_choice={"type": "tool", "name": "no_input"}),
    ),
    Program("tool-results", {**message(""), "messages": CLAUDE_RESULTS, "tools": CLAUDE_TOOLS}),
    Program("thinking", message("Think.", thinking={"type": "adaptive"})),
    Program(
        "thinking-omitted", message("Hm.", thinking={"type": "adaptive", "display": "omitted"})
    ),
    Program(
        "thinking-and-tools",
        message("The weather?", thinking={"type": "adaptive"}, tools=CLAUDE_TOOLS),
    ),
    Program("image", message(CLAUDE_SHOWN)),
    Program("parsed", message("Solve it.", output_format=Solution)),
    Program("schema", message("Solve it.", output_config=ASKED_FOR)),
)


def answered(client: Client, program: Program, form: str) -> Any:
    """The message as this program gets it."""
    asked = program.asked

    def api(c: Any) -> Any:
        return c.beta.messages if program.style == "beta" else c.messages

    if form == "body":
        if "output_format" in asked:
            return client.call(lambda c: api(c).parse(**asked))
        return client.call(lambda c: api(c).create(**asked))
    return client.within(
        lambda c: api(c).stream(**asked), lambda stream: stream.get_final_message()
    )


def use_ids(answer: Any) -> list[str]:
    """The ids of all tool uses."""
    return [block.id for block in answer.content if block.type == "tool_use"]


@pytest.mark.parametrize("recorded", FORMS)
@programs(*ANTHROPIC)
def test_a_message_is_the_same_on_a_miss_and_on_hits_in_both_forms(
    world: World, sdk: Sdk, program: Program, recorded: str
) -> None:
    provider, client = sdk.anthropic(world.stub.url), sdk.anthropic(world.url)
    due = {form: answered(provider, program, form) for form in FORMS}
    before = world.calls

    first = answered(client, program, recorded)
    assert client.last["x-gateway-cache"] == "miss"
    assert without_ids(due[recorded]) == without_ids(first)
    seen = {first.id}
    for form in (recorded, *FORMS):
        again = answered(client, program, form)
        assert client.last["x-gateway-cache"] == "hit"
        assert without_ids(due[form]) == without_ids(again)
        assert use_ids(first) == use_ids(again)
        assert again.id not in seen
        seen.add(again.id)
    assert world.calls == before + 1
