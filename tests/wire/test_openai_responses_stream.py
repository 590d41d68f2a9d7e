"""Both forms of a response mean the same: seen through the official SDK."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.core.model import Answer, Form
from gateway.wire.base import Unmergeable
from gateway.wire.openai_responses_stream import merge, split, splits_cleanly
from tests.helpers.openai_responses import (
    call,
    message,
    read_document,
    read_events,
    response,
    served,
    served_document,
    served_events,
    stream_of,
    text,
)

BOTH = frozenset({Form.BODY, Form.STREAM})
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def token(said: str) -> dict[str, Any]:
    top = {"token": said, "logprob": -0.5, "bytes": list(said.encode())}
    return {**top, "top_logprobs": [top]}


CITATION = {"type": "url_citation", "start_index": 0, "end_index": 2, "title": "t", "url": "u"}
FILE = {"type": "file_citation", "file_id": "f", "filename": "n", "index": 1}
THOUGHT = {
    "id": "rs_68Aa1b2c3d4e5f6a",
    "type": "reasoning",
    "summary": [
        {"type": "summary_text", "text": "**First**\n\nI look at it."},
        {"type": "summary_text", "text": "Then I answer."},
    ],
    "encrypted_content": "gAAAAAB",
}
CUSTOM = {
    "id": "ctc_68Aa1b2c3d4e5f6a",
    "type": "custom_tool_call",
    "status": "completed",
    "call_id": "call_Zz9",
    "input": "print('hi')\n",
    "name": "python",
}
ANSWERS: dict[str, dict[str, Any]] = {
    "text": response(message(text("Hello there\n friend"))),
    "no text at all": response(message(text(""))),
    "two parts and two messages": response(
        message(text("a"), text("b")), message(text("c"), id="msg_2", phase="final_answer")
    ),
    "parallel calls": response(call(0), call(1, arguments="")),
    "text and a call": response(message(text("Let me see.")), call(namespace="crm")),
    "a custom tool": response(CUSTOM),
    "reasoning with a summary": response(THOUGHT, message(text("42"))),
    "reasoning told in full": response(
        {**THOUGHT, "content": [{"type": "reasoning_text", "text": "Hm. So ..."}]},
        message(text("42")),
    ),
    "reasoning that tells nothing": response(
        {"id": "rs_1", "type": "reasoning", "summary": [], "content": None, "status": None},
        message(text("42")),
    ),
    "refusal": response(message({"type": "refusal", "refusal": "I can't help with that."})),
    "text and refusal": response(message(text("a"), {"type": "refusal", "refusal": "No."})),
    "logprobs": response(message(text("a b\n", logprobs=[token(t) for t in ("a", " b", "\n")]))),
    "logprobs of parts of a character": response(
        message(text("é", logprobs=[token("\\xc3"), token("\\xa9")]))
    ),
    "annotations": response(message(text("as he said", annotations=[CITATION, FILE]))),
    "without the optional members": response(
        message({"type": "output_text", "text": "a", "annotations": []})
    ),
    "cut off": response(
        message(text("and th"), status="incomplete"),
        status="incomplete",
        incomplete_details={"reason": "max_output_tokens"},
        completed_at=None,
    ),
    "failed": response(status="failed", error={"code": "server_error", "message": "m"}),
    "with members that nobody knows": response(
        message(text("a", x_new=1), x_new={"b": 1}), x_new=[1], moderation=None
    ),
}
CASES = pytest.mark.parametrize("whole", ANSWERS.values(), ids=ANSWERS)


def through_sdk(content: bytes, form: Form) -> tuple[Response, list[Any]]:
    """What a program gets that uses the official SDK: the response, and the events on its way."""
    kind = "application/json" if form is Form.BODY else "text/event-stream; charset=utf-8"
    reply = httpx2.Response(200, content=content, headers={"content-type": kind})
    http_client = httpx2.Client(transport=httpx2.MockTransport(lambda _: reply))
    with openai.OpenAI(api_key="k", max_retries=0, http_client=http_client) as client:
        if form is Form.BODY:
            return client.responses.create(model="m", input="hi"), []
        with client.responses.stream(model="m", input="hi") as stream:
            events = list(stream)
            last = events[-1]
            if last.type == "response.completed":
                final: Any = stream.get_final_response()
            else:
                final = last.response  # type: ignore[union-attr]
    return final, events


def plain(seen: Response) -> dict[str, Any]:
    """The SDK's object as data, without what its stream helper adds of its own."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: bare(member)
                for name, member in value.items()
                if name not in {"parsed", "parsed_arguments"}
            }
        return [bare(item) for item in value] if isinstance(value, list) else value

    dumped: dict[str, Any] = bare(seen.to_dict(mode="json"))
    return dumped


