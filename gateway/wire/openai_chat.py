"""OpenAI Chat Completions: what a request asks, and our own errors in its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core import canonical
from gateway.core.model import Ask, Form, Question, Reason
from gateway.wire import envelope, lenient, live, openai_answer, openai_chunks
from gateway.wire.openai_chat_answer import ChatShape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.canonical import Json
    from gateway.core.mint import Mint
    from gateway.core.model import Answer, Entry
    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object

# Tools that the client runs itself. Any other type runs at the provider, and what it finds there
# changes from day to day.
_CLIENT_TOOLS = frozenset({"function", "custom"})
_SHAPE = ChatShape()


class OpenAIChat:
    """`POST /v1/chat/completions`."""

    name = "openai_chat"
    route = "/v1/chat/completions"
    operation = "chat"
    request_id_header = "x-request-id"

    def understand(self, body: bytes, rules: ApiRules) -> Question:
        """See `WireApi.understand`."""
        request = envelope.parse_object(body)
        model = envelope.text(request, "model", "$")
        messages = envelope.objects(request, "messages", "$")
        # Checked here, so that a tool in an odd shape is never taken for one that the client runs.
        has_tools = request.get("tools") is not None
        tools = envelope.objects(request, "tools", "$") if has_tools else []
        options = request.get("stream_options")
        form = Form.STREAM if envelope.flag(request, "stream") else Form.BODY
        ids = _tool_ids(messages)

        def render(renamed: Mapping[str, Json]) -> bytes:
            return envelope.render(
                envelope.fold_top(
                    request,
                    rules,
                    {
                        "messages": lambda _: _messages(messages, rules, renamed),
                        "tools": lambda tools: _tools(tools, rules),
                        "response_format": lambda given: envelope.fold_schema_at(
                            given, ("json_schema", "schema"), rules
                        ),
                    },
                )
            )

        may_rename = (
            bool(ids)
            and rules.rename_tool_ids is not None
            and not _may_think(model, request, messages, rules)
        )
        return Question(
            ask=Ask(
                form=form,
                model=model,
                include_usage=rules.usage_always is not None
                or (isinstance(options, dict) and options.get("include_usage") is True),
                may_add_usage="stream_options" not in request and rules.stream_usage is not None,
                history_ids=frozenset(ids),
                max_output_tokens=_max_output_tokens(request),
                deterministic=envelope.number(request.get("temperature")) == 0.0
                or request.get("seed") is not None,
            ),
            canonical=envelope.rename_ids(ids, render) if may_rename else render({}),
            pass_reason=_pass_reason(request, model, tools),
        )

    def with_stream_usage(self, body: bytes, ask: Ask, rules: ApiRules) -> bytes | None:
        """See `WireApi.with_stream_usage`."""
        return openai_chunks.with_usage(body, ask, rules)

    def without_unasked_usage(self, event: bytes) -> bytes:
        """See `WireApi.without_unasked_usage`."""
        return openai_chunks.without_usage(event)

    def answer_id(self, event: bytes) -> str:
        """See `WireApi.answer_id`."""
        return live.member(event, "id")

    def read_body(self, document: bytes, rules: ApiRules) -> Answer:
        """See `WireApi.read_body`."""
        return openai_answer.read_body(document, rules, _SHAPE)

    def read_stream(self, events: bytes, rules: ApiRules) -> Answer:
        """See `WireApi.read_stream`."""
        return openai_answer.read_stream(events, rules, _SHAPE)

    def can_serve(self, entry: Entry, ask: Ask) -> bool:
        """See `WireApi.can_serve`."""
        return openai_answer.can_serve(entry, ask)

    def serve(self, entry: Entry, ask: Ask, mint: Mint, rules: ApiRules) -> bytes:
        """See `WireApi.serve`."""
        return openai_answer.serve(entry, ask, mint, rules, _SHAPE)

    def error(self, status: int, message: str, code: str, param: str | None) -> bytes:
        """See `WireApi.error`."""
        return openai_answer.error(status, message, code, param)


def _pass_reason(request: Object, model: str, tools: list[Object]) -> Reason | None:
    if envelope.is_on(request.get("store")):
        return Reason.PROVIDER_STORED
    if (kept := envelope.stored_reason(request, model)) is not None:
        return kept
    if envelope.is_search_model(model):
        return Reason.SEARCH_MODEL
    if envelope.has_search_switch(request):
        return Reason.HOSTED_TOOL
    if any(lenient.text(tool.get("type")) not in _CLIENT_TOOLS for tool in tools):
        return Reason.HOSTED_TOOL
    return None


def _max_output_tokens(request: Object) -> int | None:
    limit = envelope.whole(request.get("max_completion_tokens"))
    return envelope.whole(request.get("max_tokens")) if limit is None else limit


def _tool_ids(messages: list[Object]) -> list[str]:
    """Every tool-call id of the history in order of appearance. Raises `NotUnderstood`."""
    ids: list[str] = []
    for index, message in enumerate(messages):
        calls = message.get("tool_calls")
        joined = message.get("tool_call_id")
        if message.get("role").__class__ is not str:
            envelope.text(message, "role", f"$.messages[{index}]")
        if calls is not None:
            listed = lenient.objects(calls)
            given = [each for call in listed if isinstance(each := call.get("id"), str)]
            if not isinstance(calls, list) or len(given) != len(calls):
                where = f"$.messages[{index}]"
                listed = envelope.objects(message, "tool_calls", where)
                given = [envelope.text(c, "id", f"{where}.tool_calls") for c in listed if "id" in c]
            ids += given
        if isinstance(joined, str):
            ids.append(joined)
        elif joined is not None:
            envelope.text(message, "tool_call_id", f"$.messages[{index}]")
    return ids


def _may_think(model: str, request: Object, messages: list[Object], rules: ApiRules) -> bool:
    """Could thinking, or signed or encrypted history, be bound to the ids as they are?"""
    effort = request.get("reasoning_effort")
    if effort is not None and effort != "none":
        return True
    if any(
        envelope.THOUGHT.search(name) and envelope.is_on(value)
        for name, value in request.items()
        if name != "reasoning_effort"
    ):
        return True
    if effort is None and not envelope.is_plain_model(model, rules):
        return True
    return envelope.holds_thought(lenient.objects_within(*messages))


# Parts whose nested object is typed, read by name: its member order can't be seen.
_PART_OBJECTS = frozenset({"image_url", "input_audio", "file", "text", "refusal"})


def _messages(messages: list[Object], rules: ApiRules, renamed: Mapping[str, Json]) -> Json:
    """Each as `_message` makes it; most can be written as they are, with their members sorted."""
    if rules.fold_text is not None:
        return [_message(each, rules, renamed) for each in messages]
    out: list[Json] = []
    for message in messages:
        flat: Json = message
        for name, value in message.items():
            if isinstance(value, str) or value is None:
                if name == "tool_call_id" and value is not None and value in renamed:
                    flat = {**message, name: renamed[value]}
            elif name == "content" and _is_text_part(value) and len(message) == 2:
                only = lenient.members(lenient.items(value)[0])
                if rules.string_is_text_part is not None:
                    flat = {**message, name: only["text"]}
            elif (
                name == "tool_calls"
                and rules.fold_tools is not None
                and all(map(_is_flat_call, lenient.items(value)))
            ):
                if renamed:
                    calls = lenient.objects(value)
                    flat = {**message, name: [_renamed(each, "id", renamed) for each in calls]}
            else:
                flat = canonical.kept(_message(message, rules, renamed))
                break
        out.append(flat)
    return canonical.ordered(out)


def _renamed(owner: Object, name: str, renamed: Mapping[str, Json]) -> Object:
    given = owner.get(name)
    return {**owner, name: renamed[given]} if isinstance(given, str) and given in renamed else owner


def _is_text_part(content: Json) -> bool:
    """Is it one part, with a text and nothing else?"""
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], dict):
        return False
    only = content[0]
    return len(only) == 2 and only.get("type") == "text" and isinstance(only.get("text"), str)


def _is_flat_call(call: Json) -> bool:
    """Does it hold texts alone, beside a function that holds texts alone?"""
    if not isinstance(call, dict):
        return False
    for name, value in call.items():
        if value.__class__ is not str and not (
            name == "function"
            and isinstance(value, dict)
            and set(map(type, value.values())) <= _TEXT
        ):
            return False
    return True


_TEXT = {str}


def _message(message: Object, rules: ApiRules, renamed: Mapping[str, Json]) -> Json:
    content = message.get("content")
    out = envelope.sorted_members(message, {})
    if isinstance(content, list):
        out["content"] = _parts(content, rules)
    elif "content" in out:
        out["content"] = envelope.prompt_text(content, rules)
    if isinstance(message.get("tool_calls"), list):
        out["tool_calls"] = [
            _call(c, rules, renamed) for c in lenient.objects(message["tool_calls"])
        ]
    joined = message.get("tool_call_id")
    if isinstance(joined, str) and joined in renamed:
        out["tool_call_id"] = renamed[joined]
    return out


def _parts(content: list[Json], rules: ApiRules) -> Json:
    parts: list[Json] = []
    for part in content:
        if not isinstance(part, dict):
            parts.append(part)
            continue
        folded = envelope.sorted_members(part, rules.markers)
        for name in _PART_OBJECTS & folded.keys():
            folded[name] = canonical.fold(folded[name])
        if "text" in folded:
            folded["text"] = envelope.prompt_text(folded["text"], rules)
        parts.append(folded)
    if rules.string_is_text_part is not None and len(parts) == 1:
        only = parts[0]
        if isinstance(only, dict) and only.keys() == {"type", "text"} and only["type"] == "text":
            # A part whose text is no string is the upstream's to refuse; keep it distinct.
            return only["text"] if isinstance(only["text"], str) else parts
    return parts


def _call(call: Object, rules: ApiRules, renamed: Mapping[str, Json]) -> Json:
    # Without `fold_tools` a chat template may render it whole, members in the order they came in.
    out = dict(call) if rules.fold_tools is None else envelope.sorted_members(call, {})
    function = call.get("function")
    if isinstance(function, dict) and rules.fold_tools is not None:
        # `arguments` is a string that the client sends as it wants it read; it stays.
        out["function"] = envelope.sorted_members(function, {})
    each = call.get("id")
    if isinstance(each, str) and each in renamed:
        out["id"] = renamed[each]
    return out


def _tools(tools: Json, rules: ApiRules) -> Json:
    if not isinstance(tools, list):
        return tools
    folded: list[Json] = []
    for given in tools:
        tool = envelope.fold_schema_at(given, ("function", "parameters"), rules)
        if rules.fold_tools is None or not isinstance(tool, dict):
            folded.append(tool)
            continue
        out = envelope.sorted_members(tool, {})
        function = out.get("function")
        if isinstance(function, dict):
            out["function"] = envelope.sorted_members(function, {})
        folded.append(out)
    return folded
