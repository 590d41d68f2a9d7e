"""As `test_four_combinations`, of OpenAI's Responses API: kept by the provider, and not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

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


def ask(given: Any, /, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "input": given, **more}


def responses_tool(model: Any) -> dict[str, Any]:
    """A pydantic model as this API has its tools: flat."""
    tool: dict[str, Any] = openai.pydantic_function_tool(model)["function"]  # type: ignore[assignment]
    return {"type": "function", **tool}


TOOLS = [responses_tool(GetWeather), responses_tool(SetAlarm)]
LOOSE_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": "look_outside",
        "strict": False,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
    {"type": "custom", "name": "run_code", "format": {"type": "text"}},
]
RESULTS = [
    {"role": "user", "content": "How is the weather in Oslo?"},
    {
        "type": "function_call",
        "id": "fc_68a0b1c2d3e4f5061728394a5b6c7d8e9f",
        "call_id": "call_Jx3Qe0aZtY7mWcVb9LkD2RfS",
        "name": "look_outside",
        "arguments": '{"city": "Oslo"}',
    },
    {
        "type": "function_call_output",
        "call_id": "call_Jx3Qe0aZtY7mWcVb9LkD2RfS",
        "output": "Rain.",
    },
]
SHOWN = [
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "What is this?"},
            {
                "type": "input_image",
                "image_url": f"data:image/png;base64,{PIXEL}",
                "detail": "low",
            },
        ],
    }
]
ANSWER = {
    "type": "json_schema",
    "name": "answer",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"answer": {"type": "integer"}, "why": {"type": "string"}},
        "required": ["answer", "why"],
        "additionalProperties": False,
    },
}
THINKING = {"effort": "low", "summary": "auto"}

RESPONSES = (
    Program("words", ask(TEXT)),
    Program("words-plain", ask(TEXT, temperature=0), "plain"),
    Program("long", ask("[long 400] go on")),
    Program("instructions", ask("Be brief.", instructions="You are brief.")),
    Program("logprobs", ask("Sure?", include=["message.output_text.logprobs"], top_logprobs=2)),
    Program("cut-short", ask("Yes or no?", max_output_tokens=16), "plain"),
    Program("tool", ask("How is the weather?", tools=TOOLS)),
    Program("tools-in-parallel", ask("The weather in three cities?", tools=TOOLS)),
    Program("one-tool", ask("weather in two", tools=TOOLS, parallel_tool_calls=False)),
    Program("loose-tools", ask("weather in four", tools=LOOSE_TOOLS), "plain"),
    Program("tool-results", ask(RESULTS, tools=LOOSE_TOOLS), "plain"),
    Program("thinking", ask("Think.", reasoning=THINKING)),
    Program("thinking-untold", ask("Think.", reasoning={"effort": "high"})),
    Program(
        "thinking-and-tools",
        ask(
            "The weather in two cities?",
            reasoning=THINKING,
            tools=TOOLS,
            include=["reasoning.encrypted_content"],
        ),
    ),
    Program("image", ask(SHOWN)),
    Program("parsed", ask("Solve it.", text_format=Solution)),
    Program("schema", ask("Solve it.", text={"format": ANSWER})),
    Program("json", ask("Say JSON.", text={"format": {"type": "json_object"}}), "plain"),
)


def answered(client: Client, program: Program, form: str, **more: Any) -> Any:
    """The response as this program gets it."""
    asked = {**program.asked, **more}
    if program.style == "helper":
        if form == "body":
            return client.call(lambda c: c.responses.parse(**asked))
        return client.within(
            lambda c: c.responses.stream(**asked), lambda stream: stream.get_final_response()
        )
    if form == "body":
        return client.call(lambda c: c.responses.create(**asked))
    events = client.items(lambda c: c.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events[-1].response


def item_ids(response: Any) -> list[str]:
    """The ids of the items, and what joins calls with their results."""
    return [
        each for item in response.output for each in (item.id, getattr(item, "call_id", "")) if each
    ]


@pytest.mark.parametrize("recorded", FORMS)
@pytest.mark.parametrize("store", [True, False], ids=["kept", "unkept"])
@programs(*RESPONSES)
def test_a_response_is_the_same_on_a_miss_and_on_hits_in_both_forms(
    world: World, sdk: Sdk, program: Program, recorded: str, store: bool
) -> None:
    provider, client = sdk.openai(world.stub.v1_url), sdk.openai(f"{world.url}/v1")
    due = {form: answered(provider, program, form, store=store) for form in FORMS}
    before = world.calls

    first = answered(client, program, recorded, store=store)
    assert client.last["x-gateway-cache"] == "miss"
    assert without_ids(due[recorded]) == without_ids(first)
    seen = {first.id}
    for form in (recorded, *FORMS):
        again = answered(client, program, form, store=store)
        assert client.last["x-gateway-cache"] == "hit"
        assert without_ids(due[form]) == without_ids(again)
        assert item_ids(first) == item_ids(again)
        assert type(first.created_at) is type(again.created_at)
        if store:
            # What the provider keeps is that record, and is asked for under its id.
            assert (first.id, first.created_at) == (again.id, again.created_at)
        else:
            assert again.id not in seen
        seen.add(again.id)
    assert world.calls == before + 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["[refuse] this", "[filter] that"])
def test_a_refusal_is_the_same_and_asked_for_again(
    world: World, sdk: Sdk, form: str, text: str
) -> None:
    provider, client = sdk.openai(world.stub.v1_url), sdk.openai(f"{world.url}/v1")
    program = Program("refusal", ask(text), "plain")
    due = without_ids(answered(provider, program, form))
    for _ in range(2):
        assert due == without_ids(answered(client, program, form))
        assert client.last["x-gateway-cache"] == "miss"


def test_the_stream_helper_tells_the_same_events_on_a_hit(world: World, sdk: Sdk) -> None:
    def events(one: Client) -> list[Any]:
        def kinds(stream: Any) -> list[Any]:
            return [without_ids(event) for event in stream]

        async def kinds_async(stream: Any) -> list[Any]:
            return [without_ids(event) async for event in stream]

        asked = ask("The weather in two cities?", tools=TOOLS, reasoning=THINKING)
        read = kinds if one.loop is None else kinds_async
        return one.within(lambda c: c.responses.stream(**asked), read)  # type: ignore[no-any-return]

    provider, client = sdk.openai(world.stub.v1_url), sdk.openai(f"{world.url}/v1")
    due = [event["type"] for event in events(provider)]
    assert {
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.done",
        "response.completed",
    } <= set(due)
    first = events(client)
    assert due == [event["type"] for event in first]
    # Recorded as a stream, an answer is replayed event by event.
    again = events(client)
    assert client.last["x-gateway-cache"] == "hit"
    assert first == again
