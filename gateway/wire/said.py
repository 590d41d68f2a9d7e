"""What prompts and answers say, in the message schemas of the GenAI conventions.

The schemas are gen-ai-{input-messages,output-messages,system-instructions,tool-definitions}.json of
open-telemetry/semantic-conventions-genai: a message is a role and parts, a part has a type. Data of
images, sound and files is left out; of what kind it was stays. What is of no known kind is told as a
part of its own type, without its members.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Object: TypeAlias = dict[str, Any]

MOST_BYTES = 1024 * 1024
"""Longer bodies are not looked into."""


def asked(api: str, body: bytes) -> tuple[list[Object], list[Object], list[Object]]:
    """System instructions, messages and tools of a request; empty where nothing is known of it."""
    how, document = _REQUESTS.get(api), _document(body)
    return how(document) if how is not None and document is not None else ([], [], [])


def answered(api: str, body: bytes) -> list[Object]:
    """The messages of an answer, a JSON document; empty where nothing is known of it."""
    how, document = _ANSWERS.get(api), _document(body)
    return how(document) if how is not None and document is not None else []


def _document(body: bytes) -> Object | None:
    if len(body) > MOST_BYTES:
        return None
    try:
        document = orjson.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


# --- parts ------------------------------------------------------------------------------------------


def _text(content: object) -> Object:
    return {"type": "text", "content": content if isinstance(content, str) else ""}


def _thought(content: object) -> Object:
    return {"type": "reasoning", "content": content if isinstance(content, str) else ""}


def _call(call_id: object, name: object, arguments: object) -> Object:
    """Arguments come as JSON text or as an object: told as what they are."""
    given = _value(arguments) if isinstance(arguments, str) else arguments
    return {"type": "tool_call", "id": call_id, "name": _word(name), "arguments": given}


def _value(text: str) -> object:
    """What the JSON says; the text itself where not all of it came, or it is none."""
    try:
        return orjson.loads(text)
    except ValueError:
        return text


def _result(call_id: object, response: object) -> Object:
    return {"type": "tool_call_response", "id": call_id, "response": response}


def _media(modality: str, source: object) -> Object:
    """An image, sound or file: by its address or id, or, of what was sent along, its kind alone."""
    if isinstance(source, str):
        if source.startswith("data:"):
            kind = source[5:].partition(",")[0].partition(";")[0]
            return {"type": "blob", "modality": modality, "mime_type": kind or None, "content": ""}
        return {"type": "uri", "modality": modality, "mime_type": None, "uri": source}
    said = source if isinstance(source, dict) else {}
    if isinstance(said.get("file_id"), str):
        return {"type": "file", "modality": modality, "file_id": said["file_id"]}
    if isinstance(said.get("url"), str):
        return _media(modality, said["url"])
    mime = said.get("media_type")
    mime = mime if isinstance(mime, str) else None
    return {"type": "blob", "modality": modality, "mime_type": mime, "content": ""}


def _part(part: object) -> list[Object]:
    """One part of any of the APIs, as the conventions have it."""
    if isinstance(part, str):
        return [_text(part)]
    if not isinstance(part, dict):
        return []
    kind = _word(part.get("type")) or "unknown"
    how = _PARTS.get(kind)
    return [how(part)] if how is not None else [{"type": kind}]


_PARTS: Mapping[str, Callable[[Object], Object]] = {
    "text": lambda p: _text(p.get("text")),
    "input_text": lambda p: _text(p.get("text")),
    "output_text": lambda p: _text(p.get("text")),
    "summary_text": lambda p: _thought(p.get("text")),
    "reasoning_text": lambda p: _thought(p.get("text")),
    "refusal": lambda p: _text(p.get("refusal")),
    "thinking": lambda p: _thought(p.get("thinking")),
    "image_url": lambda p: _media("image", p.get("image_url")),
    "input_image": lambda p: _media("image", p.get("image_url") or p),
    "image": lambda p: _media("image", p.get("source")),
    "document": lambda p: _media("document", p.get("source")),
    "input_file": lambda p: _media("document", p.get("file_url") or p),
    "file": lambda p: _media("document", p.get("file")),
    "input_audio": lambda _: _media("audio", None),
    "tool_use": lambda p: _call(p.get("id"), p.get("name"), p.get("input")),
    "tool_result": lambda p: _result(p.get("tool_use_id"), _plain(p.get("content"))),
}


def _parts(content: object) -> list[Object]:
    if isinstance(content, list):
        return [part for each in content for part in _part(each)]
    return _part(content)


def _plain(content: object) -> object:
    """A tool's result: its text where it is nothing else."""
    if not isinstance(content, list):
        return content
    parts = _parts(content)
    texts = [part["content"] for part in parts if part["type"] == "text"]
    return "".join(texts) if len(texts) == len(parts) else parts


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _objects(value: object) -> list[Object]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


# --- OpenAI Chat Completions ------------------------------------------------------------------------


