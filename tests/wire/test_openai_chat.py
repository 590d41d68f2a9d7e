from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.model import Form, Question, Reason
from gateway.providers.openai import CHAT
from gateway.wire.base import NotUnderstood
from tests.helpers.openai_chat import API, UNKNOWN_CHAT, USAGE, canonical_of, request

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules

RULES = {"openai": CHAT, "unknown": UNKNOWN_CHAT}
BOTH = ("openai", "unknown")
OPENAI = ("openai",)

BASE = '{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]%s}'


def with_(members: str) -> bytes:
    return (BASE % ("," + members)).encode()


def said(content: str, more: str = "") -> bytes:
    return f'{{"model":"gpt-4o","messages":[{{"role":"user","content":{content}}}]{more}}}'.encode()


TEXT_PART = '{"type":"text","text":"hi"}'
TOOL = '{"type":"function","function":{"name":"f","parameters":%s}}'

# (what, one body, another body, where they are the same request)
SAME: list[tuple[str, bytes, bytes, tuple[str, ...]]] = [
    (
        "order of top-level members",
        b'{"messages":[{"role":"user","content":"hi"}],"temperature":1,"model":"gpt-4o"}',
        with_('"temperature":1'),
        BOTH,
    ),
    (
        "order of message members",
        b'{"model":"gpt-4o","messages":[{"content":"hi","role":"user"}]}',
        said('"hi"'),
        BOTH,
    ),
    (
        "order of part members",
        said('[{"text":"hi","type":"text"}]'),
        said(f"[{TEXT_PART}]"),
        BOTH,
    ),
    (
        "order inside a typed part",
        said('[{"type":"image_url","image_url":{"url":"u","detail":"low"}}]'),
        said('[{"type":"image_url","image_url":{"detail":"low","url":"u"}}]'),
        BOTH,
    ),
    (
        "white space",
        b' {\n\t"model" : "gpt-4o" , "messages" : [ ] }\r\n',
        b'{"model":"gpt-4o","messages":[]}',
        BOTH,
    ),
    ("escapes", said('"\\u0068\\u0069\\/"'), said('"hi/"'), BOTH),
    ("escaped emoji", said('"\\ud83d\\ude00"'), said('"\U0001f600"'), BOTH),
    ("escaped member names", with_('"\\u0074op_p":1'), with_('"top_p":1'), BOTH),
    ("1 and 1.0", with_('"temperature":1'), with_('"temperature":1.0'), BOTH),
    ("1 and 1e0", with_('"temperature":1'), with_('"temperature":1e0'), BOTH),
    ("0 and -0", with_('"temperature":0'), with_('"temperature":-0'), BOTH),
    ("0 and 0.0", with_('"temperature":0'), with_('"temperature":0.0'), BOTH),
    ("0.5 and 5e-1", with_('"top_p":0.5'), with_('"top_p":5E-1'), BOTH),
    (
        "order inside logit_bias",
        with_('"logit_bias":{"1":1,"2":2}'),
        with_('"logit_bias":{"2":2.0,"1":1}'),
        BOTH,
    ),
    ("stream or not", with_('"stream":true'), with_('"stream":false'), BOTH),
    ("stream or absent", with_('"stream":true'), said('"hi"'), BOTH),
    (
        "stream_options",
        with_('"stream":true,"stream_options":{"include_usage":true}'),
        said('"hi"'),
        BOTH,
    ),
    ("a string and its one text part", said('"hi"'), said(f"[{TEXT_PART}]"), OPENAI),
    (
        "a system string and its one text part",
        b'{"model":"gpt-4o","messages":[{"role":"system","content":"s"}]}',
        b'{"model":"gpt-4o","messages":[{"role":"system","content":[{"type":"text","text":"s"}]}]}',
        OPENAI,
    ),
    ("user", with_('"user":"u1"'), with_('"user":"u2"'), OPENAI),
    ("safety_identifier", with_('"safety_identifier":"u1"'), said('"hi"'), OPENAI),
    ("prompt_cache_key", with_('"prompt_cache_key":"k"'), said('"hi"'), OPENAI),
    (
        "prompt_cache_options",
        with_('"prompt_cache_options":{"mode":"explicit"}'),
        said('"hi"'),
        OPENAI,
    ),
    ("prompt_cache_retention", with_('"prompt_cache_retention":"24h"'), said('"hi"'), OPENAI),
    (
        "a cache marker on a part",
        said('[{"type":"text","text":"hi","prompt_cache_breakpoint":{"mode":"explicit"}}]'),
        said('"hi"'),
        OPENAI,
    ),
    (
        "a cache marker on one of two parts",
        said(f'[{{"type":"text","text":"a","prompt_cache_breakpoint":{{}}}},{TEXT_PART}]'),
        said(f'[{{"type":"text","text":"a"}},{TEXT_PART}]'),
        OPENAI,
    ),
    ("n of 1", with_('"n":1'), said('"hi"'), OPENAI),
    ("n of 1.0", with_('"n":1.0'), said('"hi"'), OPENAI),
    ("logprobs false", with_('"logprobs":false'), said('"hi"'), OPENAI),
    ("frequency_penalty 0", with_('"frequency_penalty":0'), said('"hi"'), OPENAI),
    ("presence_penalty -0.0", with_('"presence_penalty":-0.0'), said('"hi"'), OPENAI),
    (
        "order of tool members",
        with_('"tools":[{"function":{"parameters":{},"name":"f"},"type":"function"}]'),
        with_('"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]'),
        OPENAI,
    ),
]

