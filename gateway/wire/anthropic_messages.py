"""Anthropic Messages: what a request asks, and our own errors in its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from gateway.core import canonical
from gateway.core.model import Ask, Form, Question, Reason
from gateway.wire import anthropic_messages_answer, envelope, lenient, live

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.canonical import Json
    from gateway.core.mint import Mint
    from gateway.core.model import Answer, Entry
    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object

# Tools that the client runs itself; each but `custom` has a dated version: `bash_20250124`. Any
# other type runs at the provider, or shows a screen, and what it finds changes from day to day.
_CLIENT_TOOLS = ("bash_", "text_editor_", "memory_")
_ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class AnthropicMessages:
    """`POST /v1/messages`."""

    name = "anthropic_messages"
    route = "/v1/messages"
    operation = "chat"
    request_id_header = "request-id"

    def understand(self, body: bytes, rules: ApiRules) -> Question:
        """See `WireApi.understand`."""
        return _understood(envelope.parse_object(body), rules)

    def with_stream_usage(self, body: bytes, ask: Ask, rules: ApiRules) -> bytes | None:  # noqa: ARG002 - the protocol's
        """See `WireApi.with_stream_usage`: here every stream states its usage."""
        return None

    def without_unasked_usage(self, event: bytes) -> bytes:
        """See `WireApi.without_unasked_usage`."""
        return event

    def answer_id(self, event: bytes) -> str:
        """See `WireApi.answer_id`."""
        return live.member(event, "message", "id")

    def read_body(self, document: bytes, rules: ApiRules) -> Answer:  # noqa: ARG002 - the protocol's
        """See `WireApi.read_body`."""
        return anthropic_messages_answer.read_body(document)

    def read_stream(self, events: bytes, rules: ApiRules) -> Answer:  # noqa: ARG002 - the protocol's
        """See `WireApi.read_stream`."""
        return anthropic_messages_answer.read_stream(events)

    def can_serve(self, entry: Entry, ask: Ask) -> bool:
        """See `WireApi.can_serve`."""
        return ask.form in entry.forms

    def serve(self, entry: Entry, ask: Ask, mint: Mint, rules: ApiRules) -> bytes:  # noqa: ARG002 - the protocol's
        """See `WireApi.serve`."""
        return anthropic_messages_answer.serve(entry, ask, mint)

    def error(self, status: int, message: str, code: str, param: str | None) -> bytes:
        """See `WireApi.error`: `{"type": "error", "error": {"type", "message", "code", "param"}}`.

        The last two are ours: the API has no such members, and its SDKs keep what they don't know.
        """
        kind = _ERRORS.get(status, "invalid_request_error" if status < 500 else "api_error")
        error = {"type": kind, "message": message, "code": code, "param": param}
        return orjson.dumps({"type": "error", "error": error, "request_id": None})


def _understood(request: Object, rules: ApiRules) -> Question:
    model = envelope.text(request, "model", "$")
    messages = envelope.objects(request, "messages", "$")
    system = _blocks(request, "system", "$") if request.get("system") is not None else []
    tools = envelope.objects(request, "tools", "$") if request.get("tools") is not None else []
    blocks = _all_blocks(messages)
    ids = _tool_ids(blocks)

    def render(renamed: Mapping[str, Json]) -> bytes:
        return envelope.render(
            envelope.fold_top(
                request,
                rules,
                {
                    "messages": lambda _: _messages(messages, rules, renamed),
                    "system": lambda text: _content(text, system, rules, renamed),
                    "tools": lambda value: _tools(tools, rules) if tools else value,
                    "output_config": lambda given: envelope.fold_schema_at(
                        given, ("format", "schema"), rules
                    ),
                },
            )
        )

    return Question(
        ask=Ask(
            form=Form.STREAM if envelope.flag(request, "stream") else Form.BODY,
            model=model,
            history_ids=frozenset(ids),
            max_output_tokens=envelope.whole(request.get("max_tokens")),
            deterministic=envelope.number(request.get("temperature")) == 0.0,
        ),
        canonical=envelope.rename_ids(ids, render)
        if ids and _may_rename(model, request, blocks, rules)
        else render({}),
        pass_reason=_pass_reason(request, model, blocks, tools),
    )


def _blocks(owner: Object, name: str, where: str) -> list[Object]:
    """The blocks of a member that is a string (then there are none) or a list of blocks."""
    return [] if isinstance(owner.get(name), str) else envelope.objects(owner, name, where)


def _all_blocks(messages: list[Object]) -> list[Object]:
    """The blocks of all messages, in order. Raises `NotUnderstood`."""
    blocks: list[Object] = []
    for index, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            envelope.text(message, "role", f"$.messages[{index}]")
        if not isinstance(message.get("content"), str):
            blocks += envelope.objects(message, "content", f"$.messages[{index}]")
    return blocks


# --- what makes the answer depend on more than the request -----------------------------------


def _pass_reason(
    request: Object, model: str, blocks: list[Object], tools: list[Object]
) -> Reason | None:
    if request.get("thread") is not None:
        return Reason.PROVIDER_STORED  # the history is kept there (beta)
    if (kept := envelope.stored_reason(request, model)) is not None:
        return kept
    if envelope.is_search_model(model):
        return Reason.SEARCH_MODEL
    kinds = [block.get("type") for block in blocks]
    # A tool may also be defined in the middle of a conversation (beta `inline-tools`).
    added = (
        [b for b in blocks if b.get("type") == "tool_addition"] if "tool_addition" in kinds else []
    )
    inline = [
        definition
        for block in added
        if isinstance(definition := lenient.members(block.get("tool")).get("definition"), dict)
    ]
    # OpenRouter's plugins (web search among them) run at the provider as well.
    if lenient.says(request.get("mcp_servers")) or lenient.says(request.get("plugins")):
        return Reason.HOSTED_TOOL
    if not all(map(_is_client_tool, [*tools, *inline])):
        return Reason.HOSTED_TOOL
    if request.get("container") is not None:
        return Reason.CONTAINER
    if "container_upload" in kinds:
        return Reason.CONTAINER
    return None


def _is_client_tool(tool: Object) -> bool:
    kind = tool.get("type")
    if kind is None or kind == "custom":
        return True
    return isinstance(kind, str) and kind.startswith(_CLIENT_TOOLS)


# --- tool-call ids ---------------------------------------------------------------------------


def _tool_ids(blocks: list[Object]) -> list[str]:
    """Every tool-call id of the history in order of appearance. Raises `NotUnderstood`."""
    ids: list[str] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "text" or not isinstance(kind, str):
            continue
        if kind.endswith("tool_use"):
            ids.append(envelope.text(block, "id", "$.messages[].content[]"))
        elif kind.endswith("tool_result"):
            ids.append(envelope.text(block, "tool_use_id", "$.messages[].content[]"))
    return ids


def _may_rename(model: str, request: Object, blocks: list[Object], rules: ApiRules) -> bool:
    """Is it certain that neither thinking nor anything in the history is bound to the ids?"""
    if rules.rename_tool_ids is None:
        return False
    thinking = request.get("thinking")
    if thinking is None:
        if not envelope.is_plain_model(model, rules):
            return False
    elif lenient.members(thinking).get("type") != "disabled":
        return False
    return not _is_bound(blocks)


def _is_bound(blocks: list[Object]) -> bool:
    """Is any of them thinking, signed, encrypted, or of a server's tool, or holds what is?"""
    found: list[Object] = []
    waiting = list(blocks)
    while waiting:
        block = waiting.pop()
        found.append(block)
        inner = block.get("content")
        if isinstance(inner, dict):
            waiting.append(inner)
        elif isinstance(inner, list):
            waiting.extend(lenient.objects(inner))
    kinds = {kind for block in found if isinstance(kind := block.get("type"), str)}
    names: set[str] = set().union(*found)
    return (
        not kinds.isdisjoint(("thinking", "redacted_thinking"))
        or any(kind.endswith(("_tool_use", "_tool_result")) for kind in kinds)
        or any(name.startswith(("signature", "encrypted")) for name in names)
    )


