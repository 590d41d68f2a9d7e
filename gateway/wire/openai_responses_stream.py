"""OpenAI Responses: events into a response, and a response into events.

Rule 1: the last event holds the whole response; it is believed if all that was said before agrees
with it, else it is `Unmergeable`. Events that aren't known say nothing that it doesn't hold.
Rule 2: a response is only split where every item and part of it is of a kind that is documented to
come in pieces; anything else is `Unmergeable` too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.core.canonical import same
from gateway.wire import lenient
from gateway.wire.base import Unmergeable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.canonical import Json
    from gateway.wire.envelope import Object


TERMINAL = ("response.completed", "response.incomplete", "response.failed")
"""The types of the events that end a stream."""

# Where the pieces of a text belong: the list in the item with the event's index into it (none for
# a member of the item itself), and the member that they fill.
_PIECES = {
    "response.output_text.delta": ("content", "content_index", "text"),
    "response.refusal.delta": ("content", "content_index", "refusal"),
    "response.reasoning_text.delta": ("content", "content_index", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_index", "text"),
    "response.function_call_arguments.delta": ("", "", "arguments"),
    "response.custom_tool_call_input.delta": ("", "", "input"),
}
_Place = tuple[int, str, int, str]


def merge(events: list[Object]) -> Object:
    """The response that the events say. Raises `Unmergeable`."""
    last = events[-1] if events else {}
    if last.get("type") not in TERMINAL or not isinstance(last.get("response"), dict):
        raise Unmergeable("the stream doesn't end with a response")
    response = dict(lenient.members(last["response"]))
    if not lenient.text(response.get("id")):
        raise Unmergeable("the response has no id")
    if response.get("output") is None:
        # Some servers leave out what they have said item by item.
        response["output"] = _items_done(events)
    _check_agreement(events, response)
    return response


def _items_done(events: list[Object]) -> list[Json]:
    done: dict[int, Json] = {}
    for event in events:
        if event.get("type") == "response.output_item.done":
            done[_index(event, "output_index")] = event.get("item")
    if sorted(done) != list(range(len(done))):
        raise Unmergeable("an item was never done")
    return [done[index] for index in sorted(done)]


def _check_agreement(events: list[Object], response: Object) -> None:
    """Does all that the events say before the last one agree with the response?"""
    said: dict[_Place, list[str]] = {}
    for event in events:
        kind = lenient.text(event.get("type"))
        if kind in _PIECES:
            holder, index_name, member = _PIECES[kind]
            index = _index(event, index_name) if holder else 0
            place = (_index(event, "output_index"), holder, index, member)
            said.setdefault(place, []).append(_text(event, "delta"))
        elif kind in {"response.output_item.added", "response.output_item.done"}:
            _check_item(event, response)
        elif kind == "response.output_text.annotation.added":
            _check_annotation(event, response)
        elif lenient.members(event.get("response")).get("id", response["id"]) != response["id"]:
            raise Unmergeable("the response's id changes within the stream")
    for (output_index, holder, index, member), pieces in said.items():
        owner = _item_at(response, output_index)
        if holder:
            owner = _member_at(owner, holder, index)
        if owner.get(member) != "".join(pieces):
            raise Unmergeable(f"the pieces of {member} differ from the whole")


def _check_item(event: Object, response: Object) -> None:
    item = event.get("item")
    if not isinstance(item, dict):
        return  # an SDK passes over it as well
    final = _item_at(response, _index(event, "output_index"))
    if not all(same(item.get(name), final.get(name)) for name in ("type", "id", "call_id")):
        raise Unmergeable("an item changes its type or id within the stream")


def _check_annotation(event: Object, response: Object) -> None:
    item = _item_at(response, _index(event, "output_index"))
    part = _member_at(item, "content", _index(event, "content_index"))
    final = _member_at(part, "annotations", _index(event, "annotation_index"))
    if not same(final, event.get("annotation")):
        raise Unmergeable("an annotation differs")


def _item_at(response: Object, index: int) -> Object:
    return _member_at(response, "output", index)


def _member_at(owner: Object, holder: str, index: int) -> Object:
    members = lenient.items(owner.get(holder))
    if index >= len(members) or not isinstance(found := members[index], dict):
        raise Unmergeable(f"there is no {holder}[{index}]")
    return found


def _index(event: Object, name: str) -> int:
    index = lenient.index(event.get(name))
    if index is None:
        raise Unmergeable(f"{event.get('type')} has no {name}")
    return index


def _text(owner: Object, name: str) -> str:
    value = owner.get(name)
    if not isinstance(value, str):
        raise Unmergeable(f"{name} is no text")
    return value


# --- a response as events ---------------------------------------------------------------------

# About as much text, and as much JSON, as the provider sends in one delta.
_WORDS = re.compile(r"(?:\S*\s+){1,4}|\S+")
_JSON = re.compile(r".{1,24}", re.DOTALL)
_LAST = {status: f"response.{status}" for status in ("completed", "incomplete", "failed")}
# Known only when the response is whole: null before.
_LATE = (
    *("completed_at", "error", "incomplete_details", "usage"),
    *("moderation", "tool_usage", "prompt_cache_diagnostics"),
)


def split(response: Object) -> Iterator[Object]:
    """The response as the events of a stream, from `response.created` to its last. Raises
    `Unmergeable` where a part of it has no documented form in a stream.
    """
    for number, event in enumerate(_split(response)):
        yield {"type": event["type"], "sequence_number": number, **event}


def _split(response: Object) -> Iterator[Object]:
    last = _LAST.get(lenient.text(response.get("status")))
    if last is None or not isinstance(output := response.get("output"), list):
        raise Unmergeable("the response has not ended")
    begun: Object = {**response, "status": "in_progress", "output": []}
    begun.update({name: None for name in _LATE if name in response})
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(output):
        yield from _split_item(lenient.members(item), index)
    yield {"type": last, "response": response}


def _split_item(item: Object, index: int) -> Iterator[Object]:
    kind = item.get("type")
    begun = {**item, "status": "in_progress"} if item.get("status") is not None else dict(item)
    where: Object = {"item_id": _text(item, "id"), "output_index": index}
    pieces: Iterator[Object]
    if kind == "message":
        begun["content"] = []
        pieces = _split_parts(item, where)
    elif kind == "reasoning":
        begun.update({name: [] for name in ("summary", "content") if item.get(name) is not None})
        pieces = _split_reasoning(item, where)
    elif kind == "function_call":
        begun["arguments"] = ""
        whole = _text(item, "arguments")
        pieces = _split_call("response.function_call_arguments", "arguments", whole, where)
    elif kind == "custom_tool_call":
        begun["input"] = ""
        whole = _text(item, "input")
        pieces = _split_call("response.custom_tool_call_input", "input", whole, where)
    else:
        raise Unmergeable(f"items of type {kind!r} are not known to come in pieces")
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    yield from pieces
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _split_call(event: str, member: str, whole: str, where: Object) -> Iterator[Object]:
    for piece in _JSON.findall(whole):
        yield {"type": f"{event}.delta", **where, "delta": piece}
    yield {"type": f"{event}.done", **where, member: whole}


def _split_parts(item: Object, where: Object) -> Iterator[Object]:
    """The parts of a message, or of reasoning that is told in full."""
    content = item.get("content")
    if not isinstance(content, list):
        raise Unmergeable("the content is no list")
    for index, part in enumerate(lenient.members(each) for each in content):
        at: Object = {**where, "content_index": index}
        opened, pieces = _split_part(item.get("type"), part, at)
        yield {"type": "response.content_part.added", **at, "part": opened}
        yield from pieces
        yield {"type": "response.content_part.done", **at, "part": part}


def _split_part(kind: Json, part: Object, at: Object) -> tuple[Object, list[Object]]:
    """The part as it begins, and the events that fill it."""
    match kind, part.get("type"):
        case "message", "output_text":
            opened = {**part, "text": ""}
            opened.update({n: [] for n in ("annotations", "logprobs") if part.get(n) is not None})
            return opened, list(_split_text(part, at))
        case "message", "refusal":
            event, member = "response.refusal", "refusal"
        case "reasoning", "reasoning_text":
            event, member = "response.reasoning_text", "text"
        case _:
            raise Unmergeable(f"parts of type {part.get('type')!r} are not known here")
    return {**part, member: ""}, list(_split_words(event, member, _text(part, member), at))


def _split_words(event: str, member: str, whole: str, at: Object) -> Iterator[Object]:
    for words in _WORDS.findall(whole):
        yield {"type": f"{event}.delta", **at, "delta": words}
    yield {"type": f"{event}.done", **at, member: whole}


def _split_text(part: Object, at: Object) -> Iterator[Object]:
    whole = _text(part, "text")
    logprobs = lenient.items(part.get("logprobs"))
    tokens = [lenient.text(lenient.members(each).get("token")) for each in logprobs]
    pieces: list[tuple[str, list[Json]]]
    if not logprobs:
        pieces = [(words, []) for words in _WORDS.findall(whole)]
    elif "".join(tokens) == whole:
        pieces = [(token, [each]) for token, each in zip(tokens, logprobs, strict=True)]
    else:
        # Tokens that are parts of a character: their text is only known together.
        pieces = [(whole, list(logprobs))]
    for text, probabilities in pieces:
        yield {
            "type": "response.output_text.delta",
            **at,
            "delta": text,
            "logprobs": list(probabilities),
        }
    for index, annotation in enumerate(lenient.items(part.get("annotations"))):
        yield {
            "type": "response.output_text.annotation.added",
            **at,
            "annotation_index": index,
            "annotation": annotation,
        }
    yield {
        "type": "response.output_text.done",
        **at,
        "text": whole,
        "logprobs": list(logprobs),
    }


def _split_reasoning(item: Object, where: Object) -> Iterator[Object]:
    for index, part in enumerate(map(lenient.members, lenient.items(item.get("summary")))):
        if part.get("type") != "summary_text":
            raise Unmergeable("a summary that is no text")
        at: Object = {**where, "summary_index": index}
        opened = {**part, "text": ""}
        yield {"type": "response.reasoning_summary_part.added", **at, "part": opened}
        yield from _split_words("response.reasoning_summary_text", "text", _text(part, "text"), at)
        yield {"type": "response.reasoning_summary_part.done", **at, "part": part}
    if item.get("content") is not None:
        yield from _split_parts(item, where)


def splits_cleanly(response: Object) -> bool:
    """Do the response's events say it, and nothing else?"""
    try:
        return same(merge(list(split(response))), response)
    except Unmergeable:
        return False
