"""JSON Schemas: what may fold where a table allows it, and that none does now."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import canonical
from gateway.providers.anthropic import MESSAGES
from gateway.providers.base import ApiRules, Rule
from gateway.providers.openai import CHAT
from gateway.providers.openai_responses import RESPONSES
from gateway.providers.registry import PROVIDERS
from gateway.wire import envelope
from gateway.wire.anthropic_messages import AnthropicMessages
from gateway.wire.openai_chat import OpenAIChat
from gateway.wire.openai_responses import OpenAIResponses

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.wire.base import WireApi

FOLDING = ApiRules(fold_schemas=Rule("keywords are read by name", "an imaginary provider"))


def folded(schema: str, rules: ApiRules = FOLDING) -> str:
    return canonical.encode(envelope.fold_schema(canonical.parse(schema.encode()), rules)).decode()


@pytest.mark.parametrize(
    ("what", "one", "other"),
    [
        ("keywords", '{"type":"string","title":"T"}', '{"title":"T","type":"string"}'),
        (
            "keywords of a property",
            '{"properties":{"a":{"type":"string","title":"T"}}}',
            '{"properties":{"a":{"title":"T","type":"string"}}}',
        ),
        (
            "keywords of a property that is named like a keyword",
            '{"properties":{"enum":{"type":"string","title":"T"}}}',
            '{"properties":{"enum":{"title":"T","type":"string"}}}',
        ),
        (
            "keywords of a definition",
            '{"$defs":{"D":{"properties":{},"type":"object"}}}',
            '{"$defs":{"D":{"type":"object","properties":{}}}}',
        ),
        (
            "keywords of items",
            '{"items":{"type":"number","minimum":1}}',
            '{"items":{"minimum":1,"type":"number"}}',
        ),
        (
            "keywords of one of several",
            '{"anyOf":[{"type":"null"},{"type":"string","pattern":"x"}]}',
            '{"anyOf":[{"type":"null"},{"pattern":"x","type":"string"}]}',
        ),
    ],
)
def test_the_order_of_keywords_folds_where_the_table_says_so(
    what: str, one: str, other: str
) -> None:
    assert folded(one) == folded(other), what
    assert folded(one, ApiRules()) != folded(other, ApiRules()), what
    assert one == folded(one, ApiRules())


@pytest.mark.parametrize(
    ("what", "one", "other"),
    [
        ("properties", '{"properties":{"a":{},"b":{}}}', '{"properties":{"b":{},"a":{}}}'),
        ("definitions", '{"$defs":{"a":{},"b":{}}}', '{"$defs":{"b":{},"a":{}}}'),
        ("required", '{"required":["a","b"]}', '{"required":["b","a"]}'),
        ("enum", '{"enum":["a","b"]}', '{"enum":["b","a"]}'),
        ("members of a default", '{"default":{"a":1,"b":2}}', '{"default":{"b":2,"a":1}}'),
        ("members of a const", '{"const":{"a":1,"b":2}}', '{"const":{"b":2,"a":1}}'),
        ("members of an enum", '{"enum":[{"a":1,"b":2}]}', '{"enum":[{"b":2,"a":1}]}'),
        ("members of an example", '{"examples":[{"a":1,"b":2}]}', '{"examples":[{"b":2,"a":1}]}'),
        ("alternatives", '{"anyOf":[{"type":"a"},{}]}', '{"anyOf":[{},{"type":"a"}]}'),
        ("tuples", '{"prefixItems":[{"type":"a"},{}]}', '{"prefixItems":[{},{"type":"a"}]}'),
        ("numbers", '{"minimum":1}', '{"minimum":1.0}'),
        ("an extension", '{"x-a":{"a":1,"b":2}}', '{"x-a":{"b":2,"a":1}}'),
        ("types", '{"type":["string","null"]}', '{"type":["null","string"]}'),
        ("nothing and true", '{"items":{}}', '{"items":true}'),
        ("a list in place of properties", '{"properties":["a","b"]}', '{"properties":["b","a"]}'),
    ],
)
def test_what_an_answer_could_follow_stays_as_it_is(what: str, one: str, other: str) -> None:
    assert folded(one) != folded(other), what


@pytest.mark.parametrize("schema", ["true", "null", '"x"', "[]", "{}", "1.0"])
def test_what_is_no_schema_stays_as_it_is(schema: str) -> None:
    assert schema == folded(schema)


KEYWORDS = st.sampled_from(["type", "title", "default", "enum", "minimum", "x-own"])
SCHEMAS = st.recursive(
    st.dictionaries(KEYWORDS, st.sampled_from(["a", "b"]), max_size=4),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.just("object"),
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            "items": inner,
            "anyOf": st.lists(inner, max_size=2),
            "default": st.dictionaries(st.sampled_from("abc"), st.booleans()),
        },
    ),
    max_leaves=8,
)


@given(SCHEMAS)
def test_a_folded_schema_says_the_same_and_folds_no_further(schema: Any) -> None:
    once = folded(json.dumps(schema))

    assert schema == json.loads(once)
    assert once == folded(once)


# --- where schemas stand in requests --------------------------------------------------------------

ORDERED = {"type": "object", "properties": {"b": {"type": "string"}, "a": {}}, "required": ["b"]}
SHUFFLED = {"required": ["b"], "properties": {"b": {"type": "string"}, "a": {}}, "type": "object"}
MOVED = {"type": "object", "properties": {"a": {}, "b": {"type": "string"}}, "required": ["b"]}
SAID = {"messages": [{"role": "user", "content": "hi"}]}

PLACES: list[tuple[str, WireApi, ApiRules, Callable[[Any], dict[str, Any]]]] = [
    (
        "a chat tool",
        OpenAIChat(),
        CHAT,
        lambda s: {
            **SAID,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": s}}],
        },
    ),
    (
        "a chat response format",
        OpenAIChat(),
        CHAT,
        lambda s: {
            **SAID,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": s}},
        },
    ),
    (
        "a tool of messages",
        AnthropicMessages(),
        MESSAGES,
        lambda s: {**SAID, "max_tokens": 9, "tools": [{"name": "f", "input_schema": s}]},
    ),
    (
        "an output format of messages",
        AnthropicMessages(),
        MESSAGES,
        lambda s: {
            **SAID,
            "max_tokens": 9,
            "output_config": {"format": {"type": "json_schema", "schema": s}},
        },
    ),
    (
        "a tool of responses",
        OpenAIResponses(),
        RESPONSES,
        lambda s: {"input": "hi", "tools": [{"type": "function", "name": "f", "parameters": s}]},
    ),
    (
        "a text format of responses",
        OpenAIResponses(),
        RESPONSES,
        lambda s: {
            "input": "hi",
            "text": {"format": {"type": "json_schema", "name": "n", "schema": s}},
        },
    ),
]


@pytest.mark.parametrize(("what", "api", "rules", "request_with"), PLACES, ids=lambda v: str(v) if isinstance(v, str) else "")  # fmt: skip
@pytest.mark.parametrize("fold_tools", [True, False])
def test_a_schema_folds_wherever_it_stands(
    what: str,
    api: WireApi,
    rules: ApiRules,
    request_with: Callable[[Any], dict[str, Any]],
    *,
    fold_tools: bool,
) -> None:
    if not fold_tools:
        rules = replace(rules, fold_tools=None)

    def key(schema: Any, rules: ApiRules) -> bytes:
        body = json.dumps({"model": "m", **request_with(schema)}).encode()
        return api.understand(body, rules).canonical

    folding = replace(rules, fold_schemas=FOLDING.fold_schemas)

    assert key(ORDERED, folding) == key(SHUFFLED, folding), what
    assert key(ORDERED, folding) != key(MOVED, folding), what
    assert key(ORDERED, rules) != key(SHUFFLED, rules), what


@pytest.mark.parametrize(
    "odd", ['{"type":"json_schema"}', '{"json_schema":null}', '{"json_schema":{"schema":true}}', '"x"', "[]"]
)  # fmt: skip
def test_a_response_format_without_a_schema_stays_as_it_is(odd: str) -> None:
    body = f'{{"model":"m","messages":[],"response_format":{odd}}}'.encode()

    for rules in (CHAT, replace(CHAT, fold_schemas=FOLDING.fold_schemas)):
        assert f'"response_format":{odd}'.encode() in OpenAIChat().understand(body, rules).canonical


def test_no_provider_documents_that_the_order_of_keywords_is_not_rendered() -> None:
    # Anthropic documents the contrary: another order of keys in a tool misses the prompt cache.
    for provider in PROVIDERS.values():
        assert {None} == {api.fold_schemas for api in provider.apis.values()}
