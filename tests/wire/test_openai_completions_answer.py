"""Completions: how answers are judged, and that both forms of one mean the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion

from gateway.core import sse
from gateway.core.model import Finish, Form, Usage
from gateway.providers.openai_other import COMPLETIONS
from tests.helpers.openai_completions import (
    API,
    NOW_S,
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


def logprobs(*tokens: str, offset: int = 0) -> dict[str, Any]:
    offsets = [offset + sum(map(len, tokens[:i])) for i in range(len(tokens))]
    return {
        "tokens": list(tokens),
        "token_logprobs": [-0.25] * len(tokens),
        "top_logprobs": [{token: -0.25} for token in tokens],
        "text_offset": offsets,
    }


ENGINE = {"stop_reason": 128001, "prompt_logprobs": [None, {"5": {"logprob": -1.50}}]}

# (what, what a stream of it is made of, the whole answer)
ANSWERS: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    (
        "text",
        [chunk(choice("Hi", None)), chunk(choice(" there", None)), chunk(choice("", "stop"))],
        document(choice("Hi there")),
    ),
    (
        "an end with the last text",
        [chunk(choice("Hi", None)), chunk(choice(" there\n", "length"))],
        document(choice("Hi there\n", "length")),
    ),
    (
        "several choices, interleaved",
        [
            chunk(choice("A", None, index=1)),
            chunk(choice("B", None, index=0), choice("a", None, index=1)),
            chunk(choice("b", "stop", index=0)),
            chunk(choice("", "length", index=1)),
        ],
        document(choice("Bb"), choice("Aa", "length")),
    ),
    (
        "logprobs, with an echo",
        [
            chunk(choice("Say", None, logprobs=logprobs("Say"))),
            chunk(choice(" hi", None, logprobs=logprobs(" hi", offset=3))),
            chunk(choice("", "stop", logprobs=logprobs())),
        ],
        document(choice("Say hi", logprobs=logprobs("Say", " hi"))),
    ),
    (
        "what vLLM adds",
        [
            chunk(choice("a", None, token_ids=[7], prompt_logprobs=ENGINE["prompt_logprobs"])),
            chunk(choice("a", None, token_ids=[7], stop_reason=None)),
            chunk(choice("", "stop", token_ids=[2], stop_reason=128001)),
        ],
        document(choice("aa", token_ids=[7, 7, 2], **ENGINE)),
    ),
    (
        "top_logprobs that were not asked for",
        [
            chunk(choice("a", None, logprobs={**logprobs("a"), "top_logprobs": None})),
            chunk(choice("b", "stop", logprobs={**logprobs("b", offset=1), "top_logprobs": None})),
        ],
        document(choice("ab", logprobs={**logprobs("a", "b"), "top_logprobs": None})),
    ),
]
KINDS = pytest.mark.parametrize(
    ("chunks", "whole"), [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS]
)


def meaning(value: dict[str, Any]) -> dict[str, Any]:
    """The object as the SDK reads it, without what is fresh in every answer."""
    dumped = Completion.model_validate(value).model_dump(exclude_none=True)
    return {name: member for name, member in dumped.items() if name not in {"id", "created"}}


def merged(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client makes of a stream: written for the test, from the SDK's types."""
    out: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for each in chunks:
        out |= {k: v for k, v in each.items() if k != "choices" and v is not None}
        for piece in each["choices"]:
            held = choices.setdefault(piece["index"], {"text": "", "logprobs": None})
            held["text"] += piece["text"]
            for name, value in piece.items():
                if name == "logprobs" and value is not None:
                    before = held["logprobs"] or dict.fromkeys(value)
                    held["logprobs"] = {
                        k: v if before[k] is None else before[k] + v for k, v in value.items()
                    }
                elif name == "token_ids":
                    held[name] = held.get(name, []) + value
                elif name not in {"text", "logprobs"} and value is not None:
                    held[name] = value
    return {**out, "choices": [choices[index] for index in sorted(choices)]}


