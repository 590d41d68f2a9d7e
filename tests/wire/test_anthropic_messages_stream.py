"""A message and its events say the same, or are not offered as one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import canonical
from gateway.wire.anthropic_messages_stream import merge, split, splits_cleanly
from gateway.wire.base import Unmergeable

if TYPE_CHECKING:
    from gateway.wire.envelope import Object

# --- any message ------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
COUNT = st.integers(0, 10**7)


def block(kind: str, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **members})


CITATION = block(
    "char_location",
    cited_text=TEXT,
    document_index=COUNT,
    document_title=st.none() | TEXT,
    start_char_index=COUNT,
    end_char_index=COUNT,
)
BLOCKS = st.one_of(
    block("text", text=TEXT),
    block("text", text=TEXT, citations=st.none() | st.lists(CITATION, max_size=3)),
    block("thinking", thinking=TEXT, signature=TEXT),
    block("redacted_thinking", data=TEXT),
    block("tool_use", id=TEXT, name=TEXT, input=st.dictionaries(TEXT, JSON, max_size=4)),
)
USAGE = st.fixed_dictionaries(
    {"input_tokens": COUNT, "output_tokens": COUNT},
    optional={
        "cache_creation_input_tokens": st.none() | COUNT,
        "cache_read_input_tokens": st.none() | COUNT,
        "cache_creation": st.none()
        | st.fixed_dictionaries(
            {"ephemeral_5m_input_tokens": COUNT, "ephemeral_1h_input_tokens": COUNT}
        ),
        "output_tokens_details": st.none() | st.fixed_dictionaries({"thinking_tokens": COUNT}),
        "server_tool_use": st.none()
        | st.fixed_dictionaries({"web_search_requests": COUNT, "web_fetch_requests": COUNT}),
        "service_tier": st.sampled_from(["standard", "priority", None]),
        "something_new": JSON,
    },
)
MESSAGES = st.fixed_dictionaries(
    {
        "id": TEXT,
        "type": st.just("message"),
        "role": st.just("assistant"),
        "model": TEXT,
        "content": st.lists(BLOCKS, max_size=4),
        "stop_reason": st.sampled_from(["end_turn", "tool_use", "max_tokens", "stop_sequence"]),
        "stop_sequence": st.none() | TEXT,
        "usage": USAGE,
    },
    optional={
        "stop_details": st.none() | st.just({"type": "refusal", "category": None}),
        "container": st.none(),
        "something_new": JSON,
    },
)


def exact(value: Any) -> Object:
    parsed = canonical.parse(orjson.dumps(value))
    assert isinstance(parsed, dict)
    return parsed


def accumulated(events: list[Object]) -> Message:
    """What the official SDK makes of the events."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        if event["type"] != "ping":
            plain: Any = orjson.loads(canonical.encode(event))
            snapshot = accumulate_event(event=plain, current_snapshot=snapshot, json_bufs=buffers)
    return Message.model_validate(snapshot.to_dict(mode="json"))


@given(MESSAGES)
def test_a_message_split_into_events_merges_back_into_itself(message: dict[str, Any]) -> None:
    document = exact(message)
    assert splits_cleanly(document)
    merged = merge(list(split(document)))
    assert document == {name: value for name, value in merged.items() if name in document}


@given(MESSAGES)
def test_the_sdk_makes_the_same_message_of_the_events(message: dict[str, Any]) -> None:
    expected = Message.model_validate(message)
    got = accumulated(list(split(exact(message))))
    assert expected.content == got.content
    assert expected.stop_reason == got.stop_reason
    assert expected.stop_sequence == got.stop_sequence
    assert expected.stop_details == got.stop_details
    assert expected.usage == got.usage
    assert expected.model_extra == got.model_extra


def test_numbers_and_member_order_of_a_tool_s_input_stay_as_they_were_spelled() -> None:
    spelled = b'{"b":1.0,"a":1e3,"c":[0.10,-0]}'
    call: Object = {"type": "tool_use", "id": "t", "name": "f", "input": canonical.parse(spelled)}
    message: Object = {
        "type": "message",
        "content": [call],
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    merged: Any = merge(list(split(message)))
    assert spelled == canonical.encode(merged["content"][0]["input"])


# --- one stream in detail ---------------------------------------------------------------------

START: dict[str, Any] = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1},
}
BEGIN: dict[str, Any] = {"type": "message_start", "message": START}
PING: dict[str, Any] = {"type": "ping"}
END: dict[str, Any] = {"type": "message_stop"}


