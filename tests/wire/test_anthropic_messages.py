"""What a Messages request asks: which bodies are one question, and which are not."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Form, Reason
from gateway.providers.anthropic import MESSAGES
from gateway.providers.unknown import UNKNOWN
from gateway.wire.anthropic_messages import AnthropicMessages
from gateway.wire.base import NotUnderstood

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules

API = AnthropicMessages()
CAREFUL = UNKNOWN.apis["anthropic_messages"]
MARKER = {"type": "ephemeral"}
# A plain model: it doesn't think unless asked to, so that tool-call ids may be renamed.
PLAIN = "claude-sonnet-4-6"
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}}}


def ask(content: Any = "hi", **members: Any) -> dict[str, Any]:
    """A body with one user message."""
    messages = [{"role": "user", "content": content}]
    return {"model": PLAIN, "max_tokens": 100, "messages": messages, **members}


def use(each: str, **members: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": each, "name": "f", "input": {"x": 1}, **members}


def result(each: str, content: Any = "sunny", **members: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": each, "content": content, **members}


def talk(*ids: str, used: list[Any] | None = None, told: list[Any] | None = None) -> dict[str, Any]:
    """A body whose history calls a tool once for each id."""
    return {
        "model": PLAIN,
        "max_tokens": 100,
        "messages": [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": used or [use(each) for each in ids]},
            {"role": "user", "content": told or [result(each) for each in ids]},
        ],
    }


def changed(body: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {**copy.deepcopy(body), **members}


def canonical(body: dict[str, Any] | bytes, rules: ApiRules = MESSAGES) -> bytes:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return API.understand(raw, rules).canonical


def reversed_members(value: Any) -> Any:
    """Every object's members the other way round."""
    if isinstance(value, dict):
        return {name: reversed_members(value[name]) for name in reversed(value)}
    return [reversed_members(item) for item in value] if isinstance(value, list) else value


SAME: dict[str, tuple[dict[str, Any] | bytes, dict[str, Any] | bytes]] = {
    "member order of the envelope": (ask(), reversed_members(ask())),
    "whitespace": (ask(), orjson.dumps(ask(), option=orjson.OPT_INDENT_2)),
    "escapes spell the same text": (
        b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"\\u0068i \\u00e9"}]}',
        '{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"hi é"}]}'.encode(),
    ),
    "number spelling of a parameter": (
        b'{"model":"m","max_tokens":1e2,"temperature":0.0,"messages":[]}',
        b'{"model":"m","max_tokens":100,"temperature":0,"messages":[]}',
    ),
    "stream is only the form": (ask(), ask(stream=True)),
    "a string is shorthand for one text block": (ask("hi"), ask([{"type": "text", "text": "hi"}])),
    "a system string is shorthand too": (
        ask(system="Be brief."),
        ask(system=[{"type": "text", "text": "Be brief."}]),
    ),
    "marker on a text block": (
        ask("hi"),
        ask([{"type": "text", "text": "hi", "cache_control": MARKER}]),
    ),
    "marker on a system block": (
        ask(system=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        ask(
            system=[
                {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                {"text": "b", "type": "text"},
            ]
        ),
    ),
    "marker on a tool": (
        ask(tools=[{"name": "f", "input_schema": SCHEMA}]),
        ask(tools=[{"name": "f", "input_schema": SCHEMA, "cache_control": MARKER}]),
    ),
    "marker on a tool call and its result": (
        talk("toolu_1"),
        talk(
            used=[use("toolu_1", cache_control=MARKER)],
            told=[result("toolu_1", cache_control=MARKER)],
        ),
    ),
    "automatic marker at the top": (ask(), ask(cache_control=MARKER)),
    "metadata.user_id is bookkeeping": (ask(), ask(metadata={"user_id": "u-1"})),
    "member order of a tool, not of its schema": (
        ask(tools=[{"name": "f", "description": "d", "input_schema": SCHEMA}]),
        ask(tools=[{"input_schema": SCHEMA, "description": "d", "name": "f"}]),
    ),
    "member order of tool_choice": (
        ask(tool_choice={"type": "tool", "name": "f"}),
        ask(tool_choice={"name": "f", "type": "tool"}),
    ),
    "member order of an image's source": (
        ask([{"type": "image", "source": PNG}]),
        ask([{"source": reversed_members(PNG), "type": "image"}]),
    ),
    "member order of blocks inside a tool result": (
        talk(used=[use("t")], told=[result("t", [{"type": "text", "text": "x"}])]),
        talk(used=[use("t")], told=[result("t", [{"text": "x", "type": "text"}])]),
    ),
    "tool-call ids by first appearance": (
        talk("toolu_01A", "toolu_01B"),
        talk("toolu_9Z", "toolu_9Y"),
    ),
    "tool-call ids where thinking is disabled on any model": (
        changed(talk("toolu_1"), model="claude-opus-5", thinking={"type": "disabled"}),
        changed(talk("toolu_2"), model="claude-opus-5", thinking={"type": "disabled"}),
    ),
}

CALL_OF_ONE = (
    b'{"model":"m","messages":[{"role":"assistant","content":'
    b'[{"type":"tool_use","id":"t","name":"f","input":{"x":1}}]}]}'
)
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
SEARCHED = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
]

