"""A request cut down to its prompt: the shortest answer that its provider can be asked for."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.prefill_body import lead_document, prefill_body, with_marker
from gateway.wire.prompt_blocks import cache_prompt

SYSTEM = "You answer questions about the harbour. " * 300
CLAUDE: dict[str, Any] = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 1000,
    "stream": True,
    "system": SYSTEM,
    "messages": [{"role": "user", "content": "Which ship?"}],
}
CHAT: dict[str, Any] = {
    "model": "gpt-4.1",
    "stream": True,
    "stream_options": {"include_usage": True},
    "n": 3,
    "max_tokens": 500,
    "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Which?"}],
}
RESPONSES: dict[str, Any] = {"model": "gpt-5.6", "input": "Which?", "max_output_tokens": 900}


def cut(provider: str, api: str, body: dict[str, Any], *, shortest: bool = False) -> dict[str, Any]:
    rules = cache_rules(provider, api, body["model"])
    found: dict[str, Any] = orjson.loads(prefill_body(api, body, rules, shortest=shortest))
    return found


def test_anthropic_is_asked_for_no_answer_at_all() -> None:
    sent = cut("anthropic", "anthropic_messages", CLAUDE)

    assert sent == {k: v for k, v in CLAUDE.items() if k != "stream"} | {"max_tokens": 0}


@pytest.mark.parametrize(
    ("more", "max_tokens"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, 2049),
        ({"thinking": {"type": "adaptive"}}, 1),
        ({"thinking": {"type": "disabled"}}, 0),
        ({"output_config": {"format": {"type": "json_schema"}}}, 1),
        ({"output_config": {"effort": "low"}}, 0),
        ({"tool_choice": {"type": "any"}}, 1),
        ({"tool_choice": {"type": "tool", "name": "x"}}, 1),
        ({"tool_choice": {"type": "auto"}}, 0),
    ],
)
def test_beside_what_forbids_an_empty_answer_one_token_is_asked_for(
    more: dict[str, Any], max_tokens: int
) -> None:
    sent = cut("anthropic", "anthropic_messages", {**CLAUDE, **more})

    assert sent["max_tokens"] == max_tokens
    assert sent.items() >= more.items()


def test_a_server_that_refused_the_empty_form_is_asked_for_one_token() -> None:
    assert cut("anthropic", "anthropic_messages", CLAUDE, shortest=True)["max_tokens"] == 1


def test_openais_responses_have_a_form_of_their_own() -> None:
    sent = cut("openai", "openai_responses", RESPONSES)

    assert sent["prompt_cache_options"] == {"prewarm": True}
    assert "max_output_tokens" not in sent
    assert sent["store"] is False
    assert cut("openai", "openai_responses", RESPONSES, shortest=True)["max_output_tokens"] == 16


def test_what_the_client_said_of_its_cache_stays_beside_it() -> None:
    options = {"mode": "explicit", "ttl": "30m"}
    body = {**RESPONSES, "prompt_cache_options": options}

    sent = cut("openai", "openai_responses", body)

    assert sent["prompt_cache_options"] == {**options, "prewarm": True}


def test_openais_chats_are_asked_for_one_token_in_the_member_that_all_models_take() -> None:
    sent = cut("openai", "openai_chat", CHAT)

    assert sent == {
        "model": "gpt-4.1",
        "messages": CHAT["messages"],
        "max_completion_tokens": 1,
    }


@pytest.mark.parametrize(
    ("provider", "member", "value"),
    [("llamacpp", "n_predict", 0), ("vllm", "max_tokens", 1), ("sglang", "max_tokens", 1)],
)
def test_engines_are_asked_in_their_own_words(provider: str, member: str, value: int) -> None:
    sent = cut(provider, "openai_chat", CHAT)

    assert {name for name in sent if "tokens" in name or name == "n_predict"} == {member}
    assert sent[member] == value


# --- what leads a request -----------------------------------------------------------------------


def test_of_a_conversation_only_what_leads_it_is_left() -> None:
    said = "my secret question"
    chat = {**CHAT, "messages": [CHAT["messages"][0], {"role": "user", "content": said}]}
    claude = {**CLAUDE, "messages": [{"role": "user", "content": said}]}

    for api, body in (("openai_chat", chat), ("anthropic_messages", claude)):
        lead = lead_document(api, body)
        assert lead is not None
        assert said not in str(lead)
        assert SYSTEM in str(lead)


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("openai_responses", {"model": "m", "input": "a bare string"}),
        ("openai_completions", {"model": "m", "prompt": "x"}),
    ],
)
def test_what_leads_a_bare_text_cant_be_told(api: str, body: dict[str, Any]) -> None:
    assert lead_document(api, body) is None


RESPONSE = {
    "model": "m",
    "instructions": SYSTEM,
    "input": [{"role": "user", "content": "Hello."}],
}


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("openai_responses", {**RESPONSE, "previous_response_id": "resp_1"}),
        ("openai_responses", {**RESPONSE, "conversation": "conv_1"}),
        ("openai_responses", {**RESPONSE, "prompt": {"id": "p", "variables": {"name": "Ann"}}}),
        ("openai_responses", {**RESPONSE, "tools": [{"type": "mcp", "server_url": "http://m"}]}),
        ("openai_responses", {**RESPONSE, "tools": [{"type": "x", "headers": {"key": "secret"}}]}),
        ("openai_chat", {**CHAT, "data_sources": [{"parameters": {"authentication": {}}}]}),
        ("anthropic_messages", {**CLAUDE, "mcp_servers": [{"authorization_token": "secret"}]}),
    ],
)
def test_what_holds_somebodys_credential_or_names_what_is_theirs_is_not_kept(
    api: str, body: dict[str, Any]
) -> None:
    assert lead_document(api, body) is None
    assert lead_document("openai_responses", RESPONSE) is not None


def test_a_text_that_the_answer_is_to_repeat_is_not_kept() -> None:
    lead = lead_document("openai_chat", {**CHAT, "prediction": {"content": "said"}})

    assert lead is not None
    assert "prediction" not in lead


def test_a_lead_is_the_same_prefix_as_that_of_the_request_it_came_from() -> None:
    rules = cache_rules("anthropic", "anthropic_messages", CLAUDE["model"])
    lead = lead_document("anthropic_messages", CLAUDE)
    prompts = [cache_prompt("anthropic_messages", each, rules) for each in (CLAUDE, lead)]

    assert prompts[0].seed == prompts[1].seed
    assert prompts[0].blocks[0] == prompts[1].blocks[0]


# --- marking ------------------------------------------------------------------------------------


def marked(body: dict[str, Any], hold_s: float) -> dict[str, Any]:
    rules = cache_rules("anthropic", "anthropic_messages", body["model"])
    assert rules is not None
    sent, prompt = with_marker("anthropic_messages", orjson.dumps(body), rules, hold_s)
    assert prompt.marked_by_client
    found: dict[str, Any] = orjson.loads(sent)
    return found


@pytest.mark.parametrize(
    ("hold_s", "ttl"), [(0.0, "5m"), (240.0, "5m"), (3000.0, "1h"), (9e9, "1h")]
)
def test_what_leads_is_marked_for_as_long_as_it_is_to_be_held(hold_s: float, ttl: str) -> None:
    sent = marked(CLAUDE, hold_s)

    assert sent["system"][-1]["cache_control"].get("ttl", "5m") == ttl
    assert "".join(part["text"] for part in sent["system"]) == SYSTEM
    assert sent["messages"] == CLAUDE["messages"]


def test_where_nothing_leads_the_end_is_marked() -> None:
    body = {**CLAUDE, "messages": [{"role": "user", "content": SYSTEM}]}
    del body["system"]

    assert "cache_control" in marked(body, 0.0)["messages"][0]["content"][-1]


def test_what_its_author_has_marked_stays_as_it_is() -> None:
    body = {**CLAUDE, "cache_control": {"type": "ephemeral"}}

    assert marked(body, 0.0) == body
