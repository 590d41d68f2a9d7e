from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import sse
from gateway.core.mint import Mint
from gateway.core.model import Finish, Form, Usage
from gateway.providers.openai import CHAT
from tests.helpers.openai_chat import (
    API,
    CALL,
    UNKNOWN_CHAT,
    USAGE,
    ask,
    choice,
    chunk,
    document,
    entry_of,
    read_document,
    served,
    served_chunks,
    served_document,
    stream,
)

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules

BOTH = frozenset({Form.BODY, Form.STREAM})
TEXT = choice({"content": "Hello there"})
HELLO = [
    chunk({"role": "assistant", "content": "", "refusal": None}),
    chunk({"content": "Hello"}),
    chunk({"content": " there"}),
    chunk({}, "stop"),
]


# --- judging ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "value"),
    [
        (Finish.COMPLETE, document(TEXT)),
        (Finish.COMPLETE, document(choice({"tool_calls": [CALL]}, "tool_calls"))),
        (Finish.COMPLETE, document(choice({"function_call": {"name": "f"}}, "function_call"))),
        (Finish.COMPLETE, document(choice({"audio": {"id": "a"}}))),
        (Finish.COMPLETE, document(TEXT, TEXT)),
        (Finish.TRUNCATED, document(choice({"content": "Hel"}, "length"))),
        (Finish.TRUNCATED, document(TEXT, choice({"content": "Hel"}, "length"))),
        (Finish.REFUSED, document(choice({"content": "Hel"}, "content_filter"))),
        (Finish.REFUSED, document(choice({}, "content_filter"))),
        (Finish.REFUSED, document(choice({"refusal": "No."}))),
        (Finish.REFUSED, document(choice({"content": "Hel"}, "length"), choice({"refusal": "No"}))),
        (Finish.EMPTY, document()),
        (Finish.EMPTY, document(choices=None)),
        (Finish.EMPTY, document(choices=[None])),
        (Finish.EMPTY, document(choice({"content": ""}))),
        (Finish.EMPTY, document(choice({"content": ""}, "length"))),
        (Finish.EMPTY, document(choice({"tool_calls": []}))),
        (Finish.EMPTY, document(choice({"reasoning_content": "Hm"}))),
        (Finish.EMPTY, document(TEXT, choice({"content": ""}))),
        (Finish.UNKNOWN, document(choice({"content": "Hel"}, None))),
        (Finish.UNKNOWN, document(choice({"content": "Hel"}, ""))),
        (Finish.UNKNOWN, document(choice({"content": "Hel"}, "eos"))),
        (Finish.UNKNOWN, document(choice({"content": "Hel"}, "error"))),
        (Finish.UNKNOWN, document({**TEXT, "finish_reason": ["stop"]})),
        (Finish.UNKNOWN, document({**TEXT, "message": "Hello"})),
        (Finish.ERROR, {"error": {"message": "boom"}}),
        (Finish.ERROR, {"error": "boom"}),
        (Finish.ERROR, document(TEXT, error={"message": "boom"})),
        (Finish.COMPLETE, document(TEXT, error=None)),
    ],
)
def test_a_document_is_judged_by_its_least_cacheable_choice(
    finish: Finish, value: dict[str, Any]
) -> None:
    assert finish == read_document(value).finish


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b"<html>",
        b"\xff",
        json.dumps(document(TEXT)).encode()[:-1],
        json.dumps(document(choice({"content": "\ud800"}))).encode(),
        json.dumps(document(TEXT)).encode()[:-1] + b',"x":NaN}',
        json.dumps(document(TEXT)).encode()[:-1] + b',"x":' + b"[" * 300 + b"]" * 300 + b"}",
        json.dumps(document(TEXT)).encode()[:-1] + b',"model":"m"}',
    ],
)
def test_a_document_that_cannot_be_read_or_written_again_is_not_offered(payload: bytes) -> None:
    answer = API.read_body(payload, CHAT)

    assert (Finish.UNKNOWN, frozenset()) == (answer.finish, answer.forms)


