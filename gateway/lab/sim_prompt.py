"""A request's prompt as the simulated provider takes it: blocks, fingerprints, tokens, markers.

Made from the request's JSON by the documentation alone, apart from how the gateway reads it: who
judges what the gateway does must not share its reading. Digests are of the JSON as it was spelled,
member order of schemas and arguments included; a bare string counts as the one text part that it
is short for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import xxhash

from gateway.core.blocks import Section
from gateway.core.prefix import Kind, PrefixBlock
from gateway.lab.sim_anthropic_rules import CARRIES

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

BYTES_PER_TOKEN = 4
"""What the simulation counts by, whatever the model."""
_MEDIA_BYTES = 1500 * BYTES_PER_TOKEN
_TTL_S = {None: 300, "5m": 300, "1h": 3600, "30m": 1800}
_MARKERS = ("cache_control", "prompt_cache_breakpoint")
_MEDIA = frozenset({"image", "image_url", "input_image", "input_audio", "file", "input_file"})
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_BILLING = "x-anthropic-billing-header:"
_CLAUDE = re.compile(r"claude-(opus|sonnet|haiku|fable|mythos)-(\d+)(?:-(\d{1,2}))?(?!\d)")
_KEEPS_THINKING_FROM = {"opus": (4, 5), "sonnet": (4, 6), "haiku": (5, 0)}


class Rendered(NamedTuple):
    """What a provider's cache goes by."""

    blocks: tuple[PrefixBlock, ...]
    chain: list[int]
    """Fingerprint of all up to each block's end."""
    tokens: list[int]
    """Cumulative, at each block's end."""
    marks: list[tuple[int, int]]
    """Block and lifetime in seconds of each marker."""
    automatic_ttl: int
    mode: str
    seeds: dict[Section, int]
    """Fingerprint of what changes a section, and all behind it, without being in any block."""

    @property
    def total_tokens(self) -> int:
        """Of the whole prompt."""
        return self.tokens[-1] if self.tokens else 0


def anthropic(body: Json) -> Rendered:
    """The prompt of a Messages request that was not refused."""
    blocks = _tools(body)
    system = _parts(body.get("system") or [])
    blocks += [_block(Section.SYSTEM, part, ("system", i), "system") for i, part in system]
    messages = body["messages"]
    forgets = 0 if _keeps_thinking(body["model"]) else _last_question(messages)
    for i, message in enumerate(messages):
        parts = [
            (j, part)
            for j, part in _parts(message["content"])
            if not (i < forgets and part["type"] in _THOUGHTS)
        ]
        blocks += _said(parts, ("messages", i, "content"), message["role"])
    thinking = {k: v for k, v in (body.get("thinking") or {}).items() if k != "block_binding"}
    effort = (body.get("output_config") or {}).get("effort")
    seeds = {
        Section.TOOLS: [body["model"]],
        Section.SYSTEM: [body.get("speed"), _cites(messages)],
        # "Effort set explicitly to the default value" changes nothing: it is `high`.
        Section.MESSAGES: [body.get("tool_choice"), thinking, effort if effort != "high" else None],
    }
    automatic = body.get("cache_control") or {}
    ttl_s = _TTL_S[automatic.get("ttl")] if automatic else 0
    return _rendered(blocks, seeds, ttl_s, "")


def openai(api: str, body: Json) -> Rendered:
    """The prompt of a request to `chat` or `responses` that was not refused."""
    blocks = _tools(body)
    member = "messages" if api == "chat" else "input"
    given = body.get(member) or []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    opening = 0
    while opening < len(items) and items[opening].get("role") in {"system", "developer"}:
        opening += 1
    if body.get("instructions"):
        said = {"type": "input_text", "text": body["instructions"]}
        blocks.append(_block(Section.SYSTEM, said, ("instructions",), "system"))
    for i, item in enumerate(items):
        section = Section.SYSTEM if i < opening else Section.MESSAGES
        blocks += _item(item, (member, i), section)
    text = body.get("text") or {}
    told = ("model", "parallel_tool_calls", "response_format", "reasoning_effort", "service_tier")
    seeds = {
        Section.TOOLS: [
            *map(body.get, (*told, "verbosity")),
            *map(text.get, ("format", "verbosity")),
            (body.get("reasoning") or {}).get("effort"),
        ]
    }
    blocks = [block._replace(can_mark=True) for block in blocks]
    return _rendered(blocks, seeds, 0, (body.get("prompt_cache_options") or {}).get("mode") or "")


def _tools(body: Json) -> list[PrefixBlock]:
    """Those that stand in front; a deferred one is loaded where it is looked for."""
    tools = enumerate(body.get("tools") or [])
    return [
        _block(Section.TOOLS, tool, ("tools", i), "") for i, tool in tools if not _is_deferred(tool)
    ]


