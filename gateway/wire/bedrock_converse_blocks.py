"""Bedrock Converse: the blocks of its prompt. Its markers are elements of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.prefix import CachePrompt, Kind
from gateway.providers.prompt_cache import MarkerForm
from gateway.wire.block_parts import (
    Gathering,
    Object,
    Skipped,
    fingerprint_of,
    media_size,
    rendered,
    section_messages,
    section_system,
    section_tools,
)
from gateway.wire.lenient import items, members, text

if TYPE_CHECKING:
    from gateway.core.canonical import Json
    from gateway.core.prefix import Path
    from gateway.providers.prompt_cache import CacheRules

API = "bedrock_converse"

POINT = MarkerForm.CACHE_POINT.value
_CHANGES_ALL = ("modelId", "additionalModelRequestFields", "performanceConfig", "promptVariables")
_KINDS = {
    "toolSpec": Kind.TOOL,
    "systemTool": Kind.TOOL,
    "image": Kind.MEDIA,
    "document": Kind.MEDIA,
    "video": Kind.MEDIA,
    "toolUse": Kind.TOOL_USE,
    "toolResult": Kind.TOOL_RESULT,
    "reasoningContent": Kind.THINKING,
}
_MARKABLE = frozenset({"toolSpec", "image", "document", "toolUse", "toolResult"})


def read(body: Object, rules: CacheRules | None, skipped: Skipped | None = None) -> CachePrompt:
    """The prompt of a request. The model is in its path, so `model` is empty but for `modelId`."""
    found = Gathering(rules, (MarkerForm.CACHE_POINT,))
    more = members(body.get("additionalModelRequestFields"))
    found.thinks = any(more.get(name) is not None for name in ("thinking", "reasoning_config"))
    marks_assistant = rules is not None and rules.marks_assistant
    # First, because what they hold decides whether the text in front may be split.
    for at, message in enumerate(items(body.get("messages"))):
        index = found.skip(skipped, at)
        shown = members(message)
        role = text(shown.get("role"))
        can_mark = marks_assistant or role != "assistant"
        found.enter(section_messages, role, can_mark=can_mark, start=1)
        _elements(found, ("messages", index, "content"), shown.get("content"))
    messages = found.take()
    config = members(body.get("toolConfig"))
    found.enter(section_tools, "", can_mark=rules is not None and rules.marks_tools)
    _elements(found, ("toolConfig", "tools"), config.get("tools"))
    if items(body.get("system")):
        found.enter(section_system, "system")
        _elements(found, ("system",), body.get("system"))
    return CachePrompt(
        API,
        text(body.get("modelId")),
        (*found.blocks, *messages),
        fingerprint_of(body, _CHANGES_ALL),
        fingerprint_of(config, ("toolChoice",)),
        found.thinks,
        text_only=found.text_only,
    )


def _elements(found: Gathering, path: Path, content: Json) -> None:
    """The blocks of one list. A marker among them is one of the block before it."""
    begun = len(found.blocks)
    for index, part in enumerate(items(content)):
        if not isinstance(part, dict) or POINT not in part:
            _part(found, (*path, index), part)
        elif len(found.blocks) > begun:
            ttl = 3600 if members(part[POINT]).get("ttl") == "1h" else 300
            found.blocks[-1] = found.blocks[-1]._replace(client_ttl_s=ttl)
    if found.section is not section_tools:
        found.leave(path, begun)


def _part(found: Gathering, path: Path, part: Json) -> None:
    if not isinstance(part, dict):
        found.json(Kind.OTHER, path, part)
        return
    name = next(iter(part), "")
    kind = _KINDS.get(name, Kind.OTHER)
    if isinstance(shown := part.get("text"), str):
        found.text(path, shown)
    elif kind is Kind.MEDIA:
        found.text_only = False
        data = rendered(part)
        size = media_size({"type": name}, len(data))
        found.add(kind, path, data, size=size, can_mark=name in _MARKABLE)
    else:
        found.thinks = found.thinks or kind is Kind.THINKING
        data = rendered(part)
        found.add(kind, path, data, size=len(data), can_mark=name in _MARKABLE)