@pytest.mark.parametrize(
    ("finish", "events"),
    [
        (Finish.COMPLETE, stream(*HELLO)),
        (Finish.COMPLETE, stream(*HELLO).replace(b"\n", b"\r\n")),
        (Finish.COMPLETE, b": ping\n\n" + stream(*HELLO)),
        (Finish.COMPLETE, stream(*HELLO, usage=False)),
        (Finish.TRUNCATED, stream(*HELLO[:-1], chunk({}, "length"))),
        (Finish.REFUSED, stream(*HELLO[:-1], chunk({}, "content_filter"))),
        (Finish.REFUSED, stream(chunk({"refusal": "No."}), chunk({}, "stop"))),
        (Finish.EMPTY, stream(HELLO[0], HELLO[-1])),
        (Finish.EMPTY, stream(chunk({"reasoning_content": "Hm"}), HELLO[-1])),
        (Finish.EMPTY, stream(*[chunk({"reasoning_details": [1]})] * 2, HELLO[-1])),
        (Finish.EMPTY, stream()),
        (Finish.UNKNOWN, stream(*HELLO[:-1])),
        (Finish.UNKNOWN, stream(*HELLO[:-1], chunk({}, "error"))),
        (Finish.INCOMPLETE, stream(*HELLO, done=False)),
        (Finish.INCOMPLETE, stream(*HELLO)[:-2]),
        (Finish.INCOMPLETE, stream(*HELLO[:2], done=False, usage=False)),
        (Finish.INCOMPLETE, b"data: [DONE]\n\n"),
        (Finish.INCOMPLETE, b""),
        (Finish.ERROR, stream(*HELLO[:2], {"error": {"message": "boom"}}, usage=False)),
        (Finish.ERROR, stream(*HELLO[:2], {"error": {"message": "boom"}}, done=False)),
        (Finish.ERROR, stream({"error": {"message": "boom"}}, done=False, usage=False)),
        (Finish.ERROR, b'event: error\ndata: {"message":"boom"}\n\n' + stream(*HELLO)),
        (Finish.UNKNOWN, b"event: progress\ndata: {}\n\n" + stream(*HELLO)),
        (Finish.UNKNOWN, stream(*HELLO) + stream(*HELLO)),
        (Finish.UNKNOWN, stream(*HELLO) + sse.write(b'{"error":{}}')),
        (Finish.UNKNOWN, stream(*HELLO, {"x": float("nan")})),
        (Finish.UNKNOWN, stream(chunk({"content": "\ud800"}), HELLO[-1])),
        (Finish.UNKNOWN, b"data: []\n\n" + stream(*HELLO)),
        (Finish.UNKNOWN, b"data: \xff\n\n" + stream(*HELLO)),
        (Finish.UNKNOWN, b"data: {\n\n" + stream(*HELLO)),
    ],
)
def test_a_stream_is_judged_whole(finish: Finish, events: bytes) -> None:
    answer = API.read_stream(events, CHAT)

    assert finish == answer.finish
    assert answer.forms or finish in {Finish.UNKNOWN, Finish.INCOMPLETE, Finish.ERROR}


def test_what_an_answer_says_of_itself_is_read_from_both_forms() -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}
    both = [
        read_document(document(TEXT, usage=usage)),
        API.read_stream(stream(*HELLO, chunk(None, usage=usage), usage=False), CHAT),
    ]

    for answer in both:
        assert Usage(uncached_input=5, cache_read=4, output=3) == answer.usage
        assert ("stop",) == answer.finish_reasons
        assert "gpt-4o-2024-08-06" == answer.model
        assert "chatcmpl-Ck2Zq9aAbB7x" == answer.response_id
        assert answer.has_stream_usage
        assert BOTH == answer.forms


def test_the_last_usage_counts_where_every_chunk_states_it() -> None:
    counted = [
        {**each, "usage": {**USAGE, "completion_tokens": count}} for count, each in enumerate(HELLO)
    ]
    unmergeable = [*counted, chunk({"new": 1}), chunk({"new": 2})]

    for chunks in (counted, unmergeable):
        answer = API.read_stream(stream(*chunks), UNKNOWN_CHAT)
        assert answer.usage is not None
        assert 3 == answer.usage.output