def _item(item: Json, path: tuple[str | int, ...], section: Section) -> Iterator[PrefixBlock]:
    """The blocks of one message, or of one item of the Responses API."""
    role = str(item.get("role") or "assistant")
    kind = str(item.get("type") or "message")
    if role == "tool" or kind.endswith("_output"):
        member = "content" if role == "tool" else "output"
        parts = _parts(item.get(member) or "")
        yield from _said(parts, (*path, member), "tool", section, Kind.TOOL_RESULT)
    elif kind == "message":
        calls = [(j, call) for j, call in enumerate(item.get("tool_calls") or [])]
        said = _said(_parts(item.get("content") or []), (*path, "content"), role, section)
        made = _said(calls, (*path, "tool_calls"), role, section, Kind.TOOL_USE)
        yield from [*(b._replace(ends_message=not calls and b.ends_message) for b in said), *made]
    else:
        use = Kind.TOOL_USE if kind.endswith("_call") else Kind.OTHER
        yield from _said([(0, item)], path, role, section, use)


def _said(
    parts: list[tuple[int, Json]],
    path: tuple[str | int, ...],
    role: str,
    section: Section = Section.MESSAGES,
    kind: Kind | None = None,
) -> list[PrefixBlock]:
    made = [_block(section, part, (*path, i), role, kind) for i, part in parts]
    return [*made[:-1], *(block._replace(ends_message=True) for block in made[-1:])]


def _block(
    section: Section,
    part: Json,
    path: tuple[str | int, ...],
    role: str,
    kind: Kind | None = None,
) -> PrefixBlock:
    bare = {name: value for name, value in sorted(part.items()) if name not in _MARKERS}
    named = str(part.get("type", ""))
    text = part.get("text") if named in {"text", "input_text", "output_text"} else None
    if section is Section.SYSTEM and isinstance(text, str) and text.startswith(_BILLING):
        # Anthropic's own client sends another one with each request and is still cached.
        bare = {"type": named, "text": _BILLING}
    if kind is None:
        kind = Kind.TOOL if section is Section.TOOLS else _kind(named)
    if kind is Kind.TEXT:
        bare["type"] = "text"
    spelled = orjson.dumps([section, role, kind, bare])
    size = _MEDIA_BYTES if kind is Kind.MEDIA else len(orjson.dumps(bare))
    if isinstance(text, str):
        size = len(text.encode())
    mark = next((part[name] for name in _MARKERS if part.get(name) is not None), None)
    form = "30m" if part.get("prompt_cache_breakpoint") is not None else (mark or {}).get("ttl")
    return PrefixBlock(
        section=section,
        kind=kind,
        role=role,
        path=path,
        size=size,
        digest=xxhash.xxh3_64_intdigest(spelled),
        can_mark=bool(text.strip()) if text is not None else _may_carry(section, named),
        client_ttl_s=_TTL_S[form] if mark is not None else 0,
    )


def _may_carry(section: Section, named: str) -> bool:
    return section is not Section.MESSAGES or named in CARRIES


def _kind(named: str) -> Kind:
    if named in {"text", "input_text", "output_text"}:
        return Kind.TEXT
    if named in _MEDIA:
        return Kind.MEDIA
    if named in _THOUGHTS:
        return Kind.THINKING
    if named in {"tool_use", "tool_result"}:
        return Kind(named)
    return Kind.OTHER


def _rendered(
    blocks: list[PrefixBlock], seeds: dict[Section, list[Any]], automatic_ttl: int, mode: str
) -> Rendered:
    chain: list[int] = []
    tokens: list[int] = []
    fingerprint = size = 0
    mixed: dict[Section, int] = {}
    for section in Section:
        # What a section depends on is mixed in before its first block, even if there is none: a
        # model differs for a prompt without tools, too.
        seed = mixed[section] = xxhash.xxh3_64_intdigest(orjson.dumps(seeds.get(section)))
        fingerprint = _mix(fingerprint, seed)
        for block in blocks:
            if block.section is section:
                fingerprint = _mix(fingerprint, block.digest)
                size += block.size
                chain.append(fingerprint)
                tokens.append(-(-size // BYTES_PER_TOKEN))
    marks = [(i, block.client_ttl_s) for i, block in enumerate(blocks) if block.client_ttl_s]
    return Rendered(tuple(blocks), chain, tokens, marks, automatic_ttl, mode, mixed)


def _mix(one: int, other: int) -> int:
    return xxhash.xxh3_64_intdigest(one.to_bytes(8, "big") + other.to_bytes(8, "big"))


def _parts(content: Any) -> list[tuple[int, Json]]:
    if isinstance(content, str):
        return [(0, {"type": "text", "text": content})] if content else []
    if isinstance(content, dict):
        return [(0, content)]
    return list(enumerate(content))


def _is_deferred(tool: Json) -> bool:
    defaults = tool.get("default_config") or {}
    return tool.get("defer_loading") is True or defaults.get("defer_loading") is True


def _cites(messages: list[Json]) -> bool:
    parts = [part for message in messages for _, part in _parts(message["content"])]
    return any((part.get("citations") or {}) == {"enabled": True} for part in parts)


def _keeps_thinking(model: str) -> bool:
    named = _CLAUDE.search(model)
    if named is None:
        return True
    since = _KEEPS_THINKING_FROM.get(named[1], (0, 0))
    return (int(named[2]), int(named[3] or 0)) >= since


def _last_question(messages: list[Json]) -> int:
    """Index of the last user message that is more than tool results: thinking before it is gone."""
    for i in range(len(messages) - 1, -1, -1):
        kinds = {part["type"] for _, part in _parts(messages[i]["content"])}
        if messages[i]["role"] == "user" and kinds - {"tool_result"}:
            return i
    return 0
