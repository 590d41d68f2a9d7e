"""What the gateway itself answers, as the SDKs understand it: directives, refusals, errors."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import orjson
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.conftest import Client, OpenWorld, Sdk, World

APIS = ("openai", "anthropic")
TOOLS = {
    "openai": [{"type": "function", "function": {"name": "look_outside", "parameters": {}}}],
    "anthropic": [{"name": "look_outside", "input_schema": {"type": "object", "properties": {}}}],
}


class Both:
    """One face for both APIs, as far as these tests ask."""

    def __init__(self, api: str, sdk: Sdk, url: str, **options: Any) -> None:
        self.api = api
        self.error: Any = openai if api == "openai" else anthropic
        if api == "openai":
            self.client: Client = sdk.openai(f"{url}/v1", **options)
        else:
            self.client = sdk.anthropic(url, **options)

    def ask(self, text: str = "What is a cache?", directives: str = "", **more: Any) -> Any:
        """Send the question, under these `Cache-Control` directives."""
        headers = {"Cache-Control": directives} if directives else {}
        asked = [{"role": "user", "content": text}]
        if self.api == "openai":
            more = {"model": "gpt-4o", "messages": asked, "extra_headers": headers, **more}
            return self.client.call(lambda c: c.chat.completions.create(**more))
        more = {"model": "claude-haiku-4-5", "max_tokens": 99, "messages": asked, **more}
        return self.client.call(lambda c: c.messages.create(**more, extra_headers=headers))

    def tool_id(self, directives: str = "") -> str:
        """The id of the tool call that the question gets: the provider makes a new one each time."""
        answer = self.ask("The weather?", directives, tools=TOOLS[self.api])
        if self.api == "openai":
            return str(answer.choices[0].message.tool_calls[0].id)
        return str(next(block.id for block in answer.content if block.type == "tool_use"))

    @property
    def cache(self) -> str:
        """The word of the cache on the last answer."""
        return self.client.last["x-gateway-cache"]


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def both(world: World, sdk: Sdk, api: str) -> Both:
    return Both(api, sdk, world.url)


def refused(problem: Any, api: str, status: int, code: str) -> None:
    """Is the error in the API's own shape, and does it say what it should?"""
    assert problem.status_code == status
    headers = problem.response.headers
    assert headers["content-type"].startswith("application/json")
    assert headers["x-gateway-request-id"].startswith("gw_")
    if api == "openai":
        # The SDK takes the members out of `error`.
        assert isinstance(problem.body, dict)
        assert problem.body.keys() == {"message", "type", "param", "code"}
        assert problem.code == code
    else:
        assert problem.body["type"] == "error"
        assert problem.body["error"].keys() >= {"type", "message"}
        assert code in orjson.dumps(problem.body).decode()


# --- directives -----------------------------------------------------------------------------------


def test_only_if_cached_is_a_504_that_the_sdk_does_not_retry(
    world: World, sdk: Sdk, api: str
) -> None:
    both = Both(api, sdk, world.url, max_retries=3)
    with pytest.raises(both.error.InternalServerError) as caught:
        both.ask(directives="only-if-cached")
    refused(caught.value, api, 504, "gateway_not_in_cache")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(both.client.heard) == 1
    assert world.calls == 0


def test_only_if_cached_is_served_from_the_cache(world: World, both: Both) -> None:
    both.ask()
    both.ask(directives="only-if-cached")
    assert both.cache == "hit"
    assert world.calls == 1


def test_only_if_cached_never_reaches_a_provider_on_a_passed_route(world: World, sdk: Sdk) -> None:
    client = sdk.openai(f"{world.url}/v1")
    headers = {"Cache-Control": "only-if-cached"}
    with pytest.raises(openai.InternalServerError) as caught:
        client.call(lambda c: c.embeddings.create(model="m", input="text", extra_headers=headers))
    refused(caught.value, "openai", 504, "gateway_not_in_cache")
    assert world.calls == 0


def test_only_if_cached_never_reaches_a_provider_for_what_is_not_cached(
    world: World, sdk: Sdk
) -> None:
    both = Both("openai", sdk, world.url)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            both.ask(directives="only-if-cached", store=True, stream=stream)
        refused(caught.value, "openai", 504, "gateway_not_in_cache")
        assert "provider-stored" in caught.value.message
    assert world.calls == 0


@pytest.mark.parametrize("directives", ["no-cache", "max-age=0", "No-Cache, max-stale"])
def test_no_cache_asks_again_and_replaces(world: World, both: Both, directives: str) -> None:
    first = both.tool_id()
    assert first == both.tool_id()
    assert both.cache == "hit"
    second = both.tool_id(directives)
    assert (both.cache, second != first) == ("miss", True)
    assert "fwd=request" in both.client.last["cache-status"]
    assert second == both.tool_id()
    assert both.cache == "hit"
    assert world.calls == 2