# --- which forms ---------------------------------------------------------------------------------

AUDIO = {"id": "audio_1", "data": "YQ==", "transcript": "Hi.", "expires_at": 1_800_000_000}


def test_audio_is_the_same_in_both_forms() -> None:
    pieces = [
        {"id": "audio_1", "transcript": "Hello"},
        {"transcript": " there."},
        {"data": "AAEC"},
        {"data": "AwQFBg=="},
        {"expires_at": 1_800_000_000},
    ]
    chunks = [chunk({"role": "assistant"}), *(chunk({"audio": p}) for p in pieces)]
    whole = {
        "id": "audio_1",
        "data": "AAECAwQFBg==",
        "transcript": "Hello there.",
        "expires_at": 1_800_000_000,
    }

    streamed = API.read_stream(stream(*chunks, chunk({}, "stop")), CHAT)
    assert frozenset(Form) == streamed.forms
    assert whole == served_document(streamed)["choices"][0]["message"]["audio"]

    read = read_document(document(choice({"content": None, "audio": whole})))
    assert frozenset(Form) == read.forms
    said = [c["choices"][0]["delta"].get("audio") for c in served_chunks(read) if c["choices"]]
    assert [
        {"id": "audio_1"},
        {"transcript": "Hello "},
        {"transcript": "there."},
        {"data": "AAECAwQFBg=="},
        {"expires_at": 1_800_000_000},
    ] == [audio for audio in said if audio]


@pytest.mark.parametrize(
    ("what", "chunks"),
    [
        ("an unknown member of a delta", [chunk({"content": "a", "new": 1}), chunk({}, "stop")]),
        ("audio", [chunk({"audio": {"id": "a"}}), chunk({"content": "a"}, "stop")]),
        ("audio cut within a base64 group", [chunk({"audio": AUDIO}), chunk({"audio": {"data": "YQ=="}}, "stop")]),
        ("content in parts", [chunk({"content": [{"type": "text"}]}), chunk({}, "stop")]),
        ("a role that changes", [chunk({"role": "assistant", "content": "a"}), chunk({"role": "x"}, "stop")]),
        ("an id that changes", [HELLO[1], {**HELLO[-1], "id": "other"}]),
        ("a model that changes", [HELLO[1], {**HELLO[-1], "model": "other"}]),
        ("no id", [{**HELLO[1], "id": ""}, {**HELLO[-1], "id": ""}]),
        ("a choice without an index", [chunk({"content": "a"}, "stop", index=None)]),
        ("a choice without a delta", [chunk({"content": "a"}, "stop"), {"choices": [{"index": 0}]}]),
        ("choices that are no list", [*HELLO, {"choices": {"index": 0}}]),
        ("a call without an index", [chunk({"tool_calls": [CALL]}, "tool_calls")]),
        ("calls out of order", [chunk({"tool_calls": [{"index": 1, **CALL}]}, "tool_calls")]),
        ("a call without a name", [chunk({"tool_calls": [{"index": 0, **CALL, "function": {"arguments": ""}}]}, "tool_calls")]),
        ("a call without arguments", [chunk({"tool_calls": [{"index": 0, **CALL, "function": {"name": "f"}}]}, "tool_calls")]),
        ("a call without an id", [chunk({"tool_calls": [{"index": 0, **CALL, "id": None}]}, "tool_calls")]),
        ("a call without a type", [chunk({"tool_calls": [{"index": 0, **CALL, "type": None}]}, "tool_calls")]),
        ("a name in pieces", [chunk({"tool_calls": [{"index": 0, **CALL}]}), chunk({"tool_calls": [{"index": 0, "function": {"name": "g"}}]}, "tool_calls")]),
        ("token ids in logprobs", [chunk({"content": "a"}, logprobs={"x": 1}), chunk({"content": "b"}, "stop", logprobs={"x": 1})]),
        ("filter results that change", [{**HELLO[1], "x": {}}, {**HELLO[-1], "x": {"a": 1}}]),
    ],
)  # fmt: skip
def test_a_stream_that_can_not_be_merged_without_loss_serves_streams_only(
    what: str, chunks: list[dict[str, Any]]
) -> None:
    answer = API.read_stream(stream(*chunks), CHAT)

    assert frozenset({Form.STREAM}) == answer.forms
    assert Finish.COMPLETE == answer.finish
    assert served_chunks(answer)
    assert not API.can_serve(entry_of(answer), ask(Form.BODY))


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("annotations", document(choice({"content": "a", "annotations": [{"type": "x"}]}))),
        ("audio", document(choice({"content": "a", "audio": {"id": "a"}}))),
        ("an unknown member of a message", document(choice({"content": "a", "images": ["x"]}))),
        ("content in parts", document(choice({"content": [{"type": "text", "text": "a"}]}))),
        ("a custom tool", document(choice({"tool_calls": [{"id": "c", "type": "custom"}]}))),
        ("a call with an index", document(choice({"tool_calls": [{**CALL, "index": 0}]}))),
        (
            "arguments that are no text",
            document(
                choice({"tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]})
            ),
        ),
        ("no id", document(TEXT, id=None)),
        ("no model", document(TEXT, model=None)),
        ("no creation time", document(TEXT, created=None)),
        ("another kind of object", document(TEXT, object="text_completion")),
        ("a member that streams use", document(TEXT, obfuscation="x")),
        ("an index twice", {**document(TEXT), "choices": [{**TEXT, "index": 0}] * 2}),
        ("choices out of order", {**document(), "choices": [{**TEXT, "index": i} for i in (1, 0)]}),
    ],
)
def test_a_document_that_chunks_can_not_say_serves_documents_only(
    what: str, value: dict[str, Any]
) -> None:
    answer = read_document(value)

    assert frozenset({Form.BODY}) == answer.forms
    assert value["choices"] == served_document(answer)["choices"]
    assert not API.can_serve(entry_of(answer), ask(Form.STREAM))


