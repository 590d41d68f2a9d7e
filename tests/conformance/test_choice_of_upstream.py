"""Programs that know nothing of a gateway but its address: whom they reach, what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.conftest import OpenWorld, Sdk, World

CHAT: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "What is a cache?"}],
}
MESSAGE: dict[str, Any] = {**CHAT, "model": "claude-haiku-4-5", "max_tokens": 99}
COUNTED = {"model": "claude-haiku-4-5", "messages": CHAT["messages"]}


def test_the_environment_is_all_that_a_program_needs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `gateway serve` prints it, with the clients' own defaults."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-b")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{world.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", world.url)
    for _ in range(2):
        with openai.OpenAI() as one:
            assert one.chat.completions.create(**CHAT).choices[0].message.content
        with anthropic.Anthropic() as other:
            assert other.messages.create(**MESSAGE).content
    assert world.stub.calls == {"/v1/chat/completions": 1, "/v1/messages": 1}
    # Releases of Anthropic's SDK differ in which header they use.
    chat, message = (
        {seen.header("authorization"), seen.header("x-api-key")} for seen in world.stub.received
    )
    assert "Bearer sk-a" in chat
    assert message & {"Bearer sk-b", "sk-b"}


OPENAI: list[Callable[[Any], Any]] = [
    lambda c: c.chat.completions.create(**CHAT),
    lambda c: c.models.list(),
    lambda c: c.models.retrieve("gpt-4o"),
    lambda c: c.files.list(),
    lambda c: c.embeddings.create(model="text-embedding-3-small", input="text"),
    lambda c: c.responses.create(model="gpt-4o", input="text"),
    lambda c: c.completions.create(model="gpt-3.5-turbo-instruct", prompt="text"),
]
ANTHROPIC: list[Callable[[Any], Any]] = [
    lambda c: c.messages.create(**MESSAGE),
    lambda c: c.messages.count_tokens(**COUNTED),
    lambda c: c.models.list(),
    lambda c: c.models.retrieve("claude-haiku-5-5"),
    lambda c: c.beta.messages.create(**MESSAGE, betas=["a-beta-2026-01-01"]),
]


@pytest.mark.parametrize(("api", "asks"), [("openai", OPENAI), ("anthropic", ANTHROPIC)])
def test_each_sdk_reaches_its_own_provider(
    open_world: OpenWorld, sdk: Sdk, api: str, asks: list[Callable[[Any], Any]]
) -> None:
    mine, others = open_world(), open_world()
    upstreams = {
        name: {"base_url": where.stub.v1_url, "provider": name}
        for name, where in (
            ("openai", mine if api == "openai" else others),
            ("anthropic", mine if api == "anthropic" else others),
        )
    }
    world = open_world(upstreams=upstreams)
    client = sdk.openai(f"{world.url}/v1") if api == "openai" else sdk.anthropic(world.url)
    for number, ask in enumerate(asks, 1):
        client.call(ask)
        assert (mine.calls, others.calls) == (number, 0)
    # A token instead of a key changes nothing in that.
    if api == "anthropic":
        tokened = sdk.anthropic(world.url, api_key=None, auth_token="token")
        tokened.call(lambda c: c.models.list())
        assert (mine.calls, others.calls) == (len(asks) + 1, 0)
        assert mine.stub.received[-1].header("authorization") == "Bearer token"


def test_keys_do_not_share_answers(world: World, sdk: Sdk) -> None:
    for number, key in enumerate(("sk-a", "sk-b"), 1):
        client = sdk.openai(f"{world.url}/v1", api_key=key)
        for cache in ("miss", "hit"):
            client.call(lambda c: c.chat.completions.create(**CHAT))
            assert client.last["x-gateway-cache"] == cache
        assert world.calls == number


@pytest.mark.parametrize("scope", ["shared", "tenant"])
def test_a_shared_answer_waits_until_the_provider_has_accepted_the_key(
    open_world: OpenWorld, sdk: Sdk, scope: str
) -> None:
    world = open_world(cache={"scope": scope}, server={"trusted_proxies": ["127.0.0.0/8"]})
    world.stub.keys = frozenset({"sk-a", "sk-b"})
    team = {"default_headers": {"x-gateway-tenant": "team", "X-Gateway-Note": "ours"}}
    one, other, stranger = (
        sdk.openai(f"{world.url}/v1", api_key=key, **team) for key in ("sk-a", "sk-b", "sk-c")
    )
    one.call(lambda c: c.chat.completions.create(**CHAT))
    with pytest.raises(openai.AuthenticationError):
        stranger.call(lambda c: c.chat.completions.create(**CHAT))
    # A list is answered to anybody by some: only a model's own answer proves the key.
    other.call(lambda c: c.models.list())
    another = {**CHAT, "messages": [{"role": "user", "content": "another question"}]}
    other.call(lambda c: c.chat.completions.create(**another))
    assert world.calls == 4
    other.call(lambda c: c.chat.completions.create(**CHAT))
    assert other.last["x-gateway-cache"] == "hit"
    with pytest.raises(openai.AuthenticationError):
        stranger.call(lambda c: c.chat.completions.create(**CHAT))
    assert world.calls == 5
    names = [name.lower() for seen in world.stub.received for name, _ in seen.headers]
    assert [] == [name for name in names if name.startswith("x-gateway-")]


def test_a_configured_key_replaces_the_clients(
    open_world: OpenWorld, world: World, sdk: Sdk
) -> None:
    upstreams = {
        name: {"base_url": world.stub.v1_url, "provider": name, "api_key": f"sk-of-{name}"}
        for name in ("openai", "anthropic")
    }
    gateway = open_world(upstreams=upstreams)
    client = sdk.openai(f"{gateway.url}/v1", api_key="sk-mine")
    client.call(lambda c: c.chat.completions.create(**CHAT))
    assert world.stub.received[-1].header("authorization") == "Bearer sk-of-openai"
    claude = sdk.anthropic(gateway.url, api_key="sk-mine")
    claude.call(lambda c: c.messages.create(**MESSAGE))
    assert world.stub.received[-1].header("x-api-key") == "sk-of-anthropic"
    assert b"sk-mine" not in b"".join(
        f"{name}{value}".encode() for seen in world.stub.received for name, value in seen.headers
    )
