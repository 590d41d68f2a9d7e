"""Anthropic Messages: events into a message, and a message into events.

Rule 1: what can't be merged without loss is `Unmergeable`; nothing is dropped in silence.
Rule 2: a message is only split in ways that `merge` was seen to undo (`splits_cleanly`).
Rule 3: where the streaming page leaves a question open, the official SDK's accumulator answers it:
usage is cumulative (stated again, it replaces), a tool's input is the JSON of its joined pieces.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.core import canonical
from gateway.wire import lenient
from gateway.wire.base import Unmergeable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.canonical import Json
    from gateway.wire.envelope import Object


# Blocks that come in pieces: by type of block, the type of delta and the member that it fills.
_INPUT = {"input_json_delta": "partial_json"}
_PIECES = {
    "text": {"text_delta": "text", "citations_delta": "citation"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "tool_use": _INPUT,
    "server_tool_use": _INPUT,
    "mcp_tool_use": _INPUT,
}
# Blocks that come whole in their `content_block_start`.
_WHOLE = re.compile(r"redacted_thinking|container_upload|[a-z_]+_tool_result")
# Documented as "a deliberately lossy display hint" of a stream; a message has no place for it.
_HINTS = frozenset({"estimated_tokens"})
# What `message_delta` may say of the message, in its delta or (betas) beside it.
_LATE = frozenset({"stop_reason", "stop_sequence", "stop_details", "container"})
_REPLACED = frozenset({"context_management", "input_transformations"})


def merge(events: list[Object]) -> Object:
    """The message that says what the events say. Raises `Unmergeable`."""
    merging = _Merging()
    for event in events:
        merging.take(event)
    return merging.message()


class _Merging:
    """The message so far. At most one block is open: blocks come one after the other."""

    def __init__(self) -> None:
        self._message: Object | None = None
        self._content: list[Json] = []
        self._open: Object | None = None
        self._pieces: dict[str, list[str]] = {}

    def message(self) -> Object:
        if self._message is None:
            raise Unmergeable("there is no message_start")
        if self._open is not None:
            raise Unmergeable("a block has no content_block_stop")
        self._message["content"] = self._content
        return self._message

    def take(self, event: Object) -> None:
        kind = event.get("type")
        if kind == "ping":
            return
        if kind == "message_start":
            _refuse_others(event, {"type", "message"}, "message_start")
            self._begin(event.get("message"))
        elif self._message is None:
            raise Unmergeable("the stream doesn't begin with message_start")
        elif kind == "content_block_start":
            _refuse_others(event, {"type", "index", "content_block"}, "content_block_start")
            self._open_block(event.get("index"), event.get("content_block"))
        elif kind == "content_block_delta":
            _refuse_others(event, {"type", "index", "delta"}, "content_block_delta")
            self._fill_block(self._opened(event), lenient.members(event.get("delta")))
        elif kind == "content_block_stop":
            _refuse_others(event, {"type", "index"}, "content_block_stop")
            self._close_block(self._opened(event))
        elif kind == "message_delta":
            _refuse_others(event, {"type", "delta", "usage", *_REPLACED}, "message_delta")
            self._settle(event)
        elif kind == "message_stop":
            _refuse_others(event, {"type"}, "message_stop")
        else:
            raise Unmergeable(f"event {kind!r} is not known")

    def _begin(self, message: Json) -> None:
        if self._message is not None:
            raise Unmergeable("a second message_start")
        if not isinstance(message, dict) or message.get("type") != "message":
            raise Unmergeable("message_start has no message")
        if lenient.says(message.get("content")):
            raise Unmergeable("message_start has content already")
        self._message = dict(message)

    def _open_block(self, index: Json, block: Json) -> None:
        if self._open is not None or lenient.index(index) != len(self._content):
            raise Unmergeable("blocks out of order")
        kind = lenient.text(block.get("type")) if isinstance(block, dict) else ""
        if not isinstance(block, dict) or not (kind in _PIECES or _WHOLE.fullmatch(kind)):
            raise Unmergeable(f"block {kind!r} is not known")
        self._open = dict(block)
        self._content.append(self._open)
        self._pieces = {}

    def _opened(self, event: Object) -> Object:
        if self._open is None or lenient.index(event.get("index")) != len(self._content) - 1:
            raise Unmergeable("an event for a block that is not open")
        return self._open

    def _fill_block(self, block: Object, delta: Object) -> None:
        kind = lenient.text(delta.get("type"))
        member = _PIECES.get(lenient.text(block["type"]), {}).get(kind)
        if member is None:
            raise Unmergeable(f"delta {kind!r} of block {block['type']!r} is not known")
        _refuse_others(delta, {"type", member, *_HINTS}, kind)
        piece = delta.get(member)
        if member == "citation":
            citations = block.get("citations")
            block["citations"] = [*(citations if isinstance(citations, list) else ()), piece]
        elif isinstance(piece, str):
            self._pieces.setdefault(member, []).append(piece)
        else:
            raise Unmergeable(f"{kind}.{member} is no string")

    def _close_block(self, block: Object) -> None:
        for member, pieces in self._pieces.items():
            joined = "".join(pieces)
            if member == "partial_json":
                if joined:
                    block["input"] = _parsed(block, joined)
            elif member == "signature" and (lenient.says(block.get(member)) or len(pieces) > 1):
                # The SDK keeps the last, others may join them: don't guess at a signature.
                raise Unmergeable("a signature in pieces")
            else:
                block[member] = lenient.text(block.get(member)) + joined
        self._open = None

    def _settle(self, event: Object) -> None:
        message = self._message
        assert message is not None
        delta = lenient.members(event.get("delta"))
        _refuse_others(delta, _LATE, "message_delta.delta")
        for name, value in delta.items():
            before = message.get(name)
            if before is not None and not canonical.same(value, before):
                raise Unmergeable(f"{name} changes within the stream")
            message[name] = value
        for name in _REPLACED:
            if event.get(name) is not None:
                message[name] = event[name]
        usage = dict(lenient.members(message.get("usage")))
        stated = lenient.members(event.get("usage"))
        usage.update({name: value for name, value in stated.items() if value is not None})
        message["usage"] = usage


def _refuse_others(owner: Object, known: set[str] | frozenset[str], where: str) -> None:
    others = [name for name, value in owner.items() if value is not None and name not in known]
    if others:
        raise Unmergeable(f"{where}.{others[0]} is not known")


def _parsed(block: Object, text: str) -> Object:
    if lenient.says(block.get("input")):
        raise Unmergeable("an input that is stated whole and in pieces")
    try:
        value = canonical.parse(text.encode())
    except canonical.Uncacheable as error:
        raise Unmergeable(f"an input that is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise Unmergeable("an input that is no object")
    return value


# About as much text, and as much JSON, as the provider sends in one delta.
_WORDS = re.compile(r"(?:\S*\s+){1,4}|\S+")
_JSON = re.compile(r".{1,24}", re.DOTALL)
# What `message_delta.usage` may state; all else is known when the message starts.
_CUMULATIVE = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
    "iterations",
    "fallback_credit",
)


def split(message: Object) -> Iterator[Object]:
    """The message as the events of a stream, from `message_start` to `message_stop`.

    What is not known goes whole into a start event; `splits_cleanly` tells whether that holds.
    """
    usage = lenient.members(message.get("usage"))
    start: Object = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    start.update({name: None for name in ("stop_details", "container") if name in message})
    start["usage"] = _first_usage(usage)
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(lenient.items(message.get("content"))):
        number: Json = index
        opened, deltas = _split_block(lenient.members(block))
        yield {"type": "content_block_start", "index": number, "content_block": opened}
        if index == 0:
            yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": number, "delta": delta}
        yield {"type": "content_block_stop", "index": number}
    late: Object = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    if "stop_details" in message:
        late["stop_details"] = message["stop_details"]
    if message.get("container") is not None:
        late["container"] = message["container"]
    beside = {name: message[name] for name in sorted(_REPLACED) if message.get(name) is not None}
    spent: Object = {name: usage[name] for name in _CUMULATIVE if usage.get(name) is not None}
    yield {"type": "message_delta", "delta": late, "usage": spent, **beside}
    yield {"type": "message_stop"}


def _first_usage(usage: Object) -> Object:
    """Usage as it stood before the answer: the prompt is counted, one token is out."""
    first = dict(usage)
    if lenient.index(usage.get("output_tokens")):
        first["output_tokens"] = 1
    if "output_tokens_details" in usage:
        first["output_tokens_details"] = None
    return first


def _split_block(block: Object) -> tuple[Object, list[Object]]:
    """The block as `content_block_start` shows it, and the deltas that fill it."""
    kind = lenient.text(block.get("type"))
    opened = dict(block)
    deltas: list[Object] = []

    def say(delta: str, member: str, pieces: list[str]) -> None:
        deltas.extend({"type": delta, member: piece} for piece in pieces)

    if kind == "text" and isinstance(block.get("text"), str):
        opened["text"] = ""
        say("text_delta", "text", _WORDS.findall(lenient.text(block["text"])))
        if citations := lenient.items(block.get("citations")):
            opened["citations"] = []
            deltas.extend({"type": "citations_delta", "citation": each} for each in citations)
    elif kind == "thinking" and isinstance(block.get("thinking"), str):
        opened["thinking"] = ""
        say("thinking_delta", "thinking", _WORDS.findall(lenient.text(block["thinking"])))
        if signature := lenient.text(block.get("signature")):
            opened["signature"] = ""
            say("signature_delta", "signature", [signature])
    elif kind.endswith("tool_use") and isinstance(block.get("input"), dict):
        opened["input"] = {}
        text = canonical.encode(block["input"]).decode() if block["input"] else ""
        say("input_json_delta", "partial_json", ["", *_JSON.findall(text)])
    return opened, deltas


def splits_cleanly(message: Object) -> bool:
    """Do the message's events merge back into it, with nothing lost or added?"""
    try:
        merged = merge(list(split(message)))
    except Unmergeable:
        return False
    return canonical.same(_stated(merged), _stated(message))


def _stated(message: Object) -> Object:
    """The message without top-level members that say nothing: a stream states them as null."""
    return {name: value for name, value in message.items() if value is not None}
