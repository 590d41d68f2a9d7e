"""OpenAI's SDK through the gateway: what it can do, and how it fails, as without a gateway."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from tests.conformance.conftest import Client, OpenWorld, Sdk, World

# What the upstream said of this one call, which is untrue of a repeat.
OF_ONE_CALL = (
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "openai-processing-ms",
    "openai-organization",
    "openai-version",
    "set-cookie",
    "cf-ray",
)


@pytest.fixture
def client(world: World, sdk: Sdk) -> Client:
    return sdk.openai(f"{world.url}/v1")


@pytest.fixture
def provider(world: World, sdk: Sdk) -> Client:
    """The same SDK without a gateway."""
    return sdk.openai(world.stub.v1_url)


def chat(text: Any, /, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def create(client: Client, **asked: Any) -> Any:
    return client.call(lambda c: c.chat.completions.create(**asked))


def chunks(client: Client, seen: list[Any] | None = None, **asked: Any) -> list[Any]:
    return client.items(lambda c: c.chat.completions.create(**asked, stream=True), seen)


# --- chat -----------------------------------------------------------------------------------------


def test_the_provider_gets_what_the_sdk_sent(world: World, client: Client) -> None:
    create(client, **chat("What is a cache? ☕", temperature=0.5, user="u-1"))
    seen, sent = world.stub.received[-1], client.heard[-1].request
    assert seen.path == "/v1/chat/completions"
    assert seen.body == sent.content
    names = {"host", "connection", "accept-encoding"}
    given = {n: v for n, v in sent.headers.items() if n not in names}
    assert given == {n.lower(): v for n, v in seen.headers if n.lower() not in names}


@pytest.mark.parametrize("name", ["seed", "temperature", "user", "n"])
def test_another_question_is_another_answer(world: World, client: Client, name: str) -> None:
    for value, cache in ((1, "miss"), (2, "hit" if name == "user" else "miss")):
        more = {name: str(value)} if name == "user" else {name: value}
        create(client, **chat("Pick a number.", **more))
        assert client.last["x-gateway-cache"] == cache


def test_a_stream_that_did_not_ask_for_usage_gets_none(world: World, client: Client) -> None:
    for cache in ("miss", "hit"):
        stream = chunks(client, **chat("Stream it."))
        assert client.last["x-gateway-cache"] == cache
        assert client.last["content-type"].startswith("text/event-stream")
        assert all(c.choices for c in stream)
        assert not any("usage" in c.model_fields_set for c in stream)
        assert stream[-1].choices[0].finish_reason == "stop"
        assert len({c.id for c in stream}) == 1
        assert len({c.created for c in stream}) == 1


@pytest.mark.parametrize("recorded", ["body", "stream", "stream with usage"])
def test_a_stream_that_asked_for_usage_gets_it_last_and_once(client: Client, recorded: str) -> None:
    if recorded == "body":
        first = create(client, **chat("Stream it.")).usage
    elif recorded == "stream":
        chunks(client, **chat("Stream it."))
        first = None
    else:
        options = {"include_usage": True}
        first = chunks(client, **chat("Stream it.", stream_options=options))[-1].usage
    stream = chunks(client, **chat("Stream it.", stream_options={"include_usage": True}))
    assert client.last["x-gateway-cache"] == "hit"
    assert [] == stream[-1].choices
    assert [None] * (len(stream) - 1) == [c.usage for c in stream[:-1]]
    assert all(c.choices and "usage" in c.model_fields_set for c in stream[:-1])
    assert stream[-1].usage.total_tokens > 0
    assert first is None or first == stream[-1].usage


def test_the_stream_helper_tells_the_same_events_on_a_hit(
    world: World, client: Client, provider: Client
) -> None:
    def events(one: Client) -> list[str]:
        asked = chat("Tell me.")
        return one.within(  # type: ignore[no-any-return]
            lambda c: c.chat.completions.stream(**asked), kinds_async if is_async else kinds
        )

    def kinds(stream: Any) -> list[str]:
        return [event.type for event in stream]

    async def kinds_async(stream: Any) -> list[str]:
        return [event.type async for event in stream]

    is_async = client.loop is not None
    due = events(provider)
    assert {"chunk", "content.delta", "content.done"} == set(due)
    assert due == events(client)
    assert client.last["x-gateway-cache"] == "miss"
    # Recorded as a stream, an answer is replayed chunk by chunk.
    assert due == events(client)
    assert client.last["x-gateway-cache"] == "hit"


CONVERSATION: list[dict[str, Any]] = [
    {"role": "user", "content": "How is the weather in Oslo?"},
    {
        "role": "assistant",
        "tool_calls": [
            {
                "id": "call_Jx3Qe0aZtY7mWcVb9LkD2RfS",
                "type": "function",
                "function": {"name": "look_outside", "arguments": '{"city":"Oslo"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_Jx3Qe0aZtY7mWcVb9LkD2RfS", "content": "Rain."},
    {"role": "user", "content": "And the weather in two other cities?"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "look_outside",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def with_id(call_id: str) -> list[dict[str, Any]]:
    """The conversation, its one call under another id."""
    user, assistant, tool, again = CONVERSATION
    call = {**assistant["tool_calls"][0], "id": call_id}
    return [user, {**assistant, "tool_calls": [call]}, {**tool, "tool_call_id": call_id}, again]


@pytest.mark.parametrize("form", ["body", "stream"])
def test_a_tool_call_id_that_the_history_holds_is_replaced_alone(client: Client, form: str) -> None:
    asked: dict[str, Any] = {"model": "gpt-4o", "tools": [TOOL]}
    first = create(client, **asked, messages=CONVERSATION).choices[0].message.tool_calls
    assert len(first) == 2
    other = {**asked, "messages": with_id(first[0].id)}
    if form == "body":
        ids = [c.id for c in create(client, **other).choices[0].message.tool_calls]
    else:
        deltas = [c.choices[0].delta.tool_calls or [] for c in chunks(client, **other)]
        ids = [call.id for calls in deltas for call in calls if call.id]
    assert client.last["x-gateway-cache"] == "hit"
    assert ids[0] != first[0].id
    assert ids[0].startswith("call_")
    assert len(ids[0]) == len(first[0].id)
    assert ids[1:] == [first[1].id]


def test_many_at_once_get_their_own_answers(world: World, client: Client) -> None:
    questions = [f"What is {number} times {number}?" for number in range(40)]

    def ask(question: str) -> Any:
        return client.sdk.chat.completions.create(**chat(question))

    for calls in (40, 40):
        if client.loop is None:
            with ThreadPoolExecutor(8) as threads:
                answers = list(threads.map(ask, questions))
        else:
            answers = client.loop.run(_together([ask(question) for question in questions]))
        for question, answer in zip(questions, answers, strict=True):
            assert f'You asked "{question}"' in answer.choices[0].message.content
        world.settle()
        assert world.calls == calls


async def _together(asked: list[Any]) -> list[Any]:
    return await asyncio.gather(*asked)


# --- headers --------------------------------------------------------------------------------------


def test_raw_responses_show_the_word_of_the_cache(client: Client) -> None:
    raw = client.call(lambda c: c.chat.completions.with_raw_response.create(**chat("Raw.")))
    assert raw.headers["x-gateway-cache"] == "miss"
    assert raw.headers["cache-status"].startswith("gateway; fwd=miss; fwd-status=200")
    assert "age" not in raw.headers
    assert all(name in raw.headers for name in OF_ONE_CALL)
    first = raw.parse()
    assert first._request_id == raw.headers["x-request-id"]

    ids = {raw.headers["x-request-id"], raw.headers["x-gateway-request-id"]}
    for _ in range(2):
        raw = client.call(lambda c: c.chat.completions.with_raw_response.create(**chat("Raw.")))
        assert raw.headers["x-gateway-cache"] == "hit"
        assert raw.headers["cache-status"].startswith("gateway; hit; ttl=")
        assert raw.headers["age"].isdigit()
        assert [] == [name for name in OF_ONE_CALL if name in raw.headers]
        again = raw.parse()
        assert again._request_id == raw.headers["x-request-id"]
        fresh = {raw.headers["x-request-id"], raw.headers["x-gateway-request-id"]}
        assert raw.headers["x-request-id"].startswith("req_")
        assert not fresh & ids
        ids |= fresh


def test_streamed_responses_show_it_too(client: Client) -> None:
    def read(response: Any) -> Any:
        async def later() -> list[str]:
            return [line async for line in response.iter_lines()]

        return later() if client.loop is not None else list(response.iter_lines())

    def asked(c: Any) -> Any:
        create = c.chat.completions.with_streaming_response.create
        return create(**chat("Raw."), stream=True)

    for cache in ("miss", "hit"):
        lines = client.within(asked, read)
        assert client.last["x-gateway-cache"] == cache
        assert ("x-ratelimit-remaining-requests" in client.last) is (cache == "miss")
        assert lines[-2:] == ["data: [DONE]", ""]


# --- everything else passes -----------------------------------------------------------------------


def passed(client: Client) -> bool:
    return (
        client.last["x-gateway-cache"] == "pass"
        and client.last["cache-status"] == "gateway; fwd=bypass; fwd-status=200; detail=route"
        and "x-gateway-request-id" in client.last
    )


def test_models_are_listed_and_found(client: Client, provider: Client) -> None:
    due = provider.items(lambda c: c.models.list())
    assert len(due) > 1
    assert due == client.items(lambda c: c.models.list())
    assert passed(client)
    assert due[0] == client.call(lambda c: c.models.retrieve(due[0].id))
    assert passed(client)
    with pytest.raises(openai.NotFoundError) as caught:
        client.call(lambda c: c.models.retrieve("no-such-model"))
    assert caught.value.code == "model_not_found"


def test_files_go_up_and_come_down(open_world: OpenWorld, sdk: Sdk) -> None:
    world = open_world(server={"body_limit_bytes": 100_000})
    client = sdk.openai(f"{world.url}/v1")
    # Larger than the limit, which holds for what the gateway reads, not for what passes.
    content = bytes(range(256)) * 4_000
    made = client.call(
        lambda c: c.files.create(file=("a name.jsonl", content), purpose="user_data")
    )
    assert passed(client)
    assert (made.filename, made.bytes) == ("a name.jsonl", len(content))
    assert world.stub.received[-1].body == client.heard[-1].request.read()
    assert [made] == client.items(lambda c: c.files.list())
    assert made == client.call(lambda c: c.files.retrieve(made.id))
    assert content == client.call(lambda c: c.files.content(made.id)).content
    assert passed(client)
    assert client.call(lambda c: c.files.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        client.call(lambda c: c.files.retrieve(made.id))


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.responses.retrieve("resp_0123"),
        lambda c: c.responses.input_items.list("resp_0123"),
        lambda c: c.moderations.create(input="What is a cache?"),
        lambda c: c.images.generate(model="gpt-image-1", prompt="A cache."),
        lambda c: c.batches.list(),
    ],
    ids=["responses", "input items", "moderations", "images", "batches"],
)
def test_an_error_of_a_passed_route_is_the_exception_it_would_be(
    world: World, client: Client, ask: Any
) -> None:
    # A path that the provider doesn't have is for the provider to say.
    with pytest.raises(openai.NotFoundError) as caught:
        client.call(ask)
    assert caught.value.response.headers["x-gateway-cache"] == "pass"
    assert world.calls == 1


def test_a_kept_response_is_deleted(world: World, client: Client) -> None:
    asked = {"model": "gpt-4o", "input": "What is a cache?"}
    made = client.call(lambda c: c.responses.create(**asked))
    world.settle()
    assert made == client.call(lambda c: c.responses.create(**asked))
    assert client.last["x-gateway-cache"] == "hit"
    client.call(lambda c: c.responses.delete(made.id))
    assert client.last["x-gateway-cache"] == "pass"
    world.settle()
    assert client.call(lambda c: c.responses.create(**asked)).id != made.id
    assert client.last["x-gateway-cache"] == "miss"


@pytest.mark.parametrize(
    "ask",
    [
        lambda c, text: c.responses.create(model="gpt-4o", input=text),
        lambda c, text: c.completions.create(model="gpt-3.5-turbo-instruct", prompt=text),
        lambda c, text: c.embeddings.create(model="text-embedding-3-small", input=[text, "two"]),
    ],
    ids=["responses", "completions", "embeddings"],
)
def test_the_other_apis_raise_what_the_upstream_said(
    world: World, client: Client, ask: Any
) -> None:
    for calls in (1, 2):
        with pytest.raises(openai.RateLimitError) as caught:
            client.call(lambda c: ask(c, "[error 429]"))
        assert caught.value.response.headers["x-gateway-cache"] == "miss"
        assert world.calls == calls


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"store": True}, "provider-stored"),
        ({"web_search_options": {}}, "hosted-tool"),
        ({"model": "gpt-4o-search-preview"}, "search-model"),
    ],
)
def test_what_depends_on_more_than_the_request_passes(
    world: World, client: Client, more: dict[str, Any], reason: str
) -> None:
    for _ in range(2):
        create(client, **{**chat("What is new?"), **more})
        assert client.last["x-gateway-cache"] == "pass"
        assert client.last["cache-status"].endswith(f"detail={reason}")
    assert world.calls == 2
