"""Answers of OpenAI's chat and completions APIs: judge them, and serve them in either form.

Rule 1: a form is offered only if it was proven here that it loses nothing: a stream is offered as
a document if every delta merged, a document as a stream if its chunks merge back into it.
Rule 2: numbers, member order and unknown members of the original stay as they were spelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import orjson

from gateway.core import canonical, usage
from gateway.core.model import Answer, Finish, Form
from gateway.wire import envelope, lenient, openai_chunks
from gateway.wire.base import Unmergeable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.canonical import Json
    from gateway.core.mint import Mint
    from gateway.core.model import Ask, Entry, Usage
    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object


class Shape(Protocol):
    """How the documents and chunks of one API are made."""

    def merge(self, chunks: list[Object], rules: ApiRules) -> Object:
        """The document that says what the chunks say. Raises `Unmergeable`."""

    def split(self, document: Object, *, include_usage: bool) -> Iterator[Object]:
        """The document as chunks, `[DONE]` not included. Raises `Unmergeable`."""

    def splits(self, document: Object, rules: ApiRules) -> bool:
        """Do the document's chunks merge back into it, with nothing lost or added?"""

    def finish(self, choice: Object) -> Finish:
        """How one choice of a document ended."""

    def sketch(self, pieces: list[Object]) -> Object:
        """A choice from the pieces of an unmergeable stream: enough to judge, not to serve."""

    def tool_calls(self, owner: Object) -> list[Object]:
        """The tool calls of a document or a chunk, to be changed in place."""


def read_body(document: bytes, rules: ApiRules, shape: Shape) -> Answer:
    """Judge a whole JSON answer. Never raises."""
    try:
        answer = canonical.parse(document)
    except canonical.Uncacheable:
        return _unreadable(Form.BODY, document)
    if not isinstance(answer, dict):
        return _unreadable(Form.BODY, document)
    convertible = shape.splits(answer, rules)
    return _judged(answer, Form.BODY, document, shape, convertible=convertible)


def read_stream(events: bytes, rules: ApiRules, shape: Shape) -> Answer:
    """Judge a whole recorded SSE text. Never raises."""
    try:
        chunks, done = openai_chunks.read(events)
    except (canonical.Uncacheable, UnicodeDecodeError, Unmergeable):
        return _unreadable(Form.STREAM, events)
    if any(chunk.get("error") is not None for chunk in chunks):
        return Answer(Form.STREAM, events, Finish.ERROR)
    if not done or not chunks:
        return Answer(Form.STREAM, events, Finish.INCOMPLETE)
    try:
        document = shape.merge(chunks, rules)
    except Unmergeable:
        document = None
    seen = document or _sketched(chunks, shape)
    return _judged(seen, Form.STREAM, events, shape, convertible=document is not None)


def _unreadable(form: Form, payload: bytes) -> Answer:
    return Answer(form, payload, Finish.UNKNOWN)


def _judged(
    answer: Object, recorded: Form, payload: bytes, shape: Shape, *, convertible: bool
) -> Answer:
    stated = usage.from_openai(canonical.plain(answer.get("usage")))
    other = Form.BODY if recorded is Form.STREAM else Form.STREAM
    choices = lenient.objects(answer.get("choices"))
    # A document always states its usage; without it a stream can't become one. Without choices
    # there is nothing to put into chunks.
    both = convertible and choices != [] and (recorded is Form.BODY or stated is not None)
    reasons = tuple(str(c.get("finish_reason") or "") for c in choices)
    return Answer(
        recorded,
        payload,
        finish=_finish(answer, choices, shape),
        forms=frozenset({recorded, other} if both else {recorded}),
        finish_reasons=reasons,
        usage=_spent(answer, choices),
        model=lenient.text(answer.get("model")),
        response_id=lenient.text(answer.get("id")),
        has_stream_usage=stated is not None,
        terms=lenient.texts(answer, "service_tier"),
        reasoning=usage.reasoning(_stated(answer, choices)),
        fingerprint=lenient.text(answer.get("system_fingerprint")),
    )


