"""Tool-call ids: renamed where nobody can tell, kept where somebody might."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.providers.openai import CHAT
from tests.helpers.openai_chat import API, UNKNOWN_CHAT, canonical_of, request

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules


def calls(*ids: str, arguments: str = "{}") -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": each, "type": "function", "function": {"name": "f", "arguments": arguments}}
            for each in ids
        ],
    }


def result(call_id: str, content: Any = "42") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def history(*messages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return request(messages=[{"role": "user", "content": "q"}, *messages], **changes)


def same(a: dict[str, Any], b: dict[str, Any], rules: ApiRules = CHAT) -> bool:
    return canonical_of(a, rules) == canonical_of(b, rules)


ONE = history(calls("call_aaa111"), result("call_aaa111"))
OTHER = history(calls("call_zzz999"), result("call_zzz999"))


def test_ids_are_renamed_by_first_appearance() -> None:
    assert same(ONE, OTHER)


def test_parallel_calls_keep_which_result_belongs_to_which() -> None:
    straight = history(calls("x1111", "y2222"), result("x1111", "1"), result("y2222", "2"))
    swapped_ids = history(calls("y2222", "x1111"), result("y2222", "1"), result("x1111", "2"))
    crossed = history(calls("x1111", "y2222"), result("y2222", "1"), result("x1111", "2"))

    assert same(straight, swapped_ids)
    assert not same(straight, crossed)


@pytest.mark.parametrize(
    ("what", "a", "b"),
    [
        (
            "one id twice or two ids",
            history(calls("x1111"), result("x1111"), calls("x1111"), result("x1111")),
            history(calls("x1111"), result("x1111"), calls("y2222"), result("y2222")),
        ),
        (
            "two calls with one id or with two",
            history(calls("x1111", "x1111")),
            history(calls("x1111", "y2222")),
        ),
        (
            "a result for the call or for none",
            history(calls("x1111"), result("x1111")),
            history(calls("x1111"), result("y2222")),
        ),
        (
            "an id or none",
            history(calls("x1111")),
            history({**calls("x1111"), "tool_calls": [{"type": "function"}]}),
        ),
    ],
)
@pytest.mark.parametrize("rules", [CHAT, UNKNOWN_CHAT], ids=["openai", "unknown"])
def test_another_structure_of_ids_is_another_request(
    what: str, a: dict[str, Any], b: dict[str, Any], rules: ApiRules
) -> None:
    assert not same(a, b, rules)


@pytest.mark.parametrize(
    ("where", "make"),
    [
        ("the user's text", lambda i: history(calls(i), result(i), {"role": "user", "content": i})),
        ("inside a sentence", lambda i: history(calls(i), result(i, f"the result of {i} is 42"))),
        ("a text part", lambda i: history(calls(i), result(i, [{"type": "text", "text": i}]))),
        ("the call's arguments", lambda i: history(calls(i, arguments=f'{{"of":"{i}"}}'))),
        ("the system prompt", lambda i: history({"role": "system", "content": i}, calls(i))),
        ("a tool's description", lambda i: history(calls(i), tools=[_tool(i)])),
        ("an unknown member", lambda i: history(calls(i), x={"of": [i]})),
        ("a member's name", lambda i: history(calls(i), x={i: 1})),
        ("another id", lambda i: history(calls(i, f"{i}-2"), x=f"{i}-2")),
    ],
)
def test_an_id_that_occurs_in_any_other_text_is_kept(where: str, make: Any) -> None:
    assert not same(make("call_aaa111"), make("call_zzz999"))


def _tool(description: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "description": description}}


def test_one_id_that_is_spoken_of_keeps_all_ids() -> None:
    def make(first: str, second: str) -> dict[str, Any]:
        return history(calls(first, second), result(first), result(second, f"see {second}"))

    assert not same(make("a1111", "c3333"), make("b2222", "c3333"))


def test_an_id_in_an_excluded_member_is_spoken_of_by_nobody() -> None:
    assert same({**ONE, "user": "call_aaa111"}, OTHER)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("a reasoning model", {"model": "o3"}),
        ("a model that we don't know", {"model": "gpt-7"}),
        ("effort", {"reasoning_effort": "low"}),
        ("effort on a plain model", {"model": "gpt-4.1", "reasoning_effort": "minimal"}),
        ("OpenRouter's switch", {"reasoning": {"enabled": True}}),
        ("Anthropic's switch", {"thinking": {"type": "enabled"}}),
        ("Qwen's switch", {"enable_thinking": True}),
        ("a budget", {"thinking_budget": 100}),
    ],
)
def test_ids_are_kept_while_thinking_may_be_on(what: str, changes: dict[str, Any]) -> None:
    assert not same({**ONE, **changes}, {**OTHER, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "gpt-5.2", "reasoning_effort": "none"},
        {"model": "gpt-4o-mini-2024-07-18"},
        {"model": "ft:gpt-4o:org::x"},
        {"thinking": None},
        {"enable_thinking": False},
    ],
)
def test_ids_are_renamed_while_thinking_is_known_to_be_off(changes: dict[str, Any]) -> None:
    assert same({**ONE, **changes}, {**OTHER, **changes})


@pytest.mark.parametrize(
    "extra",
    [
        {"reasoning_content": "because"},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
        {"encrypted_content": "x"},
        {"content": [{"type": "thinking", "thinking": "x"}]},
        {"content": [{"type": "text", "text": "x", "signature": "s"}]},
        {"extra_content": {"google": {"thought_signature": "s"}}},
    ],
)
def test_ids_are_kept_when_the_history_holds_reasoning_or_signatures(extra: dict[str, Any]) -> None:
    def make(call_id: str) -> dict[str, Any]:
        return history({**calls(call_id), **extra}, result(call_id))

    assert not same(make("call_aaa111"), make("call_zzz999"))


def test_ids_are_kept_when_a_call_itself_is_signed() -> None:
    def make(call_id: str) -> dict[str, Any]:
        message = calls(call_id)
        message["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "s"}}
        return history(message, result(call_id))

    assert not same(make("call_aaa111"), make("call_zzz999"))


@pytest.mark.parametrize(
    ("what", "one", "other"),
    [
        ("Kimi's, which count and name", "functions.f:0", "functions.f:1"),
        ("Mistral's nine letters", "D681PevKs", "Zz81PevKs"),
        ("OpenAI's", "call_aaa111", "call_zzz999"),
    ],
)
def test_an_unknown_upstream_keeps_ids_because_its_template_may_render_them(
    what: str, one: str, other: str
) -> None:
    assert not same(
        history(calls(one), result(one)), history(calls(other), result(other)), UNKNOWN_CHAT
    )


def test_an_unknown_upstream_keeps_the_order_of_a_calls_members() -> None:
    ordered = history(calls("x1111"))
    turned = history(calls("x1111"))
    turned["messages"][1]["tool_calls"] = [
        dict(reversed(call.items())) for call in turned["messages"][1]["tool_calls"]
    ]

    assert same(ordered, turned)
    assert not same(ordered, turned, UNKNOWN_CHAT)


@pytest.mark.parametrize("odd", ["", "a b", 'quo"te', "é", "x" * 129, "line\nend", "0", "id"])
def test_an_id_in_no_known_format_is_kept(odd: str) -> None:
    assert not same(history(calls(odd), result(odd)), OTHER)


@pytest.mark.parametrize("stand_in", ["[0]", "0", "[1]"])
def test_no_id_can_pass_for_a_renamed_one(stand_in: str) -> None:
    assert not same(history(calls(stand_in), result(stand_in)), ONE)


def test_arguments_are_kept_as_the_client_spelled_them() -> None:
    def make(arguments: str) -> dict[str, Any]:
        return history(calls("x1111", arguments=arguments))

    spellings = ['{"a":1}', '{"a": 1}', '{"a":1.0}', '{ "a":1}', '{"b":2,"a":1}', '{"a":1,"b":2}']

    assert len(spellings) == len({canonical_of(make(each)) for each in spellings})


def test_arguments_that_are_no_text_are_kept_as_spelled_too() -> None:
    bodies = [
        json.dumps(history(calls("x1111", arguments="ARGUMENTS"))).replace('"ARGUMENTS"', raw)
        for raw in ('{"a":1,"b":2}', '{"b":2,"a":1}', '{"a":1.0,"b":2}')
    ]

    assert len(bodies) == len({canonical_of(body.encode()) for body in bodies})


def test_every_id_of_the_history_is_remembered_for_replay() -> None:
    body = history(calls("a1", "b2"), result("a1"), {"role": "tool", "tool_call_id": "c3"})

    for rules in (CHAT, UNKNOWN_CHAT):
        assert {"a1", "b2", "c3"} == API.understand(
            json.dumps(body).encode(), rules
        ).ask.history_ids