DIFFERENT: list[tuple[str, bytes, bytes, tuple[str, ...]]] = [
    ("model", said('"hi"'), said('"hi"').replace(b"gpt-4o", b"gpt-4o-mini"), BOTH),
    ("text", said('"hi"'), said('"ho"'), BOTH),
    ("case of text", said('"hi"'), said('"Hi"'), BOTH),
    ("white space in text", said('"hi"'), said('"hi "'), BOTH),
    ("line ends in text", said('"a\\nb"'), said('"a\\r\\nb"'), BOTH),
    ("unicode forms of text", said('"\\u00e9"'), said('"e\\u0301"'), BOTH),
    ("a NUL in text", said('"a\\u0000"'), said('"a"'), BOTH),
    ("role", said('"hi"'), said('"hi"').replace(b'"user"', b'"system"'), BOTH),
    (
        "order of messages",
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}',
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"b"},{"role":"user","content":"a"}]}',
        BOTH,
    ),
    (
        "two messages or one",
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}',
        said('"ab"'),
        BOTH,
    ),
    ("two parts or one", said('[{"type":"text","text":"h"},{"type":"text","text":"i"}]'), said('"hi"'), BOTH),
    ("a text that looks like parts", said(json.dumps(f"[{TEXT_PART}]")), said(f"[{TEXT_PART}]"), BOTH),
    ("null content or empty", said("null"), said('""'), BOTH),
    ("empty list or empty text", said("[]"), said('""'), BOTH),
    ("a string and its one text part", said('"hi"'), said(f"[{TEXT_PART}]"), ("unknown",)),
    ("a part of another type", said('[{"type":"output_text","text":"hi"}]'), said('"hi"'), BOTH),
    ("an unknown member of a text part", said('[{"type":"text","text":"hi","x":1}]'), said('"hi"'), BOTH),
    ("an image's address", said('[{"type":"image_url","image_url":{"url":"a"}}]'), said('[{"type":"image_url","image_url":{"url":"b"}}]'), BOTH),
    ("an image's detail", said('[{"type":"image_url","image_url":{"url":"a"}}]'), said('[{"type":"image_url","image_url":{"url":"a","detail":"low"}}]'), BOTH),
    ("a name", b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi","name":"n"}]}', said('"hi"'), BOTH),
    ("temperature", with_('"temperature":0'), with_('"temperature":1'), BOTH),
    ("temperature or none", with_('"temperature":1'), said('"hi"'), BOTH),
    ("temperature null or none", with_('"temperature":null'), said('"hi"'), BOTH),
    ("numbers that floats can't tell apart", with_('"temperature":0.1'), with_('"temperature":0.10000000000000001'), BOTH),
    ("seed", with_('"seed":1'), with_('"seed":2'), BOTH),
    ("seeds beyond 53 bits", with_('"seed":9007199254740993'), with_('"seed":9007199254740992'), BOTH),
    ("n", with_('"n":2'), said('"hi"'), BOTH),
    ("n true", with_('"n":true'), said('"hi"'), BOTH),
    ("n as text", with_('"n":"1"'), said('"hi"'), BOTH),
    ("logprobs 0", with_('"logprobs":0'), said('"hi"'), BOTH),
    ("logprobs", with_('"logprobs":true'), said('"hi"'), BOTH),
    ("n of 1", with_('"n":1'), said('"hi"'), ("unknown",)),
    ("stop as text or list", with_('"stop":"a"'), with_('"stop":["a"]'), BOTH),
    ("order of stop", with_('"stop":["a","b"]'), with_('"stop":["b","a"]'), BOTH),
    ("max_tokens by name", with_('"max_tokens":5'), with_('"max_completion_tokens":5'), BOTH),
    ("user", with_('"user":"u1"'), with_('"user":"u2"'), ("unknown",)),
    ("prompt_cache_key", with_('"prompt_cache_key":"k"'), said('"hi"'), ("unknown",)),
    ("a cache marker", said('[{"type":"text","text":"hi","prompt_cache_breakpoint":{}}]'), said(f"[{TEXT_PART}]"), ("unknown",)),
    ("a marker of another provider", said('[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]'), said(f"[{TEXT_PART}]"), BOTH),
    ("metadata, which an answer may echo", with_('"metadata":{"a":"1"}'), said('"hi"'), BOTH),
    ("service_tier, which an answer echoes", with_('"service_tier":"flex"'), said('"hi"'), BOTH),
    ("response_format", with_('"response_format":{"type":"json_object"}'), said('"hi"'), BOTH),
    ("order inside a schema", with_('"tools":[%s]' % (TOOL % '{"a":1,"b":2}')), with_('"tools":[%s]' % (TOOL % '{"b":2,"a":1}')), BOTH),
    ("number spelling inside a schema", with_('"tools":[%s]' % (TOOL % '{"maximum":1}')), with_('"tools":[%s]' % (TOOL % '{"maximum":1.0}')), BOTH),
    ("order inside an output schema", with_('"response_format":{"json_schema":{"a":1,"b":2}}'), with_('"response_format":{"json_schema":{"b":2,"a":1}}'), BOTH),
    ("order of tools", with_('"tools":[{},{}]'.format(TOOL % "1", TOOL % "2")), with_('"tools":[{},{}]'.format(TOOL % "2", TOOL % "1")), BOTH),
    ("order of tool members", with_('"tools":[{"function":{"name":"f"},"type":"function"}]'), with_('"tools":[{"type":"function","function":{"name":"f"}}]'), ("unknown",)),
    ("tool_choice", with_('"tool_choice":"none"'), with_('"tool_choice":"auto"'), BOTH),
    ("parallel_tool_calls", with_('"parallel_tool_calls":false'), said('"hi"'), BOTH),
    ("reasoning_effort", with_('"reasoning_effort":"low"'), with_('"reasoning_effort":"high"'), BOTH),
    ("an unknown member", with_('"guided_json":{"a":1}'), said('"hi"'), BOTH),
    ("number spelling in an unknown member", with_('"x":1'), with_('"x":1.0'), BOTH),
    ("order in an unknown member", with_('"x":{"a":1,"b":2}'), with_('"x":{"b":2,"a":1}'), BOTH),
    # R1 and R2 of the peers' survey: what LiteLLM leaves out of its key.
    *[
        (f"R1 {name}", with_(f'"{name}":{value}'), said('"hi"'), BOTH)
        for name, value in [
            ("guided_json", '{"type":"object"}'),
            ("chat_template_kwargs", '{"enable_thinking":false}'),
            ("min_p", "0.1"),
            ("repetition_penalty", "1.1"),
            ("structured_outputs", "{}"),
            ("top_a", "0.2"),
            ("top_k", "5"),
            ("provider", '{"order":["x"]}'),
            ("extra_body", "{}"),
            ("api_base", '"x"'),
        ]
    ],
]  # fmt: skip


