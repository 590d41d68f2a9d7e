"""OpenAI's SDK through the gateway: how it fails is how it fails without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from tests.conformance.conftest import Client, OpenWorld, Sdk, World


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


def said(stream: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)


ERRORS = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (409, openai.ConflictError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (503, openai.InternalServerError),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "kind"), ERRORS)
def test_an_error_is_the_exception_it_would_be_and_is_never_kept(
    world: World,
    client: Client,
    provider: Client,
    status: int,
    kind: type[openai.APIStatusError],
    stream: bool,
) -> None:
    asked = chat(f"[error {status}] please", stream=stream)
    with pytest.raises(kind) as direct:
        create(provider, **asked)
    before = world.calls
    for number in (1, 2):
        with pytest.raises(kind) as caught:
            create(client, **asked)
        problem = caught.value
        assert type(problem) is kind
        assert problem.body == direct.value.body
        assert (problem.code, problem.param, problem.type) == (
            direct.value.code,
            direct.value.param,
            direct.value.type,
        )
        assert problem.request_id == client.last["x-request-id"]
        assert problem.response.headers["x-gateway-cache"] == "miss"
        assert problem.response.headers.get("retry-after") == direct.value.response.headers.get(
            "retry-after"
        )
        assert world.calls == before + number


def test_the_sdk_retries_as_the_provider_tells_it(world: World, sdk: Sdk) -> None:
    client = sdk.openai(f"{world.url}/v1", max_retries=2)
    with pytest.raises(openai.RateLimitError):
        create(client, **chat("[error 429]"))
    assert world.calls == 3
    retries = [seen.header("x-stainless-retry-count") for seen in world.stub.received]
    assert retries == ["0", "1", "2"]


def test_a_wrong_key_is_refused_by_the_provider(world: World, sdk: Sdk) -> None:
    good, bad = (sdk.openai(f"{world.url}/v1", api_key=key) for key in ("sk-good", "sk-bad"))
    world.stub.keys = frozenset({"sk-good"})
    create(good, **chat("Who am I?"))
    with pytest.raises(openai.AuthenticationError) as caught:
        create(bad, **chat("Who am I?"))
    assert caught.value.code == "invalid_api_key"
    create(good, **chat("Who am I?"))
    assert good.last["x-gateway-cache"] == "hit"
    assert world.calls == 2


def test_an_error_in_a_stream_comes_after_what_was_said_and_is_never_kept(
    world: World, client: Client, provider: Client
) -> None:
    asked = chat("[error in stream] and more")
    due: list[Any] = []
    with pytest.raises(openai.APIError) as direct:
        chunks(provider, due, **asked)
    before = world.calls
    for number in (1, 2):
        seen: list[Any] = []
        with pytest.raises(openai.APIError) as caught:
            chunks(client, seen, **asked)
        assert caught.value.body == direct.value.body
        assert said(seen) == said(due) != ""
        assert world.calls == before + number


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_cut_off_is_a_connection_error_and_is_never_kept(
    world: World, client: Client, stream: bool
) -> None:
    asked = chat("[cut] this")
    for number in (1, 2):
        with pytest.raises(openai.APIConnectionError):
            chunks(client, **asked) if stream else create(client, **asked)
        assert world.calls == number


@pytest.mark.parametrize(
    "asked",
    [
        chat("[refuse] this"),
        chat("[filter] this"),
        chat("[empty] this"),
        chat("[long 200] this", max_completion_tokens=40),
    ],
    ids=["refused", "filtered", "empty", "truncated"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_none_comes_through_and_is_not_kept(
    world: World, client: Client, asked: dict[str, Any], stream: bool
) -> None:
    for number in (1, 2):
        if stream:
            finish = chunks(client, **asked)[-1].choices[0].finish_reason
        else:
            finish = create(client, **asked).choices[0].finish_reason
        assert finish in {"stop", "content_filter", "length"}
        assert client.last["x-gateway-cache"] == "miss"
        assert world.calls == number


def test_refusals_are_kept_when_the_config_says_so(open_world: OpenWorld, sdk: Sdk) -> None:
    world = open_world(cache={"store": {"refused": True}})
    client = sdk.openai(f"{world.url}/v1")
    first = create(client, **chat("[refuse] this")).choices[0].message
    again = create(client, **chat("[refuse] this")).choices[0].message
    stream = chunks(client, **chat("[refuse] this"))
    assert client.last["x-gateway-cache"] == "hit"
    assert first.refusal
    assert first == again
    assert first.refusal == "".join(c.choices[0].delta.refusal or "" for c in stream)
    assert world.calls == 1