DIFFERENT: dict[str, tuple[dict[str, Any] | bytes, dict[str, Any] | bytes]] = {
    "another text": (ask("hi"), ask("hi ")),
    "another role": (
        ask(messages=[{"role": "user", "content": "x"}]),
        ask(messages=[{"role": "assistant", "content": "x"}]),
    ),
    "another temperature": (ask(temperature=0), ask(temperature=1)),
    "numbers that only round to one another": (
        b'{"model":"m","temperature":0.1,"messages":[]}',
        b'{"model":"m","temperature":0.1000000000000000055,"messages":[]}',
    ),
    "another max_tokens": (ask(max_tokens=1), ask(max_tokens=2)),
    "an unknown parameter is keyed": (ask(), ask(brand_new=True)),
    "an unknown member of a message is keyed": (
        ask(),
        ask(messages=[{"role": "user", "content": "hi", "clear_at": "next_user_message"}]),
    ),
    "two text blocks are not their concatenation": (
        ask("ab"),
        ask([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
    ),
    "a text block that says more than its text": (
        ask("hi"),
        ask([{"type": "text", "text": "hi", "citations": []}]),
    ),
    "null is not absence": (ask(), ask(system=None)),
    "an empty list of tools is not absence": (ask(), ask(tools=[])),
    "marker inside a tool result, where the API refuses it": (
        talk(used=[use("t")], told=[result("t", [{"type": "text", "text": "x"}])]),
        talk(
            used=[use("t")],
            told=[result("t", [{"type": "text", "text": "x", "cache_control": MARKER}])],
        ),
    ),
    "marker on thinking, where the API refuses it": (
        talk(used=[SIGNED, use("t")], told=[result("t")]),
        talk(used=[{**SIGNED, "cache_control": MARKER}, use("t")], told=[result("t")]),
    ),
    "marker on a block that we don't know": (
        ask([{"type": "hologram"}]),
        ask([{"type": "hologram", "cache_control": MARKER}]),
    ),
    "cache_control as an argument of a call": (
        talk(used=[use("t", input={"x": 1})], told=[result("t")]),
        talk(used=[use("t", input={"x": 1, "cache_control": MARKER})], told=[result("t")]),
    ),
    "cache_control as a property of a schema": (
        ask(tools=[{"name": "f", "input_schema": {"properties": {}}}]),
        ask(tools=[{"name": "f", "input_schema": {"properties": {"cache_control": {}}}}]),
    ),
    "cache_control in an object that we don't know": (
        ask(context_management={"edits": []}),
        ask(context_management={"edits": [], "cache_control": MARKER}),
    ),
    "a tool result as a string, and as a block: nowhere said to be the same": (
        talk(used=[use("t")], told=[result("t", "x")]),
        talk(used=[use("t")], told=[result("t", [{"type": "text", "text": "x"}])]),
    ),
    "member order of a tool's input is rendered": (
        talk(used=[use("t", input={"a": 1, "b": 2})], told=[result("t")]),
        talk(used=[use("t", input={"b": 2, "a": 1})], told=[result("t")]),
    ),
    "number spelling in a tool's input is rendered": (
        CALL_OF_ONE,
        CALL_OF_ONE.replace(b"1}", b"1.0}"),
    ),
    "member order of a schema is rendered": (
        ask(tools=[{"name": "f", "input_schema": SCHEMA}]),
        ask(tools=[{"name": "f", "input_schema": reversed_members(SCHEMA)}]),
    ),
    "member order of the output's schema is rendered": (
        ask(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
        ask(output_config={"format": {"type": "json_schema", "schema": reversed_members(SCHEMA)}}),
    ),
    "order of tools": (
        ask(tools=[{"name": "f", "input_schema": {}}, {"name": "g", "input_schema": {}}]),
        ask(tools=[{"name": "g", "input_schema": {}}, {"name": "f", "input_schema": {}}]),
    ),
    "member order of a source that we don't know": (
        ask([{"type": "document", "source": {"type": "content", "content": [], "x": 1}}]),
        ask([{"type": "document", "source": {"x": 1, "content": [], "type": "content"}}]),
    ),
    "results the other way round": (
        talk(used=[use("a"), use("b")], told=[result("a", "1"), result("b", "2")]),
        talk(used=[use("a"), use("b")], told=[result("b", "1"), result("a", "2")]),
    ),
    "one call twice is not two calls": (talk("a", "a"), talk("a", "b")),
    "ids where the request thinks": (
        changed(talk("toolu_1"), thinking={"type": "adaptive"}),
        changed(talk("toolu_2"), thinking={"type": "adaptive"}),
    ),
    "ids where the model may think by itself": (
        changed(talk("toolu_1"), model="claude-opus-5"),
        changed(talk("toolu_2"), model="claude-opus-5"),
    ),
    "ids where the history has thoughts": (
        talk(used=[SIGNED, use("toolu_1")], told=[result("toolu_1")]),
        talk(used=[SIGNED, use("toolu_2")], told=[result("toolu_2")]),
    ),
    "ids where something is encrypted inside a result": (
        talk(
            used=[use("toolu_1")],
            told=[result("toolu_1", [{"type": "text", "text": "x", "encrypted_content": "e"}])],
        ),
        talk(
            used=[use("toolu_2")],
            told=[result("toolu_2", [{"type": "text", "text": "x", "encrypted_content": "e"}])],
        ),
    ),
    "ids beside calls of a server's tool": (
        talk(used=[*SEARCHED, use("toolu_1")], told=[result("toolu_1")]),
        talk(used=[*SEARCHED, use("toolu_2")], told=[result("toolu_2")]),
    ),
    "an id that a text refers to": (
        talk(used=[use("toolu_1")], told=[result("toolu_1", "see toolu_1")]),
        talk(used=[use("toolu_2")], told=[result("toolu_2", "see toolu_1")]),
    ),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_one_question_has_one_canonical_form(one: Any, other: Any) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_two_questions_never_share_a_canonical_form(one: Any, other: Any) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_at_anthropic_differs_at_an_unknown_endpoint(one: Any, other: Any) -> None:
    assert canonical(one, CAREFUL) != canonical(other, CAREFUL)


FOLDED_ANYWHERE = {
    "member order of the envelope",
    "whitespace",
    "escapes spell the same text",
    "number spelling of a parameter",
    "stream is only the form",
    "member order of an image's source",
    "member order of blocks inside a tool result",
}


@pytest.mark.parametrize("case", SAME, ids=str)
def test_an_unknown_endpoint_gets_only_the_folding_of_the_envelope(case: str) -> None:
    one, other = SAME[case]
    assert (canonical(one, CAREFUL) == canonical(other, CAREFUL)) is (case in FOLDED_ANYWHERE)


def test_the_canonical_form_can_be_read() -> None:
    body = ask(
        [{"text": "hi", "type": "text", "cache_control": MARKER}],
        tools=[{"name": "f", "input_schema": {"b": 1, "a": 2.0}, "cache_control": MARKER}],
        stream=True,
        temperature=0.0,
    )
    expected = (
        b'{"max_tokens":100,"messages":[{"content":"hi","role":"user"}],'
        b'"model":"claude-sonnet-4-6","temperature":0,'
        b'"tools":[{"input_schema":{"b":1,"a":2.0},"name":"f"}]}'
    )
    assert expected == canonical(body)


def test_a_renamed_id_stands_where_no_client_can_put_it() -> None:
    assert b'"id":[0]' in canonical(talk("toolu_1", "toolu_2"))
    assert b'"tool_use_id":[1]' in canonical(talk("toolu_1", "toolu_2"))


PASSED = {
    "web search": (ask(tools=[{"type": "web_search_20250305", "name": "w"}]), Reason.HOSTED_TOOL),
    "web fetch": (ask(tools=[{"type": "web_fetch_20260318", "name": "w"}]), Reason.HOSTED_TOOL),
    "code execution": (ask(tools=[{"type": "code_execution_20260521"}]), Reason.HOSTED_TOOL),
    "computer": (ask(tools=[{"type": "computer_20251124"}]), Reason.HOSTED_TOOL),
    "computer toolset": (ask(tools=[{"type": "computer_toolset_20260801"}]), Reason.HOSTED_TOOL),
    "mcp toolset": (ask(tools=[{"type": "mcp_toolset"}]), Reason.HOSTED_TOOL),
    "tool search": (ask(tools=[{"type": "tool_search_tool_bm25"}]), Reason.HOSTED_TOOL),
    "a tool that we don't know": (ask(tools=[{"type": "oracle_20270101"}]), Reason.HOSTED_TOOL),
    "a type that is no string": (ask(tools=[{"type": 7}]), Reason.HOSTED_TOOL),
    "one hosted tool among others": (
        ask(tools=[{"name": "f", "input_schema": {}}, {"type": "web_search_20250305"}]),
        Reason.HOSTED_TOOL,
    ),
    "mcp servers": (ask(mcp_servers=[{"type": "url", "url": "https://x"}]), Reason.HOSTED_TOOL),
    "plugins of a router": (ask(plugins=[{"id": "web"}]), Reason.HOSTED_TOOL),
    "a hosted tool defined in the conversation": (
        ask(
            [
                {
                    "type": "tool_addition",
                    "tool": {
                        "type": "tool_definition",
                        "definition": {"type": "web_search_20250305"},
                    },
                }
            ]
        ),
        Reason.HOSTED_TOOL,
    ),
    "a container": (ask(container="container_1"), Reason.CONTAINER),
    "a file for a container": (
        ask([{"type": "container_upload", "file_id": "file_1"}]),
        Reason.CONTAINER,
    ),
    "a search model": (ask(model="anthropic/claude-sonnet-4:online"), Reason.SEARCH_MODEL),
    "a history kept by the provider": (ask(thread={"type": "create"}), Reason.PROVIDER_STORED),
}

CACHED = {
    "no tools": ask(),
    "tools of the client": ask(
        tools=[
            {"name": "f", "input_schema": {}},
            {"name": "g", "input_schema": {}, "type": "custom"},
            {"name": "h", "input_schema": {}, "type": None},
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "e"},
            {"type": "memory_20250818", "name": "memory"},
        ]
    ),
    "no servers": ask(mcp_servers=[], container=None),
    "a server's calls in the history alone": talk(used=[*SEARCHED, use("t")], told=[result("t")]),
    "a client's tool defined in the conversation": ask(
        [
            {
                "type": "tool_addition",
                "tool": {"type": "tool_definition", "definition": {"name": "f"}},
            },
            {"type": "tool_addition", "tool": {"type": "tool_reference", "tool_name": "f"}},
        ]
    ),
}


@pytest.mark.parametrize(("body", "reason"), PASSED.values(), ids=PASSED)
def test_an_answer_that_depends_on_more_than_the_request_is_passed(
    body: dict[str, Any], reason: Reason
) -> None:
    assert reason is API.understand(orjson.dumps(body), MESSAGES).pass_reason


@pytest.mark.parametrize("body", CACHED.values(), ids=CACHED)
def test_an_answer_that_depends_on_the_request_alone_is_not_passed(body: dict[str, Any]) -> None:
    assert API.understand(orjson.dumps(body), MESSAGES).pass_reason is None


NOT_UNDERSTOOD: dict[str, tuple[bytes, Reason]] = {
    "no JSON": (b"{", Reason.UNCACHEABLE_JSON),
    "a member named twice": (b'{"model":"m","model":"n"}', Reason.UNCACHEABLE_JSON),
    "a lone surrogate": (
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        Reason.UNCACHEABLE_JSON,
    ),
    "a nest without end": (
        b'{"model":"m","messages":[],"thinking":' + b"[" * 900 + b"]" * 900 + b"}",
        Reason.UNCACHEABLE_JSON,
    ),
    "no object": (b"[]", Reason.NOT_UNDERSTOOD),
    "no model": (b'{"messages":[]}', Reason.NOT_UNDERSTOOD),
    "no messages": (b'{"model":"m"}', Reason.NOT_UNDERSTOOD),
    "a message that is no object": (b'{"model":"m","messages":["hi"]}', Reason.NOT_UNDERSTOOD),
    "a message without a role": (
        orjson.dumps(ask(messages=[{"content": "x"}])),
        Reason.NOT_UNDERSTOOD,
    ),
    "a message without content": (
        orjson.dumps(ask(messages=[{"role": "user"}])),
        Reason.NOT_UNDERSTOOD,
    ),
    "content that is a number": (orjson.dumps(ask(7)), Reason.NOT_UNDERSTOOD),
    "a block that is a string": (orjson.dumps(ask(["hi"])), Reason.NOT_UNDERSTOOD),
    "a call without an id": (orjson.dumps(ask([{"type": "tool_use"}])), Reason.NOT_UNDERSTOOD),
    "a result without an id": (orjson.dumps(ask([{"type": "tool_result"}])), Reason.NOT_UNDERSTOOD),
    "stream that is a string": (orjson.dumps(ask(stream="yes")), Reason.NOT_UNDERSTOOD),
    "system that is a number": (orjson.dumps(ask(system=7)), Reason.NOT_UNDERSTOOD),
    "tools that are an object": (orjson.dumps(ask(tools={})), Reason.NOT_UNDERSTOOD),
}


@pytest.mark.parametrize(("body", "reason"), NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD)
def test_what_the_documentation_does_not_describe_is_not_understood(
    body: bytes, reason: Reason
) -> None:
    with pytest.raises(NotUnderstood) as caught:
        API.understand(body, MESSAGES)
    assert reason is caught.value.reason


NAMES = st.sampled_from(
    [
        *("model", "messages", "system", "tools", "role", "content", "type", "id", "source"),
        *("tool_use_id", "input", "thinking", "stream", "metadata", "tool", "definition"),
    ]
)
WORDS = st.sampled_from(
    ["user", "text", "tool_use", "tool_result", "image", "thinking", "disabled", "tool_addition"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=16,
)


@given(st.dictionaries(NAMES, ANYTHING), st.lists(st.dictionaries(NAMES, ANYTHING), max_size=3))
def test_a_body_is_understood_or_not_but_never_fails_otherwise(
    members: dict[str, Any], messages: list[Any]
) -> None:
    body = orjson.dumps({**members, "model": PLAIN, "messages": messages})
    with contextlib.suppress(NotUnderstood):
        question = API.understand(body, MESSAGES)
        assert isinstance(orjson.loads(question.canonical), dict)


def test_the_ask_says_what_an_answer_needs() -> None:
    body = changed(talk("toolu_1", "toolu_2"), stream=True, temperature=0.0, max_tokens=16)
    wanted = API.understand(orjson.dumps(body), MESSAGES).ask
    assert Form.STREAM is wanted.form
    assert frozenset({"toolu_1", "toolu_2"}) == wanted.history_ids
    assert wanted.max_output_tokens == 16
    assert wanted.deterministic
    assert not wanted.include_usage
    assert not wanted.may_add_usage
    plain = API.understand(orjson.dumps(ask()), MESSAGES).ask
    assert plain.form is Form.BODY
    assert not plain.deterministic


def test_usage_is_never_added_and_never_kept_back() -> None:
    body = orjson.dumps(ask(stream=True))
    wanted = API.understand(body, MESSAGES).ask
    assert API.with_stream_usage(body, wanted, MESSAGES) is None
    event = b'event: message_delta\ndata: {"usage":{"output_tokens":1}}\n\n'
    assert event == API.without_unasked_usage(event)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_our_own_error_has_the_shape_that_the_sdk_expects(status: int, kind: str) -> None:
    answer = API.error(status, "It is gone.", "gateway_gone", "model")
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, content=answer))
    client = anthropic.Anthropic(
        api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport)
    )
    with client, pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="m", max_tokens=1, messages=[])
    assert status == caught.value.status_code
    body: Any = caught.value.body
    assert body["type"] == "error"
    expected = {"type": kind, "message": "It is gone.", "code": "gateway_gone", "param": "model"}
    assert expected == body["error"]