def of_one_hit(whole: dict[str, Any]) -> dict[str, Any]:
    """Without what is fresh in every hit."""
    return {n: v for n, v in whole.items() if n not in {"id", "created_at", "completed_at"}}


def spoken(whole: dict[str, Any]) -> Answer:
    """The answer, recorded as a stream."""
    return read_events(*(json.loads(json.dumps(e)) for e in served_events(read_document(whole))))


@CASES
def test_all_four_combinations_give_the_sdk_equal_objects(whole: dict[str, Any]) -> None:
    expected = of_one_hit(plain(through_sdk(json.dumps(whole).encode(), Form.BODY)[0]))

    for answer in (read_document(whole), spoken(whole)):
        assert BOTH == answer.forms
        for form in Form:
            seen, _ = through_sdk(served(answer, form), form)
            assert expected == of_one_hit(plain(seen)), (answer.recorded, form)


@CASES
def test_the_deltas_alone_say_what_the_response_says(whole: dict[str, Any]) -> None:
    assert whole["output"] == retold(served_events(read_document(whole)))


def retold(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items as a client knows them that reads deltas and nothing that is `done`; what is
    stated when an item or part begins is believed, but for its status.
    """
    items: list[dict[str, Any]] = []
    final = {
        e["output_index"]: e["item"] for e in events if e["type"] == "response.output_item.done"
    }
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert len(items) == event["output_index"]
            items.append(json.loads(json.dumps(event["item"])))
            if "status" in items[-1]:
                items[-1]["status"] = final[event["output_index"]]["status"]
        if "item_id" not in event:
            continue
        item = items[event["output_index"]]
        assert item["id"] == event["item_id"]
        assert item is items[-1], "items come one after the other"
        if kind == "content_part.added":
            assert len(item["content"]) == event["content_index"]
            item["content"].append(json.loads(json.dumps(event["part"])))
        elif kind == "reasoning_summary_part.added":
            assert len(item["summary"]) == event["summary_index"]
            item["summary"].append(json.loads(json.dumps(event["part"])))
        elif kind == "output_text.delta":
            part = item["content"][event["content_index"]]
            part["text"] += event["delta"]
            if event["logprobs"]:
                part["logprobs"] += event["logprobs"]
        elif kind == "output_text.annotation.added":
            part = item["content"][event["content_index"]]
            assert len(part["annotations"]) == event["annotation_index"]
            part["annotations"].append(event["annotation"])
        elif kind == "refusal.delta":
            item["content"][event["content_index"]]["refusal"] += event["delta"]
        elif kind == "reasoning_text.delta":
            item["content"][event["content_index"]]["text"] += event["delta"]
        elif kind == "reasoning_summary_text.delta":
            item["summary"][event["summary_index"]]["text"] += event["delta"]
        elif kind == "function_call_arguments.delta":
            item["arguments"] += event["delta"]
        elif kind == "custom_tool_call_input.delta":
            item["input"] += event["delta"]
        else:
            assert kind.endswith(".done")
    return items


@CASES
def test_what_is_done_repeats_what_was_said(whole: dict[str, Any]) -> None:
    events = served_events(read_document(whole))
    texts: dict[tuple[Any, ...], str] = {}
    for event in events:
        stem, _, step = event["type"].rpartition(".")
        place = (stem, *(event.get(n) for n in ("output_index", "content_index", "summary_index")))
        if step == "delta":
            texts[place] = texts.get(place, "") + event["delta"]
        elif step == "done" and (member := MEMBERS.get(stem)):
            assert texts.get(place, "") == event[member]
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert whole["output"] == done


MEMBERS = {
    "response.output_text": "text",
    "response.refusal": "refusal",
    "response.reasoning_text": "text",
    "response.reasoning_summary_text": "text",
    "response.function_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
}


@CASES
def test_every_event_is_one_that_the_sdk_knows_with_all_its_members(whole: dict[str, Any]) -> None:
    for event in served_events(read_document(whole)):
        known = EVENT.validate_python(event)
        assert event["type"] == known.type
        assert set() == type(known).model_fields.keys() - event.keys() - {"status"}


def test_a_response_begins_unfinished() -> None:
    created, under_way, *_ = served_events(read_document(ANSWERS["text"]))

    assert ["response.created", "response.in_progress"] == [created["type"], under_way["type"]]
    for event in (created, under_way):
        begun = event["response"]
        assert ("in_progress", [], None, None) == (
            begun["status"],
            begun["output"],
            begun["usage"],
            begun["completed_at"],
        )
        assert list(ANSWERS["text"]) == list(begun)


def test_nothing_is_told_before_it_can_be_known() -> None:
    whole = response(
        message(text("a"), status="incomplete"),
        status="incomplete",
        incomplete_details={"reason": "max_output_tokens"},
        error={"code": "x", "message": "m"},
        **{name: {"x": 1} for name in ("moderation", "tool_usage", "prompt_cache_diagnostics")},
    )
    first, second, added, *_, last = served_events(read_document(whole))

    for begun in (first["response"], second["response"]):
        late = {name for name, value in begun.items() if value is None and whole[name] is not None}
        assert {
            *("completed_at", "error", "incomplete_details", "usage"),
            *("moderation", "tool_usage", "prompt_cache_diagnostics"),
        } == late
    assert "in_progress" == added["item"]["status"]
    assert "response.incomplete" == last["type"]


def test_items_without_a_status_begin_without_one() -> None:
    item = {name: value for name, value in CUSTOM.items() if name != "status"}
    added = served_events(read_document(response(item)))[2]

    assert {**item, "input": ""} == added["item"]


def test_a_long_answer_comes_in_many_deltas() -> None:
    # R6: LiteLLM replays a stream as one delta.
    said = "one two three four five six " * 50

    events = served_events(read_document(response(message(text(said)))))
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]

    assert len(deltas) > 50
    assert said == "".join(deltas)


def test_each_token_travels_with_its_probability() -> None:
    events = served_events(read_document(ANSWERS["logprobs"]))
    deltas = [e for e in events if e["type"] == "response.output_text.delta"]

    assert ["a", " b", "\n"] == [e["delta"] for e in deltas]
    assert [[token(e["delta"])] for e in deltas] == [e["logprobs"] for e in deltas]


def test_a_recorded_stream_is_served_event_by_event() -> None:
    # peers 12: streams of this API were never kept by LiteLLM.
    whole = response(message(text("hi")), call())
    events = stream_of(whole)
    replayed = served_events(read_events(*events))

    def bare(event: dict[str, Any]) -> dict[str, Any]:
        inner = {"response": of_one_hit(event["response"])} if "response" in event else {}
        return {n: v for n, v in {**event, **inner}.items() if n != "sequence_number"}

    assert [bare(e) for e in events] == [bare(e) for e in replayed]


@CASES
def test_what_is_served_can_be_recorded_and_served_again(whole: dict[str, Any]) -> None:
    first = read_document(whole)
    again = read_events(*served_events(first))
    last = read_document(served_document(again))

    assert {(first.finish, first.usage, first.finish_reasons)} == {
        (each.finish, each.usage, each.finish_reasons) for each in (again, last)
    }
    assert of_one_hit(whole) == of_one_hit(served_document(last))


@pytest.mark.parametrize("value", [{}, {"output": {}}, {"status": "completed"}, {"output": [1]}])
def test_what_is_no_answer_does_not_split(value: Any) -> None:
    assert not splits_cleanly(value)
    with pytest.raises(Unmergeable):
        list(split(value))


@pytest.mark.parametrize("events", [[], [{"type": "response.completed"}], [{"type": "x"}]])
def test_nothing_can_be_merged_without_a_response_at_the_end(events: list[Any]) -> None:
    with pytest.raises(Unmergeable):
        merge(events)


# --- generated answers ------------------------------------------------------------------------

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.lists(
    st.sampled_from(["a", "é", "\n", " ", "\t\t", "\x1c", "\u2028", "\U0001f600", '"', "\\", "\x00"]),
    max_size=20,
).map("".join)  # fmt: skip


@st.composite
def _parts(draw: st.DrawFn) -> dict[str, Any]:
    said = draw(_texts)
    if draw(st.integers(0, 4)) == 0:
        return {"type": "refusal", "refusal": said}
    logprobs = [token(c) for c in said] if draw(st.booleans()) else []
    annotations = draw(st.lists(st.sampled_from([CITATION, FILE]), max_size=2))
    return text(said, logprobs=logprobs, annotations=annotations)


def _thought(summary: list[str], content: list[str] | None) -> dict[str, Any]:
    told = {"summary": [{"type": "summary_text", "text": t} for t in summary]}
    more: dict[str, Any] = {"content": None}
    if content is not None:
        more = {"content": [{"type": "reasoning_text", "text": t} for t in content]}
    return {**THOUGHT, **told, **more}


_items = st.one_of(
    st.lists(_parts(), max_size=3).map(lambda parts: message(*parts)),
    st.builds(lambda a: call(arguments=a), _texts),
    st.builds(lambda i: {**CUSTOM, "input": i}, _texts),
    st.builds(
        _thought, st.lists(_texts, max_size=2), st.none() | st.lists(_texts, max_size=2)
    ),
)  # fmt: skip


def _numbered(items: list[dict[str, Any]]) -> dict[str, Any]:
    for number, item in enumerate(items):
        prefix = item["id"].partition("_")[0]
        items[number] = {**item, "id": f"{prefix}_{number:016}"}
        if "call_id" in item:
            items[number]["call_id"] = f"call_{number:016}"
    return response(*items)


documents = st.lists(_items, max_size=4).map(_numbered)


@given(documents)
def test_every_answer_of_known_items_means_the_same_in_both_forms(whole: dict[str, Any]) -> None:
    answer = read_document(whole)
    events = served_events(answer)
    streamed = read_events(*events)

    assert BOTH == answer.forms == streamed.forms
    assert whole["output"] == retold(events) == events[-1]["response"]["output"]
    assert of_one_hit(whole) == of_one_hit(served_document(streamed))
    assert answer.finish == streamed.finish


@settings(deadline=None)
@given(documents)
def test_the_sdk_accepts_every_generated_stream(whole: dict[str, Any]) -> None:
    answer = read_document(whole)
    body, _ = through_sdk(served(answer, Form.BODY), Form.BODY)
    final, events = through_sdk(served(answer, Form.STREAM), Form.STREAM)

    assert of_one_hit(plain(body)) == of_one_hit(plain(final))
    snapshots = [e for e in events if e.type == "response.output_text.delta"]
    for event in snapshots:
        part = whole["output"][event.output_index]["content"][event.content_index]
        assert part["text"].startswith(event.snapshot)