def _cases(
    table: list[tuple[str, bytes, bytes, tuple[str, ...]]],
) -> list[Any]:
    return [
        pytest.param(a, b, RULES[provider], id=f"{provider}: {what}")
        for what, a, b, providers in table
        for provider in providers
    ]


@pytest.mark.parametrize(("a", "b", "rules"), _cases(SAME))
def test_the_same_question_in_another_guise_is_the_same(
    a: bytes, b: bytes, rules: ApiRules
) -> None:
    assert a != b
    assert canonical_of(a, rules) == canonical_of(b, rules)


@pytest.mark.parametrize(("a", "b", "rules"), _cases(DIFFERENT))
def test_another_question_is_another(a: bytes, b: bytes, rules: ApiRules) -> None:
    assert canonical_of(a, rules) != canonical_of(b, rules)


def test_a_request_with_more_than_four_messages_is_understood_like_any_other() -> None:
    # R4: LiteLLM never caches these.
    messages = [{"role": "user", "content": str(i)} for i in range(50)]

    assert API.understand(json.dumps(request(messages=messages)).encode(), CHAT).pass_reason is None


# --- bodies that nobody can key ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("a member named twice", with_('"model":"gpt-4o-mini"')),
        ("a message member named twice", said('"a","content":"b"')),
        ("a lone surrogate in the prompt", said('"\\ud800"')),
        ("a lone surrogate where it is excluded", with_('"user":"\\ud800"')),
        ("NaN", with_('"temperature":NaN')),
        ("Infinity", with_('"temperature":Infinity')),
        ("a 65-bit seed", with_('"seed":18446744073709551616')),
        ("deep in a parameter", with_('"stop":' + "[" * 600 + "]" * 600)),
        ("deep in an unknown member", with_('"x":' + "[" * 600 + "]" * 600)),
        ("deep in a part", said("[" * 600 + "]" * 600)),
        ("deep beyond every stack", with_('"x":' + '{"a":' * 100_000 + "1" + "}" * 100_000)),
        ("invalid UTF-8", said('"X"').replace(b"X", b"\xff")),
        ("a byte order mark", b"\xef\xbb\xbf" + said('"hi"')),
        ("UTF-16", said('"hi"').decode().encode("utf-16")),
        ("not JSON", b"hello"),
        ("nothing", b""),
        ("half a body", said('"hi"')[:-2]),
        ("two bodies", said('"hi"') * 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rules", [CHAT, UNKNOWN_CHAT], ids=BOTH)
def test_a_body_without_a_canonical_form_is_passed_by(
    what: str, body: bytes, rules: ApiRules
) -> None:
    with pytest.raises(NotUnderstood) as caught:
        API.understand(body, rules)

    assert caught.value.reason is Reason.UNCACHEABLE_JSON


@pytest.mark.parametrize(
    ("where", "body"),
    [
        ("$", b"[]"),
        ("$", b"null"),
        ("$.model", b'{"messages":[]}'),
        ("$.model", b'{"model":1,"messages":[]}'),
        ("$.messages", b'{"model":"m"}'),
        ("$.messages", b'{"model":"m","messages":{}}'),
        ("$.messages[0]", b'{"model":"m","messages":["hi"]}'),
        ("$.messages[0].role", b'{"model":"m","messages":[{"content":"hi"}]}'),
        ("$.stream", with_('"stream":"true"')),
        ("$.stream", with_('"stream":1')),
        ("$.tools", with_('"tools":{"type":"function"}')),
        ("$.tools[0]", with_('"tools":["f"]')),
        (
            "$.messages[0].tool_calls",
            b'{"model":"m","messages":[{"role":"assistant","tool_calls":1}]}',
        ),
        (
            "$.messages[0].tool_calls[0]",
            b'{"model":"m","messages":[{"role":"assistant","tool_calls":[[]]}]}',
        ),
        (
            "$.messages[0].tool_calls.id",
            b'{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":[0]}]}]}',
        ),
        (
            "$.messages[0].tool_call_id",
            b'{"model":"m","messages":[{"role":"tool","tool_call_id":[0]}]}',
        ),
    ],
)
@pytest.mark.parametrize("rules", [CHAT, UNKNOWN_CHAT], ids=BOTH)
def test_a_body_in_another_shape_is_passed_by_and_the_place_is_named(
    where: str, body: bytes, rules: ApiRules
) -> None:
    with pytest.raises(NotUnderstood) as caught:
        API.understand(body, rules)

    assert (Reason.NOT_UNDERSTOOD, where) == (caught.value.reason, caught.value.where)


# --- what the answer depends on beside the request ----------------------------------------------


@pytest.mark.parametrize(
    ("reason", "members"),
    [
        (Reason.PROVIDER_STORED, '"store":true'),
        (Reason.PROVIDER_STORED, '"store":"true"'),
        (Reason.PROVIDER_STORED, '"store":1'),
        (Reason.HOSTED_TOOL, '"web_search_options":{}'),
        (Reason.HOSTED_TOOL, '"plugins":[{"id":"web"}]'),
        (Reason.HOSTED_TOOL, '"search_parameters":{"mode":"auto"}'),
        (Reason.HOSTED_TOOL, '"enable_search":true'),
        *[
            (Reason.HOSTED_TOOL, f'"tools":[{{"type":{kind}}}]')
            for kind in (
                '"web_search"',
                '"web_search_preview_2025_03_11"',
                '"file_search"',
                '"code_interpreter"',
                '"computer_use_preview"',
                '"mcp"',
                '"browser_search"',
                '"anything_new"',
                "null",
                "[]",
                "{}",
                "1",
            )
        ],
        (Reason.HOSTED_TOOL, '"tools":[{}]'),
        (Reason.HOSTED_TOOL, '"tools":[{"type":"function"},{"type":"web_search"}]'),
        (None, '"store":false'),
        (None, '"store":null'),
        (None, '"plugins":[]'),
        (None, '"enable_search":false'),
        (None, '"tools":null'),
        (None, '"tools":[]'),
        (None, '"tools":[{"type":"function","function":{"name":"f"}}]'),
        (None, '"tools":[{"type":"custom","custom":{"name":"f"}}]'),
    ],
)
@pytest.mark.parametrize("rules", [CHAT, UNKNOWN_CHAT], ids=BOTH)
def test_an_answer_that_depends_on_more_than_the_request_is_passed(
    reason: Reason | None, members: str, rules: ApiRules
) -> None:
    assert reason == API.understand(with_(members), rules).pass_reason


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4o-search-preview",
        "gpt-4o-mini-search-preview-2025-03-11",
        "gpt-5-search-api",
        "o3-deep-research",
        "openai/gpt-4o:online",
        "perplexity/sonar-pro",
        "Sonar",
        "groq/compound-mini",
    ],
)
def test_a_model_that_searches_is_passed(model: str) -> None:
    body = json.dumps(request(model=model)).encode()

    assert Reason.SEARCH_MODEL == API.understand(body, CHAT).pass_reason


