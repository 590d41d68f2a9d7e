"""Who gets a request: explicitly, by the config's routes, or by its shape; and which policy holds."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.config import Config
from gateway.core.policy import CachePolicy
from gateway.errors import BadRequest, NotFound
from gateway.upstream.choice import Asked, Choice, Endpoint, replica_endpoint, take_apart, url

VERSION = {"anthropic-version": "2023-06-01"}
KEY = {"X-Api-Key": "sk-ant"}
BEARER = {"Authorization": "Bearer sk"}


def choice(**sections: Any) -> Choice:
    return Choice(Config.model_validate(sections))


def chosen(
    made: Choice, target: str, headers: dict[str, str] | None = None, model: str = ""
) -> str:
    return made.endpoint(take_apart(target), CIMultiDict(headers or {}), model).name


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/v1/chat/completions", {}, "openai"),
        ("/v1/chat/completions", VERSION, "openai"),
        ("/v1/chat/completions", KEY, "openai"),
        ("/v1/messages", {}, "anthropic"),
        ("/v1/messages", BEARER, "anthropic"),
        ("/v1/messages?beta=true", {}, "anthropic"),
        ("/v1/messages/count_tokens", {}, "anthropic"),
        ("/v1/messages/batches/1/results", {}, "anthropic"),
        ("/v1/messagesx", {}, "openai"),
        # Paths that both have.
        ("/v1/models", {}, "openai"),
        ("/v1/models", BEARER, "openai"),
        ("/v1/models", VERSION, "anthropic"),
        ("/v1/models/claude-x", KEY, "anthropic"),
        ("/v1/files", KEY, "anthropic"),
        ("/v1/files/file-1/content", {}, "openai"),
        ("/v1/batches", VERSION, "anthropic"),
        ("/v1/organizations/x", KEY, "anthropic"),
        ("/v1/something-new", {}, "openai"),
        ("/v1/something-new", VERSION, "anthropic"),
        # Paths that only OpenAI has.
        ("/v1/responses", KEY, "openai"),
        ("/v1/responses/resp_1", VERSION, "openai"),
        ("/v1/embeddings", KEY, "openai"),
        ("/v1/audio/speech", KEY, "openai"),
        ("/v1/realtime?model=x", KEY, "openai"),
        ("/v1/completions", VERSION, "openai"),
        ("/v1", {}, "openai"),
    ],
)
def test_the_shape_decides_where_the_config_says_nothing(
    target: str, headers: dict[str, str], expected: str
) -> None:
    assert chosen(choice(), target, headers) == expected


ROUTED: dict[str, Any] = {
    "upstreams": {
        "vllm": {"base_url": "http://gpu:8000/v1"},
        "azure": {"base_url": "https://x.openai.azure.com/openai/v1", "provider": "openai"},
    },
    "routes": [
        {"path": "/v1/chat/completions", "model": "llama-*", "upstream": "vllm"},
        {"path": "/v1/chat/*", "cache": {"when": "off"}},
        {"path": "/v1/embeddings", "upstream": "vllm", "cache": {"ttl_s": 5}},
        {"path": "*", "model": "azure/*", "upstream": "azure"},
    ],
}


@pytest.mark.parametrize(
    ("target", "model", "expected"),
    [
        ("/v1/chat/completions", "llama-3", "vllm"),
        ("/v1/chat/completions", "gpt-4o", "openai"),
        ("/v1/chat/completions", "azure/gpt-4o", "azure"),
        ("/v1/messages", "azure/x", "azure"),
        ("/v1/messages", "claude", "anthropic"),
        ("/v1/embeddings", "", "vllm"),
        ("/v1/embeddings?x=1", "anything", "vllm"),
        # Said outright, no rule counts.
        ("/u/anthropic/v1/chat/completions", "llama-3", "anthropic"),
        ("/u/openai/v1/embeddings", "", "openai"),
        ("/u/vllm/v1/messages", "", "vllm"),
    ],
)
def test_the_first_route_that_names_an_upstream_decides(
    target: str, model: str, expected: str
) -> None:
    assert chosen(choice(**ROUTED), target, {}, model) == expected


def test_a_model_is_only_asked_for_where_a_route_names_one() -> None:
    made = choice(**ROUTED)
    assert made.needs_model(take_apart("/v1/chat/completions"))
    assert not choice().needs_model(take_apart("/v1/chat/completions"))
    only_path = choice(routes=[{"path": "/v1/x", "upstream": "openai"}])
    assert not only_path.needs_model(take_apart("/v1/x"))


def test_an_upstream_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(NotFound, match=r"'nobody'; there are: anthropic, openai"):
        chosen(choice(), "/u/nobody/v1/models")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v1/x", Asked(None, "/v1/x", None)),
        ("/v1/x?", Asked(None, "/v1/x", "")),
        ("/v1/x?a=1?b", Asked(None, "/v1/x", "a=1?b")),
        ("/v1", Asked(None, "/v1", None)),
        ("/v1/", Asked(None, "/v1/", None)),
        ("/v1//x//", Asked(None, "/v1//x//", None)),
        ("/v1/a.b/..c/d..", Asked(None, "/v1/a.b/..c/d..", None)),
        ("/v1/%2e%2e%2e", Asked(None, "/v1/%2e%2e%2e", None)),
        ("/v1/x?path=/../y", Asked(None, "/v1/x", "path=/../y")),
        ("/u/my-1/v1/x?q", Asked("my-1", "/v1/x", "q")),
        ("/u//v1/x", Asked("", "/v1/x", None)),
    ],
)
def test_a_target_comes_apart(target: str, expected: Asked) -> None:
    assert take_apart(target) == expected


@pytest.mark.parametrize(
    "target",
    [
        "/v1/..",
        "/v1/../x",
        "/v1/.",
        "/v1/./x",
        "/../v1/x",
        "/v1/%2E%2e/x",
        "/v1/.%2e",
        "/v1/%2e/x",
        "/u/../v1/x",
        "/u/openai/v1/..",
        "*",
        "http://x/v1/y",
        "example.test:443",
        "",
    ],
)
def test_a_target_that_could_mean_another_path_is_refused(target: str) -> None:
    with pytest.raises(BadRequest):
        take_apart(target)


@pytest.mark.parametrize(
    "target", ["/", "/v2/x", "/v1x", "/V1/x", "/u/a", "/u/a/", "/u/a/x", "//v1/x"]
)
def test_a_path_outside_the_api_is_not_found(target: str) -> None:
    with pytest.raises(NotFound):
        take_apart(target)


@pytest.mark.parametrize(
    ("base", "target", "expected"),
    [
        ("https://api.openai.com/v1", "/v1/models", "https://api.openai.com/v1/models"),
        ("https://api.openai.com/v1/", "/v1/models", "https://api.openai.com/v1/models"),
        ("http://h:1", "/v1/models?", "http://h:1/models?"),
        ("http://h/openai/v1", "/u/it/v1/x%2Fy?a=%20", "http://h/openai/v1/x%2Fy?a=%20"),
        ("http://h/v1", "/v1/v1/x", "http://h/v1/v1/x"),
        ("http://h/v1", "/v1", "http://h/v1"),
    ],
)
def test_our_path_is_put_behind_the_base_url(base: str, target: str, expected: str) -> None:
    endpoint = choice(upstreams={"it": {"base_url": base}}).endpoints["it"]
    assert url(endpoint, take_apart(target)) == expected


DEFAULT = CachePolicy("always", 3600.0, truncated=False, refused=False, coalesce="deterministic")


def test_the_policy_is_that_of_the_first_route_that_matches() -> None:
    made = choice(**ROUTED)
    assert made.policy(take_apart("/v1/messages"), "claude") == DEFAULT
    # The first match names an upstream only; what it leaves unsaid comes from `cache`.
    assert made.policy(take_apart("/v1/chat/completions"), "llama-3") == DEFAULT
    assert made.policy(take_apart("/v1/chat/completions"), "gpt-4o").when == "off"
    assert made.policy(take_apart("/v1/embeddings"), "").ttl_s == 5


def test_what_a_route_leaves_unsaid_comes_from_the_cache_section_member_by_member() -> None:
    made = choice(
        cache={"when": "deterministic", "ttl_s": 7, "store": {"truncated": True}},
        routes=[{"path": "/v1/x", "cache": {"store": {"refused": True}}}],
    )
    assert made.policy(take_apart("/v1/x"), "") == CachePolicy(
        "deterministic", 7, truncated=True, refused=True, coalesce="deterministic"
    )
    assert made.policy(take_apart("/v1/y"), "") == CachePolicy(
        "deterministic", 7, truncated=True, refused=False, coalesce="deterministic"
    )


def test_another_base_url_is_another_identity() -> None:
    made = choice(
        upstreams={
            "a": {"base_url": "http://h/v1"},
            "b": {"base_url": "http://h/v2"},
            "c": {"base_url": "http://h/v1", "provider": "openai"},
            "d": {"base_url": "http://h/v1/"},
        }
    )
    identities = {name: made.endpoints[name].identity for name in "abcd"}
    assert len(set(identities.values())) == 3
    assert identities["a"] == identities["d"]


def test_an_endpoint_shows_no_key() -> None:
    made = choice(upstreams={"it": {"base_url": "http://h/v1", "api_key": "sk-secret"}})
    assert repr(made.endpoints["it"]) == "<Endpoint it: unknown at http://h/v1>"


@pytest.mark.parametrize(
    ("base_url", "named", "expected", "documented"),
    [
        ("https://it.openai.azure.com/openai/v1", None, "azure", True),
        ("https://IT.services.ai.azure.com/openai/v1", None, "azure", True),
        ("https://apim.example/openai/v1", "azure", "azure", False),
        ("https://openrouter.ai/api/v1", None, "openrouter", True),
        ("https://api.openai.com/v1", None, "openai", True),
        ("http://gpu:8000/v1", "vllm", "vllm", False),
        ("http://gpu:8000/v1", None, "unknown", False),
    ],
)
def test_a_provider_is_known_by_its_host_and_its_headers_count_only_there(
    base_url: str, named: str | None, expected: str, *, documented: bool
) -> None:
    made = choice(upstreams={"it": {"base_url": base_url, "provider": named}})
    provider = made.endpoints["it"].provider

    assert expected == provider.name
    assert documented == (provider.header_prefixes is not None)
    assert documented or not provider.headers_excluded


ONE, TWO = "http://10.0.0.1:8000/v1", "http://10.0.0.2:8000/v1"
NAMED = "http://vllm.models:8000/v1"


def endpoint(**upstream: Any) -> Endpoint:
    return choice(upstreams={"mine": upstream}).endpoints["mine"]


def test_a_pool_is_one_endpoint_whose_engine_names_the_provider() -> None:
    pool = endpoint(engine="sglang", backends=[ONE, TWO])
    assert (pool.pool, pool.engine, pool.provider.name) == (True, "sglang", "sglang")
    assert (pool.base_url, pool.host, pool.port) == (ONE, "10.0.0.1", 8000)
    other = endpoint(engine="openai", backends=[ONE])
    assert (other.engine, other.provider.name) == ("openai", "unknown")
    one = endpoint(base_url=ONE)
    assert (one.pool, one.engine, one.provider.name) == (False, "", "unknown")


def test_a_pools_identity_is_what_the_config_lists_in_whatever_order() -> None:
    told = endpoint(engine="vllm", backends=[ONE, TWO], dns=NAMED).identity
    assert told == b"vllm http://10.0.0.1:8000/v1 http://10.0.0.2:8000/v1 " + NAMED.encode()
    assert (
        endpoint(engine="vllm", backends=[{"url": TWO, "weight": 2}, ONE], dns=NAMED).identity
        == told
    )
    assert endpoint(engine="vllm", backends=[ONE]).identity != told
    assert endpoint(engine="sglang", backends=[ONE, TWO], dns=NAMED).identity != told


def test_an_upstream_that_becomes_a_pool_of_one_keeps_its_entries() -> None:
    single = endpoint(base_url=ONE, provider="vllm")
    assert endpoint(engine="vllm", backends=[ONE]).identity == single.identity


def test_a_replica_is_its_pool_but_for_where_it_is() -> None:
    pool = endpoint(engine="vllm", dns=NAMED, api_key="k" * 20)
    replica = replica_endpoint(pool, "https://[fd00::1]/v1", "vllm.models")
    assert (replica.name, replica.identity, replica.api_key) == (pool.name, pool.identity, "k" * 20)
    assert (replica.host, replica.port, replica.pool) == ("fd00::1", 443, False)
    assert (replica.base_url, replica.authority) == ("https://[fd00::1]/v1", "vllm.models")


def test_a_providers_own_replicas_get_its_headers_and_others_do_not() -> None:
    own = endpoint(provider="openai", backends=["https://api.openai.com/v1"])
    mixed = endpoint(provider="openai", backends=["https://api.openai.com/v1", ONE])
    assert own.provider.header_prefixes is not None
    assert mixed.provider.header_prefixes is None
