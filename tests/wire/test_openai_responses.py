"""What a request for a response asks: its canonical form, and when the cache has no say."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from gateway.core.model import Form, Reason
from gateway.providers.openai_responses import RESPONSES
from gateway.wire.base import NotUnderstood
from tests.helpers.openai_responses import (
    API,
    CALL,
    CUSTOM,
    FUNCTION,
    MARK,
    OUTPUT,
    REASONING,
    UNKNOWN_RESPONSES,
    asked,
    canonical_of,
    request,
    said,
    understood,
    user,
    with_input,
)

RULES = {"openai": RESPONSES, "unknown": UNKNOWN_RESPONSES}
BOTH = ("openai", "unknown")
OPENAI = ("openai",)


def backwards(value: Any) -> Any:
    """Every object with its members in the opposite order."""
    if isinstance(value, dict):
        return {name: backwards(value[name]) for name in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


IMAGE = {"type": "input_image", "image_url": "u", "detail": "low"}

# (what, one body, another body, where they are the same request)
SAME: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    ("order of top-level members", request(top_p=1), backwards(request(top_p=1)), BOTH),
    (
        "order of message and part members",
        with_input(user([said("a"), IMAGE])),
        with_input(backwards(user([said("a"), IMAGE]))),
        BOTH,
    ),
    (
        "order inside audio",
        with_input(user([{"type": "input_audio", "input_audio": {"data": "d", "format": "mp3"}}])),
        with_input(user([{"type": "input_audio", "input_audio": {"format": "mp3", "data": "d"}}])),
        BOTH,
    ),
    ("order of a call's members", with_input(CALL), with_input(backwards(CALL)), OPENAI),
    ("order of an output's members", with_input(OUTPUT), with_input(backwards(OUTPUT)), OPENAI),
    ("order of a custom call", with_input(CUSTOM), with_input(backwards(CUSTOM)), OPENAI),
    (
        "order of reasoning's members",
        with_input(REASONING),
        with_input(dict(reversed(REASONING.items()))),
        OPENAI,
    ),
    ("1 and 1.0", request(temperature=1), request(temperature=1.0), BOTH),
    ("0 and -0.0", request(temperature=0), request(temperature=-0.0), BOTH),
    (
        "order inside reasoning",
        request(reasoning={"effort": "low", "summary": "auto"}),
        request(reasoning={"summary": "auto", "effort": "low"}),
        BOTH,
    ),
    (
        "order inside tool_choice",
        request(tool_choice={"type": "function", "name": "f"}),
        request(tool_choice={"name": "f", "type": "function"}),
        OPENAI,
    ),
    ("stream or not", request(stream=True), request(stream=False), BOTH),
    ("stream or absent", request(stream=True), request(), BOTH),
    (
        "stream_options",
        request(stream=True, stream_options={"include_obfuscation": False}),
        request(),
        BOTH,
    ),
    ("store of true", request(store=True), request(), OPENAI),
    ("a string and a message of the user", request(), with_input(user("hi")), OPENAI),
    (
        "a message with its type and without",
        with_input(user("hi")),
        with_input(user("hi", type="message")),
        OPENAI,
    ),
    ("a string and its one text part", request(), with_input(user([said("hi")])), OPENAI),
    (
        "a developer's string and its one text part",
        with_input({"role": "developer", "content": "d"}),
        with_input({"role": "developer", "content": [said("d")]}),
        OPENAI,
    ),
    ("a marker on a text part", request(), with_input(user([said("hi", **MARK)])), OPENAI),
    (
        "a marker on an image",
        with_input(user([{**IMAGE, **MARK}])),
        with_input(user([IMAGE])),
        OPENAI,
    ),
    (
        "a marker in a call's output",
        with_input({**OUTPUT, "output": [said("42", **MARK)]}),
        with_input({**OUTPUT, "output": [said("42")]}),
        OPENAI,
    ),
    (
        "order of tool members",
        request(tools=[FUNCTION]),
        request(tools=[dict(reversed(FUNCTION.items()))]),
        OPENAI,
    ),
]

DIFFERENT: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    ("model", request(), request(model="gpt-4o-mini"), BOTH),
    ("text", request(), request(input="ho"), BOTH),
    ("case of text", request(), request(input="Hi"), BOTH),
    ("white space in text", request(), request(input="hi "), BOTH),
    ("role", with_input(user("hi")), with_input({"role": "system", "content": "hi"}), BOTH),
    ("a string and a message of the user", request(), with_input(user("hi")), ("unknown",)),
    (
        "a message with its type and without",
        with_input(user("hi")),
        with_input(user("hi", type="message")),
        ("unknown",),
    ),
    ("a string and its one text part", with_input(user("hi")), with_input(user([said("hi")])), ("unknown",)),
    (
        "an assistant's string and an output part",
        with_input({"role": "assistant", "content": "a"}),
        with_input({"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}),
        BOTH,
    ),
    (
        "an assistant's string and an input part",
        with_input({"role": "assistant", "content": "a"}),
        with_input({"role": "assistant", "content": [said("a")]}),
        BOTH,
    ),
    (
        "a part's other members",
        with_input(user([said("hi")])),
        with_input(user([said("hi", x=1)])),
        BOTH,
    ),
    (
        "a text that is a string and one that is none",
        with_input(user([said("1")])),
        with_input(user([{"type": "input_text", "text": 1}])),
        BOTH,
    ),
    ("input_text and text", request(), with_input(user([{"type": "text", "text": "hi"}])), BOTH),
    (
        "a marker where none is allowed",
        with_input({"role": "assistant", "content": [{"type": "output_text", "text": "a", **MARK}]}),
        with_input({"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}),
        BOTH,
    ),
    ("a part that is no object", with_input(user(["hi"])), with_input(user("hi")), BOTH),
    ("two parts and their joined text", with_input(user([said("h"), said("i")])), request(), BOTH),
    ("instructions", request(instructions="a"), request(instructions="b"), BOTH),
    ("instructions and a system message", request(instructions="a"), with_input({"role": "system", "content": "a"}, user("hi")), BOTH),
    ("previous_response_id", request(previous_response_id="resp_1"), request(previous_response_id="resp_2"), BOTH),
    ("previous_response_id or none", request(previous_response_id="resp_1"), request(), BOTH),
    ("store", request(store=False), request(), BOTH),
    ("store of null", request(store=None), request(), BOTH),
    ("store of true", request(store=True), request(), ("unknown",)),
    ("metadata", request(metadata={"a": "b"}), request(), BOTH),
    ("order of metadata", request(metadata={"a": "b", "c": "d"}), request(metadata={"c": "d", "a": "b"}), BOTH),
    ("user", request(user="u1"), request(user="u2"), BOTH),
    ("safety_identifier", request(safety_identifier="u1"), request(), BOTH),
    ("prompt_cache_key", request(prompt_cache_key="k"), request(), BOTH),
    ("prompt_cache_retention", request(prompt_cache_retention="24h"), request(), BOTH),
    ("prompt_cache_options", request(prompt_cache_options={"mode": "explicit"}), request(), BOTH),
    ("service_tier", request(service_tier="flex"), request(), BOTH),
    ("include", request(include=["message.output_text.logprobs"]), request(), BOTH),
    ("order of include", request(include=["a", "b"]), request(include=["b", "a"]), BOTH),
    ("prompt's version", request(prompt={"id": "p", "version": "1"}), request(prompt={"id": "p", "version": "2"}), BOTH),
    ("prompt's variables", request(prompt={"id": "p", "version": "1", "variables": {"a": "b"}}), request(prompt={"id": "p", "version": "1"}), BOTH),
    ("max_output_tokens", request(max_output_tokens=5), request(), BOTH),
    ("temperature", request(temperature=0.1), request(temperature=0.2), BOTH),
    ("temperature of its default", request(temperature=1), request(), BOTH),
    ("parallel_tool_calls of its default", request(parallel_tool_calls=True), request(), BOTH),
    ("an unknown member", request(chat_template_kwargs={"a": 1}), request(), BOTH),
    ("order within an unknown member", request(x={"a": 1, "b": 2}), request(x={"b": 2, "a": 1}), BOTH),
    ("spelling within an unknown member", request(x=1), request(x=1.0), BOTH),
    ("order of a call's members", with_input(CALL), with_input(backwards(CALL)), ("unknown",)),
    ("order of tool members", request(tools=[FUNCTION]), request(tools=[backwards(FUNCTION)]), ("unknown",)),
    (
        "order within a tool's schema",
        request(tools=[{**FUNCTION, "parameters": {"a": 1, "b": 2}}]),
        request(tools=[{**FUNCTION, "parameters": {"b": 2, "a": 1}}]),
        BOTH,
    ),
    ("order of tools", request(tools=[FUNCTION, {**FUNCTION, "name": "g"}]), request(tools=[{**FUNCTION, "name": "g"}, FUNCTION]), BOTH),
    ("no tools and none named", request(tools=[]), request(), BOTH),
    (
        "order within the text format's schema",
        request(text={"format": {"type": "json_schema", "schema": {"a": 1, "b": 2}}}),
        request(text={"format": {"type": "json_schema", "schema": {"b": 2, "a": 1}}}),
        BOTH,
    ),
    ("text.verbosity", request(text={"verbosity": "low"}), request(text={"verbosity": "high"}), BOTH),
    ("spelling of arguments", with_input(CALL), with_input({**CALL, "arguments": "{ }"}), BOTH),
    ("an output's text", with_input(CALL, OUTPUT), with_input(CALL, {**OUTPUT, "output": "43"}), BOTH),
    ("an item's status", with_input(CALL), with_input({**CALL, "status": "incomplete"}), BOTH),
    ("a message's phase", with_input(user("a", phase="commentary")), with_input(user("a")), BOTH),
    (
        "order within an item of an unknown type",
        with_input({"type": "new", "a": 1, "b": 2}),
        with_input({"type": "new", "b": 2, "a": 1}),
        BOTH,
    ),
    ("order of items", with_input(user("a"), user("b")), with_input(user("b"), user("a")), BOTH),
    ("an item more", with_input(user("a")), with_input(user("a"), user("a")), BOTH),
    ("a reference's id", with_input({"id": "msg_1"}), with_input({"id": "msg_2"}), BOTH),
    ("no input and an empty one", {"model": "m"}, {"model": "m", "input": ""}, BOTH),
    ("an empty text and no items", request(input=""), request(input=[]), BOTH),
]  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "where"), [pytest.param(*rest, id=what) for what, *rest in SAME]
)
def test_these_are_the_same_request(
    a: dict[str, Any], b: dict[str, Any], where: tuple[str, ...]
) -> None:
    for name in where:
        assert canonical_of(a, RULES[name]) == canonical_of(b, RULES[name]), name


@pytest.mark.parametrize(
    ("a", "b", "where"), [pytest.param(*rest, id=what) for what, *rest in DIFFERENT]
)
def test_these_are_different_requests(
    a: dict[str, Any], b: dict[str, Any], where: tuple[str, ...]
) -> None:
    for name in where:
        assert canonical_of(a, RULES[name]) != canonical_of(b, RULES[name]), name


def test_the_canonical_form_is_pinned() -> None:
    body = b'{"stream":true,"input":[{"content":[{"text":"hi","type":"input_text"}],"role":"user"}],"temperature":1.0,"model":"gpt-4o","store":true}'  # fmt: skip

    assert (
        b'{"input":[{"content":"hi","role":"user","type":"message"}],"model":"gpt-4o","temperature":1}'
        == canonical_of(body)
    )


# --- what is not understood, and what passes --------------------------------------------------


@pytest.mark.parametrize(
    ("where", "body"),
    [
        ("$", []),
        ("$.model", {"input": "hi"}),
        ("$.model", {"input": "hi", "model": None}),
        ("$.input", request(input=1)),
        ("$.input", request(input={"role": "user"})),
        ("$.input[0]", with_input("hi")),
        ("$.input[1].type", with_input(user("a"), {"type": 1})),
        ("$.input[0].role", with_input({"type": "message", "content": "a"})),
        ("$.input[0].role", with_input({"role": 1, "content": "a"})),
        ("$.input[0].call_id", with_input({**CALL, "call_id": [1]})),
        ("$.input[0].call_id", with_input({**OUTPUT, "call_id": 1})),
        ("$.input[0].id", with_input({**CALL, "id": [0]})),
        ("$.input[0].id", with_input(user("a", id={}))),
        ("$.tools", request(tools={})),
        ("$.tools[0]", request(tools=["f"])),
        ("$.stream", request(stream="yes")),
    ],
)
def test_an_odd_body_is_not_understood_and_says_where(where: str, body: Any) -> None:
    with pytest.raises(NotUnderstood) as caught:
        API.understand(json.dumps(body).encode(), RESPONSES)

    assert (where, Reason.NOT_UNDERSTOOD) == (caught.value.where, caught.value.reason)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","model":"m","input":"hi"}',
        b'{"model":"m","input":"\\ud800"}',
        b'{"model":"m","input":[{"role":"user","content":[{"text":"a","text":"b"}]}]}',
        b'{"model":"m","input":"hi","seed":NaN}',
        b'{"model":"m","input":"hi","x":99999999999999999999}',
    ],
)
def test_json_without_one_meaning_is_not_cached(body: bytes) -> None:
    with pytest.raises(NotUnderstood) as caught:
        API.understand(body, RESPONSES)

    assert Reason.UNCACHEABLE_JSON == caught.value.reason


LOCAL_SHELL = {"type": "shell", "environment": {"type": "local"}}


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (None, {}),
        (None, {"store": True}),
        (None, {"store": False}),
        (None, {"previous_response_id": "resp_1"}),
        (None, {"background": False}),
        (None, {"conversation": None}),
        (Reason.PROVIDER_STORED, {"conversation": "conv_1"}),
        (Reason.PROVIDER_STORED, {"conversation": {"id": "conv_1"}}),
        (Reason.PROVIDER_STORED, {"background": True}),
        (None, {"prompt": {"id": "pmpt_1", "version": "2"}}),
        (Reason.UNVERSIONED_PROMPT, {"prompt": {"id": "pmpt_1"}}),
        (Reason.UNVERSIONED_PROMPT, {"prompt": {"id": "pmpt_1", "version": None}}),
        (Reason.UNVERSIONED_PROMPT, {"prompt": {"id": "pmpt_1", "version": ""}}),
        (Reason.UNVERSIONED_PROMPT, {"prompt": {"id": "pmpt_1", "version": 2}}),
        (Reason.UNVERSIONED_PROMPT, {"prompt": "pmpt_1"}),
        (Reason.SEARCH_MODEL, {"model": "o4-mini-deep-research"}),
        (Reason.SEARCH_MODEL, {"model": "openai/gpt-4o:online"}),
        (Reason.HOSTED_TOOL, {"plugins": [{"id": "web"}]}),
        (None, {"tools": None}),
        (None, {"tools": [FUNCTION]}),
        (None, {"tools": [{"type": "custom", "name": "c"}]}),
        (None, {"tools": [{"type": "local_shell"}]}),
        (None, {"tools": [{"type": "apply_patch"}]}),
        (None, {"tools": [LOCAL_SHELL]}),
        (None, {"tools": [{"type": "tool_search", "execution": "client"}]}),
        (None, {"tools": [{"type": "namespace", "name": "n", "tools": [FUNCTION]}]}),
        (Reason.HOSTED_TOOL, {"tools": [{"type": "namespace", "tools": [{"type": "mcp"}]}]}),
        (Reason.HOSTED_TOOL, {"tools": [{"type": "namespace", "tools": [1]}]}),
        (Reason.HOSTED_TOOL, {"tools": [{"type": "tool_search"}]}),
        (Reason.HOSTED_TOOL, {"tools": [{"type": "tool_search", "execution": "server"}]}),
        (Reason.HOSTED_TOOL, {"tools": [{"type": "shell"}]}),
        (Reason.HOSTED_TOOL, {"tools": [{"type": "shell", "environment": None}]}),
        (
            Reason.HOSTED_TOOL,
            {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]},
        ),
        *(
            (Reason.HOSTED_TOOL, {"tools": [FUNCTION, {"type": kind}]})
            for kind in (
                *("web_search", "web_search_preview", "web_search_2026_01_01", "file_search"),
                *("code_interpreter", "mcp", "image_generation", "computer", "new_tool"),
                *("computer_use_preview", "programmatic_tool_calling", None, ["function"]),
            )
        ),
        (
            Reason.HOSTED_TOOL,
            {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]},
        ),
        (None, {"input": [{"type": "additional_tools", "tools": [FUNCTION]}]}),
        (
            Reason.HOSTED_TOOL,
            {"input": [{"type": "tool_search_output", "tools": [{"type": "mcp"}]}]},
        ),
    ],
)
def test_what_depends_on_more_than_the_request_passes(
    reason: Reason | None, changes: dict[str, Any]
) -> None:
    for rules in RULES.values():
        assert reason == understood(request(**changes), rules).pass_reason


# --- what a hit needs -------------------------------------------------------------------------


def test_an_ask_tells_the_form_the_limit_and_whether_chance_plays() -> None:
    plain = asked(request(store=False))
    streamed = asked(request(stream=True, max_output_tokens=16, temperature=0.0))

    assert (Form.BODY, "gpt-4o", None, False) == (
        plain.form,
        plain.model,
        plain.max_output_tokens,
        plain.deterministic,
    )
    assert (Form.STREAM, 16, True) == (
        streamed.form,
        streamed.max_output_tokens,
        streamed.deterministic,
    )


@pytest.mark.parametrize(
    ("keeps_id", "changes"),
    [(True, {}), (True, {"store": True}), (True, {"store": None}), (False, {"store": False})],
)
def test_unless_store_is_false_the_answer_keeps_its_id(
    keeps_id: bool, changes: dict[str, Any]
) -> None:
    for rules in RULES.values():
        ask = asked(request(**changes), rules)
        assert keeps_id == ask.keeps_id
        assert ask.bound or not keeps_id


@pytest.mark.parametrize(
    ("bound", "changes"),
    [
        (False, {}),
        (False, {"input": [user([IMAGE])]}),
        (False, {"input": [CALL, OUTPUT]}),
        (False, {"model": "o3", "reasoning": {"effort": "none"}}),
        (False, {"include": ["message.output_text.logprobs"]}),
        (True, {"previous_response_id": "resp_1"}),
        (True, {"prompt": {"id": "p", "version": "1"}}),
        (True, {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        (True, {"input": [{"id": "msg_1"}]}),
        (True, {"input": [user([{"type": "input_file", "file_id": "file-1"}])]}),
        (True, {"input": [user([{"type": "input_image", "file_id": "file-1"}])]}),
        (True, {"input": [{**OUTPUT, "output": [{"type": "input_file", "file_id": "f"}]}]}),
        (True, {"input": [REASONING]}),
        (True, {"input": [{"type": "compaction", "encrypted_content": "g"}]}),
        (True, {"input": [{"type": "some_new_item"}]}),
        (True, {"model": "o3"}),
        (True, {"model": "gpt-5"}),
        (True, {"reasoning": {"effort": "low"}}),
        (True, {"reasoning": {"summary": "auto"}}),
        (True, {"include": ["reasoning.encrypted_content"]}),
        (True, {"thinking_budget": 5}),
    ],
)
def test_what_the_provider_keeps_or_encrypts_is_bound_to_its_credential(
    bound: bool, changes: dict[str, Any]
) -> None:
    ask = asked(request(store=False, **changes))

    assert (bound, False) == (ask.bound, ask.keeps_id)


def test_an_unknown_upstream_may_always_encrypt_what_it_thinks() -> None:
    assert asked(request(store=False), UNKNOWN_RESPONSES).bound
    off = request(store=False, reasoning={"effort": "none"})
    assert not asked(off, UNKNOWN_RESPONSES).bound


# --- the rest of the API ----------------------------------------------------------------------


def test_the_api_says_what_it_is() -> None:
    assert ("openai_responses", "/v1/responses", "chat", "x-request-id") == (
        API.name,
        API.route,
        API.operation,
        API.request_id_header,
    )


def test_a_stream_needs_no_asking_for_its_usage() -> None:
    body = json.dumps(request(stream=True)).encode()

    assert API.with_stream_usage(body, asked(request(stream=True)), RESPONSES) is None
    event = b'data: {"usage": {"input_tokens": 1}, "choices": []}\n\n'
    assert event == API.without_unasked_usage(event)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (504, "server_error")]
)
def test_our_errors_have_the_shape_that_the_sdk_reads(status: int, kind: str) -> None:
    body = json.loads(API.error(status, "no \udcff", "gateway_x", "model"))

    assert {
        "error": {"message": "no ?", "type": kind, "param": "model", "code": "gateway_x"}
    } == body
    error = openai.APIError("no", request=None, body=body["error"])  # type: ignore[arg-type]
    assert ("gateway_x", "model", kind) == (error.code, error.param, error.type)
