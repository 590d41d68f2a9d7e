"""Which headers and which query are part of the key, provider by provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from multidict import CIMultiDict

from gateway.config import Config
from gateway.core import identity
from gateway.door import Door
from gateway.providers.registry import PROVIDERS
from gateway.recognition import Recognition, Sender
from gateway.store.secret import ScopeSecrets
from gateway.upstream.choice import Choice, take_apart
from gateway.wire.openai_chat import OpenAIChat

if TYPE_CHECKING:
    from gateway.core.model import Pairs

BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "azure": "https://it.openai.azure.com/openai/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "vllm": "http://gpu:8000/v1",
    "sglang": "http://gpu:30000/v1",
    "llamacpp": "http://gpu:9931/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "unknown": "http://box/v1",
}
EVERY_PROVIDER = pytest.mark.parametrize("name", PROVIDERS)
BODY = b'{"model":"m","messages":[]}'


def key(name: str, *headers: tuple[str, str], query: str = "", base_url: str = "") -> bytes:
    """The identity of one question at a provider, through the whole of recognition."""
    upstream: dict[str, Any] = {"base_url": base_url or BASE_URLS[name], "provider": name}
    config = Config.model_validate({"upstreams": {"it": upstream}})
    recognition = Recognition(
        config, Choice(config), ScopeSecrets(["a secret of the replicas"], None), Door(0, b"g")
    )
    lines: Pairs = tuple((header.lower(), value) for header, value in headers)
    target = f"/u/it/v1/chat/completions{'?' + query if query else ''}"
    sender = Sender(lines, CIMultiDict(headers), None)
    (only,) = recognition.recognise(sender, take_apart(target), OpenAIChat(), BODY).identities
    return only


def test_there_is_a_base_url_for_every_provider() -> None:
    assert BASE_URLS.keys() == PROVIDERS.keys()


@EVERY_PROVIDER
def test_the_query_is_keyed(name: str) -> None:
    plain = key(name)
    version = key(name, query="api-version=2025-04-01-preview")

    assert len({plain, version, key(name, query="api-version=v1")}) == 3
    assert version == key(name, query="api-version=2025-04-01-preview")


KEYED = [
    ("openai", "OpenAI-Beta", "assistants=v2"),
    ("openai", "OpenAI-Organization", "org-1"),
    ("anthropic", "anthropic-version", "2023-06-01"),
    ("anthropic", "anthropic-beta", "a-1"),
    ("azure", "x-policy-id", "strict"),
    ("azure", "extra-parameters", "pass-through"),
    ("azure", "azureml-model-deployment", "blue"),
    ("azure", "x-ms-oai-image-generation-deployment", "d"),
    ("azure", "anthropic-version", "2023-06-01"),
    ("openrouter", "X-OpenRouter-Metadata", "enabled"),
    ("openrouter", "X-OpenRouter-Cache", "true"),
    ("openrouter", "x-anthropic-beta", "a-1"),
    ("openrouter", "anthropic-beta", "a-1"),
    ("vllm", "X-Anything", "1"),
    ("vllm", "X-Session-Id", "s"),
    ("sglang", "X-Anything", "1"),
    ("llamacpp", "X-Anything", "1"),
    ("unknown", "HTTP-Referer", "https://app"),
]


@pytest.mark.parametrize(("name", "header", "value"), KEYED)
def test_a_header_that_may_change_the_answer_is_keyed(name: str, header: str, value: str) -> None:
    assert len({key(name), key(name, (header, value)), key(name, (header, value + "2"))}) == 3
    assert key(name, (header, value)) == key(name, (header.upper(), f" {value} "))


def test_every_provider_has_a_header_that_is_keyed() -> None:
    assert {name for name, _, _ in KEYED} == PROVIDERS.keys()


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("openai", "X-App"),
        ("anthropic", "X-App"),
        ("azure", "x-ms-client-request-id"),
        ("azure", "X-MS-UserAgent"),
        ("openrouter", "HTTP-Referer"),
        ("openrouter", "X-Title"),
        ("openrouter", "X-OpenRouter-Title"),
        ("openrouter", "X-OpenRouter-Categories"),
        ("openrouter", "X-Session-Id"),
        ("vllm", "X-Request-Id"),
        ("vllm", "traceparent"),
    ],
)
def test_a_header_that_only_names_or_carries_is_not(name: str, header: str) -> None:
    assert key(name) == key(name, (header, "one")) == key(name, (header, "two"))


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("openrouter", "X-Session-Id"),
        ("openrouter", "X-OpenRouter-Title"),
        ("azure", "x-ms-client-request-id"),
        ("openai", "X-App"),
    ],
)
def test_at_somebody_elses_door_to_a_provider_every_header_is_keyed(name: str, header: str) -> None:
    there = "https://gateway.example/v1"

    assert key(name, base_url=there) != key(name, (header, "one"), base_url=there)


@pytest.mark.parametrize(
    ("name", "header"),
    [(provider.name, header) for provider in PROVIDERS.values() for header in provider.header_sets],
)
def test_the_order_of_a_set_does_not_matter(name: str, header: str) -> None:
    together = identity.keyed_headers(((header, "b, a,b"),), PROVIDERS[name])

    assert together == identity.keyed_headers(((header, "a"), (header, "b")), PROVIDERS[name])
    assert together != identity.keyed_headers(((header, "a"),), PROVIDERS[name])
