"""From a request body to its prompt, for every wire API: `read`.

Lenient: what has an unknown shape is kept as a JSON block, so that a change in it is still seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import xxhash

from gateway.core import canonical
from gateway.core.blocks import Block, Prompt, Section
from gateway.core.canonical import Json, Uncacheable
from gateway.core.model import Reason
from gateway.wire.base import NotUnderstood
from gateway.wire.lenient import items, members, objects, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Object: TypeAlias = dict[str, Json]

CHAT = "openai_chat"
MESSAGES = "anthropic_messages"
RESPONSES = "openai_responses"
COMPLETIONS = "openai_completions"

_MARKERS = ("cache_control", "prompt_cache_breakpoint")
_SYSTEM_ROLES = frozenset({"system", "developer"})
_MEDIA = frozenset(
    {"image", "image_url", "input_image", "input_audio", "audio", "file", "input_file", "document"}
)
# Handles that join a call to its result; providers don't say whether templates render them.
_IDS = frozenset({"id", "call_id", "tool_use_id", "tool_call_id", "status"})
_ANTHROPIC_PARTS = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "image"})


def read(body: Json, route: str | None = None) -> Prompt:
    """The prompt of a request body (as `canonical.parse` gives it).

    `route` is the path it was sent to; without one the wire API is inferred from the shape.
    Raises `NotUnderstood` for what has no prompt: embeddings, lists, other routes.
    """
    if not isinstance(body, dict):
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, "$", "not a JSON object")
    api = _by_route(route) if route else _by_shape(body)
    model = text(body.get("model"))
    return Prompt(api, model, tuple(_READERS[api](body)))


def has_prompt(route: str) -> bool:
    """Is it a path that prompts are sent to?"""
    return _api(route) is not None


def _api(route: str) -> str | None:
    path = route.partition("?")[0].rstrip("/")
    return next((api for ending, api in _ROUTES.items() if path.endswith(ending)), None)


def _by_route(route: str) -> str:
    api = _api(route)
    if api is None:
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, "$", f"no prompt goes to {route}")
    return api


def _by_shape(body: Object) -> str:
    if isinstance(body.get("messages"), list):
        return MESSAGES if _is_anthropic(body) else CHAT
    if "input" in body and not text(body.get("model")).lower().startswith("text-embedding"):
        return RESPONSES
    if "instructions" in body or "prompt" in body:
        return COMPLETIONS if isinstance(body.get("prompt"), (str, list)) else RESPONSES
    raise NotUnderstood(
        Reason.NOT_UNDERSTOOD, "$", "no request body: neither `messages`, `input` nor `prompt`"
    )


def _is_anthropic(body: Object) -> bool:
    if "system" in body or "anthropic_version" in body:
        return True
    if any("input_schema" in tool for tool in objects(body.get("tools"))):
        return True
    messages = objects(body.get("messages"))
    if any(text(m.get("role")) in _SYSTEM_ROLES or "tool_calls" in m for m in messages):
        return False
    parts = [part for m in messages for part in objects(m.get("content"))]
    return text(body.get("model")).startswith("claude") or any(
        text(part.get("type")) in _ANTHROPIC_PARTS for part in parts
    )


def _chat(body: Object) -> Iterator[Block]:
    yield from _tools(body)
    yield from _format(body, ("response_format",))
    opening = True
    for index, message in enumerate(items(body.get("messages"))):
        path = f"$.messages[{index}]"
        if not isinstance(message, dict):
            yield _json(Section.MESSAGES, path, "", message)
            continue
        role = text(message.get("role"))
        # A system message later on is part of the conversation, not of what all share.
        opening = opening and role in _SYSTEM_ROLES
        section = Section.SYSTEM if opening else Section.MESSAGES
        yield from _content(section, f"{path}.content", role, message.get("content"))
        for number, call in enumerate(items(message.get("tool_calls"))):
            yield from _call(section, f"{path}.tool_calls[{number}]", role, call)


def _messages(body: Object) -> Iterator[Block]:
    yield from _tools(body)
    yield from _content(Section.SYSTEM, "$.system", "system", body.get("system"))
    for index, message in enumerate(items(body.get("messages"))):
        path = f"$.messages[{index}]"
        if not isinstance(message, dict):
            yield _json(Section.MESSAGES, path, "", message)
            continue
        role = text(message.get("role"))
        yield from _content(Section.MESSAGES, f"{path}.content", role, message.get("content"))


def _responses(body: Object) -> Iterator[Block]:
    yield from _tools(body)
    yield from _format(body, ("text", "format"))
    yield from _content(Section.SYSTEM, "$.instructions", "system", body.get("instructions"))
    asked = body.get("input")
    if isinstance(asked, str):
        yield Block(Section.MESSAGES, "$.input", "user", asked)
        return
    opening = True
    for index, item in enumerate(items(asked)):
        path = f"$.input[{index}]"
        if not isinstance(item, dict) or "role" not in item:
            opening = False
            yield from _call(Section.MESSAGES, path, "assistant", item)
            continue
        role = text(item.get("role"))
        opening = opening and role in _SYSTEM_ROLES
        section = Section.SYSTEM if opening else Section.MESSAGES
        yield from _content(section, f"{path}.content", role, item.get("content"))


def _completions(body: Object) -> Iterator[Block]:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        yield Block(Section.MESSAGES, "$.prompt", "user", prompt)
    elif prompt is not None:
        yield _json(Section.MESSAGES, "$.prompt", "user", prompt)


def _tools(body: Object) -> Iterator[Block]:
    for index, tool in enumerate(items(body.get("tools"))):
        path = f"$.tools[{index}]"
        shown = members(tool)
        name = text(members(shown.get("function")).get("name")) or text(shown.get("name"))
        yield _json(Section.TOOLS, path, "", tool, name or text(shown.get("type")))


def _format(body: Object, names: tuple[str, ...]) -> Iterator[Block]:
    value: Json = body
    for name in names:
        value = members(value).get(name)
    # OpenAI's documentation: a change of the answer's schema breaks the prefix.
    if isinstance(value, dict) and "schema" in text(value.get("type")):
        yield _json(Section.TOOLS, "$." + ".".join(names), "", value, "response format")


def _content(section: Section, path: str, role: str, content: Json) -> Iterator[Block]:
    if content is None:
        return
    if isinstance(content, str):
        yield Block(section, path, role, content)
        return
    if not isinstance(content, list):
        yield _json(section, path, role, content)
        return
    for index, part in enumerate(content):
        yield from _part(section, f"{path}[{index}]", role, part)


def _part(section: Section, path: str, role: str, part: Json) -> Iterator[Block]:
    if isinstance(part, str):
        yield Block(section, path, role, part)
        return
    if not isinstance(part, dict):
        yield _json(section, path, role, part)
        return
    kind = text(part.get("type"))
    marked = any(part.get(marker) is not None for marker in _MARKERS)
    if kind == "tool_result":
        yield from _content(section, f"{path}.content", "tool", part.get("content"))
    elif kind == "thinking":
        yield Block(section, f"{path}.thinking", role, text(part.get("thinking")), marked=marked)
    elif kind in _MEDIA:
        yield Block(section, path, role, f"[{kind} {_digest(part)}]", marked=marked)
    elif isinstance(shown := part.get("text"), str):
        yield Block(section, f"{path}.text", role, shown, marked=marked)
    else:
        yield from _call(section, path, role, part)


def _call(section: Section, path: str, role: str, call: Json) -> Iterator[Block]:
    """A call of a tool, its result, or reasoning: JSON, less the ids."""
    if not isinstance(call, dict):
        yield _json(section, path, role, call)
        return
    if isinstance(output := call.get("output"), str):
        yield Block(section, f"{path}.output", "tool", output)
        return
    owner, inside = (
        (members(call["function"]), f"{path}.function") if "function" in call else (call, path)
    )
    if isinstance(arguments := owner.get("arguments"), str):
        # The client's own spelling of the arguments is what the prompt shows.
        yield Block(
            section,
            f"{inside}.arguments",
            role,
            arguments,
            name=text(owner.get("name")),
            is_json=True,
        )
        return
    yield _json(section, path, role, {n: v for n, v in call.items() if n not in _IDS})


def _json(section: Section, path: str, role: str, value: Json, name: str = "") -> Block:
    marked = False
    if isinstance(value, dict):
        marked = any(value.get(marker) is not None for marker in _MARKERS)
        value = {n: v for n, v in value.items() if n not in _MARKERS}
    leaves = tuple(_leaves(path, value))
    return Block(section, path, role, _encoded(value), name, True, marked, leaves)


def _leaves(path: str, value: Json) -> Iterator[tuple[str, str]]:
    # With a stack of its own: what JSON nests may be deeper than what Python may call.
    waiting: list[tuple[str, Json]] = [(path, value)]
    while waiting:
        here, inner = waiting.pop()
        if isinstance(inner, str):
            yield here, inner
        elif isinstance(inner, dict):
            waiting.extend((f"{here}.{n}", v) for n, v in reversed(inner.items()))
        elif isinstance(inner, list):
            waiting.extend((f"{here}[{i}]", v) for i, v in reversed(list(enumerate(inner))))


def _encoded(value: Json) -> str:
    try:
        return canonical.encode(value).decode()
    except Uncacheable as error:
        raise NotUnderstood(Reason.UNCACHEABLE_JSON, "$", str(error)) from error


def _digest(value: Json) -> str:
    # Media are compared, never shown; their size says nothing about their tokens.
    return xxhash.xxh3_64_hexdigest(_encoded(value).encode())


_READERS: dict[str, Callable[[Object], Iterator[Block]]] = {
    CHAT: _chat,
    MESSAGES: _messages,
    RESPONSES: _responses,
    COMPLETIONS: _completions,
}

# The longer ending first: `/chat/completions` also ends in `/completions`.
_ROUTES = {
    "/chat/completions": CHAT,
    "/messages": MESSAGES,
    "/responses": RESPONSES,
    "/completions": COMPLETIONS,
}
