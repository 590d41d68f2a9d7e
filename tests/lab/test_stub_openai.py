"""The stub, asked by OpenAI's official SDK: what it parses, and stream against body."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import openai
import pytest
from pydantic import BaseModel

from gateway.lab.stub_provider import StubProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["c", "f"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


class Step(BaseModel):
    explanation: str
    score: float
    next: Step | None = None


class Solution(BaseModel):
    steps: list[Step]
    answer: int


@pytest.fixture
async def stub() -> AsyncIterator[StubProvider]:
    async with StubProvider() as running:
        yield running


@pytest.fixture
async def client(stub: StubProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=stub.v1_url, api_key="sk-a", max_retries=0) as made:
        yield made


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def name(case: dict[str, Any]) -> str:
    """A test id: the question and what else is set."""
    extra = sorted(case.keys() - {"messages", "model", "max_tokens", "tools"})
    return "-".join([str(case["messages"][0]["content"]).replace(" ", "_"), *extra])


async def drain(stream: Any, seen: list[Any]) -> None:
    async for item in stream:
        seen.append(item)  # noqa: PERF401 - what came before an error counts


def bare(completion: Any) -> Any:
    """A completion without what is fresh each time and what only one form carries."""
    dumped = completion.model_dump()
    for name in ("id", "created", "obfuscation"):
        dumped.pop(name, None)
    for choice in dumped["choices"]:
        choice["message"].pop("annotations", None)
        for call in choice["message"].get("tool_calls") or ():
            call.pop("id")
            call.pop("index", None)
            call["function"].pop("parsed_arguments", None)
        choice["message"]["tool_calls"] = choice["message"].get("tool_calls") or None
        choice["message"].pop("parsed", None)
    return dumped


@pytest.mark.parametrize(
    "request_body",
    [
        ask("hello there"),
        ask("hello there", n=3),
        ask("hello there", logprobs=True, top_logprobs=2),
        ask("hello there", max_tokens=5),
        ask("hello there", stop=["\n"]),
        ask("no, [refuse] this"),
        ask("no, [filter] this"),
        ask("say [empty]"),
        ask("say [long 300]"),
        ask("what is the weather?", tools=[WEATHER]),
        ask("weather in two towns", tools=[WEATHER]),
        ask("call it", tools=[WEATHER], tool_choice="required"),
        ask("json please", response_format={"type": "json_object"}),
    ],
    ids=name,
)
async def test_a_stream_adds_up_to_the_body(
    client: openai.AsyncOpenAI, request_body: dict[str, Any]
) -> None:
    whole = await client.chat.completions.create(**request_body)
    async with client.chat.completions.stream(
        **request_body, stream_options={"include_usage": True}
    ) as stream:
        # `get_final_completion` refuses to parse what was cut off or filtered.
        await drain(stream, [])
        added_up = stream.current_completion_snapshot
    assert bare(whole) == bare(added_up)


async def test_the_same_question_gets_the_same_answer_under_fresh_ids(
    client: openai.AsyncOpenAI,
) -> None:
    first, second = [await client.chat.completions.create(**ask("hello")) for _ in range(2)]
    assert first.id != second.id
    assert bare(first) == bare(second)


@pytest.mark.parametrize(
    "other",
    [
        ask("hello!"),
        ask("hello", temperature=0.5),
        ask("hello", seed=7),
        ask("hello", model="gpt-4.1"),
        ask("hello", tools=[WEATHER]),
    ],
    ids=name,
)
async def test_another_meaning_gets_another_answer(
    client: openai.AsyncOpenAI, other: dict[str, Any]
) -> None:
    first = await client.chat.completions.create(**ask("hello"))
    second = await client.chat.completions.create(**{**ask("hello"), **other})
    assert first.choices[0].message.content != second.choices[0].message.content


async def test_guises_of_one_question_get_one_answer(client: openai.AsyncOpenAI) -> None:
    def history(call_id: str, content: Any) -> list[Any]:
        function = {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
        call = {"id": call_id, "type": "function", "function": function}
        return [
            {"role": "user", "content": content},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call_id, "content": "rain"},
        ]

    plain = await client.chat.completions.create(
        model="gpt-4o", temperature=0, messages=history("call_a", "weather?"), tools=[WEATHER]
    )
    parts = [{"type": "text", "text": "weather?"}]
    guise = await client.chat.completions.create(
        model="gpt-4o",
        temperature=0.0,
        messages=history("call_b", parts),
        tools=[WEATHER],
        user="someone",
    )
    assert bare(plain) == bare(guise)
    assert plain.choices[0].finish_reason == "stop"


async def test_tool_calls_carry_arguments_that_fit(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**ask("weather in three towns", tools=[WEATHER]))
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert len(calls) == 3
    assert len({call.id for call in calls}) == 3
    assert answer.choices[0].finish_reason == "tool_calls"
    for call in calls:
        assert call.type == "function"
        assert '"city":"' in call.function.arguments


async def test_parallel_calls_can_be_forbidden(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        **ask("weather in three towns", tools=[WEATHER], parallel_tool_calls=False)
    )
    assert len(answer.choices[0].message.tool_calls or []) == 1


async def test_a_deprecated_function_call_streams_as_it_is_answered(
    client: openai.AsyncOpenAI,
) -> None:
    request_body = ask("weather?", functions=[WEATHER["function"]])
    whole = await client.chat.completions.create(**request_body)
    arguments = ""
    async for chunk in await client.chat.completions.create(**request_body, stream=True):
        if chunk.choices[0].delta.function_call:
            arguments += chunk.choices[0].delta.function_call.arguments or ""
    assert whole.choices[0].message.function_call is not None
    assert whole.choices[0].message.function_call.arguments == arguments
    assert whole.choices[0].finish_reason == "function_call"


async def test_structured_output_parses_in_both_forms(client: openai.AsyncOpenAI) -> None:
    request_body = ask("solve it")
    whole = await client.chat.completions.parse(**request_body, response_format=Solution)
    async with client.chat.completions.stream(**request_body, response_format=Solution) as stream:
        streamed = await stream.get_final_completion()
    assert isinstance(whole.choices[0].message.parsed, Solution)
    assert whole.choices[0].message.parsed == streamed.choices[0].message.parsed


async def test_images_are_counted(client: openai.AsyncOpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    content = [{"type": "text", "text": "what is this"}, image, image]
    messages: Any = [{"role": "user", "content": content}]
    answer = await client.chat.completions.create(model="gpt-4o", messages=messages)
    assert "2 image(s)" in str(answer.choices[0].message.content)


async def test_usage_comes_only_when_asked_for(client: openai.AsyncOpenAI) -> None:
    plain = [c async for c in await client.chat.completions.create(**ask("hi"), stream=True)]
    asked = [
        c
        async for c in await client.chat.completions.create(
            **ask("hi"), stream=True, stream_options={"include_usage": True}
        )
    ]
    assert not any("usage" in c.model_fields_set for c in plain)
    assert all("usage" in c.model_fields_set for c in asked)
    assert [c.usage is not None for c in asked] == [False] * (len(asked) - 1) + [True]
    assert asked[-1].choices == []
    assert plain[0].choices[0].delta.model_dump(exclude_unset=True) == {
        "role": "assistant",
        "content": "",
        "refusal": None,
    }


async def test_the_body_carries_what_the_real_one_does(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(**ask("hi"))
    choice = raw.http_response.json()["choices"][0]
    assert choice["message"]["refusal"] is None
    assert choice["message"]["annotations"] == []
    assert choice["logprobs"] is None
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["x-ratelimit-limit-requests"] == "10000"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_errors_become_typed_exceptions(
    client: openai.AsyncOpenAI, status: int, kind: type[openai.APIStatusError]
) -> None:
    for streaming in (False, True):
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(**ask(f"[error {status}]"), stream=streaming)
        assert f"status {status}" in caught.value.message


async def test_an_error_can_come_in_the_middle_of_a_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(**ask("[error in stream]"), stream=True)
    seen: list[Any] = []
    with pytest.raises(openai.APIError, match="had an error"):
        await drain(stream, seen)
    assert len(seen) > 1


@pytest.mark.parametrize("streaming", [False, True])
async def test_the_connection_can_be_cut(client: openai.AsyncOpenAI, streaming: bool) -> None:
    async def consume() -> None:
        answer: Any = await client.chat.completions.create(**ask("[cut]"), stream=streaming)
        if streaming:
            async for _ in answer:
                pass

    with pytest.raises(Exception, match=r"(?i)peer closed|incomplete|connection"):
        await consume()


async def test_unknown_keys_are_refused(stub: StubProvider) -> None:
    stub.keys = frozenset({"sk-right"})
    async with openai.AsyncOpenAI(base_url=stub.v1_url, api_key="sk-wrong") as wrong:
        with pytest.raises(openai.AuthenticationError):
            await wrong.models.list()
    async with openai.AsyncOpenAI(base_url=stub.v1_url, api_key="sk-right") as right:
        assert (await right.models.list()).data


async def test_models_and_files_are_there(client: openai.AsyncOpenAI, stub: StubProvider) -> None:
    assert (await client.models.retrieve("gpt-4o")).id == "gpt-4o"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-none")
    uploaded = await client.files.create(file=("a.jsonl", b'{"a":1}\n'), purpose="batch")
    assert uploaded.bytes == 8
    assert [f.id async for f in client.files.list()] == [uploaded.id]
    assert (await client.files.content(uploaded.id)).content == b'{"a":1}\n'
    assert (await client.files.delete(uploaded.id)).deleted
    assert stub.calls["/v1/files"] == 2


async def test_embeddings_are_unit_vectors_in_both_encodings(client: openai.AsyncOpenAI) -> None:
    model = "text-embedding-3-small"
    packed = await client.embeddings.create(model=model, input=["a", "b"])
    spelled = await client.embeddings.create(model=model, input=["a", "b"], encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(spelled.data[0].embedding)
    assert packed.data[0].embedding != packed.data[1].embedding
    assert sum(x * x for x in packed.data[0].embedding) == pytest.approx(1.0, rel=1e-4)
    raw = await client.embeddings.with_raw_response.create(model=model, input="a", dimensions=64)
    assert len(base64.b64decode(raw.http_response.json()["data"][0]["embedding"])) == 4 * 64


async def test_responses_stream_ends_with_the_body(client: openai.AsyncOpenAI) -> None:
    whole = await client.responses.create(model="gpt-4o", input="hello")
    async with client.responses.stream(model="gpt-4o", input="hello") as stream:
        streamed = await stream.get_final_response()
    assert whole.output_text == streamed.output_text
    assert whole.usage == streamed.usage
    short = await client.responses.create(model="gpt-4o", input="hello", max_output_tokens=16)
    assert short.status == "completed" or short.incomplete_details is not None


async def test_old_completions_stream_adds_up(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt="hi", n=2)
    texts = ["", ""]
    async for chunk in await client.completions.create(
        model="gpt-3.5-turbo-instruct", prompt="hi", n=2, stream=True
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert [c.text for c in whole.choices] == texts
    assert whole.choices[0].finish_reason == "length"
