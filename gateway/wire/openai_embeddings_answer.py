"""OpenAI Embeddings: an answer taken apart, unit by unit, and put together again.

Rule 1: every unit is stored as the whole answer that it would have got alone; its embeddings,
and everything else, are spelled as they were. Only `index` counts anew, and `usage` says less.
Rule 2: usage is never guessed. A unit has its own count if it was asked alone, or if tokens were
sent and the upstream counted as many; else it has none (see docs/explanation/embeddings.md).
Rule 3: anything odd in an answer, and none of it is stored or mixed with other answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from gateway.core.model import Answer, Finish, Form, Usage
from gateway.wire import spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.mint import Mint
    from gateway.wire.spans import Span


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest part of a batch that is stored for itself: one input, if inputs are independent
    of each other, else all of them.
    """

    canonical: bytes
    """Of the request for this unit alone."""
    size: int = 1
    """How many embeddings answer it."""
    tokens: int | None = None
    """How many tokens were sent, where tokens were sent and no text."""


class _Odd(Exception):
    """The document is no answer to be kept; `finish` is what it is instead."""

    def __init__(self, finish: Finish) -> None:
        super().__init__(finish)
        self.finish = finish


@dataclass(frozen=True, slots=True)
class _Document:
    """An answer and where its parts stand."""

    text: str
    top: dict[str, Span]
    items: tuple[Span, ...]
    model: str
    tokens: int | None
    """What `usage` states, if it states one number."""

    def with_data(self, embeddings: Sequence[str], changes: Sequence[tuple[Span, str]] = ()) -> str:
        """The text with these embeddings and `changes` instead of its own."""
        return spans.replaced(
            self.text, [(self.top["data"], f"[{','.join(embeddings)}]"), *changes]
        )

    def embedding(self, position: int, index: int) -> str:
        """The item at this position as it is spelled, counted as `index`."""
        item = self.items[position]
        change = (item.members["index"], str(index))
        return spans.replaced(self.text, [change], item.start, item.end)

    def stated_usage(self) -> Span | None:
        """Where usage stands; None for an upstream that states none, and so none for a part or
        a batch either.
        """
        usage = self.top.get("usage")
        return None if usage is None or usage.of(self.text) == "null" else usage


def read_body(document: bytes) -> Answer:
    """Judge a whole JSON answer. Never raises."""
    try:
        read = _read(document)
    except _Odd as odd:
        return Answer(Form.BODY, document, odd.finish)
    return _answer(document, read, read.tokens)


def unreadable(form: Form, payload: bytes) -> Answer:
    """What isn't an answer of this API."""
    return Answer(form, payload, Finish.UNKNOWN)


def answer_parts(document: bytes, units: Sequence[Unit]) -> list[Answer] | None:
    """The answer to each of the units that were asked for, in their order, ready to be stored
    under its own key; None for a document that isn't exactly the answer to them.
    """
    try:
        read = _read(document)
    except _Odd:
        return None
    if len(read.items) != sum(unit.size for unit in units):
        return None
    if len(units) == 1:
        return [_answer(document, read, read.tokens)]
    stated = read.stated_usage()
    parts: list[Answer] = []
    position = 0
    for unit, tokens in zip(units, _counts(read, units), strict=True):
        embeddings = [read.embedding(position + i, i) for i in range(unit.size)]
        position += unit.size
        text = read.with_data(embeddings, [] if stated is None else [(stated, _usage(tokens))])
        parts.append(_answer(text.encode(), read, tokens))
    return parts


def assemble(
    units: Sequence[Unit], parts: Sequence[bytes], frame: bytes | None, mint: Mint | None
) -> Answer | None:
    """The answer to a batch of these units, whose own answers are the `parts`, in order.

    What it says beside the embeddings is what the `frame` says: the upstream's answer to this
    call, or `frame_of` an earlier answer to the same batch. Without one it is what the first part
    says, with the usage of all parts if each has its own, or else 0, as nothing was asked.
    `mint` is for answers of which no part is of this call: id and time, where the upstream sends
    such, are made anew.

    None if a document is odd or answers another number of inputs, or if they don't agree on the
    model: vectors of two models can't be compared, and one `model` can't speak for both.
    """
    try:
        read = [_read(part, known=True) for part in parts]
        base = None if frame is None else _read(frame, framed=True)
    except _Odd:
        return None
    if [unit.size for unit in units] != [len(part.items) for part in read]:
        return None
    if any(part.model != (base or read[0]).model for part in read):
        return None
    return _joined(read, base, mint)


def renewed(payload: bytes, mint: Mint) -> bytes:
    """A stored answer to one unit, as if made now."""
    return _joined([_read(payload, known=True)], None, mint).payload