@pytest.mark.parametrize(
    ("what", "chunks"),
    [
        ("null members before a call", [
            chunk({"role": "assistant", "content": None, "tool_calls": None, "function_call": None}),
            chunk({"tool_calls": [{"index": 0, **CALL}]}, "tool_calls"),
        ]),
        ("a null function before its pieces", [
            chunk({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": None}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}, "tool_calls"),
        ]),
        ("a legacy call", [
            chunk({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}),
            chunk({"function_call": {"arguments": "{}"}}, "function_call"),
        ]),
        ("a role in every chunk", [chunk({"role": "assistant", "content": c}) for c in "ab"] + [chunk({}, "stop")]),
        ("a time in every chunk", [{**each, "created": 5 + i} for i, each in enumerate(HELLO)]),
        ("obfuscation", [{**each, "obfuscation": "x" * i} for i, each in enumerate(HELLO)]),
        ("choices null", [*HELLO, {"choices": None}]),
    ],
)  # fmt: skip
def test_odd_but_lossless_streams_serve_both_forms(what: str, chunks: list[dict[str, Any]]) -> None:
    answer = API.read_stream(stream(*chunks), CHAT)

    assert BOTH == answer.forms
    assert served_document(answer)


def test_a_document_of_vllm_serves_both_forms() -> None:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "hi",
        "reasoning_content": None,
        "tool_calls": [],
    }
    value = document({"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}, prompt_logprobs=None)  # fmt: skip

    assert BOTH == read_document(value, UNKNOWN_CHAT).forms


def test_a_stream_without_usage_is_no_document_and_gives_no_usage() -> None:
    answer = API.read_stream(stream(*HELLO, usage=False), CHAT)
    entry = entry_of(answer)

    assert API.can_serve(entry, ask(Form.STREAM))
    assert not API.can_serve(entry, ask(Form.STREAM, usage=True))
    assert not API.can_serve(entry, ask(Form.BODY))


def test_a_document_without_usage_gives_a_stream_without() -> None:
    entry = entry_of(read_document(document(TEXT, usage=None)))

    assert API.can_serve(entry, ask(Form.BODY))
    assert API.can_serve(entry, ask(Form.STREAM))
    assert not API.can_serve(entry, ask(Form.STREAM, usage=True))


# --- fresh ids ------------------------------------------------------------------------------------

CALLS = [
    chunk({"role": "assistant", "content": None}),
    chunk({"tool_calls": [{"index": 0, **CALL}]}),
    chunk({"tool_calls": [{"index": 1, **CALL, "id": "call_Zz9Yy8Xx"}]}),
    chunk({}, "tool_calls"),
]
RECORDED = [
    pytest.param(API.read_stream(stream(*CALLS), CHAT), id="recorded stream"),
    pytest.param(
        read_document(
            document(choice({"tool_calls": [CALL, {**CALL, "id": "call_Zz9Yy8Xx"}]}, "tool_calls"))
        ),
        id="recorded document",
    ),
]


def ids_of(answer: Any, form: Form, **how: Any) -> list[str]:
    if form is Form.BODY:
        message = served_document(answer, **how)["choices"][0]["message"]
        return [call["id"] for call in message["tool_calls"]]
    return [
        call["id"]
        for each in served_chunks(answer, **how)
        for piece in each["choices"]
        for call in piece["delta"].get("tool_calls", ())
        if "id" in call
    ]


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("answer", RECORDED)
def test_tool_call_ids_are_the_originals(answer: Any, form: Form) -> None:
    assert [CALL["id"], "call_Zz9Yy8Xx"] == ids_of(answer, form)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("answer", RECORDED)
def test_only_the_id_that_the_history_has_is_replaced_in_its_format(
    answer: Any, form: Form
) -> None:
    first, second = ids_of(answer, form, history=frozenset({CALL["id"], "call_other"}))

    assert "call_Zz9Yy8Xx" == second
    assert first not in {CALL["id"], "call_Zz9Yy8Xx", "call_other"}
    assert (len(str(CALL["id"])), "call_") == (len(first), first[:5])


def test_an_id_with_little_room_still_gets_a_fresh_one() -> None:
    answer = read_document(document(choice({"tool_calls": [{**CALL, "id": "1"}]}, "tool_calls")))
    taken = frozenset("0123456789")

    (fresh,) = ids_of(answer, Form.BODY, history=taken)

    assert fresh not in taken


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("answer", RECORDED)
def test_response_id_and_time_are_fresh_and_the_same_in_all_chunks(answer: Any, form: Form) -> None:
    texts = [served(answer, form, seed=seed) for seed in (b"a", b"b", b"a")]
    ids = [json.loads(sse.parse(b"data: " + t + b"\n\n")[0].data)["id"] if form is Form.BODY else {json.loads(e.data)["id"] for e in sse.parse(t)[:-1]} for t in texts]  # fmt: skip
    fresh = [each if isinstance(each, str) else each.pop() for each in ids]

    assert fresh[0] == fresh[2]
    assert 3 == len({*fresh, answer.response_id})
    assert all(len(answer.response_id) == len(each) for each in fresh)
    assert all(each.startswith("chatcmpl-") for each in fresh)
    assert b'"created":1800000000' in texts[0]
    assert b"1760000000" not in texts[0]


@pytest.mark.parametrize("original", ["chatcmpl-1", "x", "0", "chatcmpl-", "é", "日本"])
def test_even_a_short_response_id_is_never_repeated(original: str) -> None:
    answer = read_document(document(TEXT, id=original))

    for seed in range(50):
        assert original != served_document(answer, seed=bytes([seed]))["id"]


def test_a_time_of_zero_stays_zero() -> None:
    assert 0 == served_document(read_document(document(TEXT, created=0)))["created"]


# --- usage as asked ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(API.read_stream(stream(*HELLO), CHAT), id="recorded stream"),
        pytest.param(
            API.read_stream(stream(*[{**c, "usage": None} for c in HELLO]), CHAT),
            id="recorded stream with null usage",
        ),
        pytest.param(read_document(document(TEXT)), id="recorded document"),
    ],
)
def test_a_stream_gives_usage_exactly_when_it_was_asked_for(answer: Any) -> None:
    asked = served_chunks(answer, usage=True)
    unasked = served_chunks(answer)

    assert [*[None] * (len(asked) - 1), USAGE] == [each["usage"] for each in asked]
    assert [] == asked[-1]["choices"]
    assert not any("usage" in each for each in unasked)
    assert all(each["choices"] for each in unasked)
    assert len(asked) == len(unasked) + 1


# --- never raises ----------------------------------------------------------------------------------

_names = st.sampled_from(
    ["id", "object", "created", "model", "choices", "usage", "error", "index", "message", "delta",
     "finish_reason", "role", "content", "refusal", "tool_calls", "function", "function_call",
     "name", "arguments", "type", "logprobs", "reasoning_content", "annotations", "x"]
)  # fmt: skip
_leaf = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "a b", "stop", "assistant", "function", "\ud800"])
)
_anything = st.recursive(
    _leaf,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=8,
)
_function = st.fixed_dictionaries({}, optional={"name": _anything, "arguments": _anything})
_call = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 2) | _anything,
        "id": _anything,
        "type": st.just("function") | _anything,
        "function": _function | _anything,
    },
)
_message = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant") | _anything,
        "content": st.text(max_size=5) | _anything,
        "refusal": _anything,
        "tool_calls": st.lists(_call, max_size=2) | _anything,
        "function_call": _function | _anything,
        "reasoning_content": _anything,
        "annotations": _anything,
        "x": _anything,
    },
)
_logprobs = st.dictionaries(st.sampled_from(["content", "refusal", "x"]), _anything, max_size=2)
_choice = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 2) | _anything,
        "message": _message | _anything,
        "delta": _message | _anything,
        "finish_reason": st.sampled_from(["stop", "length", "tool_calls"]) | _anything,
        "logprobs": st.none() | _logprobs | _anything,
        "x": _anything,
    },
)
_answer = st.fixed_dictionaries(
    {"id": st.just("i") | _anything, "created": st.just(1) | _anything, "model": st.just("m")},
    optional={
        "object": st.just("chat.completion"),
        "choices": st.lists(_choice, max_size=3) | _anything,
        "usage": st.just(USAGE) | _anything,
        "error": _anything,
        "x": _anything,
    },
)
RULES = {"openai": CHAT, "unknown": UNKNOWN_CHAT}
_providers = st.sampled_from(sorted(RULES))