@KINDS
def test_all_four_ways_mean_the_same(chunks: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    expected = meaning(whole)

    for answer in (read_document(whole), API.read_stream(stream(*chunks), COMPLETIONS)):
        assert BOTH == answer.forms
        assert expected == meaning(served_document(answer))
        assert expected == meaning(merged(served_chunks(answer, usage=True)))


@KINDS
def test_one_answer_has_one_fresh_id_and_the_time_of_now(
    chunks: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    for answer in (read_document(whole), API.read_stream(stream(*chunks), COMPLETIONS)):
        for parts in ([served_document(answer)], served_chunks(answer)):
            [identifier] = {part["id"] for part in parts}
            assert identifier != whole["id"]
            assert identifier.startswith("cmpl-")
            assert {NOW_S} == {part["created"] for part in parts}


def test_usage_comes_in_a_stream_only_if_it_was_asked_for() -> None:
    answer = API.read_stream(stream(*ANSWERS[0][1]), COMPLETIONS)

    assert not any("usage" in each for each in served_chunks(answer))
    *before, last = served_chunks(answer, usage=True)
    assert ([], USAGE) == (last["choices"], last["usage"])
    assert all(each["usage"] is None for each in before)


def test_numbers_and_unknown_members_are_served_as_they_were_spelled() -> None:
    raw = json.dumps(document(choice("a", **ENGINE), kv=None)).replace("-1.5", "-1.50")
    answer = API.read_body(raw.encode(), COMPLETIONS)

    for form in Form:
        assert b"-1.50" in served(answer, form)
    assert b'"kv":null' in served(answer, Form.BODY)


@pytest.mark.parametrize(
    ("what", "chunks"),
    [
        ("an unknown text twice", [chunk(choice("a", None, x="u")), chunk(choice("b", x="u"))]),
        ("an unknown list twice", [chunk(choice("a", None, x=[1])), chunk(choice("b", x=[1]))]),
        ("unknown logprobs", [chunk(choice("a", logprobs={"new": [1]}))]),
        (
            "a list that leaves tokens out",
            [
                chunk(choice("a", None, logprobs=logprobs("a"))),
                chunk(choice("b", logprobs={**logprobs("b"), "top_logprobs": None})),
            ],
        ),
        ("logprobs in a string", [chunk(choice("a", logprobs="x"))]),
        ("two ends", [chunk(choice("a", "stop")), chunk(choice("b", "length"))]),
        ("two ids", [chunk(choice("a", None)), chunk(choice("b"), id="cmpl-2")]),
        ("no model", [chunk(choice("a"), model=None), chunk(usage=USAGE, model=None)]),
        ("no time", [chunk(choice("a"), created=None), chunk(usage=USAGE, created=None)]),
        ("no index", [chunk({"text": "a", "finish_reason": "stop"})]),
        ("no usage", [chunk(choice("a"))]),
    ],
)
def test_a_stream_that_would_lose_something_is_served_as_a_stream_only(
    what: str, chunks: list[dict[str, Any]]
) -> None:
    adds_usage = what != "no usage" and "usage" not in chunks[-1]
    answer = API.read_stream(stream(*chunks, usage=adds_usage), COMPLETIONS)

    assert frozenset({Form.STREAM}) == answer.forms
    assert [each["choices"] for each in chunks if each["choices"]] == [
        each["choices"] for each in served_chunks(answer)
    ]


@pytest.mark.parametrize(
    "value",
    [
        document(choice("a", logprobs={"new": [1]})),
        document(choice("a"), id=""),
        document(choice("a"), created="now"),
        {**document(), "choices": [choice("a", index=1), choice("b", index=0)]},
        {**document(), "choices": [choice("a", index="0")]},
        document(choice("a"), object="other"),
    ],
)
def test_a_document_that_would_lose_something_is_served_as_it_is_only(
    value: dict[str, Any],
) -> None:
    answer = read_document(value)

    assert frozenset({Form.BODY}) == answer.forms


# --- judging --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "value"),
    [
        (Finish.COMPLETE, document(choice("Hi"))),
        (Finish.TRUNCATED, document(choice("Hi", "length"))),
        (Finish.TRUNCATED, document(choice("Hi"), choice("Hi", "length"))),
        (Finish.REFUSED, document(choice("Hi", "content_filter"))),
        (Finish.REFUSED, document(choice("", "content_filter"))),
        (Finish.EMPTY, document(choice(""))),
        (Finish.EMPTY, document(choice("", "length"))),
        (Finish.EMPTY, document()),
        (Finish.UNKNOWN, document(choice("Hi", None))),
        (Finish.UNKNOWN, document(choice("Hi", "abort"))),
        (Finish.UNKNOWN, document(choice("Hi", ["stop"]))),
        (Finish.UNKNOWN, document(choice(None))),
        (Finish.ERROR, document(choice("Hi"), error={"message": "boom"})),
        (Finish.ERROR, {"error": {"message": "boom"}}),
    ],
)
def test_a_document_is_judged_by_its_least_cacheable_choice(
    finish: Finish, value: dict[str, Any]
) -> None:
    assert finish == read_document(value).finish


@pytest.mark.parametrize(
    ("finish", "events"),
    [
        (Finish.COMPLETE, stream(chunk(choice("Hi")))),
        (Finish.TRUNCATED, stream(chunk(choice("Hi", "length")))),
        (Finish.EMPTY, stream(chunk(choice("")))),
        (Finish.EMPTY, stream()),
        (Finish.UNKNOWN, stream(chunk(choice("Hi", None)))),
        (Finish.INCOMPLETE, stream(chunk(choice("Hi")), done=False)),
        (Finish.INCOMPLETE, b""),
        (Finish.ERROR, stream({"error": {"message": "boom"}}, usage=False)),
        (Finish.UNKNOWN, stream(chunk(choice("Hi"))) + sse.write(b"{}")),
        (Finish.UNKNOWN, b"data: []\n\n"),
        # Not mergeable, but it can be judged.
        (Finish.TRUNCATED, stream(chunk(choice("a", None, x=[1])), chunk(choice("b", "length", x=[1])))),
        (Finish.EMPTY, stream(chunk(choice("", None, x=[1])), chunk(choice("", x=[1])))),
        (Finish.UNKNOWN, stream(chunk(choice("a", None)), {**chunk(), "choices": "x"})),
    ],
)  # fmt: skip
def test_a_stream_is_judged_whole(finish: Finish, events: bytes) -> None:
    assert finish == API.read_stream(events, COMPLETIONS).finish


@pytest.mark.parametrize("payload", [b"", b"[]", b"\xff", b'{"choices":[NaN]}'])
def test_what_cannot_be_read_is_not_offered(payload: bytes) -> None:
    answer = API.read_body(payload, COMPLETIONS)

    assert (Finish.UNKNOWN, frozenset()) == (answer.finish, answer.forms)


def test_what_an_answer_says_of_itself_is_read() -> None:
    answer = read_document(document(choice("Hi"), choice("Ho", "length")))

    assert Usage(uncached_input=5, output=3) == answer.usage
    assert ("stop", "length") == answer.finish_reasons
    assert "gpt-3.5-turbo-instruct:20230824-v2" == answer.model
    assert answer.has_stream_usage


# --- properties -----------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
ends = st.sampled_from(["stop", "length", "content_filter"])
tokens = st.lists(st.text("ab \n", min_size=1, max_size=3), min_size=1, max_size=4)
answers = st.lists(
    st.builds(choice, texts, ends)
    | st.builds(
        lambda parts, end: choice("".join(parts), end, logprobs=logprobs(*parts)), tokens, ends
    ),
    min_size=1,
    max_size=3,
)


@given(answers)
def test_a_document_is_the_same_after_it_was_a_stream(choices: list[dict[str, Any]]) -> None:
    whole = document(*choices)
    answer = read_document(whole)
    events = served(answer, Form.STREAM, usage=True)

    back = served_document(API.read_stream(events, COMPLETIONS))
    assert meaning(whole) == meaning(back) == meaning(merged(served_chunks(answer, usage=True)))