# --- canonical form --------------------------------------------------------------------------

# Blocks that the reference lets carry a marker. On others (thinking, what is inside a tool result)
# the API refuses it, and a request that would be refused must not meet an answer.
_MARKED = frozenset(
    {
        *("text", "image", "document", "search_result", "tool_use", "tool_result"),
        *("server_tool_use", "mcp_tool_use", "mcp_tool_result", "advisor_tool_result"),
        *("web_search_tool_result", "web_fetch_tool_result", "tool_search_tool_result"),
        *("code_execution_tool_result", "bash_code_execution_tool_result"),
        *("text_editor_code_execution_tool_result", "container_upload", "compaction"),
        *("tool_addition", "tool_removal"),
    }
)
# An image's or a document's source with these members only is typed, read by name.
_SOURCE = frozenset({"type", "media_type", "data", "url", "file_id"})


def _messages(messages: list[Object], rules: ApiRules, renamed: Mapping[str, Json]) -> Json:
    """Each as `_message` makes it; most can be written as they are, with their members sorted."""
    if rules.fold_text is not None:
        return [_message(each, rules, renamed) for each in messages]
    return canonical.ordered([_sortable(each, rules, renamed) for each in messages])


def _sortable(message: Object, rules: ApiRules, renamed: Mapping[str, Json]) -> Json:
    """What `_message` makes, once its members are sorted."""
    content = message["content"]
    if len(message) != 2:
        return canonical.kept(_message(message, rules, renamed))
    if not isinstance(content, list):
        return message
    if len(content) == 1 and rules.string_is_text_part is not None:
        only = lenient.members(content[0])
        if only.get("type") == "text":
            if len(only) != 2 or not isinstance(only.get("text"), str):
                return canonical.kept(_message(message, rules, renamed))
            return {"content": only["text"], "role": message["role"]}
    blocks: list[Json] = [
        _sortable_block(each, rules, renamed) for each in content if isinstance(each, dict)
    ]
    return {"content": blocks, "role": message["role"]}


