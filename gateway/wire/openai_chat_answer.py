"""OpenAI Chat Completions: answers. Read and judge them, and turn one form into the other.

Rule 1: a form is offered only if it was proven here that it loses nothing: a stream is offered as
a document if every delta merged, a document as a stream if its chunks merge back into it.
Rule 2: numbers, member order and unknown members of the original stay as they were spelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core import canonical, sse, usage
from gateway.core.model import Answer, Finish, Form
from gateway.wire import envelope, lenient
from gateway.wire.openai_chat_stream import Unmergeable, merge, split, splits_cleanly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.canonical import Json
    from gateway.core.mint import Mint
    from gateway.core.model import Ask, Entry
    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object

_DONE = "[DONE]"
_FINISHES = {
    "stop": Finish.COMPLETE,
    "tool_calls": Finish.COMPLETE,
    "function_call": Finish.COMPLETE,
    "length": Finish.TRUNCATED,
    "content_filter": Finish.REFUSED,
}


def read_body(document: bytes, rules: ApiRules) -> Answer:
    """Judge a whole JSON answer. Never raises."""
    try:
        answer = canonical.parse(document)
    except canonical.Uncacheable:
        return _unreadable(Form.BODY, document)
    if not isinstance(answer, dict):
        return _unreadable(Form.BODY, document)
    return _judged(answer, Form.BODY, document, convertible=splits_cleanly(answer, rules))


def read_stream(events: bytes, rules: ApiRules) -> Answer:
    """Judge a whole recorded SSE text. Never raises."""
    try:
        chunks, done = _chunks(events)
    except (canonical.Uncacheable, UnicodeDecodeError, Unmergeable):
        return _unreadable(Form.STREAM, events)
    if any(chunk.get("error") is not None for chunk in chunks):
        return Answer(Form.STREAM, events, Finish.ERROR)
    if not done or not chunks:
        return Answer(Form.STREAM, events, Finish.INCOMPLETE)
    try:
        document = merge(chunks, rules)
    except Unmergeable:
        document = None
    seen = document or _skeleton(chunks)
    return _judged(seen, Form.STREAM, events, convertible=document is not None)


def _unreadable(form: Form, payload: bytes) -> Answer:
    return Answer(form, payload, Finish.UNKNOWN)


def _judged(answer: Object, recorded: Form, payload: bytes, *, convertible: bool) -> Answer:
    spent = usage.from_openai(canonical.plain(answer.get("usage")))
    other = Form.BODY if recorded is Form.STREAM else Form.STREAM
    choices = lenient.objects(answer.get("choices"))
    # A document always states its usage; without it a stream can't become one. Without choices
    # there is nothing to put into chunks.
    both = convertible and choices != [] and (recorded is Form.BODY or spent is not None)
    reasons = tuple(str(c.get("finish_reason") or "") for c in choices)
    return Answer(
        recorded,
        payload,
        finish=_finish(answer, choices),
        forms=frozenset({recorded, other} if both else {recorded}),
        finish_reasons=reasons,
        usage=spent,
        model=lenient.text(answer.get("model")),
        response_id=lenient.text(answer.get("id")),
        has_stream_usage=spent is not None,
    )


def _finish(answer: Object, choices: list[Object]) -> Finish:
    """The least cacheable finish of all choices."""
    if answer.get("error") is not None:
        return Finish.ERROR
    if not choices:
        return Finish.EMPTY
    finishes = {_choice_finish(choice) for choice in choices}
    order = (Finish.EMPTY, Finish.UNKNOWN, Finish.REFUSED, Finish.TRUNCATED)
    return next((f for f in order if f in finishes), Finish.COMPLETE)


def _choice_finish(choice: Object) -> Finish:
    message = choice.get("message")
    reason = choice.get("finish_reason")
    if not isinstance(message, dict):
        return Finish.UNKNOWN
    if message.get("refusal"):
        return Finish.REFUSED
    finish = _FINISHES.get(reason, Finish.UNKNOWN) if isinstance(reason, str) else Finish.UNKNOWN
    if finish is not Finish.REFUSED and not any(
        message.get(name) for name in ("content", "tool_calls", "function_call", "audio")
    ):
        return Finish.EMPTY
    return finish


def _chunks(events: bytes) -> tuple[list[Object], bool]:
    """The chunks, and whether `[DONE]` was seen. What this API's streams never hold is refused,
    because it would be lost when the stream is written anew.
    """
    chunks: list[Object] = []
    done = False
    for event in sse.parse(events):
        if done:
            raise Unmergeable("something follows [DONE]")
        if event.data.strip() == _DONE:
            done = True
            continue
        chunk = canonical.parse(event.data.encode())
        if not isinstance(chunk, dict):
            raise Unmergeable("a chunk is no object")
        if event.name == "error":
            chunk = {"error": chunk}
        elif event.name not in {"", "message"}:
            raise Unmergeable(f"an event is named {event.name}")
        chunks.append(chunk)
    return chunks, done


_NO_ANSWER = ("role", "reasoning", "thinking")


def _skeleton(chunks: list[Object]) -> Object:
    """What can be said of an unmergeable stream: enough to judge it, not to serve it otherwise."""
    reasons: dict[str, Json] = {}
    said: dict[str, Object] = {}
    top: Object = {}
    for chunk in chunks:
        for name in ("id", "model"):
            top[name] = top.get(name) or chunk.get(name)
        # Where every chunk states it, it counts up: the last one is the total.
        top["usage"] = chunk.get("usage") or top.get("usage")
        for piece in lenient.objects(chunk.get("choices")):
            index = repr(piece.get("index"))
            reasons[index] = piece.get("finish_reason") or reasons.get(index)
            # Enough to tell empty from refused from an answer of some kind.
            delta = lenient.members(piece.get("delta"))
            kinds = {
                k if k == "refusal" else "content"
                for k, v in delta.items()
                if v and not k.startswith(_NO_ANSWER)
            }
            said.setdefault(index, {}).update(dict.fromkeys(kinds, True))
    top["choices"] = [
        {"finish_reason": reason, "message": said[index]} for index, reason in reasons.items()
    ]
    return top


# --- serving ----------------------------------------------------------------------------------


def serve(entry: Entry, ask: Ask, mint: Mint, rules: ApiRules) -> bytes:
    """See `WireApi.serve`."""
    if entry.recorded is Form.STREAM:
        chunks, _ = _chunks(entry.payload)
        if ask.form is Form.STREAM:
            return _written(_fresh_chunks(list(_asked(chunks, ask)), ask, mint))
        return canonical.encode(_fresh(merge(chunks, rules), ask, mint))
    document = canonical.parse(entry.payload)
    assert isinstance(document, dict)  # it was read before it was stored
    document = _fresh(document, ask, mint)
    if ask.form is Form.BODY:
        return canonical.encode(document)
    return _written(list(split(document, include_usage=ask.include_usage)))


def _written(chunks: list[Object]) -> bytes:
    written = [sse.write(canonical.encode(chunk)) for chunk in chunks]
    return b"".join(written) + sse.write(_DONE.encode())


def _asked(chunks: list[Object], ask: Ask) -> Iterator[Object]:
    """The recorded chunks as this client asked for them: with or without usage."""
    for chunk in chunks:
        if ask.include_usage:
            yield chunk if "usage" in chunk else {**chunk, "usage": None}
        elif not (chunk.get("choices") == [] and chunk.get("usage") is not None):
            yield {name: value for name, value in chunk.items() if name != "usage"}


def _fresh(document: Object, ask: Ask, mint: Mint) -> Object:
    """The document as if it had been made now, for this request."""
    calls = [
        call
        for choice in lenient.objects(document.get("choices"))
        for call in lenient.objects(lenient.members(choice.get("message")).get("tool_calls"))
    ]
    envelope.replace_ids(calls, ask.history_ids, mint)
    return _restamped(document, _fresh_id([document], mint), mint)


def _fresh_chunks(chunks: list[Object], ask: Ask, mint: Mint) -> list[Object]:
    calls = [
        call
        for chunk in chunks
        for choice in lenient.objects(chunk.get("choices"))
        for call in lenient.objects(lenient.members(choice.get("delta")).get("tool_calls"))
    ]
    envelope.replace_ids(calls, ask.history_ids, mint)
    fresh = _fresh_id(chunks, mint)
    return [_restamped(chunk, fresh, mint) for chunk in chunks]


def _fresh_id(owners: list[Object], mint: Mint) -> str:
    """One id for the whole answer: clients count an answer with a known id as one they had."""
    original = next((given for o in owners if (given := lenient.text(o.get("id")))), "")
    return mint.unlike(original, {original})


def _restamped(owner: Object, fresh_id: str, mint: Mint) -> Object:
    out = dict(owner)
    if lenient.text(owner.get("id")):
        out["id"] = fresh_id
    created = owner.get("created")
    # Some servers send 0 or nothing in odd chunks; what was no time stays none.
    if isinstance(created, canonical.Number) and created.raw != "0":
        out["created"] = canonical.Number(str(mint.now_s))
    return out
