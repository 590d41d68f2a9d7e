"""Requests and answers of OpenAI's Chat Completions, as small as a test wants them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gateway.core import sse
from gateway.core.mint import Mint
from gateway.core.model import Answer, Ask, Entry, Form
from gateway.providers.openai import CHAT
from gateway.providers.unknown import UNKNOWN
from gateway.wire.openai_chat import OpenAIChat

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules

API = OpenAIChat()
UNKNOWN_CHAT: ApiRules = UNKNOWN.apis["openai_chat"]
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
CALL = {"id": "call_Ab3dEf9h", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def request(**changes: Any) -> dict[str, Any]:
    """A plain request with members added or replaced."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **changes}


def canonical_of(body: bytes | dict[str, Any], rules: ApiRules = CHAT) -> bytes:
    """The canonical bytes of a request."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return API.understand(raw, rules).canonical


def choice(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    """One choice of a document."""
    whole = {"role": "assistant", "content": None, "refusal": None, "annotations": []} | message
    return {"index": 0, "message": whole, "logprobs": None, "finish_reason": finish} | more


def document(*choices: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole answer."""
    numbered = [{**each, "index": index} for index, each in enumerate(choices)]
    return {
        "id": "chatcmpl-Ck2Zq9aAbB7x",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": "gpt-4o-2024-08-06",
        "choices": numbered,
        "usage": USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        **changes,
    }


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk; without a delta, one without choices."""
    index = more.pop("index", 0)
    logprobs = more.pop("logprobs", None)
    piece = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return {
        "id": "chatcmpl-Ck2Zq9aAbB7x",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "gpt-4o-2024-08-06",
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": [] if delta is None else [piece],
        **more,
    }


def stream(*chunks: dict[str, Any], done: bool = True, usage: bool = True) -> bytes:
    """A recorded stream, with the usage chunk that the gateway asks for."""
    sent = [*chunks, chunk(None, usage=USAGE)] if usage else list(chunks)
    written = b"".join(sse.write(json.dumps(each).encode()) for each in sent)
    return written + (sse.write(b"[DONE]") if done else b"")


def read_document(value: dict[str, Any], rules: ApiRules = CHAT) -> Answer:
    """Judge a document."""
    return API.read_body(json.dumps(value).encode(), rules)


def entry_of(answer: Answer) -> Entry:
    """The entry that the store would hold for it."""
    return Entry(
        api=API.name,
        recorded=answer.recorded,
        forms=answer.forms,
        payload=answer.payload,
        stored_at=0.0,
        ttl_s=1.0,
        model=answer.model,
        response_id=answer.response_id,
        usage=answer.usage,
        has_stream_usage=answer.has_stream_usage,
    )


def ask(form: Form, *, usage: bool = False, history: frozenset[str] = frozenset()) -> Ask:
    """What a client wants of the entry."""
    return Ask(form=form, model="gpt-4o", include_usage=usage, history_ids=history)


def served(
    answer: Answer,
    form: Form,
    rules: ApiRules = CHAT,
    *,
    usage: bool = False,
    history: frozenset[str] = frozenset(),
    seed: bytes = b"seed",
) -> bytes:
    """The answer as a client gets it from the cache."""
    wanted = ask(form, usage=usage, history=history)
    entry = entry_of(answer)
    assert API.can_serve(entry, wanted)
    return API.serve(entry, wanted, Mint(1_800_000_000, seed), rules)


def served_document(answer: Answer, rules: ApiRules = CHAT, **how: Any) -> dict[str, Any]:
    """The served document, parsed."""
    value: dict[str, Any] = json.loads(served(answer, Form.BODY, rules, **how))
    return value


def served_chunks(answer: Answer, rules: ApiRules = CHAT, **how: Any) -> list[dict[str, Any]]:
    """The served chunks, parsed; the closing `[DONE]` is checked and left out."""
    *events, done = sse.parse(served(answer, Form.STREAM, rules, **how))
    assert done.data == "[DONE]"
    return [json.loads(event.data) for event in events]
