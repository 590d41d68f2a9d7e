"""OpenAI Responses: what a request asks, and our own errors in its shape.

Rule 1: unless `store` is false the provider keeps the answer under its id: a hit is that record,
unchanged, for the credential that made it.
Rule 2: what refers to anything that the provider keeps, or may hold encrypted reasoning, is bound
to its credential as well; in what is bound no id is renamed, because others may refer to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from gateway.core import canonical
from gateway.core.model import Ask, Form, Question, Reason
from gateway.wire import envelope, lenient, live, openai_responses_answer
from gateway.wire.base import NotUnderstood
from gateway.wire.openai_responses_answer import is_client_tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.core.canonical import Json
    from gateway.core.mint import Mint
    from gateway.core.model import Answer, Entry
    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object


class OpenAIResponses:
    """`POST /v1/responses`."""

    name = "openai_responses"
    route = "/v1/responses"
    operation = "chat"
    request_id_header = "x-request-id"

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
        return live.member(event, "response", "id")

    def read_body(self, document: bytes, rules: ApiRules) -> Answer:  # noqa: ARG002 - the protocol's
        """See `WireApi.read_body`."""
        return openai_responses_answer.read_body(document)

    def read_stream(self, events: bytes, rules: ApiRules) -> Answer:  # noqa: ARG002 - the protocol's
        """See `WireApi.read_stream`."""
        return openai_responses_answer.read_stream(events)

    def can_serve(self, entry: Entry, ask: Ask) -> bool:
        """See `WireApi.can_serve`."""
        return ask.form in entry.forms

    def serve(self, entry: Entry, ask: Ask, mint: Mint, rules: ApiRules) -> bytes:  # noqa: ARG002 - the protocol's
        """See `WireApi.serve`. With `ask.keeps_id` ids and times are those of the record."""
        return openai_responses_answer.serve(entry, ask, mint)

    def error(self, status: int, message: str, code: str, param: str | None) -> bytes:
        """See `WireApi.error`: `{"error": {"message", "type", "param", "code"}}`."""
        kind = "invalid_request_error" if status < 500 else "server_error"
        # A message may quote a header or a path, which may hold what is no text.
        said = message.encode("utf-8", "replace").decode()
        return orjson.dumps(
            {"error": {"message": said, "type": kind, "param": param, "code": code}}
        )


def _understood(request: Object, rules: ApiRules) -> Question:
    model = envelope.text(request, "model", "$")
    items = _items(request)
    kinds = [_kind(item) for item in items]
    tools = envelope.objects(request, "tools", "$") if request.get("tools") is not None else []
    ids = list(_ids(items, kinds))
    # Whatever is not plainly `false` may be kept: null, and what only the provider can refuse.
    keeps_id = request.get("store") is not False
    bound = keeps_id or _is_bound(request, model, items, kinds, rules)

    def render(renamed: Mapping[str, Json]) -> bytes:
        return envelope.render(
            envelope.fold_top(
                request,
                rules,
                {
                    "input": lambda given: _input(given, items, kinds, rules, renamed),
                    "tools": lambda value: _tools(tools, rules) if tools else value,
                    "text": lambda given: envelope.fold_schema_at(
                        given, ("format", "schema"), rules
                    ),
                },
            )
        )

    may_rename = bool(ids) and rules.rename_tool_ids is not None and not bound
    return Question(
        ask=Ask(
            form=Form.STREAM if envelope.flag(request, "stream") else Form.BODY,
            model=model,
            history_ids=frozenset(
                [
                    given
                    for item in items
                    for given in (item.get("id"), item.get("call_id"))
                    if given and isinstance(given, str)
                ]
            ),
            max_output_tokens=envelope.whole(request.get("max_output_tokens")),
            deterministic=envelope.number(request.get("temperature")) == 0.0,
            bound=bound,
            keeps_id=keeps_id,
        ),
        canonical=envelope.rename_ids(ids, render) if may_rename else render({}),
        pass_reason=_pass_reason(request, model, items, kinds, tools),
    )


# Calls of the client's own tools, and what came of them.
_CALLS = frozenset(
    {"function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"}
)
_UNBOUND = _CALLS | {"message"}
# How the provider's own ids of these items begin; the ids of others may mean more to it.
_OWN_IDS = {"message": "msg_", "function_call": "fc_", "custom_tool_call": "ctc_"}


def _items(request: Object) -> list[Object]:
    """The items of the input; none where it is a text, or left to a prompt template."""
    given = request.get("input")
    if given is None or isinstance(given, str):
        return []
    items = envelope.objects(request, "input", "$")
    for index, item in enumerate(items):
        is_told = "role" in item or lenient.text(item.get("type")) in _CALLS
        if not is_told or set(map(type, item.values())) != _TEXT:
            _check_item(item, f"$.input[{index}]")
    return items


def _check_item(item: Object, where: str) -> None:
    kind = _kind(item)
    if item.get("type") is not None:
        envelope.text(item, "type", where)
    if kind == "message":
        envelope.text(item, "role", where)
    if kind == "message" or kind in _CALLS:
        for name in ("id", "call_id"):
            if not isinstance(item.get(name), str | None):
                raise NotUnderstood(Reason.NOT_UNDERSTOOD, f"{where}.{name}", "not a string")


def _kind(item: Object) -> str:
    """An item's type; the type of a message may be left out."""
    return "message" if "type" not in item and "role" in item else lenient.text(item.get("type"))


