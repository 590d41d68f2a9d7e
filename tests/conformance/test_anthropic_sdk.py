"""Anthropic's SDK through the gateway: what it can do, and how it fails, as without a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.conformance.conftest import Client, OpenWorld, Sdk, World

# What the upstream said of this one call, which is untrue of a repeat.
OF_ONE_CALL = (
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-input-tokens-reset",
    "anthropic-organization-id",
    "cf-ray",
)


@pytest.fixture
def client(world: World, sdk: Sdk) -> Client:
    return sdk.anthropic(world.url)


@pytest.fixture
def provider(world: World, sdk: Sdk) -> Client:
    """The same SDK without a gateway."""
    return sdk.anthropic(world.stub.url)


def message(text: Any, /, **more: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": text}]
    return {"model": "claude-sonnet-5-5", "max_tokens": 1024, "messages": asked, **more}


def create(client: Client, **asked: Any) -> Any:
    return client.call(lambda c: c.messages.create(**asked))


def events(client: Client, seen: list[Any] | None = None, **asked: Any) -> list[Any]:
    return client.items(lambda c: c.messages.create(**asked, stream=True), seen)


def said(stream: list[Any]) -> str:
    deltas = [e.delta for e in stream if e.type == "content_block_delta"]
    return "".join(d.text for d in deltas if d.type == "text_delta")


# --- messages -------------------------------------------------------------------------------------


def test_the_provider_gets_what_the_sdk_sent(world: World, client: Client) -> None:
    create(client, **message("What is a cache? ☕"))
    seen, sent = world.stub.received[-1], client.heard[-1].request
    assert seen.path == "/v1/messages"
    assert seen.body == sent.content
    names = {"host", "connection", "accept-encoding"}
    given = {n: v for n, v in sent.headers.items() if n not in names}
    assert given == {n.lower(): v for n, v in seen.headers if n.lower() not in names}


def test_a_stream_recorded_as_a_stream_comes_again_event_by_event(
    client: Client, provider: Client
) -> None:
    asked = message("Stream it.")
    due = events(provider, **asked)
    for cache in ("miss", "hit"):
        stream = events(client, **asked)
        assert client.last["x-gateway-cache"] == cache
        assert client.last["content-type"].startswith("text/event-stream")
        assert stream[1:] == due[1:]
        assert stream[0].message.id != due[0].message.id
        assert stream[0].message.usage == due[0].message.usage


def test_a_message_comes_as_a_stream_of_the_documented_events(client: Client) -> None:
    first = create(client, **message("Stream it."))
    stream = events(client, **message("Stream it."))
    assert client.last["x-gateway-cache"] == "hit"
    kinds = [event.type for event in stream]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert said(stream) == first.content[0].text
    assert stream[-2].delta.stop_reason == "end_turn"
    assert stream[-2].usage.output_tokens == first.usage.output_tokens


def test_the_stream_helper_tells_the_same_text_on_a_hit(client: Client, provider: Client) -> None:
    def text(one: Client) -> Any:
        return one.within(lambda c: c.messages.stream(**message("Tell.")), _joined(one))

    due = text(provider)
    assert due
    assert [due, due] == [text(client), text(client)]
    assert client.last["x-gateway-cache"] == "hit"


def _joined(client: Client) -> Any:
    async def later(stream: Any) -> str:
        return "".join([text async for text in stream.text_stream])

    def now(stream: Any) -> str:
        return "".join(stream.text_stream)

    return now if client.loop is None else later


class City(BaseModel):
    name: str
    people: int


def test_structured_output_is_parsed_on_a_miss_and_on_a_hit(client: Client) -> None:
    asked = message("A city, please.", output_format=City)
    first = client.call(lambda c: c.messages.parse(**asked)).parsed_output
    assert isinstance(first, City)
    assert first == client.call(lambda c: c.messages.parse(**asked)).parsed_output
    assert client.last["x-gateway-cache"] == "hit"
    final = client.within(lambda c: c.messages.stream(**asked), lambda s: s.get_final_message())
    assert first == final.parsed_output
    assert client.last["x-gateway-cache"] == "hit"


def conversation(use_id: str) -> list[dict[str, Any]]:
    use = {"type": "tool_use", "id": use_id, "name": "look_outside", "input": {"city": "Oslo"}}
    result = {"type": "tool_result", "tool_use_id": use_id, "content": "Rain."}
    return [
        {"role": "user", "content": "How is it in Oslo?"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "And the weather in two other cities?"},
    ]


@pytest.mark.parametrize("form", ["body", "stream"])
def test_a_tool_use_id_that_the_history_holds_is_replaced_alone(client: Client, form: str) -> None:
    tool = {
        "name": "look_outside",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    # A model that doesn't think unless asked to: only then may ids be told apart by place.
    asked: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 99, "tools": [tool]}
    made = create(client, **asked, messages=conversation("toolu_01A09q90qw90lq917835lq9z"))
    first = [block.id for block in made.content if block.type == "tool_use"]
    assert len(first) == 2
    other = {**asked, "messages": conversation(first[0])}
    if form == "body":
        again = create(client, **other).content
    else:
        starts = [e for e in events(client, **other) if e.type == "content_block_start"]
        again = [e.content_block for e in starts]
    ids = [block.id for block in again if block.type == "tool_use"]
    assert client.last["x-gateway-cache"] == "hit"
    assert ids[0] != first[0]
    assert ids[0].startswith("toolu_")
    assert len(ids[0]) == len(first[0])
    assert ids[1:] == first[1:]


# --- headers --------------------------------------------------------------------------------------


def test_raw_responses_show_the_word_of_the_cache(client: Client) -> None:
    raw = client.call(lambda c: c.messages.with_raw_response.create(**message("Raw.")))
    assert raw.headers["x-gateway-cache"] == "miss"
    assert raw.headers["cache-status"].startswith("gateway; fwd=miss; fwd-status=200")
    assert all(name in raw.headers for name in OF_ONE_CALL)
    assert client.settled(raw.parse())._request_id == raw.headers["request-id"]

    ids = {raw.headers["request-id"], raw.headers["x-gateway-request-id"]}
    for _ in range(2):
        raw = client.call(lambda c: c.messages.with_raw_response.create(**message("Raw.")))
        assert raw.headers["x-gateway-cache"] == "hit"
        assert raw.headers["cache-status"].startswith("gateway; hit; ttl=")
        assert raw.headers["age"].isdigit()
        assert [] == [name for name in OF_ONE_CALL if name in raw.headers]
        assert client.settled(raw.parse())._request_id == raw.headers["request-id"]
        fresh = {raw.headers["request-id"], raw.headers["x-gateway-request-id"]}
        assert raw.headers["request-id"].startswith("req_")
        assert not fresh & ids
        ids |= fresh


def test_a_stream_helper_knows_its_request_id(client: Client) -> None:
    seen = set()
    for cache in ("miss", "hit"):
        seen.add(
            client.within(lambda c: c.messages.stream(**message("Raw.")), lambda s: s.request_id)
        )
        assert client.last["x-gateway-cache"] == cache
        # What nobody reads to its end is not kept: read it.
        events(client, **message("Raw."))
    assert len(seen) == 2
    assert None not in seen


# --- errors ---------------------------------------------------------------------------------------

ERRORS = [
    (400, anthropic.BadRequestError),
    (401, anthropic.AuthenticationError),
    (403, anthropic.PermissionDeniedError),
    (404, anthropic.NotFoundError),
    (413, anthropic.RequestTooLargeError),
    (429, anthropic.RateLimitError),
    (500, anthropic.InternalServerError),
    (529, anthropic.OverloadedError),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "kind"), ERRORS)
def test_an_error_is_the_exception_it_would_be_and_is_never_kept(
    world: World,
    client: Client,
    provider: Client,
    status: int,
    kind: type[anthropic.APIStatusError],
    stream: bool,
) -> None:
    asked = message(f"[error {status}] please", stream=stream)
    with pytest.raises(kind) as direct:
        create(provider, **asked)
    before = world.calls
    for number in (1, 2):
        with pytest.raises(kind) as caught:
            create(client, **asked)
        problem = caught.value
        assert type(problem) is type(direct.value)
        assert told(problem) == told(direct.value)
        assert problem.request_id == client.last["request-id"]
        assert problem.body["request_id"] == problem.request_id  # type: ignore[index]
        assert problem.response.headers["x-gateway-cache"] == "miss"
        assert (
            problem.response.headers["x-should-retry"]
            == (direct.value.response.headers["x-should-retry"])
        )
        assert world.calls == before + number


def told(problem: anthropic.APIStatusError) -> Any:
    """What the body of an error says, its request id aside."""
    assert isinstance(problem.body, dict)
    return {name: value for name, value in problem.body.items() if name != "request_id"}


def test_the_sdk_retries_as_the_provider_tells_it(world: World, sdk: Sdk) -> None:
    client = sdk.anthropic(world.url, max_retries=2)
    with pytest.raises(anthropic.RateLimitError):
        create(client, **message("[error 429]"))
    assert world.calls == 3


def test_a_wrong_key_is_refused_by_the_provider(world: World, sdk: Sdk) -> None:
    good, bad = (sdk.anthropic(world.url, api_key=key) for key in ("sk-good", "sk-bad"))
    world.stub.keys = frozenset({"sk-good"})
    create(good, **message("Who am I?"))
    with pytest.raises(anthropic.AuthenticationError):
        create(bad, **message("Who am I?"))
    create(good, **message("Who am I?"))
    assert good.last["x-gateway-cache"] == "hit"
    assert world.calls == 2


def test_an_error_in_a_stream_comes_after_what_was_said_and_is_never_kept(
    world: World, client: Client, provider: Client
) -> None:
    asked = message("[error in stream] and more")
    due: list[Any] = []
    with pytest.raises(anthropic.APIStatusError) as direct:
        events(provider, due, **asked)
    before = world.calls
    for number in (1, 2):
        seen: list[Any] = []
        with pytest.raises(anthropic.APIStatusError) as caught:
            events(client, seen, **asked)
        assert type(caught.value) is type(direct.value)
        assert told(caught.value) == told(direct.value)
        assert said(seen) == said(due) != ""
        assert world.calls == before + number


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_cut_off_fails_as_without_a_gateway_and_is_never_kept(
    world: World, client: Client, provider: Client, stream: bool
) -> None:
    ask = events if stream else create
    asked = message("[cut] this")
    with pytest.raises(Exception) as direct:  # noqa: PT011 - whatever the SDK makes of it
        ask(provider, **asked)
    before = world.calls
    for number in (1, 2):
        with pytest.raises(type(direct.value)):
            ask(client, **asked)
        assert world.calls == before + number


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (message("[refuse] this"), "refusal"),
        (message("[pause] this"), "pause_turn"),
        (message("[empty] this"), "end_turn"),
        (message("[long 200] this", max_tokens=40), "max_tokens"),
    ],
    ids=["refused", "paused", "empty", "truncated"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_none_comes_through_and_is_not_kept(
    world: World, client: Client, asked: dict[str, Any], reason: str, stream: bool
) -> None:
    for number in (1, 2):
        if stream:
            seen = events(client, **asked)[-2].delta.stop_reason
        else:
            seen = create(client, **asked).stop_reason
        assert seen == reason
        assert client.last["x-gateway-cache"] == "miss"
        assert world.calls == number


def test_refusals_are_kept_when_the_config_says_so(open_world: OpenWorld, sdk: Sdk) -> None:
    world = open_world(cache={"store": {"refused": True}})
    client = sdk.anthropic(world.url)
    first = create(client, **message("[refuse] this"))
    again = create(client, **message("[refuse] this"))
    assert client.last["x-gateway-cache"] == "hit"
    assert (first.content, first.stop_reason, first.stop_details) == (
        again.content,
        again.stop_reason,
        again.stop_details,
    )
    assert world.calls == 1


# --- everything else passes -----------------------------------------------------------------------


def passed(client: Client) -> bool:
    return (
        client.last["x-gateway-cache"] == "pass"
        and client.last["cache-status"] == "gateway; fwd=bypass; fwd-status=200; detail=route"
    )


def test_tokens_are_counted_by_the_provider(client: Client, provider: Client) -> None:
    asked = {"model": "claude-sonnet-5-5", "messages": [{"role": "user", "content": "Count me."}]}
    due = provider.call(lambda c: c.messages.count_tokens(**asked))
    assert due == client.call(lambda c: c.messages.count_tokens(**asked))
    assert passed(client)


def test_models_are_listed_and_found(client: Client, provider: Client) -> None:
    due = provider.items(lambda c: c.models.list(limit=5))
    assert len(due) > 1
    assert due == client.items(lambda c: c.models.list(limit=5))
    assert passed(client)
    assert due[0] == client.call(lambda c: c.models.retrieve(due[0].id))
    with pytest.raises(anthropic.NotFoundError):
        client.call(lambda c: c.models.retrieve("no-such-model"))


def test_a_path_that_the_provider_does_not_have_is_for_the_provider_to_say(
    world: World, client: Client
) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.items(lambda c: c.messages.batches.list())
    assert caught.value.response.headers["x-gateway-cache"] == "pass"
    assert world.calls == 1


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        ({"type": "web_search_20250305", "name": "web_search"}, "hosted-tool"),
        ({"type": "code_execution_20250825", "name": "code_execution"}, "hosted-tool"),
    ],
)
def test_what_depends_on_more_than_the_request_passes(
    world: World, client: Client, tool: dict[str, Any], reason: str
) -> None:
    for _ in range(2):
        create(client, **message("What is new?", tools=[tool]))
        assert client.last["x-gateway-cache"] == "pass"
        assert client.last["cache-status"].endswith(f"detail={reason}")
    assert world.calls == 2