# --- what is asked for --------------------------------------------------------------------------


def understood(**changes: Any) -> Question:
    return API.understand(json.dumps(request(**changes)).encode(), CHAT)


@pytest.mark.parametrize(
    ("changes", "deterministic"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": -0.0}, True),
        ({"temperature": 0.01}, False),
        ({"temperature": None}, False),
        ({"temperature": "0"}, False),
        ({"seed": 7}, True),
        ({"seed": None}, False),
    ],
)
def test_temperature_zero_or_a_seed_make_a_request_deterministic(
    changes: dict[str, Any], deterministic: bool
) -> None:
    assert deterministic == understood(**changes).ask.deterministic


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 6),
        ({"max_completion_tokens": None, "max_tokens": 5}, 5),
        ({"max_tokens": 5.5}, None),
        ({"max_tokens": "5"}, None),
    ],
)
def test_the_limit_of_the_answer_is_read(changes: dict[str, Any], limit: int | None) -> None:
    assert limit == understood(**changes).ask.max_output_tokens


def test_a_limit_beyond_every_float_is_no_limit() -> None:
    assert API.understand(with_('"max_tokens":1e999'), CHAT).ask.max_output_tokens is None


@pytest.mark.parametrize(
    ("changes", "form", "include", "may_add"),
    [
        ({}, Form.BODY, False, True),
        ({"stream": False}, Form.BODY, False, True),
        ({"stream": None}, Form.BODY, False, True),
        ({"stream": True}, Form.STREAM, False, True),
        ({"stream": True, "stream_options": None}, Form.STREAM, False, False),
        ({"stream": True, "stream_options": {}}, Form.STREAM, False, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, Form.STREAM, True, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, Form.STREAM, False, False),
        ({"stream": True, "stream_options": {"include_usage": 1}}, Form.STREAM, False, False),
        ({"stream": True, "stream_options": "x"}, Form.STREAM, False, False),
    ],
)
def test_form_and_usage_are_read(
    changes: dict[str, Any], form: Form, include: bool, may_add: bool
) -> None:
    ask = understood(**changes).ask

    assert (form, include, may_add) == (ask.form, ask.include_usage, ask.may_add_usage)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-4o","messages":[],"stream":true}',
        b' \n{ "model":"gpt-4o","messages":[],"stream":true}',
    ],
)
def test_usage_is_asked_for_without_changing_any_other_byte(body: bytes) -> None:
    asked = API.with_stream_usage(body, API.understand(body, CHAT).ask, CHAT)

    assert asked is not None
    assert body == asked.replace(b'"stream_options":{"include_usage":true},', b"", 1)
    assert json.loads(body) | {"stream_options": {"include_usage": True}} == json.loads(asked)
    assert canonical_of(body) == canonical_of(asked)


