"""What the streams of OpenAI's chat and completions APIs share: chunks, then `[DONE]`.

Rule 1: what can't be merged without loss is `Unmergeable`; nothing is dropped in silence.
Rule 2: id and creation time are made anew for every answer served; all else stays as spelled.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import orjson

from gateway.core import canonical, sse
from gateway.core.model import Form
from gateway.wire import lenient
from gateway.wire.base import Unmergeable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.canonical import Json
    from gateway.core.mint import Mint
    from gateway.core.model import Ask
    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object

_DONE = b"[DONE]"
_STREAM_USAGE = b'"stream_options":{"include_usage":true},'
_CHUNK_ONLY = frozenset({"object", "obfuscation"})

_USAGE = re.compile(rb'"usage"[ \t]*:')
_NO_USAGE = re.compile(rb',[ \t]*"usage"[ \t]*:[ \t]*null|"usage"[ \t]*:[ \t]*null[ \t]*,[ \t]*')

# About as much text as a provider sends in one chunk.
WORDS = re.compile(r"(?:\S*\s+){1,4}|\S+")


# --- usage on request ---------------------------------------------------------------------------


def with_usage(body: bytes, ask: Ask, rules: ApiRules) -> bytes | None:
    """See `WireApi.with_stream_usage`. The object is not empty: it has a model."""
    if ask.form is not Form.STREAM or not ask.may_add_usage or rules.stream_usage is None:
        return None
    start = body.index(b"{") + 1
    return body[:start] + _STREAM_USAGE + body[start:]


def without_usage(event: bytes) -> bytes:
    """See `WireApi.without_unasked_usage`: where usage was asked for there is a chunk with it and
    without choices, and a null in all others.
    """
    if b'"usage"' not in event or b'"choices"' not in event:
        return event
    try:
        chunk = orjson.loads(sse.parse(event)[0].data)
    except (ValueError, IndexError):
        return event
    if not isinstance(chunk, dict):
        return event
    if chunk.get("choices") == [] and chunk.get("usage"):
        return b""
    # No string holds a bare quote, so that only a member is spelled like this: if it is the only
    # one of its name it is the chunk's own.
    alone = len(_USAGE.findall(event)) == 1 and chunk.get("usage", 0) is None
    return _NO_USAGE.sub(b"", event) if alone else event


def asked(chunks: list[Object], ask: Ask) -> Iterator[Object]:
    """The recorded chunks as this client asked for them: with or without usage."""
    for chunk in chunks:
        if ask.include_usage:
            yield chunk if "usage" in chunk else {**chunk, "usage": None}
        elif not (chunk.get("choices") == [] and chunk.get("usage") is not None):
            yield {name: value for name, value in chunk.items() if name != "usage"}


# --- on the wire --------------------------------------------------------------------------------


def read(events: bytes) -> tuple[list[Object], bool]:
    """The chunks, and whether `[DONE]` was seen. What these streams never hold is refused,
    because it would be lost when the stream is written anew.

    Raises `Unmergeable`, `Uncacheable` and UnicodeDecodeError.
    """
    chunks: list[Object] = []
    done = False
    for name, data in sse.events(events):
        if done:
            raise Unmergeable("something follows [DONE]")
        if data.strip() == _DONE:
            done = True
            continue
        chunk = canonical.parse(data)
        if not isinstance(chunk, dict):
            raise Unmergeable("a chunk is no object")
        if name == "error":
            chunk = {"error": chunk}
        elif name not in {"", "message"}:
            raise Unmergeable(f"an event is named {name}")
        chunks.append(chunk)
    return chunks, done


def write(chunks: list[Object]) -> bytes:
    """The whole SSE text, `[DONE]` included."""
    written = [sse.write(canonical.encode(chunk)) for chunk in chunks]
    return b"".join(written) + sse.write(_DONE)


# --- what chunks and documents say outside of their choices -----------------------------------


def merge_top(chunks: list[Object], kind: str) -> Object:
    """The document that the chunks' members make, of the `object` named `kind`: its choices
    empty, to be filled in place. Raises `Unmergeable`.
    """
    top: Object = {}
    for chunk in chunks:
        for name, value in chunk.items():
            if name == "usage" and value is not None:
                # Servers that state it in every chunk count up; the last one is the total.
                top[name] = value
            elif name == "created" and top.get(name) is not None:
                pass  # stamped anew in every chunk by some servers, and replaced in replay anyway
            elif name != "choices" and name not in _CHUNK_ONLY:
                settle(top, name, value, "$")
    document: Object = {}
    for name in ("id", "object", "created", "model"):
        document[name] = kind if name == "object" else top.pop(name, None)
    if not (lenient.text(document["id"]) and lenient.text(document["model"])):
        raise Unmergeable("the stream doesn't say its id or model")
    if lenient.index(document["created"]) is None:
        raise Unmergeable("the stream doesn't say when it was made")
    document["choices"] = []
    spent = top.pop("usage", None)
    if spent is not None:
        document["usage"] = spent
    document.update(top)
    return document


def settle(owner: Object, name: str, value: Json, where: str) -> None:
    """A member that is stated again must be stated alike; null states nothing."""
    if owner.get(name) is None:
        owner[name] = value
    elif value is not None and not canonical.same(value, owner[name]):
        raise Unmergeable(f"{where}.{name} changes within the stream")


def pieces(chunks: list[Object]) -> Iterator[Json]:
    """The pieces of all choices, in order. Raises `Unmergeable` for choices that are no list."""
    for chunk in chunks:
        choices = chunk.get("choices")
        if isinstance(choices, list):
            yield from choices
        elif choices is not None:
            raise Unmergeable("choices is no list")


_TOP = frozenset({"id", "object", "created", "model", "choices", "usage"})


def top_of_chunk(document: Object, kind: str) -> Object:
    """What every chunk of the document says beside its choices and usage."""
    return {
        "id": document.get("id"),
        "object": kind,
        "created": document.get("created"),
        "model": document.get("model"),
        **{name: value for name, value in document.items() if name not in _TOP},
    }


# --- stamps -------------------------------------------------------------------------------------


def stamped(owners: list[Object], mint: Mint) -> list[Object]:
    """The document, or the chunks, as if made now: one fresh id for all, the current time."""
    # Clients count an answer with a known id as one they had.
    original = next((given for o in owners if (given := lenient.text(o.get("id")))), "")
    fresh = mint.unlike(original, {original})
    return [_restamped(owner, fresh, mint) for owner in owners]


def _restamped(owner: Object, fresh_id: str, mint: Mint) -> Object:
    out = dict(owner)
    if lenient.text(owner.get("id")):
        out["id"] = fresh_id
    created = owner.get("created")
    # Some servers send 0 or nothing in odd chunks; what was no time stays none.
    if canonical.is_number(created) and canonical.spelled(created) != "0":
        out["created"] = mint.now_s
    return out