def _ids(items: list[Object], kinds: list[str]) -> Iterator[str]:
    """The ids that stand in id positions of the history, in order of appearance."""
    for item, kind in zip(items, kinds, strict=True):
        own = lenient.text(item.get("id"))
        if kind in _OWN_IDS and own.startswith(_OWN_IDS[kind]):
            yield own
        if kind in _CALLS and (joined := lenient.text(item.get("call_id"))):
            yield joined


# --- what makes the answer depend on more than the request -----------------------------------


def _pass_reason(
    request: Object, model: str, items: list[Object], kinds: list[str], tools: list[Object]
) -> Reason | None:
    # What runs in the background is a ticket, not an answer; a conversation is kept there.
    if request.get("conversation") is not None or envelope.is_on(request.get("background")):
        return Reason.PROVIDER_STORED
    prompt = request.get("prompt")
    if prompt is not None and not lenient.text(lenient.members(prompt).get("version")):
        return Reason.UNVERSIONED_PROMPT
    if (kept := envelope.stored_reason(request, model)) is not None:
        return kept
    if envelope.is_search_model(model):
        return Reason.SEARCH_MODEL
    # Tools may also be added in the middle of a conversation.
    added = [
        tool
        for item, kind in zip(items, kinds, strict=True)
        if kind in _BRING_TOOLS
        for tool in lenient.items(item.get("tools"))
    ]
    if envelope.has_search_switch(request) or not all(map(is_client_tool, [*tools, *added])):
        return Reason.HOSTED_TOOL
    return None


_BRING_TOOLS = frozenset({"additional_tools", "tool_search_output"})


def _is_bound(
    request: Object, model: str, items: list[Object], kinds: list[str], rules: ApiRules
) -> bool:
    if any(request.get(name) is not None for name in ("previous_response_id", "prompt")):
        return True
    # Items of other types may be references, or encrypted.
    if not _UNBOUND.issuperset(kinds):
        return True
    found = lenient.objects_within(*items)
    return _may_think(request, model, found, rules) or any(
        each.get("file_id") is not None for each in found
    )


def _may_think(request: Object, model: str, found: list[Object], rules: ApiRules) -> bool:
    """Could the answer or the history hold reasoning, which comes encrypted for its owner?"""
    reasoning = request.get("reasoning")
    if reasoning is None:
        if not envelope.is_plain_model(model, rules):
            return True
    elif lenient.members(reasoning).get("effort") != "none":
        return True
    if any(
        envelope.THOUGHT.search(name) and envelope.is_on(value)
        for name, value in request.items()
        if name != "reasoning"
    ):
        return True
    asked = lenient.items(request.get("include"))
    return any(
        envelope.THOUGHT.search(lenient.text(each)) for each in asked
    ) or envelope.holds_thought(found)