@pytest.mark.parametrize(
    ("members", "rules"),
    [
        ('"stream":false', CHAT),
        ('"stream":true,"stream_options":{}', CHAT),
        ('"stream":true,"stream_options":{"include_usage":true}', CHAT),
        ('"stream":true', UNKNOWN_CHAT),
    ],
)
def test_usage_is_not_asked_for_where_it_was_spoken_of_or_may_be_refused(
    members: str, rules: ApiRules
) -> None:
    body = with_(members)

    assert API.with_stream_usage(body, API.understand(body, rules).ask, rules) is None


@pytest.mark.parametrize(
    ("event", "left"),
    [
        (b'data: {"choices":[],"usage":%s}\n\n' % json.dumps(USAGE).encode(), b""),
        (b'\ndata:{"choices":[],"usage":{"a":1}}\r\n\r', b""),
        (b'data: {"choices":[],"usage":null}\n\n', b'data: {"choices":[]}\n\n'),
        (b'data: {"choices":[1] , "usage" : null}\n\n', b'data: {"choices":[1] }\n\n'),
        (b'data: {"usage":null, "choices":[1]}\n\n', b'data: {"choices":[1]}\n\n'),
        (
            b'data: {"choices":[{"delta":{"content":"\\"usage\\":null"}}],"usage":null,"x":1}\r\n\r\n',
            b'data: {"choices":[{"delta":{"content":"\\"usage\\":null"}}],"x":1}\r\n\r\n',
        ),
        (
            b'data: {"choices":[{"delta":{"content":"usage"}}],"usage":null}\n\n',
            b'data: {"choices":[{"delta":{"content":"usage"}}]}\n\n',
        ),
    ],
)
def test_only_usage_is_kept_from_a_client_that_did_not_ask(event: bytes, left: bytes) -> None:
    assert left == API.without_unasked_usage(event)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"delta":{}}],"usage":{"a":1}}\n\n',
        b'data: {"choices":[{"usage":null}]}\n\n',
        b'data: {"choices":[{"usage":null}],"usage":null}\n\n',
        b'data: {"choices":[]}\n\n',
        b"data: [DONE]\n\n",
        b': "usage" "choices"\n\n',
        b'data: "usage" "choices"\n\n',
        b'data: ["usage","choices"]\n\n',
        b'data: {"choices":[],"usage":{"a":1}}',
        b'data: \xff"usage""choices"\n\n',
        b"",
    ],
)
def test_every_other_event_passes_as_it_came(event: bytes) -> None:
    assert event == API.without_unasked_usage(event)


