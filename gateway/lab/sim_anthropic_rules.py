"""What Anthropic's Messages API refuses about prompt caching, and in which words.

Written from the documentation and from recorded refusals alone: it shares no code with the parts
of the gateway that place markers, because it judges them. Where a rule is documented but its
wording is not, the words are ours; docs/how-to/simulate.md says which.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

MAX_MARKS = 4
EXTRA = "Extra inputs are not permitted"
BINDING_BETA = "thinking-binding-controls-2026-08-01"
_SCOPE_BETA = "prompt-caching-scope-2026-01-05"
_TTLS = {None: "5m", "5m": "5m", "1h": "1h"}
_TOP_LEVEL = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "tools", "tool_choice", "stream"),
        *("cache_control", "thinking", "output_config", "output_format", "stop_sequences"),
        *("temperature", "top_p", "top_k", "metadata", "service_tier", "container", "mcp_servers"),
        *("context_management", "compaction", "diagnostics", "inference_geo", "speed", "fallbacks"),
        *("fallback_credit_token", "billing_policy", "thread", "user_profile_id", "workspace_id"),
    }
)
CARRIES = frozenset(
    {
        *("text", "image", "document", "search_result", "tool_use", "tool_result"),
        *("server_tool_use", "web_search_tool_result", "web_fetch_tool_result"),
        *("code_execution_tool_result", "bash_code_execution_tool_result"),
        *("text_editor_code_execution_tool_result", "tool_search_tool_result"),
        *("container_upload", "tool_reference", "tool_addition", "tool_removal", "compaction"),
        *("mcp_tool_use", "mcp_tool_result", "browser_state", "advisor_tool_result"),
    }
)
"""Types of blocks with a `cache_control` in the official SDK (2.12); thinking is not among them."""
_SAID_BY_OPERATOR = frozenset({"text", "tool_addition", "tool_removal"})
_NAME = re.compile(r"claude-(opus|sonnet|haiku|fable|mythos)-(\d+)(?:-(\d{1,2}))?(?!\d)")
_BINDS_FROM = {"fable": (5, 1), "mythos": (5, 1), "opus": (5, 5), "sonnet": (5, 5), "haiku": (5, 5)}
_SYSTEM_MESSAGES_FROM = {"fable": (5, 0), "mythos": (5, 0), "opus": (4, 8), "sonnet": (5, 5)}


class _Place(NamedTuple):
    """Something that a marker may stand on, or be refused on."""

    where: str
    """`messages.0.content.1`."""
    tag: str
    """What the API calls its type in a path: `text`, `tool_result`, `custom`."""
    block: Json | None
    """None for text that stands as a bare string."""
    text: str | None
    eligible: bool

    @property
    def ttl(self) -> str | None:
        """The lifetime asked for here; None without a marker."""
        control = (self.block or {}).get("cache_control")
        return _TTLS[control.get("ttl")] if isinstance(control, dict) else None


def binds_thinking(model: str) -> bool:
    """Does this model bind a thinking block to everything before it?"""
    return _at_least(model, _BINDS_FROM)


def takes_system_messages(model: str) -> bool:
    """Does it take `{"role": "system"}` in the middle of a conversation?"""
    return _at_least(model, _SYSTEM_MESSAGES_FROM)


def refusal(
    body: Json,
    betas: frozenset[str] = frozenset(),
    *,
    blank_text: bool = False,
    counts: bool = False,
) -> str | None:
    """The message of the 400 that this request gets, or None if it is taken.

    `blank_text`: blank text without a marker is let through, as not every model refuses it.
    `counts`: the request is one for `count_tokens`, which needs no `max_tokens`.
    """
    return next(_faults(body, betas, blank_text, counts), None)


def _faults(body: Json, betas: frozenset[str], blank_text: bool, counts: bool) -> Iterator[str]:
    required = ("model", "messages") if counts else ("model", "max_tokens", "messages")
    yield from (f"{name}: Field required" for name in required if name not in body)
    yield from _misshapen(body)
    yield from (f"{name}: {EXTRA}" for name in body if name not in _TOP_LEVEL)
    yield from _control_faults(body, "cache_control", betas)
    thinking = body.get("thinking") or {}
    if "block_binding" in thinking and BINDING_BETA not in betas:
        yield f"thinking.{thinking.get('type')}.block_binding: {EXTRA}"
    places = list(_places(body))
    for place in places:
        yield from _place_faults(place, betas)
    yield from _system_messages(body)
    if not blank_text:
        yield from _blank(places)
    yield from _deferred(body)
    yield from _marks(body, places)
    if body.get("max_tokens") == 0:
        yield from _prewarm(body)


def _misshapen(body: Json) -> Iterator[str]:
    if not isinstance(body["model"], str):
        yield "model: Input should be a valid string"
    if not isinstance(body["messages"], list):
        yield "messages: Input should be a valid list"
    if not body["messages"]:
        yield "messages: at least one message is required"
    for i, message in enumerate(body["messages"]):
        yield from _not_a_message(message, f"messages.{i}")
    system = body.get("system")
    if system is not None:
        yield from _not_blocks(system, "system")
        kinds = [block["type"] for block in _objects(system)]
        yield from (
            f"system.{i}.type: Input should be 'text'" for i, k in enumerate(kinds) if k != "text"
        )
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        yield "tools: Input should be a valid list"


def _not_a_message(message: Any, where: str) -> Iterator[str]:
    if not isinstance(message, dict):
        yield f"{where}: Input should be an object"
    if message.get("role") not in {"user", "assistant", "system"}:
        yield f"{where}.role: Input should be 'user', 'assistant' or 'system'"
    yield from _not_blocks(message.get("content"), f"{where}.content")
    if "cache_control" in message:
        yield f"{where}.cache_control: {EXTRA}"


def _not_blocks(content: Any, where: str) -> Iterator[str]:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        yield f"{where}: Input should be a valid list"
    for i, block in enumerate(content):
        if not isinstance(block, dict):
            yield f"{where}.{i}: Input should be an object"
        if not isinstance(block.get("type"), str):
            yield f"{where}.{i}.type: Field required"
        if block["type"] == "text" and not isinstance(block.get("text"), str):
            yield f"{where}.{i}.text.text: Input should be a valid string"


def _places(body: Json) -> Iterator[_Place]:
    """Everything that a marker could stand on, in the order in which it is processed."""
    for i, tool in enumerate(body.get("tools") or []):
        tag = tool.get("type") or "custom"
        yield _Place(f"tools.{i}", tag, tool, None, not _is_deferred(tool))
    system = body.get("system")
    if isinstance(system, str):
        yield _Place("system", "text", None, system, bool(system.strip()))
    for i, block in enumerate(system if isinstance(system, list) else []):
        yield _Place(f"system.{i}", "text", block, block["text"], bool(block["text"].strip()))
    for i, message in enumerate(body["messages"]):
        content = message["content"]
        if isinstance(content, str):
            yield _Place(f"messages.{i}.content", "text", None, content, bool(content.strip()))
            continue
        for j, block in enumerate(content):
            kind = block["type"]
            text = block["text"] if kind == "text" else None
            eligible = kind in CARRIES and (text is None or bool(text.strip()))
            yield _Place(f"messages.{i}.content.{j}", kind, block, text, eligible)


def _place_faults(place: _Place, betas: frozenset[str]) -> Iterator[str]:
    block = place.block
    if block is None:
        return
    in_system = place.where.startswith("system.")
    tagged = place.where if in_system else f"{place.where}.{place.tag}"
    if (
        place.where.startswith("messages.")
        and place.tag not in CARRIES
        and "cache_control" in block
    ):
        yield f"{tagged}.cache_control: {EXTRA}"
    yield from _control_faults(block, f"{tagged}.cache_control", betas)
    if place.where.startswith("tools."):
        for name, config in _members(block.get("configs")):
            if "cache_control" in config:
                yield f"{tagged}.configs.{name}.cache_control: {EXTRA}"
    elif place.tag == "tool_result":
        for i, inner in enumerate(_objects(block.get("content"))):
            if inner.get("cache_control") is not None:
                yield (
                    f"{tagged}.content.{i}.cache_control: cache_control may not be specified "
                    "within `tool_result.content`. Instead, place it directly on `tool_result`"
                )
    else:
        yield from _buried(block, tagged)


def _buried(block: Json, where: str) -> Iterator[str]:
    """Markers on parts of a block: of a document, a search result, a citation."""
    source = block.get("source")
    inner = {
        "citations": block.get("citations"),
        "content": block.get("content"),
        "source.content": source.get("content") if isinstance(source, dict) else None,
    }
    for name, parts in inner.items():
        for i, part in enumerate(_objects(parts)):
            if part.get("cache_control") is not None:
                yield f"{where}.{name}.{i}.cache_control: {EXTRA}"


def _control_faults(holder: Json, where: str, betas: frozenset[str]) -> Iterator[str]:
    control = holder.get("cache_control")
    if control is None:
        return
    if not isinstance(control, dict):
        yield f"{where}: Input should be an object"
    if control.get("type") != "ephemeral":
        yield (
            f"{where}: Input tag '{control.get('type')}' found using 'type' does not match any of "
            "the expected tags: 'ephemeral'"
        )
    if control.get("ttl") not in {None, "5m", "1h"}:
        yield f"{where}.ephemeral.ttl: Input should be '5m' or '1h'"
    known = {"type", "ttl", "scope"} if _SCOPE_BETA in betas else {"type", "ttl"}
    yield from (f"{where}.ephemeral.{name}: {EXTRA}" for name in control if name not in known)


def _system_messages(body: Json) -> Iterator[str]:
    before: Json | None = None
    for i, message in enumerate(body["messages"]):
        if message["role"] == "system":
            if not takes_system_messages(body["model"]):
                yield "role 'system' is not supported on this model"
            if before is None:
                yield f"messages.{i}: role 'system' must not come first"
            elif not (before["role"] == "user" or _ends_in_server_tool_use(before)):
                yield f"messages.{i}: role 'system' must follow a user message"
            blocks = _objects(message["content"])
            if any(block["type"] not in _SAID_BY_OPERATOR for block in blocks):
                yield f"messages.{i}.content: role 'system' takes text only"
        before = message


def _ends_in_server_tool_use(message: Json) -> bool:
    blocks = _objects(message["content"])
    return bool(blocks) and blocks[-1]["type"] == "server_tool_use"


def _blank(places: list[_Place]) -> Iterator[str]:
    for place in places:
        if place.text is None or place.text.strip() or place.ttl is not None:
            continue
        if place.where == "system":
            continue
        whole = place.where.partition(".")[0]
        yield (
            f"{whole}: text content blocks must contain non-whitespace text"
            if place.text
            else f"{whole}: text content blocks must be non-empty"
        )


def _deferred(body: Json) -> Iterator[str]:
    for tool in body.get("tools") or []:
        if _is_deferred(tool) and tool.get("cache_control") is not None:
            name = tool.get("name") or tool.get("mcp_server_name")
            yield (
                f"Tool '{name}' cannot have both defer_loading=true and cache_control set. "
                "Tools with defer_loading cannot use prompt caching."
            )


def _is_deferred(tool: Json) -> bool:
    defaults = tool.get("default_config")
    deferred = isinstance(defaults, dict) and defaults.get("defer_loading") is True
    return tool.get("defer_loading") is True or deferred


def _marks(body: Json, places: list[_Place]) -> Iterator[str]:
    marked = [place for place in places if place.ttl is not None]
    for place in marked:
        if place.text is not None and not place.text.strip():
            where = place.where if place.where.startswith("system") else f"{place.where}.text"
            if not place.text:
                yield f"{where}: cache_control cannot be set for empty text blocks"
            yield (
                f"{place.where.partition('.')[0]}: "
                "text content blocks must contain non-whitespace text"
            )
    automatic = body.get("cache_control")
    found = len(marked) + (automatic is not None)
    if found > MAX_MARKS:
        yield (
            f"A maximum of {MAX_MARKS} blocks with cache_control may be provided. Found {found}."
        )
    lifetimes = [(f"{place.where}.cache_control.ttl", place.ttl) for place in marked]
    last = next((place for place in reversed(places) if place.eligible), None)
    if automatic is not None and last is not None:
        wanted = _TTLS[automatic.get("ttl")]
        if last.ttl not in {None, wanted}:
            yield (
                f"cache_control.ttl: the last block has cache_control with ttl='{last.ttl}' and "
                f"cannot also be cached automatically with ttl='{wanted}'."
            )
        if last.ttl is None:
            later = places[places.index(last) + 1 :]
            behind = sum(place.ttl is not None for place in later)
            lifetimes.insert(len(lifetimes) - behind, ("cache_control.ttl", wanted))
    short = False
    for where, ttl in lifetimes:
        if ttl == "1h" and short:
            yield (
                f"{where}: a ttl='1h' cache_control block must not come after a ttl='5m' "
                "cache_control block. Note that blocks are processed in the following order: "
                "`tools`, `system`, `messages`."
            )
        short = short or ttl == "5m"


def _prewarm(body: Json) -> Iterator[str]:
    thinking = (body.get("thinking") or {}).get("type", "disabled")
    forbidden = {
        "stream": body.get("stream") is True,
        "thinking": thinking != "disabled",
        "output_config.format": bool(_format(body)),
        "tool_choice": (body.get("tool_choice") or {}).get("type") in {"any", "tool"},
    }
    yield from (
        f"max_tokens: 0 cannot be used with `{name}`" for name, there in forbidden.items() if there
    )


def _format(body: Json) -> Any:
    return (body.get("output_config") or {}).get("format") or body.get("output_format")


def _at_least(model: str, versions: dict[str, tuple[int, int]]) -> bool:
    named = _NAME.search(model)
    if named is None or named[1] not in versions:
        return False
    return (int(named[2]), int(named[3] or 0)) >= versions[named[1]]


def _objects(value: Any) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _members(value: Any) -> list[tuple[str, Json]]:
    named = value.items() if isinstance(value, dict) else ()
    return [(name, each) for name, each in named if isinstance(each, dict)]
