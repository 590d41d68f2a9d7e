"""Both forms of an answer mean the same: seen through the official SDK's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.core.model import Finish, Form
from gateway.providers.openai import CHAT
from gateway.wire.base import Unmergeable
from gateway.wire.openai_chat_stream import merge, splits_cleanly
from tests.helpers.openai_chat import (
    API,
    CALL,
    UNKNOWN_CHAT,
    USAGE,
    choice,
    chunk,
    document,
    read_document,
    served,
    served_chunks,
    served_document,
    stream,
)

BOTH = frozenset({Form.BODY, Form.STREAM})


def accumulated(chunks: list[dict[str, Any]]) -> ChatCompletion:
    """What the SDK makes of a stream."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for each in chunks:
        list(state.handle_chunk(ChatCompletionChunk.model_validate(each)))
    return state.current_completion_snapshot


def meaning(completion: ChatCompletion) -> dict[str, Any]:
    """The parsed object without what is fresh in every answer, or what only the SDK adds."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: bare(member)
                for name, member in value.items()
                if member is not None
                and name not in {"parsed", "parsed_arguments"}
                and not (name in {"annotations", "tool_calls"} and member == [])
            }
        return [bare(item) for item in value] if isinstance(value, list) else value

    dumped: dict[str, Any] = bare(completion.model_dump())
    del dumped["id"], dumped["created"]
    for each in dumped["choices"]:
        for call in each["message"].get("tool_calls", ()):
            call.pop("index", None)  # the SDK's snapshots keep the position of a streamed call
        if each["message"].get("content") == "":
            del each["message"]["content"]
    return dumped


def token(text: str) -> dict[str, Any]:
    return {"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []}


PARALLEL = [{**CALL, "id": f"call_{n * 8}", "function": {"name": n, "arguments": f'{{"{n}": 1}}'}} for n in "ab"]  # fmt: skip

# (what, what a stream of it is made of, the whole answer)
ANSWERS: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    (
        "text",
        [
            chunk({"role": "assistant", "content": "", "refusal": None}),
            chunk({"content": "Hello"}),
            chunk({"content": " there\n"}),
            chunk({}, "stop"),
        ],
        document(choice({"content": "Hello there\n"})),
    ),
    (
        "parallel tools",
        [
            chunk({"role": "assistant", "content": None}),
            chunk({"tool_calls": [{"index": 0, **PARALLEL[0], "function": {"name": "a", "arguments": ""}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
            chunk({"tool_calls": [{"index": 1, **PARALLEL[1], "function": {"name": "b", "arguments": ""}}]}),
            chunk({"tool_calls": [{"index": 1, "function": {"arguments": '{"b": 1}'}}]}),
            chunk({}, "tool_calls"),
        ],
        document(choice({"tool_calls": PARALLEL}, "tool_calls")),
    ),
    (
        "two calls in one chunk, pieces interleaved",
        [
            chunk({"role": "assistant", "content": None}),
            chunk({"tool_calls": [{"index": i, **PARALLEL[i], "function": {"name": "ab"[i], "arguments": ""}} for i in (0, 1)]}),
            chunk({"tool_calls": [{"index": 1, "function": {"arguments": '{"b"'}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]}),
            chunk({"tool_calls": [{"index": 1, "function": {"arguments": ": 1}"}}]}),
            chunk({}, "tool_calls"),
        ],
        document(choice({"tool_calls": PARALLEL}, "tool_calls")),
    ),
    (
        "text before a tool",
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "Let me see."}),
            chunk({"tool_calls": [{"index": 0, **CALL, "function": {"name": "f", "arguments": ""}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
            chunk({}, "tool_calls"),
        ],
        document(choice({"content": "Let me see.", "tool_calls": [CALL]}, "tool_calls")),
    ),
    (
        "a tool without arguments",
        [
            chunk({"role": "assistant", "content": None}),
            chunk({"tool_calls": [{"index": 0, **CALL, "function": {"name": "f", "arguments": ""}}]}),
            chunk({}, "tool_calls"),
        ],
        document(choice({"tool_calls": [{**CALL, "function": {"name": "f", "arguments": ""}}]}, "tool_calls")),
    ),
    (
        "three choices, interleaved",
        [
            *[chunk({"role": "assistant", "content": ""}, index=i) for i in (0, 1, 2)],
            *[chunk({"content": f"{word} {i}"}, index=i) for word in "ab" for i in (2, 0, 1)],
            *[chunk({}, "stop", index=i) for i in (1, 0, 2)],
        ],
        document(*[choice({"content": f"a {i}b {i}"}) for i in range(3)]),
    ),
    (
        "log probabilities",
        [
            chunk({"role": "assistant", "content": ""}, logprobs={"content": [], "refusal": None}),
            chunk({"content": "a"}, logprobs={"content": [token("a")], "refusal": None}),
            chunk({"content": "é"}, logprobs={"content": [token("é")], "refusal": None}),
            chunk({}, "stop"),
        ],
        document(choice({"content": "aé"}, logprobs={"content": [token("a"), token("é")], "refusal": None})),
    ),
    (
        "a refusal",
        [
            chunk({"role": "assistant", "content": None, "refusal": ""}),
            chunk({"refusal": "I can't"}),
            chunk({"refusal": " do that."}),
            chunk({}, "stop"),
        ],
        document(choice({"refusal": "I can't do that."})),
    ),
    (
        "a refusal after an empty text",
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"refusal": "No."}),
            chunk({}, "stop"),
        ],
        document(choice({"refusal": "No."})),
    ),
    (
        "reasoning before the answer",
        [
            chunk({"role": "assistant", "content": "", "reasoning_content": ""}),
            chunk({"reasoning_content": "Hm, "}),
            chunk({"reasoning_content": "yes."}),
            chunk({"content": "Yes."}),
            chunk({}, "stop"),
        ],
        document(choice({"content": "Yes.", "reasoning_content": "Hm, yes."})),
    ),
    (
        "the legacy function call",
        [
            chunk({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}),
            chunk({"function_call": {"arguments": '{"a":'}}),
            chunk({"function_call": {"arguments": "1}"}}),
            chunk({}, "function_call"),
        ],
        document(choice({"function_call": {"name": "f", "arguments": '{"a":1}'}}, "function_call")),
    ),
    (
        "an answer cut short",
        [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({}, "length")],
        document(choice({"content": "Hel"}, "length")),
    ),
    (
        "a short answer with its finish",
        [chunk({"role": "assistant", "content": "Yes"}, "stop")],
        document(choice({"content": "Yes"})),
    ),
]  # fmt: skip

CASES = pytest.mark.parametrize(
    ("chunks", "whole"), [pytest.param(chunks, whole, id=what) for what, chunks, whole in ANSWERS]
)


@CASES
def test_a_recorded_stream_is_served_as_the_document_of_the_same_meaning(
    chunks: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    answer = API.read_stream(stream(*chunks), CHAT)

    assert BOTH == answer.forms
    parsed = ChatCompletion.model_validate(served_document(answer))
    assert meaning(ChatCompletion.model_validate(whole)) == meaning(parsed)


@CASES
def test_a_recorded_document_is_served_as_a_stream_of_the_same_meaning(
    chunks: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    answer = read_document(whole)

    assert BOTH == answer.forms
    parsed = accumulated(served_chunks(answer, usage=True))
    assert meaning(ChatCompletion.model_validate(whole)) == meaning(parsed)


@CASES
def test_all_four_ways_from_record_to_client_give_equal_objects(
    chunks: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    recorded = [API.read_stream(stream(*chunks), CHAT), read_document(whole)]

    seen = [
        meaning(parsed)
        for answer in recorded
        for parsed in (
            ChatCompletion.model_validate(served_document(answer)),
            accumulated(served_chunks(answer, usage=True)),
        )
    ]

    assert [seen[0]] * 4 == seen


@CASES
def test_a_stream_is_served_as_a_stream_chunk_by_chunk(
    chunks: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    answer = API.read_stream(stream(*chunks), CHAT)

    replayed = served_chunks(answer)

    fresh = {"id": replayed[0]["id"], "created": 1_800_000_000}
    assert [{**each, **fresh} for each in chunks] == replayed


@CASES
@pytest.mark.parametrize("rules", [CHAT, UNKNOWN_CHAT], ids=["openai", "unknown"])
def test_what_is_served_can_be_recorded_and_served_again(
    chunks: list[dict[str, Any]], whole: dict[str, Any], rules: Any
) -> None:
    first = API.read_stream(stream(*chunks), rules)
    again = read_document(served_document(first, rules), rules)

    assert (first.finish, first.usage, first.finish_reasons) == (
        again.finish,
        again.usage,
        again.finish_reasons,
    )
    assert meaning(accumulated(served_chunks(first, rules, usage=True))) == meaning(
        ChatCompletion.model_validate(served_document(again, rules))
    )


def test_a_long_answer_comes_in_many_chunks() -> None:
    # R6: LiteLLM replays a stream as one delta.
    text = "one two three four five six " * 50

    chunks = served_chunks(read_document(document(choice({"content": text}))))

    assert len(chunks) > 50
    assert text == "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks)


def test_usage_details_and_the_tier_reach_both_forms() -> None:
    # peers 13: LiteLLM's stream hits drop them.
    usage = {
        **USAGE,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    answer = read_document(document(choice({"content": "a"}), usage=usage, service_tier="flex"))

    last = served_chunks(answer, usage=True)[-1]

    assert usage == served_document(answer)["usage"] == last["usage"]
    assert "flex" == served_document(answer)["service_tier"] == last["service_tier"]


def test_numbers_members_and_their_order_stay_as_they_were_spelled() -> None:
    spelled = b'{"x_new":{"b":1.0,"a":1e2},"id":"chatcmpl-abcdefgh","object":"chat.completion","created":5,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"cost":0.10}}'  # fmt: skip
    answer = API.read_body(spelled, CHAT)

    assert list(json.loads(spelled)) == list(served_document(answer))
    for form in answer.forms:
        out = served(answer, form, usage=True)
        assert b'{"b":1.0,"a":1e2}' in out
        assert b'"cost":0.10' in out


# --- generated answers ------------------------------------------------------------------------------

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_words = st.lists(
    st.sampled_from(["a", "é", "\n", " ", "\t\t", "\x1c", "\u2028", "\U0001f600", '"', "\\", "\x00"]),
    max_size=20,
).map("".join)  # fmt: skip
_functions = st.builds(lambda a: {"name": "f", "arguments": a}, _texts | _words)
_calls = st.lists(_functions, max_size=3).map(
    lambda functions: [
        {"id": f"call_{i:08}", "type": "function", "function": function}
        for i, function in enumerate(functions)
    ]
)


@st.composite
def choices_(draw: st.DrawFn) -> dict[str, Any]:
    message: dict[str, Any] = {"content": draw(st.none() | _texts | _words)}
    if calls := draw(_calls):
        message["tool_calls"] = calls
    if draw(st.booleans()):
        message["reasoning_content"] = draw(_texts)
    if draw(st.booleans()):
        message["refusal"] = draw(_texts)
    logprobs = None
    if isinstance(message["content"], str) and draw(st.booleans()):
        logprobs = {"content": [token(c) for c in message["content"]], "refusal": None}
    finish = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    return choice(message, finish, logprobs=logprobs)


documents = st.lists(choices_(), min_size=1, max_size=3).map(lambda cs: document(*cs))


@given(documents)
def test_every_answer_of_known_parts_means_the_same_in_both_forms(whole: dict[str, Any]) -> None:
    answer = read_document(whole)

    assert BOTH == answer.forms
    streamed = API.read_stream(stream(*served_chunks(answer, usage=True), usage=False), CHAT)
    assert BOTH == streamed.forms
    expected = meaning(ChatCompletion.model_validate(whole))
    assert expected == meaning(accumulated(served_chunks(answer, usage=True)))
    assert expected == meaning(ChatCompletion.model_validate(served_document(streamed)))
    assert answer.finish == streamed.finish


@given(documents, st.data())
def test_merging_does_not_depend_on_how_the_texts_were_cut(
    whole: dict[str, Any], data: st.DataObject
) -> None:
    chunks = served_chunks(read_document(whole), usage=True)
    finer: list[dict[str, Any]] = []
    for each in chunks:
        pieces = [each]
        for piece in each["choices"]:
            text = piece["delta"].get("content")
            if text and piece["logprobs"] is None:
                at = data.draw(st.integers(0, len(text)))
                pieces = [
                    {**each, "choices": [{**piece, "delta": {"content": part}}]}
                    for part in (text[:at], text[at:])
                ]
        finer.extend(pieces)

    one, other = (API.read_stream(stream(*cut, usage=False), CHAT) for cut in (chunks, finer))

    assert served_document(one) == served_document(other)


def test_merging_leaves_the_chunks_as_they_were() -> None:
    for _, chunks, _ in ANSWERS:
        before = json.dumps(chunks)
        answer = API.read_stream(stream(*chunks), CHAT)
        first = served_document(answer)

        assert first == served_document(answer)
        assert before == json.dumps(chunks)


def test_nothing_can_be_merged_of_no_chunks() -> None:
    with pytest.raises(Unmergeable):
        merge([], CHAT)


@pytest.mark.parametrize("value", [{}, {"choices": {}}, {"choices": [1]}])
def test_what_is_no_answer_does_not_split(value: Any) -> None:
    assert not splits_cleanly(value, CHAT)


def test_an_answer_that_is_no_answer_is_unknown_or_empty() -> None:
    assert Finish.EMPTY == read_document({}).finish