def _joined(parts: Sequence[_Document], frame: _Document | None, mint: Mint | None) -> Answer:
    base = frame or parts[0]
    embeddings: list[str] = []
    for part in parts:
        for position in range(len(part.items)):
            embeddings.append(part.embedding(position, len(embeddings)))
    changes: list[tuple[Span, str]] = []
    tokens = base.tokens
    usage = base.stated_usage() if frame is None else None
    if usage is not None and (len(parts) > 1 or usage.of(base.text) == _NO_COUNT):
        tokens = _sum([part.tokens for part in parts])
        changes.append((usage, _usage(tokens)))
    if mint is not None:
        changes += _stamps(base, mint)
    return _answer(base.with_data(embeddings, changes).encode(), base, tokens)


def frame_of(answer: bytes) -> Answer:
    """What an answer to a batch says beside its embeddings, to be stored under `Batch.frame`.
    `answer` is one that `answer_parts` could read, or that `assemble` made.
    """
    read = _read(answer, known=True)
    return _answer(read.with_data(()).encode(), read, read.tokens)


def _answer(payload: bytes, read: _Document, tokens: int | None) -> Answer:
    identifier = read.top.get("id")
    return Answer(
        Form.BODY,
        payload,
        Finish.COMPLETE,
        forms=frozenset({Form.BODY}),
        usage=None if tokens is None else Usage(uncached_input=tokens),
        model=read.model,
        response_id=identifier.value if identifier and isinstance(identifier.value, str) else "",
    )


# --- reading ------------------------------------------------------------------------------------


def _read(document: bytes, *, framed: bool = False, known: bool = False) -> _Document:
    """The document with its parts found. Raises `_Odd`. One that is `known` was read before."""
    try:
        text = document.decode()
        top = spans.locate(text, 3, is_json=known).members
    except ValueError as error:
        raise _Odd(Finish.UNKNOWN) from error
    if "error" in top and top["error"].of(text) != "null":
        raise _Odd(Finish.ERROR)
    data, model = top.get("data"), top.get("model")
    if data is None or model is None or not isinstance(model.value, str):
        raise _Odd(Finish.UNKNOWN)
    if top.get("object", data).value != "list" or text[data.start] != "[":
        raise _Odd(Finish.UNKNOWN)
    if not data.items and not framed:
        raise _Odd(Finish.EMPTY)
    if not all(_is_embedding(item, index) for index, item in enumerate(data.items)):
        raise _Odd(Finish.UNKNOWN)
    return _Document(text, top, data.items, model.value, _tokens(text, top.get("usage")))


def _is_embedding(item: Span, index: int) -> bool:
    kind, number = item.members.get("object"), item.members.get("index")
    vector = item.members.get("embedding")
    if kind is None or number is None or vector is None:
        return False
    return (
        kind.value == "embedding"
        and type(number.value) is int
        and number.value == index
        and (vector.numbers or (isinstance(vector.value, str) and vector.value != ""))
    )


def _tokens(text: str, usage: Span | None) -> int | None:
    """The tokens of an answer's usage; None where it states none. Raises `_Odd`."""
    if usage is None or usage.of(text) in {"null", _NO_COUNT}:
        return None
    prompt, total = usage.members.get("prompt_tokens"), usage.members.get("total_tokens")
    if prompt is None or type(prompt.value) is not int or prompt.value < 0:
        raise _Odd(Finish.UNKNOWN)
    return prompt.value if total is None or total.value == prompt.value else None


def _counts(read: _Document, units: Sequence[Unit]) -> list[int | None]:
    """The tokens of each unit, as far as the answer to all of them proves any."""
    sent = [unit.tokens for unit in units if unit.tokens is not None]
    if len(sent) == len(units) and sum(sent) == read.tokens:
        return list(sent)
    return [None] * len(units)


# --- writing ------------------------------------------------------------------------------------


_NO_COUNT = "{}"
"""The usage of a unit that was asked among others."""


def _sum(counts: list[int | None]) -> int:
    """All tokens if each count is known, else what was asked for: none."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else 0


def _usage(tokens: int | None) -> str:
    return _NO_COUNT if tokens is None else f'{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}'


def _stamps(read: _Document, mint: Mint) -> list[tuple[Span, str]]:
    changes: list[tuple[Span, str]] = []
    identifier, created = read.top.get("id"), read.top.get("created")
    if identifier is not None and isinstance(identifier.value, str) and identifier.value:
        fresh = mint.unlike(identifier.value, {identifier.value})
        changes.append((identifier, orjson.dumps(fresh).decode()))
    if created is not None and type(created.value) is int and created.value:
        changes.append((created, str(mint.now_s)))
    return changes
