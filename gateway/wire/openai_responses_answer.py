"""OpenAI Responses: answers. Read and judge them, and turn one form into the other.

Rule 1: a form is offered only if it was proven here that it loses nothing: a stream is offered as
a response if its events agree with the response that ends it, a response as a stream if every
item of it is of a kind that is known to come in pieces.
Rule 2: numbers, member order and unknown members of the original stay as they were spelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core import canonical, sse, usage
from gateway.core.model import Answer, Finish, Form
from gateway.wire import envelope, lenient
from gateway.wire.base import Unmergeable
from gateway.wire.openai_responses_stream import TERMINAL, merge, split, splits_cleanly
from gateway.wire.plain_answers import is_plain_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.canonical import Json
    from gateway.core.mint import Mint
    from gateway.core.model import Ask, Entry
    from gateway.wire.envelope import Object

# Tools that the client runs itself. What any other finds changes from day to day.
_CLIENT_TOOLS = ("function", "custom", "local_shell", "apply_patch")


def is_client_tool(tool: Json) -> bool:
    """Does the client run the tool, rather than the provider?"""
    if not isinstance(tool, dict):
        return False
    kind = tool.get("type")
    if kind == "shell":
        # Anything but `local` is a container at the provider.
        return lenient.members(tool.get("environment")).get("type") == "local"
    if kind == "tool_search":
        return tool.get("execution") == "client"
    if kind == "namespace":
        return all(map(is_client_tool, lenient.items(tool.get("tools"))))
    return kind in _CLIENT_TOOLS


# What hosted tools leave in an answer.
_HOSTED_ITEMS = ("web_search_", "file_search_", "code_interpreter_", "image_gen", "mcp_", "program")


# --- judging ----------------------------------------------------------------------------------


def read_body(document: bytes) -> Answer:
    """Judge a whole JSON answer. Never raises."""
    try:
        response = canonical.parse(document)
    except canonical.Uncacheable:
        return Answer(Form.BODY, document, Finish.UNKNOWN)
    if not isinstance(response, dict):
        return Answer(Form.BODY, document, Finish.UNKNOWN)
    convertible = is_plain_response(response) or splits_cleanly(response)
    return _judged(response, Form.BODY, document, convertible=convertible)


def read_stream(text: bytes) -> Answer:
    """Judge a whole recorded SSE text. Never raises."""
    try:
        recorded = _events(text)
    except (canonical.Uncacheable, UnicodeDecodeError, Unmergeable):
        return Answer(Form.STREAM, text, Finish.UNKNOWN)
    events = [event for _, event in recorded.named]
    if any(map(_is_error, recorded.named)):
        return Answer(Form.STREAM, text, Finish.ERROR)
    if not events or events[-1].get("type") not in TERMINAL:
        return Answer(Form.STREAM, text, Finish.INCOMPLETE)
    try:
        return _judged(merge(events), Form.STREAM, text, convertible=True)
    except Unmergeable:
        last = lenient.members(events[-1].get("response"))
        return _judged(last, Form.STREAM, text, convertible=False)


def _is_error(named: tuple[str, Object]) -> bool:
    name, event = named
    return "error" in (name, event.get("type")) or event.get("error") is not None


def _judged(response: Object, recorded: Form, payload: bytes, *, convertible: bool) -> Answer:
    spent = usage.from_responses(canonical.plain(response.get("usage")))
    why = lenient.text(lenient.members(response.get("incomplete_details")).get("reason"))
    return Answer(
        recorded,
        payload,
        finish=_finish(response, why),
        forms=frozenset(Form) if convertible else frozenset({recorded}),
        finish_reasons=(why or lenient.text(response.get("status")),),
        usage=spent,
        model=lenient.text(response.get("model")),
        response_id=lenient.text(response.get("id")),
        has_stream_usage=spent is not None,
        terms=lenient.texts(response, "service_tier"),
        reasoning=usage.reasoning(canonical.plain(response.get("usage"))),
    )


_CUT = {"max_output_tokens": Finish.TRUNCATED, "content_filter": Finish.REFUSED}
_UNFINISHED = ("queued", "in_progress", "cancelled")


def _finish(response: Object, why: str) -> Finish:
    status = response.get("status")
    if response.get("error") is not None or status == "failed":
        return Finish.ERROR
    if status in _UNFINISHED:
        return Finish.INCOMPLETE
    output = response.get("output")
    if status not in ("completed", "incomplete") or not isinstance(output, list):
        return Finish.UNKNOWN
    items = lenient.objects(output)
    # A prompt template may bring tools that the request didn't name, and some servers search
    # without being asked.
    if not all(map(is_client_tool, lenient.items(response.get("tools")))) or any(
        lenient.text(item.get("type")).startswith(_HOSTED_ITEMS) for item in items
    ):
        return Finish.HOSTED
    finish = Finish.COMPLETE if status == "completed" else _CUT.get(why, Finish.UNKNOWN)
    if finish in {Finish.REFUSED, Finish.UNKNOWN}:
        return finish
    parts = [part for item in items for part in lenient.objects(item.get("content"))]
    if any(part.get("type") == "refusal" for part in parts):
        return Finish.REFUSED
    return finish if any(map(_says, items)) else Finish.EMPTY


def _says(item: Object) -> bool:
    """Does the item tell the client something? Thoughts and summaries of history alone do not."""
    if item.get("type") == "message":
        return any(lenient.says(part.get("text")) for part in lenient.objects(item.get("content")))
    return item.get("type") not in ("reasoning", "compaction")


# --- serving ----------------------------------------------------------------------------------

_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A stream's events with their names, and whether `[DONE]` followed: some servers send it."""

    named: list[tuple[str, Object]]
    done: bool


