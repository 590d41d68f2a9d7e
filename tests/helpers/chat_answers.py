"""Chat Completions as a client reads them: a body, or a stream merged. Knows nothing of the
gateway's own way to merge: what that loses is seen here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp


HELLO = orjson.dumps(
    {
        "id": "chatcmpl-123456789",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello."},
                "finish_reason": "stop",
            }
        ],
    }
)
"""The document of a plain answer, as an upstream sends it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a function."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What a client gets out of an answer with one choice."""

    cache: str
    """What `x-gateway-cache` says; empty without it."""
    id: str
    model: str
    content: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    usage: Mapping[str, Any] | None


async def ask(
    session: aiohttp.ClientSession, url: str, body: Mapping[str, Any] | bytes, **headers: str
) -> ChatAnswer:
    """Post the body to the whole `url`; AssertionError for anything but a complete answer."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    sent = {"content-type": "application/json", "authorization": "Bearer sk-test", **headers}
    async with session.post(url, data=raw, headers=sent) as response:
        got = await response.read()
        assert response.status == 200, f"{response.status}: {got[:500]!r}"
        cache = response.headers.get("x-gateway-cache", "")
        if response.content_type == "text/event-stream":
            return _merged(got, cache)
        assert response.content_type == "application/json"
        return _read(got, cache)


def _read(document: bytes, cache: str) -> ChatAnswer:
    answer = orjson.loads(document)
    assert answer["object"] == "chat.completion"
    [choice] = answer["choices"]
    message = choice["message"]
    assert message["role"] == "assistant"
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    )
    return ChatAnswer(
        cache=cache,
        id=answer["id"],
        model=answer["model"],
        content=message["content"],
        tool_calls=calls,
        finish_reason=choice["finish_reason"],
        usage=answer["usage"],
    )


def _merged(stream: bytes, cache: str) -> ChatAnswer:
    *events, done, nothing = stream.split(b"\n\n")
    assert (done, nothing) == (b"data: [DONE]", b"")
    ids, models = set(), set()
    role: str | None = None
    content: str | None = None
    calls: dict[int, list[str]] = {}
    finish: str | None = None
    usage: Mapping[str, Any] | None = None
    for event in events:
        assert event.startswith(b"data: {")
        chunk = orjson.loads(event.removeprefix(b"data: "))
        assert chunk["object"] == "chat.completion.chunk"
        assert usage is None, "something follows the usage"
        ids.add(chunk["id"])
        models.add(chunk["model"])
        usage = chunk.get("usage")
        if not chunk["choices"]:
            assert usage is not None
            continue
        [choice] = chunk["choices"]
        assert finish is None, "something follows the end"
        finish = choice["finish_reason"]
        delta = choice["delta"]
        role = delta.get("role", role)
        if delta.get("content") is not None:
            content = (content or "") + delta["content"]
        for call in delta.get("tool_calls") or ():
            held = calls.setdefault(call["index"], ["", "", ""])
            function = call.get("function", {})
            for place, piece in enumerate(
                (call.get("id"), function.get("name"), function.get("arguments"))
            ):
                held[place] += piece or ""
    [identifier], [model] = ids, models
    assert role == "assistant"
    assert finish is not None
    return ChatAnswer(
        cache=cache,
        id=identifier,
        model=model,
        content=content,
        tool_calls=tuple(ToolCall(*call) for _, call in sorted(calls.items())),
        finish_reason=finish,
        usage=usage,
    )
