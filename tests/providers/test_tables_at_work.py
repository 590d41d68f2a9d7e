"""What the tables say is what happens: each line of each provider, in a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.model import Form, Reason
from gateway.providers.registry import PROVIDERS
from gateway.wire.anthropic_messages import AnthropicMessages
from gateway.wire.base import NotUnderstood
from gateway.wire.openai_chat import OpenAIChat
from gateway.wire.openai_completions import OpenAICompletions
from gateway.wire.openai_embeddings import OpenAIEmbeddings
from gateway.wire.openai_responses import OpenAIResponses

if TYPE_CHECKING:
    from gateway.core.model import Question
    from gateway.wire.base import WireApi

SAID = [{"role": "user", "content": "hi"}]
APIS: dict[str, tuple[WireApi, dict[str, Any]]] = {
    "openai_chat": (OpenAIChat(), {"model": "m", "messages": SAID}),
    "openai_completions": (OpenAICompletions(), {"model": "m", "prompt": "hi"}),
    "openai_embeddings": (OpenAIEmbeddings(), {"model": "m", "input": "hi"}),
    "openai_responses": (OpenAIResponses(), {"model": "m", "input": "hi"}),
    "anthropic_messages": (AnthropicMessages(), {"model": "m", "messages": SAID, "max_tokens": 9}),
}
TABLES = [
    pytest.param(provider.name, api, id=f"{provider.name} {api}")
    for provider in PROVIDERS.values()
    for api in provider.apis
]


def asked(provider: str, api: str, /, **more: Any) -> Question:
    wire, base = APIS[api]
    body = json.dumps({**base, **more}).encode()
    return wire.understand(body, PROVIDERS[provider].apis[api])


def key(provider: str, api: str, /, **more: Any) -> bytes | None:
    """The canonical form; None for what is no request at all."""
    try:
        return asked(provider, api, **more).canonical
    except NotUnderstood:
        return None


# One of them is a request with any member: names, objects, lists, switches.
VALUES: list[tuple[Any, Any]] = [
    (SAID, [*SAID, *SAID]),("one", "two"), ({"a": 1}, {"a": 2}), ([{"a": 1}], [{"a": 2}]), (None, True)]  # fmt: skip


@pytest.mark.parametrize(("provider", "api"), TABLES)
def test_every_keyed_member_is_in_the_key_and_every_excluded_one_is_not(
    provider: str, api: str
) -> None:
    rules = PROVIDERS[provider].apis[api]
    base = APIS[api][1]
    for member in {*rules.keyed, *rules.scalars, *rules.excluded, "a_member_of_tomorrow"}:
        pairs = [[key(provider, api, **{member: each}) for each in pair] for pair in VALUES]
        understood = [(one, other) for one, other in pairs if one and other]
        assert understood, member
        for one, other in understood:
            assert (one == other) == (member in rules.excluded), member
        if member not in rules.excluded and member not in base:
            assert key(provider, api) not in {one for one, _ in understood}, member


# --- what peers got wrong -------------------------------------------------------------------------

R1_R2 = [
    ("guided_json", {"properties": {"a": {}, "b": {}}}),
    ("guided_json", {"properties": {"b": {}, "a": {}}}),
    ("chat_template_kwargs", {"enable_thinking": False}),
    ("chat_template_kwargs", {"enable_thinking": True}),
    ("min_p", 0.1),
    ("repetition_penalty", 1.1),
    ("extra_body", {"top_k": 1}),
    ("structured_outputs", {"choice": ["a", "b"]}),
    ("structured_outputs", {"choice": ["b", "a"]}),
    ("top_a", 0.1),
    ("provider", {"order": ["a"]}),
    ("metadata", {"a": "b"}),
    ("api_base", "http://other"),
]


@pytest.mark.parametrize(
    "provider", [p.name for p in PROVIDERS.values() if "openai_chat" in p.apis]
)
def test_peers_r1_r2_no_parameter_of_an_engine_is_left_out_of_the_key(provider: str) -> None:
    keys = [key(provider, "openai_chat", **{name: value}) for name, value in R1_R2]

    assert len({*keys, key(provider, "openai_chat")}) == len(R1_R2) + 1


@pytest.mark.parametrize("provider", ["openai", "vllm", "unknown"])
def test_peers_r3_spelling_is_no_difference(provider: str) -> None:
    plain = key(provider, "openai_chat")
    backwards = [dict(reversed(message.items())) for message in SAID]

    assert plain == key(provider, "openai_chat", messages=backwards)
    assert key(provider, "openai_chat", temperature=0) == key(
        provider, "openai_chat", temperature=0.0
    )


@pytest.mark.parametrize(
    ("provider", "parts", "user"),
    # Parts are rendered by the templates of vLLM, where `user` is documented as ignored.
    [("openai", True, True), ("vllm", False, True), ("unknown", False, False)],
)
def test_peers_r3_other_forms_are_no_difference_where_it_is_documented(
    provider: str, *, parts: bool, user: bool
) -> None:
    plain = key(provider, "openai_chat")
    in_parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]

    assert parts == (plain == key(provider, "openai_chat", messages=in_parts))
    assert user == (plain == key(provider, "openai_chat", user="u1"))


CALLED = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "%", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "%", "content": "ok"},
]  # fmt: skip


@pytest.mark.parametrize("ids", [("functions.f:0", "functions.f:1"), ("abcdef123", "abcdef124")])
@pytest.mark.parametrize(
    "provider", ["azure", "vllm", "sglang", "llamacpp", "openrouter", "unknown"]
)
def test_kimi_and_mistral_read_their_ids_so_servers_of_any_model_keep_them(
    provider: str, ids: tuple[str, str]
) -> None:
    one, other = (json.loads(json.dumps(CALLED).replace("%", each)) for each in ids)

    assert key(provider, "openai_chat", messages=one, model="gpt-4o") != key(
        provider, "openai_chat", messages=other, model="gpt-4o"
    )
    assert key("openai", "openai_chat", messages=one, model="gpt-4o") == key(
        "openai", "openai_chat", messages=other, model="gpt-4o"
    )


# --- what is kept at a server ---------------------------------------------------------------------


@pytest.mark.parametrize("api", ["openai_chat", "openai_completions", "openai_responses", "anthropic_messages"])  # fmt: skip
@pytest.mark.parametrize(
    ("reason", "more"),
    [
        (Reason.PROVIDER_STORED, {"session_params": {"id": "s"}}),
        (Reason.PROVIDER_STORED, {"kv_transfer_params": {"remote_block_ids": [1]}}),
        (Reason.PROVIDER_STORED, {"ec_transfer_params": {"x": 1}}),
        (Reason.PROVIDER_STORED, {"bootstrap_room": 1}),
        (Reason.UNVERSIONED_PROMPT, {"preset": "email"}),
        (Reason.UNVERSIONED_PROMPT, {"model": "@preset/email"}),
        (Reason.UNVERSIONED_PROMPT, {"model": "openai/gpt-4o@preset/email"}),
        (None, {"session_params": None}),
        (None, {"kv_transfer_params": None, "preset": None}),
        (None, {"model": "openai/gpt-4o"}),
    ],
)
def test_what_a_server_keeps_passes(api: str, reason: Reason | None, more: dict[str, Any]) -> None:
    for provider in PROVIDERS.values():
        if api in provider.apis:
            assert reason is asked(provider.name, api, **more).pass_reason


def test_an_index_that_azure_searches_passes() -> None:
    sources = [{"type": "azure_search", "parameters": {}}]

    assert Reason.HOSTED_TOOL is asked("azure", "openai_chat", data_sources=sources).pass_reason
    assert asked("azure", "openai_chat", data_sources=[]).pass_reason is None


# --- usage of streams -----------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["openai_chat", "openai_completions"])
def test_where_streams_always_state_their_usage_so_does_a_replay(api: str) -> None:
    for options in ({}, {"stream_options": {"include_usage": False}}):
        ask = asked("openrouter", api, stream=True, **options).ask
        assert (Form.STREAM, True, False) == (ask.form, ask.include_usage, ask.may_add_usage)
    for provider in ("openai", "azure", "vllm", "sglang", "llamacpp"):
        ask = asked(provider, api, stream=True).ask
        assert (False, True) == (ask.include_usage, ask.may_add_usage)
    ask = asked("unknown", api, stream=True).ask
    assert (False, False) == (ask.include_usage, ask.may_add_usage)