def check_everything_offered_is_served(answer: Any, rules: ApiRules) -> None:
    entry = entry_of(answer)
    for form in answer.forms:
        for usage in (False, True):
            wanted = ask(form, usage=usage, history=frozenset({"a b", ""}))
            if not API.can_serve(entry, wanted):
                continue
            out = API.serve(entry, wanted, Mint(1, b"s"), rules)
            again = (API.read_body if form is Form.BODY else API.read_stream)(out, rules)
            # An empty answer is never stored; it only has to do no harm.
            assert answer.finish in {again.finish, Finish.EMPTY}
            if form is answer.recorded:
                # In its own form an answer loses nothing that could offer it otherwise.
                assert answer.forms >= again.forms


@given(_answer | _anything, _providers)
def test_any_document_is_judged_and_what_it_offers_is_served(value: Any, provider: str) -> None:
    answer = API.read_body(json.dumps(value).encode(), RULES[provider])

    check_everything_offered_is_served(answer, RULES[provider])


@given(st.lists(_answer, max_size=4), st.booleans(), _providers)
def test_any_stream_is_judged_and_what_it_offers_is_served(
    chunks: list[Any], done: bool, provider: str
) -> None:
    answer = API.read_stream(stream(*chunks, done=done), RULES[provider])

    check_everything_offered_is_served(answer, RULES[provider])


@given(st.binary(max_size=200), _providers)
def test_any_bytes_are_judged(payload: bytes, provider: str) -> None:
    rules = RULES[provider]
    for answer in (API.read_body(payload, rules), API.read_stream(payload, rules)):
        check_everything_offered_is_served(answer, rules)


@given(st.data())
def test_a_stream_cut_anywhere_is_incomplete(data: st.DataObject) -> None:
    whole = stream(*HELLO)
    cut = data.draw(st.integers(0, len(whole) - 1))

    assert Finish.INCOMPLETE == API.read_stream(whole[:cut], CHAT).finish
