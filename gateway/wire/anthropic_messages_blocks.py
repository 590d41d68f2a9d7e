"""Anthropic Messages: the blocks of its prompt, as its cache sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.prefix import CachePrompt, Kind, PrefixBlock
from gateway.providers.prompt_cache import MarkerForm
from gateway.wire.block_parts import (
    Gathering,
    Object,
    bare,
    digest,
    extras,
    fingerprint_of,
    is_blank,
    media_size,
    rendered,
    section_messages,
    section_system,
    seed,
    spoken,
    ttl_of,
    ttl_within,
)
from gateway.wire.lenient import items, members, text

if TYPE_CHECKING:
    from gateway.core.canonical import Json
    from gateway.core.prefix import Path
    from gateway.providers.prompt_cache import CacheRules

API = "anthropic_messages"

# What changes all of the prefix, on some models at least. Thinking and effort are rendered in front
# of the tools on some; the documentation doesn't say on which.
_CHANGES_ALL = (
    "model",
    "thinking",
    "output_config",
    "output_format",
    "speed",
    "mcp_servers",
    "context_management",
)
_CHANGES_MESSAGES = ("tool_choice",)

_TEXT_MEMBERS = frozenset({"type", "text"})
_MESSAGE_MEMBERS = frozenset({"role", "content"})
_RESULT_MEMBERS = frozenset({"type", "content", "tool_use_id"})
_MEDIA = frozenset({"image", "document"})
_THINKING = frozenset({"thinking", "redacted_thinking"})
# Blocks that are documented to take a marker, besides text, calls and results.
_MARKABLE = _MEDIA | {
    "search_result",
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "container_upload",
    "tool_reference",
}

_TEXT, _USE, _RESULT = Kind.TEXT, Kind.TOOL_USE, Kind.TOOL_RESULT


def read(body: Object, rules: CacheRules | None) -> CachePrompt:
    """The prompt of a request."""
    found = _Messages(rules, (MarkerForm.CACHE_CONTROL,))
    found.thinks = _asks_to_think(body)
    # First, because what they hold decides whether the text in front may be split.
    found.messages(body.get("messages"), rules is not None and rules.marks_assistant)
    messages = found.take()
    found.tools(body.get("tools"), rules is not None and rules.marks_tools)
    found.system(body.get("system"))
    skills = members(body.get("container")).get("skills")
    return CachePrompt(
        API,
        text(body.get("model")),
        (*found.blocks, *messages),
        fingerprint_of(body, _CHANGES_ALL, fingerprint_of({"skills": skills}, ("skills",))),
        fingerprint_of(body, _CHANGES_MESSAGES),
        found.thinks,
        ttl_of(body),
        text_only=found.text_only,
    )


def _asks_to_think(body: Object) -> bool:
    thinking = body.get("thinking")
    return thinking is not None and members(thinking).get("type") != "disabled"


class _Messages(Gathering):
    """The reader. Most blocks of a long conversation are text, calls and results: each is built in
    one step, because a prompt may have many hundreds.
    """

    __slots__ = ()

    def system(self, system: Json) -> None:
        """A string, or text blocks."""
        begun = len(self.blocks)
        self.enter(section_system, "system")
        if isinstance(system, str):
            self.text(("system",), system)
        for index, part in enumerate(items(system)):
            path = ("system", index)
            if isinstance(part, dict) and isinstance(shown := part.get("text"), str):
                if more := extras(part, _TEXT_MEMBERS):
                    self.start = digest(rendered(more))
                self.text(path, shown, can_mark=part.get("type") == "text", ttl=ttl_of(part))
            else:
                self.json(Kind.OTHER, path, part)
        if len(self.blocks) > begun:
            self.leave(("system",), begun)

    def messages(self, messages: Json, marks_assistant: bool) -> None:
        """All messages."""
        for index, message in enumerate(items(messages)):
            if not isinstance(message, dict):
                self.enter(section_messages, "", start=1)
                self.json(Kind.OTHER, ("messages", index), message)
                continue
            role = text(message.get("role"))
            # Where a message begins is rendered: 1 stands for that.
            start = 1
            if len(message) > 2 and (more := extras(message, _MESSAGE_MEMBERS)):
                start = digest(rendered(more))
            can_mark = marks_assistant or role != "assistant"
            self.enter(section_messages, role, can_mark=can_mark, start=start)
            content = message.get("content")
            if isinstance(content, list) and content:
                self._parts(index, content)
            elif isinstance(content, str):
                path = ("messages", index, "content")
                self.blocks.append(self._text(path, {"text": content}, content, True))
            else:
                self.json(Kind.OTHER, ("messages", index), content)

    def _parts(self, index: int, content: list[Json]) -> None:
        add = self.blocks.append
        left = len(content)
        for number, part in enumerate(content):
            left -= 1
            path = ("messages", index, "content", number)
            if not isinstance(part, dict):
                self.json(Kind.OTHER, path, part)
                continue
            kind = part.get("type")
            if kind == "text" and isinstance(shown := part.get("text"), str):
                add(self._text(path, part, shown, not left))
            elif kind == "tool_use":
                add(self._call(path, part, not left))
            elif kind == "tool_result":
                add(self._result(path, part, not left))
            else:
                add(self._other(path, part, not left))
            self.start = 0

    def _text(self, path: Path, part: Object, shown: str, ends: bool) -> PrefixBlock:
        data = shown.encode()
        start = self.start + seed(self.role, "text")
        ttl = 0
        if len(part) > 2:
            ttl = ttl_of(part)
            if more := extras(part, _TEXT_MEMBERS):
                start += digest(rendered(more))
        return PrefixBlock(
            section_messages, _TEXT, self.role, path, len(data), digest(data, start),
            self.can_mark and not is_blank(shown), ttl, ends,
        )  # fmt: skip

    def _call(self, path: Path, part: Object, ends: bool) -> PrefixBlock:
        data = rendered(bare(part))
        return PrefixBlock(
            section_messages, _USE, self.role, path, len(data),
            digest(data, self.start + seed(self.role, "tool_use")),
            self.can_mark, ttl_of(part), ends,
        )  # fmt: skip

    def _result(self, path: Path, part: Object, ends: bool) -> PrefixBlock:
        content = part.get("content")
        start = self.start + seed(self.role, "tool_result")
        if not isinstance(content, str):
            shown = spoken(part)
            return PrefixBlock(
                section_messages, _RESULT, self.role, path, self._size(content),
                digest(shown, start), self.can_mark, ttl_within(part), ends,
            )  # fmt: skip
        # As a rule the longest blocks of all: the text is hashed as it is, not as JSON.
        data = content.encode()
        start += digest(text(part.get("tool_use_id")).encode())
        ttl = 0
        if len(part) > 3:
            ttl = ttl_of(part)
            if more := extras(part, _RESULT_MEMBERS):
                start += digest(rendered(more))
        return PrefixBlock(
            section_messages, _RESULT, self.role, path, len(data), digest(data, start),
            self.can_mark, ttl, ends,
        )  # fmt: skip

    def _other(self, path: Path, part: Object, ends: bool) -> PrefixBlock:
        shown = spoken(part)
        size = len(shown)
        kind = Kind.OTHER
        name = text(part.get("type"))
        if name in _THINKING:
            self.thinks = True
            kind = Kind.THINKING
            # The signature is not for the model.
            size = len((text(part.get("thinking")) or text(part.get("data"))).encode())
        elif name in _MEDIA:
            kind = Kind.MEDIA
            size = self._media_size(part, size)
        return PrefixBlock(
            section_messages, kind, self.role, path, size,
            digest(shown, self.start + seed(self.role, kind)),
            self.can_mark and name in _MARKABLE, ttl_within(part), ends,
        )  # fmt: skip

    def _size(self, content: Json) -> int:
        """Of what a result, or a document, is made of."""
        size = 0
        for inner in items(content):
            if not isinstance(inner, dict):
                continue
            shown = inner.get("text")
            if inner.get("type") in _MEDIA:
                size += self._media_size(inner, len(spoken(inner)))
            else:
                size += len(shown.encode() if isinstance(shown, str) else spoken(inner))
        return size

    def _media_size(self, part: Object, shown: int) -> int:
        source = members(part.get("source"))
        inner = source.get("content")
        match source.get("type"):
            case "text":
                return len(text(source.get("data")).encode())
            case "content":
                return len(inner.encode()) if isinstance(inner, str) else self._size(inner)
            case _:
                self.text_only = False
                return media_size(part, shown)