def test_no_store_writes_nothing_but_may_read(world: World, both: Both) -> None:
    for number in (1, 2):
        both.ask(directives="no-store")
        assert (both.cache, world.calls) == ("miss", number)
    both.ask()
    assert (both.cache, world.calls) == ("miss", 3)
    both.ask(directives="no-store")
    assert (both.cache, world.calls) == ("hit", 3)
    both.ask(directives="no-cache, no-store")
    assert (both.cache, world.calls) == ("miss", 4)


@pytest.mark.parametrize("provider", ["openai", None])
def test_a_stream_that_may_not_be_changed_serves_only_what_it_holds(
    open_world: OpenWorld, world: World, sdk: Sdk, provider: str | None
) -> None:
    """`no-transform`, and any provider that we know nothing about: usage is not asked for."""
    there = {"base_url": world.stub.v1_url, "provider": provider}
    client = sdk.openai(f"{open_world(upstreams={'openai': there}).url}/v1")
    directives = {"Cache-Control": "no-transform"} if provider else {}

    def ask(**more: Any) -> str:
        asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What?"}], **more}
        if "stream" in more:
            client.items(lambda c: c.chat.completions.create(**asked, extra_headers=directives))
        else:
            client.call(lambda c: c.chat.completions.create(**asked, extra_headers=directives))
        return client.last["x-gateway-cache"]

    assert ask(stream=True) == "miss"
    assert world.stub.received[-1].body == client.heard[-1].request.content
    assert ask(stream=True) == "hit"
    with_usage = {"stream": True, "stream_options": {"include_usage": True}}
    assert ask(**with_usage) == "miss"
    assert "form-unavailable" in client.last["cache-status"]
    assert [ask(**with_usage), ask(), ask(stream=True)] == ["hit", "hit", "hit"]
    assert world.calls == 2


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time of day that a gateway sees; the test moves it."""
    seen = [1_800_000_000.0]
    clock = SimpleNamespace(time=lambda: seen[0], monotonic=time.monotonic)
    monkeypatch.setattr("gateway.app.time", clock)
    return iter([seen])


def test_max_age_and_min_fresh_narrow_what_is_served(
    now: Iterator[list[float]], open_world: OpenWorld, sdk: Sdk, api: str
) -> None:
    time_of_day = next(now)
    world = open_world(cache={"ttl_s": 600})
    both = Both(api, sdk, world.url)
    both.ask()
    world.settle()
    time_of_day[0] += 100.5
    for directives in ("", "max-age=101", "min-fresh=499"):
        both.ask(directives=directives)
        assert both.cache == "hit"
        assert both.client.last["age"] == "100"
        assert both.client.last["cache-status"] == "gateway; hit; ttl=499"
    for directives in ("max-age=100", "min-fresh=500"):
        with pytest.raises(both.error.InternalServerError) as caught:
            both.ask(directives=f"only-if-cached, {directives}")
        assert "too-old" in caught.value.message
    assert world.calls == 1
    both.ask(directives="max-age=100")
    assert (both.cache, world.calls) == ("miss", 2)
    both.ask(directives="max-age=100")
    assert (both.cache, both.client.last["age"]) == ("hit", "0")
    world.settle()
    time_of_day[0] += 600
    both.ask()
    assert (both.cache, world.calls) == ("miss", 3)


def test_created_is_the_time_of_the_hit(
    now: Iterator[list[float]], open_world: OpenWorld, sdk: Sdk
) -> None:
    time_of_day = next(now)
    world = open_world()
    both = Both("openai", sdk, world.url)
    both.ask()
    world.settle()
    time_of_day[0] += 100
    assert both.ask().created == int(time_of_day[0])


# --- paths ----------------------------------------------------------------------------------------


def test_a_path_that_is_not_there_is_a_404_that_says_what_to_set(
    world: World, sdk: Sdk, api: str
) -> None:
    # Both are common mistakes: OpenAI's SDK wants the /v1, Anthropic's doesn't.
    url = world.url if api == "openai" else f"{world.url}/anthropic"
    client = sdk.openai(url, max_retries=2) if api == "openai" else sdk.anthropic(url)
    both = Both(api, sdk, world.url)
    both.client = client
    with pytest.raises(both.error.NotFoundError) as caught:
        both.ask()
    refused(caught.value, api, 404, "gateway_not_found")
    assert "/v1/" in caught.value.message
    assert len(client.heard) == 1
    assert world.calls == 0


def test_an_upstream_may_be_named_in_the_path(open_world: OpenWorld, sdk: Sdk, api: str) -> None:
    world = open_world()
    named = Both(api, sdk, f"{world.url}/u/{api}")
    named.ask()
    assert (named.cache, world.calls) == ("miss", 1)
    assert world.stub.received[-1].path.startswith("/v1/")
    # The same endpoint by its shape: the same answer.
    plain = Both(api, sdk, world.url)
    plain.ask()
    assert (plain.cache, world.calls) == ("hit", 1)
    unnamed = Both(api, sdk, f"{world.url}/u/nobody")
    with pytest.raises(unnamed.error.NotFoundError) as caught:
        unnamed.ask()
    refused(caught.value, api, 404, "gateway_not_found")
    assert "nobody" in caught.value.message
    assert world.calls == 1


def test_upstreams_do_not_share_answers(open_world: OpenWorld, world: World, sdk: Sdk) -> None:
    here = {"base_url": world.stub.v1_url, "provider": "openai"}
    other = open_world(upstreams={"twin": here, "stranger": {**here, "provider": None}})
    for number, name in enumerate(("twin", "stranger", "openai")):
        both = Both("openai", sdk, f"{other.url}/u/{name}")
        both.ask()
        assert both.cache == "miss"
        both.ask()
        assert both.cache == "hit"
        assert world.calls == min(number + 1, 2)


def test_the_root_answers(world: World) -> None:
    with httpx2.Client(trust_env=False) as client:
        head, got = client.head(world.url), client.get(world.url)
        assert (head.status_code, head.content) == (200, b"")
        assert got.status_code == 200
        assert got.json()["name"] == "warmgate"
        assert head.headers["content-length"] == str(len(got.content))
        assert client.post(world.url).status_code == 404
    assert world.calls == 0


# --- what can't be done ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5_000, 8_000_000])
def test_a_body_that_is_too_large_is_a_413_in_the_shape_of_the_api(
    open_world: OpenWorld, sdk: Sdk, api: str, size: int
) -> None:
    world = open_world(server={"body_limit_bytes": 4_000})
    both = Both(api, sdk, world.url, max_retries=2)
    with pytest.raises(both.error.APIStatusError) as caught:
        both.ask("x" * size)
    refused(caught.value, api, 413, "gateway_body_too_large")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "server.body_limit_bytes" in caught.value.message
    assert len(both.client.heard) == 1
    # The client's connection is as good as before.
    both.ask("short")
    assert (both.cache, world.calls) == ("miss", 1)


def test_a_body_without_a_length_is_bounded_too(open_world: OpenWorld) -> None:
    world = open_world(server={"body_limit_bytes": 4_000})
    with httpx2.Client(trust_env=False) as client:
        answer = client.post(
            f"{world.url}/v1/chat/completions", content=iter([b"{", b" " * 5_000, b"}"])
        )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "gateway_body_too_large"
    assert world.calls == 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_is_away_is_a_502_that_the_sdk_may_retry(
    open_world: OpenWorld, sdk: Sdk, api: str, stream: bool
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = {"base_url": f"http://127.0.0.1:{closed.getsockname()[1]}/v1", "provider": api}
        world = open_world(upstreams={api: away})
        both = Both(api, sdk, world.url)
        with pytest.raises(both.error.InternalServerError) as caught:
            both.ask(stream=stream)
        refused(caught.value, api, 502, "gateway_upstream_unreachable")
        assert "x-should-retry" not in caught.value.response.headers
        patient = Both(api, sdk, world.url, max_retries=1)
        with pytest.raises(patient.error.InternalServerError):
            patient.ask(stream=stream)
        assert len(patient.client.heard) == 2


def test_a_hit_needs_no_upstream(world: World, both: Both) -> None:
    both.ask()
    world.elsewhere.run(world.stub.stop())
    both.ask()
    assert both.cache == "hit"
    with pytest.raises(both.error.InternalServerError):
        both.ask("Something else?")


def test_an_upstream_that_stays_silent_is_a_504(open_world: OpenWorld, sdk: Sdk, api: str) -> None:
    quiet = open_world()
    slow = {"base_url": quiet.stub.v1_url, "provider": api, "idle_timeout_s": 0.1}
    quiet.stub.latency_s = 30.0
    world = open_world(upstreams={api: slow})
    both = Both(api, sdk, world.url)
    with pytest.raises(both.error.InternalServerError) as caught:
        both.ask()
    refused(caught.value, api, 504, "gateway_upstream_timeout")
    assert "idle_timeout_s" in caught.value.message