def _events(text: bytes) -> _Recorded:
    named: list[tuple[str, Object]] = []
    done = False
    for name, data in sse.events(text):
        is_done = data.strip() == _DONE
        if done or (named and named[-1][1].get("type") in TERMINAL and not is_done):
            raise Unmergeable("something follows the last event")
        if is_done:
            done = True
            continue
        event = canonical.parse(data)
        if not isinstance(event, dict):
            raise Unmergeable("an event is no object")
        named.append((name, event))
    return _Recorded(named, done)


def serve(entry: Entry, ask: Ask, mint: Mint) -> bytes:
    """See `WireApi.serve`."""
    if entry.recorded is Form.STREAM:
        recorded = _events(entry.payload)
        fresh = _Fresh.of([event for _, event in recorded.named], ask, mint)
        events = [(name, fresh.event(event)) for name, event in recorded.named]
        if ask.form is Form.STREAM:
            return _written(events) + (sse.write(_DONE) if recorded.done else b"")
        return canonical.encode(merge([event for _, event in events]))
    response = canonical.parse(entry.payload)
    assert isinstance(response, dict)  # it was read before it was stored
    response = _Fresh.of([{"response": response}], ask, mint).response(response)
    if ask.form is Form.BODY:
        return canonical.encode(response)
    return _written([(lenient.text(event.get("type")), event) for event in split(response)])


def _written(events: list[tuple[str, Object]]) -> bytes:
    return b"".join(sse.write(canonical.encode(event), name) for name, event in events)


@dataclass(frozen=True, slots=True)
class _Fresh:
    """What makes an answer look as if it had been made now, for this request."""

    ids: Mapping[str, str]
    """New ids by old ones: the response's own, and items' that occur in the history."""
    now_s: int | None
    """None: the provider keeps the answer, so it stays the record that it is there."""

    @classmethod
    def of(cls, events: list[Object], ask: Ask, mint: Mint) -> _Fresh:
        if ask.keeps_id:
            return cls({}, None)
        responses = [lenient.members(event.get("response")) for event in events]
        items = [lenient.members(event.get("item")) for event in events]
        items += [item for each in responses for item in lenient.objects(each.get("output"))]
        given = {each for item in items for name in _ITEM_IDS if (each := _id(item, name))}
        ids = envelope.fresh_ids(given, ask.history_ids, mint)
        original = next((each for r in responses if (each := _id(r, "id"))), "")
        if original:
            # Clients count an answer with a known id as one they had.
            ids[original] = mint.unlike(original, {original})
        return cls(ids, mint.now_s)

    def event(self, event: Object) -> Object:
        out = self._renamed(event, ("item_id", "response_id"))
        if isinstance(response := event.get("response"), dict):
            out["response"] = self.response(response)
        if isinstance(item := event.get("item"), dict):
            out["item"] = self._renamed(item, _ITEM_IDS)
        return out

    def response(self, response: Object) -> Object:
        out = self._renamed(response, ("id",))
        for name in ("created_at", "completed_at"):
            # Some servers send 0 or nothing; what was no time stays none.
            stamp = response.get(name)
            if self.now_s and canonical.is_number(stamp) and canonical.spelled(stamp) != "0":
                out[name] = self.now_s
        if isinstance(output := response.get("output"), list):
            out["output"] = [
                self._renamed(item, _ITEM_IDS) if isinstance(item, dict) else item
                for item in output
            ]
        return out

    def _renamed(self, owner: Object, names: tuple[str, ...]) -> Object:
        changed: Object = {n: self.ids[each] for n in names if (each := _id(owner, n)) in self.ids}
        return {**owner, **changed}


_ITEM_IDS = ("id", "call_id")


def _id(owner: Object, name: str) -> str:
    return lenient.text(owner.get(name))
