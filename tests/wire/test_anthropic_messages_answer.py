"""Messages as answers: judged, stored and served again, in whichever form is asked for."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import sse
from gateway.core.mint import Mint
from gateway.core.model import Answer, Ask, Entry, Finish, Form, Usage
from gateway.lab import stub_anthropic
from gateway.providers.anthropic import MESSAGES
from gateway.wire.anthropic_messages import AnthropicMessages
from tests.helpers.entries import entry

API = AnthropicMessages()
BOTH = frozenset(Form)
USAGE = {"input_tokens": 7, "output_tokens": 9}


def document(*content: Any, stop: str | None = "end_turn", **members: Any) -> dict[str, Any]:
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5",
        "content": list(content),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": USAGE,
        **members,
    }


def text(said: str = "Hi") -> dict[str, Any]:
    return {"type": "text", "text": said}


def judge(message: Any) -> Answer:
    return API.read_body(orjson.dumps(message), MESSAGES)


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(sse.write(orjson.dumps(event), event["type"]) for event in events)


START: dict[str, Any] = {"type": "message_start", "message": document(stop=None)}
SAID: list[dict[str, Any]] = [
    {"type": "content_block_start", "index": 0, "content_block": text("")},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
]
SETTLED: dict[str, Any] = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 9},
}
STOP: dict[str, Any] = {"type": "message_stop"}
MURMUR: dict[str, Any] = {
    "type": "content_block_delta",
    "index": 0,
    "delta": {"type": "murmur", "murmur": "m"},
}

# --- judging ----------------------------------------------------------------------------------

FINISHES = {
    "an answer": (document(text()), Finish.COMPLETE),
    "a call": (
        document({"type": "tool_use", "id": "t", "name": "f", "input": {}}, stop="tool_use"),
        Finish.COMPLETE,
    ),
    "a stop sequence": (document(text(), stop="stop_sequence"), Finish.COMPLETE),
    "cut at max_tokens": (document(text(), stop="max_tokens"), Finish.TRUNCATED),
    "cut at the context window": (
        document(text(), stop="model_context_window_exceeded"),
        Finish.TRUNCATED,
    ),
    "refused": (document(text(), stop="refusal"), Finish.REFUSED),
    "refused without a word": (document(stop="refusal"), Finish.REFUSED),
    "paused": (document(text(), stop="pause_turn"), Finish.PAUSED),
    "a reason that we don't know": (document(text(), stop="bored"), Finish.UNKNOWN),
    "no reason": (document(text(), stop=None), Finish.UNKNOWN),
    "no content": (document(), Finish.EMPTY),
    "prewarming": (document(stop="max_tokens"), Finish.EMPTY),
    "an empty text": (document(text("")), Finish.EMPTY),
    "thoughts alone": (
        document({"type": "thinking", "thinking": "hm", "signature": "s"}),
        Finish.EMPTY,
    ),
    "an error in a 200": (
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        Finish.ERROR,
    ),
    "an error of another kind": ({"error": "no"}, Finish.ERROR),
    "no content at all": ({"type": "message", "stop_reason": "end_turn"}, Finish.UNKNOWN),
    "no object": ([1], Finish.UNKNOWN),
}


@pytest.mark.parametrize(("message", "finish"), FINISHES.values(), ids=FINISHES)
def test_the_finish_of_a_message(message: Any, finish: Finish) -> None:
    assert finish is judge(message).finish


UNREADABLE = {
    "no JSON": b"<html>",
    "not UTF-8": b'{"a":"\xff"}',
    "a lone surrogate": rb'{"type":"message","content":[{"type":"text","text":"\ud800"}]}',
    "a member named twice": b'{"type":"message","type":"message"}',
    "a nest without end": b"[" * 5000 + b"]" * 5000,
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_unknown_and_never_raises(body: bytes) -> None:
    assert API.read_body(body, MESSAGES).finish is Finish.UNKNOWN
    assert API.read_stream(b"data: " + body + b"\n\n", MESSAGES).finish is Finish.UNKNOWN


def test_what_a_message_says_of_itself() -> None:
    usage = {
        **USAGE,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 15},
    }
    answer = judge(document(text(), usage=usage))
    assert Form.BODY is answer.recorded
    assert BOTH == answer.forms
    assert answer.finish_reasons == ("end_turn",)
    assert Usage(7, 30, 5, 15, 9) == answer.usage
    assert answer.model == "claude-opus-5"
    assert answer.response_id == "msg_01XFDUDYJgAACzvnptvVoYEL"
    assert answer.has_stream_usage


def test_what_a_stream_says_of_itself() -> None:
    answer = API.read_stream(stream(START, {"type": "ping"}, *SAID, SETTLED, STOP), MESSAGES)
    assert (Form.STREAM, Finish.COMPLETE) == (answer.recorded, answer.finish)
    assert BOTH == answer.forms
    assert answer.finish_reasons == ("end_turn",)
    assert Usage(uncached_input=7, output=9) == answer.usage
    assert (answer.model, answer.response_id) == ("claude-opus-5", "msg_01XFDUDYJgAACzvnptvVoYEL")


@pytest.mark.parametrize("late", [text("Hi"), {"type": "odd"}])
def test_an_answer_tells_how_it_was_served(late: dict[str, Any]) -> None:
    spent = {**USAGE, "service_tier": "batch", "inference_geo": "us", "speed": None}
    assert ("batch", "us") == judge({**document(late), "usage": spent}).terms
    start = {"type": "message_start", "message": {**document(stop=None), "usage": spent}}
    answer = API.read_stream(stream(start, *SAID[:2], MURMUR, SAID[2], SETTLED, STOP), MESSAGES)
    assert ("batch", "us") == answer.terms
    assert () == judge(document(late)).terms


USAGES: dict[str, tuple[dict[str, Any], dict[str, Any], Usage]] = {
    "server tools make the prompt longer, and the lifetimes stand at the start": (
        {
            "input_tokens": 50,
            "cache_creation_input_tokens": 456,
            "cache_read_input_tokens": 18000,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 456},
            "output_tokens": 1,
        },
        {
            "input_tokens": 2679,
            "cache_creation_input_tokens": 700,
            "cache_read_input_tokens": 19000,
            "output_tokens": 510,
        },
        Usage(2679, 19000, 244, 456, 510),
    ),
    "DashScope tells its cache at the end alone": (
        {"input_tokens": 3602, "output_tokens": 0},
        {
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 3584,
            "prompt_tokens_details": {"cached_tokens": 3584},
            "output_tokens": 878,
        },
        Usage(18, 3584, output=878),
    ),
    "a server states zeros at the end": (
        {"input_tokens": 50, "cache_read_input_tokens": 100, "output_tokens": 1},
        {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 9},
        Usage(50, 100, output=9),
    ),
}


@pytest.mark.parametrize(("first", "last", "expected"), USAGES.values(), ids=USAGES)
@pytest.mark.parametrize("known", [True, False])
def test_a_stream_s_usage_is_its_fullest_statement(
    first: dict[str, Any],
    last: dict[str, Any],
    expected: Usage,
    known: bool,
) -> None:
    start = {"type": "message_start", "message": {**document(stop=None), "usage": first}}
    said = SAID if known else [*SAID[:2], MURMUR, SAID[2]]
    answer = API.read_stream(stream(start, *said, {**SETTLED, "usage": last}, STOP), MESSAGES)
    assert expected == answer.usage
    assert known is (Form.BODY in answer.forms)


STREAMS = {
    "cut off": (stream(START, *SAID, SETTLED), Finish.INCOMPLETE),
    "cut off within its last event": (stream(START, *SAID, SETTLED, STOP)[:-1], Finish.INCOMPLETE),
    "nothing": (b"", Finish.INCOMPLETE),
    "an error event": (
        stream(START, *SAID, {"type": "error", "error": {"type": "overloaded_error"}}),
        Finish.ERROR,
    ),
    "an error by its name alone": (
        stream(START, *SAID) + b"event: error\ndata: {}\n\n" + stream(STOP),
        Finish.ERROR,
    ),
    "an event that is no object": (b"event: x\ndata: 1\n\n" + stream(STOP), Finish.UNKNOWN),
    "no blocks": (stream(START, SETTLED, STOP), Finish.EMPTY),
    "a refusal": (
        stream(START, {**SETTLED, "delta": {"stop_reason": "refusal"}}, STOP),
        Finish.REFUSED,
    ),
}


@pytest.mark.parametrize(("events", "finish"), STREAMS.values(), ids=STREAMS)
def test_the_finish_of_a_stream(events: bytes, finish: Finish) -> None:
    assert finish is API.read_stream(events, MESSAGES).finish


def test_a_stream_with_a_delta_that_we_do_not_know_is_only_a_stream() -> None:
    answer = API.read_stream(stream(START, SAID[0], MURMUR, SAID[2], SETTLED, STOP), MESSAGES)
    assert frozenset({Form.STREAM}) == answer.forms
    assert Finish.EMPTY is answer.finish
    answer = API.read_stream(stream(START, *SAID[:2], MURMUR, SAID[2], SETTLED, STOP), MESSAGES)
    assert frozenset({Form.STREAM}) == answer.forms
    assert Finish.COMPLETE is answer.finish
    assert Usage(uncached_input=7, output=9) == answer.usage
    assert answer.finish_reasons == ("end_turn",)
    assert answer.response_id == "msg_01XFDUDYJgAACzvnptvVoYEL"


def test_a_stream_with_a_block_that_we_do_not_know_is_only_a_stream_that_says_something() -> None:
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "hologram"}}
    answer = API.read_stream(stream(START, block, SAID[2], SETTLED, STOP), MESSAGES)
    assert frozenset({Form.STREAM}) == answer.forms
    assert Finish.COMPLETE is answer.finish


def test_an_answer_without_usage_is_not_offered_in_the_other_form() -> None:
    message = document(text())
    del message["usage"]
    assert frozenset({Form.BODY}) == judge(message).forms
    start = {"type": "message_start", "message": {**message, "content": []}}
    settled = {"type": "message_delta", "delta": {}}
    answer = API.read_stream(stream(start, *SAID, settled, STOP), MESSAGES)
    assert frozenset({Form.STREAM}) == answer.forms


def test_a_message_with_a_block_that_we_do_not_know_is_only_a_message() -> None:
    assert frozenset({Form.BODY}) == judge(document({"type": "hologram"}, text())).forms


WORDS = st.sampled_from(
    [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop", "message", "text", "thinking", "tool_use", "ping"),
        *("text_delta", "input_json_delta", "signature_delta", "citations_delta", "end_turn", "{"),
    ]
)
NAMES = st.sampled_from(
    [
        *("type", "message", "index", "content_block", "delta", "content", "usage", "id"),
        *("text", "partial_json", "signature", "citation", "input", "stop_reason", "error"),
        *("input_tokens", "output_tokens", "cache_creation", "citations"),
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats(0, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=16,
)
EVENT = st.fixed_dictionaries({"type": WORDS}, optional={"index": st.just(0), "delta": ANYTHING})


@given(ANYTHING)
def test_no_document_makes_a_judge_raise(value: Any) -> None:
    assert judge(value).recorded is Form.BODY


@given(st.lists(EVENT | ANYTHING, max_size=6))
def test_no_stream_makes_a_judge_raise(events: list[Any]) -> None:
    raw = b"".join(sse.write(orjson.dumps(event)) for event in [START, *SAID[:1], *events, STOP])
    answer = API.read_stream(raw, MESSAGES)
    assert answer.recorded is Form.STREAM
    if BOTH == answer.forms:
        kept = entry(recorded=Form.STREAM, forms=answer.forms, payload=raw)
        assert served(kept, Form.BODY)


# --- serving ----------------------------------------------------------------------------------


def stored(answer: Answer) -> Entry:
    assert Finish.COMPLETE is answer.finish
    return entry(
        api=API.name,
        recorded=answer.recorded,
        forms=answer.forms,
        payload=answer.payload,
        model=answer.model,
        response_id=answer.response_id,
        usage=answer.usage,
        has_stream_usage=answer.has_stream_usage,
    )


def served(kept: Entry, form: Form, history: frozenset[str] = frozenset()) -> bytes:
    asked = Ask(form=form, model="m", history_ids=history)
    assert API.can_serve(kept, asked)
    return API.serve(kept, asked, Mint(now_s=1, seed=b"seed"), MESSAGES)


def parsed(answer: bytes, form: Form) -> Message:
    """What a program gets that uses the official SDK."""
    kind = "application/json" if form is Form.BODY else "text/event-stream; charset=utf-8"
    reply = httpx2.Response(200, content=answer, headers={"content-type": kind})
    transport = httpx2.MockTransport(lambda _: reply)
    asked: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    with anthropic.Anthropic(
        api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport)
    ) as client:
        if form is Form.BODY:
            return client.messages.create(**asked)  # type: ignore[no-any-return]
        with client.messages.stream(**asked) as events:
            final = events.get_final_message()
    return Message.model_validate(final.to_dict(mode="json"))


def anonymous(message: Message) -> Message:
    assert message.id.startswith("msg_")
    return message.model_copy(update={"id": "msg_"})


TOOLS = [
    {
        "name": "weather",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
    {"name": "now", "input_schema": {"type": "object", "properties": {}}},
]
QUESTIONS: dict[str, dict[str, Any]] = {
    "text": {},
    "calls": {"messages": [{"role": "user", "content": "two weather"}], "tools": TOOLS},
    "a call without arguments": {
        "messages": [{"role": "user", "content": "now weather"}],
        "tools": TOOLS,
    },
    "thoughts": {"thinking": {"type": "adaptive"}},
    "thoughts that are not shown": {"thinking": {"type": "adaptive", "display": "omitted"}},
    "a stop sequence": {"stop_sequences": ["(", "lagoon"]},
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("recorded", Form)
@pytest.mark.parametrize("asked", Form)
def test_a_program_gets_equal_objects_from_a_miss_and_a_hit(
    question: dict[str, Any], recorded: Form, asked: Form
) -> None:
    body: dict[str, Any] = {
        "model": "claude-opus-5",
        "max_tokens": 500,
        "messages": [{"role": "user", "content": "Tell me *everything* about café ☕"}],
        "stream": recorded is Form.STREAM,
        **question,
    }
    reply = stub_anthropic.messages(body, "req_1")
    original = b"".join(reply.events) if recorded is Form.STREAM else reply.body
    judged = (
        API.read_stream(original, MESSAGES)
        if recorded is Form.STREAM
        else API.read_body(original, MESSAGES)
    )
    assert BOTH == judged.forms
    missed = parsed(original, recorded)
    hit = parsed(served(stored(judged), asked), asked)
    assert missed.id != hit.id
    assert anonymous(missed) == anonymous(hit)


RICH = document(
    {
        "type": "text",
        "text": "Grass is green.",
        "citations": [
            {
                "type": "char_location",
                "cited_text": "green",
                "document_index": 0,
                "document_title": None,
                "start_char_index": 0,
                "end_char_index": 5,
                "file_id": None,
            }
        ],
    },
    {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    text("And so on."),
    stop_details=None,
    container=None,
)


@pytest.mark.parametrize("asked", Form)
def test_citations_and_redacted_thoughts_survive_both_forms(asked: Form) -> None:
    raw = orjson.dumps(RICH)
    hit = parsed(served(stored(API.read_body(raw, MESSAGES)), asked), asked)
    assert anonymous(parsed(raw, Form.BODY)) == anonymous(hit)


CALL = {"type": "tool_use", "id": "toolu_01A09q90qw90lq917835lq9", "name": "f", "input": {"x": 1}}
OTHER = {**CALL, "id": "toolu_01B09q90qw90lq917835lq9"}


@pytest.mark.parametrize("asked", Form)
@pytest.mark.parametrize("recorded", Form)
def test_a_call_id_that_the_request_has_already_is_replaced_and_no_other(
    recorded: Form, asked: Form
) -> None:
    kept = stored(judge(document(CALL, OTHER, stop="tool_use")))
    if recorded is Form.STREAM:
        kept = stored(API.read_stream(served(kept, Form.STREAM), MESSAGES))
    clash = frozenset({str(CALL["id"]), "toolu_of_another_turn"})
    content = parsed(served(kept, asked, clash), asked).content
    first, second = [block.id for block in content if block.type == "tool_use"]
    assert OTHER["id"] == second
    assert first not in {CALL["id"], OTHER["id"]}
    assert len(str(CALL["id"])) == len(first)
    assert first.startswith("toolu_")


def test_without_a_clash_call_ids_are_the_original_s() -> None:
    kept = stored(judge(document(CALL, stop="tool_use")))
    answer = orjson.loads(served(kept, Form.BODY, frozenset({"toolu_of_another_turn"})))
    assert [CALL] == answer["content"]


def test_a_recorded_stream_is_replayed_event_by_event_with_a_fresh_message_id() -> None:
    events = [START, {"type": "ping"}, *SAID, MURMUR, SETTLED, {"type": "ping"}, STOP]
    kept = stored(API.read_stream(stream(*events), MESSAGES))
    replayed = sse.parse(served(kept, Form.STREAM))
    assert [event["type"] for event in events] == [name for name, _ in replayed]
    first: Any = orjson.loads(replayed[0].data)
    fresh = first["message"]["id"]
    assert START["message"]["id"] != fresh
    assert len(fresh) == len("msg_01XFDUDYJgAACzvnptvVoYEL")
    first["message"]["id"] = "msg_01XFDUDYJgAACzvnptvVoYEL"
    assert events == [first, *(orjson.loads(data) for _, data in replayed[1:])]


def test_a_recorded_message_is_replayed_as_it_was_spelled() -> None:
    raw = (
        b'{"usage":{"output_tokens":9,"input_tokens":7},"content":[{"text":"\\u00e9","type":"text"}'
        b',{"type":"tool_use","id":"t","name":"f","input":{"b":1.0,"a":1e3}}],"id":"msg_",'
        b'"type":"message","role":"assistant","model":"m","stop_reason":"end_turn","x":0.10}'
    )
    kept = stored(API.read_body(raw, MESSAGES))
    again = served(kept, Form.BODY)
    assert b'"input":{"b":1.0,"a":1e3}' in again
    assert b'"x":0.10' in again
    assert list(orjson.loads(raw)) == list(orjson.loads(again))


def test_an_entry_is_not_served_in_a_form_that_would_lose_something() -> None:
    kept = stored(judge(document({"type": "hologram"}, text())))
    assert API.can_serve(kept, Ask(form=Form.BODY, model="m"))
    assert not API.can_serve(kept, Ask(form=Form.STREAM, model="m"))