def opened(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def filled(index: int, kind: str, **members: Any) -> dict[str, Any]:
    return {
        "type": "content_block_delta",
        "index": index,
        "delta": {"type": kind, **members},
    }


def closed(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def settled(usage: dict[str, Any] | None = None, **beside: Any) -> dict[str, Any]:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": usage or {"output_tokens": 9},
        **beside,
    }


SAID = [opened(0, type="text", text=""), filled(0, "text_delta", text="Hi"), closed(0)]


def merged(*events: dict[str, Any]) -> Any:
    return canonical.plain(merge([exact(event) for event in events]))


def test_blocks_are_filled_by_their_deltas() -> None:
    citation = {"type": "char_location", "cited_text": "x"}
    message = merged(
        BEGIN,
        opened(0, type="thinking", thinking="", signature=""),
        PING,
        filled(0, "thinking_delta", thinking="Let ", estimated_tokens=50),
        filled(0, "thinking_delta", thinking="me.", estimated_tokens=None),
        filled(0, "signature_delta", signature="c2ln"),
        closed(0),
        opened(1, type="redacted_thinking", data="ZGF0YQ=="),
        closed(1),
        opened(2, type="text", text="", citations=[]),
        filled(2, "text_delta", text="H"),
        filled(2, "citations_delta", citation=citation),
        filled(2, "text_delta", text="i"),
        closed(2),
        opened(3, type="tool_use", id="t1", name="f", input={}),
        filled(3, "input_json_delta", partial_json=""),
        filled(3, "input_json_delta", partial_json='{"a": [1, '),
        filled(3, "input_json_delta", partial_json="2]}"),
        closed(3),
        opened(4, type="tool_use", id="t2", name="f", input={}),
        filled(4, "input_json_delta", partial_json=""),
        closed(4),
        opened(5, type="web_search_tool_result", tool_use_id="s", content=[{"url": "u"}]),
        closed(5),
        settled(),
        END,
    )
    assert message["content"] == [
        {"type": "thinking", "thinking": "Let me.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
        {"type": "text", "text": "Hi", "citations": [citation]},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, 2]}},
        {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]},
    ]
    assert message["stop_reason"] == "end_turn"


def test_usage_is_cumulative_and_null_states_nothing() -> None:
    later = {"input_tokens": 8, "cache_read_input_tokens": None, "output_tokens": 4}
    message = merged(BEGIN, *SAID, settled(later), settled({"output_tokens": 9}), END)
    expected = {"input_tokens": 8, "cache_read_input_tokens": 3, "output_tokens": 9}
    assert expected == message["usage"]


def test_what_betas_state_beside_the_delta_belongs_to_the_message() -> None:
    edits: dict[str, Any] = {"applied_edits": []}
    message = merged(BEGIN, *SAID, settled(context_management=edits), END)
    assert edits == message["context_management"]
    assert splits_cleanly(exact(message))


def test_a_fallback_stream_is_not_offered_as_a_message() -> None:
    # The SDK relabels the model there, the plain one doesn't: whose message would it be?
    with pytest.raises(Unmergeable, match="'fallback' is not known"):
        merged(BEGIN, opened(0, type="fallback", to={"model": "n"}), closed(0), settled(), END)


