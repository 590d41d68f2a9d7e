"""OpenAI Completions: how its answers end; chunks into a document, a document into chunks.

Rule 1: what can't be merged without loss is `Unmergeable`; nothing is dropped in silence.
Rule 2: a document is only split in ways that `merge` was seen to undo (`splits_cleanly`).
Rule 3: only members that are documented to come in pieces are joined. Another text, list or
object that is stated twice may be two pieces, even two that look alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core import canonical
from gateway.core.model import Finish
from gateway.wire import lenient
from gateway.wire.base import Unmergeable
from gateway.wire.openai_chunks import (
    WORDS,
    merge_top,
    pieces,
    settle,
    top_of_chunk,
)
from gateway.wire.plain_answers import is_plain_completion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.canonical import Json
    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object

_OBJECT = "text_completion"
_FINISHES = {
    "stop": Finish.COMPLETE,
    "length": Finish.TRUNCATED,
    "content_filter": Finish.REFUSED,
}
# One item for each token: OpenAI's four, and `content` where an engine answers as chat does.
_TOKEN_LISTS = frozenset({"tokens", "token_logprobs", "top_logprobs", "text_offset", "content"})
_KNOWN = frozenset({"index", "text", "logprobs", "finish_reason"})


class CompletionShape:
    """See `Shape`: documents and chunks are both a `text_completion`."""

    def merge(self, chunks: list[Object], rules: ApiRules) -> Object:  # noqa: ARG002 - a Shape
        """See `Shape.merge`."""
        document = merge_top(chunks, _OBJECT)
        choices: dict[int, Object] = {}
        for piece in pieces(chunks):
            _merge_choice(choices, piece)
        document["choices"] = [_document_choice(choices[index]) for index in sorted(choices)]
        return document

    def split(self, document: Object, *, include_usage: bool) -> Iterator[Object]:
        """See `Shape.split`."""
        top = top_of_chunk(document, _OBJECT)
        usage: Object = {"usage": None} if include_usage else {}
        for choice in lenient.objects(document.get("choices")):
            for piece in _split_choice(choice):
                yield {**top, "choices": [piece], **usage}
        if include_usage:
            yield {**top, "choices": [], "usage": document.get("usage")}

    def splits(self, document: Object, rules: ApiRules) -> bool:
        """See `Shape.splits`."""
        return is_plain_completion(document) or self.splits_cleanly(document, rules)

    def splits_cleanly(self, document: Object, rules: ApiRules) -> bool:
        """Do the document's chunks merge back into it, with nothing lost or added?"""
        try:
            merged = self.merge(list(self.split(document, include_usage=True)), rules)
        except Unmergeable:
            return False
        return canonical.same(_bare(merged), _bare(document))

    def finish(self, choice: Object) -> Finish:
        """See `Shape.finish`."""
        reason = choice.get("finish_reason")
        text = choice.get("text")
        if not isinstance(text, str):
            return Finish.UNKNOWN
        known = _FINISHES.get(reason) if isinstance(reason, str) else None
        finish = known or Finish.UNKNOWN
        return Finish.EMPTY if not text and finish is not Finish.REFUSED else finish

    def sketch(self, pieces: list[Object]) -> Object:
        """See `Shape.sketch`."""
        return {"text": "".join(lenient.text(piece.get("text")) for piece in pieces)}

    def tool_calls(self, owner: Object) -> list[Object]:  # noqa: ARG002 - a Shape
        """See `Shape.tool_calls`: this API has none."""
        return []


def _merge_choice(choices: dict[int, Object], piece: Json) -> None:
    index = lenient.index(piece.get("index")) if isinstance(piece, dict) else None
    if not isinstance(piece, dict) or index is None:
        raise Unmergeable("a choice has no index")
    text = piece.get("text", "")
    if not isinstance(text, str):
        raise Unmergeable("a choice's text is none")
    choice = choices.setdefault(index, {"index": piece["index"], "text": ""})
    choice["text"] = lenient.text(choice["text"]) + text
    for name, value in piece.items():
        if name == "logprobs":
            _merge_logprobs(choice, value)
        elif name == "token_ids" and isinstance(value, list):
            # vLLM, `return_token_ids`: "token_ids contains the delta tokens for each chunk".
            choice[name] = lenient.items(choice.get(name)) + value
        elif name not in _KNOWN and isinstance(value, (str, list, dict)):
            if choice.get(name) is not None:
                raise Unmergeable(f"$.choices[].{name} is not known to come in pieces")
            choice[name] = value
        elif name not in {"index", "text"}:
            settle(choice, name, value, "$.choices[]")


def _merge_logprobs(choice: Object, piece: Json) -> None:
    if piece is None:
        return
    if not isinstance(piece, dict):
        raise Unmergeable("logprobs is no object")
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        logprobs = choice["logprobs"] = {}
    for name, value in piece.items():
        if name in _TOKEN_LISTS and isinstance(value, list):
            logprobs[name] = lenient.items(logprobs.get(name)) + value
        elif name in _TOKEN_LISTS and value is None:
            logprobs.setdefault(name, None)
        else:
            raise Unmergeable(f"$.choices[].logprobs.{name} is not known to come in pieces")


def _document_choice(choice: Object) -> Object:
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict):
        # A list that some pieces left out would be shorter, and speak of the wrong tokens.
        lengths = {len(value) for value in logprobs.values() if isinstance(value, list) and value}
        if len(lengths) > 1:
            raise Unmergeable("the lists in logprobs don't match")
    return {
        "index": choice["index"],
        "text": choice["text"],
        "logprobs": logprobs,
        **{
            name: value
            for name, value in choice.items()
            if name not in {"index", "text", "logprobs"}
        },
    }


def _split_choice(choice: Object) -> Iterator[Object]:
    def piece(text: str, logprobs: Json = None, finish: Json = None) -> Object:
        return {
            "index": choice.get("index"),
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish,
        }

    text = choice.get("text")
    if not isinstance(text, str):
        raise Unmergeable("a choice has no text")
    logprobs = choice.get("logprobs")
    # Tokens and their probabilities travel together.
    for words in [text] if logprobs is not None else WORDS.findall(text):
        yield piece(words, logprobs)
    closing = piece("", finish=choice.get("finish_reason"))
    yield {**closing, **{k: v for k, v in choice.items() if k not in _KNOWN}}


def _bare(value: Json) -> Json:
    """The value without members that are null, which says nothing."""
    if isinstance(value, dict):
        return {name: _bare(member) for name, member in value.items() if member is not None}
    return [_bare(item) for item in value] if isinstance(value, list) else value