def _spent(answer: Object, choices: list[Object]) -> Usage | None:
    """What was spent, wherever a server says so. Only `usage` is what a client can have asked for."""
    return usage.from_openai(_stated(answer, choices), canonical.plain(answer.get("timings")))


def _stated(answer: Object, choices: list[Object]) -> object:
    places = (answer, lenient.members(answer.get("x_groq")), *choices)
    told = next((each["usage"] for each in places if each.get("usage") is not None), None)
    return canonical.plain(told)


def _finish(answer: Object, choices: list[Object], shape: Shape) -> Finish:
    """The least cacheable finish of all choices."""
    if answer.get("error") is not None:
        return Finish.ERROR
    if not choices:
        return Finish.EMPTY
    finishes = {shape.finish(choice) for choice in choices}
    order = (Finish.EMPTY, Finish.UNKNOWN, Finish.REFUSED, Finish.TRUNCATED)
    return next((f for f in order if f in finishes), Finish.COMPLETE)


def _sketched(chunks: list[Object], shape: Shape) -> Object:
    top: Object = {}
    pieces: dict[str, list[Object]] = {}
    for chunk in chunks:
        for name in ("id", "model", "system_fingerprint"):
            top[name] = top.get(name) or chunk.get(name)
        # Where every chunk states it, it counts up: the last one is the total.
        for name in ("usage", "timings", "x_groq", "service_tier"):
            top[name] = chunk.get(name) or top.get(name)
        for piece in lenient.objects(chunk.get("choices")):
            pieces.setdefault(repr(piece.get("index")), []).append(piece)
    choices: list[Json] = []
    for each in pieces.values():
        reasons = [reason for piece in each if (reason := piece.get("finish_reason"))]
        spent = [told for piece in each if (told := piece.get("usage")) is not None]
        choices.append(
            {
                "finish_reason": reasons[-1] if reasons else None,
                "usage": spent[-1] if spent else None,
                **shape.sketch(each),
            }
        )
    top["choices"] = choices
    return top


# --- serving ----------------------------------------------------------------------------------


def can_serve(entry: Entry, ask: Ask) -> bool:
    """See `WireApi.can_serve`."""
    if ask.form not in entry.forms:
        return False
    return not (ask.form is Form.STREAM and ask.include_usage) or entry.has_stream_usage


def serve(entry: Entry, ask: Ask, mint: Mint, rules: ApiRules, shape: Shape) -> bytes:
    """See `WireApi.serve`."""
    if entry.recorded is Form.STREAM:
        chunks, _ = openai_chunks.read(entry.payload)
        if ask.form is Form.STREAM:
            chunks = list(openai_chunks.asked(chunks, ask))
            return openai_chunks.write(_fresh(chunks, ask, mint, shape))
        document: Json = shape.merge(chunks, rules)
    else:
        document = canonical.parse(entry.payload)
    assert isinstance(document, dict)  # it was read before it was stored
    [document] = _fresh([document], ask, mint, shape)
    if ask.form is Form.BODY:
        return canonical.encode(document)
    return openai_chunks.write(list(shape.split(document, include_usage=ask.include_usage)))


def _fresh(owners: list[Object], ask: Ask, mint: Mint, shape: Shape) -> list[Object]:
    """The document, or the chunks, as if made now, for this request."""
    calls = [call for owner in owners for call in shape.tool_calls(owner)]
    envelope.replace_ids(calls, ask.history_ids, mint)
    return openai_chunks.stamped(owners, mint)


# --- our own errors -----------------------------------------------------------------------------


def error(status: int, message: str, code: str, param: str | None) -> bytes:
    """See `WireApi.error`: `{"error": {"message", "type", "param", "code"}}`."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    # A message may quote a header or a path, which may hold what is no text.
    said = message.encode("utf-8", "replace").decode()
    return orjson.dumps({"error": {"message": said, "type": kind, "param": param, "code": code}})