# --- nothing but NotUnderstood ------------------------------------------------------------------

_names = st.sampled_from(
    ["model", "messages", "role", "content", "tools", "tool_calls", "tool_call_id", "id", "type",
     "function", "stream", "stream_options", "store", "temperature", "seed", "n", "stop", "text",
     "max_tokens", "reasoning_effort", "plugins", "logprobs", "user", "image_url", "x"]
)  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=20,
)
shaped = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["gpt-4o", "o3"]),
        "messages": st.lists(
            st.dictionaries(_names, anything, max_size=4).map(lambda m: {"role": "user", **m}),
            max_size=3,
        ),
    },
    optional=dict.fromkeys(
        ["tools", "stream", "stream_options", "store", "temperature", "n", "stop", "x"], anything
    ),
)


@given(anything | shaped, st.sampled_from([CHAT, UNKNOWN_CHAT]))
@example({"model": "m", "messages": [], "tools": [{"type": []}]}, CHAT)
def test_any_json_is_understood_or_not_understood(value: Any, rules: ApiRules) -> None:
    body = json.dumps(value).encode()
    try:
        question = API.understand(body, rules)
    except NotUnderstood:
        return
    json.loads(question.canonical)
    API.with_stream_usage(body, question.ask, rules)


@given(st.binary(max_size=100), st.sampled_from([CHAT, UNKNOWN_CHAT]))
def test_any_bytes_are_understood_or_not_understood(body: bytes, rules: ApiRules) -> None:
    with pytest.raises(NotUnderstood):
        API.understand(body, rules)
    API.without_unasked_usage(body)


def test_our_own_errors_have_the_shape_of_the_api() -> None:
    error = json.loads(API.error(413, "too large", "gateway_body_too_large", None))
    later = json.loads(API.error(502, "gone", "gateway_upstream", "model"))

    assert error == {
        "error": {
            "message": "too large",
            "type": "invalid_request_error",
            "param": None,
            "code": "gateway_body_too_large",
        }
    }
    assert ("server_error", "model") == (later["error"]["type"], later["error"]["param"])


def test_an_error_may_quote_what_is_no_text() -> None:
    assert json.loads(API.error(404, "/v1/\udcff", "gateway_not_found", None))
