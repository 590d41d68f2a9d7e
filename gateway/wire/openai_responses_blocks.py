"""OpenAI Responses: the blocks of its prompt, as a provider's cache sees them.

A bare `input` is one block that takes no marker: as a list it would be another request, by the
documentation an equal one only in what it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.prefix import Kind
from gateway.providers.prompt_cache import MarkerForm
from gateway.wire.block_parts import (
    Gathering,
    Object,
    Skipped,
    digest,
    extras,
    rendered,
    section_messages,
    section_system,
    spoken,
    ttl_of,
)
from gateway.wire.lenient import items, members, text
from gateway.wire.openai_chat_blocks import SYSTEM_ROLES, finished, leads, thinks

if TYPE_CHECKING:
    from gateway.core.blocks import Section
    from gateway.core.canonical import Json
    from gateway.core.prefix import CachePrompt, Path
    from gateway.providers.prompt_cache import CacheRules

API = "openai_responses"

_CHANGES_ALL = (
    "model",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "service_tier",
    "prompt_cache_key",
    "prompt",
    "context_management",
    "cache_salt",
)
# What the provider keeps stands between the instructions and the input.
_CHANGES_MESSAGES = ("previous_response_id", "conversation")

_TEXT, _CALL, _RESULT = Kind.TEXT, Kind.TOOL_USE, Kind.TOOL_RESULT
_TEXT_MEMBERS = frozenset({"type", "text"})
_ITEM_MEMBERS = frozenset({"type", "role", "content"})
_OUTPUT_MEMBERS = frozenset({"type", "output"})
_MEDIA = frozenset({"input_image", "input_file", "computer_screenshot"})
_CALLS = frozenset(
    {"function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call"}
)
_OUTPUTS = frozenset(
    {
        "function_call_output",
        "custom_tool_call_output",
        "computer_call_output",
        "local_shell_call_output",
        "shell_call_output",
    }
)
# Whose list form takes markers inside.
_MARKABLE_OUTPUTS = frozenset({"function_call_output"})


def read(body: Object, rules: CacheRules | None, skipped: Skipped | None = None) -> CachePrompt:
    """The prompt of a request."""
    found = Gathering(rules, (MarkerForm.BREAKPOINT,))
    found.thinks = thinks(body) or "reasoning.encrypted_content" in items(body.get("include"))
    asked = body.get("input")
    given = items(asked)
    leading = leads(given)
    if isinstance(asked, str):
        found.enter(section_messages, "user", start=1)
        found.text(("input",), asked, can_mark=False)
        found.leave(("input",), 0)
    # First, because what they hold decides whether the text in front may be split.
    for index in range(leading, len(given)):
        _item(found, section_messages, found.skip(skipped, index), given[index])
    later = found.take()
    found.tools(body.get("tools"), can_mark=False)
    if (said := body.get("instructions")) is not None:
        begun = len(found.blocks)
        found.enter(section_system, "system", can_mark=False)
        if isinstance(said, str):
            found.text(("instructions",), said)
        else:
            found.json(Kind.OTHER, ("instructions",), said)
        found.leave(("instructions",), begun)
    for index in range(leading):
        _item(found, section_system, index, given[index])
    return finished(API, body, found, later, (_CHANGES_ALL, _CHANGES_MESSAGES))


def _item(found: Gathering, section: Section, index: int, item: Json) -> None:
    path: Path = ("input", index)
    begun = len(found.blocks)
    if not isinstance(item, dict):
        found.enter(section, "", start=1)
        found.json(Kind.OTHER, path, item)
        found.leave(path, begun)
        return
    kind = text(item.get("type"))
    if "role" in item and kind in {"", "message"}:
        _message(found, section, path, item)
    elif kind in _OUTPUTS:
        _output(found, path, item, kind)
    elif kind == "reasoning":
        _reasoning(found, path, item)
    else:
        found.enter(section_messages, "assistant", start=1)
        found.json(_CALL if kind in _CALLS else Kind.OTHER, path, item)
    found.leave(path, begun, ttl_of(item))


def _message(found: Gathering, section: Section, path: Path, item: Object) -> None:
    role = text(item.get("role"))
    start = 1
    if len(item) > 2 and (more := extras(item, _ITEM_MEMBERS)):
        start = digest(rendered(more))
    can_mark = role == "user" or role in SYSTEM_ROLES
    found.enter(section, role, can_mark=can_mark, start=start)
    content = item.get("content")
    path = (*path, "content")
    if isinstance(content, str) and section is section_messages:
        found.whole(path, content, _TEXT, ttl_of(item))
    elif isinstance(content, str):
        found.text(path, content)
    elif isinstance(content, list):
        for number, part in enumerate(content):
            _part(found, _TEXT, (*path, number), part)
    elif content is not None:
        found.json(Kind.OTHER, path, content)


def _part(found: Gathering, kind: Kind, path: Path, part: Json) -> None:
    if not isinstance(part, dict):
        found.json(Kind.OTHER, path, part)
    elif isinstance(shown := part.get("text"), str):
        if len(part) > 2 and (more := extras(part, _TEXT_MEMBERS)):
            found.start += digest(rendered(more))
        can_mark = part.get("type") == "input_text"
        found.text(path, shown, can_mark=can_mark, ttl=ttl_of(part), kind=kind)
    elif part.get("type") in _MEDIA:
        found.media(Kind.MEDIA if kind is _TEXT else kind, path, part)
    else:
        found.json(Kind.OTHER, path, part)


def _output(found: Gathering, path: Path, item: Object, kind: str) -> None:
    output = item.get("output")
    start = digest(rendered(extras(item, _OUTPUT_MEMBERS)))
    found.enter(section_messages, "tool", can_mark=not isinstance(output, str), start=start)
    if isinstance(output, str):
        found.whole(path, output, _RESULT, ttl_of(item))
    elif isinstance(output, list) and output and kind in _MARKABLE_OUTPUTS:
        for number, part in enumerate(output):
            _part(found, _RESULT, (*path, "output", number), part)
    elif isinstance(output, dict) and output.get("type") in _MEDIA:
        _part(found, _RESULT, (*path, "output"), output)
    else:
        found.json(_RESULT, path, item)


def _reasoning(found: Gathering, path: Path, item: Object) -> None:
    found.thinks = True
    # Encrypted reasoning is base64 of what is about as long as the text in it.
    sealed = text(item.get("encrypted_content"))
    told = [text(members(part).get("text")) for part in items(item.get("summary"))]
    size = len(sealed) * 3 // 4 or sum(len(part.encode()) for part in told)
    found.enter(section_messages, "assistant", start=1)
    found.add(Kind.THINKING, path, spoken(item)[0], size=size)