def _chat_parts(message: Object) -> list[Object]:
    if message.get("role") == "tool":
        return [_result(message.get("tool_call_id"), _plain(message.get("content")))]
    thought = message.get("reasoning_content") or message.get("reasoning")
    parts = [_thought(thought)] if isinstance(thought, str) else []
    parts += _parts(message.get("content"))
    if isinstance(message.get("refusal"), str):
        parts.append(_text(message["refusal"]))
    for call in _objects(message.get("tool_calls")):
        inner = call.get("function") or call.get("custom")
        inner = inner if isinstance(inner, dict) else {}
        parts.append(
            _call(call.get("id"), inner.get("name"), inner.get("arguments", inner.get("input")))
        )
    return parts


def _of_chat(document: Object) -> tuple[list[Object], list[Object], list[Object]]:
    # Chat's system prompt is a message among the others, and stays there.
    messages = [
        {"role": _word(each.get("role")), "parts": _chat_parts(each)}
        for each in _objects(document.get("messages"))
    ]
    return [], messages, [_tool(each) for each in _objects(document.get("tools"))]


def _chat_answer(document: Object) -> list[Object]:
    answers: list[Object] = []
    for choice in _objects(document.get("choices")):
        message = choice.get("message")
        parts = _chat_parts(message) if isinstance(message, dict) else _parts(choice.get("text"))
        answers.append(
            {"role": "assistant", "parts": parts, "finish_reason": choice.get("finish_reason")}
        )
    return answers


def _of_completion(document: Object) -> tuple[list[Object], list[Object], list[Object]]:
    prompt = document.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    said = [each for each in prompts if isinstance(each, str)]
    return [], [{"role": "user", "parts": [_text(each)]} for each in said], []


# --- OpenAI Responses -------------------------------------------------------------------------------


def _item(item: Object) -> Object:
    """One item of a request's input or an answer's output as a message."""
    kind = _word(item.get("type", "message"))
    if kind == "message":
        return {"role": _word(item.get("role")), "parts": _parts(item.get("content"))}
    if kind == "reasoning":
        parts = _parts(item.get("summary") or []) + _parts(item.get("content") or [])
        return {"role": "assistant", "parts": parts}
    call_id = item.get("call_id")
    if kind in {"function_call", "custom_tool_call"}:
        arguments = item.get("arguments", item.get("input"))
        return {"role": "assistant", "parts": [_call(call_id, item.get("name"), arguments)]}
    if kind in {"function_call_output", "custom_tool_call_output"}:
        return {"role": "tool", "parts": [_result(call_id, _plain(item.get("output")))]}
    return {"role": "assistant", "parts": [{"type": kind or "unknown"}]}


def _of_responses(document: Object) -> tuple[list[Object], list[Object], list[Object]]:
    given = document.get("input")
    if isinstance(given, str):
        messages = [{"role": "user", "parts": [_text(given)]}]
    else:
        messages = [_item(each) for each in _objects(given)]
    system = _parts(document.get("instructions")) if document.get("instructions") else []
    return system, messages, [_tool(each) for each in _objects(document.get("tools"))]


def _responses_answer(document: Object) -> list[Object]:
    parts = [part for each in _objects(document.get("output")) for part in _item(each)["parts"]]
    finish = document.get("status")
    return [{"role": "assistant", "parts": parts, "finish_reason": finish}] if parts else []


# --- Anthropic Messages -----------------------------------------------------------------------------


def _of_messages(document: Object) -> tuple[list[Object], list[Object], list[Object]]:
    messages = [
        {"role": _word(each.get("role")), "parts": _parts(each.get("content"))}
        for each in _objects(document.get("messages"))
    ]
    system = _parts(document.get("system")) if document.get("system") else []
    return system, messages, [_tool(each) for each in _objects(document.get("tools"))]


def _messages_answer(document: Object) -> list[Object]:
    parts = _parts(document.get("content"))
    finish = document.get("stop_reason")
    return [{"role": "assistant", "parts": parts, "finish_reason": finish}]


def _tool(tool: Object) -> Object:
    """A tool's definition: of a function its name, description and parameters, else its kind."""
    inner = tool.get("function")
    inner = inner if isinstance(inner, dict) else tool
    kind = _word(tool.get("type")) or "function"
    name = _word(inner.get("name")) or kind
    parameters = inner.get("parameters", inner.get("input_schema"))
    if kind not in {"function", "custom"} or (kind == "custom" and parameters is None):
        return {"type": kind, "name": name}
    told: Object = {"type": "function", "name": name}
    if isinstance(inner.get("description"), str):
        told["description"] = inner["description"]
    if isinstance(parameters, dict):
        told["parameters"] = parameters
    return told


_REQUESTS: Mapping[str, Callable[[Object], tuple[list[Object], list[Object], list[Object]]]] = {
    "openai_chat": _of_chat,
    "openai_completions": _of_completion,
    "openai_responses": _of_responses,
    "anthropic_messages": _of_messages,
}
_ANSWERS: Mapping[str, Callable[[Object], list[Object]]] = {
    "openai_chat": _chat_answer,
    "openai_completions": _chat_answer,
    "openai_responses": _responses_answer,
    "anthropic_messages": _messages_answer,
}