# --- canonical form --------------------------------------------------------------------------

# The reference lets these parts carry a marker; on others the API refuses it, and a request that
# would be refused must not meet an answer.
_MARKED = frozenset({"input_text", "input_image", "input_file"})
# Roles whose text is input: a string and one `input_text` part say the same.
_INPUT_ROLES = frozenset({"user", "system", "developer"})


def _input(
    given: Json,
    items: list[Object],
    kinds: list[str],
    rules: ApiRules,
    renamed: Mapping[str, Json],
) -> Json:
    if isinstance(given, str) and rules.string_is_text_part is not None:
        return [{"content": given, "role": "user", "type": "message"}]
    if not isinstance(given, list):
        return given
    return canonical.ordered(
        [_sortable(item, kind, rules, renamed) for item, kind in zip(items, kinds, strict=True)]
    )


def _sortable(item: Object, kind: str, rules: ApiRules, renamed: Mapping[str, Json]) -> Json:
    """What `_item` makes, once its members are sorted: most can be written as they are."""
    if set(map(type, item.values())) != _TEXT:
        return canonical.kept(_item(item, rules, renamed))
    if kind == "message":
        if "type" not in item and rules.string_is_text_part is not None:
            item = {"type": kind, **item}
    elif kind not in _CALLS or rules.fold_tools is None:
        return canonical.kept(_item(item, rules, renamed))
    if renamed:
        changed = {
            name: renamed[each]
            for name in ("id", "call_id")
            if isinstance(each := item.get(name), str) and each in renamed
        }
        return {**item, **changed} if changed else item
    return item


_TEXT = {str}


def _item(item: Object, rules: ApiRules, renamed: Mapping[str, Json]) -> Json:
    kind = _kind(item)
    if kind == "message":
        typed = {"type": kind, **item} if rules.string_is_text_part is not None else item
        out = envelope.sorted_members(typed, {})
        if isinstance(content := item.get("content"), list):
            out["content"] = _content(content, rules, lenient.text(item.get("role")))
    elif kind in _CALLS:
        # Without `fold_tools` a chat template may render it whole, in the order it came in.
        out = dict(item) if rules.fold_tools is None else envelope.sorted_members(item, {})
        if isinstance(output := item.get("output"), list):
            out["output"] = [_part(part, rules) for part in output]
    elif kind == "reasoning" and rules.fold_tools is not None:
        return envelope.sorted_members(item, {})
    else:
        return item
    for name in ("id", "call_id"):
        if isinstance(each := item.get(name), str) and each in renamed:
            out[name] = renamed[each]
    return out


def _content(content: list[Json], rules: ApiRules, role: str) -> Json:
    parts = [_part(part, rules) for part in content]
    if rules.string_is_text_part is None or role not in _INPUT_ROLES or len(parts) != 1:
        return parts
    only = lenient.members(parts[0])
    if only.keys() == {"type", "text"} and only["type"] == "input_text":
        # A part whose text is no string is the upstream's to refuse; keep it distinct.
        return only["text"] if isinstance(only["text"], str) else parts
    return parts


def _part(part: Json, rules: ApiRules) -> Json:
    if not isinstance(part, dict):
        return part
    marked = lenient.text(part.get("type")) in _MARKED
    out = envelope.sorted_members(part, rules.markers if marked else {})
    if isinstance(out.get("input_audio"), dict):
        out["input_audio"] = canonical.fold(out["input_audio"])
    return out


def _tools(tools: list[Object], rules: ApiRules) -> Json:
    """Tools with their members in order; schemas as the table says."""
    folded: list[Json] = []
    for tool in tools:
        out = dict(tool)
        if "parameters" in out:
            out["parameters"] = envelope.fold_schema(out["parameters"], rules)
        folded.append(out if rules.fold_tools is None else envelope.sorted_members(out, {}))
    return folded
