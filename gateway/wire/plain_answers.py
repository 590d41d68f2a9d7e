"""Answers of which it is known, from their members alone, that they can be told as a stream.

Rule 1: what is plain here always splits cleanly; a property test holds each of the four to the
whole proof (`splits_cleanly`), which is made for every answer that isn't plain.
Rule 2: nearly all answers are plain, so this looks at members, never into texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.wire import lenient

if TYPE_CHECKING:
    from gateway.core.canonical import Json
    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object

_NOTHING = object()


def _all_texts(owner: Object, names: tuple[str, ...]) -> bool:
    """Has the object these members, all of them texts and none empty?"""
    return all(owner.get(name).__class__ is str and owner[name] for name in names)


# --- OpenAI's chat and completions ------------------------------------------------------------

# What chunks never say, or say in another way.
_TOP_UNSAID = frozenset({"obfuscation"})
_CALL = {"id", "type", "function"}
_FUNCTION = {"name", "arguments"}


def is_plain_chat(document: Object, rules: ApiRules) -> bool:
    """Is it a chat completion of texts and calls of functions, and nothing else?"""
    if not _has_plain_top(document, "chat.completion"):
        return False
    for position, choice in enumerate(lenient.items(document["choices"])):
        if not isinstance(choice, dict) or not _has_plain_end(choice, position, "delta"):
            return False
        message = choice.get("message")
        if not isinstance(message, dict) or not _all_texts(message, ("role",)):
            return False
        for name, value in message.items():
            if not _is_plain_member(name, value, rules):
                return False
    return True


def _has_plain_top(document: Object, kind: str) -> bool:
    return (
        document.get("object") == kind
        and _all_texts(document, ("id", "model"))
        and lenient.index(document.get("created")) is not None
        and isinstance(document.get("usage"), dict | None)
        and isinstance(document.get("choices"), list)
        and _TOP_UNSAID.isdisjoint(document)
    )


def _has_plain_end(choice: Object, position: int, unsaid: str) -> bool:
    """Is all that a choice says beside its message said by its last chunk?"""
    return (
        lenient.index(choice.get("index")) == position
        and choice.get("logprobs") is None
        and isinstance(choice.get("finish_reason"), str | None)
        and unsaid not in choice
    )


def _is_plain_member(name: str, value: Json, rules: ApiRules) -> bool:
    if value is None or name == "role":
        return True
    if name in {"content", "refusal", "reasoning_content", "reasoning"}:
        return isinstance(value, str)
    if name == "tool_calls":
        return isinstance(value, list) and all(map(_is_plain_call, value))
    # Usually empty, and left out of streams.
    return value == [] and rules.message_defaults.get(name, _NOTHING) == []


def _is_plain_call(call: Json) -> bool:
    if not isinstance(call, dict) or call.keys() != _CALL or call["type"] != "function":
        return False
    function = call["function"]
    return (
        isinstance(function, dict)
        and function.keys() == _FUNCTION
        and isinstance(function["arguments"], str)
        and _all_texts(function, ("name",))
        and _all_texts(call, ("id",))
    )


def is_plain_completion(document: Object) -> bool:
    """Is it a text completion of texts alone?"""
    if not _has_plain_top(document, "text_completion"):
        return False
    return all(
        isinstance(choice, dict)
        and isinstance(choice.get("text"), str)
        and _has_plain_end(choice, position, "obfuscation")
        for position, choice in enumerate(lenient.items(document["choices"]))
    )


# --- Anthropic's messages ---------------------------------------------------------------------


def is_plain_message(message: Object) -> bool:
    """Is it a message of texts, thoughts and calls of the client's tools, and nothing else?"""
    content = message.get("content")
    return (
        message.get("type") == "message"
        and isinstance(message.get("usage"), dict)
        and isinstance(content, list)
        and all(map(_is_plain_block, content))
    )


def _is_plain_block(block: Json) -> bool:
    if not isinstance(block, dict):
        return False
    match block.get("type"):
        case "text":
            cited = block.get("citations")
            return isinstance(block.get("text"), str) and (cited is None or cited == [])
        case "thinking":
            return isinstance(block.get("thinking"), str) and isinstance(
                block.get("signature"), str
            )
        case "tool_use":
            return isinstance(block.get("input"), dict)
        case _:
            return False


# --- OpenAI's responses -----------------------------------------------------------------------

_ENDED = ("completed", "incomplete", "failed")


def is_plain_response(response: Object) -> bool:
    """Is it a response of texts, summaries of thoughts and calls of functions?"""
    output = response.get("output")
    return (
        response.get("status") in _ENDED
        and _all_texts(response, ("id",))
        and isinstance(output, list)
        and all(map(_is_plain_item, output))
    )


def _is_plain_item(item: Json) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return False
    match item.get("type"):
        case "message":
            parts = item.get("content")
            return isinstance(parts, list) and all(_is_plain_part(p, "output_text") for p in parts)
        case "function_call":
            return isinstance(item.get("arguments"), str)
        case "reasoning":
            parts = item.get("summary")
            return (
                isinstance(parts, list)
                and item.get("content") is None
                and all(_is_plain_part(p, "summary_text") for p in parts)
            )
        case _:
            return False


def _is_plain_part(part: Json, kind: str) -> bool:
    return (
        isinstance(part, dict)
        and part.get("type") == kind
        and isinstance(part.get("text"), str)
        and not lenient.items(part.get("annotations"))
        and not lenient.items(part.get("logprobs"))
    )