def _sortable_block(block: Object, rules: ApiRules, renamed: Mapping[str, Json]) -> Json:
    """What `_block` makes, once its members are sorted."""
    if set(map(type, block.values())) == _TEXT and rules.markers.keys().isdisjoint(block):
        kind = block.get("type")
        joined = "id" if kind == "tool_use" else "tool_use_id" if kind == "tool_result" else ""
        given = block.get(joined)
        return (
            {**block, joined: renamed[given]}
            if isinstance(given, str) and given in renamed
            else block
        )
    if block.keys() == _TOOL_USE and block["type"] == "tool_use":
        given = block["id"]
        return {
            "id": renamed.get(given, given) if isinstance(given, str) else given,
            "input": canonical.kept(block["input"]),
            "name": canonical.kept(block["name"]),
            "type": "tool_use",
        }
    return canonical.kept(_block(block, rules, renamed))


_TEXT = {str}
_TOOL_USE = {"type", "id", "name", "input"}


def _message(message: Object, rules: ApiRules, renamed: Mapping[str, Json]) -> Json:
    out = envelope.sorted_members(message, {})
    out["content"] = _content(
        message["content"], lenient.objects(message["content"]), rules, renamed
    )
    return out


def _content(
    text: Json, blocks: list[Object], rules: ApiRules, renamed: Mapping[str, Json]
) -> Json:
    """A string, or blocks; one text block that says no more than its text is a string too."""
    if not isinstance(text, list):
        return envelope.prompt_text(text, rules)
    folded = [_block(block, rules, renamed) for block in blocks]
    if rules.string_is_text_part is not None and len(folded) == 1:
        only = folded[0]
        if only.keys() == {"type", "text"} and only["type"] == "text":
            # A block whose text is no string is the upstream's to refuse; keep it distinct.
            return only["text"] if isinstance(only["text"], str) else [only]
    return list(folded)


def _block(block: Object, rules: ApiRules, renamed: Mapping[str, Json]) -> Object:
    kind = lenient.text(block.get("type"))
    out = envelope.sorted_members(block, rules.markers if kind in _MARKED else {})
    # A tool's `input` is rendered into the prompt: it stays as it is spelled.
    _fold_source(kind, out)
    if kind == "text" and "text" in out:
        out["text"] = envelope.prompt_text(out["text"], rules)
    if kind == "tool_result" and "content" in block:
        held = block["content"]
        inner = [_inner(each, rules) for each in held] if isinstance(held, list) else held
        out["content"] = envelope.prompt_text(inner, rules)
    joined = "id" if kind == "tool_use" else "tool_use_id" if kind == "tool_result" else ""
    if joined and isinstance(each := block.get(joined), str) and each in renamed:
        out[joined] = renamed[each]
    return out


def _inner(block: Json, rules: ApiRules) -> Json:
    """A block inside a tool result: typed like any other, but no marker is allowed there."""
    if not isinstance(block, dict):
        return block
    out = envelope.sorted_members(block, {})
    kind = lenient.text(block.get("type"))
    if kind == "text" and "text" in out:
        out["text"] = envelope.prompt_text(out["text"], rules)
    _fold_source(kind, out)
    return out


def _fold_source(kind: str, block: Object) -> None:
    source = block.get("source")
    if kind in {"image", "document"} and isinstance(source, dict) and source.keys() <= _SOURCE:
        block["source"] = canonical.fold(source)


def _tools(tools: list[Object], rules: ApiRules) -> Json:
    """Tools without markers, their members in order; examples stay as spelled, and schemas
    unless the table says otherwise.
    """
    folded: list[Json] = []
    for tool in tools:
        out = {name: value for name, value in tool.items() if name not in rules.markers}
        if "input_schema" in out:
            out["input_schema"] = envelope.fold_schema(out["input_schema"], rules)
        folded.append(out if rules.fold_tools is None else envelope.sorted_members(out, {}))
    return folded
