"""The stub, asked by Anthropic's official SDK: what it parses, and stream against body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from pydantic import BaseModel

from gateway.lab.stub_provider import StubProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "claude-sonnet-5-5"
WEATHER: Any = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city", "days"],
    },
}


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]


@pytest.fixture
async def stub() -> AsyncIterator[StubProvider]:
    async with StubProvider() as running:
        yield running


@pytest.fixture
async def client(stub: StubProvider) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=stub.url, api_key="a", max_retries=0) as made:
        yield made


def ask(content: Any, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "max_tokens": 4096, "messages": messages, **more}


def name(case: dict[str, Any]) -> str:
    """A test id: the question and what else is set."""
    extra = sorted(case.keys() - {"messages", "model", "max_tokens", "tools"})
    return "-".join([str(case["messages"][0]["content"]).replace(" ", "_"), *extra])


async def drain(stream: Any, seen: list[Any]) -> None:
    async for item in stream:
        seen.append(item)  # noqa: PERF401 - what came before an error counts


def bare(message: Any) -> Any:
    dumped = message.model_dump()
    dumped.pop("id")
    for block in dumped["content"]:
        block.pop("parsed_output", None)
        if block["type"] == "tool_use":
            block.pop("id")
    return dumped


@pytest.mark.parametrize(
    "request_body",
    [
        ask("hello there"),
        ask("hello there", max_tokens=5),
        ask("hello there", stop_sequences=["\n"]),
        ask("no, [refuse] this"),
        ask("wait [pause] a bit"),
        ask("say [empty]"),
        ask("say [long 300]"),
        ask("think", thinking={"type": "enabled", "budget_tokens": 1024}),
        ask("think", thinking={"type": "adaptive", "display": "omitted"}),
        ask("weather in two towns", tools=[WEATHER]),
        ask("weather?", tools=[WEATHER], thinking={"type": "enabled", "budget_tokens": 1024}),
        ask("call it", tools=[WEATHER], tool_choice={"type": "tool", "name": "get_weather"}),
    ],
    ids=name,
)
async def test_a_stream_adds_up_to_the_body(
    client: anthropic.AsyncAnthropic, request_body: dict[str, Any]
) -> None:
    whole = await client.messages.create(**request_body)
    async with client.messages.stream(**request_body) as stream:
        added_up = await stream.get_final_message()
    assert bare(whole) == bare(added_up)


async def test_cache_markers_and_content_shape_do_not_change_the_answer(
    client: anthropic.AsyncAnthropic,
) -> None:
    plain = await client.messages.create(**ask("hello", system="be brief"))
    marker = {"type": "ephemeral"}
    part = {"type": "text", "text": "hello", "cache_control": marker}
    system = [{"type": "text", "text": "be brief", "cache_control": marker}]
    marked = await client.messages.create(**ask([part], system=system, metadata={"user_id": "u"}))
    assert bare(plain) == bare(marked)
    assert plain.id != marked.id


async def test_tool_results_lead_to_text(client: anthropic.AsyncAnthropic) -> None:
    first = await client.messages.create(**ask("weather?", tools=[WEATHER]))
    use = first.content[-1]
    assert use.type == "tool_use"
    assert first.stop_reason == "tool_use"
    assert isinstance(use.input["days"], int)
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "rain"}
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in first.content]},
        {"role": "user", "content": [result]},
    ]
    second = await client.messages.create(
        **{**ask("weather?", tools=[WEATHER]), "messages": messages}
    )
    assert second.stop_reason == "end_turn"
    assert "The tool told me so." in second.content[0].text


async def test_structured_output_parses_in_both_forms(client: anthropic.AsyncAnthropic) -> None:
    whole = await client.messages.parse(**ask("who?"), output_format=Person)
    async with client.messages.stream(**ask("who?"), output_format=Person) as stream:
        streamed = await stream.get_final_message()
    assert isinstance(whole.parsed_output, Person)
    assert whole.parsed_output == streamed.parsed_output


async def test_images_are_counted(client: anthropic.AsyncAnthropic) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    image = {"type": "image", "source": source}
    answer = await client.messages.create(**ask([image, {"type": "text", "text": "what"}]))
    assert "1 image(s)" in answer.content[0].text


async def test_event_lines_repeat_the_type(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.with_streaming_response.create(**ask("hi"), stream=True) as raw:
        lines = [line async for line in raw.iter_lines()]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("status", "kind", "error_type"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_errors_become_typed_exceptions(
    client: anthropic.AsyncAnthropic,
    status: int,
    kind: type[anthropic.APIStatusError],
    error_type: str,
) -> None:
    for streaming in (False, True):
        with pytest.raises(kind) as caught:
            await client.messages.create(**ask(f"[error {status}]"), stream=streaming)
        assert caught.value.status_code == status
        body: Any = caught.value.body
        assert body["error"]["type"] == error_type
        assert body["request_id"] == caught.value.request_id


async def test_an_error_can_come_in_the_middle_of_a_stream(
    client: anthropic.AsyncAnthropic,
) -> None:
    stream = await client.messages.create(**ask("[error in stream]"), stream=True)
    seen: list[Any] = []
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        await drain(stream, seen)
    assert len(seen) > 1


async def test_the_connection_can_be_cut(client: anthropic.AsyncAnthropic) -> None:
    async def consume() -> None:
        async for _ in await client.messages.create(**ask("[cut]"), stream=True):
            pass

    with pytest.raises(Exception, match=r"(?i)peer closed|incomplete|connection"):
        await consume()


async def test_tokens_are_counted_as_they_are_billed(client: anthropic.AsyncAnthropic) -> None:
    messages: Any = [{"role": "user", "content": "hello there"}]
    counted = await client.messages.count_tokens(model=MODEL, messages=messages)
    billed = await client.messages.create(**ask("hello there"))
    assert counted.input_tokens == billed.usage.input_tokens


async def test_models_answer_in_the_shape_of_the_api_that_asks(
    client: anthropic.AsyncAnthropic, stub: StubProvider
) -> None:
    listed = [model async for model in client.models.list()]
    assert MODEL in {model.id for model in listed}
    assert (await client.models.retrieve(MODEL)).display_name == "Claude Sonnet 5.5"
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("claude-none")
    assert stub.received[-1].header("Anthropic-Version") is not None
