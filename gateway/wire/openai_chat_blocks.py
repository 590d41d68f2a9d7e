"""OpenAI Chat Completions: the blocks of its prompt, as a provider's cache sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.prefix import CachePrompt, Kind
from gateway.providers.prompt_cache import MarkerForm
from gateway.wire.block_parts import (
    Gathering,
    Object,
    Skipped,
    digest,
    extras,
    fingerprint_of,
    rendered,
    section_messages,
    section_system,
    ttl_of,
)
from gateway.wire.lenient import items, members, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.blocks import Section
    from gateway.core.canonical import Json
    from gateway.core.prefix import Path, PrefixBlock
    from gateway.providers.prompt_cache import CacheRules

API = "openai_chat"

SYSTEM_ROLES = frozenset({"system", "developer"})
# OpenAI's guide: what breaks the prefix; the rest is what other providers render in front.
_CHANGES_ALL = (
    "model",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "verbosity",
    "service_tier",
    "prompt_cache_key",
    "functions",
    "modalities",
    "web_search_options",
    "chat_template_kwargs",
    "documents",
    "cache_salt",
    "context_management",
)

_TEXT_MEMBERS = frozenset({"type", "text"})
_MESSAGE_MEMBERS = frozenset({"role", "content"})
# Members of a message that are of a size, each a block of its own.
_OWN_BLOCKS = {
    "reasoning_content": Kind.THINKING,
    "reasoning": Kind.THINKING,
    "reasoning_details": Kind.THINKING,
    "thinking_blocks": Kind.THINKING,
    "function_call": Kind.TOOL_USE,
    "refusal": Kind.TEXT,
    "audio": Kind.MEDIA,
}
_APART = frozenset(_OWN_BLOCKS)
_SAID_APART = _MESSAGE_MEMBERS | {"tool_calls"} | _APART
_TEXT, _CALL, _RESULT = Kind.TEXT, Kind.TOOL_USE, Kind.TOOL_RESULT
_MEDIA = frozenset({"image_url", "input_audio", "file"})


def read(body: Object, rules: CacheRules | None, skipped: Skipped | None = None) -> CachePrompt:
    """The prompt of a request."""
    found = Gathering(rules, (MarkerForm.CACHE_CONTROL, MarkerForm.BREAKPOINT))
    # A breakpoint stands neither on a tool nor on what the model said.
    has_control = rules is not None and rules.form is MarkerForm.CACHE_CONTROL
    marks_assistant = rules is not None and rules.marks_assistant and has_control
    found.thinks = thinks(body)
    messages = items(body.get("messages"))
    leading = leads(messages)
    # First, because what they hold decides whether the text in front may be split.
    for index in range(leading, len(messages)):
        at = found.skip(skipped, index)
        _message(found, section_messages, at, messages[index], marks_assistant)
    later = found.take()
    found.tools(body.get("tools"), rules is not None and rules.marks_tools and has_control)
    for index in range(leading):
        _message(found, section_system, index, messages[index], marks_assistant)
    return finished(API, body, found, later, (_CHANGES_ALL, ()))


def finished(
    api: str,
    body: Object,
    found: Gathering,
    later: list[PrefixBlock],
    changes: tuple[Sequence[str], Sequence[str]],
) -> CachePrompt:
    """What OpenAI's APIs have in common: the client's own word on caching, and the seeds: of the
    members that change all of the prefix, and of those that change only the conversation.
    """
    return CachePrompt(
        api,
        text(body.get("model")),
        (*found.blocks, *later),
        fingerprint_of(body, changes[0]),
        fingerprint_of(body, changes[1]),
        found.thinks,
        ttl_of(body),
        text(members(body.get("prompt_cache_options")).get("mode")),
        text(body.get("prompt_cache_key")),
        found.text_only,
    )


def thinks(body: Object) -> bool:
    """Does the request ask for thinking?"""
    effort = body.get("reasoning_effort")
    reasoning = body.get("reasoning")
    thinking = body.get("thinking")
    return (
        (effort is not None and effort != "none")
        or (bool(reasoning) and members(reasoning).get("effort") != "none")
        or (bool(thinking) and members(thinking).get("type") != "disabled")
    )


def leads(messages: list[Json]) -> int:
    """How many messages stand before the conversation: the system's or the developer's."""
    count = 0
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in SYSTEM_ROLES:
            break
        count += 1
    return count


def _message(
    found: Gathering, section: Section, index: int, message: Json, marks_assistant: bool
) -> None:
    path: Path = ("messages", index)
    begun = len(found.blocks)
    if not isinstance(message, dict):
        found.enter(section, "", start=1)
        found.json(Kind.OTHER, path, message)
        found.leave(path, begun)
        return
    role = text(message.get("role"))
    start = 1
    if len(message) > 2 and (more := extras(message, _SAID_APART)):
        start = digest(rendered(more))
    found.enter(section, role, can_mark=marks_assistant or role != "assistant", start=start)
    content = message.get("content")
    kind = _RESULT if role == "tool" else _TEXT
    if not _APART.isdisjoint(message):
        _apart(found, path, message)
    elif isinstance(content, str) and "tool_calls" not in message and section is section_messages:
        found.whole((*path, "content"), content, kind, ttl_of(message))
        return
    if isinstance(content, str):
        found.text((*path, "content"), content, kind=kind)
    elif isinstance(content, list):
        for number, part in enumerate(content):
            _part(found, (*path, "content", number), part)
    elif content is not None:
        found.json(Kind.OTHER, (*path, "content"), content)
    for number, call in enumerate(items(message.get("tool_calls"))):
        found.json(_CALL, (*path, "tool_calls", number), call)
    found.leave(path, begun, ttl_of(message))


def _apart(found: Gathering, path: Path, message: Object) -> None:
    for name, kind in _OWN_BLOCKS.items():
        if (value := message.get(name)) is not None:
            found.thinks = found.thinks or kind is Kind.THINKING
            found.text_only = found.text_only and kind is not Kind.MEDIA
            found.json(kind, (*path, name), value)


def _part(found: Gathering, path: Path, part: Json) -> None:
    if not isinstance(part, dict):
        found.json(Kind.OTHER, path, part)
    elif part.get("type") == "text" and isinstance(shown := part.get("text"), str):
        if len(part) > 2 and (more := extras(part, _TEXT_MEMBERS)):
            found.start += digest(rendered(more))
        kind = _RESULT if found.role == "tool" else _TEXT
        found.text(path, shown, ttl=ttl_of(part), kind=kind)
    elif part.get("type") in _MEDIA:
        found.media(Kind.MEDIA, path, part)
    else:
        found.json(Kind.OTHER, path, part)
