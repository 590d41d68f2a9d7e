"""Anthropic Messages: the blocks of its prompt, as its cache sees them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from gateway.core.prefix import CachePrompt, Kind, PrefixBlock
from gateway.providers.prompt_cache import MarkerForm
from gateway.wire.block_parts import (
    USUAL_NAME,
    Gathering,
    Object,
    Skipped,
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
)
from gateway.wire.lenient import items, members, text

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def read(body: Object, rules: CacheRules | None, skipped: Skipped | None = None) -> CachePrompt:
    """The prompt of a request."""
    found = _Messages(rules, (MarkerForm.CACHE_CONTROL,))
    found.thinks = _asks_to_think(body)
    # First, because what they hold decides whether the text in front may be split.
    marks_assistant = rules is not None and rules.marks_assistant
    found.messages(body.get("messages"), marks_assistant, skipped)
    messages = found.take()
    found.tools(body.get("tools"), rules is not None and rules.marks_tools)
    found.system(body.get("system"))
    skills = members(body.get("container")).get("skills")
    return CachePrompt(
        API,
        text(body.get("model")),
        (*found.blocks, *messages),
        fingerprint_of(body, _CHANGES_ALL, fingerprint_of({"skills": skills}, ("skills",))),
        # An image anywhere, the first or the last one, changes all messages.
        fingerprint_of(body, _CHANGES_MESSAGES, int(found.has_images)),
        found.thinks,
        ttl_of(body),
        text_only=found.text_only,
    )


def _asks_to_think(body: Object) -> bool:
    thinking = body.get("thinking")
    return thinking is not None and members(thinking).get("type") != "disabled"


def _seeds(role: str) -> tuple[int, int, int]:
    # (One that is too long is refused there.)
    return _known_seeds(role) if len(role) <= USUAL_NAME else _all_seeds(role)


def _all_seeds(role: str) -> tuple[int, int, int]:
    return seed(role, "text"), seed(role, "tool_use"), seed(role, "tool_result")


_known_seeds = lru_cache(maxsize=64)(_all_seeds)


def _fingerprint_of_more(part: Object, known: frozenset[str]) -> int:
    """Of the members that are not among the known; 0 without any."""
    more = extras(part, known)
    return digest(rendered(more)) if more else 0


class _Messages(Gathering):
    """The reader. Most blocks of a long conversation are text, calls and results: each is built in
    one step, because a prompt may have many hundreds.
    """

    __slots__ = ("has_images",)

    def __init__(self, rules: CacheRules | None, forms: Sequence[MarkerForm]) -> None:
        """See `Gathering`."""
        super().__init__(rules, forms)
        self.has_images = False

    def system(self, system: Json) -> None:
        """A string, or text blocks."""
        begun = len(self.blocks)
        self.enter(section_system, "system")
        if isinstance(system, str):
            self.text(("system",), system)
        for index, part in enumerate(items(system)):
            path = ("system", index)
            if isinstance(part, dict) and isinstance(shown := part.get("text"), str):
                self.start = _fingerprint_of_more(part, _TEXT_MEMBERS)
                self.text(path, shown, can_mark=part.get("type") == "text", ttl=ttl_of(part))
            else:
                self.json(Kind.OTHER, path, part)
        if len(self.blocks) > begun:
            self.leave(("system",), begun)

    def messages(
        self, messages: Json, marks_assistant: bool, skipped: Skipped | None = None
    ) -> None:
        """All messages."""
        add = self.blocks.append
        for at, message in enumerate(items(messages)):
            index = self.skip(skipped, at)
            if not isinstance(message, dict):
                self.enter(section_messages, "", start=1)
                self.json(Kind.OTHER, ("messages", index), message)
                continue
            role = text(message.get("role"))
            content = message.get("content")
            can_mark = self.takes_marks and (marks_assistant or role != "assistant")
            # Where a message begins is rendered: 1 stands for that.
            start = 1
            if len(message) > 2:
                start += _fingerprint_of_more(message, _MESSAGE_MEMBERS)
            if isinstance(content, list) and content:
                self._parts(index, content, role, can_mark, start)
            elif isinstance(content, str):
                data = content.encode()
                add(
                    PrefixBlock(
                        section_messages, _TEXT, role, ("messages", index, "content"), len(data),
                        digest(data, _seeds(role)[0] + start),
                        can_mark and not is_blank(content), ttl_of(message), True,
                    )
                )  # fmt: skip
            else:
                self.enter(section_messages, role, start=start)
                begun = len(self.blocks)
                self.json(Kind.OTHER, ("messages", index), content)
                self.leave(("messages", index), begun)

    def _parts(
        self, index: int, content: list[Json], role: str, can_mark: bool, start: int
    ) -> None:
        # One step for each block, with all that it needs at hand: half the time of a call for each.
        add = self.blocks.append
        text_seed, call_seed, result_seed = _seeds(role)
        left = len(content)
        for number, part in enumerate(content):
            left -= 1
            path = ("messages", index, "content", number)
            if not isinstance(part, dict):
                part = {"": part}  # noqa: PLW2901 - no block at all: taken as one of unknown type
            kind = part.get("type")
            if kind == "text" and isinstance(shown := part.get("text"), str):
                data = shown.encode()
                ttl = 0
                if len(part) > 2:
                    ttl = ttl_of(part)
                    start += _fingerprint_of_more(part, _TEXT_MEMBERS)
                add(
                    PrefixBlock(
                        section_messages, _TEXT, role, path, len(data), digest(data, text_seed + start),
                        can_mark and shown != "" and not shown.isspace(), ttl, not left,
                    )
                )  # fmt: skip
            elif kind == "tool_use":
                data = rendered(bare(part))
                add(
                    PrefixBlock(
                        section_messages, _USE, role, path, len(data), digest(data, call_seed + start),
                        can_mark, ttl_of(part), not left,
                    )
                )  # fmt: skip
            elif kind == "tool_result":
                size, fingerprint, ttl = self._result(part, result_seed + start)
                add(
                    PrefixBlock(
                        section_messages, _RESULT, role, path, size, fingerprint, can_mark, ttl, not left
                    )
                )  # fmt: skip
            else:
                self.enter(section_messages, role, can_mark=can_mark, start=start)
                self._other(path, part, not left)
            start = 0

    def _result(self, part: Object, start: int) -> tuple[int, int, int]:
        """Size, fingerprint and the client's marker of a tool's result. As a rule the longest blocks
        of all: their texts are hashed as they are, not as JSON.
        """
        content = part.get("content")
        call = part.get("tool_use_id")
        start += digest(call.encode() if isinstance(call, str) else rendered(call))
        ttl = 0
        if len(part) > 3 or content is None or call is None:
            ttl = ttl_of(part)
            start += _fingerprint_of_more(part, _RESULT_MEMBERS)
        if isinstance(content, str):
            data = content.encode()
            return len(data), digest(data, start), ttl
        size, fingerprint, inner_ttl = self._returned(content, start + 1)
        return size, fingerprint, ttl or inner_ttl

    def _returned(self, content: Json, fingerprint: int) -> tuple[int, int, int]:
        """Size, fingerprint and the client's marker of what a tool returned in blocks."""
        size = ttl = 0
        # A sum of digests has more than 64 bits until it is a seed.
        fingerprint = digest(b"", fingerprint)
        for inner in content if isinstance(content, list) else (content,):
            if not isinstance(inner, dict):
                data = rendered(inner)
            elif inner.get("type") == "text" and isinstance(shown := inner.get("text"), str):
                data = shown.encode()
                size += len(data)
                if len(inner) > 2:
                    ttl = ttl or ttl_of(inner)
                    fingerprint += _fingerprint_of_more(inner, _TEXT_MEMBERS)
            else:
                data, inner_ttl = spoken(inner)
                size += self._size([inner])
                ttl = ttl or inner_ttl
            fingerprint = digest(data, fingerprint)
        return size, fingerprint, ttl

    def _other(self, path: Path, part: Object, ends: bool) -> None:
        shown, ttl = spoken(part)
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
        self.add(kind, path, shown, size=size, can_mark=name in _MARKABLE, ttl=ttl)
        if ends:
            self.leave(path, len(self.blocks) - 1)

    def _size(self, content: Json) -> int:
        """Of what a result, or a document, is made of."""
        size = 0
        for inner in items(content):
            if not isinstance(inner, dict):
                continue
            shown = inner.get("text")
            if inner.get("type") in _MEDIA:
                size += self._media_size(inner, len(spoken(inner)[0]))
            else:
                size += len(shown.encode() if isinstance(shown, str) else spoken(inner)[0])
        return size

    def _media_size(self, part: Object, shown: int) -> int:
        if part.get("type") == "image":
            self.has_images, self.text_only = True, False
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
