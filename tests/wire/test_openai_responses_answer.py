"""Responses judged, and made fresh or left alone when they are served."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import canonical, sse
from gateway.core.model import Ask, Finish, Form, Reason, Usage
from gateway.core.policy import CachePolicy, Skip, after_response
from gateway.providers.openai_responses import RESPONSES
from tests.helpers.openai_responses import (
    API,
    NOW,
    USAGE,
    call,
    entry_of,
    events_of,
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
REFUSAL = {"type": "refusal", "refusal": "No."}
THOUGHT = {"id": "rs_68Aa1b2c3d4e5f6a", "type": "reasoning", "summary": []}
TERMINAL = ("response.completed", "response.incomplete", "response.failed")


def incomplete(reason: str, *output: dict[str, Any]) -> dict[str, Any]:
    return response(*output, status="incomplete", incomplete_details={"reason": reason})


# --- judging ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "whole"),
    [
        (Finish.COMPLETE, response(message(text("hi")))),
        (Finish.COMPLETE, response(call())),
        (Finish.COMPLETE, response(THOUGHT, message(text("hi")))),
        (Finish.COMPLETE, response({"type": "local_shell_call", "id": "lsh_1"})),
        (Finish.COMPLETE, response(message(text("hi")), tools=[{"type": "function"}])),
        (Finish.REFUSED, response(message(REFUSAL))),
        (Finish.REFUSED, response(message(text("hi"), REFUSAL))),
        (Finish.REFUSED, incomplete("content_filter")),
        (Finish.TRUNCATED, incomplete("max_output_tokens", message(text("hi")))),
        (Finish.EMPTY, incomplete("max_output_tokens", THOUGHT)),
        (Finish.UNKNOWN, incomplete("steered", message(text("hi")))),
        (Finish.UNKNOWN, incomplete("something_new", message(text("hi")))),
        (Finish.EMPTY, response()),
        (Finish.EMPTY, response(THOUGHT)),
        (Finish.EMPTY, response(message(text("")))),
        (Finish.EMPTY, response(message())),
        (Finish.EMPTY, response({"type": "compaction", "encrypted_content": "g"})),
        (Finish.ERROR, response(status="failed", error={"code": "server_error"})),
        (Finish.ERROR, response(message(text("hi")), status="failed")),
        (Finish.ERROR, response(message(text("hi")), error={"code": "server_error"})),
        (Finish.ERROR, {"error": {"message": "overloaded"}}),
        (Finish.INCOMPLETE, response(status="queued")),
        (Finish.INCOMPLETE, response(status="in_progress")),
        (Finish.INCOMPLETE, response(message(text("hi")), status="cancelled")),
        (Finish.UNKNOWN, response(message(text("hi")), status="other")),
        (Finish.UNKNOWN, response(message(text("hi")), status=["completed"])),
        (Finish.UNKNOWN, response(message(text("hi")), output={})),
        (Finish.UNKNOWN, {"id": "chatcmpl-1", "choices": []}),
        (Finish.HOSTED, response(message(text("hi")), tools=[{"type": "web_search"}])),
        *(
            (Finish.HOSTED, response({"type": kind}, message(text("hi"))))
            for kind in (
                *("web_search_call", "file_search_call", "code_interpreter_call", "program"),
                *("image_generation_call", "mcp_call", "mcp_list_tools", "mcp_approval_request"),
            )
        ),
    ],
)
def test_an_answer_is_judged_by_its_status_and_by_what_it_says(
    finish: Finish, whole: dict[str, Any]
) -> None:
    assert finish == read_document(whole).finish


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b'"a"', b'{"id":1,"id":2}', b"\xff"])
def test_what_is_no_response_is_unknown(document: bytes) -> None:
    answer = API.read_body(document, RESPONSES)

    assert (Finish.UNKNOWN, frozenset(), document) == (answer.finish, answer.forms, answer.payload)


def test_an_answer_tells_its_usage_model_and_id() -> None:
    for answer in (
        read_document(response(call())),
        read_events(*stream_of(response(call()))),
    ):
        assert Usage(uncached_input=3, cache_read=4, cache_write_5m=2, output=3) == answer.usage
        assert "gpt-4o-2024-08-06" == answer.model
        assert response()["id"] == answer.response_id
        assert ("completed",) == answer.finish_reasons
        assert answer.has_stream_usage
    assert ("max_output_tokens",) == read_document(incomplete("max_output_tokens")).finish_reasons


def test_an_answer_tells_how_it_was_served() -> None:
    flexible = response(message(text("hi")), service_tier="flex")

    assert ("flex",) == read_document(flexible).terms
    assert ("flex",) == read_events(*stream_of(flexible)).terms
    assert () == read_document(response(service_tier=None)).terms


def test_an_answer_without_usage_has_both_forms_as_well() -> None:
    answer = read_document(response(call(), usage=None))

    assert (BOTH, None, False) == (answer.forms, answer.usage, answer.has_stream_usage)


def test_a_stream_is_complete_with_its_last_event_and_not_before() -> None:
    events = stream_of(response(message(text("hi"))))

    assert Finish.COMPLETE == read_events(*events).finish
    for end in range(len(events)):
        assert Finish.INCOMPLETE == read_events(*events[:end]).finish


def test_a_stream_that_is_cut_within_its_last_event_is_incomplete() -> None:
    whole = events_of(*stream_of(response(message(text("hi")))))

    assert Finish.INCOMPLETE == API.read_stream(whole[:-2], RESPONSES).finish
    assert Finish.COMPLETE == API.read_stream(whole + b"data: {", RESPONSES).finish


@pytest.mark.parametrize(
    ("finish", "whole"),
    [
        (Finish.TRUNCATED, incomplete("max_output_tokens", message(text("hi")))),
        (Finish.REFUSED, response(message(REFUSAL))),
        (Finish.ERROR, response(status="failed", error={"code": "server_error", "message": "m"})),
    ],
)
def test_a_stream_is_judged_like_the_response_that_ends_it(
    finish: Finish, whole: dict[str, Any]
) -> None:
    answer = read_events(*stream_of(whole))

    assert finish == answer.finish == read_document(whole).finish
    assert BOTH == answer.forms


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "message": "m", "code": None, "param": None},
        {"type": "new", "error": {"message": "m"}},
    ],
)
def test_an_error_within_a_stream_is_an_error(event: dict[str, Any]) -> None:
    events = stream_of(response(message(text("hi"))))

    assert Finish.ERROR == read_events(*events[:3], event).finish
    assert Finish.ERROR == read_events(*events[:3], event, *events[3:]).finish
    named = sse.write(b'{"message":"m"}', "error")
    assert Finish.ERROR == API.read_stream(named, RESPONSES).finish


def test_what_follows_the_last_event_makes_a_stream_unknown() -> None:
    events = stream_of(response(message(text("hi"))))

    assert Finish.UNKNOWN == read_events(*events, {"type": "response.new"}).finish
    twice = events_of(*events) + b"data: [DONE]\n\ndata: [DONE]\n\n"
    assert Finish.UNKNOWN == API.read_stream(twice, RESPONSES).finish


def test_a_closing_done_of_other_servers_stays_where_it_was() -> None:
    whole = response(message(text("hi")))
    answer = API.read_stream(events_of(*stream_of(whole)) + b"data: [DONE]\n\n", RESPONSES)

    assert (Finish.COMPLETE, BOTH) == (answer.finish, answer.forms)
    assert served(answer, Form.STREAM).endswith(b"data: [DONE]\n\n")
    assert whole["output"] == served_document(answer)["output"]
    assert b"[DONE]" not in served(read_document(whole), Form.STREAM)


@pytest.mark.parametrize("events", [b"", b"data: 1\n\n", b"data: {\n\n", b"data: \xff\n\n"])
def test_what_is_no_stream_of_events_is_never_complete(events: bytes) -> None:
    answer = API.read_stream(events, RESPONSES)

    assert answer.finish in {Finish.UNKNOWN, Finish.INCOMPLETE}
    assert frozenset() == answer.forms


def altered(events: list[dict[str, Any]], kind: str, **changes: Any) -> list[dict[str, Any]]:
    """The events, the first of this type changed."""
    at = next(i for i, event in enumerate(events) if event["type"] == kind)
    return [*events[:at], {**events[at], **changes}, *events[at + 1 :]]


SAID = stream_of(response(message(text("hi")), call()))


@pytest.mark.parametrize(
    "events",
    [
        altered(SAID, "response.output_text.delta", delta="x"),
        altered(SAID, "response.output_text.delta", delta=None),
        altered(SAID, "response.output_text.delta", content_index=1),
        altered(SAID, "response.output_text.delta", output_index=9),
        altered(SAID, "response.output_text.delta", output_index=None),
        altered(SAID, "response.function_call_arguments.delta", delta=""),
        altered(SAID, "response.output_item.added", item={"type": "message", "id": "msg_2"}),
        altered(SAID, "response.output_item.done", item={"type": "reasoning"}),
        altered(stream_of(response(call())), "response.output_item.added", item=call(call_id="x")),
        altered(SAID, "response.output_item.done", output_index=2),
        altered(SAID, "response.created", response={"id": "resp_other"}),
        altered(SAID, "response.completed", response=response(message(text("hi")))),
        altered(SAID, "response.completed", response=response(message(text("ho")), call())),
        [
            *SAID[:-1],
            {
                "type": "response.output_text.annotation.added",
                "output_index": 0,
                "content_index": 0,
                "annotation_index": 0,
                "annotation": {"type": "url_citation"},
            },
            SAID[-1],
        ],
    ],
)
def test_a_stream_that_contradicts_its_response_is_served_as_it_came_only(
    events: list[dict[str, Any]],
) -> None:
    answer = read_events(*events)

    assert frozenset({Form.STREAM}) == answer.forms
    assert (Finish.COMPLETE, WHOLE["model"]) == (answer.finish, answer.model)
    assert not API.can_serve(entry_of(answer), Ask(Form.BODY, "m"))
    assert [e["type"] for e in events] == [e["type"] for e in served_events(answer)]


def test_events_that_are_not_known_stay_in_the_stream_and_hinder_nothing() -> None:
    events = [*SAID[:3], {"type": "response.new", "x": 1}, {"type": "keepalive"}, *SAID[3:]]
    answer = read_events(*events)

    assert BOTH == answer.forms
    assert [e["type"] for e in events] == [e["type"] for e in served_events(answer)]


SAID_IN_PIECES = response(
    message(text("ab"), {"type": "refusal", "refusal": "cd"}),
    {
        **THOUGHT,
        "summary": [{"type": "summary_text", "text": "ef"}],
        "content": [{"type": "reasoning_text", "text": "gh"}],
    },
    call(),
    {"id": "ctc_1", "type": "custom_tool_call", "call_id": "c", "name": "n", "input": "ij"},
)


@pytest.mark.parametrize(
    "kind",
    [
        *("output_text", "refusal", "reasoning_summary_text", "reasoning_text"),
        *("function_call_arguments", "custom_tool_call_input"),
    ],
)
def test_every_text_is_held_against_its_pieces(kind: str) -> None:
    events = served_events(read_document(SAID_IN_PIECES))
    assert BOTH == read_events(*events).forms

    wrong = altered(events, f"response.{kind}.delta", delta="not this")

    assert frozenset({Form.STREAM}) == read_events(*wrong).forms


def test_an_item_that_was_announced_empty_hinders_nothing() -> None:
    # The SDK passes over it as well.
    empty = {"type": "response.output_item.added", "output_index": 7, "item": None}

    assert BOTH == read_events(*SAID[:2], empty, *SAID[2:]).forms


def test_an_annotation_that_is_not_in_the_response_is_missed() -> None:
    cited = text("hi", annotations=[{"type": "url_citation", "url": "a"}])
    added = {
        "type": "response.output_text.annotation.added",
        "output_index": 0,
        "content_index": 0,
        "annotation_index": 0,
    }
    *before, last = stream_of(response(message(cited)))

    for annotation, forms in (
        ({"type": "url_citation", "url": "a"}, BOTH),
        ({"type": "url_citation", "url": "b"}, frozenset({Form.STREAM})),
    ):
        answer = read_events(*before, {**added, "annotation": annotation}, last)
        assert forms == answer.forms


def test_items_that_the_last_event_leaves_out_are_those_that_were_done() -> None:
    whole = response(message(text("hi")), call())
    bare = {name: value for name, value in whole.items() if name != "output"}

    answer = read_events(*altered(stream_of(whole), "response.completed", response=bare))

    assert BOTH == answer.forms
    assert whole["output"] == served_document(answer)["output"]


def test_items_that_were_never_done_are_missed() -> None:
    whole = response(message(text("hi")), call())
    events = altered(stream_of(whole), "response.completed", response={**whole, "output": None})
    first_done = next(e for e in events if e["type"] == "response.output_item.done")
    events.remove(first_done)

    assert frozenset({Form.STREAM}) == read_events(*events).forms


@pytest.mark.parametrize(
    "item",
    [
        {"type": "local_shell_call", "id": "lsh_1"},
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "g"},
        {"type": "something_new", "id": "x_1"},
        {**message(text("hi")), "content": None},
        message({"type": "output_audio", "data": "x"}),
        message(text("hi"), id=None),
        message({**text("hi"), "text": None}),
        call(arguments=None),
        {**THOUGHT, "summary": [{"type": "new", "text": "t"}]},
        {**THOUGHT, "content": [{"type": "output_text", "text": "t"}]},
    ],
)
def test_an_item_that_is_not_known_to_come_in_pieces_is_served_whole_only(
    item: dict[str, Any],
) -> None:
    whole = response(message(text("a")), item)

    assert frozenset({Form.BODY}) == read_document(whole).forms
    assert whole["output"] == served_document(read_document(whole))["output"]


def test_in_a_stream_of_its_own_such_an_item_has_both_forms() -> None:
    item = {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1"}

    assert BOTH == read_events(*stream_of(response(item))).forms


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 3)
    | st.sampled_from(["message", "response.completed", "error", "completed", "", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "output", "response", "status", "content", "text", "id", "tools"),
                    *("item", "output_index", "delta", "error", "summary", "usage"),
                    "incomplete_details",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(anything, st.sampled_from(TERMINAL))
def test_judging_never_raises_and_what_is_offered_can_be_served(value: Any, last: str) -> None:
    whole = {"id": "resp_1", "status": "completed", "output": value}
    for answer in (
        read_document(value),
        read_document(whole),
        API.read_stream(sse.write(json.dumps(value).encode()), RESPONSES),
        read_events({"type": "response.new", "response": value}, {"type": last, "response": whole}),
    ):
        assert isinstance(answer.finish, Finish)
        for form in answer.forms:
            assert served(answer, form)


def test_an_answer_with_tools_that_ran_at_the_provider_is_not_stored() -> None:
    # A prompt template may have brought them: the request named none.
    whole = response(message(text("hi")), tools=[{"type": "web_search"}])
    policy = CachePolicy(when="always", ttl_s=1.0, truncated=True, refused=True)

    decision = after_response(read_document(whole), Ask(Form.BODY, "m"), policy, write=True)

    assert Skip(Reason.HOSTED_TOOL) == decision


# --- serving ----------------------------------------------------------------------------------

WHOLE = response(message(text("hi")), call(0), call(1))
RECORDED = {"body": read_document(WHOLE), "stream": read_events(*stream_of(WHOLE))}
recorded = pytest.mark.parametrize("answer", RECORDED.values(), ids=RECORDED)


@recorded
def test_a_hit_has_an_id_and_times_of_its_own(answer: Any) -> None:
    # peers 15: a response id that was seen before is taken for one that was counted already.
    document = served_document(answer)
    first, second, *_, last = served_events(answer)

    assert document["id"].startswith("resp_")
    assert len(WHOLE["id"]) == len(document["id"])
    assert document["id"] != WHOLE["id"]
    assert (NOW, NOW) == (document["created_at"], document["completed_at"])
    assert {document["id"]} == {each["response"]["id"] for each in (first, second, last)}
    assert {NOW} == {each["response"]["created_at"] for each in (first, second, last)}
    assert NOW == last["response"]["completed_at"]
    assert served_document(answer, seed=b"other")["id"] != document["id"]


@recorded
def test_nothing_but_id_and_times_differs_in_a_hit(answer: Any) -> None:
    document = served_document(answer)
    fresh = {"id": document["id"], "created_at": NOW, "completed_at": NOW}

    assert {**WHOLE, **fresh} == document
    assert list(WHOLE) == list(document)
    assert document == served_events(answer)[-1]["response"]


@recorded
def test_what_the_provider_keeps_is_served_as_it_keeps_it(answer: Any) -> None:
    history = frozenset({"call_Ab3dEf9h00", WHOLE["output"][0]["id"]})

    assert WHOLE == served_document(answer, keeps_id=True, history=history)
    events = served_events(answer, keeps_id=True, history=history)
    assert WHOLE == events[-1]["response"]
    assert {WHOLE["id"]} == {e["response"]["id"] for e in events if "response" in e}


@recorded
def test_ids_that_the_history_holds_already_are_replaced_everywhere(answer: Any) -> None:
    # peers 20: an agent takes a repeated id for a replay.
    mine = WHOLE["output"][0]["id"]
    history = frozenset({"call_Ab3dEf9h01", mine})

    spoken, first, second = served_document(answer, history=history)["output"]
    events = served_events(answer, history=history)

    assert WHOLE["output"][1] == first
    assert spoken["id"].startswith("msg_")
    assert second["call_id"].startswith("call_")
    assert not {spoken["id"], second["call_id"]} & {*history, *ids_of(WHOLE)}
    assert [spoken, first, second] == events[-1]["response"]["output"]
    told = json.dumps(events)
    assert mine not in told
    assert "call_Ab3dEf9h01" not in told
    added = [e["item"] for e in events if e["type"] == "response.output_item.added"]
    assert [spoken["id"], first["id"], second["id"]] == [item["id"] for item in added]
    assert {e["item_id"] for e in events if "item_id" in e} == {item["id"] for item in added}


def ids_of(whole: dict[str, Any]) -> set[str]:
    return {i[n] for i in whole["output"] for n in ("id", "call_id") if n in i}


@recorded
def test_serving_leaves_the_entry_as_it_was(answer: Any) -> None:
    before = answer.payload
    first = served_document(answer)

    assert (before, first) == (answer.payload, served_document(answer))


@pytest.mark.parametrize("stamp", [0, None, "then"])
def test_what_was_no_time_stays_none(stamp: Any) -> None:
    whole = response(message(text("hi")), created_at=stamp)

    assert stamp == served_document(read_document(whole))["created_at"]


def test_a_response_without_an_id_stays_without() -> None:
    whole = response(message(text("hi")))
    del whole["id"]

    answer = read_document(whole)
    assert frozenset({Form.BODY}) == answer.forms
    assert "id" not in served_document(answer)


def test_numbers_members_and_their_order_stay_as_they_were_spelled() -> None:
    spelled = b'{"x_new":{"b":1.0,"a":1e2},"id":"resp_68aa1b2c3d4e5f60","object":"response","created_at":5.0,"status":"completed","model":"m","output":[{"role":"assistant","id":"msg_1","type":"message","content":[{"x":0.10,"type":"output_text","text":"a"}]}],"usage":{"input_tokens":1,"output_tokens":1,"cost":0.10}}'  # fmt: skip
    answer = API.read_body(spelled, RESPONSES)

    assert list(json.loads(spelled)) == list(served_document(answer))
    assert BOTH == answer.forms
    for form in answer.forms:
        out = served(answer, form)
        assert b'{"b":1.0,"a":1e2}' in out
        assert b'"cost":0.10' in out
        assert b'{"x":0.10,' in out
    kept = served(answer, Form.BODY, keeps_id=True)
    assert canonical.parse(spelled) == canonical.parse(kept)


def test_usage_details_and_the_tier_reach_both_forms() -> None:
    # peers 13: LiteLLM's stream hits drop them.
    answer = read_document(response(call(), service_tier="flex"))

    for whole in (served_document(answer), served_events(answer)[-1]["response"]):
        assert (USAGE, "flex") == (whole["usage"], whole["service_tier"])
