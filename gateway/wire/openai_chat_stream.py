"""OpenAI Chat Completions: chunks into a document, and a document into chunks.

A document is only split in ways that `merge` was seen to undo (`splits_cleanly`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core import canonical
from gateway.wire import lenient
from gateway.wire.base import Unmergeable
from gateway.wire.openai_chunks import (
    WORDS,
    merge_top,
    pieces,
    settle,
    top_of_chunk,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.canonical import Json
    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object

# Deltas of these members are pieces of one text; reasoning comes before the answer.
_TEXTS = ("reasoning_content", "reasoning", "content", "refusal")


def merge(chunks: list[Object], rules: ApiRules) -> Object:
    """The document that says what the chunks say. Raises `Unmergeable`."""
    document = merge_top(chunks, "chat.completion")
    choices: dict[int, Object] = {}
    for piece in pieces(chunks):
        _merge_choice(choices, piece)
    document["choices"] = [_document_choice(choices[i], rules) for i in sorted(choices)]
    return document


def _merge_choice(choices: dict[int, Object], piece: Json) -> None:
    if not isinstance(piece, dict) or not isinstance(piece.get("delta"), dict):
        raise Unmergeable("a choice has no delta")
    index = lenient.index(piece.get("index"))
    if index is None:
        raise Unmergeable("a choice has no index")
    choice = choices.setdefault(index, {"index": piece["index"], "message": {}})
    _merge_delta(lenient.members(choice["message"]), lenient.members(piece["delta"]))
    for name, value in piece.items():
        if name == "logprobs":
            _merge_logprobs(choice, value)
        elif name not in {"index", "delta"}:
            settle(choice, name, value, "$.choices[]")


def _merge_delta(message: Object, delta: Object) -> None:
    for name, value in delta.items():
        if name in _TEXTS and isinstance(value, str):
            message[name] = lenient.text(message.get(name)) + value
        elif name == "tool_calls" and isinstance(value, list):
            _merge_calls(message, value)
        elif name == "function_call" and isinstance(value, dict):
            _merge_function(_object(message, "function_call"), value)
        elif name == "audio" and isinstance(value, dict):
            _merge_audio(_object(message, "audio"), value)
        elif name == "role" or value is None:
            settle(message, name, value, "$.choices[].delta")
        else:
            raise Unmergeable(f"$.choices[].delta.{name} is not known to come in pieces")


def _merge_audio(audio: Object, piece: Object) -> None:
    for name, value in piece.items():
        before = lenient.text(audio.get(name))
        if name == "transcript" and isinstance(value, str):
            audio[name] = before + value
        elif name == "data" and isinstance(value, str):
            if len(before) % 4 or before.endswith("="):
                raise Unmergeable("$.choices[].delta.audio.data goes on within a base64 group")
            audio[name] = before + value
        else:
            settle(audio, name, value, "$.choices[].delta.audio")


def _merge_calls(message: Object, pieces: list[Json]) -> None:
    # A delta may have said null before (`_settle` noted it), nothing else.
    calls = message["tool_calls"] = lenient.items(message.get("tool_calls"))
    for piece in pieces:
        index = lenient.index(piece.get("index")) if isinstance(piece, dict) else None
        if not isinstance(piece, dict) or index is None:
            raise Unmergeable("a tool call has no index")
        if index == len(calls):
            calls.append({})
        if index >= len(calls):
            raise Unmergeable("tool calls out of order")
        call = calls[index]
        assert isinstance(call, dict)
        for name, value in piece.items():
            if name == "function" and isinstance(value, dict):
                _merge_function(_object(call, "function"), value)
            elif name != "index":
                settle(call, name, value, "$.choices[].delta.tool_calls[]")


def _object(owner: Object, name: str) -> Object:
    """The member, begun if it was missing or null."""
    if owner.get(name) is None:
        owner[name] = {}
    value = owner[name]
    if not isinstance(value, dict):
        raise Unmergeable(f"{name} is no object")
    return value


def _merge_function(function: Object, piece: Object) -> None:
    for name, value in piece.items():
        if name == "arguments" and isinstance(value, str):
            function["arguments"] = lenient.text(function.get("arguments")) + value
        else:
            settle(function, name, value, "$.choices[].delta.tool_calls[].function")


def _merge_logprobs(choice: Object, piece: Json) -> None:
    if piece is None:
        return
    if not isinstance(piece, dict):
        raise Unmergeable("logprobs is no object")
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        logprobs = choice["logprobs"] = {}
    for name, value in piece.items():
        before = logprobs.get(name)
        if isinstance(value, list) and isinstance(before, list):
            before.extend(value)
        elif before is None:
            logprobs[name] = list(value) if isinstance(value, list) else value
        elif value is not None:
            raise Unmergeable(f"$.choices[].logprobs.{name} is not known to come in pieces")


def _document_choice(choice: Object, rules: ApiRules) -> Object:
    message = choice["message"]
    assert isinstance(message, dict)
    _check_calls(message)
    _check_audio(message)
    # A stream opens with `content: ""` whatever follows; documents say null beside these.
    alone = not any(message.get(name) for name in ("tool_calls", "function_call", "refusal"))
    role = message.pop("role", None)
    out: Object = {"role": role if lenient.says(role) else "assistant"}
    content = message.pop("content", None)
    out["content"] = content if content or alone else None
    out.update({name: value for name, value in message.items() if value is not None})
    for name, value in rules.message_defaults.items():
        out.setdefault(name, list(value) if isinstance(value, list) else value)
    return {
        "index": choice["index"],
        "message": out,
        "logprobs": choice.get("logprobs"),
        **{k: v for k, v in choice.items() if k not in {"index", "message", "logprobs"}},
    }


def _check_audio(message: Object) -> None:
    """All members that the SDK's type of an answer's audio demands."""
    audio = message.get("audio")
    demanded = ("id", "data", "transcript", "expires_at")
    if audio is not None and any(lenient.members(audio).get(n) is None for n in demanded):
        raise Unmergeable("$.choices[].delta.audio is not whole")


def _check_calls(message: Object) -> None:
    """A call that its pieces left without a name or arguments has no form in a document."""
    for call in lenient.objects(message.get("tool_calls")):
        if not (lenient.text(call.get("id")) and lenient.text(call.get("type"))):
            raise Unmergeable("a tool call has no id or type")
        if call["type"] == "function":
            _check_function(call.get("function"))
    if message.get("function_call") is not None:
        _check_function(message["function_call"])


def _check_function(function: Json) -> None:
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        raise Unmergeable("a function call has no arguments")
    if not lenient.text(function.get("name")):
        raise Unmergeable("a function call has no name")


def split(document: Object, *, include_usage: bool) -> Iterator[Object]:
    """The document as the chunks of a stream, `[DONE]` not included. Raises `Unmergeable` where
    a part of it has no documented form in a stream.
    """
    top = top_of_chunk(document, "chat.completion.chunk")
    usage: Object = {"usage": None} if include_usage else {}
    choices = document.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            for piece in _split_choice(choice):
                yield {**top, "choices": [piece], **usage}
    if include_usage:
        yield {**top, "choices": [], "usage": document.get("usage")}


def _split_choice(choice: Object) -> Iterator[Object]:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    calls = message.get("tool_calls")
    calls = calls if isinstance(calls, list) else []

    def piece(delta: Object, finish: Json = None, logprobs: Json = None) -> Object:
        return {
            "index": choice.get("index"),
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish,
        }

    said = isinstance(message.get("content"), str)
    opening: Object = {"role": message.get("role"), "content": "" if said else None}
    if "refusal" in message:
        opening["refusal"] = None
    yield piece(opening)
    logprobs = choice.get("logprobs")
    for name in _TEXTS:
        text = message.get(name)
        if not isinstance(text, str) or (name == "content" and not text):
            continue  # an empty content was said in the opening
        if logprobs is not None and name in {"content", "refusal"}:
            # Tokens and their probabilities travel together.
            yield piece({name: text}, logprobs=logprobs)
            logprobs = None
        else:
            for words in WORDS.findall(text) or [""]:
                yield piece({name: words})
    for delta in _split_rest(message, calls):
        yield piece(delta)
    closing = piece({}, finish=choice.get("finish_reason"), logprobs=logprobs)
    known = {"index", "message", "logprobs", "finish_reason"}
    yield {**closing, **{k: v for k, v in choice.items() if k not in known}}


def _split_rest(message: Object, calls: list[Json]) -> Iterator[Object]:
    """What a message says beside its texts, as deltas."""
    audio = message.get("audio")
    if isinstance(audio, dict):
        for piece in _split_audio(audio):
            yield {"audio": piece}
    function = message.get("function_call")
    if isinstance(function, dict):
        yield {"function_call": function}
    for index, call in enumerate(calls):
        for piece in _split_call(index, call):
            yield {"tool_calls": [piece]}


# Whole base64 groups: each piece can be decoded by itself.
_AUDIO_CHARS = 16 * 1024


def _split_audio(audio: Object) -> Iterator[Object]:
    """As the API does: the id first, then transcript and data, the expiry last."""
    later = {"transcript", "data", "expires_at"}
    yield {name: value for name, value in audio.items() if name not in later}
    for words in WORDS.findall(lenient.text(audio.get("transcript"))):
        yield {"transcript": words}
    data = lenient.text(audio.get("data"))
    for start in range(0, len(data), _AUDIO_CHARS):
        yield {"data": data[start : start + _AUDIO_CHARS]}
    if "expires_at" in audio:
        yield {"expires_at": audio["expires_at"]}


def _split_call(index: int, call: Json) -> Iterator[Object]:
    function = lenient.members(lenient.members(call).get("function"))
    arguments = function.get("arguments")
    if not isinstance(call, dict) or call.get("type") != "function":
        raise Unmergeable("only calls of functions are documented to come in pieces")
    if not isinstance(arguments, str):
        raise Unmergeable("a function call has no arguments")
    yield {"index": index, **call, "function": {**function, "arguments": ""}}
    for words in WORDS.findall(arguments):
        yield {"index": index, "function": {"arguments": words}}


def splits_cleanly(document: Object, rules: ApiRules) -> bool:
    """Do the document's chunks merge back into it, with nothing lost or added?"""
    try:
        merged = merge(list(split(document, include_usage=True)), rules)
    except Unmergeable:
        return False
    return canonical.same(_bare(merged, rules), _bare(document, rules))


# vLLM's documents hold `tool_calls: []` in every message, and no stream says so.
_SAYS_NOTHING: Object = {"content": "", "tool_calls": []}


def _bare(document: Object, rules: ApiRules) -> Json:
    """The document without members that say nothing: null, or empty where that is usual."""

    def bare(value: Json) -> Json:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if v is not None}
        return [bare(item) for item in value] if isinstance(value, list) else value

    out = bare(document)
    choices = out.get("choices") if isinstance(out, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict):
            for name, value in rules.message_defaults.items():
                if message.get(name) == value:
                    message.pop(name, None)
            for name, nothing in _SAYS_NOTHING.items():
                if message.get(name) == nothing:
                    del message[name]
    return out
