"""Anthropic Messages: answers. Read and judge them, and turn one form into the other.

Rule 1: a form is offered only if it was proven here that it loses nothing: a stream is offered as
a message if every event merged, a message as a stream if its events merge back into it.
Rule 2: numbers, member order and unknown members of the original stay as they were spelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core import canonical, sse, usage
from gateway.core.model import Answer, Finish, Form
from gateway.wire import envelope, lenient
from gateway.wire.anthropic_messages_stream import merge, split, splits_cleanly
from gateway.wire.base import Unmergeable
from gateway.wire.plain_answers import is_plain_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.canonical import Json
    from gateway.core.mint import Mint
    from gateway.core.model import Ask, Entry
    from gateway.wire.envelope import Object

_FINISHES = {
    "end_turn": Finish.COMPLETE,
    "tool_use": Finish.COMPLETE,
    "stop_sequence": Finish.COMPLETE,
    "max_tokens": Finish.TRUNCATED,
    "model_context_window_exceeded": Finish.TRUNCATED,
    "refusal": Finish.REFUSED,
    "pause_turn": Finish.PAUSED,
}


def read_body(document: bytes) -> Answer:
    """Judge a whole JSON answer. Never raises."""
    try:
        message = canonical.parse(document)
    except canonical.Uncacheable:
        return Answer(Form.BODY, document, Finish.UNKNOWN)
    if not isinstance(message, dict):
        return Answer(Form.BODY, document, Finish.UNKNOWN)
    convertible = is_plain_message(message) or splits_cleanly(message)
    return _judged(message, Form.BODY, document, [message.get("usage")], convertible=convertible)


def read_stream(text: bytes) -> Answer:
    """Judge a whole recorded SSE text. Never raises."""
    try:
        named = _events(text)
    except (canonical.Uncacheable, UnicodeDecodeError, Unmergeable):
        return Answer(Form.STREAM, text, Finish.UNKNOWN)
    events = [event for _, event in named]
    if any(name == "error" or event.get("type") == "error" for name, event in named):
        return Answer(Form.STREAM, text, Finish.ERROR)
    if not any(event.get("type") == "message_stop" for event in events):
        return Answer(Form.STREAM, text, Finish.INCOMPLETE)
    stated = list(_statements(events))
    try:
        message = merge(events)
    except Unmergeable:
        return _judged(_skeleton(events), Form.STREAM, text, stated, convertible=False)
    return _judged(message, Form.STREAM, text, stated, convertible=True)


def _statements(events: list[Object]) -> Iterator[Json]:
    """Every usage that a stream states, in order."""
    for event in events:
        for stated in (lenient.members(event.get("message")).get("usage"), event.get("usage")):
            if stated is not None:
                yield stated


# What a price may depend on: the tier, where it was computed, how fast.
_TERMS = ("service_tier", "inference_geo", "speed")


def _judged(
    message: Object, recorded: Form, payload: bytes, stated: list[Json], *, convertible: bool
) -> Answer:
    spent = usage.from_anthropic(*map(canonical.plain, stated))
    told: Object = {}
    for each in stated:
        told.update({k: v for k, v in lenient.members(each).items() if v is not None})
    # Both forms state their usage: the SDKs' accumulators count on it.
    both = convertible and spent is not None
    reason = lenient.text(message.get("stop_reason"))
    return Answer(
        recorded,
        payload,
        finish=_finish(message, reason),
        forms=frozenset(Form) if both else frozenset({recorded}),
        finish_reasons=(reason,),
        usage=spent,
        model=lenient.text(message.get("model")),
        response_id=lenient.text(message.get("id")),
        has_stream_usage=spent is not None,
        terms=lenient.texts(told, *_TERMS),
    )


def _finish(message: Object, reason: str) -> Finish:
    if message.get("type") == "error" or message.get("error") is not None:
        return Finish.ERROR
    content = message.get("content")
    if not isinstance(content, list):
        return Finish.UNKNOWN
    finish = _FINISHES.get(reason, Finish.UNKNOWN)
    if finish in {Finish.REFUSED, Finish.PAUSED} or any(map(_says, lenient.objects(content))):
        return finish
    return Finish.EMPTY


def _says(block: Object) -> bool:
    """Does the block tell the client something? Thoughts alone are no answer."""
    kind = lenient.text(block.get("type"))
    if kind == "text":
        return lenient.says(block.get("text"))
    return kind not in {"thinking", "redacted_thinking"}


def _events(text: bytes) -> list[tuple[str, Object]]:
    events: list[tuple[str, Object]] = []
    for name, data in sse.events(text):
        event = canonical.parse(data)
        if not isinstance(event, dict):
            raise Unmergeable("an event is no object")
        events.append((name, event))
    return events


def _skeleton(events: list[Object]) -> Object:
    """What can be said of an unmergeable stream: enough to judge it, not to serve it otherwise."""
    seen: Object = {}
    content: list[Object] = []
    for event in events:
        start = lenient.members(event.get("message"))
        delta = lenient.members(event.get("delta"))
        seen.update({k: v for k, v in (start | delta).items() if v is not None})
        if isinstance(block := event.get("content_block"), dict):
            content.append(block)
        elif delta.get("text"):
            content.append({"type": "text", "text": delta["text"]})
    return {**seen, "content": list(content)}


# --- serving ----------------------------------------------------------------------------------


def serve(entry: Entry, ask: Ask, mint: Mint) -> bytes:
    """See `WireApi.serve`."""
    if entry.recorded is Form.STREAM:
        events = _events(entry.payload)
        if ask.form is Form.STREAM:
            return _written(_fresh_events(events, ask, mint))
        return canonical.encode(_fresh(merge([event for _, event in events]), ask, mint))
    message = canonical.parse(entry.payload)
    assert isinstance(message, dict)  # it was read before it was stored
    message = _fresh(message, ask, mint)
    if ask.form is Form.BODY:
        return canonical.encode(message)
    return _written([(lenient.text(event.get("type")), event) for event in split(message)])


def _written(events: list[tuple[str, Object]]) -> bytes:
    return b"".join(sse.write(canonical.encode(event), name) for name, event in events)


def _fresh(message: Object, ask: Ask, mint: Mint) -> Object:
    """The message as if it had been made now, for this request."""
    envelope.replace_ids(_calls(lenient.objects(message.get("content"))), ask.history_ids, mint)
    if given := lenient.text(message.get("id")):
        message["id"] = mint.like(given)
    return message


def _fresh_events(
    events: list[tuple[str, Object]], ask: Ask, mint: Mint
) -> list[tuple[str, Object]]:
    blocks = [lenient.members(event.get("content_block")) for _, event in events]
    envelope.replace_ids(_calls(blocks), ask.history_ids, mint)
    for _, event in events:
        message = lenient.members(event.get("message"))
        if given := lenient.text(message.get("id")):
            message["id"] = mint.like(given)
    return events


def _calls(blocks: list[Object]) -> list[Object]:
    # Ids of server tools stay: their results refer to them, and no request that may be
    # answered from the cache has such tools.
    return [block for block in blocks if block.get("type") == "tool_use"]