UNMERGEABLE = {
    "nothing at all": [],
    "no message_start": [settled(), END],
    "two message_starts": [BEGIN, BEGIN, END],
    "a start that starts no message": [{"type": "message_start", "message": {"type": "x"}}],
    "a start with content": [
        {"type": "message_start", "message": {**START, "content": [{"type": "text"}]}}
    ],
    "an event that we don't know": [BEGIN, {"type": "message_pause"}, END],
    "a member of an event that we don't know": [BEGIN, *SAID, {**END, "metrics": {}}],
    "a block that we don't know": [BEGIN, opened(0, type="hologram"), closed(0), END],
    "a block that is no object": [
        BEGIN,
        {"type": "content_block_start", "index": 0, "content_block": 1},
    ],
    "a block out of order": [BEGIN, opened(1, type="text", text="")],
    "two open blocks": [BEGIN, opened(0, type="text", text=""), opened(1, type="text", text="")],
    "a block that stays open": [BEGIN, opened(0, type="text", text=""), settled(), END],
    "a delta for a closed block": [BEGIN, *SAID, filled(0, "text_delta", text="!")],
    "a delta for another block": [
        BEGIN,
        opened(0, type="text", text=""),
        filled(1, "text_delta", text="!"),
    ],
    "a delta that we don't know": [
        BEGIN,
        opened(0, type="text", text=""),
        filled(0, "hologram_delta", hologram="!"),
    ],
    "a delta that is not for this block": [
        BEGIN,
        opened(0, type="text", text=""),
        filled(0, "thinking_delta", thinking="!"),
    ],
    "a member of a delta that we don't know": [
        BEGIN,
        opened(0, type="text", text=""),
        filled(0, "text_delta", text="!", logprobs=[1]),
    ],
    "a piece that is no string": [
        BEGIN,
        opened(0, type="text", text=""),
        filled(0, "text_delta", text=7),
        closed(0),
    ],
    "an input that is cut off": [
        BEGIN,
        opened(0, type="tool_use", id="t", name="f", input={}),
        filled(0, "input_json_delta", partial_json='{"a": 1'),
        closed(0),
    ],
    "an input that is no object": [
        BEGIN,
        opened(0, type="tool_use", id="t", name="f", input={}),
        filled(0, "input_json_delta", partial_json="[1]"),
        closed(0),
    ],
    "an input that names a member twice": [
        BEGIN,
        opened(0, type="tool_use", id="t", name="f", input={}),
        filled(0, "input_json_delta", partial_json='{"a": 1, "a": 2}'),
        closed(0),
    ],
    "an input whole and in pieces": [
        BEGIN,
        opened(0, type="tool_use", id="t", name="f", input={"a": 1}),
        filled(0, "input_json_delta", partial_json='{"a": 2}'),
        closed(0),
    ],
    "a signature in pieces": [
        BEGIN,
        opened(0, type="thinking", thinking="", signature=""),
        filled(0, "signature_delta", signature="a"),
        filled(0, "signature_delta", signature="b"),
        closed(0),
    ],
    "a stop reason that changes": [
        BEGIN,
        *SAID,
        settled(),
        {"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": {}},
    ],
    "a member of the last delta that we don't know": [
        BEGIN,
        *SAID,
        {"type": "message_delta", "delta": {"mood": "good"}, "usage": {}},
    ],
}


@pytest.mark.parametrize("events", UNMERGEABLE.values(), ids=UNMERGEABLE)
def test_what_cannot_be_merged_without_loss_is_refused(events: list[dict[str, Any]]) -> None:
    with pytest.raises(Unmergeable):
        merged(*events)


def test_an_input_that_came_whole_stays() -> None:
    message = merged(
        BEGIN,
        opened(0, type="tool_use", id="t", name="f", input={"a": 1}),
        closed(0),
        settled(),
        END,
    )
    assert message["content"][0]["input"] == {"a": 1}


def test_the_events_come_in_the_order_of_the_api() -> None:
    message = exact(
        {
            **START,
            "stop_reason": "tool_use",
            "content": [
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            ],
            "usage": {"input_tokens": 7, "output_tokens": 9, "service_tier": "standard"},
        }
    )
    events: Any = [canonical.plain(event) for event in split(message)]
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    first = {"input_tokens": 7, "output_tokens": 1, "service_tier": "standard"}
    expected = START | {"usage": first}
    assert expected == events[0]["message"]
    assert events[6]["delta"] == {"type": "input_json_delta", "partial_json": ""}
    assert events[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"input_tokens": 7, "output_tokens": 9},
    }


UNSPLITTABLE = {
    "a block that we don't know": [{"type": "hologram", "text": "x"}],
    "a block without a type": [{"text": "x"}],
    "a block that is no object": ["x"],
    "content that is no list": "x",
    "a fallback": [{"type": "fallback", "to": {"model": "n"}}],
}


@pytest.mark.parametrize("content", UNSPLITTABLE.values(), ids=UNSPLITTABLE)
def test_a_message_that_would_not_come_back_is_not_split(content: Any) -> None:
    assert not splits_cleanly(exact({**START, "content": content}))
